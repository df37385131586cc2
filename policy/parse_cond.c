/* Conditions on system call arguments:
 *
 *	cond    := terms { "or" terms } "}"
 *	terms   := term { ( "," | ";" | "and" ) term }
 *	term    := operand comparison
 *	operand := NAME [ "&" bits ] | "(" operand ")"
 *	comparison := ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) bits
 *	            | [ "not" ] "in" item { "|" item } | "only" bits
 *	            | "has" ( "any" | "all" | "none" ) "of" bits
 *	item    := bits1 [ ".." bits1 ]        bits := atom { "|" atom }
 *	bits1   := atom | "(" bits ")"
 */
#include <string.h>

#include "policy/parse.h"
#include "supervisor/base/util.h"

static int parse_atom(struct kb_parser *ps, struct kb_operands *out)
{
	if (kb_parse_peek(ps)->kind != KB_TOK_WORD)
		return kb_parse_fail(ps, "a constant or a number");
	return kb_parse_push(ps, out, kb_parse_next(ps));
}

static int parse_bits(struct kb_parser *ps, struct kb_operands *out)
{
	bool paren = kb_parse_accept(ps, "(");
	int r;

	do {
		r = parse_atom(ps, out);
	} while (!r && kb_parse_accept(ps, "|"));
	return !r && paren ? kb_parse_expect(ps, ")") : r;
}

static int parse_item(struct kb_parser *ps, struct kb_operands *out)
{
	return kb_parse_is(ps, "(") ? parse_bits(ps, out) : parse_atom(ps, out);
}

static int parse_operand(struct kb_parser *ps, struct kb_term *term)
{
	const struct kb_token *token = kb_parse_peek(ps);
	bool paren = kb_parse_accept(ps, "(");
	int r;

	token = kb_parse_peek(ps);
	if (token->kind != KB_TOK_WORD)
		return kb_parse_fail(ps, "the name of an argument");
	term->arg.text = token->text;
	term->arg.pos = token->pos;
	ps->at++;
	if (kb_parse_accept(ps, "&")) {
		r = parse_bits(ps, &term->mask);
		if (r)
			return r;
	}
	return paren ? kb_parse_expect(ps, ")") : 0;
}

static int parse_list(struct kb_parser *ps, struct kb_term *term)
{
	do {
		struct kb_value *value;
		int r;

		if (term->values.len >= KB_OPERANDS_MAX)
			return kb_parse_fail(ps, "fewer values");
		value = KB_ARENA_PUSH(ps->arena, &term->values);
		if (!value)
			return -1;
		r = parse_item(ps, &value->lo);
		if (!r && kb_parse_accept(ps, ".."))
			r = parse_item(ps, &value->hi);
		if (r)
			return r;
	} while (kb_parse_accept(ps, "|"));
	return 0;
}

static int parse_one(struct kb_parser *ps, struct kb_term *term)
{
	struct kb_value *value = KB_ARENA_PUSH(ps->arena, &term->values);

	return value ? parse_bits(ps, &value->lo) : -1;
}

static int parse_has(struct kb_parser *ps, struct kb_term *term)
{
	static const char *const names[] = {"any", "all", "none"};
	static const enum kb_term_op ops[] = {KB_OP_ANY, KB_OP_ALL, KB_OP_NOT};

	for (size_t i = 0; i < KB_ARRAY_LEN(names); i++)
		if (kb_parse_accept(ps, names[i])) {
			int r = kb_parse_expect(ps, "of");

			term->op = ops[i];
			return r ? r : parse_one(ps, term);
		}
	return kb_parse_fail(ps, "any of, all of or none of");
}

static int parse_comparison(struct kb_parser *ps, struct kb_term *term)
{
	static const struct {
		const char *text;
		enum kb_term_op op;
	} ops[] = {{"=", KB_OP_EQ}, {"==", KB_OP_EQ}, {"!=", KB_OP_NE}, {"<=", KB_OP_LE},
		{"<", KB_OP_LT}, {">=", KB_OP_GE}, {">", KB_OP_GT}, {"only", KB_OP_ONLY}};

	term->op_pos = kb_parse_peek(ps)->pos;
	if (kb_parse_accept(ps, "has"))
		return parse_has(ps, term);
	term->op = kb_parse_accept(ps, "not") ? KB_OP_NOT_IN : KB_OP_IN;
	if (kb_parse_accept(ps, "in"))
		return parse_list(ps, term);
	if (term->op == KB_OP_NOT_IN)
		return kb_parse_fail(ps, "'in' after 'not'");
	for (size_t i = 0; i < KB_ARRAY_LEN(ops); i++)
		if (kb_parse_accept(ps, ops[i].text)) {
			term->op = ops[i].op;
			return parse_one(ps, term);
		}
	return kb_parse_fail(
		ps, "a comparison: = != < <= > >= in, not in, has any|all|none of, only");
}

static int parse_terms(struct kb_parser *ps, struct kb_terms *terms)
{
	do {
		struct kb_term *term;
		int r;

		if (kb_parse_is(ps, "}") && terms->len)
			return 0;
		if (terms->len >= KB_TERMS_MAX)
			return kb_parse_fail(ps, "fewer terms");
		term = KB_ARENA_PUSH(ps->arena, terms);
		if (!term)
			return -1;
		r = parse_operand(ps, term);
		if (!r)
			r = parse_comparison(ps, term);
		if (r)
			return r;
	} while (
		kb_parse_accept(ps, ",") || kb_parse_accept(ps, ";") || kb_parse_accept(ps, "and"));
	return 0;
}

int kb_parse_cond(struct kb_parser *ps, struct kb_alts *ret)
{
	do {
		struct kb_terms *terms;
		int r;

		if (ret->len >= KB_ALTS_MAX)
			return kb_parse_fail(ps, "fewer alternatives");
		terms = KB_ARENA_PUSH(ps->arena, ret);
		if (!terms)
			return -1;
		r = parse_terms(ps, terms);
		if (r)
			return r;
	} while (kb_parse_accept(ps, "or"));
	return kb_parse_expect(ps, "}");
}
