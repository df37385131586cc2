/* kbsup-guest under stress: many sessions at once, short ones in a row, and SIGKILL to any process
 * of it at any moment. Afterwards nothing is left: no process, directory, mount or control group.
 *
 * KBSUP_STRESS multiplies the rounds. The seed is printed; KBSUP_SEED repeats a run.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants those first */
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest_fixture.h"
#include "supervisor/base/util.h"

#define AT_ONCE	  16
#define IN_A_ROW  12
#define KILLS	  14
#define PIDS_MAX  512
#define WINDOW_MS 80 /* a session's start takes about that long on a loaded machine */

static unsigned seed;

static unsigned rounds(unsigned n)
{
	const char *factor = getenv("KBSUP_STRESS");

	return n * (factor ? (unsigned)strtoul(factor, NULL, 10) : 1);
}

static struct fl_session *start(struct fixture *f, const char *script)
{
	struct fl_start s = {.workspace = f->workspace,
		.argv = (const char *const[]){"/bin/sh", "-c", script, NULL}};

	return fl_start(f->link, &s);
}

static void test_many_at_once(void **state)
{
	struct fixture *f = *state;
	struct fl_session *s[AT_ONCE];

	for (unsigned i = 0; i < AT_ONCE; i++)
		s[i] = start(f, "exit 21");
	for (unsigned i = 0; i < AT_ONCE; i++) {
		fl_wait_ended(s[i]);
		assert_null(fl_first(s[i])->error);
		assert_int_equal(s[i]->exit_code, 21);
	}
	fixture_assert_clean(f);
}

static void test_short_ones(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < rounds(IN_A_ROW); i++) {
		struct fl_session *s = start(f, ":");

		fl_wait_ended(s);
		assert_int_equal(s->exit_code, 0);
	}
	fixture_assert_clean(f);
}

/* A stop at any moment of a session's life. */
static void test_stops(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < rounds(IN_A_ROW); i++) {
		struct fl_session *s = start(f, "sleep 0.02");

		fl_run_for(f->link, (int)(rand_r(&seed) % WINDOW_MS));
		if (!s->ended)
			fl_stop(s, i & 1, "stopped by the test");
		fl_wait_ended(s);
	}
	fixture_assert_clean(f);
}

/* Says whom, for the reader of a failed run. */
static void kill_one(pid_t pid)
{
	char path[32], name[32] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	f = fopen(path, "re");
	if (f) {
		if (fgets(name, sizeof(name), f))
			name[strcspn(name, "\n")] = '\0';
		fclose(f);
	}
	fprintf(stderr, "SIGKILL to %s(%d)\n", name, (int)pid);
	kill(pid, SIGKILL);
}

static void test_kills(void **state)
{
	struct fixture *f = *state;
	KB_FREE char *twice = kb_asprintf("%s; %s", f->blink, f->blink);
	pid_t pids[PIDS_MAX];

	for (unsigned i = 0; i < rounds(KILLS); i++) {
		struct fl_session *a = start(f, f->blink);
		struct fl_session *b = start(f, twice);
		unsigned n, victim;

		fl_run_for(f->link, (int)(rand_r(&seed) % WINDOW_MS));
		n = fixture_descendants(f, pids, PIDS_MAX);
		victim = (unsigned)rand_r(&seed) % n;
		kill_one(pids[victim]);
		/* The first is the guest itself, which its sessions may have ended before. */
		if (victim == 0)
			fl_wait_closed(f->link);
		if (!fl_wait_ended_or_closed(a) || !fl_wait_ended_or_closed(b) || victim == 0)
			fixture_reopen(f);
		fixture_assert_clean(f);
	}
	assert_int_equal(fixture_processes(f, f->blink), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_many_at_once),
		cmocka_unit_test(test_short_ones),
		cmocka_unit_test(test_stops),
		cmocka_unit_test(test_kills),
	};

	if (!fixture_select(argc, argv))
		return 77;
	seed = getenv("KBSUP_SEED") ? (unsigned)strtoul(getenv("KBSUP_SEED"), NULL, 10)
				    : (unsigned)kb_now_real();
	printf("seed %u\n", seed);
	return cmocka_run_group_tests(tests, fixture_open, fixture_close);
}
