/* Exact answers about conditions, without sampling.
 *
 * "Clause i of a list decides" means: its conditions hold, and of every earlier clause at least one
 * condition does not. Choosing one condition to fail for each earlier clause (with backtracking)
 * leaves, for each argument, a set of requirements "(x & mask) lies in [lo, hi]". Whether one x
 * meets them all is found bit by bit from the top: for each requirement it is enough to remember
 * whether the bits so far still equal those of lo, and of hi; so there are 4^k states per bit for k
 * requirements, each visited once. The arguments are independent of each other.
 *
 * Work is bounded; past the bound the answer is "gave up", never a guess.
 */
#include "policy/solve.h"

#include <stdlib.h>
#include <string.h>

#include "supervisor/base/util.h"

#define REQS_MAX  6   /* requirements on one argument that are decided together */
#define NEEDS_MAX 256 /* conditions in play */
#define STEPS_MAX 20000

/* ---- One argument ---------------------------------------------------------------------------- */

struct req {
	uint64_t mask, lo, hi;
};

struct bits {
	const struct req *reqs;
	size_t n;
	uint8_t seen[64][(1 << (2 * REQS_MAX)) / 8]; /* states already found hopeless */
	uint64_t value;
};

/* One bit of one requirement: the next state, or -1 when it fails. state bit 0: still equal to lo,
 * bit 1: still equal to hi. */
static int step(const struct req *req, unsigned state, unsigned bit, unsigned x)
{
	unsigned y = x & (unsigned)(req->mask >> bit & 1);
	unsigned lo = (unsigned)(req->lo >> bit & 1), hi = (unsigned)(req->hi >> bit & 1);

	if ((state & 1) && y < lo)
		return -1;
	if ((state & 2) && y > hi)
		return -1;
	return (int)(((state & 1) && y == lo ? 1u : 0u) | ((state & 2) && y == hi ? 2u : 0u));
}

static bool search_bits(struct bits *bs, int bit, unsigned states)
{
	if (bit < 0)
		return true;
	if (bs->seen[bit][states / 8] & (1u << states % 8))
		return false;
	bs->seen[bit][states / 8] |= (uint8_t)(1u << states % 8);
	for (unsigned x = 0; x < 2; x++) {
		unsigned next = 0;
		size_t k = 0;

		for (; k < bs->n; k++) {
			int s = step(&bs->reqs[k], states >> (2 * k) & 3, (unsigned)bit, x);

			if (s < 0)
				break;
			next |= (unsigned)s << (2 * k);
		}
		if (k == bs->n && search_bits(bs, bit - 1, next)) {
			bs->value |= (uint64_t)x << bit;
			return true;
		}
	}
	return false;
}

static bool solve_reqs(const struct req *reqs, size_t n, uint64_t *ret)
{
	struct bits bs = {.reqs = reqs, .n = n};

	if (!search_bits(&bs, 63, (1u << (2 * n)) - 1))
		return false;
	*ret = bs.value;
	return true;
}

/* ---- Choosing intervals ---------------------------------------------------------------------- */

/* A condition that must hold, or must fail. */
struct need {
	const struct kb_cond *cond;
	bool fail;
};

struct solver {
	struct need needs[NEEDS_MAX];
	size_t n;
	unsigned steps;
	bool gave_up;
	uint64_t args[KB_CALL_ARGS];
};

/* The index-th interval of a need, or false past the last: those of a failing one lie between. */
static bool need_interval(const struct need *need, size_t index, struct req *ret)
{
	const struct kb_intervals *in = &need->cond->in;
	uint64_t mask = need->cond->mask;

	ret->mask = mask;
	if (!need->fail) {
		if (index >= in->len)
			return false;
		ret->lo = in->items[index].lo;
		ret->hi = in->items[index].hi;
		return true;
	}
	if (index > in->len)
		return false;
	if (index && in->items[index - 1].hi == UINT64_MAX)
		return false;
	ret->lo = index ? in->items[index - 1].hi + 1 : 0;
	if (index < in->len && !in->items[index].lo) {
		ret->lo = 1;
		ret->hi = 0; /* empty */
		return true;
	}
	ret->hi = index < in->len ? in->items[index].lo - 1 : mask;
	return true;
}

static bool choose(struct solver *sv, const struct need *const *needs, size_t n, size_t at,
	struct req *reqs, uint64_t *ret)
{
	if (++sv->steps > STEPS_MAX) {
		sv->gave_up = true;
		return false;
	}
	if (at == n)
		return solve_reqs(reqs, n, ret);
	for (size_t i = 0; need_interval(needs[at], i, &reqs[at]); i++) {
		if (reqs[at].lo > reqs[at].hi)
			continue;
		if (choose(sv, needs, n, at + 1, reqs, ret))
			return true;
	}
	return false;
}

/* Can the needs on this argument be met together? */
static bool solve_arg(struct solver *sv, unsigned arg)
{
	const struct need *needs[REQS_MAX];
	struct req reqs[REQS_MAX];
	size_t n = 0;

	for (size_t i = 0; i < sv->n; i++) {
		if (sv->needs[i].cond->arg != arg)
			continue;
		if (n == REQS_MAX) {
			sv->gave_up = true;
			return false;
		}
		needs[n++] = &sv->needs[i];
	}
	return choose(sv, needs, n, 0, reqs, &sv->args[arg]);
}

static bool add_need(struct solver *sv, const struct kb_cond *cond, bool fail)
{
	/* The same demand twice is one. */
	for (size_t i = 0; i < sv->n; i++) {
		const struct kb_cond *other = sv->needs[i].cond;

		if (sv->needs[i].fail == fail && other->arg == cond->arg &&
			other->mask == cond->mask && other->in.len == cond->in.len &&
			!memcmp(other->in.items, cond->in.items,
				cond->in.len * sizeof(*cond->in.items)))
			return true;
	}
	if (sv->n == NEEDS_MAX) {
		sv->gave_up = true;
		return false;
	}
	sv->needs[sv->n++] = (struct need){cond, fail};
	return solve_arg(sv, cond->arg);
}

/* ---- Choosing what fails --------------------------------------------------------------------- */

struct earlier {
	const struct kb_clause *clauses[2 * KB_BUNDLE_CLAUSES_MAX];
	size_t n;
};

static bool fail_all(struct solver *sv, const struct earlier *list, size_t at)
{
	if (at == list->n)
		return true;
	for (size_t c = 0; c < list->clauses[at]->conds.len && !sv->gave_up; c++) {
		size_t mark = sv->n;

		if (add_need(sv, &list->clauses[at]->conds.items[c], true) &&
			fail_all(sv, list, at + 1))
			return true;
		sv->n = mark;
	}
	return false;
}

static void gather(struct earlier *list, const struct kb_clauses *clauses, size_t upto)
{
	for (size_t i = 0; i < upto && list->n < KB_ARRAY_LEN(list->clauses); i++)
		list->clauses[list->n++] = &clauses->items[i];
}

static bool hold_all(struct solver *sv, const struct kb_clause *clause)
{
	for (size_t c = 0; c < clause->conds.len; c++)
		if (!add_need(sv, &clause->conds.items[c], false))
			return false;
	return true;
}

enum kb_solved kb_solve_pair(const struct kb_clauses *a, size_t i, const struct kb_clauses *b,
	size_t j, uint64_t ret_args[KB_CALL_ARGS])
{
	struct earlier *list KB_FREE = calloc(1, sizeof(*list));
	struct solver *sv KB_FREE = calloc(1, sizeof(*sv));
	bool found;

	if (!list || !sv)
		return KB_SOLVED_GAVE_UP;
	gather(list, a, i);
	gather(list, b, j);
	found = hold_all(sv, &a->items[i]) && hold_all(sv, &b->items[j]) && fail_all(sv, list, 0);
	if (!found)
		return sv->gave_up ? KB_SOLVED_GAVE_UP : KB_SOLVED_NO;
	/* Backtracking may have left an argument's value from a needs list that was given up. */
	for (unsigned arg = 0; arg < KB_CALL_ARGS; arg++) {
		sv->args[arg] = 0;
		if (!solve_arg(sv, arg))
			return KB_SOLVED_GAVE_UP;
		ret_args[arg] = sv->args[arg];
	}
	return KB_SOLVED_YES;
}
