/* Text helpers: escaping of foreign bytes, names and ids, sizes and durations, bounded formatting.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

/* Write src, escaped for a screen or a log, to dst (always NUL-terminated, cut at size). Printable
 * UTF-8 passes; control characters, backslash, DEL, C1 and bidi controls and bytes that are not
 * UTF-8 become \n \t \\ or \xHH. The result never holds a control character, so it cannot drive a
 * terminal. Returns the length the whole result would have (as snprintf does). */
size_t kb_escape(char *dst, size_t size, const void *src, size_t len);
/* The same into fresh memory; NULL if none. */
char *kb_escape_dup(const void *src, size_t len);
/* True if the bytes are valid UTF-8 (no surrogates, no overlong forms). */
bool kb_utf8_valid(const void *src, size_t len);

/* ULIDs (github.com/ulid/spec): 48 bits of milliseconds, 80 random bits; 26 characters of
 * Crockford's base 32. They sort by time. */
#define KB_ULID_SIZE 16
#define KB_ULID_TEXT 27 /* with the NUL */
int kb_ulid_new(uint8_t ret[KB_ULID_SIZE], struct kb_err *err);
void kb_ulid_format(const uint8_t id[KB_ULID_SIZE], char ret[KB_ULID_TEXT]);
bool kb_ulid_parse(const char *text, uint8_t ret[KB_ULID_SIZE]);

/* Two words for people, like "brave-otter". */
#define KB_NAME_MAX 64
int kb_name_new(char ret[KB_NAME_MAX], struct kb_err *err);
/* A name people may give: 1–63 of [A-Za-z0-9._-], not starting with '-' or '.'. */
bool kb_name_valid(const char *name);

/* "4G", "512k", "10M", plain bytes (powers of 1024). */
bool kb_parse_size(const char *text, uint64_t *ret_bytes);
/* "30s", "15m", "4h", "30d", "500ms"; plain numbers are seconds. */
bool kb_parse_duration(const char *text, int64_t *ret_ns);
/* A whole decimal or 0x number and nothing else. */
bool kb_parse_u64(const char *text, uint64_t *ret);

/* The candidate closest to `word` by edit distance, or NULL if none is near (for "did you mean").
 */
const char *kb_closest(const char *word, const char *const *candidates, size_t n);

/* Standard base64 with padding, into fresh memory; NULL if none. */
char *kb_base64(const void *src, size_t len);

/* "1,234,567"; returns ret. */
#define KB_COUNT_MAX 32
const char *kb_text_count(uint64_t n, char ret[KB_COUNT_MAX]);

/* asprintf that returns NULL when out of memory. */
char *kb_asprintf(const char *fmt, ...) KB_PRINTF(1, 2);
