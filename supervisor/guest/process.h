/* The standard input and output of one process of a session, between its terminal or pipes and the
 * link's streams.
 *
 * Nothing is read that cannot be sent on: a slow reader holds the process up, byte for byte, as a
 * pipe would. While nobody is attached, output goes to a ring instead (the newest KB_PROCESS_RING
 * bytes of each stream) and is replayed on attaching.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "supervisor/base/err.h"
#include "supervisor/base/frame.h"
#include "supervisor/base/loop.h"

#define KB_PROCESS_RING	     (256u << 10)
#define KB_PROCESS_LINGER_MS 200 /* a terminal that stays open after its process exited */

struct kb_process;

struct kb_process_ops {
	/* After kb_process_exited(): everything it wrote was sent, and the streams ended. */
	void (*drained)(struct kb_process *process, void *arg);
};

/* Opens the streams `stdio` … of the channel. */
int kb_process_create(struct kb_loop *loop, struct kb_channel *channel, uint32_t stdio, bool tty,
	bool attached, const struct kb_process_ops *ops, void *arg, struct kb_process **ret,
	struct kb_err *err);
/* Pipes: the process's ends, to be passed on; they stay ours until kb_process_running(). */
void kb_process_ends(const struct kb_process *process, int ret[3]);
/* The process has its ends now: close ours of them. */
void kb_process_running(struct kb_process *process);
/* That it started has been told: its output may follow. */
void kb_process_started(struct kb_process *process);
/* Takes the terminal's master. */
int kb_process_terminal(struct kb_process *process, int master, struct kb_err *err);
/* It exited: send what is there, end the streams, then `drained`. */
void kb_process_exited(struct kb_process *process);
/* Nobody waits for its output any more: forget what is left. `drained` follows if it exited. */
void kb_process_abandon(struct kb_process *process);
void kb_process_attach(struct kb_process *process, bool attached);
void kb_process_resize(struct kb_process *process, uint16_t rows, uint16_t cols);
void kb_process_destroy(struct kb_process *process);
