/* Statements to a bundle: the rule table, the system call tables, environment, limits and network.
 * Paths are lower_fs.c's. */
#include "policy/lower.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

/* ---- Rules ----------------------------------------------------------------------------------- */

/* FNV-1a: tells two rules on one line, and two versions of a line, apart. Not a secret. */
static uint32_t text_hash(const char *text)
{
	uint32_t hash = 2166136261u;

	for (; *text; text++)
		hash = (hash ^ (uint8_t)*text) * 16777619u;
	return hash;
}

/* Bundles hold UTF-8 only: a file's name may be anything, and a text may have been cut. */
static const char *dup_text(struct kb_lower *lo, const char *text)
{
	size_t len = text ? strlen(text) : 0;
	char *safe KB_FREE = NULL;

	if (!text || kb_utf8_valid(text, len))
		return text ? kb_arena_strndup(&lo->bundle->arena, text, len) : NULL;
	safe = kb_escape_dup(text, len);
	return safe ? kb_arena_strndup(&lo->bundle->arena, safe, strlen(safe)) : NULL;
}

static int lower_rules(struct kb_lower *lo)
{
	struct kb_bundle *bundle = lo->bundle;

	for (size_t i = 0; i < lo->policy->stmts.len; i++) {
		struct kb_stmt *stmt = lo->policy->stmts.items[i];
		struct kb_rule *rule = KB_ARENA_PUSH(&bundle->arena, &bundle->rules);

		if (!rule)
			return -1;
		stmt->rule = (uint32_t)i;
		*rule = (struct kb_rule){
			.id = kb_arena_printf(&bundle->arena, "%s:%u#%08x", stmt->source->base,
				stmt->pos.line, text_hash(stmt->text)),
			.file = dup_text(lo, stmt->source->name),
			.line = stmt->pos.line,
			.text = dup_text(lo, stmt->text),
			.reason = dup_text(lo, stmt->reason),
			.action = stmt->action,
			.errnum = stmt->errnum,
			.record = stmt->record,
		};
		if (!rule->id || !rule->file || !rule->text)
			return -1;
	}
	for (size_t i = 0; i < lo->policy->sources.len; i++) {
		const char **file = KB_ARENA_PUSH(&bundle->arena, &bundle->files);

		if (!file || !(*file = dup_text(lo, lo->policy->sources.items[i]->name)))
			return -1;
		bundle->tightened |= lo->policy->sources.items[i]->tightens;
	}
	return 0;
}

/* ---- System calls ---------------------------------------------------------------------------- */

static bool mandatory(const char *name)
{
	static const char *const names[] = {"restart_syscall", "rt_sigreturn", "exit"};

	for (size_t i = 0; i < KB_ARRAY_LEN(names); i++)
		if (!strcmp(names[i], name))
			return true;
	return false;
}

static int copy_conds(struct kb_lower *lo, const struct kb_conds *from, struct kb_conds *to)
{
	for (size_t i = 0; i < from->len; i++) {
		struct kb_cond *cond = KB_ARENA_PUSH(&lo->bundle->arena, to);

		if (!cond)
			return -1;
		*cond = from->items[i];
		cond->in = (struct kb_intervals){0};
		for (size_t j = 0; j < from->items[i].in.len; j++) {
			struct kb_interval *in = KB_ARENA_PUSH(&lo->bundle->arena, &cond->in);

			if (!in)
				return -1;
			*in = from->items[i].in.items[j];
		}
	}
	return 0;
}

static int add_clause(struct kb_lower *lo, struct kb_clauses *clauses, struct kb_clause clause,
	const struct kb_conds *conds)
{
	struct kb_clause *slot = KB_ARENA_PUSH(&lo->bundle->arena, clauses);

	if (!slot)
		return -1;
	*slot = clause;
	slot->conds = (struct kb_conds){0};
	return conds ? copy_conds(lo, conds, &slot->conds) : 0;
}

static int lower_call(struct kb_lower *lo, struct kb_table *table, int nr, const char *name,
	const struct kb_call_rules *rules)
{
	struct kb_table_call *call;

	if (!rules->len && !mandatory(name))
		return 0;
	call = KB_ARENA_PUSH(&lo->bundle->arena, &table->calls);
	if (!call)
		return -1;
	call->nr = nr;
	for (size_t i = 0; i < rules->len; i++) {
		const struct kb_call_rule *rule = &rules->items[i];
		struct kb_clause clause = {.action = rule->action,
			.errnum = rule->errnum,
			.record = rule->stmt->record,
			.rule = rule->stmt->rule};

		if (mandatory(name) && rule->action != KB_ALLOW)
			continue;
		if (mandatory(name))
			clause.record = KB_RECORD_NONE;
		if (add_clause(lo, &call->clauses, clause, &rule->conds) < 0)
			return -1;
		if (!rule->conds.len)
			return 0;
	}
	if (mandatory(name))
		return add_clause(lo, &call->clauses,
			(struct kb_clause){.action = KB_ALLOW, .rule = KB_RULE_NONE}, NULL);
	return add_clause(lo, &call->clauses, table->other, NULL);
}

static int compare_nr(const void *a, const void *b)
{
	return ((const struct kb_table_call *)a)->nr - ((const struct kb_table_call *)b)->nr;
}

static int lower_table(struct kb_lower *lo, enum kb_arch_index arch, const struct kb_stmt *other)
{
	struct kb_bundle *bundle = lo->bundle;
	struct kb_table *table = KB_ARENA_PUSH(&bundle->arena, &bundle->tables);
	struct kb_call_rules *rules;

	if (!table || kb_calls_gather(lo->policy, arch, &lo->scratch, &rules, NULL) < 0)
		return -1;
	table->arch = kb_arch_audit(arch);
	table->other = (struct kb_clause){.action = other->action,
		.errnum = other->errnum,
		.record = other->record,
		.rule = other->rule};
	for (size_t c = 0; c < kb_calls_len; c++)
		if (kb_calls[c].nr[arch] >= 0 && lower_call(lo, table, kb_calls[c].nr[arch],
							 kb_calls[c].name, &rules[c]) < 0)
			return -1;
	qsort(table->calls.items, table->calls.len, sizeof(*table->calls.items), compare_nr);
	return 0;
}

static int lower_calls(struct kb_lower *lo)
{
	const struct kb_stmt *other = NULL;

	for (size_t i = 0; i < lo->policy->stmts.len; i++) {
		const struct kb_stmt *stmt = lo->policy->stmts.items[i];

		if (stmt->kind == KB_STMT_DEFAULT && (!other || stmt->level < other->level))
			other = stmt;
	}
	for (int arch = 0; arch < KB_ARCHES; arch++)
		if (lower_table(lo, arch, other) < 0)
			return -1;
	return 0;
}

/* ---- Environment ----------------------------------------------------------------------------- */

static bool name_matches(const char *pattern, const char *name, size_t len)
{
	char text[256], glob[260];

	if (!strpbrk(pattern, "*?"))
		return strlen(pattern) == len && !strncmp(pattern, name, len);
	if (len >= sizeof(text) || strlen(pattern) >= sizeof(glob) - 1)
		return false;
	/* A variable's name is matched like one component of a path. */
	text[0] = glob[0] = '/';
	memcpy(text + 1, name, len);
	text[len + 1] = '\0';
	memcpy(glob + 1, pattern, strlen(pattern) + 1);
	return kb_path_match(glob, text);
}

/* The rule that decides on a variable: exact names beat patterns, then drop beats pass and set,
 * then the nearer file wins. */
static const struct kb_stmt *env_rule(const struct kb_policy *policy, const char *name, size_t len)
{
	const struct kb_stmt *best = NULL;
	int best_score = -1;

	for (size_t i = 0; i < policy->stmts.len; i++) {
		const struct kb_stmt *stmt = policy->stmts.items[i];
		size_t names = stmt->verb == KB_VERB_SET ? 1 : stmt->ops.len;

		for (size_t j = 0; stmt->kind == KB_STMT_ENV && j < names; j++) {
			const char *pattern = stmt->ops.items[j].text;
			int score = (strpbrk(pattern, "*?") ? 0 : 200) +
				    (stmt->override_ ? 150 : 0) +
				    (stmt->verb == KB_VERB_DROP ? 100 : 0) + 50 -
				    (int)(stmt->level * 2) + (stmt->verb == KB_VERB_SET);

			if (score > best_score && name_matches(pattern, name, len)) {
				best = stmt;
				best_score = score;
			}
		}
	}
	return best;
}

static int push_env(struct kb_lower *lo, const char *entry)
{
	const char **slot = entry ? KB_ARENA_PUSH(&lo->bundle->arena, &lo->bundle->env) : NULL;

	if (!slot)
		return -1;
	*slot = entry;
	return 0;
}

/* The session's variable of this name holds a placeholder. */
static bool is_secret(const struct kb_policy *policy, const char *name, size_t len)
{
	for (size_t i = 0; i < policy->stmts.len; i++) {
		const struct kb_stmt *stmt = policy->stmts.items[i];

		if (stmt->kind == KB_STMT_SECRET && strlen(stmt->ops.items[0].text) == len &&
			!strncmp(stmt->ops.items[0].text, name, len))
			return true;
	}
	return false;
}

static int lower_env(struct kb_lower *lo)
{
	const char *const *env = lo->opts ? lo->opts->env : NULL;
	struct kb_arena *arena = &lo->bundle->arena;

	for (; env && *env; env++) {
		size_t len = strcspn(*env, "=");
		const struct kb_stmt *stmt = (*env)[len] ? env_rule(lo->policy, *env, len) : NULL;

		if (stmt && stmt->verb == KB_VERB_PASS && !is_secret(lo->policy, *env, len) &&
			push_env(lo, kb_arena_strndup(arena, *env, strlen(*env))) < 0)
			return -1;
	}
	for (size_t i = 0; i < lo->policy->stmts.len; i++) {
		const struct kb_stmt *stmt = lo->policy->stmts.items[i];
		const char *name, *value;

		if (stmt->kind != KB_STMT_ENV || stmt->verb != KB_VERB_SET)
			continue;
		name = stmt->ops.items[0].text;
		if (env_rule(lo->policy, name, strlen(name)) != stmt)
			continue;
		value = kb_text_expand(&stmt->ops.items[1], lo->opts, &lo->scratch, lo->diags);
		if (value && push_env(lo, kb_arena_printf(arena, "%s=%s", name, value)) < 0)
			return -1;
	}
	return 0;
}

/* ---- Limits ---------------------------------------------------------------------------------- */

static bool parse_cpu(const char *text, uint64_t *ret)
{
	char *end;
	double value = strtod(text, &end);

	if (*end || !(value >= 0.01) || value > 1024)
		return false;
	*ret = (uint64_t)(value * 1000 + 0.5);
	return true;
}

static bool parse_time(const char *text, uint64_t *ret)
{
	int64_t ns;

	if (!kb_parse_duration(text, &ns) || ns < 1000000)
		return false;
	*ret = (uint64_t)ns / 1000000;
	return true;
}

static bool parse_count(const char *text, uint64_t *ret)
{
	return kb_parse_u64(text, ret) && *ret > 0 && *ret <= UINT32_MAX;
}

static bool parse_bytes(const char *text, uint64_t *ret)
{
	return kb_parse_size(text, ret) && *ret >= 4096;
}

/* "5000", "5k", "5k/s" */
static bool parse_rate(const char *text, uint64_t *ret)
{
	size_t len = strlen(text);
	char digits[24];
	bool thousand;

	if (len > 2 && !strcmp(text + len - 2, "/s"))
		len -= 2;
	thousand = len > 1 && text[len - 1] == 'k';
	len -= thousand;
	if (len >= sizeof(digits))
		return false;
	memcpy(digits, text, len);
	digits[len] = '\0';
	if (!kb_parse_u64(digits, ret) || !*ret || *ret > 1000000000)
		return false;
	*ret *= thousand ? 1000 : 1;
	return true;
}

static const struct {
	const char *name;
	enum kb_limit_kind kind;
	bool (*parse)(const char *text, uint64_t *ret);
	const char *example;
} limit_kinds[] = {
	{"memory", KB_LIMIT_MEMORY, parse_bytes, "4G"},
	{"pids", KB_LIMIT_PIDS, parse_count, "512"},
	{"cpu", KB_LIMIT_CPU, parse_cpu, "2.0"},
	{"time", KB_LIMIT_TIME, parse_time, "4h"},
	{"open-files", KB_LIMIT_OPEN_FILES, parse_count, "4096"},
	{"disk", KB_LIMIT_DISK, parse_bytes, "2G"},
	{"egress", KB_LIMIT_EGRESS, parse_bytes, "2G"},
	{"notify-rate", KB_LIMIT_NOTIFY, parse_rate, "5000"},
	{"answer", KB_LIMIT_ASK, parse_time, "2m"},
};

int kb_limit_parse(const struct kb_stmt *stmt, struct kb_limit *ret, struct kb_diags *diags)
{
	const struct kb_operand *name = &stmt->ops.items[0], *value = &stmt->ops.items[1];
	const char *names[KB_ARRAY_LEN(limit_kinds)], *near;

	for (size_t i = 0; i < KB_ARRAY_LEN(limit_kinds); i++) {
		names[i] = limit_kinds[i].name;
		if (strcmp(name->text, names[i]) != 0)
			continue;
		*ret = (struct kb_limit){.kind = limit_kinds[i].kind,
			.rule = stmt->rule,
			.optional = stmt->optional};
		if (limit_kinds[i].parse(value->text, &ret->value))
			return 0;
		if (diags) {
			kb_diag_error(diags, value->pos, "'%s' is not a limit on %s", value->text,
				names[i]);
			kb_diag_hint(diags, "for example %s", limit_kinds[i].example);
		}
		return -1;
	}
	if (diags) {
		kb_diag_error(diags, name->pos, "'%s' cannot be limited", name->text);
		near = kb_diag_near(name->text, names, KB_ARRAY_LEN(names));
		if (near)
			kb_diag_hint(diags, "did you mean %s?", near);
	}
	return -1;
}

/* The nearest file's word; between equals the smaller value. */
static int lower_limits(struct kb_lower *lo)
{
	const struct kb_stmt *best[KB_LIMIT_MAX_] = {0};
	struct kb_limit value[KB_LIMIT_MAX_];

	for (size_t i = 0; i < lo->policy->stmts.len; i++) {
		const struct kb_stmt *stmt = lo->policy->stmts.items[i];
		struct kb_limit limit;

		if (stmt->kind != KB_STMT_LIMIT || kb_limit_parse(stmt, &limit, lo->diags) < 0)
			continue;
		if (stmt->source->tightens && best[limit.kind] &&
			limit.value >= value[limit.kind].value)
			continue;
		/* Tighter, but as binding as it was. */
		if (stmt->source->tightens && best[limit.kind])
			limit.optional = limit.optional && value[limit.kind].optional;
		if (!best[limit.kind] || stmt->level < best[limit.kind]->level ||
			(stmt->level == best[limit.kind]->level &&
				limit.value < value[limit.kind].value)) {
			best[limit.kind] = stmt;
			value[limit.kind] = limit;
		}
	}
	for (size_t k = 0; k < KB_LIMIT_MAX_; k++) {
		struct kb_limit *slot;

		if (!best[k])
			continue;
		slot = KB_ARENA_PUSH(&lo->bundle->arena, &lo->bundle->limits);
		if (!slot)
			return -1;
		*slot = value[k];
	}
	return 0;
}

/* ---- All ------------------------------------------------------------------------------------- */

int kb_policy_lower(const struct kb_policy *policy, const struct kb_policy_options *options,
	struct kb_buf *out, struct kb_diags *diags, struct kb_err *err)
{
	static int (*const steps[])(struct kb_lower *) = {lower_rules, lower_calls, kb_lower_fs,
		kb_lower_net, lower_env, lower_limits, kb_lower_secrets};
	struct kb_lower lo = {
		.policy = (struct kb_policy *)policy, .opts = options, .diags = diags};
	size_t errors = kb_diags_errors(diags);
	int r = 0;

	lo.bundle = kb_bundle_new();
	if (!lo.bundle)
		return kb_err_nomem(err);
	kb_arena_init(&lo.scratch, KB_POLICY_MEMORY);
	lo.bundle->name = dup_text(&lo, policy->name);
	for (size_t i = 0; r >= 0 && i < KB_ARRAY_LEN(steps); i++)
		if (steps[i](&lo) < 0)
			r = kb_err_nomem(err);
	if (r >= 0 && kb_diags_errors(diags) > errors)
		r = kb_diags_err(diags, KB_ERR_REFUSED, err);
	if (r >= 0)
		r = kb_bundle_encode(lo.bundle, out, err);
	kb_arena_finish(&lo.scratch);
	kb_bundle_destroy(lo.bundle);
	return r;
}
