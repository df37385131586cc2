/* Private to audit/: what would allow a denied call. */
#pragma once

#include "text.h"

/* Appends the line of policy that would have allowed it, or nothing where no single line would. */
int kb_remedy(struct kb_buf *out, const struct kb_view *view, const struct kb_row *row,
	struct kb_err *err);
