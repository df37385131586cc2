/* `limit notify-rate`: calls past it wait, none is lost, and the record says so. */
#include "tests/unit/kbtest.h"

#include <fcntl.h>
#include <pthread.h>

#include "live.h"

#define CALLS	800 /* of 200 a second: the first 200 come at once, the rest waits three seconds */
#define THREADS 4

static void *open_many(void *arg)
{
	for (int i = 0; i < CALLS / THREADS; i++)
		if (open("/nowhere/at-all", O_RDONLY) >= 0)
			return arg;
	return NULL;
}

static int flood(void *arg)
{
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, open_many, NULL) != 0)
			return 1;
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	return 0;
}

static void test_rate(void **state)
{
	const struct kb_record *first, *last;
	const struct kb_rule *rules;
	struct live live = {0};

	assert_int_equal(
		live_run(&live, LIVE_POLICY(LIVE_FILES LIVE_RECORD "limit notify-rate 200/s\n"),
			flood, NULL),
		0);
	assert_int_equal(live_count(&live, KB_EVENT_OPEN, "/nowhere/at-all"), CALLS);
	first = live_find(&live, KB_EVENT_THROTTLE, NULL, 0);
	last = live_find(&live, KB_EVENT_THROTTLE, NULL, 1);
	assert_non_null(first);
	assert_non_null(last);
	kb_bundle_rules(live.bundle, &rules);
	assert_non_null(strstr(rules[first->rule].text, "notify-rate"));
	assert_int_equal(strncmp((const char *)first->text.data, "begins", 6), 0);
	assert_int_equal(strncmp((const char *)last->text.data, "ends", 4), 0);
	assert_true(last->count > 0 && last->count < CALLS);
	assert_true(live_index(&live, first) < live_index(&live, last));
	live_finish(&live);
}

static void test_no_limit(void **state)
{
	struct live live = {0};

	assert_int_equal(live_run(&live, LIVE_POLICY(LIVE_FILES LIVE_RECORD), flood, NULL), 0);
	assert_int_equal(live_count(&live, KB_EVENT_OPEN, "/nowhere/at-all"), CALLS);
	assert_null(live_find(&live, KB_EVENT_THROTTLE, NULL, 0));
	live_finish(&live);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rate),
		cmocka_unit_test(test_no_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
