/* The option parser against a table of its own, and the lookup of commands in the real one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "supervisor/base/util.h"
#include "supervisor/cli/args.h"

#define WORDS_MAX 600

static const struct kb_option options[] = {
	{.name = "agent", .letter = 'a', .arg = "A", .help = "x"},
	{.name = "env", .letter = 'e', .arg = "K=V", .kind = KB_KIND_ENV, .repeat = true},
	{.name = "lane", .arg = "L", .kind = KB_KIND_WORD, .words = "auto|bpf|notify"},
	{.name = "limit", .arg = "N", .kind = KB_KIND_COUNT},
	{.name = "detach", .letter = 'd'},
	{0},
};

static const struct kb_command run_like = {
	.name = "run", .options = options, .tail = KB_TAIL_OPTIONAL, .json = true};
static const struct kb_command exec_like = {.name = "exec",
	.options = options,
	.operands = {{.name = "S", .min = 1, .max = 1}},
	.tail = KB_TAIL_REQUIRED};
static const struct kb_command check_like = {
	.name = "policy check", .operands = {{.name = "FILE", .min = 1, .max = KB_MANY}}};
static const struct kb_command shell_like = {.name = "completion",
	.operands = {{.name = "SHELL", .min = 1, .max = 1, .kind = KB_KIND_WORD, .words = "a|bb"}}};

struct fixture {
	struct kb_args args;
	struct kb_err err;
	char *words[WORDS_MAX];
};

/* Splits text at single spaces; a word "''" is empty. */
static int parse(struct fixture *f, const struct kb_command *command, char *text)
{
	char *save = NULL;
	int n = 0;

	kb_args_finish(&f->args);
	f->err = (struct kb_err){0};
	for (char *w = strtok_r(text, " ", &save); w && n < WORDS_MAX;
		w = strtok_r(NULL, " ", &save))
		f->words[n++] = strcmp(w, "''") ? w : w + 2;
	f->words[n] = NULL;
	return kb_args_parse(&f->args, command, n, f->words, &f->err);
}

static void accepts(void **state)
{
	struct fixture f = {0};
	char spelled[] = "--agent claude -e A=1 --env=B --lane notify -d -- ls -l --agent x";
	char packed[] = "-daclaude -eA=1 --limit=0x10 --json";

	assert_int_equal(parse(&f, &run_like, spelled), 0);
	assert_string_equal(kb_args_value(&f.args, "agent"), "claude");
	assert_string_equal(kb_args_value_at(&f.args, "env", 0), "A=1");
	assert_string_equal(kb_args_value_at(&f.args, "env", 1), "B");
	assert_null(kb_args_value_at(&f.args, "env", 2));
	assert_true(kb_args_has(&f.args, "detach"));
	assert_false(kb_args_has(&f.args, "json"));
	assert_int_equal(f.args.n_tail, 4);
	assert_string_equal(f.args.tail[2], "--agent");
	assert_null(f.args.tail[4]);

	assert_int_equal(parse(&f, &run_like, packed), 0);
	assert_string_equal(kb_args_value(&f.args, "agent"), "claude");
	assert_true(kb_args_has(&f.args, "detach"));
	assert_true(kb_args_has(&f.args, "json"));
	assert_int_equal(kb_args_count(&f.args, "limit", 7), 16);
	assert_null(f.args.tail);
	kb_args_finish(&f.args);
}

static void operands_mix_with_options(void **state)
{
	struct fixture f = {0};
	char exec[] = "otter -e A=1 -- sh -c x", files[] = "a.policy -- -b --help c", dash[] = "-";

	assert_int_equal(parse(&f, &exec_like, exec), 0);
	assert_string_equal(kb_args_operand(&f.args, 0), "otter");
	assert_null(kb_args_operand(&f.args, 1));
	assert_int_equal(f.args.n_tail, 3);

	assert_int_equal(parse(&f, &check_like, files), 0);
	assert_int_equal(f.args.n_operands, 4);
	assert_string_equal(kb_args_operand(&f.args, 2), "--help");

	assert_int_equal(parse(&f, &check_like, dash), 0);
	assert_string_equal(kb_args_operand(&f.args, 0), "-");
	kb_args_finish(&f.args);
}

static const struct {
	const struct kb_command *command;
	const char *words, *msg, *hint;
} refused[] = {
	{&run_like, "--agnet x", "run has no option '--agnet'", "did you mean: --agent"},
	{&run_like, "--zzzzzzzzz", "run has no option '--zzzzzzzzz'", "listed by: kbsup help run"},
	{&run_like, "-x", "run has no option '-x'", "kbsup help run"},
	{&run_like, "-dx", "run has no option '-dx'", "kbsup help run"},
	{&run_like, "--agent", "--agent needs a value", "--agent A"},
	{&run_like, "-da", "--agent needs a value", "--agent A"},
	{&run_like, "--detach=yes", "--detach takes no value", "write: --detach"},
	{&run_like, "--agent a --agent b", "--agent was given twice", "once"},
	{&run_like, "-d -d", "--detach was given twice", "once"},
	{&run_like, "--lane notfy", "'notfy' is not a value of --lane", "did you mean: notify"},
	{&run_like, "--lane zzzzzz", "'zzzzzz' is not a value of --lane", "auto|bpf|notify"},
	{&run_like, "--lane auto|bpf", "'auto|bpf' is not a value", ""},
	{&run_like, "--lane ''", "'' is not a value of --lane", ""},
	{&run_like, "--limit 3x", "'3x' is not a whole number", "--limit 100"},
	{&run_like, "--limit -3", "'-3' is not a whole number", ""},
	{&run_like, "--env =V", "names no variable", "NAME=VALUE"},
	{&run_like, "ls -l", "run has no option '-l'", ""},
	{&run_like, "ls", "run does not know what to do with 'ls'", "kbsup run -- ls"},
	{&run_like, "--", "no command follows '--'", "leave '--' out"},
	{&exec_like, "s ls", "exec does not know what to do with 'ls'", "kbsup exec S -- ls"},
	{&exec_like, "otter", "exec needs a command", "kbsup exec otter -- COMMAND"},
	{&exec_like, "otter --", "exec needs a command", "kbsup exec otter --"},
	{&exec_like, "-- ls", "exec needs S", "kbsup help exec"},
	{&check_like, "", "policy check needs FILE", "kbsup help policy check"},
	{&shell_like, "c", "'c' is not a value of SHELL", "did you mean: a"},
	{&shell_like, "a bb", "completion does not know what to do with 'bb'", "help completion"},
};

static void refuses(void **state)
{
	struct fixture f = {0};

	for (size_t i = 0; i < KB_ARRAY_LEN(refused); i++) {
		char text[128];

		strcpy(text, refused[i].words);
		assert_int_equal(parse(&f, refused[i].command, text), -KB_ERR_USAGE);
		assert_int_equal(kb_err_exit_status(&f.err), 2);
		if (!strstr(f.err.msg, refused[i].msg) || !strstr(f.err.hint, refused[i].hint))
			fail_msg("%s: %s / %s", refused[i].words, f.err.msg, f.err.hint);
		assert_true(f.err.hint[0]);
	}
	kb_args_finish(&f.args);
}

/* What settings say has a value like any other, and yet nobody asked for it. */
static void a_default_is_not_given(void **state)
{
	struct fixture f = {0};
	char none[] = "-d", said[] = "--agent mine";

	assert_int_equal(parse(&f, &run_like, none), 0);
	assert_int_equal(kb_args_default(&f.args, &options[0], "shell", &f.err), 0);
	assert_string_equal(kb_args_value(&f.args, "agent"), "shell");
	assert_true(kb_args_has(&f.args, "agent"));
	assert_false(kb_args_given(&f.args, "agent"));
	assert_true(kb_args_given(&f.args, "detach"));
	assert_int_equal(parse(&f, &run_like, said), 0);
	assert_true(kb_args_given(&f.args, "agent"));
	kb_args_finish(&f.args);
}

static void help_wins_over_what_is_missing(void **state)
{
	struct fixture f = {0};
	char missing[] = "--help", tail[] = "-- --help", late[] = "a b -h";

	assert_int_equal(parse(&f, &exec_like, missing), 0);
	assert_true(kb_args_has(&f.args, "help"));
	assert_int_equal(parse(&f, &run_like, tail), 0);
	assert_false(kb_args_has(&f.args, "help"));
	assert_int_equal(parse(&f, &shell_like, late), 0);
	assert_true(kb_args_has(&f.args, "help"));
	kb_args_finish(&f.args);
}

static void bounds_the_options(void **state)
{
	struct fixture f = {0};
	char text[WORDS_MAX * 8] = "";

	for (int i = 0; i < KB_ARGS_OPTIONS_MAX; i++)
		strcat(text, "-eA=1 ");
	assert_int_equal(parse(&f, &run_like, text), 0);
	for (int i = 0; i < KB_ARGS_OPTIONS_MAX + 1; i++)
		memcpy(text + (size_t)i * 6, "-eA=1 ", 7);
	assert_int_equal(parse(&f, &run_like, text), -KB_ERR_USAGE);
	kb_args_finish(&f.args);
}

static void foreign_bytes_are_escaped(void **state)
{
	struct fixture f = {0};
	char bad[] = "--x\033]0;t\007";

	assert_int_equal(parse(&f, &run_like, bad), -KB_ERR_USAGE);
	assert_null(strchr(f.err.msg, '\033'));
	assert_non_null(strstr(f.err.msg, "\\x1b"));
	kb_args_finish(&f.args);
}

static const struct {
	const char *words[3];
	int used;
	const char *name, *msg, *hint;
} lookups[] = {
	{{"version"}, 1, "version", NULL, NULL},
	{{"version", "--json"}, 1, "version", NULL, NULL},
	{{"policy", "check", "x"}, 2, "policy check", NULL, NULL},
	{{"verson"}, 1, NULL, "'verson' is not a command", "did you mean: kbsup version"},
	{{"frobnicate"}, 1, NULL, "'frobnicate' is not a command", "kbsup help"},
	{{"ver"}, 1, NULL, "'ver' is not a command", ""},
	{{"policy", "chekc"}, 2, NULL, "'policy chekc' is not a command",
		"did you mean: kbsup policy check"},
	{{"policy"}, 1, NULL, "'policy' needs to be told what to do", "check"},
	{{"policy", "--json"}, 1, NULL, "'policy' needs to be told what to do", "check"},
	{{""}, 1, NULL, "'' is not a command", ""},
	{{"policy check"}, 1, NULL, "'policy check' is not a command", ""},
};

static void finds_commands(void **state)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(lookups); i++) {
		struct kb_err err = {0};
		char *words[3];
		int n = 0, used = 0;
		const struct kb_command *command;

		while (n < 3 && lookups[i].words[n]) {
			words[n] = (char *)lookups[i].words[n];
			n++;
		}
		command = kb_command_find(words, n, &used, &err);
		if (lookups[i].name) {
			assert_non_null(command);
			assert_string_equal(command->name, lookups[i].name);
			assert_int_equal(used, lookups[i].used);
			continue;
		}
		assert_null(command);
		assert_int_equal(err.code, KB_ERR_USAGE);
		if (!strstr(err.msg, lookups[i].msg) || !strstr(err.hint, lookups[i].hint))
			fail_msg("%s: %s / %s", lookups[i].words[0], err.msg, err.hint);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepts),
		cmocka_unit_test(operands_mix_with_options),
		cmocka_unit_test(refuses),
		cmocka_unit_test(a_default_is_not_given),
		cmocka_unit_test(help_wins_over_what_is_missing),
		cmocka_unit_test(bounds_the_options),
		cmocka_unit_test(foreign_bytes_are_escaped),
		cmocka_unit_test(finds_commands),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
