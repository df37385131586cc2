/* Decision table to cBPF.
 *
 *	ld  arch          another ABI: kill the process
 *	ld  nr            x32 numbers (bit 30): the default
 *	a balanced tree over ranges of numbers, one leaf per run of calls with one verdict
 *	leaf: a constant return, or the clauses of a call one after the other
 *
 * Calls whose verdict does not depend on arguments never load one, so the kernel's per-call bitmap
 * (5.11) answers the allowed ones without running the program; the tree only serves the others.
 *
 * The program is generated backwards, from its last instruction to its first: a jump's target then
 * always exists already, its distance is known, and one that is too far for the 8 bits of a
 * conditional jump gets an unconditional one to stand on. Conditions compare what the kernel will
 * look at: the low word, or the low 16 bits, or both words of a 64-bit argument.
 */
#include <stdlib.h>
#include <string.h>

#include "policy/bundle.h"
#include "supervisor/base/util.h"

#define PROGRAM_MAX 4096 /* BPF_MAXINSNS */
#define JUMP_MAX    255
#define X32_BIT	    0x40000000u

#define DATA_NR	    0u
#define DATA_ARCH   4u
#define DATA_ARG(i) (16u + 8u * (i)) /* low word first: both architectures are little-endian */

struct insn {
	struct sock_filter code;
	uint32_t rule;
};

/* insns[0] is the program's last instruction; a position is an index into it. */
struct gen {
	struct insn *insns;
	size_t len;
	bool full;
	enum kb_emit_lane lane;
	bool asks;     /* the call being generated is one that both lanes leave to notify */
	uint32_t rule; /* that the instructions being generated serve */
};

typedef uint32_t pos; /* private shorthand: half of what follows is made of it */

static pos put(struct gen *g, struct sock_filter code)
{
	/* Twice the limit is kept, so that the message can say by how much a program is too long.
	 */
	if (g->len >= 2 * PROGRAM_MAX) {
		g->full = true;
		return (pos)(g->len - 1);
	}
	g->insns[g->len].code = code;
	g->insns[g->len].rule = g->rule;
	return (pos)g->len++;
}

static pos stmt(struct gen *g, uint16_t code, uint32_t k)
{
	return put(g, (struct sock_filter){.code = code, .k = k});
}

static size_t distance(const struct gen *g, pos to)
{
	return g->len - to - 1;
}

static pos reach(struct gen *g, pos to)
{
	if (distance(g, to) <= JUMP_MAX - 2) /* room for the other target's stepping stone */
		return to;
	return stmt(g, BPF_JMP | BPF_JA, (uint32_t)distance(g, to));
}

static pos jump(struct gen *g, uint16_t op, uint32_t k, pos yes, pos no)
{
	yes = reach(g, yes);
	no = reach(g, no);
	return put(g, (struct sock_filter){.code = BPF_JMP | op | BPF_K,
			      .jt = (uint8_t)distance(g, yes),
			      .jf = (uint8_t)distance(g, no),
			      .k = k});
}

/* A return close by is shared, if it serves the same rule. */
static pos ret(struct gen *g, uint32_t value)
{
	for (size_t i = g->len; i > 0 && g->len - i < JUMP_MAX / 2; i--) {
		const struct insn *insn = &g->insns[i - 1];

		if (insn->code.code == (BPF_RET | BPF_K) && insn->code.k == value &&
			insn->rule == g->rule)
			return (pos)(i - 1);
	}
	return stmt(g, BPF_RET | BPF_K, value);
}

/* ---- Conditions ------------------------------------------------------------------------------ */

#define HI(v) ((uint32_t)((v) >> 32))
#define LO(v) ((uint32_t)(v))

/* Load one word of the argument, masked, in front of what is already there. */
static pos load(struct gen *g, const struct kb_cond *cond, bool high)
{
	uint32_t mask = high ? HI(cond->mask) : LO(cond->mask);

	if (mask != UINT32_MAX)
		stmt(g, BPF_ALU | BPF_AND | BPF_K, mask);
	return stmt(g, BPF_LD | BPF_W | BPF_ABS, DATA_ARG(cond->arg) + (high ? 4 : 0));
}

/* One word is all there is to look at: it is loaded once, before the first test. Otherwise every
 * test loads the words it needs. */
static bool narrow(const struct kb_cond *cond)
{
	return !HI(cond->mask);
}

/* value >= v */
static pos test_ge(struct gen *g, const struct kb_cond *cond, uint64_t v, pos yes, pos no)
{
	pos low, equal;

	if (narrow(cond))
		return jump(g, BPF_JGE, LO(v), yes, no);
	jump(g, BPF_JGE, LO(v), yes, no);
	low = load(g, cond, false);
	equal = jump(g, BPF_JEQ, HI(v), low, no);
	jump(g, BPF_JGT, HI(v), yes, equal);
	return load(g, cond, true);
}

/* value <= v */
static pos test_le(struct gen *g, const struct kb_cond *cond, uint64_t v, pos yes, pos no)
{
	pos low, equal;

	low = jump(g, BPF_JGT, LO(v), no, yes);
	if (narrow(cond))
		return low;
	low = load(g, cond, false);
	equal = jump(g, BPF_JEQ, HI(v), low, yes);
	jump(g, BPF_JGT, HI(v), no, equal);
	return load(g, cond, true);
}

static pos test_eq(struct gen *g, const struct kb_cond *cond, uint64_t v, pos yes, pos no)
{
	pos low;

	low = jump(g, BPF_JEQ, LO(v), yes, no);
	if (narrow(cond))
		return low;
	low = load(g, cond, false);
	jump(g, BPF_JEQ, HI(v), low, no);
	return load(g, cond, true);
}

/* Any bit of the mask is set. */
static pos test_bits(struct gen *g, const struct kb_cond *cond, pos yes, pos no)
{
	pos low;

	jump(g, BPF_JSET, LO(cond->mask), yes, no);
	low = stmt(g, BPF_LD | BPF_W | BPF_ABS, DATA_ARG(cond->arg));
	if (narrow(cond))
		return low;
	jump(g, BPF_JSET, HI(cond->mask), yes, low);
	return stmt(g, BPF_LD | BPF_W | BPF_ABS, DATA_ARG(cond->arg) + 4);
}

static pos test_interval(
	struct gen *g, const struct kb_cond *cond, const struct kb_interval *in, pos yes, pos no)
{
	if (in->lo == in->hi)
		return test_eq(g, cond, in->lo, yes, no);
	if (in->hi < cond->mask)
		yes = test_le(g, cond, in->hi, yes, no);
	return in->lo ? test_ge(g, cond, in->lo, yes, no) : yes;
}

/* A balanced tree over the intervals first..last. */
static pos test_intervals(
	struct gen *g, const struct kb_cond *cond, size_t first, size_t last, pos yes, pos no)
{
	size_t mid = first + (last - first + 1) / 2;
	pos left, right;

	if (first == last)
		return test_interval(g, cond, &cond->in.items[first], yes, no);
	right = test_intervals(g, cond, mid, last, yes, no);
	left = test_intervals(g, cond, first, mid - 1, yes, no);
	return test_ge(g, cond, cond->in.items[mid].lo, right, left);
}

static pos test_cond(struct gen *g, const struct kb_cond *cond, pos yes, pos no)
{
	const struct kb_interval *only = &cond->in.items[0];

	if (cond->in.len == 1 && only->lo == 0 && only->hi == 0)
		return test_bits(g, cond, no, yes);
	if (cond->in.len == 1 && only->lo == 1 && only->hi >= cond->mask)
		return test_bits(g, cond, yes, no);
	yes = test_intervals(g, cond, 0, cond->in.len - 1, yes, no);
	return narrow(cond) ? load(g, cond, false) : yes;
}

/* ---- Who is asked ---------------------------------------------------------------------------- */

static bool names_address(uint32_t arch, int nr)
{
	static const char *const names[] = {"connect", "bind", "sendto", "sendmsg", "sendmmsg"};

	for (size_t i = 0; i < KB_ARRAY_LEN(names); i++)
		if (nr == kb_syscall_number(arch, names[i]))
			return true;
	return false;
}

/* Calls that no rule names are the default's, in one piece. */
static bool call_asks(const struct gen *g, uint32_t arch, const struct kb_table_call *call)
{
	return g->lane == KB_EMIT_SPLIT && call && names_address(arch, call->nr);
}

bool kb_bundle_asks(const struct kb_bundle *bundle, uint32_t arch, int nr, const uint64_t args[6])
{
	const struct kb_table *table = kb_bundle_table(bundle, arch);
	struct kb_verdict verdict = kb_bundle_decide(bundle, arch, nr, args);

	if (!table || verdict.action == KB_KILL)
		return false;
	if (verdict.action == KB_ASK)
		return true;
	if (verdict.record == KB_RECORD_NONE)
		return false;
	return (uint32_t)nr >= KB_CALLS_MAX ||
	       (names_address(arch, nr) && kb_table_find(table, nr));
}

/* ---- Verdicts -------------------------------------------------------------------------------- */

static uint32_t action_value(const struct gen *g, const struct kb_clause *clause)
{
	bool asks = g->lane == KB_EMIT_NOTIFY || g->asks;
	bool notify = asks && clause->record != KB_RECORD_NONE;

	switch (clause->action) {
	case KB_ALLOW:
		return notify ? SECCOMP_RET_USER_NOTIF : SECCOMP_RET_ALLOW;
	case KB_KILL:
		return SECCOMP_RET_KILL_PROCESS;
	case KB_ASK:
		notify = g->lane != KB_EMIT_PLAIN;
		break;
	case KB_DENY:
		break;
	}
	if (notify)
		return SECCOMP_RET_USER_NOTIF;
	return SECCOMP_RET_ERRNO | ((uint32_t)clause->errnum & SECCOMP_RET_DATA);
}

static pos clause_ret(struct gen *g, const struct kb_clause *clause)
{
	g->rule = clause->rule;
	return ret(g, action_value(g, clause));
}

static pos gen_call(struct gen *g, uint32_t arch, const struct kb_table_call *call)
{
	size_t i = call->clauses.len - 1;
	pos next;

	g->asks = call_asks(g, arch, call);
	next = clause_ret(g, &call->clauses.items[i]);
	while (i-- > 0) {
		const struct kb_clause *clause = &call->clauses.items[i];
		pos yes = clause_ret(g, clause);

		for (size_t c = clause->conds.len; c-- > 0;)
			yes = test_cond(g, &clause->conds.items[c], yes, next);
		next = yes;
	}
	g->asks = false;
	return next;
}

/* ---- Dispatch by number ---------------------------------------------------------------------- */

/* Numbers from `from` up to the next segment's. */
struct segment {
	uint32_t from;
	const struct kb_table_call *call; /* NULL: the default */
	bool asks;
};

static bool same_leaf(const struct kb_table_call *a, const struct kb_table_call *b)
{
	const struct kb_clause *x, *y;

	if (!a || !b || a->clauses.len != 1 || b->clauses.len != 1)
		return a == b;
	x = &a->clauses.items[0];
	y = &b->clauses.items[0];
	return x->action == y->action && x->errnum == y->errnum && x->record == y->record &&
	       x->rule == y->rule;
}

static void add_segment(
	struct segment *segs, size_t *n, uint32_t from, const struct kb_table_call *call, bool asks)
{
	if (*n && segs[*n - 1].asks == asks && same_leaf(segs[*n - 1].call, call))
		return;
	if (*n && segs[*n - 1].from == from)
		(*n)--;
	segs[(*n)++] = (struct segment){from, call, asks};
}

static size_t make_segments(const struct gen *g, const struct kb_table *table, struct segment *segs)
{
	size_t n = 0;
	uint32_t next = 0;

	for (size_t i = 0; i < table->calls.len; i++) {
		const struct kb_table_call *call = &table->calls.items[i];

		if ((uint32_t)call->nr > next)
			add_segment(segs, &n, next, NULL, false);
		add_segment(segs, &n, (uint32_t)call->nr, call, call_asks(g, table->arch, call));
		next = (uint32_t)call->nr + 1;
	}
	add_segment(segs, &n, next, NULL, false);
	return n;
}

static pos gen_tree(struct gen *g, const struct kb_table *table, const struct segment *segs,
	size_t first, size_t last)
{
	size_t mid = first + (last - first + 1) / 2;
	pos left, right;

	if (first == last)
		return segs[first].call ? gen_call(g, table->arch, segs[first].call)
					: clause_ret(g, &table->other);
	right = gen_tree(g, table, segs, mid, last);
	left = gen_tree(g, table, segs, first, mid - 1);
	g->rule = KB_RULE_NONE;
	return jump(g, BPF_JGE, segs[mid].from, right, left);
}

static void gen_program(
	struct gen *g, const struct kb_table *table, const struct segment *segs, size_t n)
{
	pos start = gen_tree(g, table, segs, 0, n - 1), other, foreign;

	/* Lane bpf has no place for numbers past the tables, those of x32 among them. */
	g->asks = g->lane == KB_EMIT_SPLIT;
	if (g->asks || table->arch == AUDIT_ARCH_X86_64) {
		other = clause_ret(g, &table->other);
		start = jump(g, BPF_JGE, g->asks ? KB_CALLS_MAX : X32_BIT, other, start);
	}
	g->asks = false;
	g->rule = KB_RULE_NONE;
	/* start may not be the last instruction laid down: jump to it from here. */
	if (start + 1 != g->len)
		stmt(g, BPF_JMP | BPF_JA, (uint32_t)distance(g, start));
	start = stmt(g, BPF_LD | BPF_W | BPF_ABS, DATA_NR);
	g->rule = table->other.rule;
	foreign = stmt(g, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	jump(g, BPF_JEQ, table->arch, start, foreign);
	g->rule = KB_RULE_NONE;
	stmt(g, BPF_LD | BPF_W | BPF_ABS, DATA_ARCH);
}

static int finish(const struct gen *g, struct kb_program *out, struct kb_err *err)
{
	if (g->full || g->len > PROGRAM_MAX) {
		kb_err_set(err, KB_ERR_LIMIT,
			"the policy compiles to %s%zu instructions, the kernel takes %d",
			g->full ? "more than " : "", g->len, PROGRAM_MAX);
		return kb_err_hint(err, "use fewer argument values, or ranges instead of lists");
	}
	out->insns = calloc(g->len, sizeof(*out->insns));
	out->rules = calloc(g->len, sizeof(*out->rules));
	if (!out->insns || !out->rules) {
		kb_program_finish(out);
		return kb_err_nomem(err);
	}
	out->len = g->len;
	for (size_t i = 0; i < g->len; i++) {
		out->insns[i] = g->insns[g->len - 1 - i].code;
		out->rules[i] = g->insns[g->len - 1 - i].rule;
	}
	return 0;
}

int kb_bundle_emit(const struct kb_bundle *bundle, uint32_t arch, enum kb_emit_lane lane,
	struct kb_program *out, struct kb_err *err)
{
	const struct kb_table *table = kb_bundle_table(bundle, arch);
	struct segment *segs KB_FREE = NULL;
	struct insn *insns KB_FREE = NULL;
	struct gen g = {.lane = lane, .rule = KB_RULE_NONE};

	*out = (struct kb_program){0};
	if (!table)
		return kb_err_set(err, KB_ERR_INVALID, "the policy was not compiled for %s",
			kb_arch_name(arch));
	segs = calloc(2 * table->calls.len + 2, sizeof(*segs));
	g.insns = insns = calloc(2 * PROGRAM_MAX, sizeof(*insns));
	if (!segs || !insns)
		return kb_err_nomem(err);
	gen_program(&g, table, segs, make_segments(&g, table, segs));
	return finish(&g, out, err);
}

void kb_program_finish(struct kb_program *program)
{
	free(program->insns);
	free(program->rules);
	*program = (struct kb_program){0};
}
