/* Which rules speak of which system call, in the order in which they decide.
 *
 * Order in the text never matters. Between rules that match the same call:
 *	1. the closer one wins: arguments over what an intent implies, over a call's name,
 *	   over a group (a rule marked `override` is as close as the closest it overrides);
 *	2. then the harder action: kill, deny, ask, allow;
 *	3. then the file that is nearer to the policy asked for.
 * Whatever this leaves open is a conflict, which check.c reports.
 */
#include <stdlib.h>
#include <string.h>

#include "policy/ast.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

struct gather {
	struct kb_policy *policy;
	enum kb_arch_index arch;
	struct kb_arena *arena;
	struct kb_diags *diags;
	struct kb_call_rules *rules;
	unsigned order;
};

static int push(struct gather *ga, int call, struct kb_stmt *stmt, enum kb_spec spec,
	const struct kb_terms *terms)
{
	struct kb_call_rule rule = {.stmt = stmt,
		.spec = spec,
		.action = stmt->action,
		.errnum = stmt->errnum,
		.order = ga->order++};
	struct kb_call_rule *slot;

	if (terms) {
		int r = kb_cond_resolve(
			&kb_calls[call], ga->arch, terms, ga->arena, &rule.conds, ga->diags);

		if (r) /* never holds here, or was diagnosed */
			return 0;
	}
	if (kb_calls[call].nr[ga->arch] < 0)
		return 0;
	slot = KB_ARENA_PUSH(ga->arena, &ga->rules[call]);
	if (!slot)
		return -1;
	*slot = rule;
	return 0;
}

static void unknown_call(struct gather *ga, const struct kb_stmt *stmt, const struct kb_operand *op)
{
	const char **names KB_FREE = NULL;
	const char *near;

	if (!ga->diags)
		return;
	kb_diag(ga->diags, stmt->action == KB_ALLOW ? KB_DIAG_ERROR : KB_DIAG_WARNING, op->pos,
		"there is no system call '%s'", op->text);
	names = calloc(kb_calls_len, sizeof(*names));
	for (size_t i = 0; names && i < kb_calls_len; i++)
		names[i] = kb_calls[i].name;
	near = names ? kb_diag_near(op->text, names, kb_calls_len) : NULL;
	if (near)
		kb_diag_hint(ga->diags, "did you mean %s?", near);
}

static int add_syscall(struct gather *ga, struct kb_stmt *stmt)
{
	for (size_t i = 0; i < stmt->ops.len; i++) {
		int call = kb_call_find(stmt->ops.items[i].text), r = 0;

		if (call < 0) {
			unknown_call(ga, stmt, &stmt->ops.items[i]);
			continue;
		}
		if (!stmt->has_cond)
			r = push(ga, call, stmt, KB_SPEC_CALL, NULL);
		for (size_t a = 0; r >= 0 && a < stmt->cond.len; a++)
			r = push(ga, call, stmt, KB_SPEC_ARGS, &stmt->cond.items[a]);
		if (r < 0)
			return r;
	}
	return 0;
}

static int add_group(struct gather *ga, struct kb_stmt *stmt)
{
	for (size_t i = 0; i < stmt->ops.len; i++) {
		const struct kb_group *group = kb_group_find(stmt->ops.items[i].text);

		if (!group && ga->diags) {
			const char *names[64], *near;
			size_t n = KB_MIN(kb_groups_len, KB_ARRAY_LEN(names));

			for (size_t g = 0; g < n; g++)
				names[g] = kb_groups[g].name;
			kb_diag_error(ga->diags, stmt->ops.items[i].pos, "there is no group %s",
				stmt->ops.items[i].text);
			near = kb_diag_near(stmt->ops.items[i].text, names, n);
			if (near)
				kb_diag_hint(ga->diags, "did you mean %s?", near);
		}
		for (size_t c = 0; group && c < group->len; c++)
			if (push(ga, group->calls[c], stmt, KB_SPEC_GROUP, NULL) < 0)
				return -1;
	}
	return 0;
}

/* `net default deny`: no socket of a family the net rules do not speak of. */
static int add_net_default(struct gather *ga, struct kb_stmt *stmt)
{
	static struct kb_operand families[] = {
		{.text = "AF_UNIX"}, {.text = "AF_INET"}, {.text = "AF_INET6"}};
	static struct kb_value values[] = {{.lo = {&families[0], 1, 1}},
		{.lo = {&families[1], 1, 1}}, {.lo = {&families[2], 1, 1}}};
	static struct kb_term term = {.arg = {.text = "domain"},
		.op = KB_OP_NOT_IN,
		.values = {values, KB_ARRAY_LEN(values), KB_ARRAY_LEN(values)}};
	static const struct kb_terms terms = {&term, 1, 1};
	static const char *const calls[] = {"socket", "socketpair"};

	for (size_t i = 0; i < KB_ARRAY_LEN(calls); i++) {
		int call = kb_call_find(calls[i]);
		size_t before = ga->rules[call].len;

		if (push(ga, call, stmt, KB_SPEC_INTENT, &terms) < 0)
			return -1;
		if (ga->rules[call].len > before)
			ga->rules[call].items[before].errnum = kb_errno_parse("EAFNOSUPPORT");
	}
	return 0;
}

/* An override is lifted to the closest rule of the files it overrides. */
static void lift_overrides(struct kb_call_rules *rules)
{
	for (size_t i = 0; i < rules->len; i++) {
		struct kb_call_rule *rule = &rules->items[i];

		for (size_t j = 0; rule->stmt->override_ && j < rules->len; j++)
			if (rules->items[j].stmt->level > rule->stmt->level)
				rule->spec = KB_MAX(rule->spec, rules->items[j].spec);
	}
}

static int hardness(enum kb_action action)
{
	static const int order[] = {[KB_ALLOW] = 0, [KB_ASK] = 1, [KB_DENY] = 2, [KB_KILL] = 3};

	return order[action];
}

static int compare_rules(const void *pa, const void *pb)
{
	const struct kb_call_rule *a = pa, *b = pb;

	if (a->spec != b->spec)
		return (int)b->spec - (int)a->spec;
	if (a->stmt->override_ != b->stmt->override_)
		return (int)b->stmt->override_ - (int)a->stmt->override_;
	if (a->action != b->action)
		return hardness(b->action) - hardness(a->action);
	if (a->stmt->level != b->stmt->level)
		return a->stmt->level < b->stmt->level ? -1 : 1;
	return a->order < b->order ? -1 : 1;
}

int kb_calls_gather(struct kb_policy *policy, enum kb_arch_index arch, struct kb_arena *arena,
	struct kb_call_rules **ret, struct kb_diags *diags)
{
	struct gather ga = {.policy = policy, .arch = arch, .arena = arena, .diags = diags};

	ga.rules = *ret = kb_arena_alloc(arena, kb_calls_len * sizeof(**ret));
	if (!ga.rules)
		return -1;
	for (size_t i = 0; i < policy->stmts.len; i++) {
		struct kb_stmt *stmt = policy->stmts.items[i];
		int r = 0;

		if (stmt->kind == KB_STMT_SYSCALL)
			r = add_syscall(&ga, stmt);
		else if (stmt->kind == KB_STMT_GROUP)
			r = add_group(&ga, stmt);
		else if (stmt->kind == KB_STMT_NET && stmt->verb == KB_VERB_DEFAULT)
			r = add_net_default(&ga, stmt);
		if (r < 0)
			return r;
	}
	for (size_t c = 0; c < kb_calls_len; c++) {
		lift_overrides(&ga.rules[c]);
		if (ga.rules[c].len)
			qsort(ga.rules[c].items, ga.rules[c].len, sizeof(*ga.rules[c].items),
				compare_rules);
	}
	return 0;
}
