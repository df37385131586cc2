/* Conditions in normal form: each term becomes "(argument & mask) lies in one of these intervals",
 * compared unsigned at the argument's C width. Everything that follows (conflict check, evaluator,
 * emitter, diff) only knows this one shape.
 *
 * Signed arguments: a range that crosses zero becomes two unsigned intervals, so -1 is 0xffffffff
 * of an int and nothing else. A constant that an architecture lacks matches nothing there.
 */
#include <stdlib.h>
#include <string.h>

#include "policy/ast.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

struct resolver {
	const struct kb_call *call;
	enum kb_arch_index arch;
	struct kb_arena *arena;
	struct kb_diags *diags; /* NULL: stay quiet */
	const struct kb_call_arg *arg;
	unsigned width;
	uint64_t max;
	bool missing; /* a constant that this architecture lacks was met */
};

#define FAIL(rs, pos, ...)                                                                         \
	do {                                                                                       \
		if ((rs)->diags)                                                                   \
			kb_diag_error((rs)->diags, pos, __VA_ARGS__);                              \
		return -1;                                                                         \
	} while (0)

static uint64_t width_max(unsigned width)
{
	return width == 64 ? UINT64_MAX : (1ULL << width) - 1;
}

/* ---- Values ---------------------------------------------------------------------------------- */

static int fail_constant(struct resolver *rs, const struct kb_operand *op)
{
	const struct kb_constant_set *set = rs->arg->set;
	const char **names KB_FREE = NULL;
	const char *near;

	if (!rs->diags)
		return -1;
	if (!set) {
		kb_diag_error(rs->diags, op->pos, "%s of %s takes numbers, not '%s'", rs->arg->name,
			rs->call->name, op->text);
		return -1;
	}
	if (set->flags)
		kb_diag_error(
			rs->diags, op->pos, "'%s' is not a flag of %s", op->text, rs->call->name);
	else
		kb_diag_error(rs->diags, op->pos, "'%s' is not a value of %s's %s", op->text,
			rs->call->name, rs->arg->name);
	names = calloc(set->len, sizeof(*names));
	for (size_t i = 0; names && i < set->len; i++)
		names[i] = set->items[i].name;
	near = names ? kb_diag_near(op->text, names, set->len) : NULL;
	if (near)
		kb_diag_hint(rs->diags, "did you mean %s?", near);
	return -1;
}

static int atom_value(struct resolver *rs, const struct kb_operand *op, uint64_t *ret)
{
	bool negative = op->text[0] == '-';
	const struct kb_constant *constant;
	uint64_t value;

	if (kb_parse_u64(op->text + negative, &value)) {
		uint64_t limit = negative ? (rs->max >> 1) + 1 : rs->max;

		if (value > limit || (negative && !kb_ctype_signed(rs->arg->type)))
			FAIL(rs, op->pos, "%s does not fit %s of %s (%s, %u bits)", op->text,
				rs->arg->name, rs->call->name,
				kb_ctype_signed(rs->arg->type) ? "signed" : "unsigned", rs->width);
		*ret = (negative ? -value : value) & rs->max;
		return 0;
	}
	constant = rs->arg->set ? kb_constant_find(rs->arg->set, op->text) : NULL;
	if (!constant)
		return fail_constant(rs, op);
	rs->missing |= !constant->has[rs->arch];
	*ret = constant->value[rs->arch] & rs->max;
	return 0;
}

static int bits_value(struct resolver *rs, const struct kb_operands *bits, uint64_t *ret)
{
	*ret = 0;
	for (size_t i = 0; i < bits->len; i++) {
		uint64_t value;
		int r = atom_value(rs, &bits->items[i], &value);

		if (r < 0)
			return r;
		*ret |= value;
	}
	return 0;
}

/* ---- Intervals ------------------------------------------------------------------------------- */

static int add(struct resolver *rs, struct kb_intervals *in, uint64_t lo, uint64_t hi)
{
	struct kb_interval *item;

	if (lo > hi)
		return 0;
	item = KB_ARENA_PUSH(rs->arena, in);
	if (!item)
		return -1;
	*item = (struct kb_interval){lo, hi};
	return 0;
}

static int compare_intervals(const void *a, const void *b)
{
	const struct kb_interval *x = a, *y = b;

	return x->lo < y->lo ? -1 : x->lo > y->lo;
}

static void normalise(struct kb_intervals *in)
{
	size_t out = 0;

	if (!in->len)
		return;
	qsort(in->items, in->len, sizeof(*in->items), compare_intervals);
	for (size_t i = 1; i < in->len; i++) {
		struct kb_interval *last = &in->items[out];

		if (last->hi == UINT64_MAX || in->items[i].lo <= last->hi + 1)
			last->hi = KB_MAX(last->hi, in->items[i].hi);
		else
			in->items[++out] = in->items[i];
	}
	in->len = out + 1;
}

/* Signed lo..hi as unsigned intervals. */
static int add_range(struct resolver *rs, struct kb_intervals *in, uint64_t lo, uint64_t hi)
{
	uint64_t sign = (rs->max >> 1) + 1;

	if (!kb_ctype_signed(rs->arg->type) || (lo & sign) == (hi & sign))
		return add(rs, in, lo, hi);
	if (!(lo & sign)) /* lo >= 0 > hi: empty */
		return 0;
	return add(rs, in, 0, hi) < 0 ? -1 : add(rs, in, lo, rs->max);
}

static int complement(struct resolver *rs, struct kb_intervals *in)
{
	struct kb_intervals out = {0};
	uint64_t next = 0;

	for (size_t i = 0; i < in->len; i++) {
		if (in->items[i].lo > next && add(rs, &out, next, in->items[i].lo - 1) < 0)
			return -1;
		next = in->items[i].hi + 1;
		if (in->items[i].hi >= rs->max) {
			*in = out;
			return 0;
		}
	}
	if (add(rs, &out, next, rs->max) < 0)
		return -1;
	*in = out;
	return 0;
}

/* ---- Terms ----------------------------------------------------------------------------------- */

static int ordered(
	struct resolver *rs, const struct kb_term *term, uint64_t value, struct kb_intervals *in)
{
	bool sign = kb_ctype_signed(rs->arg->type);
	uint64_t bottom = sign ? (rs->max >> 1) + 1 : 0, top = sign ? rs->max >> 1 : rs->max;

	switch (term->op) {
	case KB_OP_LT:
		return value == bottom ? 0 : add_range(rs, in, bottom, (value - 1) & rs->max);
	case KB_OP_LE:
		return add_range(rs, in, bottom, value);
	case KB_OP_GT:
		return value == top ? 0 : add_range(rs, in, (value + 1) & rs->max, top);
	default:
		return add_range(rs, in, value, top);
	}
}

static int resolve_list(struct resolver *rs, const struct kb_term *term, struct kb_intervals *in)
{
	for (size_t i = 0; i < term->values.len; i++) {
		const struct kb_value *item = &term->values.items[i];
		uint64_t lo, hi;

		rs->missing = false;
		if (bits_value(rs, &item->lo, &lo) < 0)
			return -1;
		hi = lo;
		if (item->hi.len && bits_value(rs, &item->hi, &hi) < 0)
			return -1;
		if (item->hi.len && !kb_ctype_signed(rs->arg->type) && lo > hi)
			FAIL(rs, item->lo.items[0].pos, "this range is empty");
		if (!rs->missing && add_range(rs, in, lo, hi) < 0)
			return -1;
	}
	normalise(in);
	rs->missing = false;
	return term->op == KB_OP_NOT_IN ? complement(rs, in) : 0;
}

static int bits_term(
	struct resolver *rs, const struct kb_term *term, struct kb_cond *cond, uint64_t value)
{
	if (term->mask.len)
		FAIL(rs, term->op_pos, "a mask and 'has' or 'only' in one term");
	if (!value && !rs->missing)
		FAIL(rs, term->op_pos, "no bits to look at");
	cond->mask = term->op == KB_OP_ONLY ? ~value & rs->max : value;
	if (term->op == KB_OP_ANY)
		return add(rs, &cond->in, 1, rs->max);
	if (term->op == KB_OP_ALL)
		return rs->missing ? 0 : add(rs, &cond->in, value, value);
	return add(rs, &cond->in, 0, 0);
}

static int single_value(struct resolver *rs, const struct kb_term *term, struct kb_cond *cond)
{
	uint64_t value;
	int r;

	rs->missing = false;
	if (bits_value(rs, &term->values.items[0].lo, &value) < 0)
		return -1;
	switch (term->op) {
	case KB_OP_ANY:
	case KB_OP_ALL:
	case KB_OP_NOT:
	case KB_OP_ONLY:
		return bits_term(rs, term, cond, value);
	case KB_OP_EQ:
	case KB_OP_NE:
		if (!rs->missing && (value & ~cond->mask))
			FAIL(rs, term->values.items[0].lo.items[0].pos,
				"this value has bits outside the mask: the term never holds");
		if (!rs->missing && add(rs, &cond->in, value, value) < 0)
			return -1;
		return term->op == KB_OP_NE ? complement(rs, &cond->in) : 0;
	default:
		if (term->mask.len && kb_ctype_signed(rs->arg->type) &&
			(cond->mask & ~(rs->max >> 1)))
			FAIL(rs, term->op_pos, "order under a mask that keeps the sign");
		r = rs->missing ? 0 : ordered(rs, term, value, &cond->in);
		normalise(&cond->in);
		return r;
	}
}

static int find_arg(struct resolver *rs, const struct kb_term *term, unsigned *ret)
{
	const char *names[KB_CALL_ARGS], *near;

	for (unsigned i = 0; i < rs->call->n_args; i++) {
		names[i] = rs->call->args[i].name;
		if (strcmp(names[i], term->arg.text) != 0)
			continue;
		if (rs->call->args[i].type == KB_T_PTR) {
			if (rs->diags) {
				kb_diag_error(rs->diags, term->arg.pos,
					"%s of %s is a pointer: what it points to can change after "
					"the check",
					names[i], rs->call->name);
				kb_diag_help(rs->diags, "use an fs, exec or net rule instead");
			}
			return -1;
		}
		*ret = i;
		return 0;
	}
	if (!rs->diags)
		return -1;
	kb_diag_error(rs->diags, term->arg.pos, "%s has no argument '%s'", rs->call->name,
		term->arg.text);
	near = kb_diag_near(term->arg.text, names, rs->call->n_args);
	if (near)
		kb_diag_hint(rs->diags, "did you mean %s?", near);
	else if (!rs->call->n_args)
		kb_diag_hint(rs->diags, "it has none");
	return -1;
}

static int check_op(struct resolver *rs, const struct kb_term *term)
{
	bool flags = rs->arg->set && rs->arg->set->flags;

	if (flags && !term->mask.len && (term->op == KB_OP_IN || term->op == KB_OP_NOT_IN)) {
		if (rs->diags) {
			kb_diag_error(rs->diags, term->op_pos,
				"'in' could mean two things: %s of %s is a word of flags",
				rs->arg->name, rs->call->name);
			kb_diag_hint(rs->diags, "has any of, has all of, has none of, or only");
		}
		return -1;
	}
	if (!flags && rs->arg->set && !term->mask.len && term->op >= KB_OP_ANY &&
		strcmp(rs->arg->set->name, "socktype") != 0 &&
		strcmp(rs->arg->set->name, "personality") != 0)
		FAIL(rs, term->op_pos, "%s of %s is one value, not a word of flags: use = or in",
			rs->arg->name, rs->call->name);
	return 0;
}

/* A masked value is never larger than its mask. */
static void clip(struct kb_cond *cond)
{
	size_t out = 0;

	for (size_t i = 0; i < cond->in.len; i++) {
		struct kb_interval in = cond->in.items[i];

		if (in.lo > cond->mask)
			break;
		in.hi = KB_MIN(in.hi, cond->mask);
		cond->in.items[out++] = in;
	}
	cond->in.len = out;
}

/* 0, 1 when it always holds, 2 when it never does, or negative. */
static int resolve_term(struct resolver *rs, const struct kb_term *term, struct kb_cond *cond)
{
	int r = find_arg(rs, term, &cond->arg);

	if (r < 0)
		return r;
	rs->arg = &rs->call->args[cond->arg];
	rs->width = cond->width = kb_ctype_width(rs->arg->type);
	rs->max = cond->mask = width_max(rs->width);
	r = check_op(rs, term);
	if (r >= 0 && term->mask.len)
		r = bits_value(rs, &term->mask, &cond->mask);
	if (r >= 0)
		r = term->op == KB_OP_IN || term->op == KB_OP_NOT_IN
			    ? resolve_list(rs, term, &cond->in)
			    : single_value(rs, term, cond);
	if (r < 0)
		return r;
	clip(cond);
	if (!cond->in.len || (!cond->mask && cond->in.items[0].lo > 0))
		return 2;
	if (!cond->mask || (cond->in.items[0].lo == 0 && cond->in.items[0].hi >= cond->mask))
		return 1;
	return 0;
}

int kb_cond_resolve(const struct kb_call *call, enum kb_arch_index arch,
	const struct kb_terms *terms, struct kb_arena *arena, struct kb_conds *ret,
	struct kb_diags *diags)
{
	struct resolver rs = {.call = call, .arch = arch, .arena = arena, .diags = diags};
	bool never = false;
	int failed = 0;

	for (size_t i = 0; i < terms->len; i++) {
		struct kb_cond cond = {0}, *slot;
		int r = resolve_term(&rs, &terms->items[i], &cond);

		failed |= r < 0;
		never |= r == 2;
		if (r)
			continue;
		slot = KB_ARENA_PUSH(arena, ret);
		if (!slot)
			return -1;
		*slot = cond;
	}
	return failed ? -1 : never;
}

/* ---- Relations ------------------------------------------------------------------------------- */

static bool intervals_meet(const struct kb_intervals *a, const struct kb_intervals *b)
{
	for (size_t i = 0, j = 0; i < a->len && j < b->len;) {
		if (a->items[i].hi < b->items[j].lo)
			i++;
		else if (b->items[j].hi < a->items[i].lo)
			j++;
		else
			return true;
	}
	return false;
}

static bool intervals_hold(const struct kb_intervals *in, uint64_t value)
{
	for (size_t i = 0; i < in->len; i++)
		if (value >= in->items[i].lo && value <= in->items[i].hi)
			return true;
	return false;
}

/* a fixes all bits that b looks at. */
static bool fixes(const struct kb_cond *a, const struct kb_cond *b)
{
	return a->in.len == 1 && a->in.items[0].lo == a->in.items[0].hi && !(b->mask & ~a->mask);
}

static bool cond_excludes(const struct kb_cond *a, const struct kb_cond *b)
{
	if (a->arg != b->arg)
		return false;
	if (a->mask == b->mask)
		return !intervals_meet(&a->in, &b->in);
	if (fixes(a, b))
		return !intervals_hold(&b->in, a->in.items[0].lo & b->mask);
	if (fixes(b, a))
		return !intervals_hold(&a->in, b->in.items[0].lo & a->mask);
	return false;
}

bool kb_conds_overlap(const struct kb_conds *a, const struct kb_conds *b)
{
	for (size_t i = 0; i < a->len; i++)
		for (size_t j = 0; j < b->len; j++)
			if (cond_excludes(&a->items[i], &b->items[j]))
				return false;
	return true;
}

static bool cond_within(const struct kb_cond *a, const struct kb_cond *b)
{
	if (a->arg != b->arg)
		return false;
	if (fixes(a, b))
		return intervals_hold(&b->in, a->in.items[0].lo & b->mask);
	if (a->mask != b->mask)
		return false;
	for (size_t i = 0, j = 0; i < a->in.len; i++) {
		while (j < b->in.len && b->in.items[j].hi < a->in.items[i].lo)
			j++;
		if (j == b->in.len || b->in.items[j].lo > a->in.items[i].lo ||
			b->in.items[j].hi < a->in.items[i].hi)
			return false;
	}
	return true;
}

bool kb_conds_within(const struct kb_conds *a, const struct kb_conds *b)
{
	for (size_t j = 0; j < b->len; j++) {
		bool held = false;

		for (size_t i = 0; i < a->len && !held; i++)
			held = cond_within(&a->items[i], &b->items[j]);
		if (!held)
			return false;
	}
	return true;
}
