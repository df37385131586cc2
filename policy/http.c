/* Requests of HTTP against the lists that net rules give of methods and patterns of paths.
 *
 * A server may decode a path before it looks where it leads, so both sides are compared decoded: a
 * slash is a slash also as %2f. A path with "." or ".." components leads elsewhere than it says; it
 * passes only where every path does.
 */
#include <string.h>
#include <strings.h>

#include "policy/policy.h"

#define PATH_BYTES 8192 /* longer ones pass only where every path does */

static int hex(char c)
{
	char lower = (char)(c | 0x20);

	if (c >= '0' && c <= '9')
		return c - '0';
	return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* Returns the length, or 0 when there is no room. */
static size_t decode(const char *from, size_t len, char to[PATH_BYTES])
{
	size_t n = 0;

	if (len > PATH_BYTES)
		return 0;
	for (size_t i = 0; i < len; i++) {
		bool coded = from[i] == '%' && i + 2 < len && hex(from[i + 1]) >= 0 &&
			     hex(from[i + 2]) >= 0;

		to[n] = coded ? (char)(hex(from[i + 1]) << 4 | hex(from[i + 2])) : from[i];
		if (to[n] == '\\') /* some servers take it for one */
			to[n] = '/';
		n++;
		i += coded ? 2 : 0;
	}
	return n;
}

static bool has_dots(const char *path, size_t len)
{
	const char *end = path + len;

	while (path < end) {
		const char *slash = memchr(path, '/', (size_t)(end - path));
		size_t n = (size_t)((slash ? slash : end) - path);

		if ((n == 1 && path[0] == '.') || (n == 2 && path[0] == '.' && path[1] == '.'))
			return true;
		path += n + 1;
	}
	return false;
}

/* "*" and "?" stay within a component, "**" does not, and between slashes also stands for nothing.
 * Two places to fall back to are enough: what an earlier star could take, a later one of its kind
 * can take as well. */
static bool glob(const char *p, const char *pe, const char *s, const char *se)
{
	const char *star = NULL, *star_s = NULL, *deep = NULL, *deep_s = NULL, *start = p;

	while (s < se || p < pe) {
		if (p + 1 < pe && p[0] == '*' && p[1] == '*') {
			bool between = p > start && p[-1] == '/' && p + 2 < pe && p[2] == '/';

			deep = p + 2;
			deep_s = s;
			star = NULL;
			p += between ? 3 : 2;
		} else if (p < pe && *p == '*') {
			star = ++p;
			star_s = s;
		} else if (p < pe && s < se && (*p == *s || (*p == '?' && *s != '/'))) {
			p++;
			s++;
		} else if (star && star_s < se && *star_s != '/') {
			p = star;
			s = ++star_s;
		} else if (deep && deep_s < se) {
			p = deep;
			s = ++deep_s;
			star = NULL;
		} else {
			return false;
		}
	}
	return true;
}

static bool path_passes(const char *pattern, const char *path, size_t len)
{
	char decoded[PATH_BYTES], decoded_pattern[PATH_BYTES];
	size_t n, pattern_n;

	if (!strcmp(pattern, "/**") || !strcmp(pattern, "**"))
		return true;
	n = decode(path, len, decoded);
	pattern_n = decode(pattern, strlen(pattern), decoded_pattern);
	if (!n || !pattern_n || has_dots(decoded, n))
		return false;
	return glob(decoded_pattern, decoded_pattern + pattern_n, decoded, decoded + n);
}

bool kb_http_allows(const char *const *http, const char *method, size_t method_len,
	const char *path, size_t path_len)
{
	const char *query = memchr(path, '?', path_len);
	size_t len = query ? (size_t)(query - path) : path_len;

	for (size_t i = 0; http[i]; i++) {
		size_t word = strcspn(http[i], " ");
		const char *pattern = http[i][word] ? http[i] + word + 1 : "/**";
		bool any = word == 3 && !strncasecmp(http[i], "any", 3);
		bool same = word == method_len && !strncasecmp(http[i], method, word);

		if ((any || same) && path_passes(pattern, path, len))
			return true;
	}
	return false;
}
