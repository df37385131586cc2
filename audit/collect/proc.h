/* The processes of a session, as the collector knows them. See proc.c. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "held.h"
#include "supervisor/base/err.h"
#include "tally.h"

#define KB_COMM_MAX 16

struct kb_proc;

struct kb_thread {
	struct kb_thread *hash_next;
	struct kb_thread *sibling; /* of the same process */
	struct kb_proc *proc;
	pid_t tid;
	uint32_t vtid; /* its number in the session */
};

/* What tells two programs run by one process apart; see exec.c. */
struct kb_signature {
	bool valid;
	uint64_t layout;
	uint8_t random[16];
};

/* An exec the kernel was told to go on with, its end not yet seen. */
struct kb_exec {
	struct kb_exec *next;
	pid_t tid;
	int expected; /* the errno it will fail with if the prediction holds, or 0 */
	struct kb_held *held;
};

struct kb_proc {
	struct kb_thread leader; /* first member: its tid is the process's */
	uint32_t vpid, vppid;
	pid_t ppid;  /* its parent's number for us, when it was entered */
	int proc_fd; /* O_PATH of /proc/TGID */
	int pid_fd;
	char comm[KB_COMM_MAX];
	bool introduced; /* a record of it has said parent and name */
	bool has_exit_code;
	int exit_code; /* as given to exit_group */
	struct kb_signature signature;
	struct kb_exec *execs;	     /* newest first */
	struct kb_held *interrupted; /* a call that lost its caller, unless it is restarted */
	pid_t interrupted_tid;
	struct kb_tallies tallies;
};

struct kb_procs {
	struct kb_thread **buckets;
	size_t n_buckets, n_threads;
	int epoll_fd;	/* readable when a process has ended */
	int ns_fd;	/* the session's pid namespace; -1: the kernel cannot translate numbers */
	unsigned depth; /* of the session's pid namespace below ours */
	bool exhausted; /* a descriptor could not be had: the session cannot go on */
	void (*died)(struct kb_proc *proc, void *arg);
	void *arg;
};

/* init_pid: any process of the session's pid namespace, or 0 when it has none of its own. `died` is
 * told of each end, with the process still in the table. */
int kb_procs_init(struct kb_procs *procs, pid_t init_pid,
	void (*died)(struct kb_proc *proc, void *arg), void *arg, struct kb_err *err);
void kb_procs_finish(struct kb_procs *procs);

/* The thread if it is known and still the same one. Sound only after kb_procs_reap() was run after
 * the moment the thread was known to be alive. */
struct kb_thread *kb_procs_find(struct kb_procs *procs, pid_t tid);
/* Makes its acquaintance. NULL if it is gone (or procs->exhausted). The caller must then see that
 * tid did not change hands meanwhile, else forget it. */
struct kb_thread *kb_procs_enter(struct kb_procs *procs, pid_t tid);
/* The parent of a process if it is known. */
struct kb_proc *kb_procs_parent(struct kb_procs *procs, const struct kb_proc *proc);
/* Writes down the children of a process that is about to end, before they get a new parent. */
void kb_procs_adopt(struct kb_procs *procs, struct kb_proc *proc);
bool kb_proc_single(const struct kb_proc *proc); /* it has one thread */
void kb_procs_forget(struct kb_procs *procs, struct kb_proc *proc);
void kb_procs_forget_threads(struct kb_procs *procs, struct kb_proc *proc);
/* Processes that have ended since: `died`, then forgotten. */
void kb_procs_reap(struct kb_procs *procs);
/* How a process that has ended did: a wait status. False if nobody can say any more. */
bool kb_proc_status(const struct kb_proc *proc, int *ret_status);

/* What /proc/PID/status says, in the numbers of the reader and (v…) of the session. */
struct kb_status {
	char comm[KB_COMM_MAX];
	pid_t tgid, pid, ppid;
	uint32_t vtgid, vpid; /* 0: not of the session */
	unsigned levels;      /* pid namespaces it is in, from the reader's down */
};
bool kb_status_parse(const char *text, size_t len, unsigned depth, struct kb_status *ret);
