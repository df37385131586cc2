/* Private to audit/: the layout of the store, shared by its one writer and its readers. Only
 * store*.c and reader*.c include lmdb.
 *
 * A store is a directory:
 *	data.mdb, lock.mdb	one LMDB environment
 *	writer.lock		flock()ed by the one process that writes
 * with these tables:
 *	meta		"schema" → u32, little-endian; "pruning" → the session whose blocks are
 *			being dropped (store_prune.c)
 *	sessions	session id → SessionMeta as it was given; never changes
 *	states		session id → SessionState (store.proto)
 *	names		name, NUL, session id → nothing; sorted, so the newest of a name is its last
 *	blocks		session id, first seq (u64, big-endian) → struct kb_item_head, the block
 *	filters		the same key → the index of that block (filter.h); of all blocks of
 *			a session, or (after a failure in the middle of it) not of its last ones
 *
 * Session ids sort by time, so new blocks nearly always go to the end of the table, whose pages are
 * then filled whole (MDB_APPEND).
 */
#pragma once

#include <lmdb.h>
#include <stdbool.h>
#include <stdint.h>

#include "audit/audit.h"
#include "audit/chain.h"

#define KB_STORE_SCHEMA	 1u
#define KB_STORE_MODE	 0600
#define KB_STORE_READERS 510
#define KB_STORE_MAP_STEP                                                                          \
	(256u << 20) /* the map grows by whole steps; it is address space only                     \
		      */

enum kb_table {
	KB_TABLE_META,
	KB_TABLE_SESSIONS,
	KB_TABLE_STATES,
	KB_TABLE_NAMES,
	KB_TABLE_BLOCKS,
	KB_TABLE_FILTERS,
	KB_TABLE_MAX_,
};

struct kb_env {
	MDB_env *env;
	MDB_dbi tables[KB_TABLE_MAX_];
	char *dir;
	uint32_t schema;
	bool has_filters; /* false: made before there were any, and not written since */
};

/* Opens the environment. A reader refuses a missing store with KB_ERR_NOTFOUND, the writer makes
 * one. A newer schema is KB_ERR_REFUSED, damage is KB_ERR_INVALID. */
int kb_env_open(const char *dir, bool writer, struct kb_env *ret, struct kb_err *err);
void kb_env_close(struct kb_env *env);
/* An LMDB return code as an error: "the audit store DIR: WHAT: why". */
int kb_env_err(const struct kb_env *env, int rc, const char *what, struct kb_err *err);
/* Begin a read transaction, adopting a map that the writer has grown. */
int kb_env_read(struct kb_env *env, MDB_txn **ret, struct kb_err *err);

#define KB_BLOCK_KEY_SIZE (KB_ULID_SIZE + 8)
void kb_block_key(
	const uint8_t session[KB_ULID_SIZE], uint64_t seq, uint8_t ret[KB_BLOCK_KEY_SIZE]);
uint64_t kb_block_key_seq(const void *key);

/* Before each block, little-endian: its hash in the chain and how many records it has. */
#define KB_ITEM_HEAD (KB_HASH_SIZE + 4)
struct kb_item {
	const uint8_t *hash;
	uint32_t count;
	const uint8_t *block;
	size_t len;
};
/* False when the value is too short to be an item. */
bool kb_item_parse(const MDB_val *value, struct kb_item *ret);

/* SessionState and SessionEnd as plain C. */
struct kb_state {
	uint64_t records, denials, lost, blocks, bytes, execs;
	uint64_t last_time;
	uint8_t head[KB_HASH_SIZE];
	bool last_is_end;
	uint8_t *end; /* encoded SessionEnd, owned; NULL: open */
	size_t end_len;
};
void kb_state_finish(struct kb_state *state);
int kb_state_pack(const struct kb_state *state, struct kb_buf *out, struct kb_err *err);
int kb_state_parse(const uint8_t *data, size_t len, struct kb_state *ret, struct kb_err *err);
int kb_end_pack(
	const struct kb_session_end *end, uint8_t **ret, size_t *ret_len, struct kb_err *err);
/* reason is copied to *ret_reason (may be NULL there); free it. */
int kb_end_parse(const uint8_t *data, size_t len, struct kb_session_end *ret, char **ret_reason,
	struct kb_err *err);
