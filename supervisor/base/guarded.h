/* Memory for secrets: locked where that is allowed, left out of core files and of children, wiped
 * when it is given back. Pieces are not freed one by one. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "err.h"

struct kb_guarded {
	uint8_t *memory;
	size_t size, used;
};

int kb_guarded_init(struct kb_guarded *guarded, size_t size, struct kb_err *err);
void kb_guarded_finish(struct kb_guarded *guarded); /* fine without init when zeroed */
/* NULL when there is no more. */
void *kb_guarded_alloc(struct kb_guarded *guarded, size_t len);
