#include "buf.h"
#include "os.h"

#include <stdio.h>
#include <string.h>

#define KB_BUF_MIN_CAP 256

void kb_buf_init(struct kb_buf *buf, size_t max)
{
	*buf = (struct kb_buf){.max = max};
}

void kb_buf_finish(struct kb_buf *buf)
{
	free(buf->bytes);
	kb_buf_init(buf, buf->max);
}

void kb_buf_wipe(struct kb_buf *buf)
{
	if (buf->bytes)
		kb_os_wipe(buf->bytes, buf->cap);
	kb_buf_finish(buf);
}

static int grow(struct kb_buf *buf, size_t need, struct kb_err *err)
{
	size_t cap = buf->cap ? buf->cap : KB_BUF_MIN_CAP;
	uint8_t *bytes;

	while (cap < need)
		cap *= 2;
	bytes = realloc(buf->bytes, cap);
	if (!bytes)
		return kb_err_nomem(err);
	buf->bytes = bytes;
	buf->cap = cap;
	return 0;
}

int kb_buf_reserve(struct kb_buf *buf, size_t len, uint8_t **ret, struct kb_err *err)
{
	size_t live = kb_buf_len(buf);
	int r;

	if (len > buf->max - live || live > buf->max)
		return kb_err_set(
			err, KB_ERR_LIMIT, "buffer would exceed its bound of %zu bytes", buf->max);
	if (buf->cap - buf->tail < len && buf->head > 0) {
		memmove(buf->bytes, buf->bytes + buf->head, live);
		buf->head = 0;
		buf->tail = live;
	}
	if (!buf->bytes || buf->cap - buf->tail < len) {
		r = grow(buf, buf->tail + len, err);
		if (r < 0)
			return r;
	}
	*ret = buf->bytes + buf->tail;
	return 0;
}

void kb_buf_commit(struct kb_buf *buf, size_t len)
{
	buf->tail += len;
}

int kb_buf_append(struct kb_buf *buf, const void *data, size_t len, struct kb_err *err)
{
	uint8_t *dst;
	int r;

	if (len == 0)
		return 0;
	r = kb_buf_reserve(buf, len, &dst, err);
	if (r < 0)
		return r;
	memcpy(dst, data, len);
	kb_buf_commit(buf, len);
	return 0;
}

int kb_buf_puts(struct kb_buf *buf, const char *text, struct kb_err *err)
{
	return kb_buf_append(buf, text, strlen(text), err);
}

int kb_buf_printf(struct kb_buf *buf, struct kb_err *err, const char *fmt, ...)
{
	va_list ap;
	uint8_t *dst;
	int len, r;

	va_start(ap, fmt);
	len = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (len < 0)
		return kb_err_set(err, KB_ERR_FAILED, "text could not be formatted");
	r = kb_buf_reserve(buf, (size_t)len, &dst, err);
	/* vsnprintf also writes a NUL, which is no live byte and does not count. */
	if (r == 0 && buf->cap - buf->tail <= (size_t)len)
		r = grow(buf, buf->tail + (size_t)len + 1, err);
	if (r < 0)
		return r;
	dst = buf->bytes + buf->tail;
	va_start(ap, fmt);
	vsnprintf((char *)dst, (size_t)len + 1, fmt, ap);
	va_end(ap);
	kb_buf_commit(buf, (size_t)len);
	return 0;
}

void kb_buf_consume(struct kb_buf *buf, size_t len)
{
	buf->head += len;
	if (buf->head == buf->tail)
		buf->head = buf->tail = 0;
}

bool kb_buf_contains(const struct kb_buf *buf, const char *text)
{
	return buf->bytes && memmem(kb_buf_data(buf), kb_buf_len(buf), text, strlen(text));
}

char *kb_buf_steal_string(struct kb_buf *buf)
{
	size_t live = kb_buf_len(buf);
	char *text;

	if (buf->head > 0) {
		memmove(buf->bytes, buf->bytes + buf->head, live);
		buf->head = 0;
		buf->tail = live;
	}
	text = realloc(buf->bytes, live + 1);
	if (!text)
		return NULL;
	text[live] = '\0';
	kb_buf_init(buf, buf->max);
	return text;
}
