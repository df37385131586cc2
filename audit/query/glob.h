/* Private to audit/: patterns of the query language, on exact bytes.
 *
 * `*` matches any run without a slash, `**` any run, `?` one byte but a slash, `[a-z]` and `[!a-z]`
 * one byte of a set; a backslash makes the next character ordinary. A slash, `**` and a slash also
 * match one slash alone, and a pattern that begins with `**` and a slash matches names without a
 * directory. Where names are not paths (`slashes` false), `*` and `?` match slashes too.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool kb_glob_match(
	const char *pattern, size_t pattern_len, const uint8_t *text, size_t len, bool slashes);
/* How many leading bytes of the pattern are plain: text must begin with them. */
size_t kb_glob_prefix(const char *pattern, size_t len);
/* Where the pattern is wrong (an open '[', a backslash at the end), or -1 when it is fine. */
long kb_glob_check(const char *pattern, size_t len);
