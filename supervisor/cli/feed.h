/* Our own standard input, read for a session as fast as the session takes it. Bytes that the
 * session does not want yet stay where they are, for whoever reads next.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "supervisor/base/err.h"
#include "supervisor/base/loop.h"

#define KB_FEED_CHUNK (32u << 10)

struct kb_feed;
struct kb_feed_ops {
	/* How many bytes are wanted now. */
	size_t (*room)(void *arg);
	/* That many at most. */
	void (*data)(const uint8_t *data, size_t len, void *arg);
	/* The end, or an error (errnum > 0). Called once. */
	void (*end)(int errnum, void *arg);
};

struct kb_feed {
	int fd;
	bool watched; /* the loop can watch it; else it is always ready */
	bool ended;
	struct kb_source *source; /* of fd */
	struct kb_source *kick;	  /* reads on where the fd cannot be watched */
	const struct kb_feed_ops *ops;
	void *arg;
};

/* Reads nothing before the first kb_feed_more(). */
int kb_feed_init(struct kb_feed *feed, struct kb_loop *loop, int fd, const struct kb_feed_ops *ops,
	void *arg, struct kb_err *err);
void kb_feed_finish(struct kb_feed *feed); /* fine on a zeroed feed */
/* There may be room again. */
void kb_feed_more(struct kb_feed *feed);
/* No more reading, for good. */
void kb_feed_stop(struct kb_feed *feed);
