/* Retention. What goes is a whole ended session, oldest first; what stays of it is a signed line
 * among the heads (kind "pruned", with the head that it had), so that verify can tell a session
 * that was dropped from one that was taken away. Freed pages are used again by later records; the
 * file does not shrink.
 *
 * It goes in bounded steps, each a transaction of its own, so that whoever writes meanwhile is not
 * held up. The tombstone is signed first. Then the session disappears at once, from every question;
 * its blocks follow, some in each step. What is being dropped is noted in the database, so that a
 * crash half-way leaves no blocks for ever: the next step of any prune goes on with them.
 */
#include <string.h>

#include "heads.h"
#include "store.h"
#include "store_private.h"
#include "supervisor/base/util.h"

#define BLOCKS_AT_ONCE 2000u /* deleted in one transaction */

static MDB_val noted_key(void)
{
	return (MDB_val){7, (void *)"pruning"};
}

struct victim {
	uint8_t id[KB_ULID_SIZE];
	struct kb_state state;
};

static int db_error(struct kb_store *store, int rc, struct kb_err *err)
{
	return kb_env_err(kb_store_env(store), rc, "could not be pruned", err);
}

/* ---- Choosing -------------------------------------------------------------------------------- */

/* The oldest ended session: 1, or 0 when there is none. The first time, all of them are counted. */
static int oldest(
	struct kb_store *store, struct kb_pruned *sum, struct victim *ret, struct kb_err *err)
{
	struct kb_env *env = kb_store_env(store);
	uint64_t total = 0;
	struct kb_state state;
	MDB_cursor *cursor = NULL;
	MDB_txn *txn;
	MDB_val k, v;
	int rc, found = 0, r = kb_env_read(env, &txn, err);

	if (r < 0)
		return r;
	rc = mdb_cursor_open(txn, env->tables[KB_TABLE_STATES], &cursor);
	while (!rc && (!found || !sum->counted) &&
		(rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0) {
		if (k.mv_size != KB_ULID_SIZE ||
			kb_state_parse(v.mv_data, v.mv_size, &state, NULL) < 0)
			continue;
		total += state.bytes;
		if (!found && state.end) {
			memcpy(ret->id, k.mv_data, KB_ULID_SIZE);
			ret->state = state;
			found = 1;
			continue;
		}
		kb_state_finish(&state);
	}
	if (cursor) /* a reading transaction does not close it */
		mdb_cursor_close(cursor);
	mdb_txn_abort(txn);
	if (rc && rc != MDB_NOTFOUND) {
		kb_state_finish(&ret->state);
		return db_error(store, rc, err);
	}
	if (!sum->counted)
		sum->left_bytes = total;
	sum->counted = true;
	return found;
}

static bool due(const struct kb_prune *prune, const struct victim *victim, uint64_t total)
{
	uint64_t now = (uint64_t)kb_now_real();

	if (prune->max_bytes && total > prune->max_bytes)
		return true;
	return prune->keep_ns && victim->state.last_time < now &&
	       now - victim->state.last_time > prune->keep_ns;
}

/* ---- Dropping -------------------------------------------------------------------------------- */

static int sign_tombstone(struct kb_store *store, const struct victim *victim, struct kb_err *err)
{
	struct kb_head head = {.records = victim->state.records,
		.kind = KB_HEAD_PRUNED,
		.time = (uint64_t)kb_now_real()};

	memcpy(head.session, victim->id, KB_ULID_SIZE);
	memcpy(head.hash, victim->state.head, KB_HASH_SIZE);
	return kb_signer_append(kb_store_signer(store), &head, err);
}

static int delete_name(struct kb_env *env, MDB_txn *txn, const uint8_t *id)
{
	MDB_cursor *cursor;
	MDB_val k, v;
	int rc = mdb_cursor_open(txn, env->tables[KB_TABLE_NAMES], &cursor);

	while (!rc && (rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0)
		if (k.mv_size > KB_ULID_SIZE &&
			memcmp((uint8_t *)k.mv_data + k.mv_size - KB_ULID_SIZE, id, KB_ULID_SIZE) ==
				0)
			return mdb_cursor_del(cursor, 0);
	return rc == MDB_NOTFOUND ? 0 : rc;
}

/* The session disappears, and is noted as one whose blocks are still to go. */
static int hide(struct kb_env *env, MDB_txn *txn, const uint8_t *id)
{
	MDB_val key = {KB_ULID_SIZE, (void *)id}, noted = noted_key();
	int rc = delete_name(env, txn, id);

	if (!rc)
		rc = mdb_del(txn, env->tables[KB_TABLE_SESSIONS], &key, NULL);
	if (!rc || rc == MDB_NOTFOUND)
		rc = mdb_del(txn, env->tables[KB_TABLE_STATES], &key, NULL);
	return rc ? rc : mdb_put(txn, env->tables[KB_TABLE_META], &noted, &key, 0);
}

/* Delete up to *left items of a session. */
static int delete_some(
	struct kb_env *env, MDB_txn *txn, enum kb_table table, const uint8_t *id, unsigned *left)
{
	uint8_t first[KB_BLOCK_KEY_SIZE];
	MDB_val k = {sizeof(first), first}, v;
	MDB_cursor *cursor;
	int rc = mdb_cursor_open(txn, env->tables[table], &cursor);

	kb_block_key(id, 0, first);
	if (!rc)
		rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
	while (!rc && *left && k.mv_size == sizeof(first) &&
		memcmp(k.mv_data, id, KB_ULID_SIZE) == 0) {
		--*left;
		rc = mdb_cursor_del(cursor, 0);
		if (!rc)
			rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT); /* the one that followed */
	}
	return rc == MDB_NOTFOUND ? 0 : rc; /* past the last block of the table */
}

static int delete_blocks(struct kb_env *env, MDB_txn *txn, const uint8_t *id)
{
	MDB_val noted = noted_key();
	unsigned left = BLOCKS_AT_ONCE;
	int rc = delete_some(env, txn, KB_TABLE_FILTERS, id, &left);

	if (!rc)
		rc = delete_some(env, txn, KB_TABLE_BLOCKS, id, &left);
	if (!rc && left)
		rc = mdb_del(txn, env->tables[KB_TABLE_META], &noted, NULL);
	return rc;
}

typedef int (*change_fn)(struct kb_env *env, MDB_txn *txn, const uint8_t *id);

static int change(struct kb_store *store, change_fn fn, const uint8_t *id, struct kb_err *err)
{
	MDB_txn *txn;
	int rc, r = kb_store_txn(store, &txn, err);

	if (r < 0)
		return r;
	rc = fn(kb_store_env(store), txn, id);
	if (rc) {
		kb_store_undo(store);
		return db_error(store, rc, err);
	}
	return kb_store_commit(store, err);
}

/* 1: the blocks of *ret_id are still to go. */
static int noted(struct kb_store *store, uint8_t ret_id[KB_ULID_SIZE], struct kb_err *err)
{
	struct kb_env *env = kb_store_env(store);
	MDB_val key = noted_key(), v;
	MDB_txn *txn;
	int rc, r = kb_env_read(env, &txn, err);

	if (r < 0)
		return r;
	rc = mdb_get(txn, env->tables[KB_TABLE_META], &key, &v);
	if (!rc && v.mv_size == KB_ULID_SIZE)
		memcpy(ret_id, v.mv_data, KB_ULID_SIZE);
	else if (!rc)
		rc = MDB_CORRUPTED;
	mdb_txn_abort(txn);
	if (rc && rc != MDB_NOTFOUND)
		return db_error(store, rc, err);
	return !rc;
}

static int drop_next(struct kb_store *store, const struct kb_prune *prune, struct kb_pruned *sum,
	struct kb_err *err)
{
	struct victim victim = {0};
	int r = oldest(store, sum, &victim, err);

	if (r <= 0)
		return r;
	r = 0;
	if (due(prune, &victim, sum->left_bytes)) {
		r = sign_tombstone(store, &victim, err);
		if (r == 0)
			r = change(store, hide, victim.id, err);
		if (r == 0) {
			sum->sessions++;
			sum->records += victim.state.records;
			sum->bytes += victim.state.bytes;
			sum->left_bytes -= KB_MIN(sum->left_bytes, victim.state.bytes);
			r = 1;
		}
	}
	kb_state_finish(&victim.state);
	return r;
}

int kb_store_prune_step(struct kb_store *store, const struct kb_prune *prune, struct kb_pruned *sum,
	struct kb_err *err)
{
	uint8_t id[KB_ULID_SIZE];
	int r = noted(store, id, err);

	if (r < 0)
		return r;
	if (r == 0)
		return drop_next(store, prune, sum, err);
	r = change(store, delete_blocks, id, err);
	return r < 0 ? r : 1;
}

int kb_store_prune(struct kb_store *store, const struct kb_prune *prune, struct kb_pruned *ret,
	struct kb_err *err)
{
	int r = kb_store_commit(store, err);

	*ret = (struct kb_pruned){0};
	while (r == 0 && (r = kb_store_prune_step(store, prune, ret, err)) > 0)
		r = 0;
	return r;
}
