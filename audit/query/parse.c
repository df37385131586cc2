/* Lexer and parser of expressions: recursive descent, a token of look-ahead, bounded in depth and
 * size. Nodes live in one array and name each other by index. */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "expr.h"
#include "supervisor/base/util.h"

enum token { TOK_END, TOK_WORD, TOK_QUOTED, TOK_OP, TOK_OPEN, TOK_CLOSE, TOK_COMMA, TOK_BAD };

struct parser {
	const char *text;
	size_t len, pos;
	enum token token;
	size_t at, token_len; /* of the token, with its quotes */
	enum kb_op op;
	const struct kb_expr_options *options;
	struct kb_expr *expr;
	struct kb_expr_error *error;
	unsigned depth;
	int failed; /* negative enum kb_errcode */
};

static bool KB_PRINTF(4, 5) fail_at(struct parser *p, size_t at, size_t len, const char *fmt, ...)
{
	va_list ap;

	if (p->failed)
		return false;
	p->failed = -KB_ERR_USAGE;
	p->error->at = at;
	p->error->len = len;
	va_start(ap, fmt);
	vsnprintf(p->error->what, sizeof(p->error->what), fmt, ap);
	va_end(ap);
	return false;
}

static void hint(struct parser *p, const char *fmt, const char *word)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	if (word)
		snprintf(p->error->hint, sizeof(p->error->hint), fmt, word);
#pragma GCC diagnostic pop
}

/* ---- Tokens ---------------------------------------------------------------------------------- */

static const struct {
	const char *text;
	enum kb_op op;
} operators[] = {{"!=", KB_OP_NE}, {"<=", KB_OP_LE}, {">=", KB_OP_GE}, {"=", KB_OP_EQ},
	{"<", KB_OP_LT}, {">", KB_OP_GT}, {"~", KB_OP_GLOB}};

/* Spellings of other languages, and how it is written here. */
static const struct {
	const char *theirs, *ours;
} foreign[] = {{"==", "="}, {"&&", "and"}, {"||", "or"}, {"=~", "~"}, {"!~", "not … ~ …"},
	{"<>", "!="}, {"&", "and"}, {"|", "or"}, {"!", "not"}};

static bool word_char(char c, bool value)
{
	return !isspace((unsigned char)c) && !strchr("()=!<>,\"'", c) && c != '\0' &&
	       (value || !strchr("~&|", c));
}

static void quoted(struct parser *p)
{
	char quote = p->text[p->at];
	size_t i = p->at + 1;

	while (i < p->len && p->text[i] != quote)
		i += p->text[i] == '\\' && i + 1 < p->len ? 2 : 1;
	if (i >= p->len) {
		fail_at(p, p->at, p->len - p->at, "this quote is not closed");
		p->token = TOK_BAD;
		return;
	}
	p->token = TOK_QUOTED;
	p->pos = i + 1;
}

static bool operator_token(struct parser *p)
{
	const char *s = p->text + p->at;

	for (size_t i = 0; i < KB_ARRAY_LEN(foreign); i++) {
		if (strncmp(s, foreign[i].theirs, strlen(foreign[i].theirs)) != 0 ||
			(strcmp(foreign[i].theirs, "!") == 0 && s[1] == '='))
			continue;
		fail_at(p, p->at, strlen(foreign[i].theirs), "'%s' is written '%s' here",
			foreign[i].theirs, foreign[i].ours);
		p->token = TOK_BAD;
		return true;
	}
	for (size_t i = 0; i < KB_ARRAY_LEN(operators); i++) {
		if (strncmp(s, operators[i].text, strlen(operators[i].text)) != 0)
			continue;
		p->op = operators[i].op;
		p->token = TOK_OP;
		p->pos = p->at + strlen(operators[i].text);
		return true;
	}
	return false;
}

/* `value`: where a value is expected, ~ and | are part of a word. */
static void next(struct parser *p, bool value)
{
	char c;

	while (p->pos < p->len && isspace((unsigned char)p->text[p->pos]))
		p->pos++;
	p->at = p->pos;
	c = p->pos < p->len ? p->text[p->pos] : '\0';
	if (p->failed || p->pos >= p->len) {
		p->token = p->failed ? TOK_BAD : TOK_END;
	} else if (c == '(' || c == ')' || c == ',') {
		p->token = c == '(' ? TOK_OPEN : c == ')' ? TOK_CLOSE : TOK_COMMA;
		p->pos++;
	} else if (c == '"' || c == '\'') {
		quoted(p);
	} else if (word_char(c, value)) {
		p->token = TOK_WORD;
		while (p->pos < p->len && word_char(p->text[p->pos], value))
			p->pos++;
	} else if (!operator_token(p)) {
		fail_at(p, p->at, 1, "this character is not expected here");
		p->token = TOK_BAD;
	}
	p->token_len = p->pos - p->at;
}

static bool is_word(const struct parser *p, const char *word)
{
	return p->token == TOK_WORD && p->token_len == strlen(word) &&
	       strncasecmp(p->text + p->at, word, p->token_len) == 0;
}

/* ---- Nodes ----------------------------------------------------------------------------------- */

static bool add(struct parser *p, const struct kb_term *node, uint32_t *ret)
{
	struct kb_expr *expr = p->expr;
	uint32_t cap = expr->cap ? 2 * expr->cap : 16;
	struct kb_term *mem;

	if (expr->n_nodes >= KB_EXPR_NODES_MAX)
		return fail_at(p, p->at, p->token_len, "the expression is too long");
	if (expr->n_nodes == expr->cap) {
		mem = realloc(expr->nodes, cap * sizeof(*mem));
		if (!mem) {
			p->failed = p->failed ? p->failed : -KB_ERR_NOMEM;
			return false;
		}
		expr->nodes = mem;
		expr->cap = cap;
	}
	*ret = expr->n_nodes;
	expr->nodes[expr->n_nodes++] = *node;
	return true;
}

static bool add_pair(
	struct parser *p, enum kb_node_kind kind, uint32_t left, uint32_t right, uint32_t *ret)
{
	return add(p, &(struct kb_term){.kind = kind, .left = left, .right = right}, ret);
}

static bool expected(struct parser *p, const char *what)
{
	if (p->token == TOK_END)
		return fail_at(p, p->len, 1, "%s is missing here", what);
	return fail_at(p, p->at, p->token_len, "here should be %s", what);
}

/* ---- Grammar --------------------------------------------------------------------------------- */

static bool field(struct parser *p, const struct kb_field **ret)
{
	size_t n;
	const char *const *names = kb_field_names(&n);
	KB_FREE char *word = NULL;

	if (p->token != TOK_WORD)
		return expected(p, "a field name");
	*ret = kb_field_find(p->text + p->at, p->token_len);
	if (*ret)
		return true;
	word = strndup(p->text + p->at, p->token_len);
	fail_at(p, p->at, p->token_len, "there is no field '%.*s'", (int)KB_MIN(p->token_len, 60),
		p->text + p->at);
	hint(p, "did you mean %s?", word ? kb_closest(word, names, n) : NULL);
	return false;
}

static bool value(struct parser *p, const struct kb_field *f, enum kb_op op, uint32_t *ret)
{
	struct kb_term node = {.kind = KB_NODE_COMPARE, .field = f, .op = op};
	bool in_quotes = p->token == TOK_QUOTED;
	const char *text = p->text + p->at + in_quotes;
	size_t len = p->token_len - 2 * (size_t)in_quotes;

	if (p->token != TOK_WORD && p->token != TOK_QUOTED)
		return expected(p, "a value");
	p->error->what[0] = p->error->hint[0] = '\0';
	if (!kb_value_parse(f, op, text, len, in_quotes, p->options, &node.value, p->error)) {
		free(node.value.text);
		p->failed = p->failed		? p->failed
			    : p->error->what[0] ? -KB_ERR_USAGE
						: -KB_ERR_NOMEM;
		p->error->at = p->at;
		p->error->len = p->token_len;
		return false;
	}
	if (!add(p, &node, ret)) {
		free(node.value.text);
		return false;
	}
	next(p, false);
	return true;
}

static bool value_list(struct parser *p, const struct kb_field *f, bool negated, uint32_t *ret)
{
	uint32_t one;
	bool first = true;

	next(p, true);
	if (p->token != TOK_OPEN)
		return expected(p, "'(' and the values");
	do {
		next(p, true);
		if (!value(p, f, KB_OP_EQ, &one))
			return false;
		if (!first && !add_pair(p, KB_NODE_OR, *ret, one, &one))
			return false;
		*ret = one;
		first = false;
	} while (p->token == TOK_COMMA);
	if (p->token != TOK_CLOSE)
		return expected(p, "',' or ')'");
	next(p, false);
	return !negated || add_pair(p, KB_NODE_NOT, *ret, 0, ret);
}

static const char *kind_without_order(enum kb_kind kind)
{
	static const char *const words[] = {
		[KB_KIND_WORD] = "words",
		[KB_KIND_TEXT] = "text",
		[KB_KIND_PATH] = "paths",
		[KB_KIND_ARGV] = "arguments",
		[KB_KIND_SYSCALL] = "system calls",
		[KB_KIND_ERRNO] = "errors",
		[KB_KIND_SIGNAL] = "signals",
		[KB_KIND_FLAGS] = "flags",
		[KB_KIND_IP] = "addresses",
		[KB_KIND_RULE] = "rules",
		[KB_KIND_SESSION] = "sessions",
	};

	return words[kind];
}

static bool check_op(struct parser *p, const struct kb_field *f)
{
	bool ordered = f->kind == KB_KIND_NUMBER || f->kind == KB_KIND_TIME;

	if (!ordered && p->op >= KB_OP_LT && p->op <= KB_OP_GE)
		return fail_at(p, p->at, p->token_len, "%s have no order; use = != ~ or in",
			kind_without_order(f->kind));
	if (ordered && p->op == KB_OP_GLOB)
		return fail_at(p, p->at, p->token_len,
			"'~' compares text, and %s is a number; use = != < <= > >=", f->name);
	return true;
}

static bool comparison(struct parser *p, uint32_t *ret)
{
	const struct kb_field *f = NULL;
	enum kb_op op;
	bool negated;

	if (!field(p, &f))
		return false;
	next(p, false);
	negated = is_word(p, "not");
	if (negated)
		next(p, false);
	if (is_word(p, "in"))
		return value_list(p, f, negated, ret);
	if (negated)
		return expected(p, "'in' and a list");
	if (p->token != TOK_OP)
		return expected(p, "one of = != < <= > >= ~ in");
	if (!check_op(p, f))
		return false;
	op = p->op;
	next(p, true);
	if (op != KB_OP_NE)
		return value(p, f, op, ret);
	return value(p, f, KB_OP_EQ, ret) && add_pair(p, KB_NODE_NOT, *ret, 0, ret);
}

static bool disjunction(struct parser *p, uint32_t *ret);

static bool term(struct parser *p, uint32_t *ret)
{
	bool ok;

	if (++p->depth > KB_EXPR_DEPTH_MAX)
		return fail_at(p, p->at, p->token_len, "too deep inside parentheses");
	if (is_word(p, "not")) {
		next(p, false);
		ok = term(p, ret) && add_pair(p, KB_NODE_NOT, *ret, 0, ret);
	} else if (p->token == TOK_OPEN) {
		next(p, false);
		ok = disjunction(p, ret);
		if (ok && p->token != TOK_CLOSE)
			ok = expected(p, "')'");
		if (ok)
			next(p, false);
	} else {
		ok = comparison(p, ret);
	}
	p->depth--;
	return ok;
}

static bool conjunction(struct parser *p, uint32_t *ret)
{
	uint32_t right;

	if (!term(p, ret))
		return false;
	while (is_word(p, "and")) {
		next(p, false);
		if (!term(p, &right) || !add_pair(p, KB_NODE_AND, *ret, right, ret))
			return false;
	}
	return true;
}

static bool disjunction(struct parser *p, uint32_t *ret)
{
	uint32_t right;

	if (!conjunction(p, ret))
		return false;
	while (is_word(p, "or")) {
		next(p, false);
		if (!conjunction(p, &right) || !add_pair(p, KB_NODE_OR, *ret, right, ret))
			return false;
	}
	return true;
}

static bool whole(struct parser *p)
{
	if (p->len > KB_EXPR_MAX)
		return fail_at(p, 0, 1, "the expression is longer than %u bytes", KB_EXPR_MAX);
	next(p, false);
	if (p->token == TOK_END)
		return fail_at(p, 0, 1, "the expression is empty");
	if (!disjunction(p, &p->expr->root))
		return false;
	return p->token == TOK_END || expected(p, "'and', 'or' or the end");
}

int kb_expr_parse(const char *text, const struct kb_expr_options *options, struct kb_expr **ret,
	struct kb_expr_error *ret_error)
{
	struct parser p = {.text = text,
		.len = strlen(text),
		.options = options,
		.error = ret_error,
		.expr = calloc(1, sizeof(struct kb_expr))};

	*ret_error = (struct kb_expr_error){0};
	if (!p.expr)
		return -KB_ERR_NOMEM;
	if (!whole(&p) || p.failed) {
		kb_expr_destroy(p.expr);
		return p.failed ? p.failed : -KB_ERR_USAGE;
	}
	*ret = p.expr;
	return 0;
}

void kb_expr_destroy(struct kb_expr *expr)
{
	if (!expr)
		return;
	for (uint32_t i = 0; i < expr->n_nodes; i++)
		free(expr->nodes[i].value.text);
	free(expr->nodes);
	free(expr);
}

/* ---- Errors ---------------------------------------------------------------------------------- */

/* Columns count what is seen: each byte that does not continue a UTF-8 sequence. */
static size_t columns(const char *text, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++)
		n += ((unsigned char)text[i] & 0xc0) != 0x80;
	return n;
}

int kb_expr_error_render(
	const char *text, const struct kb_expr_error *error, struct kb_buf *out, struct kb_err *err)
{
	size_t total = strlen(text), at = KB_MIN(error->at, total), width;
	char what[4 * sizeof(error->what) + 1];
	KB_FREE char *before = kb_escape_dup(text, at);
	KB_FREE char *whole_text = kb_escape_dup(text, total);
	KB_FREE char *part = kb_escape_dup(text + at, KB_MIN(error->len, total - at));
	int r;

	if (!before || !whole_text || !part)
		return kb_err_nomem(err);
	width = KB_MAX(columns(part, strlen(part)), 1u);
	kb_escape(what, sizeof(what), error->what, strlen(error->what)); /* it quotes the text */
	r = kb_buf_printf(
		out, err, "%s\n%*s^", whole_text, (int)columns(before, strlen(before)), "");
	for (size_t i = 1; i < width && r == 0; i++)
		r = kb_buf_puts(out, "~", err);
	if (r == 0)
		r = kb_buf_printf(
			out, err, " %s%s%s\n", what, error->hint[0] ? "; " : "", error->hint);
	return r;
}

int kb_expr_error_set(const char *text, const struct kb_expr_error *error, struct kb_err *err)
{
	kb_err_set(err, KB_ERR_USAGE, "the query is not understood at column %zu: %s%s%s",
		columns(text, KB_MIN(error->at, strlen(text))) + 1, error->what,
		error->hint[0] ? "; " : "", error->hint);
	return kb_err_hint(err,
		"fields: time event syscall lane pid ppid tid exe comm argv path "
		"path2 flags host ip port secret bytes result errno signal decision outcome "
		"rule session agent machine seq; operators: = != < <= > >= ~ in and or "
		"not ( )");
}
