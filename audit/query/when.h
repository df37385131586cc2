/* Private to audit/: times as people write and read them. Nanoseconds since the epoch. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "2026-11-23", "2026-11-23 16:20[:11[.5]]", RFC 3339, "16:20" (today), "today", "yesterday",
 * "now", or an age: "2h", "30d", "90s ago". Times without a zone are local (UTC if so asked). False
 * when it is none of them. */
bool kb_when_parse(const char *text, int64_t now, bool utc, int64_t *ret);

/* The value of an option: text NULL leaves *ret as it is; a mistake is explained. */
struct kb_err;
int kb_when_bound(const char *text, const char *option, bool utc, int64_t *ret, struct kb_err *err);

#define KB_WHEN_MAX 40
/* "2026-11-23 16:20:11"; with `ms`, ".123" after it. */
void kb_when_format(uint64_t time, bool utc, bool ms, char ret[KB_WHEN_MAX]);
/* "2026-11-23T15:20:11.123456789Z". */
void kb_when_rfc3339(uint64_t time, char ret[KB_WHEN_MAX]);
/* "14m02s", "3.2s", "2d04h". */
void kb_duration_format(uint64_t ns, char ret[KB_WHEN_MAX]);
