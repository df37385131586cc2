/* table.txt: every row by the evaluator, by the emitted programs, and by the live kernel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/audit.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "policy/ask.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"
#include "tests/policy/support.h"

#define LINE_MAX_ 1024

struct row {
	unsigned line;
	char question[LINE_MAX_];
	enum kb_action action;
	int errnum;
	bool usage, live, only_x86;
};

struct counts {
	unsigned rows, evaluated, interpreted, live;
};

/* ---- Rows ------------------------------------------------------------------------------------ */

static void parse_outcome(struct row *row, char *text)
{
	static const char *const words[] = {"allow", "deny", "kill", "ask"};
	char *save = NULL, *word = strtok_r(text, " \n", &save);
	bool known = false;

	row->live = true;
	for (; word; word = strtok_r(NULL, " \n", &save)) {
		for (size_t i = 0; i < KB_ARRAY_LEN(words); i++)
			if (!strcmp(word, words[i])) {
				row->action = (enum kb_action)i;
				known = true;
			}
		if (word[0] == 'E')
			row->errnum = kb_errno_parse(word);
		row->usage |= !strcmp(word, "usage");
		row->live &= strcmp(word, "~") != 0;
		row->only_x86 |= !strcmp(word, "x86_64");
	}
	if (!known && !row->usage)
		fail_msg("table.txt:%u: no outcome", row->line);
}

static bool agrees(const struct row *row, const struct kb_verdict *verdict)
{
	return verdict->action == row->action &&
	       (row->action != KB_DENY || verdict->errnum == row->errnum);
}

/* ---- The live kernel ------------------------------------------------------------------------- */

#define CHILD_TROUBLE 250

static void child(const struct kb_program *program, int nr, const uint64_t args[6])
{
	struct sock_fprog fprog = {.len = (unsigned short)program->len, .filter = program->insns};
	long r;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
		syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &fprog))
		syscall(SYS_exit, CHILD_TROUBLE);
	r = syscall(nr, args[0], args[1], args[2], args[3], args[4], args[5]);
	syscall(SYS_exit, r == -1 ? errno : 0);
}

static void check_live(const struct kb_bundle *bundle, const struct row *row,
	const struct kb_question *q, struct counts *counts)
{
	struct kb_program program = test_emit(bundle, kb_arch_native(), KB_EMIT_PLAIN);
	int nr = kb_calls[q->call].nr[kb_arch_index(kb_arch_native())], status = 0, code;
	pid_t pid = fork();

	if (pid == 0)
		child(&program, nr, q->args);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	kb_program_finish(&program);
	counts->live++;
	if (row->action == KB_KILL) {
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
			fail_msg("table.txt:%u: %s: not killed", row->line, row->question);
		return;
	}
	code = WIFEXITED(status) ? WEXITSTATUS(status) : CHILD_TROUBLE;
	if (code == CHILD_TROUBLE)
		fail_msg("table.txt:%u: %s: the child ended by %#x", row->line, row->question,
			status);
	if (row->action == KB_ALLOW ? code == EDOM || code == ENOSYS : code != row->errnum)
		fail_msg("table.txt:%u: %s: the kernel answered %s", row->line, row->question,
			strerror(code));
}

/* ---- One row --------------------------------------------------------------------------------- */

static void check_arch(
	const struct kb_bundle *bundle, const struct row *row, uint32_t arch, struct counts *counts)
{
	struct kb_source source = {
		.name = "row", .base = "row", .text = row->question, .len = strlen(row->question)};
	struct kb_diags *diags = kb_diags_create();
	struct kb_tokens tokens = {0};
	struct kb_program program = test_emit(bundle, arch, KB_EMIT_PLAIN);
	struct kb_question q;
	struct kb_answer answer;
	struct kb_arena arena;
	int r;

	kb_arena_init(&arena, 1 << 20);
	assert_int_equal(kb_lex(&source, &arena, &tokens, diags), 0);
	r = kb_question_parse(
		&tokens, 0, tokens.len - 1, kb_arch_index(arch), &test_options, &arena, &q, diags);
	if ((r != 0) != row->usage)
		fail_msg("table.txt:%u: %s: %s", row->line, row->question,
			r ? "not understood" : "understood");
	if (!row->usage) {
		kb_answer(bundle, &program, arch, &q, &answer);
		if (!agrees(row, &answer.verdict))
			fail_msg("table.txt:%u: %s: action %d errno %d", row->line, row->question,
				answer.verdict.action, answer.verdict.errnum);
		counts->evaluated++;
		if (answer.has_call) {
			struct seccomp_data data = {
				.nr = kb_calls[q.call].nr[kb_arch_index(arch)], .arch = arch};

			memcpy(data.args, q.args, sizeof(data.args));
			assert_int_equal(bpf_interpret(program.insns, &data).value,
				test_expected(&answer.call, KB_EMIT_PLAIN));
			assert_int_equal(answer.value, test_expected(&answer.call, KB_EMIT_PLAIN));
			counts->interpreted++;
			if (row->live && arch == kb_arch_native() && row->action != KB_ASK)
				check_live(bundle, row, &q, counts);
		}
	}
	kb_program_finish(&program);
	kb_arena_finish(&arena);
	kb_diags_destroy(diags);
}

static struct kb_bundle *compile(const char *rules, unsigned line)
{
	char *text = test_policy(rules), *why = NULL;
	struct kb_bundle *bundle = test_compile(text, "row.policy", &why);

	if (!bundle)
		fail_msg("table.txt:%u: %s", line, why);
	free(why);
	free(text);
	return bundle;
}

static void table(void **state)
{
	FILE *file = fopen(POLICY_TABLE, "re");
	char line[LINE_MAX_], rules[8192] = "";
	struct kb_bundle *bundle = NULL;
	struct counts counts = {0};
	bool collecting = false;

	(void)state;
	assert_non_null(file);
	for (unsigned no = 1; fgets(line, sizeof(line), file); no++) {
		struct row row = {.line = no};
		char *arrow = strstr(line, " -> ");

		if (line[0] == '|') {
			if (!collecting)
				rules[0] = '\0';
			collecting = true;
			strncat(rules, line + 1, sizeof(rules) - strlen(rules) - 1);
			continue;
		}
		if (line[0] == '#' || !arrow)
			continue;
		if (collecting || !bundle) {
			kb_bundle_destroy(bundle);
			bundle = compile(rules, no);
		}
		collecting = false;
		*arrow = '\0';
		snprintf(row.question, sizeof(row.question), "%s", line);
		parse_outcome(&row, arrow + 4);
		counts.rows++;
		check_arch(bundle, &row, AUDIT_ARCH_X86_64, &counts);
		if (!row.only_x86)
			check_arch(bundle, &row, AUDIT_ARCH_AARCH64, &counts);
	}
	kb_bundle_destroy(bundle);
	fclose(file);
	print_message("%u rows: %u evaluated, %u interpreted, %u live\n", counts.rows,
		counts.evaluated, counts.interpreted, counts.live);
	assert_true(counts.rows >= 300);
	assert_true(counts.live >= 150 || kb_arch_native() == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(table)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
