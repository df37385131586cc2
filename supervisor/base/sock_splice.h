/* A connected socket and a stream, end to end, each direction with the stream's credit. Ends are
 * passed on one by one, so that a half-closed connection stays one.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "frame.h"
#include "loop.h"

struct kb_sock_splice;

struct kb_sock_splice_ops {
	/* The socket broke: it is closed, the stream's end was sent. The far side should be told,
	 * so that it stops too. Called once, from the loop. */
	void (*broken)(struct kb_sock_splice *flow, void *arg);
	/* Both directions are at their end and the socket is closed. Called once, from the loop:
	 * the flow may be destroyed here, or later. */
	void (*over)(struct kb_sock_splice *flow, void *arg);
};

/* Takes fd (a connected stream socket, made non-blocking), also on failure, and opens the stream.
 */
int kb_sock_splice_create(struct kb_loop *loop, struct kb_channel *ch, uint32_t stream, int fd,
	const struct kb_sock_splice_ops *ops, void *arg, struct kb_sock_splice **ret,
	struct kb_err *err);
/* End the socket at once, with a reset; `over` follows when the far side has ended the stream. */
void kb_sock_splice_abort(struct kb_sock_splice *flow);
/* The far side takes nothing more: like abort, but what it said before is still delivered, as it
 * may say why. */
void kb_sock_splice_refuse(struct kb_sock_splice *flow);
uint32_t kb_sock_splice_stream(const struct kb_sock_splice *flow);
/* Bytes so far: read from the socket, and written to it. */
void kb_sock_splice_count(
	const struct kb_sock_splice *flow, uint64_t *ret_read, uint64_t *ret_written);
/* Closes both; before the channel is destroyed. NULL is fine. */
void kb_sock_splice_destroy(struct kb_sock_splice *flow);
