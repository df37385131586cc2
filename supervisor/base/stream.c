/* Streams: bytes in both directions within a channel, each with its own credit, so that one slow
 * reader stops only its own stream. A stream that finds the channel's queue full waits its turn:
 * kb_stream_serve() asks them one after the other. */
#include <string.h>

#include "channel_private.h"
#include "log.h"

static struct kb_stream **slot(struct kb_channel *ch, uint32_t id)
{
	struct kb_stream **p = &ch->buckets[id % KB_CHANNEL_BUCKETS];

	while (*p && (*p)->id != id)
		p = &(*p)->next;
	return p;
}

int kb_stream_open(struct kb_channel *ch, uint32_t id, const struct kb_stream_ops *ops, void *arg,
	struct kb_stream **ret, struct kb_err *err)
{
	struct kb_stream **p = slot(ch, id), *st;

	if (id == 0 || *p)
		return kb_err_set(err, KB_ERR_EXISTS, "stream %u is taken", id);
	if (ch->dead || ch->closed)
		return kb_err_set(err, KB_ERR_CLOSED, "the other end is gone");
	if (ch->n_streams == KB_CHANNEL_STREAMS)
		return kb_err_set(err, KB_ERR_LIMIT, "more than %d streams", KB_CHANNEL_STREAMS);
	st = calloc(1, sizeof(*st));
	if (!st)
		return kb_err_nomem(err);
	*st = (struct kb_stream){.ch = ch,
		.id = id,
		.ops = ops,
		.arg = arg,
		.credit = KB_STREAM_CREDIT,
		.window = KB_STREAM_CREDIT};
	*p = st;
	ch->n_streams++;
	*ret = st;
	return 0;
}

static void stop_waiting(struct kb_stream *st)
{
	if (st->queued)
		TAILQ_REMOVE(&st->ch->waiting, st, waiting);
	st->queued = false;
}

void kb_stream_close(struct kb_stream *st)
{
	if (!st)
		return;
	stop_waiting(st);
	*slot(st->ch, st->id) = st->next;
	st->ch->n_streams--;
	free(st);
}

void kb_stream_finish_all(struct kb_channel *ch)
{
	for (size_t i = 0; i < KB_CHANNEL_BUCKETS; i++)
		while (ch->buckets[i])
			kb_stream_close(ch->buckets[i]);
}

uint32_t kb_stream_id(const struct kb_stream *st)
{
	return st->id;
}

/* Never a crumb of room: whoever is told that there is some can write as much as it may need. */
static size_t queue_room(const struct kb_channel *ch)
{
	size_t used = kb_buf_len(&ch->out);

	return used + KB_STREAM_CHUNK <= KB_CHANNEL_DATA_MAX ? KB_CHANNEL_DATA_MAX - used : 0;
}

/* The user wants to write `need` bytes and cannot: remember why, so that `writable` is called when
 * it can. */
static void want_more(struct kb_stream *st, size_t need)
{
	if (st->credit < need) {
		st->starved = true;
	} else if (!st->queued) {
		TAILQ_INSERT_TAIL(&st->ch->waiting, st, waiting);
		st->queued = true;
		kb_channel_watch(st->ch);
	}
}

size_t kb_stream_writable(struct kb_stream *st, size_t need)
{
	size_t room = KB_MIN((size_t)st->credit, queue_room(st->ch));

	if (st->eof_sent)
		return 0;
	if (room >= need)
		return room;
	want_more(st, need);
	return 0;
}

int64_t kb_stream_write(struct kb_stream *st, const void *data, size_t len, struct kb_err *err)
{
	const uint8_t *p = data;
	size_t take = KB_MIN(len, KB_MIN((size_t)st->credit, queue_room(st->ch))), done = 0;

	if (st->eof_sent)
		return kb_err_set(err, KB_ERR_CLOSED, "stream %u was ended before", st->id);
	while (done < take) {
		struct kb_frame frame = {
			.length = (uint32_t)KB_MIN(take - done, (size_t)KB_STREAM_CHUNK),
			.stream = st->id,
			.kind = KB_FRAME_DATA};
		int r = kb_channel_queue_frame(st->ch, &frame, p + done, err);

		if (r < 0)
			return r;
		st->credit -= frame.length;
		done += frame.length;
	}
	if (take < len)
		want_more(st, 1);
	return (int64_t)take;
}

int kb_stream_eof(struct kb_stream *st, struct kb_err *err)
{
	struct kb_frame frame = {.stream = st->id, .kind = KB_FRAME_EOF};

	if (st->eof_sent)
		return 0;
	stop_waiting(st);
	st->eof_sent = true;
	return kb_channel_queue_frame(st->ch, &frame, NULL, err);
}

static int give_credit(struct kb_channel *ch, uint32_t id, uint32_t n, struct kb_err *err)
{
	uint8_t payload[4] = {
		(uint8_t)n, (uint8_t)(n >> 8), (uint8_t)(n >> 16), (uint8_t)(n >> 24)};
	struct kb_frame frame = {.length = 4, .stream = id, .kind = KB_FRAME_CREDIT};

	return kb_channel_queue_frame(ch, &frame, payload, err);
}

void kb_stream_consumed(struct kb_stream *st, size_t len)
{
	uint32_t outstanding = KB_STREAM_CREDIT - st->window - st->unacked;
	struct kb_err err;

	st->unacked += (uint32_t)KB_MIN(len, (size_t)outstanding);
	if (st->eof_seen || st->unacked < KB_STREAM_CREDIT / 4)
		return;
	if (give_credit(st->ch, st->id, st->unacked, &err) < 0) {
		kb_log_debug("stream %u: credit not sent: %s", st->id, err.msg);
		return; /* the channel is ending, or so full that its end is near */
	}
	st->window += st->unacked;
	st->unacked = 0;
}

static int on_data(struct kb_channel *ch, struct kb_stream *st, const struct kb_frame *frame,
	const uint8_t *payload, struct kb_err *err)
{
	if (st->eof_seen)
		return kb_err_set(err, KB_ERR_INVALID, "data on stream %u after its end", st->id);
	if (frame->length > st->window)
		return kb_err_set(
			err, KB_ERR_INVALID, "more data on stream %u than was allowed", st->id);
	st->window -= frame->length;
	st->ops->data(st, payload, frame->length, st->arg);
	return 0;
}

static int on_credit(struct kb_channel *ch, struct kb_stream *st, const struct kb_frame *frame,
	const uint8_t *payload, struct kb_err *err)
{
	uint32_t n = payload[0] | (uint32_t)payload[1] << 8 | (uint32_t)payload[2] << 16 |
		     (uint32_t)payload[3] << 24;

	if (n > KB_STREAM_CREDIT)
		return kb_err_set(
			err, KB_ERR_INVALID, "credit of %u bytes on stream %u", n, st->id);
	/* Credit for an earlier stream of the same number may come late: never exceed the bound. */
	st->credit = KB_MIN(st->credit + n, KB_STREAM_CREDIT);
	if (!st->starved || st->credit == 0)
		return 0;
	st->starved = false;
	if (queue_room(ch) == 0)
		want_more(st, 1);
	else if (st->ops->writable)
		st->ops->writable(st, st->arg);
	return 0;
}

static int on_eof(struct kb_channel *ch, struct kb_stream *st, const struct kb_frame *frame,
	const uint8_t *payload, struct kb_err *err)
{
	if (st->eof_seen)
		return kb_err_set(err, KB_ERR_INVALID, "stream %u ended twice", st->id);
	st->eof_seen = true;
	st->ops->eof(st, st->arg);
	return 0;
}

int kb_stream_frame(struct kb_channel *ch, const struct kb_frame *frame, const uint8_t *payload,
	struct kb_err *err)
{
	static int (*const handlers[])(struct kb_channel *, struct kb_stream *,
		const struct kb_frame *, const uint8_t *, struct kb_err *) = {
		[KB_FRAME_DATA] = on_data,
		[KB_FRAME_CREDIT] = on_credit,
		[KB_FRAME_EOF] = on_eof,
	};
	struct kb_stream *st = *slot(ch, frame->stream);

	if (st)
		return handlers[frame->kind](ch, st, frame, payload, err);
	if (frame->kind == KB_FRAME_DATA && !ch->write_dead)
		return give_credit(ch, frame->stream, frame->length, err);
	return 0;
}

void kb_stream_serve(struct kb_channel *ch)
{
	struct kb_stream *st;

	/* Bounded: each turn takes a stream off the list, and one that queues itself again has
	 * filled the queue. */
	while (!ch->dead && !ch->closed && queue_room(ch) > 0 && (st = TAILQ_FIRST(&ch->waiting))) {
		stop_waiting(st);
		if (st->ops->writable)
			st->ops->writable(st, st->arg);
	}
}
