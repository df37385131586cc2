/* What the files of the client library share. */
#pragma once

#include <sys/queue.h>

#include "client.h"
#include "proto/control.pb-c.h"
#include "supervisor/base/frame.h"

/* Streams of an attachment (control.proto). */
enum { KB_ATTACH_INPUT = 1, KB_ATTACH_OUTPUT, KB_ATTACH_ERROR };

struct kb_client {
	struct kb_loop *loop;
	struct kb_dirs dirs;
	struct kb_channel *ch; /* NULL once it is lost */
	struct kb_err lost;    /* why */
	struct kb_source *timer;
	pid_t pid;
	uint32_t last_id;
	/* The blocking call that runs: its request, and what came of it. */
	uint32_t call_id;
	Kb__Control__Reply *reply;
	bool late;
	bool hurry;
	TAILQ_HEAD(kb_attach_list, kb_attach) attaches;
};

struct kb_attach {
	struct kb_client *client;
	TAILQ_ENTRY(kb_attach) entry;
	const struct kb_attach_ops *ops;
	void *arg;
	uint32_t id;		    /* of the request */
	char session[KB_ULID_TEXT]; /* once it is accepted */
	bool is_exec, detached_start;
	struct kb_channel *ch;	      /* NULL: none, or closed */
	struct kb_stream *streams[4]; /* by number, 1 to 3 */
	struct kb_source *timer;      /* exec: waits for the reason after the channel closed */
	bool tty;
	bool exited;		     /* `exited` was called */
	bool over;		     /* the last word was said */
	Kb__Control__Session *ended; /* came, waits for `exited` */
};

/* Queue a request; *ret_id is its number. */
int kb_client_send(struct kb_client *client, Kb__Control__Request *request, int fd,
	uint32_t *ret_id, struct kb_err *err);
/* Send and wait for the reply. It is checked to be of the wanted kind (an error reply becomes
 * *err). Free it with kb__control__reply__free_unpacked(). */
int kb_client_call(struct kb_client *client, Kb__Control__Request *request, int fd,
	int64_t timeout_ms, Kb__Control__Reply__BodyCase want, Kb__Control__Reply **ret,
	struct kb_err *err);

/* A reply to an attachment's request; taken. */
void kb_attach_reply(struct kb_attach *at, Kb__Control__Reply *reply);
/* The client lost its supervisor. */
void kb_attach_lost(struct kb_attach *at, const struct kb_err *why);

int kb_client_error(const Kb__Control__Error *error, struct kb_err *err);
int kb_session_from_proto(
	const Kb__Control__Session *proto, struct kb_session *ret, struct kb_err *err);
/* Copies that the caller frees with kb_question_finish(). */
int kb_question_from_proto(
	const Kb__Control__Question *proto, struct kb_question *ret, struct kb_err *err);
int kb_status_from_proto(
	const Kb__Control__Status *proto, struct kb_status *ret, struct kb_err *err);
/* Byte strings of a NULL-terminated list, into fresh memory of *ret (free() it); the bytes are not
 * copied. */
int kb_bytes_list(
	const char *const *list, ProtobufCBinaryData **ret, size_t *ret_n, struct kb_err *err);
ProtobufCBinaryData kb_bytes_of(const char *text);
