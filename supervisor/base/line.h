/* A line: a stream between two processes that outlives what carries it.
 *
 * A machine is reached through a carrier that breaks: a virtio serial port loses what was on its
 * way when an end opens or closes, and says nothing; an ssh connection goes with the network. A
 * line carries one connection over one carrier after the other. As long as both processes live,
 * each byte comes once and in order; what one carrier lost is sent again over the next. Without a
 * carrier a connection is held for a bounded time, then it is over. What an earlier connection left
 * in a carrier is never taken for a later one's.
 *
 * One end calls, the other answers. For both the connection is one end of a socket pair, for a
 * channel (frame.h) to work on; the line sits at the other end. Closing it ends the connection.
 * Everything runs on the loop; no callback comes from within a call.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "loop.h"

#define KB_LINE_WINDOW	(1u << 20) /* sent and not acknowledged; kept to be sent again */
#define KB_LINE_HOLD_MS 60000	   /* a connection without a carrier lives so long, unless told */
#define KB_LINE_DEAD_MS 15000 /* a carrier that brings nothing, though asked, counts as broken */

struct kb_line;

struct kb_line_ops {
	/* The answering end: a call was taken. fd is the connection, the callee's. */
	void (*called)(int fd, void *arg);
	/* Bytes flow, for the first time or again. May be NULL. */
	void (*up)(void *arg);
	/* The carrier is gone; kb_line_carry() brings the next. */
	void (*lost)(const struct kb_err *why, void *arg);
	/* The connection is over, its fd at its end; why is NULL when one of the ends closed it.
	 * For the calling end the last word. */
	void (*over)(const struct kb_err *why, void *arg);
};

/* A new connection: *ret_fd can be used at once, its bytes wait for a carrier. hold_ms 0:
 * KB_LINE_HOLD_MS. */
int kb_line_call(struct kb_loop *loop, int64_t hold_ms, const struct kb_line_ops *ops, void *arg,
	struct kb_line **ret, int *ret_fd, struct kb_err *err);
/* The answering end. Takes no call before kb_line_listen(). */
int kb_line_answer(struct kb_loop *loop, const struct kb_line_ops *ops, void *arg,
	struct kb_line **ret, struct kb_err *err);
/* Take the next call: one connection, then it has to be said again. While a connection lives,
 * another caller's call ends it (`over`); he calls until he is taken. */
void kb_line_listen(struct kb_line *line);
/* A carrier, in place of the one there may be. Takes fd, also on failure. */
int kb_line_carry(struct kb_line *line, int fd, struct kb_err *err);
/* Forget the carrier: it is gone or is going. `lost` is not called. */
void kb_line_drop(struct kb_line *line);
bool kb_line_is_up(const struct kb_line *line);
/* Ends the connection, without callbacks. NULL is fine. */
void kb_line_destroy(struct kb_line *line);
