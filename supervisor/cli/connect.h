/* A loop and a connection to the supervisor, for the verbs that need one. */
#pragma once

#include "cli.h"
#include "supervisor/daemon/client.h"

struct kb_connection {
	struct kb_loop *loop;
	struct kb_client *client;
};

/* start: start a supervisor when there is none. finish is fine on a zeroed one. */
int kb_connect(struct kb_connection *connection, bool start, struct kb_err *err);
/* Without starting one: *ret_running is false, and all is well, when none runs. */
int kb_connect_running(struct kb_connection *connection, bool *ret_running, struct kb_err *err);
void kb_connection_finish(struct kb_connection *connection);
#define KB_CONNECTION_CLEANUP KB_CLEANUP(kb_connection_finish)

/* How many sessions run on each machine, by its name, asked in a hurry; NULL when the supervisor
 * does not answer. An empty object when none runs. */
json_t *kb_sessions_by_machine(void);

/* The one that the user named; "last" is the newest that runs. NULL when there is none. */
const struct kb_session *kb_session_find(
	const struct kb_session *sessions, size_t n, const char *name);

/* Sessions that run; free with kb_sessions_finish(). */
struct kb_sessions {
	struct kb_session *list;
	size_t len;
};
int kb_sessions_read(
	struct kb_sessions *sessions, struct kb_connection *connection, struct kb_err *err);
void kb_sessions_finish(struct kb_sessions *sessions);
#define KB_SESSIONS_CLEANUP KB_CLEANUP(kb_sessions_finish)

/* Make the supervisor's "there is no such session" helpful: what else could have been meant. Fills
 * err only when the name is unknown; 0 and the session's id in ret otherwise. */
int kb_session_resolve(struct kb_connection *connection, const char *name, char ret[KB_ULID_TEXT],
	struct kb_err *err);

/* An audit verb whose answer is read here instead of shown: JSON Lines or one document. */
int kb_ask_json(struct kb_connection *connection, const struct kb_ask *ask, json_t **ret,
	struct kb_err *err);
/* An audit verb whose answer goes to out_fd as it is; on standard output as the terminal there
 * wants it. Returns the exit status, or an error. Does not return when nobody reads any more. */
int kb_ask_show(const struct kb_cli *cli, struct kb_ask *question, int out_fd, struct kb_err *err);
