/* The control socket's client side: what the command line needs of kbsupd.
 *
 * A client works on its caller's loop. The blocking calls turn that loop until the answer is there
 * or the deadline is past; call them outside of callbacks only, one at a time. run, attach and exec
 * are asynchronous: they return at once, and everything else comes through kb_attach_ops.
 *
 * Errors that the supervisor answers arrive as they were made there: code, message and hint. When
 * it cannot be reached or went away the code is KB_ERR_UNREACHABLE. SIGPIPE must be ignored.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "supervisor/base/buf.h"
#include "supervisor/base/dirs.h"
#include "supervisor/base/err.h"
#include "supervisor/base/loop.h"
#include "supervisor/base/str.h"

#define KB_CONTROL_PROTOCOL 1
#define KB_CLIENT_START_MS  10000 /* for a supervisor to start and greet */
#define KB_CLIENT_CALL_MS   10000 /* for an answer */
#define KB_CLIENT_STOP_MS   40000 /* for a session to end */
#define KB_CLIENT_HURRY_MS  120

#define KB_PUBLISHED_MAX 16 /* ports of a session */

/* A port of a session, reachable on loopback of this host. */
struct kb_published {
	uint16_t port, host_port;
};

/* A session as the supervisor sees it; strings are never NULL (empty: not known). */
struct kb_session {
	char id[KB_ULID_TEXT];
	char *name, *agent, *machine, *user;
	char *state; /* starting, running, stopping, ended */
	char *workspace;
	char *reason;		 /* ended, but not by itself */
	uint64_t started, ended; /* ns since the epoch; ended 0: not yet */
	int exit_code;		 /* 0–255 or 128+signal; -1: not yet */
	unsigned signal;	 /* 0: none */
	bool attached, complete; /* complete: ended, and no record is missing */
	uint64_t records, denials, lost;
	uint64_t commands;  /* ended */
	unsigned questions; /* open ones, of `ask` rules */
	struct kb_published ports[KB_PUBLISHED_MAX];
	size_t n_ports;
	uint64_t changed, deleted, hosts, secrets; /* only after kb_client_summary() */
};
void kb_session_finish(struct kb_session *session);

struct kb_role_status {
	char *name, *machine, *state; /* machine: of a link, else empty */
	pid_t pid;
};

struct kb_status {
	pid_t pid;
	char *version, *build;
	uint64_t started; /* ns since the epoch */
	struct kb_role_status *roles;
	size_t n_roles;
	char *socket, *store, *log; /* log empty: stderr */
	unsigned sessions;
	/* The machine `local`, once its guest has greeted; empty and 0 before. */
	char *runtime, *runtime_why, *kernel;
	unsigned landlock_abi;
	bool rootless;
	pid_t guest_pid;
	char **limits_missing;
	size_t n_limits_missing;
};
void kb_status_finish(struct kb_status *status);

struct kb_client;

#define KB_CLIENT_START 1u /* start a supervisor when there is none */
#define KB_CLIENT_HURRY                                                                            \
	2u /* what it answers is only shown: wait KB_CLIENT_HURRY_MS for it at most */

/* Connect and greet. Without KB_CLIENT_START, KB_ERR_UNREACHABLE when none runs. A supervisor of
 * another build is refused with the remedy. */
int kb_client_open(
	struct kb_loop *loop, unsigned flags, struct kb_client **ret, struct kb_err *err);
void kb_client_close(struct kb_client *client); /* NULL is fine */
const struct kb_dirs *kb_client_dirs(const struct kb_client *client);
pid_t kb_client_pid(const struct kb_client *client); /* of the supervisor's main */

/* ---- Blocking calls -------------------------------------------------------------------------- */

int kb_client_status(struct kb_client *client, struct kb_status *ret, struct kb_err *err);
/* Sessions that have not ended, oldest first. free(*ret) after finishing each. */
int kb_client_sessions(
	struct kb_client *client, struct kb_session **ret, size_t *ret_n, struct kb_err *err);
/* Returns when the session is over and its record durable. session: id or name. */
int kb_client_stop(struct kb_client *client, const char *session, bool now, struct kb_session *ret,
	struct kb_err *err);
/* End the supervisor; returns when it has gone. */
int kb_client_shutdown(struct kb_client *client, struct kb_err *err);

/* A call that a rule of the policy stopped to ask. Strings are escaped and never NULL. */
struct kb_question {
	char *session; /* name */
	uint64_t number;
	char *process, *call; /* who makes it, and what: "mount(12)", "mount(0x…, …)" */
	char *rule, *rule_text;
	char *file; /* of the rule, as it was named; or "preset:NAME" */
	unsigned line;
	char *text;	/* the policy's words; empty: none */
	uint64_t asked; /* ns since the epoch */
	uint32_t wait_ms;
};
void kb_question_finish(struct kb_question *question);
/* Those that are open, of one session (name or id) or of all (NULL). free(*ret) after finishing
 * each. */
int kb_client_questions(struct kb_client *client, const char *session, struct kb_question **ret,
	size_t *ret_n, struct kb_err *err);
/* verdict: enum kb_asked_answer of audit.h. KB_ERR_NOTFOUND when it is not open (any more). */
int kb_client_answer(struct kb_client *client, const char *session, uint64_t number,
	unsigned verdict, struct kb_err *err);

/* Make a session's port reachable: listener is a TCP socket that is bound to loopback and listens.
 * session NULL: of the session that the next run on this client starts. */
int kb_client_publish(struct kb_client *client, const char *session, uint16_t port, int listener,
	struct kb_err *err);
/* No more; connections that were made go on. */
int kb_client_unpublish(
	struct kb_client *client, const char *session, uint16_t host_port, struct kb_err *err);

/* An audit verb, rendered by a reader process straight to out_fd. */
struct kb_ask {
	const char *verb; /* "sessions", "query", "tree", …: the table in reader_role.c */
	const char *sessions, *expr, *since, *until, *format;
	uint64_t limit, after_seq;
	uint32_t around_pid;
	bool follow;
	bool json, tty, utc;
	unsigned columns;
	const char *home; /* NULL: from the directories */
	uint64_t
		input; /* bytes of a kb.control.AskInput in out_fd's file; the answer replaces it */
};
/* Blocks until all is written, however long that takes. *ret_status: what to exit with. */
int kb_client_ask(struct kb_client *client, const struct kb_ask *ask, int out_fd, int *ret_status,
	struct kb_err *err);

/* Recorded sessions against policies. Sessions of the store and what a policy must be compiled for
 * to be held against each: ask's `sessions` and `since` select them. */
struct kb_recorded {
	char id[KB_ULID_TEXT];
	char *name;
	char *workspace; /* empty: none */
	char *home;	 /* NULL: not known */
	char **programs; /* NULL-terminated */
};
struct kb_recorded_list {
	struct kb_recorded *items;
	size_t n;
};
/* Finish *ret in any case. */
int kb_client_recorded(struct kb_client *client, const struct kb_ask *ask,
	struct kb_recorded_list *ret, struct kb_err *err);
void kb_recorded_finish(struct kb_recorded_list *list);

/* What goes with the verbs replay, learn and explain. */
struct kb_ask_input {
	const struct kb_buf *bundles; /* compiled policies */
	size_t n_bundles;
	const struct kb_ask_trial {
		const char *session; /* id */
		uint32_t bundle;     /* that it is held against */
	} * trials;		     /* replay */
	size_t n_trials;
	const char *name, *base;      /* learn: of the policy that is written, and of bundles[0] */
	const char *home, *workspace; /* learn: what bundles[0] was compiled for */
	uint64_t seq;		      /* explain: of the record */
};
/* file is open for reading and writing, and empty; the answer is in it, from its start. */
int kb_client_ask_about(struct kb_client *client, const struct kb_ask *ask,
	const struct kb_ask_input *input, FILE *file, int *ret_status, struct kb_err *err);

/* Drop ended sessions, oldest first, while they are older than keep_ns (0: any age stays) or all
 * together have more than max_bytes (0: any size stays). Blocks until it is done. */
struct kb_dropped {
	uint64_t sessions, records, bytes;
	uint64_t left_bytes;
};
int kb_client_prune(struct kb_client *client, uint64_t keep_ns, uint64_t max_bytes,
	struct kb_dropped *ret, struct kb_err *err);

/* A log that strace wrote becomes a session. name NULL: one is made. start: ns since the epoch, for
 * a log without dates. Blocks until it is durable. */
struct kb_imported {
	char id[KB_ULID_TEXT], name[KB_NAME_MAX];
	uint64_t records, lines, foreign, cut;
};
int kb_client_import(struct kb_client *client, const char *name, uint64_t start, int log_fd,
	struct kb_imported *ret, struct kb_err *err);

/* What of a session has to be counted from its records: commands, changed, deleted, hosts,
 * secrets. */
int kb_client_summary(struct kb_client *client, struct kb_session *session, struct kb_err *err);

/* ---- Processes: run, attach, exec ------------------------------------------------------------ */

struct kb_process {
	const char *const *argv; /* NULL-terminated */
	const char *const *env;	 /* NULL-terminated; run: complete, exec: on top of the session's.
				    KBSUP_SESSION is added. May be NULL */
	const char *cwd;	 /* NULL: the workspace */
	bool tty;
	unsigned rows, cols; /* tty */
};

struct kb_run {
	const char *name; /* NULL: one is made */
	const char *agent, *machine;
	const char *transport, *address; /* of any machine but `local`; else NULL */
	const char *workspace;		 /* absolute */
	const char *home, *user;
	struct kb_process process;
	const uint8_t *bundle;
	size_t bundle_len;
	const char *policy;
	const char *const *policy_files;     /* NULL-terminated, may be NULL */
	const char *lane, *runtime, *rootfs; /* NULL: not given */
	const char *context; /* where the agent looks for what it is told; NULL: nowhere */
	int secrets;	     /* fd its broker reads them from (see role.proto); 0: it has none */
	const char *trust;   /* PEM: an authority its programs trust besides; NULL: none */
	bool detach;	     /* start without an attachment; `ended` is not called */
	bool stop_on_hangup; /* end the session when this client goes without detaching */
};

struct kb_started {
	const char *const *effective, *const *missing;
	size_t n_effective, n_missing;
	const char *lane; /* or NULL */
	bool tty;
};

struct kb_attach;
struct kb_attach_ops {
	/* The request is under way under this id and name. */
	void (*accepted)(struct kb_attach *at, const char *id, const char *name, void *arg);
	/* The process runs. For attach: it ran before; comes first all the same. */
	void (*started)(struct kb_attach *at, const struct kb_started *started, void *arg);
	/* Bytes for fd 1 or 2 (with a terminal: always 1). Report them with kb_attach_consumed()
	 * once they are written: that is what lets more come. */
	void (*output)(struct kb_attach *at, int fd, const uint8_t *data, size_t len, void *arg);
	/* kb_attach_write() can take more again. */
	void (*writable)(struct kb_attach *at, void *arg);
	/* The process ended and all its output was delivered. The last word for exec. */
	void (*exited)(struct kb_attach *at, int exit_code, unsigned signal, void *arg);
	/* Detached: as asked (reason NULL), or because another client attached. The last word. */
	void (*detached)(struct kb_attach *at, const char *reason, void *arg);
	/* run, attach: the session is over and its record durable. The last word; for run --detach
	 * it is `accepted`. Always after `exited`, unless the process never told (it was lost). */
	void (*ended)(struct kb_attach *at, const struct kb_session *session, void *arg);
	/* It could not be, or was lost. The last word. */
	void (*failed)(struct kb_attach *at, const struct kb_err *why, void *arg);
	/* run, attach: somebody is asked; kb_attach_answer() answers. Both may be NULL. */
	void (*question)(struct kb_attach *at, const struct kb_question *question, void *arg);
	void (*question_over)(struct kb_attach *at, uint64_t number, const char *how, void *arg);
};
/* All other ops must be set. No op is called from within a kb_client_ or kb_attach_ function. */
int kb_client_run(struct kb_client *client, const struct kb_run *run,
	const struct kb_attach_ops *ops, void *arg, struct kb_attach **ret, struct kb_err *err);
int kb_client_attach(struct kb_client *client, const char *session, unsigned rows, unsigned cols,
	const struct kb_attach_ops *ops, void *arg, struct kb_attach **ret, struct kb_err *err);
int kb_client_exec(struct kb_client *client, const char *session, const struct kb_process *process,
	const struct kb_attach_ops *ops, void *arg, struct kb_attach **ret, struct kb_err *err);
/* Before the client is closed. Without a detach first this is a hang-up. NULL is fine. */
void kb_attach_destroy(struct kb_attach *at);

/* How much input a write would take now, or 0 if less than need; how much it took (0: wait for
 * `writable`). */
size_t kb_attach_writable(struct kb_attach *at, size_t need);
int64_t kb_attach_write(struct kb_attach *at, const void *data, size_t len, struct kb_err *err);
/* Standard input ends. Not for a terminal. */
int kb_attach_eof(struct kb_attach *at, struct kb_err *err);
void kb_attach_consumed(struct kb_attach *at, int fd, size_t len);
int kb_attach_resize(struct kb_attach *at, unsigned rows, unsigned cols, struct kb_err *err);
int kb_attach_signal(struct kb_attach *at, int signo, struct kb_err *err);
int kb_attach_detach(struct kb_attach *at, struct kb_err *err);
/* To a question of the session; verdict as in kb_client_answer(). That it came too late is no
 * error. */
int kb_attach_answer(struct kb_attach *at, uint64_t number, unsigned verdict, struct kb_err *err);
