/* Patterns of the query language, and times as people write them. */
#include "fixture.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "audit/query/glob.h"
#include "audit/query/when.h"
#include "supervisor/base/util.h"

static const struct {
	const char *pattern, *text;
	bool slashes, match;
} globs[] = {
	{"", "", true, true},
	{"", "a", true, false},
	{"a", "a", true, true},
	{"a", "b", true, false},
	{"/usr/*", "/usr/lib", true, true},
	{"/usr/*", "/usr/lib/x", true, false},
	{"/usr/*", "/usr/", true, true},
	{"/usr/**", "/usr/lib/x", true, true},
	{"/usr/**", "/usr/", true, true},
	{"/usr/**", "/usr", true, false},
	{"/usr/**", "/usrx/y", true, false},
	{"**/.env", ".env", true, true},
	{"**/.env", "/.env", true, true},
	{"**/.env", "/home/dev/shop/.env", true, true},
	{"**/.env", "/home/dev/shop/x.env", true, false},
	{"**/.env", "/home/dev/.env/x", true, false},
	{"**.env", "/home/dev/shop/x.env", true, true},
	{"/a/**/b", "/a/b", true, true},
	{"/a/**/b", "/a/x/b", true, true},
	{"/a/**/b", "/a/x/y/b", true, true},
	{"/a/**/b", "/ab", true, false},
	{"/a/**/b", "/a/xb", true, false},
	{"/home/*/.ssh/**", "/home/dev/.ssh/id_rsa", true, true},
	{"/home/*/.ssh/**", "/home/a/b/.ssh/id_rsa", true, false},
	{"/**/x*/**/z", "/a/b/xc/d/e/z", true, true},
	{"/**/x*/**/z", "/a/b/xc/d/e/y", true, false},
	{"?", "a", true, true},
	{"?", "/", true, false},
	{"?", "/", false, true},
	{"a?c", "abc", true, true},
	{"*", "a/b", false, true},
	{"*.o", "a.o", true, true},
	{"*.o", "a.c", true, false},
	{"*a*b*c*", "xxaxxbxxcxx", true, true},
	{"*a*b*c*", "xxaxxcxxbxx", true, false},
	{"[a-c]x", "bx", true, true},
	{"[a-c]x", "dx", true, false},
	{"[!a-c]x", "dx", true, true},
	{"[!a-c]x", "ax", true, false},
	{"[!a]", "/", true, false},
	{"[]]", "]", true, true},
	{"[a\\]b]", "]", true, true},
	{"\\*", "*", true, true},
	{"\\*", "a", true, false},
	{"a\\?c", "a?c", true, true},
	{"a\\?c", "abc", true, false},
	{"*/x", "a/x", true, true},
	{"*/x", "a/b/x", true, false},
	{"**", "", true, true},
	{"**", "/a/b", true, true},
	{"**/", "a/", true, true},
	{"*x", "xxxxxxxxxxxxxxxx", true, true},
};

static void test_globs(void **state)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(globs); i++)
		if (kb_glob_match(globs[i].pattern, strlen(globs[i].pattern),
			    (const uint8_t *)globs[i].text, strlen(globs[i].text),
			    globs[i].slashes) != globs[i].match)
			fail_msg("%s against %s", globs[i].pattern, globs[i].text);
	assert_int_equal(kb_glob_prefix("/usr/*", 6), 5);
	assert_int_equal(kb_glob_prefix("/usr", 4), 4);
	assert_int_equal(kb_glob_check("a[b", 3), 1);
	assert_int_equal(kb_glob_check("ab\\", 3), 2);
	assert_int_equal(kb_glob_check("[ab]\\*", 6), -1);
}

/* A pattern that makes naive matchers explode is done in no time. */
static void test_glob_is_quick(void **state)
{
	char text[4001], pattern[201];
	clock_t start = clock();

	memset(text, 'a', 4000);
	text[4000] = '\0';
	for (int i = 0; i < 200; i += 2)
		memcpy(pattern + i, "*a", 2);
	pattern[200] = '\0';
	pattern[199] = 'b';
	assert_false(kb_glob_match(pattern, 200, (const uint8_t *)text, 4000, true));
	assert_true(clock() - start < CLOCKS_PER_SEC);
}

#define HOUR (3600 * INT64_C(1000000000))

static void test_times(void **state)
{
	const int64_t now = (int64_t)FIX_START; /* 2025-11-24 16:00:00 UTC */
	const struct {
		const char *text;
		bool ok;
		int64_t time;
	} rows[] = {
		{"now", true, now},
		{"today", true, now - 16 * HOUR},
		{"yesterday", true, now - 40 * HOUR},
		{"2h", true, now - 2 * HOUR},
		{"2h ago", true, now - 2 * HOUR},
		{"1d", true, now - 24 * HOUR},
		{"2025-11-24", true, now - 16 * HOUR},
		{"2025-11-24 16:00", true, now},
		{"2025-11-24 16:00:00", true, now},
		{"2025-11-24T16:00:00Z", true, now},
		{"2025-11-24T17:00:00+01:00", true, now},
		{"2025-11-24T17:00:00+0100", true, now},
		{"2025-11-24 16:00:00.5", true, now + HOUR / 7200},
		{"15:00", true, now - HOUR},
		{"15:00:01", true, now - HOUR + HOUR / 3600},
		{"", false, 0},
		{"5", false, 0},
		{"2025-13-01", false, 0},
		{"2025-02-31", false, 0},
		{"2025-11-24 25:00", false, 0},
		{"2025-11-24 16:00 x", false, 0},
		{"2025-11-24T16:00:00Zx", false, 0},
		{"tomorrow", false, 0},
		{"-2h", false, 0},
		{"999999d", false, 0},
	};
	int64_t time;
	char text[KB_WHEN_MAX];

	for (size_t i = 0; i < KB_ARRAY_LEN(rows); i++) {
		if (kb_when_parse(rows[i].text, now, true, &time) != rows[i].ok)
			fail_msg("'%s' is %sa time", rows[i].text, rows[i].ok ? "not " : "");
		if (rows[i].ok && time != rows[i].time)
			fail_msg("'%s' is off by %ld s", rows[i].text,
				(long)((time - rows[i].time) / 1000000000));
	}
	setenv("TZ", "Europe/Berlin", 1);
	tzset();
	assert_true(kb_when_parse("2025-11-24 17:00", now, false, &time));
	assert_int_equal(time, now);
	assert_true(kb_when_parse("2025-07-01 12:00", now, false, &time)); /* summer time */
	assert_int_equal(time, INT64_C(1751364000) * 1000000000);
	kb_when_format(FIX_START, false, false, text);
	assert_string_equal(text, "2025-11-24 17:00:00");
	kb_when_rfc3339(FIX_START + 123456789, text);
	assert_string_equal(text, "2025-11-24T16:00:00.123456789Z");
	kb_duration_format(842 * UINT64_C(1000000000), text);
	assert_string_equal(text, "14m02s");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_globs),
		cmocka_unit_test(test_glob_is_quick),
		cmocka_unit_test(test_times),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
