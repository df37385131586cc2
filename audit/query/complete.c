/* What may come next in an expression that is being typed. Walks what is there already with the
 * grammar of expr.h in mind, but forgives: a shell asks before the text is whole. */
#include <ctype.h>
#include <string.h>

#include "expr.h"
#include "supervisor/base/util.h"

#define ERRORS_MAX 256	/* error numbers that are asked for names */
#define CALLS_MAX  1024 /* system calls, the same */

enum state { STATE_TERM, STATE_OPERATOR, STATE_VALUE, STATE_LIST, STATE_JOIN };

struct walk {
	enum state state;
	const struct kb_field *field; /* of the comparison that was begun */
	bool first;		      /* no token yet */
};

/* The length of the token at text, which is no blank; quoted text is one. */
static size_t token_len(const char *text)
{
	size_t n = 1;

	if (strchr("(),", *text))
		return 1;
	if (strchr("=!<>~", *text))
		return strspn(text, "=!<>~");
	if (*text == '"' || *text == '\'') {
		while (text[n] && text[n] != *text)
			n++;
		return text[n] ? n + 1 : n;
	}
	return strcspn(text, " \t\n(),=!<>~");
}

static bool is(const char *token, size_t len, const char *word)
{
	return len == strlen(word) && memcmp(token, word, len) == 0;
}

static enum state after_term(struct walk *w, const char *token, size_t len)
{
	if (is(token, len, "not") || is(token, len, "("))
		return STATE_TERM;
	w->field = kb_field_find(token, len);
	if (w->field)
		return STATE_OPERATOR;
	/* The command line may begin with the name of a session. */
	return w->first ? STATE_TERM : STATE_JOIN;
}

static enum state after(struct walk *w, const char *token, size_t len)
{
	switch (w->state) {
	case STATE_TERM:
		return after_term(w, token, len);
	case STATE_OPERATOR:
		if (is(token, len, "not"))
			return STATE_OPERATOR;
		return is(token, len, "in") ? STATE_LIST : STATE_VALUE;
	case STATE_VALUE:
		return STATE_JOIN;
	case STATE_LIST:
		return is(token, len, ")") ? STATE_JOIN : STATE_LIST;
	default:
		return is(token, len, "and") || is(token, len, "or") ? STATE_TERM : STATE_JOIN;
	}
}

static void offer_values(const struct kb_field *field, kb_offer_fn offer, void *arg)
{
	const uint32_t arch = kb_arch_native();
	const char *name;

	switch (field->kind) {
	case KB_KIND_WORD:
		for (unsigned i = 0; i < field->words->n; i++)
			if (field->words->names[i])
				offer(field->words->names[i], field->name, arg);
		break;
	case KB_KIND_FLAGS:
		for (size_t i = 0; (name = kb_flag_name(i)); i++)
			offer(name, field->name, arg);
		break;
	case KB_KIND_ERRNO:
		for (int i = 1; i < ERRORS_MAX; i++)
			if ((name = kb_error_name(i)))
				offer(name, field->name, arg);
		break;
	case KB_KIND_SIGNAL:
		for (int i = 1; (name = kb_signal_name(i)); i++)
			offer(name, field->name, arg);
		break;
	case KB_KIND_SYSCALL:
		for (int i = 0; i < CALLS_MAX; i++)
			if ((name = kb_syscall_name(arch, i)))
				offer(name, field->name, arg);
		break;
	case KB_KIND_TIME:
		offer("today", "since midnight", arg);
		offer("yesterday", "since the midnight before", arg);
		break;
	default:
		break; /* free text, or live names: the caller's */
	}
}

static void offer_next(const struct walk *w, kb_offer_fn offer, void *arg)
{
	static const char *const operators[][2] = {{"=", "equals"}, {"!=", "differs"},
		{"<", "less"}, {"<=", "at most"}, {">", "more"}, {">=", "at least"},
		{"~", "matches a pattern; flags: has them"}, {"in", "one of ( , )"},
		{"not", "not in"}};
	const struct kb_field *fields;
	size_t n;

	switch (w->state) {
	case STATE_TERM:
		fields = kb_field_table(&n);
		for (size_t i = 0; i < n; i++)
			offer(fields[i].name, fields[i].help, arg);
		offer("not", "the opposite of what follows", arg);
		break;
	case STATE_OPERATOR:
		for (size_t i = 0; i < KB_ARRAY_LEN(operators); i++)
			offer(operators[i][0], operators[i][1], arg);
		break;
	case STATE_VALUE:
	case STATE_LIST:
		offer_values(w->field, offer, arg);
		break;
	case STATE_JOIN:
		offer("and", "both hold", arg);
		offer("or", "one of both holds", arg);
		break;
	}
}

const char *kb_query_complete(const char *before, kb_offer_fn offer, void *arg)
{
	struct walk w = {.state = STATE_TERM, .first = true};

	for (const char *at = before; *at;) {
		size_t len;

		if (isspace((unsigned char)*at)) {
			at++;
			continue;
		}
		len = token_len(at);
		w.state = after(&w, at, len);
		w.first = false;
		at += len;
	}
	offer_next(&w, offer, arg);
	return w.state == STATE_VALUE || w.state == STATE_LIST ? w.field->name : NULL;
}
