#include "relay.h"

#include <stdlib.h>

#include "buf.h"

/* One direction. */
struct lane {
	struct kb_relay *relay;
	struct kb_stream *from, *to; /* NULL: that side is gone */
	struct kb_buf waiting;
	bool eof, eof_sent;
};

struct kb_relay {
	struct lane out; /* inner to outer */
	struct lane in;	 /* outer to inner */
	void (*flushed)(void *arg);
	void *arg;
};

static void pump(struct lane *l)
{
	while (l->to && kb_buf_len(&l->waiting) > 0) {
		int64_t n = kb_stream_write(
			l->to, kb_buf_data(&l->waiting), kb_buf_len(&l->waiting), NULL);

		if (n <= 0)
			return;
		kb_buf_consume(&l->waiting, (size_t)n);
		if (l->from)
			kb_stream_consumed(l->from, (size_t)n);
	}
	if (l->to && l->eof && !l->eof_sent) {
		l->eof_sent = true;
		kb_stream_eof(l->to, NULL);
	}
}

static void take(struct lane *l, const uint8_t *data, size_t len)
{
	int64_t n = 0;

	/* Usually the other side has room and nothing is copied. */
	if (l->to && kb_buf_len(&l->waiting) == 0)
		n = kb_stream_write(l->to, data, len, NULL);
	if (n < 0 || !l->to)
		n = (int64_t)len;
	if (n > 0)
		kb_stream_consumed(l->from, (size_t)n);
	/* Credit bounds this. */
	if ((size_t)n < len && kb_buf_append(&l->waiting, data + n, len - (size_t)n, NULL) < 0)
		kb_stream_consumed(l->from, len - (size_t)n);
}

static void on_inner_data(struct kb_stream *st, const uint8_t *data, size_t len, void *arg)
{
	struct kb_relay *r = arg;

	take(&r->out, data, len);
}

static void on_outer_data(struct kb_stream *st, const uint8_t *data, size_t len, void *arg)
{
	struct kb_relay *r = arg;

	take(&r->in, data, len);
}

static void on_inner_writable(struct kb_stream *st, void *arg)
{
	struct kb_relay *r = arg;

	pump(&r->in);
}

static void on_outer_writable(struct kb_stream *st, void *arg)
{
	struct kb_relay *r = arg;
	bool waited = !kb_relay_is_flushed(r);

	pump(&r->out);
	if (waited && kb_relay_is_flushed(r))
		r->flushed(r->arg);
}

static void on_inner_eof(struct kb_stream *st, void *arg)
{
	struct kb_relay *r = arg;

	r->out.eof = true;
	pump(&r->out);
}

static void on_outer_eof(struct kb_stream *st, void *arg)
{
	struct kb_relay *r = arg;

	r->in.eof = true;
	pump(&r->in);
}

static const struct kb_stream_ops inner_ops = {
	.data = on_inner_data, .writable = on_inner_writable, .eof = on_inner_eof};
static const struct kb_stream_ops outer_ops = {
	.data = on_outer_data, .writable = on_outer_writable, .eof = on_outer_eof};

int kb_relay_create(struct kb_channel *outer, struct kb_channel *inner, uint32_t id,
	void (*flushed)(void *arg), void *arg, struct kb_relay **ret, struct kb_err *err)
{
	struct kb_relay *r = calloc(1, sizeof(*r));
	int e;

	if (!r)
		return kb_err_nomem(err);
	r->flushed = flushed;
	r->arg = arg;
	kb_buf_init(&r->out.waiting, KB_STREAM_CREDIT);
	kb_buf_init(&r->in.waiting, KB_STREAM_CREDIT);
	e = kb_stream_open(outer, id, &outer_ops, r, &r->out.to, err);
	if (e == 0)
		e = kb_stream_open(inner, id, &inner_ops, r, &r->out.from, err);
	if (e < 0) {
		kb_relay_destroy(r);
		return e;
	}
	r->in.from = r->out.to;
	r->in.to = r->out.from;
	*ret = r;
	return 0;
}

bool kb_relay_is_flushed(const struct kb_relay *r)
{
	return kb_buf_len(&r->out.waiting) == 0 && r->out.eof == r->out.eof_sent;
}

bool kb_relay_is_done(const struct kb_relay *r)
{
	return r->out.eof_sent && r->in.eof_sent;
}

void kb_relay_detach(struct kb_relay *r)
{
	kb_stream_close(r->out.from);
	r->out.from = NULL;
	r->in.to = NULL;
	/* Whatever the other side still sends has no reader. */
	if (kb_buf_len(&r->in.waiting) > 0) {
		kb_stream_consumed(r->in.from, kb_buf_len(&r->in.waiting));
		kb_buf_consume(&r->in.waiting, kb_buf_len(&r->in.waiting));
	}
	r->out.eof = true;
	pump(&r->out);
}

void kb_relay_abandon(struct kb_relay *r)
{
	kb_buf_consume(&r->out.waiting, kb_buf_len(&r->out.waiting));
	pump(&r->out);
}

void kb_relay_destroy(struct kb_relay *r)
{
	if (!r)
		return;
	kb_stream_close(r->out.from);
	kb_stream_close(r->out.to);
	kb_buf_finish(&r->out.waiting);
	kb_buf_finish(&r->in.waiting);
	free(r);
}
