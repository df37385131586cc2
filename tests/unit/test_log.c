/* Logging: one line, the level asked for, foreign bytes escaped. */
#include "kbtest.h"

#include <fcntl.h>

#include "supervisor/base/log.h"

/* What fn() writes to stderr. */
static char *captured(void (*fn)(void))
{
	static char text[8192];
	int p[2], saved = dup(STDERR_FILENO);
	ssize_t n;

	assert_int_equal(pipe2(p, O_NONBLOCK), 0);
	fflush(stderr);
	dup2(p[1], STDERR_FILENO);
	fn();
	dup2(saved, STDERR_FILENO);
	n = read(p[0], text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	close(saved);
	close(p[0]);
	close(p[1]);
	return text;
}

static void log_all(void)
{
	kb_log_error("e");
	kb_log_warn("w");
	kb_log_info("i");
	kb_log_debug("d");
}

static void log_foreign(void)
{
	kb_log_error("name %s", "\033]0;owned\a\nsecond line");
}

static void log_huge(void)
{
	char huge[6000];

	memset(huge, 'x', sizeof(huge) - 1);
	huge[sizeof(huge) - 1] = '\0';
	kb_log_error("%s", huge);
}

static void test_level_comes_from_the_environment(void **state)
{
	char want[128];

	setenv("KBSUP_LOG", "info", 1);
	kb_log_init("unit");
	snprintf(want, sizeof(want), "unit[%d] error: e\nunit[%d] warn: w\nunit[%d] info: i\n",
		getpid(), getpid(), getpid());
	assert_string_equal(captured(log_all), want);
	kb_log_set_level(KB_LOG_ERROR);
	snprintf(want, sizeof(want), "unit[%d] error: e\n", getpid());
	assert_string_equal(captured(log_all), want);
}

static void test_foreign_bytes_stay_on_one_line(void **state)
{
	char *line = captured(log_foreign);

	assert_non_null(strstr(line, "name \\x1b]0;owned\\x07\\nsecond line\n"));
	assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
}

static void test_long_lines_are_cut(void **state)
{
	char *line = captured(log_huge);

	assert_true(strlen(line) < 2200);
	assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_level_comes_from_the_environment),
		cmocka_unit_test(test_foreign_bytes_stay_on_one_line),
		cmocka_unit_test(test_long_lines_are_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
