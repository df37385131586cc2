/* Text helpers: what a screen may show, ids, names, sizes. */
#include "kbtest.h"

#include <limits.h>

#include "supervisor/base/str.h"

/* Literals with embedded NULs and their length. */
#define BYTES(s) (s), sizeof(s) - 1

static const struct {
	const char *in;
	size_t len;
	const char *out;
} escapes[] = {
	{BYTES(""), ""},
	{BYTES("plain text, 100% ~\"'"), "plain text, 100% ~\"'"},
	{BYTES("a\nb\tc\rd\\e"), "a\\nb\\tc\\rd\\\\e"},
	{BYTES("\0\x01\x1b\x7f"), "\\x00\\x01\\x1b\\x7f"},
	{BYTES("\xc3\xa9 \xe2\x82\xac \xf0\x9f\xa6\xa6"), "\xc3\xa9 \xe2\x82\xac \xf0\x9f\xa6\xa6"},
	/* C1 controls drive a terminal as ESC does. */
	{BYTES("\xc2\x9b"
	       "2J"),
		"\\xc2\\x9b2J"},
	{BYTES("\xc2\xa0"), "\xc2\xa0"},
	/* What reorders or hides text: bidi controls, zero width, line separator, BOM, tags. */
	{BYTES("\xe2\x80\xae"), "\\xe2\\x80\\xae"},
	{BYTES("\xe2\x81\xa6"), "\\xe2\\x81\\xa6"},
	{BYTES("\xe2\x80\x8b"), "\\xe2\\x80\\x8b"},
	{BYTES("\xe2\x80\xa8"), "\\xe2\\x80\\xa8"},
	{BYTES("\xef\xbb\xbf"), "\\xef\\xbb\\xbf"},
	{BYTES("\xd8\x9c"), "\\xd8\\x9c"},
	{BYTES("\xf3\xa0\x81\x81"), "\\xf3\\xa0\\x81\\x81"},
	/* Not UTF-8: stray, overlong, surrogate, past the end, cut. */
	{BYTES("\x80\xff"), "\\x80\\xff"},
	{BYTES("\xc0\x80"), "\\xc0\\x80"},
	{BYTES("\xe0\x80\xaf"), "\\xe0\\x80\\xaf"},
	{BYTES("\xed\xa0\x80"), "\\xed\\xa0\\x80"},
	{BYTES("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80"},
	{BYTES("\xf5\x80\x80\x80"), "\\xf5\\x80\\x80\\x80"},
	{BYTES("x\xe2\x82"), "x\\xe2\\x82"},
	{BYTES("\xe2(\xa1"), "\\xe2(\\xa1"},
};

static void test_escape_table(void **state)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(escapes); i++) {
		KB_FREE char *text = kb_escape_dup(escapes[i].in, escapes[i].len);
		char fixed[64];

		assert_string_equal(text, escapes[i].out);
		assert_int_equal(kb_escape(fixed, sizeof(fixed), escapes[i].in, escapes[i].len),
			strlen(escapes[i].out));
		assert_string_equal(fixed, escapes[i].out);
	}
}

/* Every single byte, and every code point up to the astral planes in steps: the result is printable
 * UTF-8 without controls. */
static void test_escape_never_lets_a_control_through(void **state)
{
	char out[64];

	for (unsigned c = 0; c < 256; c++) {
		uint8_t byte = (uint8_t)c;
		size_t n = kb_escape(out, sizeof(out), &byte, 1);

		assert_true(n == 1 ? c >= 0x20 && c < 0x7f && c != '\\' : n == 2 || n == 4);
		for (size_t i = 0; i < n; i++)
			assert_true(out[i] >= 0x20 && out[i] < 0x7f);
	}
}

static void test_escape_cuts_between_pieces(void **state)
{
	char out[8];

	memset(out, 'x', sizeof(out));
	assert_int_equal(kb_escape(out, 4, "ab\n\n", 4), 6);
	assert_string_equal(out, "ab"); /* "\n" would need two and the NUL */
	assert_int_equal(kb_escape(out, 5, "ab\n\n", 4), 6);
	assert_string_equal(out, "ab\\n");
	assert_int_equal(kb_escape(out, 3, "a\xc3\xa9", 3), 3);
	assert_string_equal(out, "a"); /* not half a character */
	assert_int_equal(kb_escape(out, 1, "abc", 3), 3);
	assert_string_equal(out, "");
	assert_int_equal(kb_escape(NULL, 0, "a\033", 2), 5);
}

static void test_utf8_valid(void **state)
{
	assert_true(kb_utf8_valid("", 0));
	assert_true(kb_utf8_valid("a\0b", 3));
	assert_true(kb_utf8_valid(BYTES("\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80")));
	assert_false(kb_utf8_valid(BYTES("\xed\xa0\x80")));
	assert_false(kb_utf8_valid(BYTES("\xc1\xbf")));
	assert_false(kb_utf8_valid(BYTES("ok\xe2\x82")));
}

static void test_ulid_of_the_standard(void **state)
{
	/* The example of the specification, and the largest there is. */
	uint8_t id[KB_ULID_SIZE];
	char text[KB_ULID_TEXT];

	assert_true(kb_ulid_parse("01ARZ3NDEKTSV4RRFFQ69G5FAV", id));
	assert_int_equal(id[0], 0x01);
	assert_int_equal(id[1], 0x56);
	kb_ulid_format(id, text);
	assert_string_equal(text, "01ARZ3NDEKTSV4RRFFQ69G5FAV");
	assert_true(kb_ulid_parse("7ZZZZZZZZZZZZZZZZZZZZZZZZZ", id));
	for (int i = 0; i < KB_ULID_SIZE; i++)
		assert_int_equal(id[i], 0xff);
	assert_true(kb_ulid_parse("01arz3ndektsv4rrffq69g5fav", id));
}

static void test_ulid_refuses(void **state)
{
	static const char *const bad[] = {"", "01ARZ3NDEKTSV4RRFFQ69G5FA",
		"01ARZ3NDEKTSV4RRFFQ69G5FAVX", "81ARZ3NDEKTSV4RRFFQ69G5FAV",
		"01ARZ3NDEKTSV4RRFFQ69G5FAU", "01ARZ3NDEKTSV4RRFFQ69G5FA!",
		"-1ARZ3NDEKTSV4RRFFQ69G5FAV"};
	uint8_t id[KB_ULID_SIZE];

	for (size_t i = 0; i < KB_ARRAY_LEN(bad); i++)
		if (kb_ulid_parse(bad[i], id))
			fail_msg("parsed: %s", bad[i]);
}

static void test_ulids_are_new_and_sort_by_time(void **state)
{
	uint8_t a[KB_ULID_SIZE], b[KB_ULID_SIZE];
	char ta[KB_ULID_TEXT], tb[KB_ULID_TEXT];
	struct kb_err err;

	assert_ok(kb_ulid_new(a, &err));
	usleep(2000);
	assert_ok(kb_ulid_new(b, &err));
	kb_ulid_format(a, ta);
	kb_ulid_format(b, tb);
	assert_true(strcmp(ta, tb) < 0);
	assert_true(memcmp(a + 6, b + 6, 10) != 0);
}

static void test_names(void **state)
{
	static const char *const good[] = {"a", "brave-otter", "A.b_c-9", "9"};
	static const char *const bad[] = {"", "-a", ".a", "a/b", "a b", "a\n", "\xc3\xa9", "a:b"};
	char name[KB_NAME_MAX], longest[KB_NAME_MAX + 1];
	struct kb_err err;

	for (size_t i = 0; i < KB_ARRAY_LEN(good); i++)
		assert_true(kb_name_valid(good[i]));
	for (size_t i = 0; i < KB_ARRAY_LEN(bad); i++)
		if (kb_name_valid(bad[i]))
			fail_msg("valid: %s", bad[i]);
	memset(longest, 'a', KB_NAME_MAX);
	longest[KB_NAME_MAX] = '\0';
	assert_false(kb_name_valid(longest));
	longest[KB_NAME_MAX - 1] = '\0';
	assert_true(kb_name_valid(longest));
	for (int i = 0; i < 200; i++) {
		assert_ok(kb_name_new(name, &err));
		assert_true(kb_name_valid(name));
		assert_non_null(strchr(name, '-'));
	}
}

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		bool ok;
		uint64_t value;
	} rows[] = {
		{"0", true, 0},
		{"512", true, 512},
		{"512b", true, 512},
		{"4k", true, 4096},
		{"4K", true, 4096},
		{"1.5M", true, 1572864},
		{"4G", true, 4ull << 30},
		{"4GiB", true, 4ull << 30},
		{"2T", true, 2ull << 40},
		{"", false, 0},
		{"G", false, 0},
		{"-1", false, 0},
		{" 1", false, 0},
		{"1 G", false, 0},
		{"1Q", false, 0},
		{"1kk", false, 0},
		{"0x10", false, 0},
		{"1e3", false, 0},
		{"9999999999G", false, 0},
		{"1..5", false, 0},
	};
	uint64_t v;

	for (size_t i = 0; i < KB_ARRAY_LEN(rows); i++) {
		bool ok = kb_parse_size(rows[i].text, &v);

		if (ok != rows[i].ok || (ok && v != rows[i].value))
			fail_msg("'%s' gave %d", rows[i].text, ok);
	}
}

static void test_durations(void **state)
{
	static const struct {
		const char *text;
		bool ok;
		int64_t ns;
	} rows[] = {
		{"0", true, 0},
		{"500ms", true, 500000000},
		{"2", true, 2000000000},
		{"30s", true, 30000000000},
		{"15m", true, 900000000000},
		{"15min", true, 900000000000},
		{"4h", true, 14400000000000},
		{"0.5h", true, 1800000000000},
		{"30d", true, 2592000000000000},
		{"1w", true, 604800000000000},
		{"", false, 0},
		{"s", false, 0},
		{"-3s", false, 0},
		{"3y", false, 0},
		{"99999999999d", false, 0},
	};
	int64_t v;

	for (size_t i = 0; i < KB_ARRAY_LEN(rows); i++) {
		bool ok = kb_parse_duration(rows[i].text, &v);

		if (ok != rows[i].ok || (ok && v != rows[i].ns))
			fail_msg("'%s' gave %d", rows[i].text, ok);
	}
}

static void test_numbers(void **state)
{
	static const char *const bad[] = {
		"", "-1", "+1", " 1", "1 ", "0x", "0xg", "12a", "18446744073709551616", "1.0"};
	uint64_t v;

	assert_true(kb_parse_u64("0", &v) && v == 0);
	assert_true(kb_parse_u64("010", &v) && v == 10);
	assert_true(kb_parse_u64("0xFf", &v) && v == 255);
	assert_true(kb_parse_u64("18446744073709551615", &v) && v == UINT64_MAX);
	for (size_t i = 0; i < KB_ARRAY_LEN(bad); i++)
		if (kb_parse_u64(bad[i], &v))
			fail_msg("parsed: '%s'", bad[i]);
}

static void test_closest(void **state)
{
	static const char *const verbs[] = {"run", "status", "stop", "attach", "audit"};
	char huge[300];

	assert_string_equal(kb_closest("stauts", verbs, KB_ARRAY_LEN(verbs)), "status");
	assert_string_equal(kb_closest("RUN", verbs, KB_ARRAY_LEN(verbs)), "run");
	assert_string_equal(kb_closest("atach", verbs, KB_ARRAY_LEN(verbs)), "attach");
	assert_null(kb_closest("frobnicate", verbs, KB_ARRAY_LEN(verbs)));
	assert_null(kb_closest("run", verbs, 0));
	memset(huge, 'a', sizeof(huge) - 1);
	huge[sizeof(huge) - 1] = '\0';
	assert_true(kb_closest(huge, verbs, 0) == NULL);
}

static void test_base64(void **state)
{
	/* RFC 4648, section 10. */
	static const char *const rows[][2] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="},
		{"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="},
		{"foobar", "Zm9vYmFy"}};

	for (size_t i = 0; i < KB_ARRAY_LEN(rows); i++) {
		KB_FREE char *text = kb_base64(rows[i][0], strlen(rows[i][0]));

		assert_string_equal(text, rows[i][1]);
	}
	KB_FREE char *bytes = kb_base64("\xff\xfe\x00", 3);

	assert_string_equal(bytes, "//4A");
}

static void test_asprintf(void **state)
{
	KB_FREE char *text = kb_asprintf("%s-%03d", "a", 7);

	assert_string_equal(text, "a-007");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_escape_table),
		cmocka_unit_test(test_escape_never_lets_a_control_through),
		cmocka_unit_test(test_escape_cuts_between_pieces),
		cmocka_unit_test(test_utf8_valid),
		cmocka_unit_test(test_ulid_of_the_standard),
		cmocka_unit_test(test_ulid_refuses),
		cmocka_unit_test(test_ulids_are_new_and_sort_by_time),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_durations),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_closest),
		cmocka_unit_test(test_base64),
		cmocka_unit_test(test_asprintf),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
