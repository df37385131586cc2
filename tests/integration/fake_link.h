/* The host's end of a link, for tests: starts a real kbsup-guest and speaks link.proto with it.
 *
 * Everything runs on one loop inside the fl_* calls, each bounded by a deadline; a test that waits
 * in vain fails with what it waited for.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "audit/audit.h"
#include "proto/link.pb-c.h"

#define FL_DEADLINE_MS 20000

struct fl_link;

/* One process of a session: what it wrote, and how it ended. */
struct fl_process {
	struct fl_process *next;
	uint64_t id;
	bool tty;
	bool started, failed, exited;
	int exit_code;
	unsigned signal;
	char *error, *hint; /* of StartFailed */
	unsigned error_code;
	struct kb_buf out, err;
	bool out_eof, err_eof;
	bool stalled;	/* take nothing: spend the credit */
	size_t owed[3]; /* credit to give back */
	struct kb_stream *streams[3];
	struct fl_session *session;
};

struct fl_session {
	struct fl_session *next;
	struct fl_link *link;
	uint8_t id[KB_ULID_SIZE];
	char name[KB_NAME_MAX];
	bool ended;
	int exit_code;
	char *reason;
	uint64_t last_seq;
	uint64_t next_seq; /* the first one not seen yet; a gap fails the test */
	uint32_t denials;
	bool hold_acks;
	struct kb_buf effective, missing; /* one line each */
	struct kb_buf records;		  /* encoded blocks: u32 length, bytes */
	struct fl_process *processes;
};

struct fl_options {
	const char *guest;   /* program; NULL: $KBSUP_GUEST */
	const char *state;   /* directory; required */
	const char *runtime; /* NULL: the guest chooses */
	uid_t uid;	     /* 0: as we are */
};

struct fl_start {
	const char *policy; /* text of a policy, or the name of a preset; NULL: shell */
	const char *workspace;
	const char *home; /* NULL: /home/tester */
	const char *const *argv;
	const char *const *env; /* NULL: the policy's */
	const char *cwd;
	const char *lane;
	const char *rootfs;
	bool tty;
	unsigned rows, cols;
};

struct fl_link *fl_open(const struct fl_options *options);
/* Close the link as a lost one is: the socket goes. Waits for the guest's end; its wait status. */
int fl_close(struct fl_link *link);
pid_t fl_guest_pid(const struct fl_link *link);
/* All that were started, newest first. */
const struct fl_session *fl_sessions(const struct fl_link *link);
const Kb__Hello *fl_hello(struct fl_link *link);

struct fl_session *fl_start(struct fl_link *link, const struct fl_start *start);
struct fl_process *fl_exec(struct fl_session *session, const char *const *argv, bool tty);
struct fl_process *fl_first(struct fl_session *session);
void fl_write(struct fl_process *process, const void *data, size_t len);
void fl_write_eof(struct fl_process *process);
void fl_stall(struct fl_process *process, bool stalled);
void fl_resize(struct fl_process *process, unsigned rows, unsigned cols);
void fl_signal(struct fl_process *process, int signo);
void fl_stop(struct fl_session *session, bool now, const char *reason);
void fl_attached(struct fl_session *session, bool attached);
void fl_ack(struct fl_session *session, uint64_t seq);
void fl_raw(struct fl_link *link, const void *data, size_t len); /* one message as it is */

/* Run the loop until cond(arg) or the deadline (the test fails, naming what). */
void fl_until(struct fl_link *link, bool (*cond)(void *), void *arg, const char *what);
void fl_run_for(struct fl_link *link, int msec);
void fl_wait_started(struct fl_process *process); /* or failed */
void fl_wait_exited(struct fl_process *process);
void fl_wait_ended(struct fl_session *session); /* or failed to start */
/* As fl_wait_ended(), or the guest is gone: false. */
bool fl_wait_ended_or_closed(struct fl_session *session);
void fl_wait_output(struct fl_process *process, const char *text);
bool fl_wait_closed(struct fl_link *link); /* true if with a protocol error from our side */

/* Everything a command prints, in one go; the session has ended. The caller frees. */
struct fl_result {
	char *out, *err;
	int exit_code;
	char *error; /* StartFailed */
	char *reason;
};
void fl_run(struct fl_link *link, const struct fl_start *start, struct fl_result *ret);
void fl_result_finish(struct fl_result *result);
