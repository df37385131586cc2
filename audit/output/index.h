/* Private to audit/: a table from byte strings to numbers 0, 1, 2, … in the order they came. */
#pragma once

#include "audit/audit.h"

struct kb_index {
	struct kb_index_slot *slots;
	uint32_t cap, n;
};
/* The number of a key; *ret_new when it was not there. The key's bytes are not copied: keep(n) must
 * give them later. Returns KB_INDEX_NOMEM without memory. */
#define KB_INDEX_NOMEM UINT32_MAX
typedef struct kb_bytes (*kb_index_key)(const void *arg, uint32_t number);
uint32_t kb_index_put(struct kb_index *index, struct kb_bytes key, kb_index_key keep,
	const void *arg, bool *ret_new);
/* The number of a key, or KB_INDEX_NOMEM. */
uint32_t kb_index_get(
	const struct kb_index *index, struct kb_bytes key, kb_index_key keep, const void *arg);
void kb_index_finish(struct kb_index *index);
