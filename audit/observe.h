/* Private to audit/: a record as the policy compiler looks at it. */
#pragma once

#include <limits.h>

#include "audit/collect/traps.h"
#include "audit/reader.h"

/* One per session; about 40 KB. Zero at first. */
struct kb_observer {
	const struct kb_bundle *bundle; /* the policy the session ran under; NULL: not known */
	uint32_t arch;			/* the traps are those of */
	const struct kb_trap *traps[KB_TRAP_NUMBERS];
	char workspace[PATH_MAX];
	char path[2 * PATH_MAX], path2[2 * PATH_MAX], host[256], request[1024];
};

/* What happened, or false when it is nothing a policy decides on. *ret points into the observer and
 * the row. */
bool kb_observe(struct kb_observer *observer, const struct kb_row *row, struct kb_observed *ret);
