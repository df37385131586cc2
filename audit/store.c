/* The writer.
 *
 * Everything between two commits goes into one LMDB transaction, begun when the first change
 * comes. LMDB copies pages on write and syncs data before the page that makes it reachable, so a
 * crash at any point leaves the last commit; kb_store_commit() therefore is the promise that
 * kbsupd acknowledges on, and no weaker flag (NOSYNC, NOMETASYNC) is used: batching is what makes
 * it cheap. Each session has two states in memory: `now`, with what the open transaction holds, and
 * `safe`, as of the last commit. When a commit fails (a full disk), `now` goes back to `safe`, so
 * that what was never acknowledged can be sent again.
 *
 * The map must have room for a whole transaction before it begins, because it cannot grow inside
 * one. So a transaction is bounded (KB_TXN_MAX, then it is committed early, which is harmless) and
 * the map is grown between transactions to hold what is used and a bounded transaction on top.
 *
 * A transaction that has to be given up outside of a commit (an early commit that failed, a failed
 * put) takes with it what other sessions had in it: the next commit then fails with that reason, so
 * that nobody acknowledges what is gone.
 *
 * A small ballast file is given up when the disk is full (store_disk.c), so that sessions can still
 * be finished with the reason.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>

#include "block.h"
#include "filter.h"
#include "heads.h"
#include "proto/record.pb-c.h"
#include "store.h"
#include "store_private.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/util.h"

#define KB_TXN_ROOM	 (4u * KB_TXN_MAX)
#define KB_META_MAX	 (3u << 20)
#define KB_SESSIONS_OPEN 4096u

struct session {
	uint8_t id[KB_ULID_SIZE];
	struct kb_state now, safe;
	struct kb_filter_maker *maker; /* NULL: its blocks get no index any more */
	uint64_t signed_records;       /* of the last signed head */
	bool dirty;		       /* now differs from safe */
	bool fresh;		       /* begun in the open transaction */
};

struct kb_store {
	struct kb_env env;
	int lock_fd;
	MDB_txn *txn;
	size_t txn_bytes;
	struct kb_err lost; /* why a transaction was given up since the last commit; code 0: none */
	struct kb_chain *chain;
	struct kb_signer *signer;
	struct kb_block_iter iter;
	struct session *sessions; /* open ones */
	size_t n_sessions, cap_sessions;
	uint8_t last_key[KB_BLOCK_KEY_SIZE]; /* greatest key in blocks */
};

struct kb_env *kb_store_env(struct kb_store *store)
{
	return &store->env;
}

struct kb_signer *kb_store_signer(struct kb_store *store)
{
	return store->signer;
}

/* ---- Transactions ---------------------------------------------------------------------------- */

static int ensure_room(struct kb_store *store, struct kb_err *err)
{
	MDB_envinfo info;
	MDB_stat st;
	size_t used, want;
	int rc;

	mdb_env_info(store->env.env, &info);
	mdb_env_stat(store->env.env, &st);
	used = (info.me_last_pgno + 1) * (size_t)st.ms_psize;
	want = used + KB_TXN_ROOM;
	if (want <= info.me_mapsize)
		return 0;
	want = (want + used / 2) / KB_STORE_MAP_STEP + 1;
	rc = mdb_env_set_mapsize(store->env.env, want * KB_STORE_MAP_STEP);
	return rc ? kb_env_err(&store->env, rc, "its map could not grow", err) : 0;
}

static int begin(struct kb_store *store, struct kb_err *err)
{
	int rc, r;

	if (store->txn)
		return 0;
	r = ensure_room(store, err);
	if (r < 0)
		return r;
	rc = mdb_txn_begin(store->env.env, NULL, 0, &store->txn);
	if (rc) {
		store->txn = NULL;
		return kb_env_err(&store->env, rc, "could not be written", err);
	}
	store->txn_bytes = 0;
	return 0;
}

static int state_copy(struct kb_state *dst, const struct kb_state *src, struct kb_err *err)
{
	uint8_t *end = NULL;

	if (src->end) {
		end = malloc(src->end_len + 1);
		if (!end)
			return kb_err_nomem(err);
		memcpy(end, src->end, src->end_len);
	}
	free(dst->end);
	*dst = *src;
	dst->end = end;
	return 0;
}

static void session_drop(struct kb_store *store, size_t i)
{
	kb_filter_maker_destroy(store->sessions[i].maker);
	kb_state_finish(&store->sessions[i].now);
	kb_state_finish(&store->sessions[i].safe);
	store->sessions[i] = store->sessions[--store->n_sessions];
}

/* Forget the open transaction and everything it held. */
static void rollback(struct kb_store *store)
{
	struct session *s;

	if (store->txn)
		mdb_txn_abort(store->txn);
	store->txn = NULL;
	for (size_t i = store->n_sessions; i-- > 0;) {
		s = &store->sessions[i];
		if (s->fresh) {
			session_drop(store, i);
			continue;
		}
		/* safe is of an open session: it has no end to copy, so this cannot fail. What the
		 * maker has seen cannot be taken back: questions scan the session instead. */
		if (s->dirty) {
			state_copy(&s->now, &s->safe, NULL);
			kb_filter_maker_destroy(s->maker);
			s->maker = NULL;
		}
		s->dirty = false;
	}
	memset(store->last_key, 0xff, sizeof(store->last_key));
}

static int put(struct kb_store *store, enum kb_table table, const void *key, size_t key_len,
	const void *data, size_t len, struct kb_err *err)
{
	MDB_val k = {key_len, (void *)key}, v = {len, (void *)data};
	int rc = mdb_put(store->txn, store->env.tables[table], &k, &v, 0);

	return rc ? kb_env_err(&store->env, rc, "could not be written", err) : 0;
}

static int write_states(struct kb_store *store, struct kb_err *err)
{
	KB_BUF_CLEANUP struct kb_buf buf;
	struct session *s;
	int r;

	kb_buf_init(&buf, KB_META_MAX);
	for (size_t i = 0; i < store->n_sessions; i++) {
		s = &store->sessions[i];
		if (!s->dirty)
			continue;
		kb_buf_consume(&buf, kb_buf_len(&buf));
		r = kb_state_pack(&s->now, &buf, err);
		if (r == 0)
			r = put(store, KB_TABLE_STATES, s->id, sizeof(s->id), kb_buf_data(&buf),
				kb_buf_len(&buf), err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Give the transaction up for this reason, which the next kb_store_commit() tells. */
static int fail(struct kb_store *store, int r, const struct kb_err *why, struct kb_err *err)
{
	if (why->errnum == ENOSPC || why->errnum == EDQUOT)
		kb_store_ballast_drop(&store->env);
	rollback(store);
	store->lost = *why;
	if (err)
		*err = *why;
	return r;
}

/* Sign the head of a session whose state has just become durable, where one is due. A head that
 * cannot be written (a full disk) does not undo what is stored: verify says what is not signed. */
static void sign_due(struct kb_store *store, struct session *s)
{
	struct kb_head head = {.records = s->now.records, .time = (uint64_t)kb_now_real()};

	if (!s->now.end && !s->fresh && s->now.records - s->signed_records < KB_HEAD_EVERY)
		return;
	head.kind = s->now.end ? KB_HEAD_END : s->fresh ? KB_HEAD_BEGIN : KB_HEAD_MARK;
	memcpy(head.session, s->id, KB_ULID_SIZE);
	memcpy(head.hash, s->now.head, KB_HASH_SIZE);
	if (kb_signer_append(store->signer, &head, NULL) == 0)
		s->signed_records = s->now.records;
}

static int write_out(struct kb_store *store, struct kb_err *err)
{
	int rc, r = write_states(store, err);

	if (r < 0)
		return r;
	rc = mdb_txn_commit(store->txn);
	store->txn = NULL; /* gone either way */
	return rc ? kb_env_err(&store->env, kb_store_commit_code(&store->env, rc),
			    "records could not be written", err)
		  : 0;
}

/* Commit what is open. A failure stays for kb_store_commit() to tell. */
static int commit(struct kb_store *store, struct kb_err *err)
{
	struct kb_err why = {0};
	struct session *s;
	int r;

	if (!store->txn)
		return 0;
	r = write_out(store, &why);
	if (r < 0)
		return fail(store, r, &why, err);
	for (size_t i = store->n_sessions; i-- > 0;) {
		s = &store->sessions[i];
		sign_due(store, s);
		if (s->now.end) {
			session_drop(store, i);
			continue;
		}
		if (s->dirty)
			s->safe = s->now; /* open: neither has an end */
		s->dirty = s->fresh = false;
	}
	return 0;
}

int kb_store_commit(struct kb_store *store, struct kb_err *err)
{
	enum kb_errcode code;

	if (store->lost.code == 0)
		(void)commit(store, NULL);
	code = store->lost.code;
	if (code == 0)
		return 0;
	rollback(store);
	if (err)
		*err = store->lost;
	store->lost = (struct kb_err){0};
	return -(int)code;
}

int kb_store_txn(struct kb_store *store, MDB_txn **ret, struct kb_err *err)
{
	int r = begin(store, err);

	*ret = store->txn;
	return r;
}

void kb_store_undo(struct kb_store *store)
{
	rollback(store);
}

/* ---- Sessions -------------------------------------------------------------------------------- */

static struct session *find(struct kb_store *store, const uint8_t id[KB_ULID_SIZE])
{
	for (size_t i = store->n_sessions; i-- > 0;)
		if (memcmp(store->sessions[i].id, id, KB_ULID_SIZE) == 0)
			return &store->sessions[i];
	return NULL;
}

static int unknown_session(const uint8_t id[KB_ULID_SIZE], struct kb_err *err)
{
	char text[KB_ULID_TEXT];

	kb_ulid_format(id, text);
	return kb_err_set(err, KB_ERR_NOTFOUND, "session %s is not open in the audit store", text);
}

static int session_add(struct kb_store *store, const uint8_t id[KB_ULID_SIZE], struct session **ret,
	struct kb_err *err)
{
	size_t cap = store->cap_sessions ? 2 * store->cap_sessions : 16;
	struct session *mem;

	if (store->n_sessions >= KB_SESSIONS_OPEN)
		return kb_err_set(err, KB_ERR_LIMIT, "more than %u sessions are open at once",
			KB_SESSIONS_OPEN);
	if (store->n_sessions == store->cap_sessions) {
		mem = realloc(store->sessions, cap * sizeof(*mem));
		if (!mem)
			return kb_err_nomem(err);
		store->sessions = mem;
		store->cap_sessions = cap;
	}
	*ret = &store->sessions[store->n_sessions++];
	**ret = (struct session){0};
	memcpy((*ret)->id, id, KB_ULID_SIZE);
	return 0;
}

static int put_session(struct kb_store *store, const Kb__SessionMeta *meta, const uint8_t *data,
	size_t len, struct kb_err *err)
{
	uint8_t key[KB_NAME_MAX + 1 + KB_ULID_SIZE];
	size_t name_len = strlen(meta->name);
	int r;

	memcpy(key, meta->name, name_len + 1);
	memcpy(key + name_len + 1, meta->id.data, KB_ULID_SIZE);
	r = put(store, KB_TABLE_SESSIONS, meta->id.data, KB_ULID_SIZE, data, len, err);
	if (r < 0)
		return r;
	return put(store, KB_TABLE_NAMES, key, name_len + 1 + KB_ULID_SIZE, "", 0, err);
}

static int session_begin(struct kb_store *store, const Kb__SessionMeta *meta, const uint8_t *data,
	size_t len, struct kb_err *err)
{
	MDB_val key = {KB_ULID_SIZE, meta->id.data}, value;
	struct kb_err why = {0};
	struct session *s;
	int rc, r = begin(store, err);

	if (r < 0)
		return r;
	rc = mdb_get(store->txn, store->env.tables[KB_TABLE_SESSIONS], &key, &value);
	if (rc == 0 && value.mv_size == len && memcmp(value.mv_data, data, len) == 0)
		return 0; /* said twice: the first time counts */
	if (rc == 0)
		return kb_err_set(
			err, KB_ERR_EXISTS, "session %s is in the audit store already", meta->name);
	if (rc != MDB_NOTFOUND)
		return kb_env_err(&store->env, rc, "could not be read", err);
	r = session_add(store, meta->id.data, &s, err);
	if (r < 0)
		return r;
	s->maker = kb_filter_maker_create();
	s->dirty = s->fresh = true;
	s->now.last_time = meta->started;
	r = kb_chain_start(store->chain, data, len, s->now.head, &why);
	if (r == 0)
		r = put_session(store, meta, data, len, &why);
	return r < 0 ? fail(store, r, &why, err) : 0;
}

int kb_store_session_begin(
	struct kb_store *store, const uint8_t *data, size_t len, struct kb_err *err)
{
	Kb__SessionMeta *meta;
	int r;

	if (len > KB_META_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "the description of a session is too long");
	meta = kb__session_meta__unpack(NULL, len, data);
	if (!meta || meta->id.len != KB_ULID_SIZE || !kb_name_valid(meta->name))
		r = kb_err_set(err, KB_ERR_INVALID, "the description of a session is malformed");
	else
		r = session_begin(store, meta, data, len, err);
	if (meta)
		kb__session_meta__free_unpacked(meta, NULL);
	return r;
}

static void fill_totals(const struct kb_state *state, struct kb_summary *ret)
{
	*ret = (struct kb_summary){.records = state->records,
		.denials = state->denials,
		.lost = state->lost,
		.commands = state->execs};
}

void kb_store_totals(struct kb_store *store, const uint8_t id[KB_ULID_SIZE], struct kb_summary *ret)
{
	struct session *s = find(store, id);
	struct kb_state state;
	MDB_val key = {KB_ULID_SIZE, (void *)id}, value;
	MDB_txn *txn;

	*ret = (struct kb_summary){0};
	if (s) {
		fill_totals(&s->safe, ret);
		return;
	}
	if (kb_env_read(&store->env, &txn, NULL) < 0)
		return;
	if (mdb_get(txn, store->env.tables[KB_TABLE_STATES], &key, &value) == 0 &&
		kb_state_parse(value.mv_data, value.mv_size, &state, NULL) == 0) {
		fill_totals(&state, ret);
		kb_state_finish(&state);
	}
	mdb_txn_abort(txn);
}

uint64_t kb_store_last_seq(struct kb_store *store, const uint8_t id[KB_ULID_SIZE])
{
	struct kb_summary totals;

	kb_store_totals(store, id, &totals);
	return totals.records;
}

/* ---- Records --------------------------------------------------------------------------------- */

/* Count a block's records into state, checking it whole. The first `skip` of them do not count;
 * with `rest`, the others are copied there. */
static int count_block(struct kb_store *store, struct session *s, const uint8_t *block, size_t len,
	uint64_t skip, struct kb_state *state, struct kb_block *rest, struct kb_err *err)
{
	struct kb_record record;
	int r;

	r = kb_block_iter_begin(&store->iter, block, len, err);
	if (r < 0)
		return r;
	if (s->maker)
		kb_filter_begin(s->maker);
	while ((r = kb_block_iter_next(&store->iter, &record, err)) > 0) {
		if (store->iter.count <= skip)
			continue;
		state->records++;
		state->denials += record.decision != KB_DECISION_ALLOWED;
		state->lost += record.event == KB_EVENT_LOSS ? record.count : 0;
		state->execs += record.event == KB_EVENT_EXEC;
		state->last_time = record.time;
		state->last_is_end = record.event == KB_EVENT_END;
		if (s->maker)
			r = kb_filter_add(s->maker, &store->iter, &record, state->records, err);
		if (r >= 0 && rest)
			r = kb_block_add(rest, &record, err);
		if (r < 0)
			break;
	}
	if (r < 0 && s->maker) { /* it has seen records that will not be stored */
		kb_filter_maker_destroy(s->maker);
		s->maker = NULL;
	}
	return r;
}

static int put_block(struct kb_store *store, const uint8_t *key, const struct kb_state *state,
	uint32_t count, const uint8_t *block, size_t len, struct kb_err *err)
{
	MDB_val k = {KB_BLOCK_KEY_SIZE, (void *)key}, v = {KB_ITEM_HEAD + len, NULL};
	unsigned flags = MDB_RESERVE | MDB_NOOVERWRITE;
	uint8_t *p;
	int rc;

	if (memcmp(key, store->last_key, KB_BLOCK_KEY_SIZE) > 0)
		flags |= MDB_APPEND;
	rc = mdb_put(store->txn, store->env.tables[KB_TABLE_BLOCKS], &k, &v, flags);
	if (rc)
		return kb_env_err(&store->env, rc, "records could not be written", err);
	if (flags & MDB_APPEND)
		memcpy(store->last_key, key, KB_BLOCK_KEY_SIZE);
	p = v.mv_data;
	memcpy(p, state->head, KB_HASH_SIZE);
	for (int i = 0; i < 4; i++)
		p[KB_HASH_SIZE + i] = (uint8_t)(count >> (8 * i));
	memcpy(p + KB_ITEM_HEAD, block, len);
	store->txn_bytes += len + KB_ITEM_HEAD;
	return 0;
}

/* Find where MDB_APPEND starts to hold, once per transaction at most. */
static void learn_last_key(struct kb_store *store)
{
	MDB_cursor *cursor;
	MDB_val k, v;

	if (store->last_key[0] != 0xff)
		return;
	if (mdb_cursor_open(store->txn, store->env.tables[KB_TABLE_BLOCKS], &cursor))
		return;
	if (mdb_cursor_get(cursor, &k, &v, MDB_LAST) == 0 && k.mv_size == KB_BLOCK_KEY_SIZE)
		memcpy(store->last_key, k.mv_data, KB_BLOCK_KEY_SIZE);
	else
		memset(store->last_key, 0, KB_BLOCK_KEY_SIZE);
	mdb_cursor_close(cursor);
}

static int put_filter(
	struct kb_store *store, struct session *s, const uint8_t *key, struct kb_err *err)
{
	MDB_val k = {KB_BLOCK_KEY_SIZE, (void *)key}, v;
	const uint8_t *data;
	int rc, r = kb_filter_end(s->maker, &data, &v.mv_size, err);

	if (r < 0)
		return r;
	v.mv_data = (void *)data;
	/* The newest key of this table is at most that of the blocks. */
	rc = mdb_put(store->txn, store->env.tables[KB_TABLE_FILTERS], &k, &v,
		memcmp(key, store->last_key, KB_BLOCK_KEY_SIZE) == 0 ? MDB_APPEND : 0);
	store->txn_bytes += v.mv_size;
	return rc ? kb_env_err(&store->env, rc, "records could not be written", err) : 0;
}

/* Append `block`, whose records are counted in `next` already and follow what is stored. */
static int append(struct kb_store *store, struct session *s, const struct kb_state *next,
	const uint8_t *block, size_t len, struct kb_err *err)
{
	uint8_t key[KB_BLOCK_KEY_SIZE];
	struct kb_state state = *next;
	uint64_t first = s->now.records + 1;
	struct kb_err why = {0};
	int r;

	r = kb_chain_block(store->chain, state.head, first, block, len, err);
	if (r < 0)
		return r;
	learn_last_key(store);
	kb_block_key(s->id, first, key);
	r = put_block(
		store, key, &state, (uint32_t)(state.records - s->now.records), block, len, &why);
	if (r == 0 && s->maker)
		r = put_filter(store, s, key, &why);
	if (r < 0)
		return fail(store, r, &why, err);
	state.blocks++;
	state.bytes += len;
	s->now = state;
	s->dirty = true;
	return 0;
}

/* The block overlaps what is stored: keep its tail, as a block of its own. */
static int append_tail(struct kb_store *store, struct session *s, uint64_t skip,
	const uint8_t *block, size_t len, struct kb_err *err)
{
	struct kb_state next = s->now;
	struct kb_block rest;
	int r;

	kb_block_init(&rest);
	r = count_block(store, s, block, len, skip, &next, &rest, err);
	if (r == 0 && rest.count > 0)
		r = append(store, s, &next, kb_buf_data(&rest.buf), kb_buf_len(&rest.buf), err);
	kb_block_finish(&rest);
	return r;
}

int kb_store_append(struct kb_store *store, const uint8_t id[KB_ULID_SIZE], uint64_t first_seq,
	const uint8_t *block, size_t len, struct kb_err *err)
{
	struct session *s = find(store, id);
	struct kb_state next;
	int r;

	if (!s || s->now.end)
		return unknown_session(id, err);
	if (first_seq == 0 || first_seq > s->now.records + 1)
		return kb_err_set(err, KB_ERR_INVALID,
			"records are missing: number %llu came after %llu",
			(unsigned long long)first_seq, (unsigned long long)s->now.records);
	if (store->txn && store->txn_bytes + len > KB_TXN_MAX) {
		r = commit(store, err);
		s = find(store, id);
		if (r < 0 || !s)
			return r < 0 ? r : unknown_session(id, err);
	}
	r = begin(store, err);
	if (r < 0)
		return r;
	if (first_seq <= s->now.records)
		return append_tail(store, s, s->now.records - first_seq + 1, block, len, err);
	next = s->now;
	r = count_block(store, s, block, len, 0, &next, NULL, err);
	return r < 0 ? r : append(store, s, &next, block, len, err);
}

/* ---- The end of a session -------------------------------------------------------------------- */

static int append_end_record(struct kb_store *store, struct session *s,
	const struct kb_session_end *end, struct kb_err *err)
{
	const char *reason = end->reason ? end->reason : "ended";
	struct kb_record record = {.event = KB_EVENT_END,
		.lane = KB_LANE_RUNTIME,
		.syscall = -1,
		.rule = KB_RULE_NONE,
		.time = end->ended,
		.has_exit_code = true,
		.exit_code = end->exit_code,
		.signal = end->signal,
		.text = {(const uint8_t *)reason, strlen(reason)}};
	struct kb_block block;
	int r;

	kb_block_init(&block);
	r = kb_block_add(&block, &record, err);
	if (r == 0)
		r = kb_store_append(store, s->id, s->now.records + 1, kb_buf_data(&block.buf),
			kb_buf_len(&block.buf), err);
	kb_block_finish(&block);
	return r;
}

int kb_store_session_finish(struct kb_store *store, const uint8_t id[KB_ULID_SIZE],
	const struct kb_session_end *end, struct kb_err *err)
{
	struct session *s = find(store, id);
	KB_FREE uint8_t *data = NULL;
	size_t len;
	int r;

	if (!s || s->now.end)
		return unknown_session(id, err);
	if (!s->now.last_is_end) {
		r = append_end_record(store, s, end, err);
		s = find(store, id);
		if (r < 0 || !s)
			return r < 0 ? r : unknown_session(id, err);
	}
	r = begin(store, err);
	if (r == 0)
		r = kb_end_pack(end, &data, &len, err);
	if (r == 0)
		r = kb_chain_end(store->chain, s->now.head, data, len, err);
	if (r < 0)
		return r;
	s->now.end = KB_STEAL(data);
	s->now.end_len = len;
	s->dirty = true;
	return 0;
}

/* ---- Opening --------------------------------------------------------------------------------- */

/* Sessions without an end were open when the last writer died. */
static int load_open(struct kb_store *store, struct kb_err *err)
{
	struct kb_state state;
	struct session *s;
	MDB_cursor *cursor;
	MDB_val k, v;
	int rc, r = begin(store, err);

	if (r < 0)
		return r;
	rc = mdb_cursor_open(store->txn, store->env.tables[KB_TABLE_STATES], &cursor);
	if (rc)
		return kb_env_err(&store->env, rc, "could not be read", err);
	while (r == 0 && (rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0) {
		if (k.mv_size != KB_ULID_SIZE ||
			kb_state_parse(v.mv_data, v.mv_size, &state, NULL) < 0)
			continue; /* verify reports it; one bad session must not stop the others */
		if (state.end) {
			kb_state_finish(&state);
			continue;
		}
		r = session_add(store, k.mv_data, &s, err);
		if (r == 0)
			s->now = s->safe = state;
	}
	mdb_cursor_close(cursor);
	return r;
}

static int close_left_open(struct kb_store *store, struct kb_err *err)
{
	struct kb_session_end end = {.exit_code = 255,
		.reason =
			"the supervisor ended without closing this session (a crash, or kill -9)"};
	uint8_t id[KB_ULID_SIZE];
	int r = load_open(store, err);

	for (size_t i = 0; r == 0 && i < store->n_sessions; i++) {
		end.ended = store->sessions[i].now.last_time;
		memcpy(id, store->sessions[i].id, sizeof(id));
		r = kb_store_session_finish(store, id, &end, err);
	}
	return r < 0 ? r : kb_store_commit(store, err);
}

static int take_lock(struct kb_store *store, const char *dir, struct kb_err *err)
{
	KB_FREE char *path = kb_asprintf("%s/writer.lock", dir);

	if (!path)
		return kb_err_nomem(err);
	store->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, KB_STORE_MODE);
	if (store->lock_fd < 0)
		return kb_err_sys(err, errno, "the audit store %s could not be opened", dir);
	if (flock(store->lock_fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	if (errno != EWOULDBLOCK)
		return kb_err_sys(err, errno, "the audit store %s could not be locked", dir);
	kb_err_set(err, KB_ERR_EXISTS, "the audit store %s is in use by another supervisor", dir);
	kb_err_hint(err, "kbsup status shows it");
	return -KB_ERR_EXISTS;
}

static int store_open(struct kb_store *store, const char *dir, struct kb_err *err)
{
	int r = kb_mkdirs(dir, 0700, err);

	if (r == 0)
		r = take_lock(store, dir, err);
	if (r == 0)
		r = kb_chain_create(&store->chain, err);
	if (r == 0)
		r = kb_env_open(dir, true, &store->env, err);
	if (r == 0)
		r = kb_signer_open(dir, &store->signer, err);
	if (r < 0)
		return r;
	mdb_reader_check(store->env.env, NULL); /* slots of readers that died */
	r = close_left_open(store, err);
	if (r == 0)
		kb_store_ballast_keep(&store->env);
	return r;
}

int kb_store_open(const char *dir, struct kb_store **ret, struct kb_err *err)
{
	struct kb_store *store = calloc(1, sizeof(*store));
	int r;

	if (!store)
		return kb_err_nomem(err);
	store->lock_fd = -1;
	memset(store->last_key, 0xff, sizeof(store->last_key));
	r = store_open(store, dir, err);
	if (r < 0) {
		kb_store_close(store);
		return r;
	}
	*ret = store;
	return 0;
}

void kb_store_close(struct kb_store *store)
{
	if (!store)
		return;
	rollback(store);
	while (store->n_sessions)
		session_drop(store, 0);
	free(store->sessions);
	kb_block_iter_finish(&store->iter);
	kb_chain_destroy(store->chain);
	kb_signer_close(store->signer);
	kb_env_close(&store->env);
	kb_close(&store->lock_fd);
	free(store);
}
