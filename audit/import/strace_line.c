#include "strace_line.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char unfinished_mark[] = " <unfinished ...>";

static bool skip(char **p, const char *word)
{
	size_t len = strlen(word);

	if (strncmp(*p, word, len) != 0)
		return false;
	*p += len;
	return true;
}

static void skip_blanks(char **p)
{
	while (**p == ' ')
		(*p)++;
}

/* "[pid 12] " and "12 ": the process, when -f is on. */
static void parse_pid(char **p, struct kb_strace_line *line)
{
	char *q = *p, *end;
	bool bracket = skip(&q, "[pid");
	unsigned long v;

	skip_blanks(&q);
	if (!isdigit((unsigned char)*q))
		return;
	v = strtoul(q, &end, 10);
	if (v == 0 || v > UINT32_MAX || (bracket ? *end != ']' : *end != ' '))
		return;
	end++;
	skip_blanks(&end);
	line->pid = (uint32_t)v;
	*p = end;
}

/* Digits after the decimal point, as nanoseconds. */
static uint64_t parse_fraction(char **p)
{
	uint64_t ns = 0, unit = 100000000;

	if (**p != '.')
		return 0;
	for ((*p)++; isdigit((unsigned char)**p); (*p)++, unit /= 10)
		ns += (uint64_t)(**p - '0') * unit;
	return ns;
}

/* "1795488612.749884 " and "02:50:12.754842 ". */
static void parse_time(char **p, struct kb_strace_line *line)
{
	char *q = *p, *end;
	uint64_t part[3] = {0};
	size_t n;

	for (n = 0; n < 3; n++) {
		if (!isdigit((unsigned char)*q))
			return;
		part[n] = strtoull(q, &end, 10);
		q = end;
		if (*q != ':')
			break;
		q++;
	}
	if ((n != 0 && n != 2) || part[0] > UINT64_C(9000000000) || part[1] > 59 || part[2] > 60)
		return;
	line->time_of_day = n == 2;
	line->time = (n == 2 ? part[0] * 3600 + part[1] * 60 + part[2] : part[0]) * 1000000000;
	line->time += parse_fraction(&q);
	if (*q != ' ')
		return;
	line->has_time = true;
	skip_blanks(&q);
	*p = q;
}

/* The character that ends what `open` starts, or 0. */
static char closing(char open)
{
	switch (open) {
	case '(':
		return ')';
	case '[':
		return ']';
	case '{':
		return '}';
	default:
		return 0;
	}
}

/* The end of a quoted string that starts at p (past its closing quote), or NULL. */
static char *string_end(char *p)
{
	for (p++; *p && *p != '"'; p++)
		if (*p == '\\' && p[1])
			p++;
	return *p ? p + 1 : NULL;
}

/* The end of a path that -y put in angle brackets at p (past the bracket), or p when it is none.
 * The path may hold anything; strace escapes '>' in it. */
static char *annotation_end(char *p)
{
	char *q = strchr(p, '>');

	if (p[1] != '/' && !isalpha((unsigned char)p[1]))
		return p;
	return q ? q + 1 : p;
}

#define KB_STRACE_DEPTH_MAX 32

/* Cut "a, b, {c, d}) = …" into arguments; returns what follows the call's own ')', or NULL. */
static char *split_args(char *p, struct kb_strace_line *line)
{
	char stack[KB_STRACE_DEPTH_MAX], *start = p, *next;
	size_t depth = 0;

	for (; *p; p = next) {
		next = p + 1;
		if (*p == '"') {
			next = string_end(p);
			if (!next)
				return NULL;
		} else if (*p == '<' && p[1] != '<') {
			next = annotation_end(p);
			next = next == p ? p + 1 : next;
		} else if (closing(*p)) {
			if (depth == KB_STRACE_DEPTH_MAX)
				return NULL;
			stack[depth++] = closing(*p);
		} else if (depth > 0 && *p == stack[depth - 1]) {
			depth--;
		} else if (depth == 0 && (*p == ',' || *p == ')')) {
			bool last = *p == ')';

			*p = '\0';
			if (line->n_args < KB_STRACE_ARGS_MAX && *start)
				line->args[line->n_args++] = start;
			if (last)
				return p + 1;
			while (*next == ' ')
				next++;
			start = next;
		}
	}
	return NULL;
}

/* " = -1 ENOENT (No such file…)", " = 3</path>", " = ?", " = 0x7f… (flags …)". */
static void parse_value(char *p, struct kb_strace_line *line)
{
	char *end;

	skip_blanks(&p);
	if (*p != '=')
		return;
	p++;
	skip_blanks(&p);
	errno = 0;
	line->value = (int64_t)(p[0] == '0' && p[1] == 'x' ? (long long)strtoull(p, &end, 16)
							   : strtoll(p, &end, 10));
	line->has_value = end != p && errno == 0;
	if (!line->has_value || *end != ' ' || end[1] != 'E')
		return;
	line->error = ++end;
	while (isupper((unsigned char)*end) || isdigit((unsigned char)*end))
		end++;
	*end = '\0';
}

bool kb_strace_call_parse(char *text, struct kb_strace_line *ret)
{
	char *p = text, *after;

	while (islower((unsigned char)*p) || isdigit((unsigned char)*p) || *p == '_')
		p++;
	if (p == text || *p != '(')
		return false;
	*p++ = '\0';
	ret->name = text;
	ret->n_args = 0;
	after = split_args(p, ret);
	if (!after)
		return false;
	parse_value(after, ret);
	ret->kind = KB_STRACE_CALL;
	return true;
}

/* "+++ exited with 1 +++", "+++ killed by SIGKILL (core dumped) +++". */
static void parse_end(char *p, struct kb_strace_line *line)
{
	char *end;

	line->kind = KB_STRACE_OTHER;
	if (skip(&p, "exited with ")) {
		line->value = strtol(p, &end, 10);
		line->kind = end != p ? KB_STRACE_EXITED : KB_STRACE_OTHER;
	} else if (skip(&p, "killed by ")) {
		line->name = p;
		p[strcspn(p, " ")] = '\0';
		line->kind = KB_STRACE_KILLED;
	}
}

bool kb_strace_line_parse(char *text, struct kb_strace_line *ret)
{
	size_t len = strlen(text), mark = sizeof(unfinished_mark) - 1;
	char *p = text, *end;

	*ret = (struct kb_strace_line){.kind = KB_STRACE_OTHER};
	parse_pid(&p, ret);
	parse_time(&p, ret);
	if (skip(&p, "+++ ")) {
		parse_end(p, ret);
		return true;
	}
	if (strncmp(p, "--- ", 4) == 0)
		return true;
	if (skip(&p, "<... ")) {
		end = strstr(p, " resumed>");
		if (!end)
			return false;
		*end = '\0';
		ret->name = p;
		ret->rest = end + sizeof(" resumed>") - 1;
		ret->kind = KB_STRACE_RESUMED;
		return true;
	}
	if (len >= mark && strcmp(text + len - mark, unfinished_mark) == 0 &&
		text + len - mark >= p) {
		text[len - mark] = '\0';
		ret->rest = p;
		ret->kind = KB_STRACE_UNFINISHED;
		return strchr(p, '(') != NULL;
	}
	return kb_strace_call_parse(p, ret);
}

static int hex_digit(char c)
{
	return isdigit((unsigned char)c)    ? c - '0'
	       : isxdigit((unsigned char)c) ? tolower((unsigned char)c) - 'a' + 10
					    : -1;
}

/* One escape after a backslash; moves *p past it. */
static char unescape(char **p)
{
	static const char names[] = "nrtvfab", values[] = "\n\r\t\v\f\a\b";
	const char *name = **p ? strchr(names, **p) : NULL;
	int v = 0, n = 0;

	if (name) {
		(*p)++;
		return values[name - names];
	}
	if (**p == 'x') {
		for ((*p)++; n < 2 && hex_digit(**p) >= 0; n++, (*p)++)
			v = v * 16 + hex_digit(**p);
		return (char)v;
	}
	if (**p >= '0' && **p <= '7') {
		for (; n < 3 && **p >= '0' && **p <= '7'; n++, (*p)++)
			v = v * 8 + (**p - '0');
		return (char)v;
	}
	return **p ? *(*p)++ : '\\';
}

bool kb_strace_string(char *text, char **ret, size_t *ret_len, char **ret_end, bool *ret_cut)
{
	char *p = text, *out;

	if (*p != '"')
		return false;
	out = *ret = ++p;
	while (*p && *p != '"') {
		if (*p == '\\') {
			p++;
			*out++ = unescape(&p);
		} else {
			*out++ = *p++;
		}
	}
	if (*p != '"')
		return false;
	p++;
	*ret_len = (size_t)(out - *ret);
	*ret_cut = skip(&p, "...");
	*ret_end = p;
	return true;
}
