/* The query language over a small recorded story (fixture.c numbers its records), row by row: what
 * an expression finds, or where and how it is wrong. */
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit/query/expr.h"
#include "supervisor/base/util.h"

static char *dir;
static uint8_t session[KB_ULID_SIZE];

static const struct {
	const char *expr, *seqs;
} finds[] = {
	/* every field */
	{"time >= \"2025-11-24T16:00:12Z\"", "13 14 15"},
	{"time < \"2025-11-24 16:00:02\"", "1 2"},
	{"time = \"2025-11-24 16:00:05\"", "6"},
	{"event = open", "3 5 6 11"},
	{"event != open and pid = 101", "4 7"},
	{"event in (unlink, connect)", "9 13 14"},
	{"event not in (open, exec, exit)", "1 9 13 14 15"},
	{"event ~ \"ex*\"", "2 4 7 8 10 12"},
	{"syscall = openat", "3 5 6 11"},
	{"syscall = 263", "9"},
	{"syscall ~ \"*link*\"", "9"},
	{"syscall in (execve, connect)", "2 4 8 10 13 14"},
	{"lane = runtime", "1 15"},
	{"lane != notify", "1 15"},
	{"pid = 103", "10 11 12"},
	{"pid > 101 and pid <= 102", "8 9 13 14"},
	{"pid < 101", "2 3"},
	{"pid != 0x64 and event = exec", "4 8 10"},
	{"ppid = 100", "4 5 6 7 8 9 10 11 12 13 14"},
	{"ppid = 1", "2 3"},
	{"tid = 104", "11"},
	{"exe = /usr/bin/gcc", "4 5 6 7"},
	{"exe ~ /usr/bin/*", "2 3 4 5 6 7 8 9 10 11 12 13 14"},
	{"exe ~ /usr/*", ""},
	{"comm = rm", "8 9 13 14"},
	{"comm in (make, cat)", "2 3 10 11 12"},
	{"comm ~ 'g?c'", "4 5 6 7"},
	{"argv = -rf", "8 9 13 14"},
	{"argv = \"rm -rf dist\"", "8 9 13 14"},
	{"argv ~ \"*-c a b.c\"", "4 5 6 7"},
	{"argv ~ \"rm *\" and event = exec", "8"},
	{"path = \"/home/dev/shop/Makefile\"", "3"},
	{"path = \"~/shop/Makefile\"", "3"},
	{"path ~ ~/shop/**", "3 5 9"},
	{"path ~ \"**/.env\"", "9"},
	{"path ~ \"/home/*/.ssh/**\"", "11"},
	{"path ~ \"/home/*/Makefile\"", ""},
	{"path ~ \"**/a\\x20b.o\"", "5"},
	{"path != \"/x\" and event = unlink", "9"},
	{"path2 = \"x\"", ""},
	{"path2 != \"x\" and seq = 1", "1"},
	{"flags = O_WRONLY|O_CREAT|O_TRUNC", "5"},
	{"flags ~ O_CREAT", "5"},
	{"flags ~ O_CLOEXEC", "3"},
	{"flags = O_RDONLY", "6 11"},
	{"flags = 0x241", "5"},
	{"flags ~ O_WRONLY", "5"},
	{"flags ~ O_RDWR", ""},
	{"host = evil.example", "13"},
	{"host ~ \"*.example\"", "13"},
	{"ip = 10.0.0.1", "14"},
	{"ip = 10.0.0.0/8", "14"},
	{"ip = 192.0.2.0/24", "13"},
	{"ip != 10.0.0.1 and event = connect", "13"},
	{"ip in (10.0.0.1, 192.0.2.7)", "13 14"},
	{"ip ~ \"192.*\"", "13"},
	{"ip = ::1", ""},
	{"ip = 0.0.0.0/0", "13 14"},
	{"port = 443", "13 14"},
	{"port < 1024 and decision = allowed", "14"},
	{"bytes > 1000", "14"},
	{"bytes = 4k", "14"},
	{"bytes >= 4097", ""},
	{"result = -2", "6"},
	{"result < 0", "6"},
	{"errno = ENOENT", "6"},
	{"errno = 13", "11 13"},
	{"errno in (EACCES, ENOENT)", "6 11 13"},
	{"errno ~ \"E*S\"", "11 13"},
	{"errno != EACCES and decision = denied", ""},
	{"signal = SIGKILL or signal = 15", ""},
	{"signal ~ \"SIG*\"", ""},
	{"decision = denied", "11 13"},
	{"decision != allowed", "11 13"},
	{"decision ~ \"d*\"", "11 13"},
	{"outcome = failed", "6 11 13"},
	{"outcome = unknown and event = open", "3"},
	{"outcome = ok and event = unlink", "9"},
	{"rule = base.policy:14", "11"},
	{"rule = \"base.policy:14#00000000\"", "11"},
	{"rule ~ \"base.policy:*\" and event = connect", "13"},
	{"rule ~ \"*\" and event = exit", ""},
	{"session = amber-otter and seq = 1", "1"},
	{"session ~ \"amber-*\" and seq < 3", "1 2"},
	{"agent = shell and seq = 2", "2"},
	{"machine = local and seq = 2", "2"},
	{"machine = web", ""},
	{"seq = 5", "5"},
	{"seq >= 14", "14 15"},
	{"seq in (1, 3, 5)", "1 3 5"},
	/* putting them together */
	{"not event = open and pid = 103", "10 12"},
	{"not (event = open or event = exec) and pid = 101", "7"},
	{"event = unlink or event = connect and decision = denied", "9 13"},
	{"(event = unlink or event = connect) and decision = denied", "13"},
	{"not not event = unlink", "9"},
	{"event = open and path ~ \"/home/*/.ssh/**\" and decision = denied", "11"},
	{"EVENT = open", NULL},
	{"event=open and decision=denied", "11"},
	{"event = open AND NOT pid = 101", "3 11"},
	{"pid=101 or(pid=103)", "4 5 6 7 10 11 12"},
	{"seq>14", "15"},
	{"   seq   =   2   ", "2"},
};

static void test_finds(void **state)
{
	size_t n = 0;

	for (size_t i = 0; i < KB_ARRAY_LEN(finds); i++) {
		if (!finds[i].seqs)
			continue;
		KB_FREE char *got = fix_seqs(dir, finds[i].expr);

		if (strcmp(got, finds[i].seqs) != 0)
			fail_msg("%s\n  finds  [%s]\n  wanted [%s]", finds[i].expr, got,
				finds[i].seqs);
		n++;
	}
	assert_true(n >= 90);
}

/* Where the caret stands, how long it is, and what is said. */
static const struct {
	const char *expr;
	size_t at, len;
	const char *what, *hint;
} errors[] = {
	{"", 0, 1, "the expression is empty", ""},
	{"   ", 0, 1, "the expression is empty", ""},
	{"pth = x", 0, 3, "there is no field 'pth'", "did you mean path?"},
	{"event = open and decison = denied", 17, 7, "there is no field 'decison'",
		"did you mean decision?"},
	{"event = opne", 8, 4, "there is no event 'opne'", "did you mean open?"},
	{"decision = deny", 11, 4, "there is no decision 'deny'",
		"it is one of allowed denied killed asked"},
	{"outcome = success", 10, 7, "there is no outcome 'success'",
		"it is one of unknown ok failed interrupted"},
	{"signal = SIGKIL", 9, 6, "there is no signal 'SIGKIL'", "did you mean SIGKILL?"},
	{"errno = EACCESS", 8, 7, "there is no error 'EACCESS'", "did you mean EACCES?"},
	{"flags ~ O_CREATE", 8, 8, "there is no flag 'O_CREATE'", "did you mean O_CREAT?"},
	{"syscall = opnat", 10, 5, "there is no system call 'opnat'", ""},
	{"event", 5, 1, "one of = != < <= > >= ~ in is missing here", ""},
	{"event =", 7, 1, "a value is missing here", ""},
	{"event = open and", 16, 1, "a field name is missing here", ""},
	{"event = open decision = denied", 13, 8, "here should be 'and', 'or' or the end", ""},
	{"event == open", 6, 2, "'==' is written '=' here", ""},
	{"event = open && pid = 1", 13, 2, "'&&' is written 'and' here", ""},
	{"event = open || pid = 1", 13, 2, "'||' is written 'or' here", ""},
	{"path =~ x", 5, 2, "'=~' is written '~' here", ""},
	{"!event = open", 0, 1, "'!' is written 'not' here", ""},
	{"event < open", 6, 1, "words have no order; use = != ~ or in", ""},
	{"path > /a", 5, 1, "paths have no order; use = != ~ or in", ""},
	{"pid ~ 12*", 4, 1, "'~' compares text, and pid is a number; use = != < <= > >=", ""},
	{"pid = twelve", 6, 6, "pid is compared with a number", ""},
	{"port = 99999999999999999999", 7, 20, "port is compared with a number", ""},
	{"time > yesterdy", 7, 8,
		"a time is written like 2026-11-23, \"2026-11-23 16:20\", yesterday, or 2h for two "
		"hours ago",
		""},
	{"ip = 10.0.0", 5, 6, "'10.0.0' is not an address", ""},
	{"ip = 10.0.0.0/33", 5, 11, "a network is written like 10.0.0.0/8", ""},
	{"path = \"/a", 7, 3, "this quote is not closed", ""},
	{"path ~ \"/[a\"", 7, 5, "in this pattern a '[' is not closed, or a '\\' comes last", ""},
	{"(event = open", 13, 1, "')' is missing here", ""},
	{"event = open)", 12, 1, "here should be 'and', 'or' or the end", ""},
	{"()", 1, 1, "here should be a field name", ""},
	{"event in open", 9, 4, "here should be '(' and the values", ""},
	{"event in ()", 10, 1, "here should be a value", ""},
	{"event in (open", 14, 1, "',' or ')' is missing here", ""},
	{"event in (open,)", 15, 1, "here should be a value", ""},
	{"event in (open, nope)", 16, 4, "there is no event 'nope'", ""},
	{"event not open", 10, 4, "here should be 'in' and a list", ""},
	{"not", 3, 1, "a field name is missing here", ""},
	{"event = open or or pid = 1", 16, 2, "there is no field 'or'", ""},
	{"= open", 0, 1, "here should be a field name", ""},
	{"\"event\" = open", 0, 7, "here should be a field name", ""},
	{"event = ,", 8, 1, "here should be a value", ""},
	{"path = 'caf\xc3\xa9' and x = 1", 19, 1, "there is no field 'x'", ""},
};

static void test_errors(void **state)
{
	const struct kb_expr_options options = {.now = (int64_t)FIX_START, .utc = true};
	struct kb_expr_error error;
	struct kb_expr *expr;

	for (size_t i = 0; i < KB_ARRAY_LEN(errors); i++) {
		if (kb_expr_parse(errors[i].expr, &options, &expr, &error) != -KB_ERR_USAGE)
			fail_msg("%s is understood", errors[i].expr);
		if (error.at != errors[i].at || error.len != errors[i].len ||
			strcmp(error.what, errors[i].what) != 0 ||
			(errors[i].hint[0] && strcmp(error.hint, errors[i].hint) != 0))
			fail_msg("%s\n  at %zu+%zu: %s; %s\n  wanted %zu+%zu: %s; %s",
				errors[i].expr, error.at, error.len, error.what, error.hint,
				errors[i].at, errors[i].len, errors[i].what, errors[i].hint);
	}
}

static void test_caret(void **state)
{
	struct kb_buf screen;
	struct kb_err err;

	kb_buf_init(&screen, 4096);
	assert_int_equal(
		kb_query_check("event = open and decison = denied", &screen, &err), -KB_ERR_USAGE);
	kb_buf_append(&screen, "", 1, &err);
	assert_string_equal((char *)kb_buf_data(&screen),
		"event = open and decison = denied\n"
		"                 ^~~~~~~ there is no field 'decison'; did you mean decision?\n");
	assert_string_equal(err.msg, "the query is not understood at column 18: there is no field "
				     "'decison'; did you mean decision?");
	assert_non_null(strstr(err.hint, "fields: time event"));
	kb_buf_finish(&screen);
	/* Foreign bytes in front do not move the caret off, and do not reach the screen. */
	assert_int_equal(
		kb_query_check("path = '\033[2J' and x = 1", &screen, &err), -KB_ERR_USAGE);
	kb_buf_append(&screen, "", 1, &err);
	assert_null(strchr((char *)kb_buf_data(&screen), '\033'));
	assert_non_null(strstr((char *)kb_buf_data(&screen), "\n                     ^ there"));
	kb_buf_finish(&screen);
	assert_int_equal(kb_query_check("event = open", NULL, &err), 0);
}

static void test_bounds(void **state)
{
	KB_FREE char *deep = calloc(1, 2 * 200 + 20), *wide = calloc(1, KB_EXPR_MAX + 100);
	struct kb_err err;

	memset(deep, '(', 200);
	strcat(deep, "pid = 1");
	assert_int_equal(kb_query_check(deep, NULL, &err), -KB_ERR_USAGE);
	assert_non_null(strstr(err.msg, "too deep"));
	memset(wide, ' ', KB_EXPR_MAX + 50);
	assert_int_equal(kb_query_check(wide, NULL, &err), -KB_ERR_USAGE);
	strcpy(wide, "pid in (1");
	for (int i = 0; i < 5000; i++)
		strcat(wide + 9 + 2 * i, ",1");
	strcat(wide + 10000, ")");
	assert_int_equal(kb_query_check(wide, NULL, &err), -KB_ERR_USAGE);
	assert_non_null(strstr(err.msg, "too long"));
}

static void test_fields(void **state)
{
	size_t n, names_n;
	const struct kb_field *fields = kb_field_table(&n);
	const char *const *names = kb_field_names(&names_n);

	assert_int_equal(n, 28);
	assert_int_equal(names_n, n);
	for (size_t i = 0; i < n; i++) {
		assert_string_equal(fields[i].name, names[i]);
		assert_true(fields[i].help[0] != '\0');
	}
}

struct offered {
	const char *sought;
	unsigned n, found;
};

static void on_offer(const char *word, const char *help, void *arg)
{
	struct offered *o = arg;

	assert_true(help[0] != '\0');
	o->n++;
	o->found += o->sought && strcmp(word, o->sought) == 0;
}

/* What may follow a beginning: how many words, one of them, and the field whose value it is. */
static const struct {
	const char *before, *sought;
	unsigned n;
	const char *field;
} completions[] = {
	{"", "path", 29, NULL},
	{"last ", "decision", 29, NULL},
	{"event", "!=", 9, NULL},
	{"event =", "unlink", KB_EVENT_MAX_ - 1, "event"},
	{"event=", "unlink", KB_EVENT_MAX_ - 1, "event"},
	{"event not in (open,", "exec", KB_EVENT_MAX_ - 1, "event"},
	{"event in (open) ", "and", 2, NULL},
	{"path ~ \"/a and b/**\"", "or", 2, NULL},
	{"not (decision = denied and lane = ", "bpf", 4, "lane"},
	{"last outcome = ", "interrupted", 4, "outcome"},
	{"flags ~ ", "O_CREAT", 0, "flags"},
	{"errno = ", "EACCES", 0, "errno"},
	{"signal = ", "SIGKILL", 0, "signal"},
	{"syscall = ", "unlinkat", 0, "syscall"},
	{"time > ", "yesterday", 2, "time"},
	{"session = ", NULL, 0, "session"},
	{"( ( ) ) = , \"", NULL, 2, NULL},
};

static void test_completions(void **state)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(completions); i++) {
		struct offered o = {.sought = completions[i].sought};
		const char *field = kb_query_complete(completions[i].before, on_offer, &o);

		if ((completions[i].n && o.n != completions[i].n) || (o.sought && o.found != 1))
			fail_msg("'%s': %u words, %u of them '%s'", completions[i].before, o.n,
				o.found, o.sought ? o.sought : "");
		if (completions[i].field)
			assert_string_equal(field, completions[i].field);
		else
			assert_null(field);
	}
}

static int set_up(void **state)
{
	struct kb_store *store;
	struct kb_err err;

	dir = fix_dir();
	assert_int_equal(kb_store_open(dir, &store, &err), 0);
	fix_begin(store, "amber-otter", session);
	fix_story(store, session);
	kb_store_close(store);
	return 0;
}

static int tear_down(void **state)
{
	fix_dir_remove(dir);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_finds),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_caret),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_completions),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
