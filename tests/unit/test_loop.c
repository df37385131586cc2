/* The event loop: sources, their order of life, and time. */
#include "kbtest.h"

#include <signal.h>

#include "supervisor/base/loop.h"

struct seen {
	struct kb_loop *loop;
	struct kb_source *source, *other;
	int calls;
	int value;
	unsigned events;
	int64_t when;
};

static void stop_it(void *arg)
{
	struct seen *s = arg;

	s->calls++;
	s->when = kb_now_mono();
	kb_loop_stop(s->loop);
}

static void test_timer_fires_once_and_not_early(void **state)
{
	struct kb_err err;
	struct seen s = {0};
	int64_t start = kb_now_mono();

	assert_ok(kb_loop_create(&s.loop, &err));
	assert_ok(kb_loop_timer(s.loop, stop_it, &s, &s.source, &err));
	assert_ok(kb_source_arm(s.source, 30, &err));
	assert_ok(kb_loop_run(s.loop, &err));
	assert_int_equal(s.calls, 1);
	assert_true(s.when - start >= 29000000);
	/* Nothing is armed any more: run returns by itself. */
	assert_ok(kb_loop_run(s.loop, &err));
	assert_int_equal(s.calls, 1);
	kb_source_destroy(s.source);
	kb_loop_destroy(s.loop);
}

static void test_disarmed_and_moved_timers(void **state)
{
	struct kb_err err;
	struct seen early = {0}, late = {0};
	struct kb_loop *loop;

	assert_ok(kb_loop_create(&loop, &err));
	early.loop = late.loop = loop;
	assert_ok(kb_loop_timer(loop, stop_it, &early, &early.source, &err));
	assert_ok(kb_loop_timer(loop, stop_it, &late, &late.source, &err));
	assert_ok(kb_source_arm(early.source, 1, &err));
	kb_source_disarm(early.source);
	assert_ok(kb_source_arm(late.source, 60000, &err));
	assert_ok(kb_source_arm(late.source, 5, &err));
	assert_ok(kb_loop_run(loop, &err));
	assert_int_equal(early.calls, 0);
	assert_int_equal(late.calls, 1);
	kb_source_destroy(early.source);
	kb_source_destroy(late.source);
	kb_loop_destroy(loop);
}

static void on_readable(int fd, unsigned events, void *arg)
{
	struct seen *s = arg;
	char c = 0;

	s->calls++;
	s->events |= events;
	if (read(fd, &c, 1) == 1)
		s->value = s->value * 10 + (c - '0');
	else
		kb_loop_stop(s->loop);
}

static void test_io_is_level_triggered(void **state)
{
	struct kb_err err;
	struct seen s = {0};
	int p[2];

	assert_int_equal(pipe(p), 0);
	assert_ok(kb_loop_create(&s.loop, &err));
	assert_ok(kb_loop_io(s.loop, p[0], KB_IO_READ, on_readable, &s, &s.source, &err));
	assert_int_equal(write(p[1], "123", 3), 3);
	close(p[1]);
	assert_ok(kb_loop_run(s.loop, &err));
	assert_int_equal(s.calls, 4); /* three bytes, one at a time, and the end */
	assert_int_equal(s.value, 123);
	assert_int_equal(s.events, KB_IO_READ);
	kb_source_destroy(s.source);
	kb_loop_destroy(s.loop);
	close(p[0]);
}

static void on_writable(int fd, unsigned events, void *arg)
{
	struct seen *s = arg;

	s->calls++;
	s->events |= events;
	kb_source_set_events(s->source, 0, NULL);
}

/* Write interest only while it is asked for: a writable fd must not spin the loop. */
static void test_events_can_change(void **state)
{
	struct kb_err err;
	struct seen s = {0}, end = {0};
	int p[2];

	assert_int_equal(pipe(p), 0);
	assert_ok(kb_loop_create(&s.loop, &err));
	end.loop = s.loop;
	assert_ok(kb_loop_io(s.loop, p[1], 0, on_writable, &s, &s.source, &err));
	assert_ok(kb_loop_timer(s.loop, stop_it, &end, &end.source, &err));
	assert_ok(kb_source_arm(end.source, 20, &err));
	assert_ok(kb_loop_run(s.loop, &err));
	assert_int_equal(s.calls, 0);
	assert_ok(kb_source_set_events(s.source, KB_IO_WRITE, &err));
	assert_ok(kb_source_arm(end.source, 20, &err));
	assert_ok(kb_loop_run(s.loop, &err));
	assert_int_equal(s.calls, 1);
	assert_int_equal(s.events, KB_IO_WRITE);
	kb_source_destroy(s.source);
	kb_source_destroy(end.source);
	kb_loop_destroy(s.loop);
	close(p[0]);
	close(p[1]);
}

static void destroy_both(int fd, unsigned events, void *arg)
{
	struct seen *s = arg;

	s->calls++;
	kb_source_destroy(s->source);
	kb_source_destroy(s->other);
	s->source = s->other = NULL;
}

/* Both pipes are readable in the same turn; the first callback destroys both sources. */
static void test_sources_may_be_destroyed_in_a_callback(void **state)
{
	struct kb_err err;
	struct seen s = {0};
	int a[2], b[2];

	assert_int_equal(pipe(a), 0);
	assert_int_equal(pipe(b), 0);
	assert_ok(kb_loop_create(&s.loop, &err));
	assert_ok(kb_loop_io(s.loop, a[0], KB_IO_READ, destroy_both, &s, &s.source, &err));
	assert_ok(kb_loop_io(s.loop, b[0], KB_IO_READ, destroy_both, &s, &s.other, &err));
	assert_int_equal(write(a[1], "x", 1), 1);
	assert_int_equal(write(b[1], "x", 1), 1);
	assert_ok(kb_loop_run(s.loop, &err));
	assert_int_equal(s.calls, 1);
	kb_loop_destroy(s.loop);
	for (int i = 0; i < 2; i++) {
		close(a[i]);
		close(b[i]);
	}
}

static void on_signal(int signo, void *arg)
{
	struct seen *s = arg;

	s->calls++;
	s->value = signo;
	kb_loop_stop(s->loop);
}

static void send_signal(void *arg)
{
	kill(getpid(), SIGUSR1);
}

static void test_signals_arrive_on_the_loop(void **state)
{
	struct kb_err err;
	struct seen s = {0};

	assert_ok(kb_loop_create(&s.loop, &err));
	assert_ok(kb_loop_signal(s.loop, SIGUSR1, on_signal, &s, &s.source, &err));
	assert_ok(kb_loop_timer(s.loop, send_signal, NULL, &s.other, &err));
	assert_ok(kb_source_arm(s.other, 1, &err));
	assert_ok(kb_loop_run(s.loop, &err));
	assert_int_equal(s.calls, 1);
	assert_int_equal(s.value, SIGUSR1);
	kb_source_destroy(s.source);
	kb_source_destroy(s.other);
	kb_loop_destroy(s.loop);
}

static void test_a_bad_fd_is_an_error(void **state)
{
	struct kb_err err;
	struct kb_loop *loop;
	struct kb_source *source = NULL;
	int p[2];

	assert_ok(kb_loop_create(&loop, &err));
	assert_int_equal(pipe(p), 0);
	close(p[0]);
	close(p[1]);
	assert_true(kb_loop_io(loop, p[0], KB_IO_READ, on_readable, NULL, &source, &err) < 0);
	assert_null(source);
	kb_source_destroy(NULL);
	kb_loop_destroy(loop);
	kb_loop_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_timer_fires_once_and_not_early),
		cmocka_unit_test(test_disarmed_and_moved_timers),
		cmocka_unit_test(test_io_is_level_triggered),
		cmocka_unit_test(test_events_can_change),
		cmocka_unit_test(test_sources_may_be_destroyed_in_a_callback),
		cmocka_unit_test(test_signals_arrive_on_the_loop),
		cmocka_unit_test(test_a_bad_fd_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
