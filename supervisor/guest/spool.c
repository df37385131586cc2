#include "supervisor/guest/spool.h"

#include <stdlib.h>
#include <string.h>

int kb_spool_add(struct kb_spool *spool, const uint8_t *data, size_t len, uint32_t count,
	uint32_t denials, struct kb_err *err)
{
	struct kb_spool_block *block = malloc(sizeof(*block) + len);

	if (!block)
		return kb_err_nomem(err);
	*block = (struct kb_spool_block){
		.first_seq = spool->last_seq + 1, .count = count, .denials = denials, .len = len};
	memcpy(block->data, data, len);
	if (spool->tail)
		spool->tail->next = block;
	else
		spool->head = block;
	spool->tail = block;
	if (!spool->unsent)
		spool->unsent = block;
	spool->bytes += len;
	spool->last_seq += count;
	return 0;
}

static void drop_head(struct kb_spool *spool)
{
	struct kb_spool_block *block = spool->head;

	spool->head = block->next;
	if (!spool->head)
		spool->tail = NULL;
	spool->bytes -= block->len;
	free(block);
}

void kb_spool_ack(struct kb_spool *spool, uint64_t seq)
{
	while (spool->head && spool->head != spool->unsent &&
		spool->head->first_seq + spool->head->count - 1 <= seq)
		drop_head(spool);
}

void kb_spool_finish(struct kb_spool *spool)
{
	while (spool->head)
		drop_head(spool);
	spool->unsent = NULL;
}
