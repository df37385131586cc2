/* `@groups` of hosts in net rules, put in place of their names.
 *
 * A group is the policy's own (`hosts @NAME "host:port" …`, the nearest file's word), or one of the
 * kinds below, whose hosts are what this user's package managers are configured for: the caller
 * finds them. Without a caller that looks, each kind stands for one name that never resolves, so
 * that a policy can be checked and tested anywhere with the same result. */
#include <string.h>

#include "policy/ast.h"
#include "supervisor/base/util.h"

static const struct {
	const char *name, *placeholder;
} kinds[] = {
	{"@npm-registry", "npm-registry.invalid:443"},
	{"@pip-index", "pip-index.invalid:443"},
	{"@cargo-registry", "cargo-registry.invalid:443"},
	{"@apt-mirror", "apt-mirror.invalid:80"},
	{"@go-proxy", "go-proxy.invalid:443"},
};

const char *kb_host_kind(size_t i)
{
	return i < KB_ARRAY_LEN(kinds) ? kinds[i].name : NULL;
}

struct group {
	const char *const *hosts; /* NULL-terminated; NULL: cannot be told */
	const char *why;	  /* then: the remedy; NULL: no such group */
};

static const struct kb_stmt *own_group(const struct kb_policy *policy, const char *name)
{
	const struct kb_stmt *best = NULL;

	for (size_t i = 0; i < policy->stmts.len; i++) {
		const struct kb_stmt *stmt = policy->stmts.items[i];

		if (stmt->kind == KB_STMT_HOSTS && !strcmp(stmt->ops.items[0].text, name) &&
			(!best || stmt->level < best->level))
			best = stmt;
	}
	return best;
}

static int own_hosts(struct kb_policy *policy, const struct kb_stmt *stmt, struct group *ret)
{
	const char **list = kb_arena_alloc(&policy->arena, stmt->ops.len * sizeof(*list));

	if (!list)
		return -1;
	for (size_t i = 1; i < stmt->ops.len; i++)
		list[i - 1] = stmt->ops.items[i].text;
	ret->hosts = list;
	return 0;
}

static int find_group(struct kb_policy *policy, const struct kb_policy_options *opts,
	const char *name, struct group *ret)
{
	const struct kb_stmt *own = own_group(policy, name);

	*ret = (struct group){0};
	if (own)
		return own_hosts(policy, own, ret);
	if (opts && opts->find_hosts) {
		ret->hosts = opts->find_hosts(opts->find_hosts_arg, name, &ret->why);
		return 0;
	}
	for (size_t i = 0; i < KB_ARRAY_LEN(kinds); i++) {
		const char **list;

		if (strcmp(kinds[i].name, name) != 0)
			continue;
		list = kb_arena_alloc(&policy->arena, 2 * sizeof(*list));
		if (!list)
			return -1;
		list[0] = kinds[i].placeholder;
		ret->hosts = list;
	}
	return 0;
}

static void report(const struct kb_stmt *stmt, const struct kb_operand *op,
	const struct group *group, struct kb_diags *diags)
{
	const char *names[KB_ARRAY_LEN(kinds)], *near;

	if (group->why) {
		/* Nothing found gives nothing; but what was to be denied must be known. */
		if (stmt->optional && stmt->action == KB_ALLOW)
			return;
		kb_diag_error(diags, op->pos, "the hosts of %s cannot be told", op->text);
		kb_diag_help(diags, "%s", group->why);
		return;
	}
	for (size_t i = 0; i < KB_ARRAY_LEN(kinds); i++)
		names[i] = kinds[i].name;
	kb_diag_error(diags, op->pos, "there is no group of hosts %s", op->text);
	near = kb_diag_near(op->text, names, KB_ARRAY_LEN(kinds));
	if (near)
		kb_diag_hint(diags, "did you mean %s?", near);
	else
		kb_diag_help(diags, "say which they are: hosts @NAME \"host:port\"");
}

static int push(struct kb_policy *policy, struct kb_operands *out, const struct kb_operand *like,
	const char *text)
{
	struct kb_operand *op = KB_ARENA_PUSH(&policy->arena, out);

	if (!op)
		return -1;
	*op = *like;
	op->text = text;
	op->quoted = true;
	return 0;
}

static int expand(struct kb_policy *policy, const struct kb_policy_options *opts,
	struct kb_stmt *stmt, struct kb_diags *diags)
{
	struct kb_operands out = {0};
	bool any = false;

	for (size_t i = 0; i < stmt->ops.len; i++) {
		const struct kb_operand *op = &stmt->ops.items[i];
		struct group group;

		if (op->text[0] != '@') {
			if (push(policy, &out, op, op->text) < 0)
				return -1;
			continue;
		}
		any = true;
		if (find_group(policy, opts, op->text, &group) < 0)
			return -1;
		if (!group.hosts)
			report(stmt, op, &group, diags);
		for (const char *const *host = group.hosts; host && *host; host++)
			if (push(policy, &out, op, *host) < 0)
				return -1;
	}
	if (any)
		stmt->ops = out;
	return 0;
}

/* A question about a group is one about its first host. */
static int expand_tests(struct kb_policy *policy, const struct kb_policy_options *opts)
{
	for (size_t i = 0; i < policy->tests.len; i++) {
		const struct kb_test *test = &policy->tests.items[i];

		for (size_t j = 0; j < test->expects.len; j++)
			for (size_t t = test->expects.items[j].first;
				t < test->expects.items[j].last; t++) {
				struct kb_token *token = &test->tokens->items[t];
				struct group group;

				if (token->kind != KB_TOK_WORD || token->text[0] != '@')
					continue;
				if (find_group(policy, opts, token->text, &group) < 0)
					return -1;
				if (!group.hosts || !group.hosts[0])
					continue;
				token->kind = KB_TOK_STRING;
				token->text = group.hosts[0];
			}
	}
	return 0;
}

int kb_hosts_apply(
	struct kb_policy *policy, const struct kb_policy_options *opts, struct kb_diags *diags)
{
	for (size_t i = 0; i < policy->stmts.len; i++)
		if (policy->stmts.items[i]->kind == KB_STMT_NET &&
			expand(policy, opts, policy->stmts.items[i], diags) < 0)
			return -1;
	return expand_tests(policy, opts);
}
