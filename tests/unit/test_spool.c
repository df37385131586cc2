/* The spool: numbering, acknowledgement, and what must not be thrown away. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants those first */
#include <cmocka.h>
#include <string.h>

#include "supervisor/guest/spool.h"

static void add(struct kb_spool *s, uint32_t count, size_t len)
{
	static uint8_t bytes[1 << 20];

	assert_int_equal(kb_spool_add(s, bytes, len, count, 0, NULL), 0);
}

static void test_numbers(void **state)
{
	struct kb_spool s = {0};

	add(&s, 3, 10);
	add(&s, 1, 10);
	add(&s, 5, 10);
	assert_int_equal(s.last_seq, 9);
	assert_int_equal(s.head->first_seq, 1);
	assert_int_equal(s.head->next->first_seq, 4);
	assert_int_equal(s.tail->first_seq, 5);
	kb_spool_finish(&s);
}

static void test_acknowledged(void **state)
{
	struct kb_spool s = {0};

	add(&s, 3, 10);
	add(&s, 2, 20);
	/* Not sent yet: whatever the other side says, it cannot have it. */
	kb_spool_ack(&s, 99);
	assert_int_equal(s.bytes, 30);
	kb_spool_sent(&s);
	kb_spool_sent(&s);
	assert_null(s.unsent);
	/* Half of a block is nothing; a whole one goes. */
	kb_spool_ack(&s, 2);
	assert_int_equal(s.bytes, 30);
	kb_spool_ack(&s, 3);
	assert_int_equal(s.bytes, 20);
	kb_spool_ack(&s, 5);
	assert_int_equal(s.bytes, 0);
	assert_null(s.head);
	assert_null(s.tail);
	/* The numbers go on. */
	add(&s, 1, 1);
	assert_int_equal(s.unsent->first_seq, 6);
	kb_spool_finish(&s);
}

static void test_full(void **state)
{
	struct kb_spool s = {0};

	for (size_t bytes = 0; bytes < KB_SPOOL_MAX; bytes += 1 << 20) {
		assert_false(kb_spool_is_full(&s));
		add(&s, 1, 1 << 20);
		kb_spool_sent(&s);
	}
	assert_true(kb_spool_is_full(&s));
	kb_spool_ack(&s, 1);
	assert_false(kb_spool_is_full(&s));
	kb_spool_finish(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_acknowledged),
		cmocka_unit_test(test_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
