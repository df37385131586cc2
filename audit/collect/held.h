/* A record that waits: a deep copy in one piece of memory. */
#pragma once

#include "audit/audit.h"

struct kb_held {
	struct kb_record record;
	struct kb_bytes argv[]; /* then the bytes */
};
/* NULL if there is no memory. free() it. */
struct kb_held *kb_held_create(const struct kb_record *record);
