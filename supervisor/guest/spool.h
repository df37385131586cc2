/* A session's blocks of records between their arrival and the host's acknowledgement. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "supervisor/base/err.h"

#define KB_SPOOL_MAX (64u << 20) /* bytes; past it the session is held up */

struct kb_spool_block {
	struct kb_spool_block *next;
	uint64_t first_seq;
	uint32_t count, denials;
	size_t len;
	uint8_t data[];
};

/* Zeroed is empty, but for last_seq, which counts on. */
struct kb_spool {
	struct kb_spool_block *head, *tail;
	struct kb_spool_block *unsent; /* the first that was not sent yet */
	size_t bytes;
	uint64_t last_seq; /* of the newest record; 0: none yet */
};

/* Copies the block and numbers it. */
int kb_spool_add(struct kb_spool *spool, const uint8_t *data, size_t len, uint32_t count,
	uint32_t denials, struct kb_err *err);
static inline void kb_spool_sent(struct kb_spool *spool)
{
	spool->unsent = spool->unsent->next;
}
/* Records up to seq are safe. What was not sent is not affected. */
void kb_spool_ack(struct kb_spool *spool, uint64_t seq);
static inline bool kb_spool_is_full(const struct kb_spool *spool)
{
	return spool->bytes >= KB_SPOOL_MAX;
}
void kb_spool_finish(struct kb_spool *spool);
