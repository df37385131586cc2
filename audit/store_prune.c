/* Retention. What goes is a whole ended session, oldest first; what stays of it is a signed line
 * among the heads (kind "pruned", with the head that it had), so that verify can tell a session
 * that was dropped from one that was taken away. Freed pages are used again by later records; the
 * file does not shrink. */
#include <string.h>

#include "heads.h"
#include "store.h"
#include "store_private.h"
#include "supervisor/base/util.h"

#define BLOCKS_AT_ONCE 2000u /* deleted in one transaction */

struct victim {
	uint8_t id[KB_ULID_SIZE];
	struct kb_state state;
};

/* The oldest ended session; 0 when there is none. *ret_total: bytes of all sessions. */
static int oldest(struct kb_store *store, const struct kb_prune *prune, struct victim *ret,
	uint64_t *ret_total, struct kb_err *err)
{
	struct kb_env *env = kb_store_env(store);
	struct kb_state state;
	MDB_cursor *cursor = NULL;
	MDB_txn *txn;
	MDB_val k, v;
	int rc, found = 0, r = kb_env_read(env, &txn, err);

	*ret_total = 0;
	if (r < 0)
		return r;
	rc = mdb_cursor_open(txn, env->tables[KB_TABLE_STATES], &cursor);
	while (!rc && (rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0) {
		if (k.mv_size != KB_ULID_SIZE ||
			kb_state_parse(v.mv_data, v.mv_size, &state, NULL) < 0)
			continue;
		*ret_total += state.bytes;
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
	return rc == MDB_NOTFOUND ? found : kb_env_err(env, rc, "could not be read", err);
}

static int sign_tombstone(struct kb_store *store, const struct victim *victim, struct kb_err *err)
{
	struct kb_head head = {.records = victim->state.records,
		.kind = KB_HEAD_PRUNED,
		.time = (uint64_t)kb_now_real()};

	memcpy(head.session, victim->id, KB_ULID_SIZE);
	memcpy(head.hash, victim->state.head, KB_HASH_SIZE);
	return kb_signer_append(kb_store_signer(store), &head, err);
}

/* Delete up to BLOCKS_AT_ONCE items of a session; 1 while there may be more. */
static int delete_some(
	struct kb_env *env, enum kb_table table, const uint8_t *id, struct kb_err *err)
{
	uint8_t first[KB_BLOCK_KEY_SIZE];
	MDB_val k = {sizeof(first), first}, v;
	MDB_cursor *cursor;
	MDB_txn *txn;
	unsigned n = 0;
	int rc = mdb_txn_begin(env->env, NULL, 0, &txn);

	if (rc)
		return kb_env_err(env, rc, "could not be written", err);
	kb_block_key(id, 0, first);
	rc = mdb_cursor_open(txn, env->tables[table], &cursor);
	if (!rc)
		rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
	while (!rc && n < BLOCKS_AT_ONCE && k.mv_size == sizeof(first) &&
		memcmp(k.mv_data, id, KB_ULID_SIZE) == 0) {
		n++;
		rc = mdb_cursor_del(cursor, 0);
		if (!rc)
			rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT); /* the one that followed */
	}
	if (rc == MDB_NOTFOUND) /* past the last block of the table */
		rc = 0;
	if (rc) {
		mdb_txn_abort(txn);
		return kb_env_err(env, rc, "could not be written", err);
	}
	rc = mdb_txn_commit(txn);
	return rc ? kb_env_err(env, rc, "could not be written", err) : n == BLOCKS_AT_ONCE;
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

static int delete_session(struct kb_env *env, const uint8_t *id, struct kb_err *err)
{
	MDB_val key = {KB_ULID_SIZE, (void *)id};
	MDB_txn *txn;
	int rc = mdb_txn_begin(env->env, NULL, 0, &txn);

	if (rc)
		return kb_env_err(env, rc, "could not be written", err);
	rc = delete_name(env, txn, id);
	if (!rc)
		rc = mdb_del(txn, env->tables[KB_TABLE_SESSIONS], &key, NULL);
	if (!rc)
		rc = mdb_del(txn, env->tables[KB_TABLE_STATES], &key, NULL);
	if (rc) {
		mdb_txn_abort(txn);
		return kb_env_err(env, rc, "could not be written", err);
	}
	rc = mdb_txn_commit(txn);
	return rc ? kb_env_err(env, rc, "could not be written", err) : 0;
}

/* Tombstone first: a crash half-way leaves a session that verify calls pruned, and the next prune
 * removes the rest of it. */
static int drop(struct kb_store *store, const struct victim *victim, struct kb_err *err)
{
	struct kb_env *env = kb_store_env(store);
	int r = sign_tombstone(store, victim, err);

	while (r == 0 && (r = delete_some(env, KB_TABLE_FILTERS, victim->id, err)) > 0)
		r = 0;
	while (r == 0 && (r = delete_some(env, KB_TABLE_BLOCKS, victim->id, err)) > 0)
		r = 0;
	return r < 0 ? r : delete_session(env, victim->id, err);
}

static bool due(const struct kb_prune *prune, const struct victim *victim, uint64_t total)
{
	uint64_t now = (uint64_t)kb_now_real();

	if (prune->max_bytes && total > prune->max_bytes)
		return true;
	return prune->keep_ns && victim->state.last_time + prune->keep_ns < now;
}

int kb_store_prune(struct kb_store *store, const struct kb_prune *prune, struct kb_pruned *ret,
	struct kb_err *err)
{
	struct victim victim;
	uint64_t total;
	bool go = true;
	int r = kb_store_commit(store, err); /* no transaction of ours may be open */

	*ret = (struct kb_pruned){0};
	while (r == 0 && go) {
		r = oldest(store, prune, &victim, &total, err);
		ret->left_bytes = total;
		if (r <= 0)
			break;
		r = 0;
		go = due(prune, &victim, total);
		if (go && (r = drop(store, &victim, err)) == 0) {
			ret->sessions++;
			ret->records += victim.state.records;
			ret->bytes += victim.state.bytes;
		}
		kb_state_finish(&victim.state);
	}
	return r;
}
