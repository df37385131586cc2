/* Private to audit/: the hash chain of a session.
 *
 *	head(0) = SHA-256("kbsup chain 1 session" , meta)
 *	head(n) = SHA-256("kbsup chain 1 block" , head(n-1), first_seq, block)
 *	finish  = SHA-256("kbsup chain 1 end" , head(last), end)
 *
 * Every part goes in with its length before it (64 bits, little-endian), so that no two different
 * inputs give the same bytes. Changing, swapping, inserting or removing any stored byte changes the
 * head; cutting the tail is seen because the finish is missing or does not fit.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "supervisor/base/err.h"

#define KB_HASH_SIZE 32

struct kb_chain; /* a reusable hashing context */
int kb_chain_create(struct kb_chain **ret, struct kb_err *err);
void kb_chain_destroy(struct kb_chain *chain);
int kb_chain_start(struct kb_chain *chain, const uint8_t *meta, size_t len,
	uint8_t ret_head[KB_HASH_SIZE], struct kb_err *err);
/* head is advanced in place. */
int kb_chain_block(struct kb_chain *chain, uint8_t head[KB_HASH_SIZE], uint64_t first_seq,
	const uint8_t *block, size_t len, struct kb_err *err);
int kb_chain_end(struct kb_chain *chain, uint8_t head[KB_HASH_SIZE], const uint8_t *end, size_t len,
	struct kb_err *err);
