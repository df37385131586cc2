/* Private to audit/: records and sessions as JSON, in the words of the command line's contract. */
#pragma once

#include <jansson.h>

#include "text.h"

/* NULL: out of memory. Absent values are left out. A byte string that is not UTF-8 appears escaped,
 * with its exact bytes in NAME_b64. What was not simply allowed also says who led to it, and the
 * line of policy that would allow it. */
json_t *kb_json_record(const struct kb_row *row, const struct kb_view *view);
json_t *kb_json_session(const struct kb_session *session);
/* NAME (and NAME_b64 where needed); false when out of memory. Absent bytes add nothing. */
bool kb_json_bytes(json_t *object, const char *name, struct kb_bytes bytes);
bool kb_json_argv(json_t *object, const char *name, const struct kb_bytes *argv, size_t argc);
bool kb_json_time(json_t *object, const char *name, uint64_t time);
bool kb_json_rule(json_t *object, const struct kb_rule_text *rule);
bool kb_json_text(json_t *object, const char *name, const char *text);
bool kb_json_number(json_t *object, const char *name, uint64_t number);
/* One line (or, not compact, one indented document) to out; takes the reference. */
int kb_json_put(json_t *value, bool compact, FILE *out, struct kb_err *err);
