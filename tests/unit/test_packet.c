/* Packets: what is encoded comes out, whatever stands around it; what is cut or joined does not. */
#include "kbtest.h"

#include "supervisor/base/packet.h"

static uint32_t seed = 1;

static uint32_t next_random(void)
{
	seed = seed * 1664525 + 1013904223;
	return seed >> 8;
}

/* Mostly zeros, mostly none, or anything. */
static void fill(uint8_t *data, size_t len, int how)
{
	for (size_t i = 0; i < len; i++)
		data[i] = how == 0   ? 0
			  : how == 1 ? (uint8_t)(1 + next_random() % 255)
				     : (uint8_t)next_random();
}

static void encode(struct kb_buf *out, uint64_t number, const uint8_t *data, size_t len)
{
	struct kb_packet p = {.kind = KB_PACKET_DATA,
		.line = 7,
		.number = number,
		.ack = UINT64_MAX,
		.data = data,
		.len = len};
	struct kb_err err;

	assert_ok(kb_packet_encode(&p, out, &err));
}

static void check(const struct kb_packet *p, uint64_t number, const uint8_t *data, size_t len)
{
	assert_int_equal(p->kind, KB_PACKET_DATA);
	assert_int_equal(p->line, 7);
	assert_int_equal(p->number, number);
	assert_true(p->ack == UINT64_MAX);
	assert_int_equal(p->len, len);
	assert_memory_equal(p->data, data, len);
}

static void test_lengths(void **state)
{
	static const size_t lengths[] = {0, 1, 2, 224, 225, 226, 253, 254, 255, 256, 507, 508, 509,
		510, 1000, 32767, KB_PACKET_BYTES};
	static struct kb_packet_decoder d;
	static uint8_t data[KB_PACKET_BYTES];
	struct kb_packet p;
	size_t used;

	for (int how = 0; how < 3; how++)
		for (size_t i = 0; i < KB_ARRAY_LEN(lengths); i++) {
			struct kb_buf out KB_BUF_CLEANUP;

			kb_buf_init(&out, KB_PACKET_MAX);
			fill(data, lengths[i], how);
			encode(&out, i, data, lengths[i]);
			assert_null(memchr(kb_buf_data(&out) + 1, 0, kb_buf_len(&out) - 2));
			assert_int_equal(kb_packet_decode(&d, kb_buf_data(&out), kb_buf_len(&out),
						 &used, &p),
				1);
			assert_int_equal(used, kb_buf_len(&out));
			check(&p, i, data, lengths[i]);
		}
	assert_int_equal(d.bad, 0);
}

static void test_too_long(void **state)
{
	static uint8_t data[KB_PACKET_BYTES + 1];
	struct kb_packet p = {.kind = KB_PACKET_DATA, .line = 1, .data = data, .len = sizeof(data)};
	struct kb_buf out KB_BUF_CLEANUP;

	kb_buf_init(&out, 2 * KB_PACKET_MAX);
	assert_int_equal(kb_packet_encode(&p, &out, NULL), -KB_ERR_LIMIT);
	assert_int_equal(kb_buf_len(&out), 0);
}

/* Feed everything, in pieces of the given size; how many packets came out. */
static size_t count(struct kb_packet_decoder *d, const uint8_t *bytes, size_t len, size_t piece)
{
	struct kb_packet p;
	size_t n = 0;

	while (len > 0) {
		size_t take = KB_MIN(len, piece), used;

		n += (size_t)kb_packet_decode(d, bytes, take, &used, &p);
		assert_true(used > 0 && used <= take);
		bytes += used;
		len -= used;
	}
	return n;
}

static void test_pieces(void **state)
{
	static struct kb_packet_decoder d;
	struct kb_buf out KB_BUF_CLEANUP;
	uint8_t data[700];

	kb_buf_init(&out, 1u << 20);
	for (int i = 0; i < 50; i++) {
		fill(data, sizeof(data), i % 3);
		encode(&out, (uint64_t)i, data, (size_t)i * 14);
	}
	for (size_t piece = 1; piece < 1000; piece = piece * 3 / 2 + 1)
		assert_int_equal(count(&d, kb_buf_data(&out), kb_buf_len(&out), piece), 50);
	assert_int_equal(d.bad, 0);
}

/* Every cut of a packet, in front of a whole one: only that is found. */
static void test_cut(void **state)
{
	static struct kb_packet_decoder d;
	struct kb_buf one KB_BUF_CLEANUP;
	uint8_t data[300];

	kb_buf_init(&one, KB_PACKET_MAX);
	fill(data, sizeof(data), 2);
	encode(&one, 1, data, sizeof(data));
	for (size_t cut = 0; cut < kb_buf_len(&one) - 1; cut++) {
		assert_int_equal(count(&d, kb_buf_data(&one), cut, cut + 1), 0);
		assert_int_equal(count(&d, kb_buf_data(&one), kb_buf_len(&one), 4096), 1);
	}
	/* The beginning of one and the end of another, of equal length. */
	for (size_t at = 2; at < kb_buf_len(&one) - 2; at++) {
		struct kb_buf other KB_BUF_CLEANUP;
		bool same;

		kb_buf_init(&other, KB_PACKET_MAX);
		fill(data, sizeof(data), 2);
		encode(&other, 2, data, sizeof(data));
		same = at < kb_buf_len(&other) && /* in what the two do not differ in */
		       (!memcmp(kb_buf_data(&one), kb_buf_data(&other), at) ||
			       (kb_buf_len(&one) == kb_buf_len(&other) &&
				       !memcmp(kb_buf_data(&one) + at, kb_buf_data(&other) + at,
					       kb_buf_len(&one) - at)));
		(void)count(&d, kb_buf_data(&one), at, at);
		assert_true(
			same || at >= kb_buf_len(&other) ||
			count(&d, kb_buf_data(&other) + at, kb_buf_len(&other) - at, 4096) == 0);
		kb_packet_decoder_reset(&d);
	}
}

static void test_rubbish(void **state)
{
	static struct kb_packet_decoder d;
	static uint8_t long_one[3 * KB_PACKET_MAX];
	struct kb_buf one KB_BUF_CLEANUP;
	uint8_t bytes[512];

	kb_buf_init(&one, KB_PACKET_MAX);
	encode(&one, 1, (const uint8_t *)"x", 1);
	for (int i = 0; i < 2000; i++) {
		fill(bytes, sizeof(bytes), i % 3);
		assert_int_equal(count(&d, bytes, sizeof(bytes), 100), 0);
		assert_int_equal(count(&d, kb_buf_data(&one), kb_buf_len(&one), 4096), 1);
	}
	/* No zero for longer than a packet can be: bounded, and what follows is found. */
	memset(long_one, 'x', sizeof(long_one));
	assert_int_equal(count(&d, long_one, sizeof(long_one), 1000), 0);
	assert_int_equal(count(&d, kb_buf_data(&one), kb_buf_len(&one), 4096), 1);
	assert_true(d.bad > 2000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_too_long),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_rubbish),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
