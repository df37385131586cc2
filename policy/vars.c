/* `let NAME "value"`: text variables of the policy, put in place of ${NAME} in paths, values,
 * hosts. The nearest file's value counts, so that a child can set what its parents use. Values may
 * use the variables of the session (${HOME} …), not each other. */
#include <string.h>

#include "policy/ast.h"
#include "supervisor/base/buf.h"
#include "supervisor/base/util.h"

#define VALUE_MAX 4096

static const char *value_of(const struct kb_policy *policy, const char *name, size_t len)
{
	const struct kb_stmt *best = NULL;

	for (size_t i = 0; i < policy->stmts.len; i++) {
		const struct kb_stmt *stmt = policy->stmts.items[i];

		if (stmt->kind == KB_STMT_LET && strlen(stmt->ops.items[0].text) == len &&
			!strncmp(stmt->ops.items[0].text, name, len) &&
			(!best || stmt->level < best->level))
			best = stmt;
	}
	return best ? best->ops.items[1].text : NULL;
}

static int substitute(struct kb_policy *policy, struct kb_operand *op, struct kb_diags *diags)
{
	struct kb_buf buf KB_BUF_CLEANUP;
	const char *at = op->text;
	bool ok = true, changed = false;

	kb_buf_init(&buf, VALUE_MAX);
	if (!strstr(at, "${"))
		return 0;
	while (*at && ok) {
		const char *end = at[0] == '$' && at[1] == '{' ? strchr(at, '}') : NULL;
		const char *value = end ? value_of(policy, at + 2, (size_t)(end - at) - 2) : NULL;

		ok = value ? kb_buf_puts(&buf, value, NULL) >= 0
			   : kb_buf_append(&buf, at, 1, NULL) >= 0;
		changed |= value != NULL;
		at = value ? end + 1 : at + 1;
	}
	if (!ok) {
		kb_diag_error(diags, op->pos, "longer than %d bytes with its variables", VALUE_MAX);
		return 0;
	}
	if (changed)
		op->text = kb_arena_strndup(
			&policy->arena, (const char *)kb_buf_data(&buf), kb_buf_len(&buf));
	return op->text ? 0 : -1;
}

static int apply(struct kb_policy *policy, struct kb_operands *list, struct kb_diags *diags)
{
	for (size_t i = 0; i < list->len; i++)
		if (substitute(policy, &list->items[i], diags) < 0)
			return -1;
	return 0;
}

int kb_vars_apply(struct kb_policy *policy, struct kb_diags *diags)
{
	for (size_t i = 0; i < policy->stmts.len; i++) {
		struct kb_stmt *stmt = policy->stmts.items[i];

		if (stmt->kind != KB_STMT_LET && (apply(policy, &stmt->ops, diags) < 0 ||
							 apply(policy, &stmt->except, diags) < 0))
			return -1;
	}
	return 0;
}
