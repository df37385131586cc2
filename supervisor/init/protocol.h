/* Between a session (kbsup-guest, outside the container) and kbsup-init (pid 1 inside it).
 *
 * One SOCK_SEQPACKET socket, fd KB_INIT_FD of kbsup-init. Every packet is one fixed struct in the
 * machine's own byte order; both ends are of one build. Requests carry file descriptors:
 *
 *	START	a sealed memfd with the process's specification (below), then, unless it asks
 *		for a terminal, its stdin, stdout and stderr.
 *
 * Reports carry file descriptors too: PTY the terminal's master, LISTENER the seccomp listener.
 * For one process they come in the order PTY, LISTENER, STARTED, EXITED; FAILED instead of STARTED
 * and EXITED when it could not be started. When the socket closes, kbsup-init exits, and with it
 * everything in the container.
 *
 * The specification is a header, then the sections in the order of the header's counts, without
 * gaps; strings last, each ended by a NUL: cwd, argv, env, Landlock paths.
 */
#pragma once

#include <linux/filter.h>
#include <stdint.h>

#define KB_INIT_PROTOCOL 1u
#define KB_INIT_FD	 3

/* Bounds; what exceeds them is refused, never cut. */
#define KB_INIT_PROCESSES_MAX 256 /* at once in one session, the first one included */
#define KB_INIT_SPEC_MAX      (6u << 20)
#define KB_INIT_STRINGS_MAX   65536u /* argv and env together */
#define KB_INIT_RLIMITS_MAX   16u
#define KB_INIT_LANDLOCK_MAX  4096u
#define KB_INIT_FILTERS_MAX   BPF_MAXINSNS

enum kb_init_op {
	KB_INIT_START = 1,
	KB_INIT_SIGNAL,	    /* arg: the signal, for process `id` and its process group */
	KB_INIT_SIGNAL_ALL, /* arg: the signal, for everything in the container */
	KB_INIT_OP_MAX_,
};

struct kb_init_request {
	uint32_t op;
	uint32_t arg;
	uint64_t id; /* chosen by the session; unique among its processes */
};

enum kb_init_kind {
	KB_INIT_READY = 1, /* first packet: pid is KB_INIT_PROTOCOL, status the Landlock ABI */
	KB_INIT_PTY,
	KB_INIT_LISTENER,
	KB_INIT_STARTED, /* pid: in the container's pid namespace */
	KB_INIT_FAILED,	 /* stage and errnum say what failed */
	KB_INIT_EXITED,	 /* status: as from wait(2) */
	KB_INIT_KIND_MAX_,
};

/* What kbsup-init was doing when a start failed. */
enum kb_init_stage {
	KB_STAGE_NONE,
	KB_STAGE_REQUEST,
	KB_STAGE_SPEC,
	KB_STAGE_FORK,
	KB_STAGE_TERMINAL,
	KB_STAGE_STDIO,
	KB_STAGE_USERNS,
	KB_STAGE_CWD,
	KB_STAGE_RLIMIT,
	KB_STAGE_CAPS,
	KB_STAGE_LANDLOCK,
	KB_STAGE_LOOKUP,
	KB_STAGE_SECCOMP,
	KB_STAGE_EXEC,
	KB_STAGE_MAX_,
};

struct kb_init_report {
	uint32_t kind;
	uint32_t stage;
	uint64_t id;
	int32_t pid;
	int32_t status;
	int32_t errnum;
	uint32_t reserved;
};

#define KB_INIT_SPEC_MAGIC 0x6b627370u /* "kbsp" */

#define KB_SPEC_TTY	 1u
#define KB_SPEC_LISTENER 2u /* install the filter with a listener and send it */

struct kb_init_spec {
	uint32_t magic;
	uint32_t version; /* KB_INIT_PROTOCOL */
	uint32_t size;	  /* of everything */
	uint32_t flags;
	uint32_t uid, gid; /* inside; they are the container's 0 outside the process's namespace */
	uint32_t rows, cols; /* KB_SPEC_TTY */
	uint32_t n_rlimits, n_landlock, n_filters;
	uint32_t n_argv, n_env;
	uint32_t strings; /* bytes of the strings section */
	/* Landlock: what the ruleset handles; a right or scope the kernel does not know is left
	 * out. No ruleset at all if n_landlock is 0. */
	uint64_t landlock_handled, landlock_scoped;
};

struct kb_init_rlimit {
	uint32_t resource;
	uint32_t reserved;
	uint64_t value; /* soft and hard */
};

struct kb_init_landlock {
	uint64_t access;
	uint32_t optional; /* skip when the path does not exist */
	uint32_t reserved;
};
