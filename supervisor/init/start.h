/* Starting one process of the session. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "supervisor/init/protocol.h"

/* What pid 1 must know of a process while it starts and runs. Lives in memory shared with the
 * helper that starts it; each field has one writer at a time. */
enum kb_slot_state { KB_SLOT_FREE, KB_SLOT_STARTING, KB_SLOT_RUNNING, KB_SLOT_FAILED };

struct kb_slot {
	uint64_t id;
	enum kb_slot_state state; /* helper: STARTING to RUNNING or FAILED, having reported it */
	pid_t helper;		  /* pid 1: 0 once reaped */
	pid_t pid;		  /* helper: the process itself, 0 while there is none */
	int exited;		  /* pid 1: pid was reaped … */
	int status;		  /* … with this status */
};

#define KB_START_FDS 4 /* specification, stdin, stdout, stderr */

/* Runs in the helper, a child of pid 1, and never returns: starts the process described by fds[0],
 * reports on `control`, and exits. */
_Noreturn void kb_start_helper(int control, struct kb_slot *slot, int fds[KB_START_FDS]);

/* One packet to the session. Returns 0 or a negative errno. fd < 0: none. */
int kb_report_send(int control, const struct kb_init_report *report, int fd);
