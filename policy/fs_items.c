#include "policy/fs_items.h"

#include <stdio.h>
#include <string.h>

#include "supervisor/base/util.h"

bool kb_fs_virtual(const char *path)
{
	static const char *const trees[] = {"/proc", "/sys", "/dev"};

	for (size_t i = 0; i < KB_ARRAY_LEN(trees); i++)
		if (kb_path_beneath(trees[i], path))
			return true;
	return false;
}

/* ---- Collecting ------------------------------------------------------------------------------ */

struct collector {
	const struct kb_policy_options *opts;
	struct kb_arena *arena;
	struct kb_fs_items *out;
	struct kb_diags *diags;
};

/* A tree named with a trailing "**" is the tree. */
static void strip_tree(char *path)
{
	size_t len = strlen(path);

	if (len > 3 && !strcmp(path + len - 3, "/**"))
		path[len - 3] = '\0';
}

static bool glob_allowed(struct collector *co, const struct kb_stmt *stmt, enum kb_fs_role role,
	const struct kb_operand *op)
{
	if (kb_fs_takes(role) && (stmt->kind == KB_STMT_WORKSPACE || stmt->observe))
		return true;
	kb_diag_error(co->diags, op->pos, "no mechanism enforces this pattern without a race");
	if (kb_fs_takes(role))
		kb_diag_help(co->diags, "name the directory or file; in the workspace, `workspace "
					"hide` covers what "
					"matches when the session starts");
	else
		kb_diag_help(co->diags,
			"mounts and Landlock grant whole trees: name the directory (its subtree is "
			"meant) or each file");
	return false;
}

static int add(struct collector *co, struct kb_stmt *stmt, enum kb_fs_role role,
	const struct kb_operand *op)
{
	const char *path = kb_path_resolve(op, co->opts, co->arena, co->diags);
	struct kb_fs_item *item;

	if (!path)
		return 0;
	strip_tree((char *)path);
	if (kb_path_is_glob(path) && !glob_allowed(co, stmt, role, op))
		return 0;
	item = KB_ARENA_PUSH(co->arena, co->out);
	if (!item)
		return -1;
	*item = (struct kb_fs_item){.role = role,
		.path = path,
		.glob = kb_path_is_glob(path),
		.relative = !strchr("/~$", op->text[0]),
		.stmt = stmt,
		.pos = op->pos};
	return 0;
}

/* -1: not a statement about paths. */
static int role_of(const struct kb_stmt *stmt)
{
	static const struct {
		enum kb_stmt_kind kind;
		enum kb_verb verb;
		enum kb_fs_role role;
	} roles[] = {
		{KB_STMT_FS, KB_VERB_READ, KB_FS_ROLE_READ},
		{KB_STMT_FS, KB_VERB_WRITE, KB_FS_ROLE_WRITE},
		{KB_STMT_FS, KB_VERB_DENY, KB_FS_ROLE_DENY},
		{KB_STMT_FS, KB_VERB_PRIVATE, KB_FS_ROLE_PRIVATE},
		{KB_STMT_FS, KB_VERB_KEEP, KB_FS_ROLE_KEEP},
		{KB_STMT_FS, KB_VERB_EXEC, KB_FS_ROLE_EXEC},
		{KB_STMT_EXEC, KB_VERB_ALLOW, KB_FS_ROLE_EXEC},
		{KB_STMT_EXEC, KB_VERB_DENY, KB_FS_ROLE_EXEC_DENY},
		{KB_STMT_WORKSPACE, KB_VERB_READ, KB_FS_ROLE_READ},
		{KB_STMT_WORKSPACE, KB_VERB_WRITE, KB_FS_ROLE_WRITE},
		{KB_STMT_WORKSPACE, KB_VERB_HIDE, KB_FS_ROLE_HIDE},
		{KB_STMT_WORKSPACE, KB_VERB_PROTECT, KB_FS_ROLE_PROTECT},
	};

	for (size_t i = 0; i < KB_ARRAY_LEN(roles); i++)
		if (roles[i].kind == stmt->kind && roles[i].verb == stmt->verb)
			return stmt->read_only ? KB_FS_ROLE_PRIVATE_READ : roles[i].role;
	return -1;
}

static enum kb_fs_role except_role(enum kb_fs_role role)
{
	switch (role) {
	case KB_FS_ROLE_WRITE:
		return KB_FS_ROLE_PROTECT;
	case KB_FS_ROLE_EXEC:
		return KB_FS_ROLE_EXEC_DENY;
	default:
		return KB_FS_ROLE_DENY;
	}
}

int kb_fs_collect(struct kb_policy *policy, const struct kb_policy_options *opts,
	struct kb_arena *arena, struct kb_fs_items *ret, struct kb_diags *diags)
{
	struct collector co = {.opts = opts, .arena = arena, .out = ret, .diags = diags};

	for (size_t i = 0; i < policy->stmts.len; i++) {
		struct kb_stmt *stmt = policy->stmts.items[i];
		int role = role_of(stmt);

		for (size_t j = 0; role >= 0 && j < stmt->ops.len; j++)
			if (add(&co, stmt, role, &stmt->ops.items[j]) < 0)
				return -1;
		for (size_t j = 0; role >= 0 && j < stmt->except.len; j++)
			if (add(&co, stmt, except_role(role), &stmt->except.items[j]) < 0)
				return -1;
	}
	return 0;
}

/* ---- Checking -------------------------------------------------------------------------------- */

static bool is_private(enum kb_fs_role role)
{
	return role == KB_FS_ROLE_PRIVATE || role == KB_FS_ROLE_PRIVATE_READ ||
	       role == KB_FS_ROLE_KEEP;
}

static bool is_machine(enum kb_fs_role role)
{
	return role == KB_FS_ROLE_READ || role == KB_FS_ROLE_WRITE;
}

/* What two roles for the very same path contradict each other about, or NULL. */
static const char *contradiction(enum kb_fs_role a, enum kb_fs_role b)
{
	if (is_private(a) && is_machine(b))
		return "both the machine's and the session's own";
	if (a == KB_FS_ROLE_DENY && !kb_fs_takes(b))
		return "this deny and the allow cover the same path";
	if (a == KB_FS_ROLE_HIDE && (is_machine(b) || is_private(b)))
		return "hidden and given";
	if (a == KB_FS_ROLE_EXEC_DENY && b == KB_FS_ROLE_EXEC)
		return "this deny and the allow cover the same path";
	if (a == KB_FS_ROLE_PROTECT && b == KB_FS_ROLE_WRITE)
		return "protected and writable";
	return NULL;
}

static void report_same(struct kb_diags *diags, const struct kb_fs_item *a,
	const struct kb_fs_item *b, const char *what)
{
	kb_diag_error(diags, a->pos, "%s: %s", a->path, what);
	kb_diag_also(diags, b->pos);
	if (a->stmt->level == b->stmt->level)
		kb_diag_help(diags, "make one of them more specific, or remove it");
	else
		kb_diag_help(diags, "a policy widens what it extends only with `override` and a "
				    "reason");
}

static void check_pair(
	struct kb_diags *diags, const struct kb_fs_item *taker, const struct kb_fs_item *giver)
{
	const char *what =
		strcmp(taker->path, giver->path) ? NULL : contradiction(taker->role, giver->role);
	bool inside = kb_fs_takes(taker->role) && giver->stmt->level < taker->stmt->level &&
		      contradiction(taker->role, giver->role) &&
		      kb_path_match(taker->path, giver->path);

	/* A nearer file may take away what its parents give, and give back with `override`. */
	if (what && taker->stmt->level < giver->stmt->level && kb_fs_takes(taker->role))
		return;
	if (giver->stmt->override_ && giver->stmt->level < taker->stmt->level)
		return;
	if (what)
		report_same(diags, giver->stmt->level < taker->stmt->level ? giver : taker,
			giver->stmt->level < taker->stmt->level ? taker : giver, what);
	else if (inside &&
		 (taker->glob || (giver->stmt->kind != KB_STMT_WORKSPACE && !giver->relative)))
		report_same(diags, giver, taker, "gives what a policy it extends denies");
}

/* The workspace must not be, or contain, a place that the session has its own of: that would bring
 * the home directory or the system inside. */
static bool check_workspace(const struct kb_fs_items *items, const struct kb_fs_item *ws,
	const struct kb_policy_options *opts, struct kb_diags *diags)
{
	if (kb_path_beneath(ws->path, kb_option_home(opts))) {
		kb_diag_error(diags, ws->pos, "the workspace %s %s the home directory", ws->path,
			strcmp(ws->path, kb_option_home(opts)) ? "contains" : "is");
		kb_diag_help(diags, "start in a project directory beneath it");
		return false;
	}
	for (size_t i = 0; i < items->len; i++) {
		const struct kb_fs_item *other = &items->items[i];

		if (other->relative || !kb_path_beneath(ws->path, other->path) ||
			!(is_private(other->role) ||
				(other->stmt->source->preset && is_machine(other->role))))
			continue;
		kb_diag_error(diags, ws->pos, "the workspace %s would bring %s inside", ws->path,
			other->path);
		kb_diag_also(diags, other->pos);
		kb_diag_help(diags, "start in a project directory");
		return false;
	}
	return true;
}

void kb_fs_check(const struct kb_fs_items *items, const struct kb_policy_options *opts,
	struct kb_diags *diags)
{
	for (size_t i = 0; i < items->len; i++) {
		const struct kb_fs_item *item = &items->items[i];

		if (item->stmt->kind == KB_STMT_WORKSPACE && is_machine(item->role) &&
			!strcmp(item->path, kb_option_workspace(opts)) &&
			!check_workspace(items, item, opts, diags))
			return;
	}
	for (size_t i = 0; i < items->len; i++)
		for (size_t j = 0; j < items->len; j++)
			if (i != j)
				check_pair(diags, &items->items[i], &items->items[j]);
}
