/* What cannot be seen from one statement: contradictions between rules, a child that widens its
 * parents unasked, calls nobody can do without; and lint. */
#include <string.h>

#include "policy/fs_items.h"
#include "policy/lower.h"
#include "supervisor/base/util.h"

struct checker {
	struct kb_policy *policy;
	const struct kb_policy_options *opts;
	struct kb_arena scratch;
	struct kb_diags *diags;
};

static struct kb_stmt *stmt_at(const struct checker *ck, size_t i)
{
	return ck->policy->stmts.items[i];
}

/* ---- Once per policy ------------------------------------------------------------------------- */

static bool is_default(const struct kb_stmt *stmt, enum kb_stmt_kind kind)
{
	return stmt->kind == kind && (kind == KB_STMT_DEFAULT || stmt->verb == KB_VERB_DEFAULT);
}

static void check_defaults(struct checker *ck, enum kb_stmt_kind kind, bool needed)
{
	const struct kb_stmt *first = NULL;

	for (size_t i = 0; i < ck->policy->stmts.len; i++) {
		const struct kb_stmt *stmt = stmt_at(ck, i);

		if (!is_default(stmt, kind))
			continue;
		needed = false;
		if (first && first->source == stmt->source) {
			kb_diag_error(ck->diags, stmt->pos, "a second default");
			kb_diag_also(ck->diags, first->pos);
		}
		first = stmt;
	}
	if (!needed)
		return;
	kb_diag_error(ck->diags,
		(struct kb_pos){
			.source = ck->policy->sources.items[0], .line = 1, .col = 1, .len = 6},
		"this policy has no default for system calls");
	kb_diag_help(ck->diags, "add `default deny ENOSYS record summary`, or extend base");
}

static void check_default_action(struct checker *ck, const struct kb_stmt *stmt)
{
	if (stmt->kind == KB_STMT_DEFAULT && stmt->action == KB_ALLOW)
		kb_diag_error(ck->diags, stmt->pos,
			"the default cannot be allow: a call nobody thought of would pass");
}

/* ---- Each statement -------------------------------------------------------------------------- */

static void check_override(struct checker *ck, const struct kb_stmt *stmt)
{
	if (stmt->override_ && !stmt->reason) {
		kb_diag_error(ck->diags, stmt->pos, "an override needs a reason");
		kb_diag_help(ck->diags, "add: reason \"why this agent may\"");
	}
}

/* What a statement of a file from a workspace may be. */
static void check_tightens(struct checker *ck, const struct kb_stmt *stmt)
{
	/* ask would soften what another file denies; a variable may stand in another file's rule.
	 */
	bool takes = stmt->action != KB_ALLOW && stmt->action != KB_ASK &&
		     stmt->kind != KB_STMT_DEFAULT && !stmt->observe;

	if (!stmt->source->tightens)
		return;
	if (stmt->kind == KB_STMT_ENV)
		takes = stmt->verb == KB_VERB_DROP;
	else if (stmt->kind == KB_STMT_LIMIT || stmt->kind == KB_STMT_GROUPS)
		takes = true;
	if (takes && !stmt->override_)
		return;
	kb_diag_error(ck->diags, stmt->pos, "a policy from a workspace can only take away");
	kb_diag_help(ck->diags, "put this rule into a policy of your own");
}

static void check_observe(struct checker *ck, const struct kb_stmt *stmt)
{
	if (stmt->observe && stmt->action != KB_DENY)
		kb_diag_error(
			ck->diags, stmt->pos, "observe-only means nothing in a rule that allows");
}

static void check_groups_version(struct checker *ck, const struct kb_stmt *stmt)
{
	if (stmt->kind == KB_STMT_GROUPS &&
		strcmp(stmt->ops.items[0].text, kb_groups_version) != 0) {
		kb_diag_error(ck->diags, stmt->ops.items[0].pos,
			"this kbsup has no groups of version %s", stmt->ops.items[0].text);
		kb_diag_hint(ck->diags, "it has %s", kb_groups_version);
	}
}

static void check_env(struct checker *ck, const struct kb_stmt *stmt)
{
	size_t names = stmt->verb == KB_VERB_SET ? 1 : stmt->ops.len;

	for (size_t i = 0; stmt->kind == KB_STMT_ENV && i < names; i++) {
		const struct kb_operand *op = &stmt->ops.items[i];

		if (!op->text[0] || strpbrk(op->text, "=/ \t\n"))
			kb_diag_error(
				ck->diags, op->pos, "'%s' cannot be a variable's name", op->text);
		else if (stmt->verb == KB_VERB_SET && strpbrk(op->text, "*?"))
			kb_diag_error(ck->diags, op->pos, "set needs one name, not a pattern");
	}
	if (stmt->kind == KB_STMT_ENV && stmt->verb == KB_VERB_SET)
		kb_text_expand(&stmt->ops.items[1], ck->opts, &ck->scratch, ck->diags);
}

static void check_limit(struct checker *ck, const struct kb_stmt *stmt)
{
	struct kb_limit limit, other;

	if (stmt->kind != KB_STMT_LIMIT || kb_limit_parse(stmt, &limit, ck->diags) < 0)
		return;
	for (size_t i = 0; stmt_at(ck, i) != stmt; i++) {
		const struct kb_stmt *before = stmt_at(ck, i);

		if (before->kind == KB_STMT_LIMIT && before->source == stmt->source &&
			kb_limit_parse(before, &other, NULL) == 0 && other.kind == limit.kind) {
			kb_diag_error(ck->diags, stmt->pos, "a second limit on the same thing");
			kb_diag_also(ck->diags, before->pos);
		}
	}
}

static void check_net(struct checker *ck, const struct kb_stmt *stmt)
{
	struct kb_net_rule rules[KB_NET_PER_TARGET];

	for (size_t i = 0; stmt->kind == KB_STMT_NET && i < stmt->ops.len; i++)
		kb_net_parse(stmt, &stmt->ops.items[i], rules, &ck->scratch, ck->diags);
}

static void check_secret(struct checker *ck, const struct kb_stmt *stmt)
{
	if (stmt->kind == KB_STMT_SECRET)
		kb_secret_check(ck->policy, stmt, &ck->scratch, ck->diags);
}

/* ---- System calls ---------------------------------------------------------------------------- */

static bool conds_equal(const struct kb_call_rule *a, const struct kb_call_rule *b)
{
	return kb_conds_within(&a->conds, &b->conds) && kb_conds_within(&b->conds, &a->conds);
}

static void conflict(struct checker *ck, const struct kb_call *call, const struct kb_call_rule *a,
	const struct kb_call_rule *b, const char *what)
{
	kb_diag_error(ck->diags, a->stmt->pos, "%s: %s", call->name, what);
	kb_diag_also(ck->diags, b->stmt->pos);
	if (a->stmt->level == b->stmt->level)
		kb_diag_help(ck->diags, "make one of them more specific, or remove it");
	else
		kb_diag_help(ck->diags, "a policy widens what it extends only with `override` and "
					"a reason");
}

/* a decides before b. */
static bool check_pair(struct checker *ck, const struct kb_call *call, const struct kb_call_rule *a,
	const struct kb_call_rule *b)
{
	bool same_file_level = a->stmt->level == b->stmt->level;
	bool closest = a->spec == b->spec && a->spec != KB_SPEC_GROUP;

	if (a->stmt == b->stmt || !kb_conds_overlap(&a->conds, &b->conds))
		return true;
	if (a->action == KB_ALLOW && b->action != KB_ALLOW && a->stmt->level < b->stmt->level &&
		!a->stmt->override_) {
		conflict(ck, call, a, b, "allows what a policy it extends does not");
		return false;
	}
	if (!same_file_level || !closest)
		return true;
	if (a->action != KB_ALLOW && b->action == KB_ALLOW &&
		kb_conds_within(&b->conds, &a->conds)) {
		conflict(ck, call, b, a, "this deny and the allow cover the same calls");
		return false;
	}
	if (a->action == KB_DENY && b->action == KB_DENY && a->errnum != b->errnum) {
		conflict(ck, call, a, b, "two rules with different errors for the same call");
		return false;
	}
	if (a->action == b->action && a->stmt->record != b->stmt->record && conds_equal(a, b)) {
		conflict(
			ck, call, a, b, "two rules with different record levels for the same call");
		return false;
	}
	return true;
}

static void check_mandatory(
	struct checker *ck, const struct kb_call *call, const struct kb_call_rule *rule)
{
	static const char *const names[] = {"restart_syscall", "rt_sigreturn", "exit"};

	if (rule->action == KB_ALLOW || rule->spec < KB_SPEC_CALL)
		return;
	for (size_t i = 0; i < KB_ARRAY_LEN(names); i++)
		if (!strcmp(names[i], call->name))
			kb_diag_error(ck->diags, rule->stmt->pos,
				"%s cannot be denied: no process could return from a signal or end",
				call->name);
}

static int check_calls(struct checker *ck, enum kb_arch_index arch, struct kb_diags *quiet)
{
	struct kb_call_rules *rules;

	if (kb_calls_gather(ck->policy, arch, &ck->scratch, &rules, quiet) < 0)
		return -1;
	for (size_t c = 0; c < kb_calls_len; c++) {
		bool ok = true;

		/* On the second architecture only calls that the first has not. */
		if (arch != KB_X86_64 && kb_calls[c].nr[KB_X86_64] >= 0)
			continue;
		for (size_t i = 0; i < rules[c].len; i++) {
			check_mandatory(ck, &kb_calls[c], &rules[c].items[i]);
			for (size_t j = i + 1; ok && j < rules[c].len; j++)
				ok = check_pair(
					ck, &kb_calls[c], &rules[c].items[i], &rules[c].items[j]);
		}
	}
	return 0;
}

/* ---- All ------------------------------------------------------------------------------------- */

int kb_check(struct kb_policy *policy, const struct kb_policy_options *opts, struct kb_diags *diags,
	struct kb_err *err)
{
	static void (*const each[])(struct checker *, const struct kb_stmt *) = {
		check_default_action, check_override, check_tightens, check_observe,
		check_groups_version, check_env, check_limit, check_net, check_secret};
	struct checker ck = {.policy = policy, .opts = opts, .diags = diags};
	struct kb_fs_items items = {0};
	int r = 0;

	kb_arena_init(&ck.scratch, KB_POLICY_MEMORY);
	check_defaults(&ck, KB_STMT_DEFAULT, true);
	check_defaults(&ck, KB_STMT_FS, false);
	check_defaults(&ck, KB_STMT_NET, false);
	for (size_t i = 0; i < policy->stmts.len; i++)
		for (size_t j = 0; j < KB_ARRAY_LEN(each); j++)
			each[j](&ck, stmt_at(&ck, i));
	if (check_calls(&ck, KB_X86_64, diags) < 0 || check_calls(&ck, KB_AARCH64, NULL) < 0 ||
		kb_fs_collect(policy, opts, &ck.scratch, &items, diags) < 0)
		r = kb_err_nomem(err);
	else
		kb_fs_check(&items, opts, diags);
	kb_arena_finish(&ck.scratch);
	return r;
}
