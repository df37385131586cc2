/* From a name to statements: files are found, lexed, parsed; `extends` is followed; the statements
 * of all files end up in one list. A file's level is its longest distance from the policy that was
 * asked for: the lower, the more its word counts. */
#include <stdlib.h>
#include <string.h>

#include "policy/ast.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

/* Every loaded unit, by the name it was asked for. */
struct loaded {
	const char *key;
	struct kb_unit unit;
	bool followed;
	bool open; /* its parents are being followed: meeting it again is a cycle */
};

struct loader {
	struct kb_policy *policy;
	const struct kb_policy_options *opts;
	struct kb_diags *diags;
	struct loaded units[KB_FILES_MAX];
	size_t len;
};

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static struct kb_source *add_source(
	struct kb_policy *policy, const char *text, size_t len, const char *file_name, bool preset)
{
	struct kb_arena *arena = &policy->arena;
	struct kb_source *source = kb_arena_alloc(arena, sizeof(*source));
	struct kb_source **slot = source ? KB_ARENA_PUSH(arena, &policy->sources) : NULL;

	if (!slot)
		return NULL;
	source->name = kb_arena_strndup(arena, file_name, strlen(file_name));
	source->base = preset ? kb_arena_printf(arena, "%s.policy", base_name(file_name + 7))
			      : base_name(source->name);
	source->text = kb_arena_strndup(arena, text, len);
	source->len = len;
	source->preset = preset;
	*slot = source;
	return source->name && source->base && source->text ? source : NULL;
}

int kb_unit_load(struct kb_policy *policy, const char *text, size_t len, const char *file_name,
	bool preset, struct kb_unit *ret, struct kb_diags *diags, struct kb_err *err)
{
	struct kb_tokens *tokens = kb_arena_alloc(&policy->arena, sizeof(*tokens));
	struct kb_source *source;

	if (len > KB_SOURCE_MAX)
		return kb_err_set(
			err, KB_ERR_LIMIT, "%s is larger than %u bytes", file_name, KB_SOURCE_MAX);
	if (policy->sources.len >= KB_FILES_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "more than %d policy files", KB_FILES_MAX);
	source = add_source(policy, text, len, file_name, preset);
	if (!source || !tokens || kb_lex(source, &policy->arena, tokens, diags) < 0 ||
		kb_parse(source, tokens, &policy->arena, ret, diags) < 0)
		return kb_err_nomem(err);
	return 0;
}

/* ---- Finding --------------------------------------------------------------------------------- */

static int load_file(struct loader *ld, const char *path, struct kb_unit *ret, struct kb_err *err)
{
	struct kb_buf buf KB_BUF_CLEANUP;
	int r;

	kb_buf_init(&buf, KB_SOURCE_MAX + 1);
	r = kb_file_read(path, &buf, err);
	return r < 0 ? r
		     : kb_unit_load(ld->policy, (const char *)kb_buf_data(&buf), kb_buf_len(&buf),
			       path, false, ret, ld->diags, err);
}

static int load_preset(struct loader *ld, const char *name, struct kb_unit *ret, struct kb_err *err)
{
	size_t len;
	const char *text = kb_preset_text(name, &len);
	char *label KB_FREE = NULL;

	if (!text)
		return 1;
	label = kb_asprintf("preset:%s", name);
	return label ? kb_unit_load(ld->policy, text, len, label, true, ret, ld->diags, err)
		     : kb_err_nomem(err);
}

/* 1: there is no policy of that name. */
static int load_named(struct loader *ld, const char *name, struct kb_unit *ret, struct kb_err *err)
{
	const char *const *dir = ld->opts ? ld->opts->search : NULL;

	for (; dir && *dir; dir++) {
		char *path KB_FREE = kb_asprintf("%s/%s.policy", *dir, name);

		if (!path)
			return kb_err_nomem(err);
		if (access(path, F_OK) == 0)
			return load_file(ld, path, ret, err);
	}
	return load_preset(ld, name, ret, err);
}

/* ---- Following extends ----------------------------------------------------------------------- */

static int follow(struct loader *ld, size_t index, unsigned level, struct kb_err *err);

static void unknown_parent(struct loader *ld, const struct kb_operand *op)
{
	size_t n = 0;
	const char *near;

	while (kb_preset_names()[n])
		n++;
	kb_diag_error(ld->diags, op->pos, "there is no policy named '%s'", op->text);
	near = kb_diag_near(op->text, kb_preset_names(), n);
	if (near)
		kb_diag_hint(ld->diags, "did you mean %s?", near);
}

static int follow_parent(
	struct loader *ld, const struct kb_operand *op, unsigned level, struct kb_err *err)
{
	size_t i = 0;

	if (!kb_name_valid(op->text)) {
		unknown_parent(ld, op);
		return 0;
	}
	while (i < ld->len && strcmp(ld->units[i].key, op->text) != 0)
		i++;
	if (i < ld->len && ld->units[i].open) {
		kb_diag_error(ld->diags, op->pos, "'%s' extends itself", op->text);
		return 0;
	}
	if (i == ld->len) {
		int r;

		if (ld->len == KB_FILES_MAX)
			return kb_err_set(
				err, KB_ERR_LIMIT, "more than %d policy files", KB_FILES_MAX);
		r = load_named(ld, op->text, &ld->units[i].unit, err);
		if (r > 0)
			unknown_parent(ld, op);
		if (r)
			return r < 0 ? r : 0;
		ld->units[i].key = op->text;
		ld->len++;
	}
	return follow(ld, i, level, err);
}

static int follow(struct loader *ld, size_t index, unsigned level, struct kb_err *err)
{
	struct loaded *loaded = &ld->units[index];
	struct kb_unit *unit = &loaded->unit;
	int r = 0;

	if (level > KB_EXTENDS_DEPTH)
		return kb_err_set(err, KB_ERR_LIMIT,
			"policies extend each other over more than %d levels", KB_EXTENDS_DEPTH);
	if (loaded->followed && level <= unit->source->level)
		return 0;
	loaded->followed = true;
	unit->source->level = level;
	loaded->open = true;
	for (size_t i = 0; r >= 0 && i < unit->extends.len; i++)
		r = follow_parent(ld, &unit->extends.items[i], level + 1, err);
	loaded->open = false;
	return r;
}

static int flatten(struct loader *ld, struct kb_err *err)
{
	struct kb_policy *policy = ld->policy;

	for (size_t i = 0; i < ld->len; i++) {
		const struct kb_stmts *stmts = &ld->units[i].unit.stmts;

		for (size_t j = 0; j < stmts->len; j++) {
			struct kb_stmt **slot = KB_ARENA_PUSH(&policy->arena, &policy->stmts);

			if (!slot)
				return kb_err_nomem(err);
			*slot = stmts->items[j];
			(*slot)->level = (*slot)->source->level;
		}
	}
	policy->agents = ld->units[0].unit.agents;
	for (size_t i = 0; i < ld->len; i++)
		for (size_t j = 0; j < ld->units[i].unit.tests.len; j++) {
			struct kb_test *slot = KB_ARENA_PUSH(&policy->arena, &policy->tests);

			if (!slot)
				return kb_err_nomem(err);
			*slot = ld->units[i].unit.tests.items[j];
		}
	if (policy->stmts.len > KB_STMTS_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "more than %d rules in all", KB_STMTS_MAX);
	policy->file_names =
		kb_arena_alloc(&policy->arena, (policy->sources.len + 1) * sizeof(char *));
	if (!policy->file_names)
		return kb_err_nomem(err);
	for (size_t i = 0; i < policy->sources.len; i++)
		policy->file_names[i] = policy->sources.items[i]->name;
	return 0;
}

/* A path as a string of the language. */
static int put_quoted(struct kb_buf *buf, const char *path, struct kb_err *err)
{
	int r = kb_buf_puts(buf, " \"", err);

	for (; *path && r >= 0; path++) {
		bool plain = (unsigned char)*path >= ' ' && (unsigned char)*path < 0x7f &&
			     *path != '"' && *path != '\\';

		r = plain ? kb_buf_append(buf, path, 1, err)
			  : kb_buf_printf(buf, err, "\\x%02x", (unsigned char)*path);
	}
	return r < 0 ? r : kb_buf_puts(buf, "\"", err);
}

static int put_programs(
	struct kb_buf *buf, const char *intent, const char *const *path, struct kb_err *err)
{
	int r = kb_buf_puts(buf, intent, err);

	for (; *path && r >= 0; path++)
		r = put_quoted(buf, *path, err);
	return r < 0 ? r : kb_buf_puts(buf, "\n", err);
}

/* What the command is made of, as a file of its own beside the policy that was asked for: its lines
 * can be named, and what that policy or the workspace's takes away stays away. */
static int load_programs(struct loader *ld, struct kb_err *err)
{
	struct kb_unit *unit = &ld->units[ld->len].unit;
	struct kb_buf text KB_BUF_CLEANUP;
	int r;

	if (ld->len == KB_FILES_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "more than %d policy files", KB_FILES_MAX);
	kb_buf_init(&text, KB_SOURCE_MAX);
	r = kb_buf_puts(&text, "policy programs version 1 {\n", err);
	if (r >= 0)
		r = put_programs(&text, "fs read", ld->opts->programs, err);
	if (r >= 0)
		r = put_programs(&text, "exec allow", ld->opts->programs, err);
	if (r >= 0)
		r = kb_buf_puts(&text, "}\n", err);
	if (r >= 0)
		r = kb_unit_load(ld->policy, (const char *)kb_buf_data(&text), kb_buf_len(&text),
			KB_PROGRAMS_FILE, false, unit, ld->diags, err);
	if (r < 0)
		return r;
	ld->units[ld->len++].key = unit->source->name;
	unit->source->level = ld->units[0].unit.source->level;
	return 0;
}

/* The workspace's own file comes nearest (level 0), and may only take away: check.c sees to it. */
static int load_tightening(struct loader *ld, struct kb_err *err)
{
	struct kb_unit *unit;
	int r;

	if (ld->len == KB_FILES_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "more than %d policy files", KB_FILES_MAX);
	unit = &ld->units[ld->len].unit;
	r = load_file(ld, ld->opts->tighten, unit, err);
	if (r < 0)
		return r;
	ld->units[ld->len++].key = ld->opts->tighten;
	unit->source->tightens = true;
	/* Nor does it take anything away from the record. */
	for (size_t i = 0; i < unit->stmts.len; i++)
		unit->stmts.items[i]->record = KB_RECORD_FULL;
	for (size_t i = 0; i < unit->extends.len; i++) {
		kb_diag_error(ld->diags, unit->extends.items[i].pos,
			"a policy from a workspace extends nothing");
		kb_diag_help(ld->diags, "it is laid over the policy that was asked for");
	}
	return 0;
}

static int finish(struct loader *ld, struct kb_err *err)
{
	struct kb_policy *policy = ld->policy;
	int r;

	policy->name = ld->units[0].unit.name;
	ld->units[0].key = policy->name;
	ld->len = 1;
	r = follow(ld, 0, ld->opts && ld->opts->tighten, err);
	if (r >= 0 && ld->opts && ld->opts->tighten)
		r = load_tightening(ld, err);
	if (r >= 0 && ld->opts && ld->opts->programs && ld->opts->programs[0])
		r = load_programs(ld, err);
	if (r >= 0)
		r = flatten(ld, err);
	if (r >= 0 && kb_vars_apply(policy, ld->diags) < 0)
		r = kb_err_nomem(err);
	if (r >= 0 && kb_hosts_apply(policy, ld->opts, ld->diags) < 0)
		r = kb_err_nomem(err);
	if (r >= 0 && !kb_diags_errors(ld->diags))
		r = kb_check(policy, ld->opts, ld->diags, err);
	return r >= 0 && kb_diags_errors(ld->diags) ? kb_diags_err(ld->diags, KB_ERR_INVALID, err)
						    : r;
}

KB_DEFINE_CLEANUP(cleanup_policy, struct kb_policy, kb_policy_destroy);

static struct kb_policy *new_policy(void)
{
	struct kb_policy *policy = calloc(1, sizeof(*policy));

	if (policy)
		kb_arena_init(&policy->arena, KB_POLICY_MEMORY);
	return policy;
}

int kb_policy_load(const char *name_or_file, const struct kb_policy_options *options,
	struct kb_policy **ret, struct kb_diags *diags, struct kb_err *err)
{
	struct kb_policy *policy KB_CLEANUP(cleanup_policy) = new_policy();
	struct loader *ld KB_FREE = calloc(1, sizeof(*ld));
	size_t len = strlen(name_or_file);
	bool file = strchr(name_or_file, '/') ||
		    (len > 7 && !strcmp(name_or_file + len - 7, ".policy"));
	int r;

	if (!policy || !ld)
		return kb_err_nomem(err);
	*ld = (struct loader){.policy = policy, .opts = options, .diags = diags};
	r = file ? load_file(ld, name_or_file, &ld->units[0].unit, err)
		 : load_named(ld, name_or_file, &ld->units[0].unit, err);
	if (r > 0) {
		kb_err_set(err, KB_ERR_NOTFOUND, "there is no policy named '%s'", name_or_file);
		return kb_err_hint(err, "see them with: kbsup policy list");
	}
	if (r >= 0)
		r = finish(ld, err);
	if (r >= 0)
		*ret = KB_STEAL(policy);
	return r;
}

int kb_policy_load_text(const char *text, size_t len, const char *file_name,
	const struct kb_policy_options *options, struct kb_policy **ret, struct kb_diags *diags,
	struct kb_err *err)
{
	struct kb_policy *policy KB_CLEANUP(cleanup_policy) = new_policy();
	struct loader *ld KB_FREE = calloc(1, sizeof(*ld));
	int r;

	if (!policy || !ld)
		return kb_err_nomem(err);
	*ld = (struct loader){.policy = policy, .opts = options, .diags = diags};
	r = kb_unit_load(policy, text, len, file_name, false, &ld->units[0].unit, diags, err);
	if (r >= 0)
		r = finish(ld, err);
	if (r >= 0)
		*ret = KB_STEAL(policy);
	return r;
}

void kb_policy_destroy(struct kb_policy *policy)
{
	if (!policy)
		return;
	kb_arena_finish(&policy->arena);
	free(policy);
}

const char *kb_policy_name(const struct kb_policy *policy)
{
	return policy->name;
}

size_t kb_policy_files(const struct kb_policy *policy, const char *const **ret)
{
	*ret = policy->file_names;
	return policy->sources.len;
}
