/* The notify collector's own header: what its files share. */
#pragma once

#include <linux/seccomp.h>
#include <stdbool.h>

#include "audit/audit.h"
#include "judge.h"
#include "memory.h"
#include "proc.h"
#include "resolve.h"
#include "sockaddr.h"
#include "throttle.h"
#include "traps.h"

struct kb_pending;
struct kb_standing;

/* The answer to the question whose call is being handled again. */
struct kb_ruling {
	bool allow;
	const char *note;
};

struct kb_listener {
	struct kb_listener *next;
	struct kb_notify *notify;
	struct kb_source *source;
	int fd;
};

struct kb_notify {
	struct kb_loop *loop;
	const struct kb_bundle *bundle;
	struct kb_notify_ops ops;
	void *arg;
	uint32_t arch;
	bool relayed; /* connections out are not judged here */
	int root_fd;
	struct kb_resolver resolver;
	struct kb_procs procs;
	struct kb_source *deaths; /* procs.epoll_fd */
	struct kb_source *lull;	  /* timer: they are listened to again */
	struct kb_source *settle; /* timer: looks after execs whose program makes no call */
	int64_t settle_msec;
	unsigned n_execs; /* waiting for their outcome */
	struct kb_listener *listeners;
	bool paused, split;
	struct kb_throttle throttle;
	size_t request_size, response_size; /* as the kernel has them */
	uint8_t *requests;		    /* room for a batch */
	struct seccomp_notif_resp *response;
	const struct kb_trap *calls[KB_TRAP_NUMBERS];
	struct kb_err failure; /* code 0: none */

	/* asked.c */
	struct kb_pending *pending;   /* calls that wait for an answer, oldest first */
	struct kb_standing *standing; /* answers that hold for the session */
	const struct kb_ruling *ruling;
	struct kb_source *questions; /* timer: the earliest deadline */
	uint64_t last_question;
	uint32_t ask_ms;

	/* Scratch of the notification being handled. */
	struct kb_argv argv;
	char raw[2][PATH_MAX];
	struct kb_resolved resolved[2];
	struct kb_resolved cwd;
	uint8_t sockaddr[KB_SOCKADDR_MAX];
};

/* One notification being handled. */
struct kb_seen {
	struct kb_notify *notify;
	const struct seccomp_notif *request;
	const struct kb_trap *call; /* NULL: no row */
	struct kb_thread *thread;
	struct kb_proc *proc;
	struct kb_caller caller;
	struct kb_judge judge;
	struct kb_record record;
	bool asked;	  /* somebody decided, or would have */
	const char *note; /* asked: what came of it */
};

/* The collector cannot go on; the first reason counts. */
void kb_collector_fail(struct kb_notify *notify, const struct kb_err *why);

/* Listen or not, as pausing and throttling have it. */
void kb_collector_listen(struct kb_notify *notify);
/* notify.c: handle one notification; it may be one that was handled before and left waiting. */
void kb_collector_handle(struct kb_listener *listener, const struct seccomp_notif *request);
/* Tells of a failure, if there was one. The collector may be gone after. */
void kb_collector_report_failure(struct kb_notify *notify);

/* asked.c: the verdict is "ask". True: it is ruled, go on. False: the call waits. */
bool kb_asked_settle(struct kb_seen *seen, struct kb_listener *listener);
void kb_asked_tick(void *arg); /* the deadline timer */
/* The process has ended, and its questions with it. */
void kb_asked_forget(struct kb_notify *notify, const struct kb_proc *proc);
/* The listener is going; NULL: all are. */
void kb_asked_drop(struct kb_notify *notify, const struct kb_listener *listener);
void kb_asked_finish(struct kb_notify *notify);

/* read.c: the arguments of the call into seen->record, and the verdict on its paths. */
void kb_seen_read(struct kb_seen *seen);

/* judge.c */
/* report.c: records leave here. */
void kb_report(struct kb_notify *notify, struct kb_proc *proc, struct kb_record *record);
/* The same, as the rule's record level has it. */
void kb_report_seen(struct kb_seen *seen);
/* Everything that was held back or counted for a process that has ended, and its end. */
void kb_report_end(struct kb_notify *notify, struct kb_proc *proc);
/* A call whose caller was gone before it was answered waits until it is known not to be restarted;
 * the thread's next call says so. */
void kb_report_interrupted(struct kb_seen *seen);
void kb_report_resumed(struct kb_seen *seen);
/* Nobody of the old program is left to say so. */
void kb_report_flush(struct kb_notify *notify, struct kb_proc *proc);

/* exec.c */
/* Before the answer: what runs now. */
void kb_exec_prepare(struct kb_seen *seen);
/* After it: the record waits for its outcome. */
void kb_exec_begin(struct kb_seen *seen, int expected);
/* Reports the execs of proc whose outcome can be told. tid: the thread that just made another call,
 * which ends its own; 0 for none. */
void kb_exec_settle(struct kb_notify *notify, struct kb_proc *proc, pid_t tid);
/* The process has ended: whatever is still open cannot be told any more. */
void kb_exec_abandon(struct kb_notify *notify, struct kb_proc *proc);
void kb_exec_tick(void *arg); /* the settle timer */
