/* Where a session's output goes: one of our own standard descriptors, written without ever blocking
 * the loop and without O_NONBLOCK on a description that other programs (the shell) share.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "supervisor/base/buf.h"
#include "supervisor/base/err.h"
#include "supervisor/base/loop.h"

/* The most that may wait in a sink: what a stream may have in flight, with room to spare. */
#define KB_SINK_MAX (1u << 20)

struct kb_sink;
struct kb_sink_ops {
	/* len bytes are out of our hands: written, or dropped because the sink is broken. */
	void (*drained)(struct kb_sink *sink, size_t len, void *arg);
	/* Nobody reads any more (EPIPE), or it cannot be written (a full disk). Called once; from
	 * then on everything is dropped. */
	void (*broken)(struct kb_sink *sink, int errnum, void *arg);
};

struct kb_sink {
	int fd;
	bool own;     /* fd is ours, non-blocking */
	bool regular; /* a file: never blocks for long, cannot be watched */
	int broken;   /* errno, or 0 */
	struct kb_buf waiting;
	struct kb_source *source;
	const struct kb_sink_ops *ops;
	void *arg;
};

int kb_sink_init(struct kb_sink *sink, struct kb_loop *loop, int fd, const struct kb_sink_ops *ops,
	void *arg, struct kb_err *err);
void kb_sink_finish(struct kb_sink *sink); /* drops what waits; fine on a zeroed sink */
int kb_sink_write(struct kb_sink *sink, const uint8_t *data, size_t len, struct kb_err *err);
size_t kb_sink_waiting(const struct kb_sink *sink);
