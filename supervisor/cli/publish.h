/* Ports of sessions on this host: `[HOST:]PORT` as people write it, and the sockets behind it. */
#pragma once

#include "connect.h"

struct kb_publish {
	uint16_t port;	    /* in the session */
	unsigned host_port; /* on 127.0.0.1 */
	int fd;		    /* listens; -1: not yet */
};

struct kb_publish_list {
	struct kb_publish list[KB_PUBLISHED_MAX];
	size_t n;
};

/* Reads one more; listens on nothing yet. The host's port is the session's unless told otherwise;
 * 0: any that is free. */
int kb_publish_add(struct kb_publish_list *ports, const char *text, struct kb_err *err);
/* Listens on all of them. */
int kb_publish_listen(struct kb_publish_list *ports, struct kb_err *err);
/* Hands them to the supervisor: of a session, or (NULL) of the one that is run next. */
int kb_publish_send(struct kb_publish_list *ports, struct kb_client *client, const char *session,
	struct kb_err *err);
/* An array of objects with port, host_port and host. */
json_t *kb_publish_json(const struct kb_published *ports, size_t n);
void kb_publish_finish(struct kb_publish_list *ports);
#define KB_PUBLISH_CLEANUP KB_CLEANUP(kb_publish_finish)
