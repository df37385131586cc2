/* Packets that are found again in any bytes, and one lasting stream over carriers that break at any
 * moment: every byte arrives once, in order, in both directions, and so do the ends. */
#include "kbtest.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "supervisor/base/resume.h"

#define STREAM_BYTES (6u << 20)
#define BREAKS	     60
#define DEADLINE_MS  60000

static unsigned seed = 1;

/* ---- Packets --------------------------------------------------------------------------------- */

static void encode(struct kb_buf *out, uint8_t kind, uint64_t offset, const void *data, size_t len)
{
	const struct kb_packet packet = {.kind = kind, .offset = offset, .data = data, .len = len};
	struct kb_err err;

	assert_ok(kb_packet_encode(&packet, out, &err));
}

static void assert_packet(const uint8_t *wire, size_t len, uint8_t kind, uint64_t offset,
	const uint8_t *data, size_t data_len)
{
	struct kb_packet got;
	KB_FREE uint8_t *copy = malloc(len + 1);

	assert_int_equal(wire[0], 0);
	assert_int_equal(wire[len - 1], 0);
	assert_null(memchr(wire + 1, 0, len - 2));
	memcpy(copy, wire + 1, len - 2);
	assert_true(kb_packet_decode(copy, len - 2, &got));
	assert_int_equal(got.kind, kind);
	assert_true(got.offset == offset);
	assert_int_equal(got.len, data_len);
	assert_memory_equal(got.data, data, data_len);
}

/* Lengths around the runs of the encoding, with and without zeroes in them. */
static void test_packets_come_back(void **state)
{
	static const size_t lengths[] = {0, 1, 2, 237, 238, 239, 253, 254, 255, 256, 507, 508, 509,
		510, 4096, KB_PACKET_DATA_MAX - 1, KB_PACKET_DATA_MAX};
	static uint8_t data[KB_PACKET_DATA_MAX];

	for (size_t i = 0; i < KB_ARRAY_LEN(lengths); i++)
		for (unsigned zeroes = 0; zeroes < 4; zeroes++) {
			KB_BUF_CLEANUP struct kb_buf out;

			kb_buf_init(&out, 2 * KB_PACKET_WIRE_MAX);
			for (size_t k = 0; k < lengths[i]; k++)
				data[k] = zeroes == 0	? (uint8_t)(1 + k % 255)
					  : zeroes == 1 ? 0
					  : zeroes == 2 ? (uint8_t)(k % 254 ? 7 : 0)
							: (uint8_t)(rand_r(&seed) & 3);
			encode(&out, 3, UINT64_MAX - i, data, lengths[i]);
			assert_true(kb_buf_len(&out) <= KB_PACKET_WIRE_MAX);
			assert_packet(kb_buf_data(&out), kb_buf_len(&out), 3, UINT64_MAX - i, data,
				lengths[i]);
		}
}

static void test_a_packet_has_a_bound(void **state)
{
	static uint8_t data[KB_PACKET_DATA_MAX + 1];
	const struct kb_packet packet = {.kind = 1, .data = data, .len = sizeof(data)};
	KB_BUF_CLEANUP struct kb_buf out;
	struct kb_err err;

	kb_buf_init(&out, 1u << 20);
	assert_int_equal(kb_packet_encode(&packet, &out, &err), -KB_ERR_LIMIT);
	assert_int_equal(kb_buf_len(&out), 0);
}

static void test_what_is_cut_is_no_packet(void **state)
{
	KB_BUF_CLEANUP struct kb_buf out;
	struct kb_packet got;
	uint8_t copy[512];
	size_t len;

	kb_buf_init(&out, 2 * KB_PACKET_WIRE_MAX);
	encode(&out, 2, 77, "some bytes\0and more", 19);
	len = kb_buf_len(&out) - 2;
	for (size_t cut = 1; cut < len; cut++) {
		memcpy(copy, kb_buf_data(&out) + 1, len - cut);
		assert_false(kb_packet_decode(copy, len - cut, &got));
		memcpy(copy, kb_buf_data(&out) + 1 + cut, len - cut);
		assert_false(kb_packet_decode(copy, len - cut, &got));
	}
}

/* ---- Carriers -------------------------------------------------------------------------------- */

struct heard {
	struct kb_loop *loop;
	unsigned packets, ended;
	uint64_t last;
};

static void on_packet(struct kb_carrier *carrier, const struct kb_packet *packet, void *arg)
{
	struct heard *h = arg;

	h->packets++;
	h->last = packet->offset;
}

static void on_room(struct kb_carrier *carrier, void *arg)
{
}

static void on_ended(struct kb_carrier *carrier, const struct kb_err *why, void *arg)
{
	struct heard *h = arg;

	h->ended++;
	kb_loop_stop(h->loop);
}

static const struct kb_carrier_ops heard_ops = {on_packet, on_room, on_ended};

/* Garbage of any kind, halves of packets, a megabyte without a zero: what is whole is heard. */
static void test_whole_packets_are_heard_among_anything(void **state)
{
	KB_BUF_CLEANUP struct kb_buf out;
	struct heard heard = {0};
	struct kb_carrier *carrier;
	uint8_t *noise = malloc(1u << 20);
	struct kb_err err;
	int pair[2], size = 4 << 20;

	memset(noise, 0x55, 1u << 20);
	kb_buf_init(&out, 4u << 20);
	assert_ok(kb_buf_puts(&out, "the end of something\1\2\3", &err));
	encode(&out, 1, 1, "x", 1);
	assert_ok(kb_buf_append(&out, noise, 100, &err));
	encode(&out, 1, 2, "yy", 2);
	assert_ok(kb_buf_append(&out, noise, 1u << 20, &err));
	encode(&out, 1, 3, "zzz", 3);
	kb_buf_consume(&out, 0);
	out.tail -= 4; /* the third is cut, and one more follows */
	encode(&out, 1, 4, "w", 1);
	free(noise);

	assert_ok(kb_loop_create(&heard.loop, &err));
	assert_ok(kb_fd_socketpair(false, pair, &err));
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	assert_ok(kb_carrier_create(heard.loop, pair[1], &heard_ops, &heard, &carrier, &err));
	assert_ok(kb_fd_nonblock(pair[0], &err));
	assert_int_equal(write(pair[0], kb_buf_data(&out), kb_buf_len(&out)), kb_buf_len(&out));
	close(pair[0]);
	while (!heard.ended)
		assert_ok(kb_loop_run(heard.loop, &err));
	assert_int_equal(heard.packets, 3);
	assert_int_equal(heard.last, 4);
	kb_carrier_destroy(carrier);
	kb_loop_destroy(heard.loop);
}

/* ---- One stream ------------------------------------------------------------------------------ */

struct side {
	struct world *world;
	struct kb_resume *resume;
	int user; /* the far end of its local socket; -1: closed */
	uint32_t next_out, next_in;
	size_t out, in, to_send;
	bool in_eof, over, stranded;
	unsigned strands;
	size_t pace; /* bytes read from the stream per turn; 0: as many as there are */
};

struct world {
	struct kb_loop *loop;
	struct kb_source *tick, *deadline;
	struct side a, b;
	int carrier[2]; /* duplicates, to break it with; -1: none */
	unsigned breaks;
	bool late;
};

static uint8_t next_byte(uint32_t *x)
{
	*x = *x * 1664525u + 1013904223u;
	return (uint8_t)(*x >> 24);
}

static void on_stranded(struct kb_resume *resume, const struct kb_err *why, void *arg)
{
	struct side *s = arg;

	assert_true(why->code != 0 && why->msg[0]);
	s->stranded = true;
	s->strands++;
}

static void on_handshake(struct kb_resume *resume, const struct kb_packet *packet, void *arg)
{
}

static void on_over(struct kb_resume *resume, void *arg)
{
	struct side *s = arg;

	assert_false(s->over);
	s->over = true;
}

static const struct kb_resume_ops resume_ops = {on_stranded, on_handshake, on_over};

static void carry_one(struct side *s, int fd, uint64_t peer_has)
{
	struct kb_carrier *carrier;
	struct kb_err err;

	s->stranded = false;
	assert_ok(kb_carrier_create(s->world->loop, fd, &heard_ops, NULL, &carrier, &err));
	assert_ok(kb_resume_carry(s->resume, carrier, peer_has, &err));
}

/* A new carrier for both, with small buffers, so that much is on the way when it breaks. */
static void carry(struct world *w)
{
	uint64_t a_has = kb_resume_handed(w->a.resume), b_has = kb_resume_handed(w->b.resume);
	int pair[2], size = 4096;
	struct kb_err err;

	for (int i = 0; i < 2; i++)
		kb_close(&w->carrier[i]);
	assert_ok(kb_fd_socketpair(false, pair, &err));
	for (int i = 0; i < 2; i++) {
		setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
		w->carrier[i] = dup(pair[i]);
	}
	carry_one(&w->a, pair[0], b_has);
	carry_one(&w->b, pair[1], a_has);
}

static void use(struct side *s)
{
	uint8_t bytes[8192];
	ssize_t n;

	while (s->user >= 0 && s->out < s->to_send) {
		uint32_t x = s->next_out;
		size_t some = 1 + (size_t)rand_r(&seed) % sizeof(bytes);
		size_t len = KB_MIN(s->to_send - s->out, some);

		for (size_t i = 0; i < len; i++)
			bytes[i] = next_byte(&x);
		n = send(s->user, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n <= 0)
			break;
		for (ssize_t i = 0; i < n; i++)
			next_byte(&s->next_out);
		s->out += (size_t)n;
		if (s->out == s->to_send)
			shutdown(s->user, SHUT_WR);
	}
	for (size_t turn = 0; s->user >= 0 && !s->in_eof && turn <= s->pace * 4; turn++) {
		n = recv(s->user, bytes, s->pace ? s->pace : sizeof(bytes), MSG_DONTWAIT);
		if (n == 0)
			s->in_eof = true;
		if (n <= 0)
			break;
		for (ssize_t i = 0; i < n; i++)
			if (bytes[i] != next_byte(&s->next_in))
				fail_msg("byte %zu is another one", s->in + (size_t)i);
		s->in += (size_t)n;
	}
}

static bool is_done(const struct world *w)
{
	return w->a.over && w->b.over && w->a.in_eof && w->b.in_eof;
}

static void on_tick(void *arg)
{
	struct world *w = arg;

	use(&w->a);
	use(&w->b);
	if (w->breaks > 0 && w->carrier[0] >= 0 && rand_r(&seed) % 8 == 0) {
		w->breaks--;
		shutdown(w->carrier[rand_r(&seed) % 2], SHUT_RDWR);
		for (int i = 0; i < 2; i++)
			kb_close(&w->carrier[i]);
	}
	if (w->a.stranded && w->b.stranded)
		carry(w);
	if (is_done(w))
		kb_loop_stop(w->loop);
	else
		(void)kb_source_arm(w->tick, 1, NULL);
}

static void on_deadline(void *arg)
{
	struct world *w = arg;

	w->late = true;
	kb_loop_stop(w->loop);
}

static void open_side(struct world *w, struct side *s, size_t to_send)
{
	struct kb_err err;
	int pair[2];

	*s = (struct side){.world = w, .to_send = to_send, .next_out = 7, .next_in = 7};
	assert_ok(kb_fd_socketpair(false, pair, &err));
	s->user = pair[1];
	assert_ok(kb_resume_create(w->loop, pair[0], &resume_ops, s, &s->resume, &err));
	if (to_send == 0)
		shutdown(s->user, SHUT_WR);
}

static void open_world(struct world *w, size_t a_sends, size_t b_sends, unsigned breaks)
{
	struct kb_err err;

	*w = (struct world){.breaks = breaks, .carrier = {-1, -1}};
	assert_ok(kb_loop_create(&w->loop, &err));
	assert_ok(kb_loop_timer(w->loop, on_tick, w, &w->tick, &err));
	assert_ok(kb_loop_timer(w->loop, on_deadline, w, &w->deadline, &err));
	open_side(w, &w->a, a_sends);
	open_side(w, &w->b, b_sends);
}

static void run_world(struct world *w)
{
	struct kb_err err;

	assert_ok(kb_source_arm(w->tick, 0, &err));
	assert_ok(kb_source_arm(w->deadline, DEADLINE_MS, &err));
	assert_ok(kb_loop_run(w->loop, &err));
	if (w->late)
		fail_msg("not in time: %zu of %zu and %zu of %zu bytes, %u and %u carriers lost",
			w->b.in, w->a.to_send, w->a.in, w->b.to_send, w->a.strands, w->b.strands);
}

static void close_world(struct world *w)
{
	kb_resume_destroy(w->a.resume);
	kb_resume_destroy(w->b.resume);
	for (int i = 0; i < 2; i++)
		kb_close(&w->carrier[i]);
	kb_close(&w->a.user);
	kb_close(&w->b.user);
	kb_source_destroy(w->tick);
	kb_source_destroy(w->deadline);
	kb_loop_destroy(w->loop);
}

static void test_carriers_break(void **state)
{
	struct world w;

	open_world(&w, STREAM_BYTES, STREAM_BYTES / 2, BREAKS);
	carry(&w);
	run_world(&w);
	assert_int_equal(w.b.in, STREAM_BYTES);
	assert_int_equal(w.a.in, STREAM_BYTES / 2);
	assert_in_range(w.a.strands, 10, BREAKS + 1);
	close_world(&w);
}

/* Without a carrier so much is taken and no more; nothing is lost of it. */
static void test_without_a_carrier_it_waits(void **state)
{
	struct world w;
	struct kb_err err;

	open_world(&w, 4 * KB_RESUME_WINDOW, 0, 0);
	w.late = false;
	for (int i = 0; i < 50; i++) {
		use(&w.a);
		assert_ok(kb_source_arm(w.deadline, 2, &err));
		assert_ok(kb_loop_run(w.loop, &err));
	}
	w.late = false;
	assert_in_range(w.a.out, KB_RESUME_WINDOW, 2 * KB_RESUME_WINDOW);
	carry(&w);
	run_world(&w);
	assert_int_equal(w.b.in, 4 * KB_RESUME_WINDOW);
	close_world(&w);
}

/* A reader that takes its time holds up its writer, and the other direction goes on. */
static void test_a_slow_reader(void **state)
{
	struct world w;

	open_world(&w, 2 * KB_RESUME_WINDOW, STREAM_BYTES, 0);
	w.b.pace = 2048;
	carry(&w);
	run_world(&w);
	assert_int_equal(w.a.in, STREAM_BYTES);
	assert_int_equal(w.b.in, 2 * KB_RESUME_WINDOW);
	close_world(&w);
}

/* Nobody reads any more on one side: the other's end still comes about. */
static void test_a_closed_end(void **state)
{
	struct world w;

	open_world(&w, STREAM_BYTES, 0, 0);
	kb_close(&w.b.user);
	w.b.in_eof = true;
	carry(&w);
	run_world(&w);
	close_world(&w);
}

static void test_a_place_that_cannot_be(void **state)
{
	struct world w;
	struct kb_carrier *carrier;
	struct kb_err err;
	int pair[2];

	open_world(&w, 0, 0, 0);
	assert_ok(kb_fd_socketpair(false, pair, &err));
	assert_ok(kb_carrier_create(w.loop, pair[0], &heard_ops, NULL, &carrier, &err));
	assert_int_equal(kb_resume_carry(w.a.resume, carrier, 1000, &err), -KB_ERR_INVALID);
	assert_false(kb_resume_is_carried(w.a.resume));
	close(pair[1]);
	close_world(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_packets_come_back),
		cmocka_unit_test(test_a_packet_has_a_bound),
		cmocka_unit_test(test_what_is_cut_is_no_packet),
		cmocka_unit_test(test_whole_packets_are_heard_among_anything),
		cmocka_unit_test(test_carriers_break),
		cmocka_unit_test(test_without_a_carrier_it_waits),
		cmocka_unit_test(test_a_slow_reader),
		cmocka_unit_test(test_a_closed_end),
		cmocka_unit_test(test_a_place_that_cannot_be),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
