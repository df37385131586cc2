/* Tables and words for numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "supervisor/cli/cli.h"

static const struct kb_column columns[] = {
	{.title = "NAME"}, {.title = "N", .right = true}, {.title = "WHAT", .shrink = true}, {0}};

static char *print(unsigned width, bool colour)
{
	struct kb_table table KB_TABLE_CLEANUP;
	struct kb_cli cli = {0};
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	kb_cli_init(&cli);
	cli.columns = width;
	cli.colour = colour;
	kb_table_init(&table, columns);
	kb_table_cell(&table, KB_TONE_GOOD, "naïve");
	kb_table_cellf(&table, KB_TONE_NONE, "%d", 7);
	kb_table_cell(&table, KB_TONE_NONE, "a long text that has to be cut somewhere");
	kb_table_cell(&table, KB_TONE_NONE, "x\ty\033[2J");
	kb_table_cell(&table, KB_TONE_NONE, "1,234");
	kb_table_cell(&table, KB_TONE_NONE, NULL);
	kb_table_print(&table, &cli, out);
	fclose(out);
	return text;
}

static void tables_for_programs(void **state)
{
	char *text KB_FREE = print(0, false);

	assert_string_equal(text, "naïve\t7\ta long text that has to be cut somewhere\n"
				  "x\\ty\\x1b[2J\t1,234\t–\n");
}

static void tables_for_people(void **state)
{
	char *wide KB_FREE = print(100, false), *narrow KB_FREE = print(40, false);
	char *tiny KB_FREE = print(5, false);

	assert_string_equal(wide, "NAME             N  WHAT\n"
				  "naïve            7  a long text that has to be cut somewhere\n"
				  "x\\ty\\x1b[2J  1,234  –\n");
	assert_string_equal(narrow, "NAME             N  WHAT\n"
				    "naïve            7  a long text that ha…\n"
				    "x\\ty\\x1b[2J  1,234  –\n");
	assert_non_null(strstr(tiny, "a long text…\n"));
}

static void colour_only_when_asked(void **state)
{
	char *plain KB_FREE = print(80, false), *coloured KB_FREE = print(80, true);

	assert_null(strchr(plain, '\033'));
	assert_non_null(strstr(coloured, "\033[32mnaïve\033[0m"));
}

static const struct {
	int64_t ns;
	const char *duration, *age;
} times[] = {
	{-5, "0.0s", "0s"},
	{450000000, "0.4s", "0s"},
	{9990000000, "9.9s", "9s"},
	{10000000000, "10s", "10s"},
	{842000000000, "14m02s", "14m"},
	{11220000000000, "3h07m", "3h"},
	{187200000000000, "2d04h", "2d"},
};

static void words_for_numbers(void **state)
{
	char text[KB_WORDS_MAX];

	for (size_t i = 0; i < KB_ARRAY_LEN(times); i++) {
		kb_format_duration(text, times[i].ns);
		assert_string_equal(text, times[i].duration);
		kb_format_age(text, times[i].ns);
		assert_string_equal(text, times[i].age);
	}
	kb_format_count(text, 0);
	assert_string_equal(text, "0");
	kb_format_count(text, 999);
	assert_string_equal(text, "999");
	kb_format_count(text, 18204);
	assert_string_equal(text, "18,204");
	kb_format_count(text, UINT64_MAX);
	assert_string_equal(text, "18,446,744,073,709,551,615");
	kb_format_size(text, 512);
	assert_string_equal(text, "512 B");
	kb_format_size(text, 1126400);
	assert_string_equal(text, "1.1 MB");
	kb_format_size(text, 4ull << 30);
	assert_string_equal(text, "4.0 GB");
	kb_format_size(text, UINT64_MAX);
	assert_string_equal(text, "16384 PB");
}

static void home_is_shown_as_tilde(void **state)
{
	struct kb_cli cli = {.home = "/home/ada"};
	char *in KB_FREE = kb_format_path(&cli, "/home/ada/x\n"), *it KB_FREE = NULL;
	char *beside KB_FREE = kb_format_path(&cli, "/home/adam");

	it = kb_format_path(&cli, "/home/ada");
	assert_string_equal(in, "~/x\\n");
	assert_string_equal(it, "~");
	assert_string_equal(beside, "/home/adam");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tables_for_programs),
		cmocka_unit_test(tables_for_people),
		cmocka_unit_test(colour_only_when_asked),
		cmocka_unit_test(words_for_numbers),
		cmocka_unit_test(home_is_shown_as_tilde),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
