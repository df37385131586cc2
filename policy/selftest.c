/* `policy test`: the inline tests, run on what was compiled; and which rules none of them reaches.
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "policy/ask.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

struct runner {
	const struct kb_policy *policy;
	const struct kb_policy_options *opts;
	const struct kb_bundle *bundle;
	struct kb_program program;
	uint32_t arch;
	struct kb_arena arena;
	struct kb_diags *diags;
	bool *reached;
	struct kb_test_result *result;
	struct kb_buf *out;
	json_t *json; /* list of results, or NULL for text */
};

static void reach(struct runner *rn, uint32_t rule)
{
	if (rule < rn->bundle->rules.len)
		rn->reached[rule] = true;
}

static bool holds(const struct kb_expect *expect, const struct kb_verdict *verdict)
{
	return verdict->action == expect->action &&
	       (!expect->errnum || verdict->errnum == expect->errnum);
}

/* 0 passed, 1 failed, -1 no memory */
static int run_expect(struct runner *rn, const struct kb_test *test, const struct kb_expect *expect)
{
	static const char *const words[] = {"allowed", "denied", "killed", "asked"};
	struct kb_answer answer;
	struct kb_question q;
	const struct kb_rule *rule;
	const char *error;
	int r = kb_question_parse(test->tokens, expect->first, expect->last,
		kb_arch_index(rn->arch), rn->opts, &rn->arena, &q, rn->diags);

	if (r)
		return r;
	kb_answer(rn->bundle, &rn->program, rn->arch, &q, &answer);
	reach(rn, answer.verdict.rule);
	if (answer.has_call)
		reach(rn, answer.call.rule);
	if (answer.has_path)
		reach(rn, answer.path.rule);
	if (holds(expect, &answer.verdict))
		return 0;
	error = kb_errno_name(answer.verdict.errnum);
	rule = answer.verdict.rule < rn->bundle->rules.len
		       ? &rn->bundle->rules.items[answer.verdict.rule]
		       : NULL;
	kb_diag_error(rn->diags, expect->pos, "test \"%s\": it is %s%s%s", test->name,
		words[answer.verdict.action],
		answer.verdict.action == KB_DENY && error ? " with " : "",
		answer.verdict.action == KB_DENY && error ? error : "");
	if (rule)
		kb_diag_help(rn->diags, "by %.*s   %s", (int)strcspn(rule->id, "#"), rule->id,
			rule->text);
	return 1;
}

static int report(struct runner *rn, const struct kb_test *test, bool ok, struct kb_err *err)
{
	char *name KB_FREE = kb_escape_dup(test->name, strlen(test->name));

	if (!name)
		return kb_err_nomem(err);
	if (rn->json) {
		json_array_append_new(rn->json,
			json_pack("{s:s, s:s, s:i, s:b}", "name", name, "file",
				test->pos.source->name, "line", (int)test->pos.line, "passed", ok));
		return 0;
	}
	return kb_buf_printf(rn->out, err, "%s  %s:%u  %s\n", ok ? "ok    " : "FAILED",
		test->pos.source->base, test->pos.line, name);
}

static int run_tests(struct runner *rn, struct kb_err *err)
{
	for (size_t i = 0; i < rn->policy->tests.len; i++) {
		const struct kb_test *test = &rn->policy->tests.items[i];
		bool ok = true;
		int r;

		for (size_t j = 0; j < test->expects.len; j++) {
			r = run_expect(rn, test, &test->expects.items[j]);
			if (r < 0)
				return kb_err_nomem(err);
			ok &= r == 0;
		}
		*(ok ? &rn->result->passed : &rn->result->failed) += 1;
		r = report(rn, test, ok, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Rules that decide something a test could ask for, of the file itself: what a preset holds has
 * been tested with the preset. */
static bool counts(const struct kb_stmt *stmt)
{
	return stmt->level == 0 && stmt->kind != KB_STMT_ENV && stmt->kind != KB_STMT_LIMIT &&
	       stmt->kind != KB_STMT_GROUPS && stmt->kind != KB_STMT_LET &&
	       stmt->kind != KB_STMT_SECRET;
}

static int report_untested(struct runner *rn, json_t *list, struct kb_err *err)
{
	for (size_t i = 0; i < rn->policy->stmts.len; i++) {
		const struct kb_stmt *stmt = rn->policy->stmts.items[i];
		const struct kb_rule *rule = &rn->bundle->rules.items[i];
		char *text KB_FREE = NULL;
		int r = 0;

		if (rn->reached[i] || !counts(stmt))
			continue;
		rn->result->untested++;
		text = kb_escape_dup(rule->text, strlen(rule->text));
		if (!text)
			return kb_err_nomem(err);
		if (list)
			json_array_append_new(list, json_string(rule->id));
		else
			r = kb_buf_printf(rn->out, err, "no test reaches  %.*s  %s\n",
				(int)strcspn(rule->id, "#"), rule->id, text);
		if (r < 0)
			return r;
	}
	return 0;
}

static int finish(struct runner *rn, struct kb_err *err)
{
	json_t *untested = rn->json ? json_array() : NULL, *root;
	int r = report_untested(rn, untested, err);
	char *text;

	if (r < 0 || !rn->json)
		return r < 0 ? r
			     : kb_buf_printf(rn->out, err,
				       "%zu passed, %zu failed, %zu rules untested\n",
				       rn->result->passed, rn->result->failed,
				       rn->result->untested);
	root = json_pack("{s:I, s:I, s:O, s:o}", "passed", (json_int_t)rn->result->passed, "failed",
		(json_int_t)rn->result->failed, "tests", rn->json, "untested", untested);
	text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
	json_decref(root);
	r = text ? kb_buf_printf(rn->out, err, "%s\n", text) : kb_err_nomem(err);
	free(text);
	return r;
}

static int run(struct runner *rn, struct kb_err *err)
{
	int r = kb_bundle_emit(rn->bundle, rn->arch, KB_EMIT_NOTIFY, &rn->program, err);

	if (r < 0)
		return r;
	rn->reached = kb_arena_alloc(&rn->arena, rn->bundle->rules.len + 1);
	r = rn->reached ? run_tests(rn, err) : kb_err_nomem(err);
	if (r >= 0)
		r = finish(rn, err);
	kb_program_finish(&rn->program);
	return r;
}

int kb_policy_test(const struct kb_policy *policy, const struct kb_policy_options *options,
	bool json, struct kb_buf *out, struct kb_test_result *ret, struct kb_diags *diags,
	struct kb_err *err)
{
	struct runner rn = {.policy = policy,
		.opts = options,
		.diags = diags,
		.result = ret,
		.out = out,
		.arch = kb_arch_native()};
	struct kb_bundle *bundle = NULL;
	struct kb_buf encoded;
	int r;

	*ret = (struct kb_test_result){0};
	if (!rn.arch)
		rn.arch = kb_arch_audit(KB_X86_64);
	kb_buf_init(&encoded, KB_BUNDLE_BYTES_MAX);
	kb_arena_init(&rn.arena, KB_POLICY_MEMORY);
	rn.json = json ? json_array() : NULL;
	r = kb_policy_lower(policy, options, &encoded, diags, err);
	if (r >= 0)
		r = kb_bundle_parse(kb_buf_data(&encoded), kb_buf_len(&encoded), &bundle, err);
	rn.bundle = bundle;
	if (r >= 0)
		r = run(&rn, err);
	json_decref(rn.json);
	kb_bundle_destroy(bundle);
	kb_arena_finish(&rn.arena);
	kb_buf_finish(&encoded);
	return r;
}
