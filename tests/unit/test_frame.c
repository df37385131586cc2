/* Frames, channels and streams over a socket pair, both ends on one loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/base/buf.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/frame.h"
#include "supervisor/base/util.h"

#define MESSAGES_MAX 64
#define DEADLINE_MS  10000

struct end {
	struct kb_channel *ch;
	struct kb_stream *st;
	size_t n_messages;
	uint32_t streams[MESSAGES_MAX];
	size_t lens[MESSAGES_MAX];
	uint8_t first[MESSAGES_MAX];
	int fd; /* the last that came */
	int closed;
	bool had_reason;
	struct kb_err why;
	int refuse_at; /* message number that is answered with an error; 0: none */
	bool destroy_on_message, keep_open;

	size_t got;   /* stream bytes */
	size_t mixed; /* of them, those that were not as sent */
	bool hold;    /* do not report as consumed */
	size_t held;
	int eof;
	int writable;
	size_t to_send, sent;
};

struct world {
	struct kb_loop *loop;
	struct kb_source *deadline;
	bool late;
	struct end a, b;
	int raw; /* the peer's bare fd, for tests that speak bytes */
};

static struct world *the_world;

static void stop_if_done(void)
{
	kb_loop_stop(the_world->loop);
}

static int on_message(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len,
	int fd, void *arg, struct kb_err *err)
{
	struct end *e = arg;

	assert_true(e->n_messages < MESSAGES_MAX);
	e->streams[e->n_messages] = stream;
	e->lens[e->n_messages] = len;
	e->first[e->n_messages] = len ? data[0] : 0;
	e->n_messages++;
	kb_close(&e->fd);
	e->fd = fd;
	stop_if_done();
	if (e->refuse_at > 0 && e->n_messages == (size_t)e->refuse_at)
		return kb_err_set(err, KB_ERR_INVALID, "not to my taste");
	if (e->destroy_on_message) {
		kb_channel_destroy(e->ch);
		e->ch = NULL;
	}
	return 0;
}

static void on_closed(struct kb_channel *ch, const struct kb_err *why, void *arg)
{
	struct end *e = arg;

	e->closed++;
	e->had_reason = why != NULL;
	if (why)
		e->why = *why;
	if (!e->keep_open) {
		kb_channel_destroy(e->ch);
		e->ch = NULL;
		e->st = NULL;
	}
	stop_if_done();
}

static const struct kb_channel_ops channel_ops = {on_message, on_closed};

static void on_data(struct kb_stream *st, const uint8_t *data, size_t len, void *arg)
{
	struct end *e = arg;

	for (size_t i = 0; i < len; i++)
		e->mixed += data[i] != (uint8_t)((e->got + i) % 251);
	e->got += len;
	if (e->hold)
		e->held += len;
	else
		kb_stream_consumed(st, len);
	stop_if_done();
}

static void pump(struct end *e)
{
	uint8_t chunk[10007];

	while (e->sent < e->to_send) {
		size_t want = KB_MIN(sizeof(chunk), e->to_send - e->sent);
		int64_t n;

		for (size_t i = 0; i < want; i++)
			chunk[i] = (uint8_t)((e->sent + i) % 251);
		n = kb_stream_write(e->st, chunk, want, NULL);
		assert_true(n >= 0);
		e->sent += (size_t)n;
		if ((size_t)n < want)
			return;
	}
}

static void on_writable(struct kb_stream *st, void *arg)
{
	struct end *e = arg;

	e->writable++;
	pump(e);
}

static void on_eof(struct kb_stream *st, void *arg)
{
	struct end *e = arg;

	e->eof++;
	stop_if_done();
}

static const struct kb_stream_ops stream_ops = {on_data, on_writable, on_eof};

static void on_deadline(void *arg)
{
	the_world->late = true;
	kb_loop_stop(the_world->loop);
}

/* Turn the loop until cond holds; fail after the deadline. */
#define run_until(w, cond)                                                                         \
	do {                                                                                       \
		assert_int_equal(kb_source_arm((w)->deadline, DEADLINE_MS, NULL), 0);              \
		while (!(cond)) {                                                                  \
			assert_false((w)->late);                                                   \
			assert_int_equal(kb_loop_run((w)->loop, NULL), 0);                         \
		}                                                                                  \
		kb_source_disarm((w)->deadline);                                                   \
	} while (0)

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	int pair[2];

	signal(SIGPIPE, SIG_IGN);
	assert_non_null(w);
	the_world = w;
	w->a.fd = w->b.fd = w->raw = -1;
	assert_int_equal(kb_loop_create(&w->loop, NULL), 0);
	assert_int_equal(kb_loop_timer(w->loop, on_deadline, NULL, &w->deadline, NULL), 0);
	assert_int_equal(kb_fd_socketpair(false, pair, NULL), 0);
	assert_int_equal(
		kb_channel_create(w->loop, pair[0], &channel_ops, &w->a, &w->a.ch, NULL), 0);
	assert_int_equal(
		kb_channel_create(w->loop, pair[1], &channel_ops, &w->b, &w->b.ch, NULL), 0);
	*state = w;
	return 0;
}

/* Replace end b by its bare socket. */
static void make_raw(struct world *w)
{
	int pair[2];

	kb_channel_destroy(w->a.ch);
	kb_channel_destroy(w->b.ch);
	w->b.ch = NULL;
	assert_int_equal(kb_fd_socketpair(false, pair, NULL), 0);
	assert_int_equal(
		kb_channel_create(w->loop, pair[0], &channel_ops, &w->a, &w->a.ch, NULL), 0);
	w->raw = pair[1];
}

static int teardown(void **state)
{
	struct world *w = *state;

	kb_channel_destroy(w->a.ch);
	kb_channel_destroy(w->b.ch);
	kb_close(&w->a.fd);
	kb_close(&w->b.fd);
	kb_close(&w->raw);
	kb_source_destroy(w->deadline);
	kb_loop_destroy(w->loop);
	free(w);
	return 0;
}

static void open_streams(struct world *w, uint32_t id)
{
	assert_int_equal(kb_stream_open(w->a.ch, id, &stream_ops, &w->a, &w->a.st, NULL), 0);
	assert_int_equal(kb_stream_open(w->b.ch, id, &stream_ops, &w->b, &w->b.st, NULL), 0);
}

static void raw_send(struct world *w, const struct kb_frame *frame, const void *payload, size_t len)
{
	uint8_t header[KB_FRAME_HEADER];

	kb_frame_encode(frame, header);
	assert_int_equal(kb_fd_write_all(w->raw, header, sizeof(header), NULL), 0);
	if (len)
		assert_int_equal(kb_fd_write_all(w->raw, payload, len, NULL), 0);
}

static void test_codec_round_trip(void **state)
{
	struct kb_frame in = {0x01020304 & (KB_FRAME_MAX - 1), 0xfffefdfc, KB_FRAME_MSG, 1}, out;
	uint8_t bytes[KB_FRAME_HEADER];

	kb_frame_encode(&in, bytes);
	for (size_t len = 0; len < sizeof(bytes); len++)
		assert_int_equal(kb_frame_decode(bytes, len, &out, NULL), 0);
	assert_int_equal(kb_frame_decode(bytes, sizeof(bytes), &out, NULL), 1);
	assert_int_equal(out.length, in.length);
	assert_int_equal(out.stream, in.stream);
	assert_int_equal(out.kind, in.kind);
	assert_int_equal(out.flags, in.flags);
	assert_int_equal(bytes[0], in.length & 0xff); /* little-endian */
}

static void test_codec_refuses(void **state)
{
	static const struct kb_frame bad[] = {
		{0, 0, 0, 0},
		{0, 0, 5, 0},
		{0, 0, 255, 0},
		{KB_FRAME_MAX + 1, 0, KB_FRAME_MSG, 0},
		{UINT32_MAX, 0, KB_FRAME_MSG, 0},
		{0, 0, KB_FRAME_MSG, 2},
		{0, 1, KB_FRAME_DATA, 0},
		{KB_STREAM_CHUNK + 1, 1, KB_FRAME_DATA, 0},
		{1, 1, KB_FRAME_DATA, KB_FRAME_FD},
		{1, 0, KB_FRAME_DATA, 0},
		{3, 1, KB_FRAME_CREDIT, 0},
		{5, 1, KB_FRAME_CREDIT, 0},
		{1, 1, KB_FRAME_EOF, 0},
		{0, 0, KB_FRAME_EOF, 0},
	};
	uint8_t bytes[KB_FRAME_HEADER];
	struct kb_frame out;
	struct kb_err err;

	for (size_t i = 0; i < KB_ARRAY_LEN(bad); i++) {
		kb_frame_encode(&bad[i], bytes);
		assert_int_equal(
			kb_frame_decode(bytes, sizeof(bytes), &out, &err), -KB_ERR_INVALID);
	}
	kb_frame_encode(&(struct kb_frame){0, 0, KB_FRAME_MSG, 0}, bytes);
	bytes[11] = 1;
	assert_int_equal(kb_frame_decode(bytes, sizeof(bytes), &out, &err), -KB_ERR_INVALID);
}

static void test_messages_both_ways(void **state)
{
	struct world *w = *state;
	uint8_t *big = calloc(1, KB_FRAME_MAX);

	assert_non_null(big);
	big[0] = 7;
	assert_int_equal(kb_channel_send_bytes(w->a.ch, 0, (const uint8_t *)"x", 1, NULL), 0);
	assert_int_equal(kb_channel_send_bytes(w->a.ch, 9, big, KB_FRAME_MAX, NULL), 0);
	assert_int_equal(kb_channel_send_bytes(w->a.ch, 3, NULL, 0, NULL), 0);
	assert_int_equal(kb_channel_send_bytes(w->b.ch, 5, (const uint8_t *)"y", 1, NULL), 0);
	assert_int_equal(
		kb_channel_send_bytes(w->a.ch, 0, big, KB_FRAME_MAX + 1, NULL), -KB_ERR_LIMIT);
	run_until(w, w->b.n_messages == 3 && w->a.n_messages == 1);
	assert_int_equal(w->b.first[0], 'x');
	assert_int_equal(w->b.lens[1], KB_FRAME_MAX);
	assert_int_equal(w->b.first[1], 7);
	assert_int_equal(w->b.streams[1], 9);
	assert_int_equal(w->b.lens[2], 0);
	assert_int_equal(w->a.streams[0], 5);
	assert_int_equal(kb_channel_queued(w->a.ch), 0);
	free(big);
}

/* Fds stay with their messages, also behind a queue that has to wait. */
static void test_fds_travel(void **state)
{
	struct world *w = *state;
	static const ProtobufCMessageDescriptor empty = {
		.magic = PROTOBUF_C__MESSAGE_DESCRIPTOR_MAGIC,
		.sizeof_message = sizeof(ProtobufCMessage)};
	ProtobufCMessage msg = PROTOBUF_C_MESSAGE_INIT(&empty);
	uint8_t *big = calloc(1, 1 << 20);
	struct stat st, want[3];
	int pipes[2];

	for (int i = 0; i < 3; i++) {
		assert_int_equal(pipe(pipes), 0);
		assert_int_equal(fstat(pipes[0], &want[i]), 0);
		assert_int_equal(kb_channel_send_bytes(w->a.ch, 0, big, 1 << 20, NULL), 0);
		assert_int_equal(kb_channel_send(w->a.ch, 0, &msg, pipes[0], NULL), 0);
		close(pipes[0]);
		close(pipes[1]);
	}
	free(big);
	for (size_t seen = 0; seen < 6;) {
		run_until(w, w->b.n_messages > seen);
		seen = w->b.n_messages;
		if (w->b.fd >= 0) {
			assert_int_equal(fstat(w->b.fd, &st), 0);
			assert_int_equal(st.st_ino, want[(seen - 1) / 2].st_ino);
			assert_true(fcntl(w->b.fd, F_GETFD) & FD_CLOEXEC);
		} else {
			assert_int_equal(seen % 2, 1);
		}
	}
	assert_int_equal(w->b.closed, 0);
}

static void test_flag_without_fd_closes(void **state)
{
	struct world *w = *state;

	make_raw(w);
	raw_send(w, &(struct kb_frame){0, 0, KB_FRAME_MSG, KB_FRAME_FD}, NULL, 0);
	run_until(w, w->a.closed);
	assert_true(w->a.had_reason);
	assert_int_equal(w->a.why.code, KB_ERR_INVALID);
	assert_int_equal(w->a.n_messages, 0);
}

static void test_garbage_closes_with_a_reason(void **state)
{
	struct world *w = *state;

	make_raw(w);
	assert_int_equal(kb_fd_write_all(w->raw, "GET / HTTP/1.1\r\n\r\n", 18, NULL), 0);
	run_until(w, w->a.closed);
	assert_true(w->a.had_reason);
	assert_int_equal(w->a.why.code, KB_ERR_INVALID);
	assert_int_equal(w->a.closed, 1);
}

static void test_orderly_and_early_end(void **state)
{
	struct world *w = *state;

	make_raw(w);
	raw_send(w, &(struct kb_frame){2, 0, KB_FRAME_MSG, 0}, "ok", 2);
	close(kb_steal_fd(&w->raw));
	run_until(w, w->a.closed);
	assert_int_equal(w->a.n_messages, 1);
	assert_false(w->a.had_reason);

	w->a.closed = 0;
	make_raw(w);
	raw_send(w, &(struct kb_frame){5, 0, KB_FRAME_MSG, 0}, "ok", 2);
	close(kb_steal_fd(&w->raw));
	run_until(w, w->a.closed);
	assert_true(w->a.had_reason);
	assert_int_equal(w->a.why.code, KB_ERR_CLOSED);
}

/* The peer's last message is read although writing to it has failed before. */
static void test_last_words_are_heard(void **state)
{
	struct world *w = *state;
	uint8_t *big = calloc(1, 2 << 20);

	make_raw(w);
	assert_int_equal(kb_channel_send_bytes(w->a.ch, 0, big, 2 << 20, NULL), 0);
	free(big);
	raw_send(w, &(struct kb_frame){3, 0, KB_FRAME_MSG, 0}, "bye", 3);
	close(kb_steal_fd(&w->raw));
	run_until(w, w->a.closed);
	assert_int_equal(w->a.n_messages, 1);
}

static void test_callee_refuses(void **state)
{
	struct world *w = *state;

	w->b.refuse_at = 2;
	for (int i = 0; i < 3; i++)
		kb_channel_send_bytes(w->a.ch, 0, NULL, 0, NULL);
	run_until(w, w->b.closed && w->a.closed);
	assert_int_equal(w->b.n_messages, 2);
	assert_string_equal(w->b.why.msg, "not to my taste");
	assert_false(w->a.had_reason);
}

static void test_destroy_inside_callback(void **state)
{
	struct world *w = *state;

	w->b.destroy_on_message = true;
	for (int i = 0; i < 3; i++)
		kb_channel_send_bytes(w->a.ch, 0, NULL, 0, NULL);
	run_until(w, w->a.closed);
	assert_int_equal(w->b.n_messages, 1);
	assert_int_equal(w->b.closed, 0);
}

static void test_queue_is_bounded(void **state)
{
	struct world *w = *state;
	uint8_t *big = calloc(1, 1 << 20);
	int sent = 0, r;

	make_raw(w);
	while ((r = kb_channel_send_bytes(w->a.ch, 0, big, 1 << 20, NULL)) == 0)
		assert_true(++sent < 64);
	free(big);
	assert_int_equal(r, -KB_ERR_LIMIT);
	assert_true(kb_channel_queued(w->a.ch) <= KB_CHANNEL_QUEUE_MAX);
	assert_true(sent >= 15);
}

static void test_finish_flushes(void **state)
{
	struct world *w = *state;
	uint8_t *big = calloc(1, 3 << 20);

	assert_int_equal(kb_channel_send_bytes(w->a.ch, 0, big, 3 << 20, NULL), 0);
	free(big);
	kb_channel_finish(w->a.ch);
	assert_int_equal(kb_channel_send_bytes(w->a.ch, 0, NULL, 0, NULL), -KB_ERR_CLOSED);
	run_until(w, w->a.closed && w->b.closed);
	assert_int_equal(w->b.n_messages, 1);
	assert_false(w->a.had_reason);
	assert_false(w->b.had_reason);
}

static void test_pause(void **state)
{
	struct world *w = *state;

	kb_channel_pause(w->b.ch, true);
	for (int i = 0; i < 3; i++)
		kb_channel_send_bytes(w->a.ch, 0, NULL, 0, NULL);
	kb_channel_send_bytes(w->b.ch, 0, NULL, 0, NULL);
	run_until(w, w->a.n_messages == 1);
	assert_int_equal(w->b.n_messages, 0);
	kb_channel_pause(w->b.ch, false);
	run_until(w, w->b.n_messages == 3);
}

static void test_stream_carries_bytes_exactly(void **state)
{
	struct world *w = *state;

	open_streams(w, 4);
	w->a.to_send = 5000011;
	w->b.to_send = 777777;
	pump(&w->a);
	pump(&w->b);
	run_until(w, w->b.got == w->a.to_send && w->a.got == w->b.to_send);
	assert_int_equal(w->a.mixed + w->b.mixed, 0);
	assert_true(w->a.writable > 0);
	assert_int_equal(kb_stream_eof(w->a.st, NULL), 0);
	assert_int_equal(kb_stream_write(w->a.st, "x", 1, NULL), -KB_ERR_CLOSED);
	run_until(w, w->b.eof == 1);
	assert_int_equal(w->a.eof, 0);
}

/* A reader that consumes nothing stops its own stream after the credit, and nothing else. */
static void test_credit_stops_only_its_stream(void **state)
{
	struct world *w = *state;
	struct end other_a = {.fd = -1}, other_b = {.fd = -1};

	open_streams(w, 1);
	assert_int_equal(kb_stream_open(w->a.ch, 2, &stream_ops, &other_a, &other_a.st, NULL), 0);
	assert_int_equal(kb_stream_open(w->b.ch, 2, &stream_ops, &other_b, &other_b.st, NULL), 0);
	w->b.hold = true;
	w->a.to_send = other_a.to_send = 1 << 20;
	pump(&w->a);
	pump(&other_a);
	run_until(w, other_b.got == 1 << 20);
	assert_int_equal(w->b.got, KB_STREAM_CREDIT);
	assert_int_equal(kb_stream_writable(w->a.st, 1), 0);
	w->b.hold = false;
	kb_stream_consumed(w->b.st, w->b.held);
	run_until(w, w->b.got == 1 << 20);
	assert_int_equal(w->b.mixed + other_b.mixed, 0);
}

/* With less credit left than somebody needs, the next credit wakes them. */
static void test_need_more_than_is_left(void **state)
{
	struct world *w = *state;

	open_streams(w, 1);
	w->b.hold = true;
	w->a.to_send = KB_STREAM_CREDIT - 8;
	pump(&w->a);
	run_until(w, w->b.got == KB_STREAM_CREDIT - 8);
	assert_int_equal(kb_stream_writable(w->a.st, 1), 8);
	assert_int_equal(kb_stream_writable(w->a.st, 9), 0);
	w->a.to_send = KB_STREAM_CREDIT + 92;
	w->b.hold = false;
	kb_stream_consumed(w->b.st, w->b.held);
	run_until(w, w->b.got == KB_STREAM_CREDIT + 92);
}

static void test_more_than_credit_closes(void **state)
{
	struct world *w = *state;
	uint8_t *chunk = calloc(1, KB_STREAM_CHUNK);

	make_raw(w);
	assert_int_equal(kb_stream_open(w->a.ch, 1, &stream_ops, &w->a, &w->a.st, NULL), 0);
	w->a.hold = true;
	for (unsigned i = 0; i < KB_STREAM_CREDIT / KB_STREAM_CHUNK; i++) {
		raw_send(w, &(struct kb_frame){KB_STREAM_CHUNK, 1, KB_FRAME_DATA, 0}, chunk,
			KB_STREAM_CHUNK);
		run_until(w, w->a.got == (i + 1) * KB_STREAM_CHUNK);
	}
	assert_int_equal(w->a.closed, 0);
	raw_send(w, &(struct kb_frame){1, 1, KB_FRAME_DATA, 0}, chunk, 1);
	run_until(w, w->a.closed);
	assert_int_equal(w->a.why.code, KB_ERR_INVALID);
	free(chunk);
}

static void test_unknown_stream_is_credited_back(void **state)
{
	struct world *w = *state;
	uint8_t reply[KB_FRAME_HEADER + 4];
	struct kb_frame frame;

	make_raw(w);
	raw_send(w, &(struct kb_frame){3, 77, KB_FRAME_DATA, 0}, "abc", 3);
	raw_send(w, &(struct kb_frame){0, 77, KB_FRAME_EOF, 0}, NULL, 0);
	raw_send(w, &(struct kb_frame){0, 0, KB_FRAME_MSG, 0}, NULL, 0);
	run_until(w, w->a.n_messages == 1);
	assert_int_equal(kb_fd_read_exact(w->raw, reply, sizeof(reply), NULL), 0);
	assert_int_equal(kb_frame_decode(reply, sizeof(reply), &frame, NULL), 1);
	assert_int_equal(frame.kind, KB_FRAME_CREDIT);
	assert_int_equal(frame.stream, 77);
	assert_int_equal(reply[KB_FRAME_HEADER], 3);
}

static void test_stream_bounds(void **state)
{
	struct world *w = *state;
	struct kb_stream *st;
	int r = 0;
	uint32_t id = 1;

	assert_int_equal(kb_stream_open(w->a.ch, 0, &stream_ops, &w->a, &st, NULL), -KB_ERR_EXISTS);
	while (r == 0)
		r = kb_stream_open(w->a.ch, id++, &stream_ops, &w->a, &st, NULL);
	assert_int_equal(r, -KB_ERR_LIMIT);
	assert_int_equal(kb_stream_open(w->a.ch, 1, &stream_ops, &w->a, &st, NULL), -KB_ERR_EXISTS);
}

/* Messages overtake bulk: with a stream that always has more, a message is not far behind. */
static void test_messages_are_quick_beside_bulk(void **state)
{
	struct world *w = *state;
	size_t before;

	open_streams(w, 1);
	w->a.to_send = 64 << 20;
	pump(&w->a);
	run_until(w, w->b.got > 1 << 20);
	before = w->b.got;
	kb_channel_send_bytes(w->a.ch, 0, NULL, 0, NULL);
	run_until(w, w->b.n_messages == 1);
	assert_true(w->b.got - before < 2 << 20);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_codec_round_trip),
		cmocka_unit_test(test_codec_refuses),
		T(test_messages_both_ways),
		T(test_fds_travel),
		T(test_flag_without_fd_closes),
		T(test_garbage_closes_with_a_reason),
		T(test_orderly_and_early_end),
		T(test_last_words_are_heard),
		T(test_callee_refuses),
		T(test_destroy_inside_callback),
		T(test_queue_is_bounded),
		T(test_finish_flushes),
		T(test_pause),
		T(test_stream_carries_bytes_exactly),
		T(test_credit_stops_only_its_stream),
		T(test_need_more_than_is_left),
		T(test_more_than_credit_closes),
		T(test_unknown_stream_is_credited_back),
		T(test_stream_bounds),
		T(test_messages_are_quick_beside_bulk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
