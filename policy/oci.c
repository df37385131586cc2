/* The decision table as the `seccomp` object of an OCI runtime specification, for runtimes that
 * build their filter with libseccomp.
 *
 * Such a rule is a conjunction with at most one comparison per argument, rules have no order, and
 * overlapping rules with different actions are not defined. So every clause becomes the calls it
 * alone decides (its conditions, and the earlier clauses' negated), written as alternatives that
 * compare each argument once: "(arg & mask) == value". An interval is a union of aligned blocks of
 * a power of two, and each block is such a comparison; two on one argument merge into one or
 * exclude each other. The result is exact.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "policy/formats.h"
#include "supervisor/base/util.h"

#define ALTS_MAX 4096 /* alternatives of one call's clause */

struct block {
	uint64_t mask, value;
};

/* One alternative: a comparison per argument; mask 0: any value. */
struct alt {
	struct block args[KB_CALL_ARGS];
};

struct alts {
	struct alt *items;
	size_t len;
	bool failed; /* too many, or no memory */
};

static void push(struct alts *alts, const struct alt *alt)
{
	if (alts->len == ALTS_MAX)
		alts->failed = true;
	else
		alts->items[alts->len++] = *alt;
}

/* Every alternative with one more comparison on arg, where the two can hold together. */
static void narrow(
	const struct alts *from, struct alts *to, unsigned arg, const struct block *block)
{
	for (size_t i = 0; i < from->len && !to->failed; i++) {
		struct alt alt = from->items[i];
		struct block *have = &alt.args[arg];

		if ((have->value ^ block->value) & have->mask & block->mask)
			continue;
		have->value |= block->value;
		have->mask |= block->mask;
		push(to, &alt);
	}
}

/* Cut [lo, hi] of the masked value into aligned blocks. */
static void interval(const struct alts *from, struct alts *to, const struct kb_cond *cond,
	uint64_t lo, uint64_t hi)
{
	uint64_t max = cond->width == 64 ? UINT64_MAX : (1ULL << cond->width) - 1;

	for (;;) {
		uint64_t size = lo ? lo & -lo : 0; /* 0: as large as it gets */
		struct block block;

		while (!size || size - 1 > hi - lo) {
			if (!size && lo == 0 && hi == UINT64_MAX)
				break;
			size = size ? size / 2 : 1ULL << 63;
		}
		block.mask = cond->mask & max & (size ? ~(size - 1) : 0);
		block.value = lo;
		/* A block that needs bits outside the mask holds no masked value. */
		if (!(lo & ~block.mask))
			narrow(from, to, cond->arg, &block);
		if (!size || hi - lo == size - 1 || to->failed)
			return;
		lo += size;
	}
}

/* Any bit of the mask: one alternative per bit instead of the blocks of [1, mask]. */
static void any_bit(const struct alts *from, struct alts *to, const struct kb_cond *cond)
{
	for (uint64_t bits = cond->mask; bits; bits &= bits - 1) {
		struct block block = {bits & -bits, bits & -bits};

		narrow(from, to, cond->arg, &block);
	}
}

static void hold(const struct alts *from, struct alts *to, const struct kb_cond *cond)
{
	if (cond->in.len == 1 && cond->in.items[0].lo == 1 && cond->in.items[0].hi >= cond->mask) {
		any_bit(from, to, cond);
		return;
	}
	for (size_t i = 0; i < cond->in.len; i++)
		interval(from, to, cond, cond->in.items[i].lo, cond->in.items[i].hi);
}

static void fail_to_hold(const struct alts *from, struct alts *to, const struct kb_cond *cond)
{
	uint64_t next = 0;

	if (cond->in.len == 1 && !cond->in.items[0].lo && !cond->in.items[0].hi) {
		any_bit(from, to, cond);
		return;
	}
	for (size_t i = 0; i < cond->in.len; i++) {
		if (cond->in.items[i].lo > next)
			interval(from, to, cond, next, cond->in.items[i].lo - 1);
		next = cond->in.items[i].hi + 1;
		if (!next || next > cond->mask)
			return;
	}
	interval(from, to, cond, next, cond->mask);
}

static void swap(struct alts *a, struct alts *b)
{
	struct alts t = *a;

	*a = *b;
	*b = t;
	b->len = 0;
	a->failed |= b->failed;
}

/* The alternatives for which clause `index` decides, in *a; b is scratch. */
static void region(const struct kb_clauses *clauses, size_t index, struct alts *a, struct alts *b)
{
	const struct kb_clause *clause = &clauses->items[index];

	a->len = b->len = 0;
	push(a, &(struct alt){0});
	for (size_t c = 0; c < clause->conds.len; c++) {
		hold(a, b, &clause->conds.items[c]);
		swap(a, b);
	}
	for (size_t i = 0; i < index; i++) {
		const struct kb_conds *conds = &clauses->items[i].conds;

		for (size_t c = 0; c < conds->len; c++)
			fail_to_hold(a, b, &conds->items[c]);
		swap(a, b);
	}
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static bool same_action(const struct kb_clause *a, const struct kb_clause *b)
{
	bool deny_a = a->action == KB_DENY || a->action == KB_ASK;
	bool deny_b = b->action == KB_DENY || b->action == KB_ASK;

	return deny_a && deny_b ? a->errnum == b->errnum : a->action == b->action;
}

static json_t *entry(const char *name, const struct kb_clause *clause)
{
	json_t *object = json_pack("{s:[s]}", "names", name);

	json_object_set_new(object, "action",
		json_string(clause->action == KB_ALLOW	? "SCMP_ACT_ALLOW"
			    : clause->action == KB_KILL ? "SCMP_ACT_KILL_PROCESS"
							: "SCMP_ACT_ERRNO"));
	if (clause->action == KB_DENY || clause->action == KB_ASK)
		json_object_set_new(object, "errnoRet", json_integer(clause->errnum));
	return object;
}

static void add_alt(
	json_t *list, const char *name, const struct kb_clause *clause, const struct alt *alt)
{
	json_t *object = entry(name, clause), *args = json_array();

	for (unsigned i = 0; i < KB_CALL_ARGS; i++)
		if (alt->args[i].mask)
			json_array_append_new(
				args, json_pack("{s:i, s:I, s:I, s:s}", "index", (int)i, "value",
					      (json_int_t)alt->args[i].mask, "valueTwo",
					      (json_int_t)alt->args[i].value, "op",
					      "SCMP_CMP_MASKED_EQ"));
	if (json_array_size(args))
		json_object_set(object, "args", args);
	json_decref(args);
	json_array_append_new(list, object);
}

/* Calls that one clause decides share an entry. */
static void add_plain(json_t *list, const char *name, const struct kb_clause *clause)
{
	json_t *fresh = entry(name, clause), *have;
	size_t i;

	json_array_foreach(list, i, have)
	{
		if (!json_object_get(have, "args") &&
			json_equal(json_object_get(have, "action"),
				json_object_get(fresh, "action")) &&
			(!json_object_get(fresh, "errnoRet") ||
				json_equal(json_object_get(have, "errnoRet"),
					json_object_get(fresh, "errnoRet")))) {
			json_array_append_new(json_object_get(have, "names"), json_string(name));
			json_decref(fresh);
			return;
		}
	}
	json_array_append_new(list, fresh);
}

static int add_call(json_t *list, const struct kb_table *table, const struct kb_table_call *call,
	struct alts *a, struct alts *b, struct kb_err *err)
{
	const char *name = kb_syscall_name(table->arch, call->nr);

	if (!name)
		return 0;
	for (size_t i = 0; i < call->clauses.len; i++) {
		const struct kb_clause *clause = &call->clauses.items[i];

		if (same_action(clause, &table->other))
			continue;
		if (call->clauses.len == 1) {
			add_plain(list, name, clause);
			continue;
		}
		region(&call->clauses, i, a, b);
		if (a->failed)
			return kb_err_set(err, KB_ERR_LIMIT,
				"the rules of %s need more than %d OCI rules", name, ALTS_MAX);
		for (size_t k = 0; k < a->len; k++)
			add_alt(list, name, clause, &a->items[k]);
	}
	return 0;
}

static int write_table(const struct kb_table *table, struct alts *a, struct alts *b,
	struct kb_buf *out, struct kb_err *err)
{
	json_t *list = json_array(), *root;
	char *text = NULL;
	int r = 0;

	for (size_t i = 0; r >= 0 && i < table->calls.len; i++)
		r = add_call(list, table, &table->calls.items[i], a, b, err);
	root = json_pack("{s:s, s:[s], s:o}", "defaultAction",
		table->other.action == KB_KILL ? "SCMP_ACT_KILL_PROCESS" : "SCMP_ACT_ERRNO",
		"architectures",
		table->arch == AUDIT_ARCH_X86_64 ? "SCMP_ARCH_X86_64" : "SCMP_ARCH_AARCH64",
		"syscalls", list);
	if (table->other.action != KB_KILL)
		json_object_set_new(root, "defaultErrnoRet", json_integer(table->other.errnum));
	if (r >= 0)
		text = json_dumps(root, JSON_INDENT(1));
	json_decref(root);
	if (r >= 0)
		r = text ? kb_buf_printf(out, err, "%s\n", text) : kb_err_nomem(err);
	free(text);
	return r;
}

int kb_write_oci(
	const struct kb_bundle *bundle, uint32_t arch, struct kb_buf *out, struct kb_err *err)
{
	const struct kb_table *table = kb_bundle_table(bundle, arch);
	struct alt *one KB_FREE = calloc(ALTS_MAX, sizeof(*one));
	struct alt *two KB_FREE = calloc(ALTS_MAX, sizeof(*two));
	struct alts a = {.items = one}, b = {.items = two};

	if (!one || !two)
		return kb_err_nomem(err);
	if (!table)
		return kb_err_set(err, KB_ERR_INVALID, "the policy was not compiled for %s",
			kb_arch_name(arch));
	return write_table(table, &a, &b, out, err);
}
