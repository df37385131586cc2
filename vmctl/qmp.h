/* A QMP client: one command in flight, the rest queued, each with its deadline, nothing blocking.
 *
 * QEMU answers in order, but a stopped or wedged QEMU still accepts connections and simply never
 * answers, and a second client gets no greeting until the first one leaves. So the greeting has a
 * deadline like every command, and a missed deadline ends the client: what a late answer would
 * belong to is no longer known. What QEMU still owed to a client before is answered to this one
 * (seen with QEMU 7.2); it passes by. The QMP protocol: qemu.org/docs/master/interop/qmp-spec.html.
 *
 * All functions run on the loop's thread. Text from QEMU is foreign: it only enters messages
 * through kb_err, which escapes it.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "supervisor/base/err.h"
#include "supervisor/base/loop.h"

#define KB_QMP_LINE_MAX	   (4u << 20) /* one reply or event */
#define KB_QMP_QUEUE_MAX   64	      /* commands waiting */
#define KB_QMP_GREETING_MS 5000	      /* from creation to the end of capability negotiation */

struct kb_qmp;

/* Exactly one of ret (borrowed for the call) and err is not NULL. Called once per command, unless
 * the client is destroyed first. */
typedef void (*kb_qmp_reply_fn)(const json_t *ret, const struct kb_err *err, void *arg);

struct kb_qmp_ops {
	/* May be NULL. data is never NULL (an empty object if QEMU sent none). */
	void (*event)(struct kb_qmp *q, const char *name, const json_t *data, void *arg);
	/* The connection is over; all pending commands have had their reply. May be NULL. Called
	 * once; destroying the client here is allowed. */
	void (*closed)(struct kb_qmp *q, const struct kb_err *why, void *arg);
};

/* Takes fd (a connected, stream socket), also on failure. Commands may be queued at once. */
int kb_qmp_create(struct kb_loop *loop, int fd, const struct kb_qmp_ops *ops, void *arg,
	struct kb_qmp **ret, struct kb_err *err);
/* Number the commands from `first` (the negotiation's number) instead of a random one, for tests
 * that play QEMU. Before anything is queued. */
void kb_qmp_count_from(struct kb_qmp *q, json_int_t first);
/* Drops what is pending without replies. NULL is fine. */
void kb_qmp_destroy(struct kb_qmp *q);
/* Whether QEMU has greeted and agreed: until then it has seen no command. */
bool kb_qmp_ready(const struct kb_qmp *qmp);
/* Queue a command. args (may be NULL) is consumed, also on failure. With fd >= 0 a duplicate of it
 * travels along (for getfd); the caller keeps its own. The deadline counts from the moment the
 * command is sent. */
int kb_qmp_execute(struct kb_qmp *q, const char *command, json_t *args, int fd, int timeout_ms,
	kb_qmp_reply_fn fn, void *arg, struct kb_err *err);

/* The pure parser of one line, for the client and for fuzzing. On success exactly one kind. */
enum kb_qmp_kind { KB_QMP_GREETING, KB_QMP_RETURN, KB_QMP_ERROR, KB_QMP_EVENT };
struct kb_qmp_msg {
	enum kb_qmp_kind kind;
	json_t *root;	    /* owned: json_decref() it */
	const json_t *body; /* the return value, error object or event data, within root */
	const char *name;   /* of an event, or an error's class; within root */
	const char *text;   /* an error's description; within root */
	json_int_t id;	    /* of a return or error, -1 without one */
};
int kb_qmp_parse(const char *line, size_t len, struct kb_qmp_msg *ret, struct kb_err *err);
