#include "plan.h"

#include <string.h>

#include "glob.h"
#include "supervisor/base/util.h"

static bool is_context(const struct kb_field *field)
{
	static const char *const names[] = {"exe", "comm", "argv", "ppid"};

	for (size_t i = 0; i < KB_ARRAY_LEN(names); i++)
		if (strcmp(field->name, names[i]) == 0)
			return true;
	return false;
}

void kb_plan_init(struct kb_plan *plan, const struct kb_expr *expr, int64_t since, int64_t until)
{
	*plan = (struct kb_plan){.expr = expr, .since = since, .until = until};
	for (uint32_t i = 0; expr && i < expr->n_nodes; i++)
		plan->context = plan->context || (expr->nodes[i].kind == KB_NODE_COMPARE &&
							 is_context(expr->nodes[i].field));
}

/* A pattern without wildcards or escapes is what it says. */
static bool is_plain(const struct kb_value *v)
{
	return kb_glob_prefix(v->text, v->len) == v->len;
}

/* What a pattern of paths must have: a directory that it lies under, a last component. */
static bool may_glob(const struct kb_filter *f, const struct kb_value *v,
	enum kb_filter_class whole, enum kb_filter_class under, enum kb_filter_class name)
{
	size_t prefix = kb_glob_prefix(v->text, v->len), dir = prefix, last = v->len;

	if (is_plain(v))
		return kb_filter_may(f, whole, v->text, v->len);
	while (dir > 0 && v->text[dir - 1] != '/')
		dir--;
	if (dir > 1 && !kb_filter_may(f, under, v->text, dir - 1))
		return false;
	while (last > 0 && v->text[last - 1] != '/')
		last--;
	if (last > 0 && last < v->len &&
		kb_glob_prefix(v->text + last, v->len - last) == v->len - last)
		return kb_filter_may(f, name, v->text + last, v->len - last);
	return true;
}

static bool may_path(const struct kb_term *t, const struct kb_filter *f, enum kb_filter_class whole,
	enum kb_filter_class under, enum kb_filter_class name)
{
	if (t->op == KB_OP_GLOB)
		return may_glob(f, &t->value, whole, under, name);
	return kb_filter_may(f, whole, t->value.text, t->value.len);
}

static bool may_text(const struct kb_term *t, const struct kb_filter *f, enum kb_filter_class class)
{
	if (t->op == KB_OP_GLOB && !is_plain(&t->value))
		return true;
	return kb_filter_may(f, class, t->value.text, t->value.len);
}

static bool may_time(const struct kb_term *t, const struct kb_filter *f)
{
	int64_t low = (int64_t)f->head.min_time, high = (int64_t)f->head.max_time;

	switch (t->op) {
	case KB_OP_LT:
		return low < t->value.number;
	case KB_OP_LE:
		return low <= t->value.number;
	case KB_OP_GT:
		return high > t->value.number;
	case KB_OP_GE:
		return high >= t->value.number;
	default:
		return low <= t->value.number && t->value.number <= high;
	}
}

static bool may_rule(const struct kb_term *t, const struct kb_session *s, const struct kb_filter *f)
{
	struct kb_record record = {0};
	const struct kb_row row = {.session = s, .record = &record};

	for (uint32_t i = 0; i < s->n_rules; i++) {
		record.rule = i;
		if (kb_value_match(t, &row) && kb_filter_may_number(f, KB_FILTER_RULE, i))
			return true;
	}
	return false;
}

/* The values that a field with words has in the block, as bits; false when it is another field. */
static bool word_bits(const struct kb_field *field, const struct kb_filter *f, uint64_t *ret)
{
	const struct {
		const struct kb_words *words;
		uint64_t bits;
	} known[] = {{&kb_event_words, f->head.events}, {&kb_decision_words, f->head.decisions},
		{&kb_outcome_words, f->head.outcomes}, {&kb_lane_words, f->head.lanes}};

	for (size_t i = 0; i < KB_ARRAY_LEN(known); i++)
		if (field->words && field->words == known[i].words) {
			*ret = known[i].bits;
			return true;
		}
	return false;
}

static bool may_word(const struct kb_term *t, uint64_t bits, bool negated)
{
	uint64_t one;

	if (t->op != KB_OP_EQ)
		return true;
	one = UINT64_C(1) << t->value.number;
	return negated ? (bits & ~one) != 0 : (bits & one) != 0;
}

static bool may_compare(
	const struct kb_term *t, const struct kb_session *s, const struct kb_filter *f)
{
	const char *name = t->field->name;
	uint64_t bits;

	if (word_bits(t->field, f, &bits))
		return may_word(t, bits, false);
	if (t->field->kind == KB_KIND_TIME)
		return may_time(t, f);
	if (t->field->kind == KB_KIND_RULE)
		return may_rule(t, s, f);
	if (strcmp(name, "path") == 0)
		return may_path(t, f, KB_FILTER_PATH, KB_FILTER_UNDER, KB_FILTER_NAME);
	if (strcmp(name, "exe") == 0)
		return may_path(t, f, KB_FILTER_EXE, KB_FILTER_EXE_UNDER, KB_FILTER_EXE_NAME);
	if (strcmp(name, "comm") == 0)
		return may_text(t, f, KB_FILTER_COMM);
	if (strcmp(name, "host") == 0)
		return may_text(t, f, KB_FILTER_HOST);
	if (t->op != KB_OP_EQ)
		return true;
	if (strcmp(name, "pid") == 0 && t->value.number > 0 && t->value.number <= UINT32_MAX)
		return kb_filter_may_number(f, KB_FILTER_PID, (uint32_t)t->value.number);
	if (strcmp(name, "port") == 0 && t->value.number > 0 && t->value.number <= UINT32_MAX)
		return kb_filter_may_number(f, KB_FILTER_PORT, (uint32_t)t->value.number);
	if (t->field->kind == KB_KIND_IP && t->value.ip_bits == 8 * t->value.ip_len)
		return kb_filter_may(f, KB_FILTER_ADDRESS, t->value.ip, t->value.ip_len);
	return true;
}

static bool may(const struct kb_plan *plan, uint32_t at, const struct kb_session *s,
	const struct kb_filter *f)
{
	const struct kb_term *t = &plan->expr->nodes[at], *below;
	uint64_t bits;

	switch (t->kind) {
	case KB_NODE_AND:
		return may(plan, t->left, s, f) && may(plan, t->right, s, f);
	case KB_NODE_OR:
		return may(plan, t->left, s, f) || may(plan, t->right, s, f);
	case KB_NODE_NOT:
		/* Only "is another word" can be ruled out; for the rest, everything may. */
		below = &plan->expr->nodes[t->left];
		return below->kind != KB_NODE_COMPARE || !word_bits(below->field, f, &bits) ||
		       may_word(below, bits, true);
	default:
		return may_compare(t, s, f);
	}
}

bool kb_plan_may(const struct kb_plan *plan, const struct kb_session *session,
	const struct kb_filter *filter)
{
	if ((int64_t)filter->head.max_time < plan->since ||
		(int64_t)filter->head.min_time > plan->until)
		return false;
	return !plan->expr || may(plan, plan->expr->root, session, filter);
}
