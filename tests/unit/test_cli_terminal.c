/* Detach keys and terminal modes: what passes, what is held back, what is undone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "supervisor/base/util.h"
#include "supervisor/cli/keys.h"
#include "supervisor/cli/modes.h"

static const struct {
	const char *text, *bytes;
} sequences[] = {
	{"ctrl-p,ctrl-q", "\x10\x11"},
	{"ctrl-]", "\x1d"},
	{"ctrl-],d", "\x1d"
		     "d"},
	{"ctrl-A", "\x01"},
	{"~,.", "~."},
	{",,x", ",x"},
	{"none", ""},
};

static const char *const no_sequences[] = {"", "ctrl-", "ctrl-1", "ctrl-pp", "ab", "a,", "a, b",
	"\x01", "ctrl-p,", "é", "a,b,c,d,e,f,g,h,i"};

static void keys_parse(void **state)
{
	struct kb_keys keys;
	struct kb_err err;

	for (size_t i = 0; i < KB_ARRAY_LEN(sequences); i++) {
		assert_int_equal(kb_keys_parse(&keys, sequences[i].text, &err), 0);
		assert_int_equal(keys.len, strlen(sequences[i].bytes));
		assert_memory_equal(keys.sequence, sequences[i].bytes, keys.len);
	}
	for (size_t i = 0; i < KB_ARRAY_LEN(no_sequences); i++) {
		assert_int_equal(kb_keys_parse(&keys, no_sequences[i], &err), -KB_ERR_USAGE);
		assert_non_null(strstr(err.hint, "ctrl-p,ctrl-q"));
	}
}

static const struct {
	const char *keys, *in, *out, *held;
	bool detach;
} feeds[] = {
	{"ctrl-p,ctrl-q", "hello", "hello", "", false},
	{"ctrl-p,ctrl-q", "a\x10\x11zz", "a", "", true},
	{"ctrl-p,ctrl-q", "a\x10", "a", "\x10", false},
	{"ctrl-p,ctrl-q", "\x10\x10\x11", "\x10", "", true},
	{"ctrl-p,ctrl-q", "\x10x\x11", "\x10x\x11", "", false},
	{"a,a,b", "aaab", "a", "", true},
	{"a,a,b", "aaa", "a", "aa", false},
	{"a,b,a,c", "ababac", "ab", "", true},
	{"a,b,a,c", "abab", "ab", "ab", false},
	{"a,b,a,c", "abax", "abax", "", false},
	{"none", "\x10\x11", "\x10\x11", "", false},
};

/* Every way of cutting the input in two must give the same. */
static void keys_feed(void **state)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(feeds); i++) {
		size_t len = strlen(feeds[i].in);

		for (size_t cut = 0; cut <= len; cut++) {
			const uint8_t *in = (const uint8_t *)feeds[i].in;
			uint8_t out[64], held[KB_KEYS_MAX];
			struct kb_keys keys;
			struct kb_err err;
			bool detach;
			size_t n;

			assert_int_equal(kb_keys_parse(&keys, feeds[i].keys, &err), 0);
			n = kb_keys_feed(&keys, in, cut, out, &detach);
			if (!detach)
				n += kb_keys_feed(&keys, in + cut, len - cut, out + n, &detach);
			assert_int_equal(detach, feeds[i].detach);
			assert_int_equal(n, strlen(feeds[i].out));
			assert_memory_equal(out, feeds[i].out, n);
			n = kb_keys_flush(&keys, held);
			assert_int_equal(n, strlen(feeds[i].held));
			assert_memory_equal(held, feeds[i].held, n);
		}
	}
}

static const struct {
	const char *seen, *undone;
} modes_table[] = {
	{"plain text \033[31mred\033[0m", ""},
	{"\033[?1049h", "\033[0m\033[?1049l"},
	{"\033[?1049h\033[?25l full screen \033[?1049l\033[?25h", ""},
	{"\033[?25l", "\033[0m\033[?25h"},
	{"\033[?25l\033[?1049h\033[?2004h", "\033[0m\033[?25h\033[?2004l\033[?1049l"},
	{"\033[?1000;1006h", "\033[0m\033[?1000l\033[?1006l"},
	{"\033[?1000;1006h\033[?1006l", "\033[0m\033[?1000l"},
	{"\033=", "\033[0m\033>"},
	{"\033=\033>", ""},
	{"\033[?1049h\033c", ""},
	{"\033[?99999999999999999999h", ""},
	{"\033[1049h", ""},			     /* not a private mode */
	{"\033[?1049\030h", ""},		     /* cancelled */
	{"\033[?1049\033[?25l", "\033[0m\033[?25h"}, /* restarted */
	{"\033[?1049$p", ""},			     /* a question, not a switch */
	{"\033[?1049", ""},
};

static void modes_are_undone(void **state)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(modes_table); i++) {
		const uint8_t *in = (const uint8_t *)modes_table[i].seen;
		size_t len = strlen(modes_table[i].seen);

		for (size_t cut = 0; cut <= len; cut++) {
			char reset[KB_MODES_RESET_MAX + 1];
			struct kb_modes modes;
			size_t n;

			kb_modes_init(&modes);
			kb_modes_feed(&modes, in, cut);
			kb_modes_feed(&modes, in + cut, len - cut);
			n = kb_modes_reset(&modes, reset);
			reset[n] = '\0';
			assert_string_equal(reset, modes_table[i].undone);
			assert_int_equal(kb_modes_reset(&modes, reset), 0);
		}
	}
}

static void the_longest_reset_fits(void **state)
{
	static const char all[] = "\033=\033[?7;25l\033[?1;9;1000;1002;1003;1004;1005;1006;1015;"
				  "2004;2026;47;1047;1049h";
	char reset[KB_MODES_RESET_MAX];
	struct kb_modes modes;
	size_t n;

	kb_modes_init(&modes);
	kb_modes_feed(&modes, (const uint8_t *)all, strlen(all));
	n = kb_modes_reset(&modes, reset);
	assert_true(n > 100 && n < sizeof(reset));
	assert_memory_equal(reset + n - 8, "\033[?1049l", 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_parse),
		cmocka_unit_test(keys_feed),
		cmocka_unit_test(modes_are_undone),
		cmocka_unit_test(the_longest_reset_fits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
