/* Values: from the text of a query to something that compares fast, and the comparison. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "expr.h"
#include "glob.h"
#include "supervisor/base/util.h"
#include "when.h"

#define NAMED_MAX 256 /* errors and signals: their numbers are below */

static bool KB_PRINTF(2, 3) wrong(struct kb_expr_error *error, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(error->what, sizeof(error->what), fmt, ap);
	va_end(ap);
	return false;
}

static void suggest(
	struct kb_expr_error *error, const char *word, const char *const *names, size_t n)
{
	const char *best = kb_closest(word, names, n);

	if (best)
		snprintf(error->hint, sizeof(error->hint), "did you mean %s?", best);
}

/* ---- Text ------------------------------------------------------------------------------------ */

static int hex(char c)
{
	if (isdigit((unsigned char)c))
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One escape at s (after the backslash): sets *ret, returns how many characters it took, 0 if it is
 * none. */
static size_t unescape(const char *s, size_t len, char *ret)
{
	static const char from[] = "ntr\\\"'", to[] = "\n\t\r\\\"'";
	const char *found = len && *s ? strchr(from, *s) : NULL;

	if (found) {
		*ret = to[found - from];
		return 1;
	}
	if (len >= 3 && *s == 'x' && hex(s[1]) >= 0 && hex(s[2]) >= 0) {
		*ret = (char)(hex(s[1]) * 16 + hex(s[2]));
		return 3;
	}
	return 0;
}

/* Screens show foreign bytes escaped; a query takes them the same way. In a pattern, what was
 * escaped stays ordinary: a wildcard character that comes of it is kept escaped for the matcher. */
static char *take_text(
	const char *text, size_t len, bool pattern, const char *home, size_t *ret_len)
{
	bool tilde = home && len && text[0] == '~' && (len == 1 || text[1] == '/');
	size_t home_len = tilde ? strlen(home) : 0, n = 0, took;
	char *out = malloc(2 * len + 2 * home_len + 1), c;

	if (!out)
		return NULL;
	for (size_t i = 0; i < home_len; i++) {
		if (pattern && strchr("*?[\\", home[i]))
			out[n++] = '\\';
		out[n++] = home[i];
	}
	for (size_t i = tilde; i < len; i++) {
		took = text[i] == '\\' ? unescape(text + i + 1, len - i - 1, &c) : 0;
		if (took == 0) {
			out[n++] = text[i];
			continue;
		}
		if (pattern && c && strchr("*?[\\", c))
			out[n++] = '\\';
		out[n++] = c;
		i += took;
	}
	out[n] = '\0';
	*ret_len = n;
	return out;
}

static bool parse_text(const struct kb_field *field, enum kb_op op, const char *text, size_t len,
	const struct kb_expr_options *options, struct kb_value *ret, struct kb_expr_error *error)
{
	const char *home = field->kind == KB_KIND_PATH ? options->home : NULL;

	ret->text = take_text(text, len, op == KB_OP_GLOB, home, &ret->len);
	if (!ret->text)
		return false;
	if (op == KB_OP_GLOB && kb_glob_check(ret->text, ret->len) >= 0)
		return wrong(error, "in this pattern a '[' is not closed, or a '\\' comes last");
	return true;
}

/* ---- Numbers --------------------------------------------------------------------------------- */

static bool to_number(const char *word, int64_t *ret)
{
	bool negative = word[0] == '-';
	uint64_t v;

	if (!kb_parse_u64(word + negative, &v) || v > INT64_MAX)
		return false;
	*ret = negative ? -(int64_t)v : (int64_t)v;
	return true;
}

static bool parse_number(const struct kb_field *field, const char *word, struct kb_value *ret,
	struct kb_expr_error *error)
{
	uint64_t size;

	if (to_number(word, &ret->number))
		return true;
	if (strcmp(field->name, "bytes") == 0 && kb_parse_size(word, &size)) {
		ret->number = (int64_t)KB_MIN(size, (uint64_t)INT64_MAX);
		return true;
	}
	return wrong(error, "%s is compared with a number", field->name);
}

static bool parse_word(const struct kb_field *field, const char *word, struct kb_value *ret,
	struct kb_expr_error *error)
{
	const char *known[KB_EVENT_MAX_];
	size_t n = 0;
	int v = kb_word_find(field->words, word, strlen(word));

	if (v >= 0) {
		ret->number = v;
		return true;
	}
	for (unsigned i = 0; i < field->words->n; i++)
		if (field->words->names[i])
			known[n++] = field->words->names[i];
	wrong(error, "there is no %s '%.60s'", field->name, word);
	suggest(error, word, known, n);
	if (!error->hint[0] && n <= 5)
		snprintf(error->hint, sizeof(error->hint), "it is one of %s %s %s %s%s%s", known[0],
			known[1], known[2], known[3], n > 4 ? " " : "", n > 4 ? known[4] : "");
	return false;
}

/* A number or a name of those that have names: errors, signals. */
static bool parse_named(const char *what, const char *word, int (*find)(const char *, size_t),
	const char *(*name_of)(int), struct kb_value *ret, struct kb_expr_error *error)
{
	const char *known[NAMED_MAX];
	size_t n = 0;
	int v = find(word, strlen(word));

	if (v > 0)
		ret->number = v;
	if (v > 0 || to_number(word, &ret->number))
		return true;
	for (int i = 1; i < NAMED_MAX; i++)
		if (name_of(i))
			known[n++] = name_of(i);
	wrong(error, "there is no %s '%.60s'", what, word);
	suggest(error, word, known, n);
	return false;
}

/* Names joined by |. Their values depend on the machine, so they are looked up again when a record
 * of another architecture is compared: the text is kept. */
static bool flags_value(const char *text, uint32_t arch, uint32_t *ret, struct kb_expr_error *error)
{
	size_t len;
	uint32_t bits;
	int64_t number;

	*ret = 0;
	for (const char *s = text;; s += len + 1) {
		len = strcspn(s, "|");
		KB_FREE char *word = strndup(s, len);

		if (!word)
			return false;
		if (kb_flag_find(word, len, arch, &bits)) {
			*ret |= bits;
		} else if (to_number(word, &number) && number >= 0 && number <= UINT32_MAX) {
			*ret |= (uint32_t)number;
		} else if (error) {
			const char *known[32];
			size_t n = 0;

			while (n < KB_ARRAY_LEN(known) && kb_flag_name(n)) {
				known[n] = kb_flag_name(n);
				n++;
			}
			wrong(error, "there is no flag '%.60s'", word);
			suggest(error, word, known, n);
			return false;
		}
		if (!s[len])
			return true;
	}
}

static bool parse_flags(const char *word, struct kb_value *ret, struct kb_expr_error *error)
{
	uint32_t bits;

	if (!flags_value(word, 0, &bits, error))
		return false;
	ret->number = bits;
	ret->text = strdup(word);
	return ret->text != NULL;
}

static bool parse_syscall(const char *word, struct kb_value *ret, struct kb_expr_error *error)
{
	uint32_t native = kb_arch_native();

	ret->number = -1;
	if (to_number(word, &ret->number))
		return true;
	if (kb_syscall_number(native, word) < 0 &&
		kb_syscall_number(kb_arch_parse("x86_64"), word) < 0 &&
		kb_syscall_number(kb_arch_parse("aarch64"), word) < 0)
		return wrong(error, "there is no system call '%.60s'", word);
	ret->text = strdup(word);
	ret->len = strlen(word);
	return ret->text != NULL;
}

/* ---- Addresses ------------------------------------------------------------------------------- */

static bool parse_ip(const char *word, struct kb_value *ret, struct kb_expr_error *error)
{
	char address[KB_IP_TEXT];
	size_t len = strcspn(word, "/");
	uint64_t bits;

	if (len >= sizeof(address))
		return wrong(error, "this is not an address");
	memcpy(address, word, len);
	address[len] = '\0';
	ret->ip_len = strchr(address, ':') ? 16 : 4;
	if (inet_pton(ret->ip_len == 16 ? AF_INET6 : AF_INET, address, ret->ip) != 1)
		return wrong(error, "'%.48s' is not an address", address);
	ret->ip_bits = (uint8_t)(8 * ret->ip_len);
	if (!word[len])
		return true;
	if (!kb_parse_u64(word + len + 1, &bits) || bits > 8u * ret->ip_len)
		return wrong(error, "a network is written like 10.0.0.0/8");
	ret->ip_bits = (uint8_t)bits;
	return true;
}

static bool ip_in(const struct kb_value *net, const struct kb_record *r)
{
	size_t whole = net->ip_bits / 8u, rest = net->ip_bits % 8u;

	if (r->address.len != net->ip_len || (net->ip_len == 4) != (r->family == 2))
		return false;
	if (memcmp(r->address.data, net->ip, whole) != 0)
		return false;
	return !rest || (r->address.data[whole] ^ net->ip[whole]) >> (8 - rest) == 0;
}

/* ---- Both ends ------------------------------------------------------------------------------- */

static bool parse_plain(const struct kb_field *field, enum kb_op op, const char *word,
	const struct kb_expr_options *options, struct kb_value *ret, struct kb_expr_error *error)
{
	switch (field->kind) {
	case KB_KIND_TIME:
		return kb_when_parse(word, options->now, options->utc, &ret->number) ||
		       wrong(error, "a time is written like 2026-11-23, \"2026-11-23 16:20\", "
				    "yesterday, or 2h for two hours ago");
	case KB_KIND_WORD:
		return parse_word(field, word, ret, error);
	case KB_KIND_SYSCALL:
		return parse_syscall(word, ret, error);
	case KB_KIND_ERRNO:
		return parse_named("error", word, kb_error_find, kb_error_name, ret, error);
	case KB_KIND_SIGNAL:
		return parse_named("signal", word, kb_signal_find, kb_signal_name, ret, error);
	case KB_KIND_FLAGS:
		return parse_flags(word, ret, error);
	case KB_KIND_IP:
		return parse_ip(word, ret, error);
	default:
		return parse_number(field, word, ret, error);
	}
}

static bool is_text(enum kb_kind kind)
{
	return kind == KB_KIND_TEXT || kind == KB_KIND_PATH || kind == KB_KIND_ARGV ||
	       kind == KB_KIND_RULE || kind == KB_KIND_SESSION;
}

bool kb_value_parse(const struct kb_field *field, enum kb_op op, const char *text, size_t len,
	bool quoted, const struct kb_expr_options *options, struct kb_value *ret,
	struct kb_expr_error *error)
{
	KB_FREE char *word = NULL;

	if (is_text(field->kind) || (op == KB_OP_GLOB && field->kind != KB_KIND_FLAGS))
		return parse_text(field, op, text, len, options, ret, error);
	word = strndup(text, len);
	return word && parse_plain(field, op, word, options, ret, error);
}

static bool text_match(const struct kb_term *node, struct kb_bytes text)
{
	const struct kb_value *v = &node->value;

	if (node->op == KB_OP_GLOB)
		return kb_glob_match(
			v->text, v->len, text.data, text.len, node->field->kind == KB_KIND_PATH);
	return text.len == v->len && memcmp(text.data, v->text, v->len) == 0;
}

static bool literal_match(const struct kb_term *node, const char *text)
{
	return text && text_match(node, (struct kb_bytes){(const uint8_t *)text, strlen(text)});
}

static bool argv_match(const struct kb_term *node, const struct kb_row *row)
{
	const struct kb_bytes *argv;
	size_t argc = kb_row_argv(row, &argv), len = 0;
	KB_FREE uint8_t *line = NULL;

	for (size_t i = 0; i < argc; i++) {
		if (text_match(node, argv[i]))
			return true;
		len += argv[i].len + 1;
	}
	if (argc < 2 || !(line = malloc(len)))
		return false;
	len = 0;
	for (size_t i = 0; i < argc; i++) {
		if (i)
			line[len++] = ' ';
		if (argv[i].len)
			memcpy(line + len, argv[i].data, argv[i].len);
		len += argv[i].len;
	}
	return text_match(node, (struct kb_bytes){line, len});
}

static bool rule_match(const struct kb_term *node, const struct kb_row *row)
{
	struct kb_bytes id;
	const uint8_t *hash;

	if (!node->field->text(row, &id))
		return false;
	if (text_match(node, id))
		return true;
	hash = id.data + id.len;
	while (hash > id.data && *hash != '#')
		hash--;
	return hash > id.data &&
	       text_match(node, (struct kb_bytes){id.data, (size_t)(hash - id.data)});
}

static bool number_match(enum kb_op op, int64_t a, int64_t b)
{
	switch (op) {
	case KB_OP_LT:
		return a < b;
	case KB_OP_LE:
		return a <= b;
	case KB_OP_GT:
		return a > b;
	case KB_OP_GE:
		return a >= b;
	default:
		return a == b;
	}
}

static bool flags_match(const struct kb_term *node, const struct kb_row *row)
{
	uint32_t want, have = row->record->flags;

	if (!row->record->has_flags ||
		!flags_value(node->value.text, kb_row_arch(row), &want, NULL))
		return false;
	if (node->op != KB_OP_GLOB)
		return have == want;
	/* The access mode is a number in the lowest bits, not bits. */
	if ((want & KB_OPEN_ACCMODE) && (have & KB_OPEN_ACCMODE) != (want & KB_OPEN_ACCMODE))
		return false;
	return (have & want & ~KB_OPEN_ACCMODE) == (want & ~KB_OPEN_ACCMODE);
}

static bool syscall_match(const struct kb_term *node, const struct kb_row *row)
{
	const char *name;

	if (row->record->syscall < 0)
		return false;
	if (!node->value.text)
		return row->record->syscall == node->value.number;
	name = kb_syscall_name(kb_row_arch(row), row->record->syscall);
	return literal_match(node, name);
}

/* `~` on a field whose values have names: the pattern is held against the name. */
static bool name_match(const struct kb_term *node, const struct kb_row *row, int64_t v)
{
	char ip[KB_IP_TEXT];

	switch (node->field->kind) {
	case KB_KIND_WORD:
		return literal_match(node, kb_word(node->field->words, (unsigned)v));
	case KB_KIND_ERRNO:
		return literal_match(node, kb_error_name((int)v));
	case KB_KIND_SIGNAL:
		return literal_match(node, kb_signal_name((int)v));
	case KB_KIND_IP:
		return kb_row_ip(row, ip) && literal_match(node, ip);
	default:
		return false;
	}
}

bool kb_value_match(const struct kb_term *node, const struct kb_row *row)
{
	const struct kb_field *field = node->field;
	struct kb_bytes text;
	int64_t v = 0;

	switch (field->kind) {
	case KB_KIND_TEXT:
	case KB_KIND_PATH:
		return field->text(row, &text) && text_match(node, text);
	case KB_KIND_ARGV:
		return argv_match(node, row);
	case KB_KIND_RULE:
		return rule_match(node, row);
	case KB_KIND_SESSION:
		return literal_match(node, row->session->name) ||
		       literal_match(node, row->session->id_text);
	case KB_KIND_FLAGS:
		return flags_match(node, row);
	case KB_KIND_SYSCALL:
		return syscall_match(node, row);
	case KB_KIND_IP:
		return node->op == KB_OP_GLOB ? name_match(node, row, 0)
					      : ip_in(&node->value, row->record);
	default:
		if (!field->number(row, &v))
			return false;
		return node->op == KB_OP_GLOB ? name_match(node, row, v)
					      : number_match(node->op, v, node->value.number);
	}
}

static bool match(const struct kb_expr *expr, uint32_t at, const struct kb_row *row)
{
	const struct kb_term *node = &expr->nodes[at];

	switch (node->kind) {
	case KB_NODE_AND:
		return match(expr, node->left, row) && match(expr, node->right, row);
	case KB_NODE_OR:
		return match(expr, node->left, row) || match(expr, node->right, row);
	case KB_NODE_NOT:
		return !match(expr, node->left, row);
	default:
		return kb_value_match(node, row);
	}
}

bool kb_expr_match(const struct kb_expr *expr, const struct kb_row *row)
{
	return !expr || match(expr, expr->root, row);
}
