/* A bounded, growable byte buffer. Bytes are appended at the end and consumed from the front.
 * `max` is a hard bound: growing past it fails with KB_ERR_LIMIT and changes nothing.
 */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "util.h"

struct kb_buf {
	uint8_t *bytes; /* start of the allocation */
	size_t head;	/* first live byte */
	size_t tail;	/* one past the last live byte */
	size_t cap;
	size_t max; /* most live bytes allowed */
};

void kb_buf_init(struct kb_buf *buf, size_t max);
void kb_buf_finish(struct kb_buf *buf); /* frees; the buffer is as after init with the same max */
/* The same, and nothing of what it held stays in memory. (What it held before it grew may: where
 * that matters, reserve first.) */
void kb_buf_wipe(struct kb_buf *buf);
static inline size_t kb_buf_len(const struct kb_buf *buf)
{
	return buf->tail - buf->head;
}
static inline uint8_t *kb_buf_data(const struct kb_buf *buf)
{
	return buf->bytes ? buf->bytes + buf->head : NULL;
}
/* Room for len more bytes; *ret points to where they go. Follow with kb_buf_commit(). */
int kb_buf_reserve(struct kb_buf *buf, size_t len, uint8_t **ret, struct kb_err *err);
void kb_buf_commit(struct kb_buf *buf, size_t len);
int kb_buf_append(struct kb_buf *buf, const void *data, size_t len, struct kb_err *err);
int kb_buf_puts(struct kb_buf *buf, const char *text, struct kb_err *err);
int kb_buf_printf(struct kb_buf *buf, struct kb_err *err, const char *fmt, ...) KB_PRINTF(3, 4);
void kb_buf_consume(struct kb_buf *buf, size_t len);
bool kb_buf_contains(const struct kb_buf *buf, const char *text);
/* NUL-terminates (the NUL is not counted) and hands over the bytes; free() them. NULL if no memory.
 */
char *kb_buf_steal_string(struct kb_buf *buf);

#define KB_BUF_CLEANUP KB_CLEANUP(kb_buf_finish)
