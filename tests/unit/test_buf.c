/* The bounded buffer: growth, the bound, consumption, and what a failure leaves alone. */
#include "kbtest.h"

#include "supervisor/base/buf.h"

static void test_append_and_consume(void **state)
{
	struct kb_err err;
	KB_BUF_CLEANUP struct kb_buf buf;

	kb_buf_init(&buf, 1 << 20);
	assert_int_equal(kb_buf_len(&buf), 0);
	assert_ok(kb_buf_append(&buf, "hello ", 6, &err));
	assert_ok(kb_buf_puts(&buf, "world", &err));
	assert_int_equal(kb_buf_len(&buf), 11);
	assert_memory_equal(kb_buf_data(&buf), "hello world", 11);
	kb_buf_consume(&buf, 6);
	assert_memory_equal(kb_buf_data(&buf), "world", 5);
	kb_buf_consume(&buf, 5);
	assert_int_equal(kb_buf_len(&buf), 0);
	assert_ok(kb_buf_append(&buf, NULL, 0, &err));
}

static void test_the_bound_holds_and_changes_nothing(void **state)
{
	struct kb_err err;
	uint8_t *dst;
	KB_BUF_CLEANUP struct kb_buf buf;

	kb_buf_init(&buf, 10);
	assert_ok(kb_buf_append(&buf, "12345678", 8, &err));
	assert_int_equal(kb_buf_append(&buf, "abc", 3, &err), -KB_ERR_LIMIT);
	assert_int_equal(kb_buf_reserve(&buf, SIZE_MAX, &dst, &err), -KB_ERR_LIMIT);
	assert_int_equal(kb_buf_len(&buf), 8);
	assert_memory_equal(kb_buf_data(&buf), "12345678", 8);
	assert_ok(kb_buf_append(&buf, "ab", 2, &err));
	/* Consumed bytes make room again: the bound is on live bytes. */
	kb_buf_consume(&buf, 4);
	assert_ok(kb_buf_append(&buf, "cdef", 4, &err));
	assert_memory_equal(kb_buf_data(&buf), "5678abcdef", 10);
	assert_int_equal(kb_buf_append(&buf, "x", 1, &err), -KB_ERR_LIMIT);
}

static void test_printf(void **state)
{
	struct kb_err err;
	KB_BUF_CLEANUP struct kb_buf buf;

	kb_buf_init(&buf, 32);
	assert_ok(kb_buf_printf(&buf, &err, "%d %s", 42, "x"));
	assert_int_equal(kb_buf_len(&buf), 4);
	assert_memory_equal(kb_buf_data(&buf), "42 x", 4);
	assert_int_equal(kb_buf_printf(&buf, &err, "%40d", 1), -KB_ERR_LIMIT);
	assert_int_equal(kb_buf_len(&buf), 4);
	/* Text may fill the buffer to its bound. */
	assert_ok(kb_buf_printf(&buf, &err, "%28d", 1));
	assert_int_equal(kb_buf_len(&buf), 32);
}

static void test_steal_string(void **state)
{
	struct kb_err err;
	KB_BUF_CLEANUP struct kb_buf buf;

	kb_buf_init(&buf, 100);
	assert_ok(kb_buf_puts(&buf, "drop me keep me", &err));
	kb_buf_consume(&buf, 8);
	KB_FREE char *text = kb_buf_steal_string(&buf);

	assert_string_equal(text, "keep me");
	assert_int_equal(kb_buf_len(&buf), 0);
	assert_int_equal(buf.max, 100);
	KB_FREE char *empty = kb_buf_steal_string(&buf);

	assert_string_equal(empty, "");
	assert_ok(kb_buf_puts(&buf, "again", &err));
}

/* As a queue: random appends and consumes keep the bytes in order. */
static void test_stays_a_queue(void **state)
{
	struct kb_err err;
	uint8_t next_in = 0, next_out = 0, chunk[97];
	unsigned seed = 1;
	KB_BUF_CLEANUP struct kb_buf buf;

	kb_buf_init(&buf, 1000);
	for (int round = 0; round < 5000; round++) {
		size_t n = (size_t)rand_r(&seed) % sizeof(chunk);

		if (rand_r(&seed) & 1 && kb_buf_len(&buf) + n <= buf.max) {
			for (size_t i = 0; i < n; i++)
				chunk[i] = next_in++;
			assert_ok(kb_buf_append(&buf, chunk, n, &err));
			continue;
		}
		n = KB_MIN(n, kb_buf_len(&buf));
		for (size_t i = 0; i < n; i++)
			assert_int_equal(kb_buf_data(&buf)[i], next_out++);
		kb_buf_consume(&buf, n);
	}
	assert_true(buf.cap < 4096);
}

static void test_contains_looks_at_what_is_left(void **state)
{
	struct kb_err err;
	KB_BUF_CLEANUP struct kb_buf buf;

	kb_buf_init(&buf, 64);
	assert_false(kb_buf_contains(&buf, "x"));
	assert_ok(kb_buf_puts(&buf, "one two", &err));
	assert_true(kb_buf_contains(&buf, "one t"));
	kb_buf_consume(&buf, 2);
	assert_false(kb_buf_contains(&buf, "one"));
	assert_true(kb_buf_contains(&buf, "two"));
	assert_false(kb_buf_contains(&buf, "two and more"));
}

static void test_finish_can_be_repeated(void **state)
{
	struct kb_err err;
	struct kb_buf buf;

	kb_buf_init(&buf, 8);
	assert_ok(kb_buf_puts(&buf, "x", &err));
	kb_buf_finish(&buf);
	kb_buf_finish(&buf);
	assert_int_equal(buf.max, 8);
	assert_int_equal(kb_buf_len(&buf), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_append_and_consume),
		cmocka_unit_test(test_the_bound_holds_and_changes_nothing),
		cmocka_unit_test(test_printf),
		cmocka_unit_test(test_steal_string),
		cmocka_unit_test(test_stays_a_queue),
		cmocka_unit_test(test_contains_looks_at_what_is_left),
		cmocka_unit_test(test_finish_can_be_repeated),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
