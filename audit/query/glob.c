#include "glob.h"

#include <string.h>

/* One element of a pattern: a plain byte, a set, or a wildcard. Returns its length. */
static size_t element(const char *p, size_t len)
{
	size_t i;

	if (*p == '\\')
		return len > 1 ? 2 : 1;
	if (*p == '*')
		return len > 1 && p[1] == '*' ? 2 : 1;
	if (*p != '[')
		return 1;
	i = len > 1 && p[1] == '!' ? 2 : 1;
	if (i < len && p[i] == ']') /* first in a set it is ordinary */
		i++;
	while (i < len && p[i] != ']')
		i += p[i] == '\\' && i + 1 < len ? 2 : 1;
	return i < len ? i + 1 : 1;
}

static bool in_set(const char *p, size_t len, uint8_t c)
{
	bool negated = p[1] == '!', hit = false;
	size_t i = negated ? 2 : 1;
	uint8_t from, to;

	while (i + 1 < len) {
		if (p[i] == '\\' && i + 2 < len)
			i++;
		from = to = (uint8_t)p[i++];
		if (i + 2 < len && p[i] == '-') {
			to = (uint8_t)p[i + 1];
			i += 2;
		}
		hit = hit || (c >= from && c <= to);
	}
	return hit != negated;
}

static bool match_one(const char *p, size_t len, uint8_t c, bool slashes)
{
	switch (*p) {
	case '?':
		return !(slashes && c == '/');
	case '\\':
		return len == 2 && c == (uint8_t)p[1];
	case '[':
		if (len > 1)
			return in_set(p, len, c) && !(slashes && c == '/');
		return c == '[';
	default:
		return c == (uint8_t)*p;
	}
}

/* Two places to fall back to, the last `*` and the last `**`, are enough: what an earlier wildcard
 * could take, a later one can take as well, except that `*` must stop at a slash. */
struct retry {
	const char *p;
	const uint8_t *t; /* `*`: what it has taken up to; `**`: where to go on next time */
};

/* "**" then a slash, which together may also match nothing. */
static bool empty_directories(const char *p, const char *start, const char *end)
{
	return end - p >= 3 && p[2] == '/' && (p == start || p[-1] == '/');
}

static bool fall_back(struct retry *star, struct retry *deep, const uint8_t *end, const char **p,
	const uint8_t **t, bool slashes)
{
	if (star->p && star->t < end && !(slashes && *star->t == '/')) {
		*p = star->p;
		*t = ++star->t;
		return true;
	}
	star->p = NULL;
	if (deep->p && deep->t <= end) {
		*p = deep->p;
		*t = deep->t++;
		return true;
	}
	return false;
}

bool kb_glob_match(
	const char *pattern, size_t pattern_len, const uint8_t *text, size_t len, bool slashes)
{
	const char *p = pattern, *p_end = pattern + pattern_len;
	const uint8_t *t = text, *t_end = text + len;
	struct retry star = {0}, deep = {0};
	size_t n;

	for (;;) {
		if (p == p_end && t == t_end)
			return true;
		n = p < p_end ? element(p, (size_t)(p_end - p)) : 0;
		if (n == 2 && *p == '*') {
			if (slashes && empty_directories(p, pattern, p_end)) {
				/* Try without any directory first; else any run up to a slash. */
				deep = (struct retry){p + 2, t};
				star.p = NULL;
				p += 3;
				continue;
			}
			deep = (struct retry){p + 2, t + 1};
			star.p = NULL;
			p += 2;
			continue;
		}
		if (n == 1 && *p == '*') {
			star = (struct retry){p + 1, t};
			p++;
			continue;
		}
		if (n && t < t_end && match_one(p, n, *t, slashes)) {
			p += n;
			t++;
			continue;
		}
		if (!fall_back(&star, &deep, t_end, &p, &t, slashes))
			return false;
	}
}

size_t kb_glob_prefix(const char *pattern, size_t len)
{
	size_t i = 0;

	while (i < len && !strchr("*?[\\", pattern[i]) && pattern[i])
		i++;
	return i;
}

long kb_glob_check(const char *pattern, size_t len)
{
	for (size_t i = 0, n; i < len; i += n) {
		n = element(pattern + i, len - i);
		if (n == 1 && (pattern[i] == '[' || pattern[i] == '\\'))
			return (long)i;
	}
	return -1;
}
