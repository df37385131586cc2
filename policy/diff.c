/* `policy diff`: what one bundle allows and another does not, each with a witness. System calls are
 * compared exactly (solve.c); paths and addresses at every place that a rule of either names, on it
 * and below it, by the mechanisms' own answers. */
#include <arpa/inet.h>
#include <jansson.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/ask.h"
#include "policy/solve.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

#define WITNESS_MAX 512

struct differ {
	const struct kb_bundle *a, *b;
	uint32_t arch;
	struct kb_buf *out;
	struct kb_err *err;
	json_t *json; /* list, or NULL for text */
	struct kb_diff_result *result;
	int r;
};

static const char *const words[] = {"allowed", "denied", "killed", "asked"};

/* ---- Reporting ------------------------------------------------------------------------------- */

static void describe(
	char *to, size_t size, const struct kb_bundle *bundle, const struct kb_verdict *verdict)
{
	static const char *const records[] = {"", ", summary", ", recorded"};
	const char *error = verdict->action == KB_DENY ? kb_errno_name(verdict->errnum) : NULL;
	const char *id = verdict->rule < bundle->rules.len ? bundle->rules.items[verdict->rule].id
							   : "no line";

	snprintf(to, size, "%s%s%s%s by %.*s", words[verdict->action], error ? " " : "",
		error ? error : "", records[verdict->record], (int)strcspn(id, "#"), id);
}

static bool differs(const struct kb_verdict *a, const struct kb_verdict *b)
{
	return a->action != b->action || a->record != b->record ||
	       (a->action == KB_DENY && a->errnum != b->errnum);
}

static void report(struct differ *df, const char *witness, const struct kb_verdict *a,
	const struct kb_verdict *b)
{
	static const char *const kinds[] = {"newly allowed", "newly denied", "changed"};
	int kind = a->action != KB_ALLOW && b->action == KB_ALLOW   ? 0
		   : a->action == KB_ALLOW && b->action != KB_ALLOW ? 1
								    : 2;
	size_t *const counts[] = {
		&df->result->newly_allowed, &df->result->newly_denied, &df->result->changed};
	char *safe KB_FREE = kb_escape_dup(witness, strlen(witness));
	char was[256], now[256];

	if (!differs(a, b) || df->r < 0 || !safe)
		return;
	(*counts[kind])++;
	describe(was, sizeof(was), df->a, a);
	describe(now, sizeof(now), df->b, b);
	if (df->json)
		json_array_append_new(
			df->json, json_pack("{s:s, s:s, s:s, s:s}", "kind", kinds[kind], "witness",
					  safe, "before", was, "after", now));
	else
		df->r = kb_buf_printf(df->out, df->err,
			"%-14s %s\n               was %s\n"
			"               now %s\n",
			kinds[kind], safe, was, now);
}

/* ---- System calls ---------------------------------------------------------------------------- */

/* The value as a constant where its set has exactly it. */
static void put_value(char *to, size_t size, const struct kb_call_arg *arg, uint64_t value)
{
	const struct kb_constant_set *set = arg->set;

	for (size_t i = 0; set && i < set->len; i++)
		if (set->items[i].has[KB_X86_64] && set->items[i].value[KB_X86_64] == value &&
			(value || !set->flags)) {
			snprintf(to, size, "%s", set->items[i].name);
			return;
		}
	snprintf(to, size, value < 10 ? "%llu" : "%#llx", (unsigned long long)value);
}

static void put_call(char *to, size_t size, const char *name, const uint64_t *args)
{
	int index = kb_call_find(name);
	const struct kb_call *call = index < 0 ? NULL : &kb_calls[index];
	size_t len = (size_t)snprintf(to, size, "%s(", name);
	const char *sep = "";

	for (unsigned i = 0; call && i < call->n_args && len < size; i++) {
		char value[64];

		if (!args[i])
			continue;
		put_value(value, sizeof(value), &call->args[i], args[i]);
		len += (size_t)snprintf(
			to + len, size - len, "%s%s = %s", sep, call->args[i].name, value);
		sep = ", ";
	}
	if (len < size)
		snprintf(to + len, size - len, ")");
}

static struct kb_verdict clause_verdict(const struct kb_clause *clause)
{
	return (struct kb_verdict){.action = clause->action,
		.errnum = clause->errnum,
		.record = clause->record,
		.rule = clause->rule};
}

static void diff_call(struct differ *df, int nr, const char *name, const struct kb_clauses *a,
	const struct kb_clauses *b)
{
	for (size_t i = 0; i < a->len; i++)
		for (size_t j = 0; j < b->len; j++) {
			struct kb_verdict va = clause_verdict(&a->items[i]);
			struct kb_verdict vb = clause_verdict(&b->items[j]);
			uint64_t args[KB_CALL_ARGS] = {0};
			char witness[WITNESS_MAX];
			enum kb_solved solved;

			if (!differs(&va, &vb))
				continue;
			solved = kb_solve_pair(a, i, b, j, args);
			df->result->complete &= solved != KB_SOLVED_GAVE_UP;
			if (solved != KB_SOLVED_YES)
				continue;
			va = kb_bundle_decide(df->a, df->arch, nr, args);
			vb = kb_bundle_decide(df->b, df->arch, nr, args);
			put_call(witness, sizeof(witness), name, args);
			report(df, witness, &va, &vb);
		}
}

static void diff_calls(struct differ *df)
{
	const struct kb_table *ta = kb_bundle_table(df->a, df->arch);
	const struct kb_table *tb = kb_bundle_table(df->b, df->arch);
	struct kb_clause oa, ob;
	size_t i = 0, j = 0;

	if (!ta || !tb)
		return;
	oa = ta->other;
	ob = tb->other;
	while (i < ta->calls.len || j < tb->calls.len) {
		struct kb_clauses other_a = {&oa, 1, 1}, other_b = {&ob, 1, 1};
		int na = i < ta->calls.len ? ta->calls.items[i].nr : KB_SYSCALL_NR_MAX + 1;
		int nb = j < tb->calls.len ? tb->calls.items[j].nr : KB_SYSCALL_NR_MAX + 1;
		int nr = KB_MIN(na, nb);
		const char *name = kb_syscall_name(df->arch, nr);
		char number[32];

		snprintf(number, sizeof(number), "syscall_%d", nr);
		diff_call(df, nr, name ? name : number,
			na == nr ? &ta->calls.items[i].clauses : &other_a,
			nb == nr ? &tb->calls.items[j].clauses : &other_b);
		i += na == nr;
		j += nb == nr;
	}
	{
		struct kb_clauses a = {&oa, 1, 1}, b = {&ob, 1, 1};

		diff_call(df, KB_SYSCALL_NR_MAX, "any other call", &a, &b);
	}
}

/* ---- Paths ----------------------------------------------------------------------------------- */

/* A path that the pattern means: its globs filled in. */
static void instance(char *to, size_t size, const char *pattern, const char *below)
{
	size_t len = 0;

	for (const char *p = pattern; *p && len + 8 < size; p++) {
		if (*p == '?') {
			to[len++] = 'x';
		} else if (*p == '*') {
			to[len++] = 'x';
			p += p[1] == '*';
		} else {
			to[len++] = *p;
		}
	}
	to[len] = '\0';
	snprintf(to + len, size - len, "%s", below);
}

static struct kb_verdict path_verdict(
	const struct kb_bundle *bundle, unsigned access, const char *path)
{
	struct kb_verdict verdict = kb_bundle_decide_path(bundle, access, path);
	struct kb_mech_path mech = kb_mech_path(bundle, access, path);

	if (verdict.action == KB_ALLOW && !mech.allowed) {
		verdict = bundle->path_default;
		verdict.errnum = mech.errnum;
	}
	return verdict;
}

static void diff_path(struct differ *df, const char *pattern)
{
	static const char *const below[] = {"", "/x"};
	static const char *const names[] = {"read", "write", "exec"};

	for (size_t i = 0; i < KB_ARRAY_LEN(below); i++)
		for (unsigned k = 0; k < 3; k++) {
			char path[4200], witness[4300];
			struct kb_verdict va, vb;

			instance(path, sizeof(path), pattern, below[i]);
			va = path_verdict(df->a, 1u << k, path);
			vb = path_verdict(df->b, 1u << k, path);
			/* Below the place only when the place itself says nothing. */
			if (!differs(&va, &vb))
				continue;
			if (i) {
				struct kb_verdict ta, tb;

				instance(path, sizeof(path), pattern, "");
				ta = path_verdict(df->a, 1u << k, path);
				tb = path_verdict(df->b, 1u << k, path);
				if (differs(&ta, &tb))
					continue;
				instance(path, sizeof(path), pattern, below[i]);
			}
			snprintf(witness, sizeof(witness), "%s %s", names[k], path);
			report(df, witness, &va, &vb);
		}
}

static bool named_before(const struct differ *df, const char *pattern, size_t upto)
{
	for (size_t i = 0; i < upto; i++) {
		const char *other = i < df->a->paths.len
					    ? df->a->paths.items[i].pattern
					    : df->b->paths.items[i - df->a->paths.len].pattern;

		if (!strcmp(other, pattern))
			return true;
	}
	return false;
}

static void diff_paths(struct differ *df)
{
	size_t n = df->a->paths.len;

	for (size_t i = 0; i < n + df->b->paths.len; i++) {
		const char *pattern =
			i < n ? df->a->paths.items[i].pattern : df->b->paths.items[i - n].pattern;

		if (!named_before(df, pattern, i))
			diff_path(df, pattern);
	}
}

/* ---- Network --------------------------------------------------------------------------------- */

static struct kb_verdict net_verdict(const struct kb_bundle *bundle, const struct kb_net_rule *rule)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(rule->port_lo)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(rule->port_lo)};
	const char *host = rule->host;

	if (host && !strncmp(host, "*.", 2)) {
		char name[300];

		snprintf(name, sizeof(name), "x%s", host + 1);
		return kb_bundle_decide_host(
			bundle, rule->direction, rule->protocol, name, rule->port_lo);
	}
	if (host)
		return kb_bundle_decide_host(
			bundle, rule->direction, rule->protocol, host, rule->port_lo);
	memcpy(&in.sin_addr, rule->address, 4);
	memcpy(&in6.sin6_addr, rule->address, 16);
	return rule->address_len == 4
		       ? kb_bundle_decide_net(bundle, rule->direction, rule->protocol,
				 (struct sockaddr *)&in, sizeof(in))
		       : kb_bundle_decide_net(bundle, rule->direction, rule->protocol,
				 (struct sockaddr *)&in6, sizeof(in6));
}

static void diff_net(struct differ *df, const struct kb_bundle *of)
{
	static const char *const ways[] = {"connect", "listen", "resolve"};

	for (size_t i = 0; i < of->net.len; i++) {
		const struct kb_net_rule *rule = &of->net.items[i];
		struct kb_verdict va = net_verdict(df->a, rule), vb = net_verdict(df->b, rule);
		char address[INET6_ADDRSTRLEN] = "", witness[WITNESS_MAX];

		if (!rule->host)
			inet_ntop(rule->address_len == 4 ? AF_INET : AF_INET6, rule->address,
				address, sizeof(address));
		snprintf(witness, sizeof(witness), "%s %s:%u", ways[rule->direction],
			rule->host ? rule->host : address, rule->port_lo);
		/* What both name is reported once, with a's rules. */
		if (of == df->b && va.rule != KB_RULE_NONE && !va.by_default)
			continue;
		report(df, witness, &va, &vb);
	}
}

/* ---- All ------------------------------------------------------------------------------------- */

static int finish(struct differ *df)
{
	const struct kb_diff_result *result = df->result;
	json_t *root;
	char *text;
	int r;

	if (df->r < 0)
		return df->r;
	if (!df->json)
		return kb_buf_printf(df->out, df->err,
			"%zu newly allowed, %zu newly denied, %zu otherwise changed%s\n",
			result->newly_allowed, result->newly_denied, result->changed,
			result->complete ? "" : "; some conditions were too involved to compare");
	root = json_pack("{s:I, s:I, s:I, s:b, s:O}", "newly_allowed",
		(json_int_t)result->newly_allowed, "newly_denied", (json_int_t)result->newly_denied,
		"changed", (json_int_t)result->changed, "complete", result->complete, "differences",
		df->json);
	text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
	json_decref(root);
	r = text ? kb_buf_printf(df->out, df->err, "%s\n", text) : kb_err_nomem(df->err);
	free(text);
	return r;
}

int kb_bundle_diff(const struct kb_bundle *a, const struct kb_bundle *b, uint32_t arch, bool json,
	struct kb_buf *out, struct kb_diff_result *ret, struct kb_err *err)
{
	struct differ df = {.a = a, .b = b, .arch = arch, .out = out, .err = err, .result = ret};
	int r;

	*ret = (struct kb_diff_result){.complete = true};
	df.json = json ? json_array() : NULL;
	diff_calls(&df);
	diff_paths(&df);
	diff_net(&df, a);
	diff_net(&df, b);
	r = finish(&df);
	json_decref(df.json);
	return r;
}
