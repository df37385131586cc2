/* Text to tokens. A word is anything that is not white space, a quote, a comment or punctuation, so
 * that names, numbers, @groups and globs need no quotes; `..` ends a word, for ranges. */
#include <string.h>

#include "policy/ast.h"
#include "supervisor/base/str.h"

#define PUNCT_CHARS "{}()|&,;=<>!"

struct lexer {
	const struct kb_source *source;
	struct kb_arena *arena;
	struct kb_diags *diags;
	struct kb_tokens *out;
	size_t at;
	size_t line_start;
	unsigned line;
	bool first;
};

static struct kb_pos pos_at(const struct lexer *lx, size_t begin, size_t end)
{
	return (struct kb_pos){.source = lx->source,
		.line = lx->line,
		.col = (unsigned)(begin - lx->line_start + 1),
		.len = (unsigned)(end > begin ? end - begin : 1)};
}

static int push(struct lexer *lx, enum kb_tok kind, size_t begin, size_t end, const char *text)
{
	struct kb_token *token = KB_ARENA_PUSH(lx->arena, lx->out);

	if (!token)
		return -1;
	token->kind = kind;
	token->pos = pos_at(lx, begin, end);
	token->text = text;
	token->offset = begin;
	token->first = lx->first;
	lx->first = false;
	return text ? 0 : -1;
}

static bool word_char(char c)
{
	return (unsigned char)c > ' ' && c != 0x7f && c != '"' && c != '#' &&
	       !strchr(PUNCT_CHARS, c);
}

static void skip_space(struct lexer *lx)
{
	const char *text = lx->source->text;

	while (lx->at < lx->source->len) {
		char c = text[lx->at];

		if (c == '#') {
			while (lx->at < lx->source->len && text[lx->at] != '\n')
				lx->at++;
		} else if (c == '\n') {
			lx->line++;
			lx->line_start = ++lx->at;
			lx->first = true;
		} else if (c == ' ' || c == '\t' || c == '\r') {
			lx->at++;
		} else {
			return;
		}
	}
}

static int hex(char c)
{
	return c >= '0' && c <= '9'		    ? c - '0'
	       : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
						    : -1;
}

/* One escape sequence at text[i] == '\\'; appends to out. Returns how many bytes it took, 0 when it
 * is none. */
static size_t unescape(const char *text, size_t left, char *out)
{
	static const char from[] = "\"\\nt", to[] = "\"\\\n\t";
	const char *hit;

	if (left < 2)
		return 0;
	hit = text[1] ? strchr(from, text[1]) : NULL;
	if (hit) {
		*out = to[hit - from];
		return 2;
	}
	if (text[1] == 'x' && left >= 4 && hex(text[2]) >= 0 && hex(text[3]) >= 0) {
		*out = (char)(hex(text[2]) << 4 | hex(text[3]));
		return *out ? 4 : 0;
	}
	return 0;
}

static int lex_string(struct lexer *lx)
{
	const char *text = lx->source->text;
	size_t begin = lx->at, end = begin + 1, len = 0, max = lx->source->len;
	char *value;

	while (end < max && text[end] != '"' && text[end] != '\n')
		end += text[end] == '\\' && end + 1 < max && text[end + 1] != '\n' ? 2 : 1;
	end = end > max ? max : end;
	value = kb_arena_alloc(lx->arena, end - begin + 1);
	if (!value)
		return -1;
	if (end == max || text[end] != '"') {
		kb_diag_error(lx->diags, pos_at(lx, begin, end), "this string does not end");
		lx->at = end;
		return push(lx, KB_TOK_STRING, begin, end, value);
	}
	for (size_t i = begin + 1; i < end;) {
		size_t step = text[i] == '\\' ? unescape(text + i, end - i, value + len) : 0;

		if (text[i] == '\\' && !step) {
			kb_diag_error(lx->diags, pos_at(lx, i, i + 2), "not an escape sequence");
			kb_diag_hint(lx->diags, "known: \\\" \\\\ \\n \\t \\xHH");
			step = 2;
		} else if (!step) {
			if (!text[i])
				kb_diag_error(lx->diags, pos_at(lx, i, i + 1), "a NUL byte");
			value[len] = text[i];
			step = 1;
		}
		len++;
		i += step;
	}
	value[len < end - begin ? len : end - begin] = '\0';
	lx->at = end + 1;
	return push(lx, KB_TOK_STRING, begin, end + 1, value);
}

static int lex_punct(struct lexer *lx)
{
	static const char *const two[] = {"!=", "<=", ">=", "==", ".."};
	const char *text = lx->source->text + lx->at;
	size_t len = 1;

	for (size_t i = 0; i < sizeof(two) / sizeof(*two); i++)
		if (lx->at + 1 < lx->source->len && !strncmp(text, two[i], 2))
			len = 2;
	lx->at += len;
	return push(lx, KB_TOK_PUNCT, lx->at - len, lx->at, kb_arena_strndup(lx->arena, text, len));
}

static int lex_word(struct lexer *lx)
{
	const char *text = lx->source->text;
	size_t begin = lx->at, max = lx->source->len;

	while (lx->at < max && word_char(text[lx->at]) && strncmp(text + lx->at, "..", 2) != 0)
		lx->at++;
	/* ${NAME} is one word although it has braces. */
	if (lx->at < max && text[lx->at] == '{' && lx->at > begin && text[lx->at - 1] == '$') {
		while (lx->at < max && text[lx->at] != '}' && text[lx->at] != '\n')
			lx->at++;
		lx->at += lx->at < max && text[lx->at] == '}';
	}
	return push(lx, KB_TOK_WORD, begin, lx->at,
		kb_arena_strndup(lx->arena, text + begin, lx->at - begin));
}

static void check_utf8(const struct kb_source *source, struct kb_diags *diags)
{
	const char *at = source->text, *end = source->text + source->len;

	for (unsigned line = 1; at < end; line++) {
		const char *eol = memchr(at, '\n', (size_t)(end - at));
		size_t len = (size_t)((eol ? eol : end) - at), good = len;

		if (!kb_utf8_valid(at, len)) {
			while (good && !kb_utf8_valid(at, good))
				good--;
			kb_diag_error(diags,
				(struct kb_pos){.source = source,
					.line = line,
					.col = (unsigned)good + 1,
					.len = 1},
				"not UTF-8");
			kb_diag_hint(diags, "write other bytes of a path as \\xHH");
			return;
		}
		at += len + 1;
	}
}

int kb_lex(const struct kb_source *source, struct kb_arena *arena, struct kb_tokens *ret,
	struct kb_diags *diags)
{
	struct lexer lx = {.source = source,
		.arena = arena,
		.diags = diags,
		.out = ret,
		.line = 1,
		.first = true};
	int r = 0;

	check_utf8(source, diags);
	for (skip_space(&lx); r == 0 && lx.at < source->len; skip_space(&lx)) {
		const char *text = source->text + lx.at;

		if (*text == '"') {
			r = lex_string(&lx);
		} else if (*text && (strchr(PUNCT_CHARS, *text) || !strncmp(text, "..", 2))) {
			r = lex_punct(&lx);
		} else if (word_char(*text)) {
			r = lex_word(&lx);
		} else {
			kb_diag_error(diags, pos_at(&lx, lx.at, lx.at + 1), "a control character");
			lx.at++;
		}
	}
	return r < 0 ? r : push(&lx, KB_TOK_EOF, lx.at, lx.at, "");
}
