/* Private to audit/: what a question can rule out by the index of a block alone. */
#pragma once

#include "audit/filter.h"
#include "expr.h"

struct kb_plan {
	const struct kb_expr *expr; /* NULL: everything matches */
	int64_t since, until;
	bool context; /* the expression looks at the programs of processes */
};
void kb_plan_init(struct kb_plan *plan, const struct kb_expr *expr, int64_t since, int64_t until);
/* False: no record of the block can match. */
bool kb_plan_may(const struct kb_plan *plan, const struct kb_session *session,
	const struct kb_filter *filter);
