/* Opening the LMDB environment, its tables and schema; and the encodings of small items. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "proto/store.pb-c.h"
#include "store.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/util.h"

static const char *const table_names[KB_TABLE_MAX_] = {
	[KB_TABLE_META] = "meta",
	[KB_TABLE_SESSIONS] = "sessions",
	[KB_TABLE_STATES] = "states",
	[KB_TABLE_NAMES] = "names",
	[KB_TABLE_BLOCKS] = "blocks",
	[KB_TABLE_FILTERS] = "filters",
};

/* LMDB's own codes that a person can do something about, or should understand. */
static const struct {
	int rc;
	enum kb_errcode code;
	const char *why;
} lmdb_codes[] = {
	{MDB_CORRUPTED, KB_ERR_INVALID, "the database is damaged"},
	{MDB_PAGE_NOTFOUND, KB_ERR_INVALID, "the database is damaged"},
	{MDB_INVALID, KB_ERR_INVALID, "the file is not an audit store"},
	{MDB_VERSION_MISMATCH, KB_ERR_REFUSED, "another version of LMDB made it"},
	{MDB_PANIC, KB_ERR_FAILED, "an earlier write failed; the store must be opened again"},
	{MDB_READERS_FULL, KB_ERR_LIMIT, "too many readers at once"},
	{MDB_MAP_FULL, KB_ERR_LIMIT, "its map is full"},
	{MDB_NOTFOUND, KB_ERR_INVALID, "a part of it is missing"},
};

int kb_env_err(const struct kb_env *env, int rc, const char *what, struct kb_err *err)
{
	int r;

	if (rc == ENOSPC || rc == EDQUOT) {
		kb_err_sys(err, rc, "the audit store %s: %s", env->dir, what);
		kb_err_hint(err,
			"free space on its file system, or drop old sessions: kbsup audit prune");
		return -KB_ERR_SYSTEM;
	}
	if (rc > 0)
		return kb_err_sys(err, rc, "the audit store %s: %s", env->dir, what);
	for (size_t i = 0; i < KB_ARRAY_LEN(lmdb_codes); i++) {
		if (lmdb_codes[i].rc != rc)
			continue;
		r = kb_err_set(err, lmdb_codes[i].code, "the audit store %s: %s: %s", env->dir,
			what, lmdb_codes[i].why);
		if (lmdb_codes[i].code == KB_ERR_INVALID)
			kb_err_hint(err, "move it away to start a new one; keep it as evidence");
		return r;
	}
	return kb_err_set(
		err, KB_ERR_FAILED, "the audit store %s: %s: %s", env->dir, what, mdb_strerror(rc));
}

static int schema_refused(const struct kb_env *env, uint32_t schema, struct kb_err *err)
{
	kb_err_set(err, KB_ERR_REFUSED,
		"the audit store %s has format %u, made by a newer kbsup; this one knows up to %u",
		env->dir, schema, KB_STORE_SCHEMA);
	kb_err_hint(err, "use the newer kbsup, or move the store away to start a new one");
	return -KB_ERR_REFUSED;
}

/* Read the schema version, or write it into a new store. */
static int schema_check(struct kb_env *env, MDB_txn *txn, bool writer, struct kb_err *err)
{
	MDB_val key = {6, "schema"}, value;
	uint8_t bytes[4] = {KB_STORE_SCHEMA, 0, 0, 0};
	const uint8_t *b;
	int rc = mdb_get(txn, env->tables[KB_TABLE_META], &key, &value);

	if (rc == MDB_NOTFOUND && writer) {
		value = (MDB_val){sizeof(bytes), bytes};
		rc = mdb_put(txn, env->tables[KB_TABLE_META], &key, &value, 0);
	}
	if (rc)
		return kb_env_err(env, rc, "its format version could not be read", err);
	if (value.mv_size != 4)
		return kb_env_err(env, MDB_CORRUPTED, "its format version cannot be read", err);
	b = value.mv_data;
	env->schema = b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
	if (env->schema > KB_STORE_SCHEMA)
		return schema_refused(env, env->schema, err);
	return 0;
}

static int open_tables(struct kb_env *env, bool writer, struct kb_err *err)
{
	MDB_txn *txn;
	int rc, r;

	rc = mdb_txn_begin(env->env, NULL, writer ? 0 : MDB_RDONLY, &txn);
	if (rc)
		return kb_env_err(env, rc, "could not be read", err);
	/* meta first: a newer store is refused before its tables are guessed at. */
	for (int i = 0; i < KB_TABLE_MAX_; i++) {
		rc = mdb_dbi_open(txn, table_names[i], writer ? MDB_CREATE : 0, &env->tables[i]);
		if (rc == MDB_NOTFOUND && i == KB_TABLE_FILTERS)
			continue; /* questions scan everything, then */
		if (rc == MDB_NOTFOUND && i == KB_TABLE_META) {
			mdb_txn_abort(txn);
			return kb_err_set(err, KB_ERR_NOTFOUND,
				"the audit store %s holds nothing yet", env->dir);
		}
		if (rc) {
			mdb_txn_abort(txn);
			return kb_env_err(env, rc, "could not be read", err);
		}
		env->has_filters = i == KB_TABLE_FILTERS;
		r = i == KB_TABLE_META ? schema_check(env, txn, writer, err) : 0;
		if (r < 0) {
			mdb_txn_abort(txn);
			return r;
		}
	}
	rc = mdb_txn_commit(txn);
	return rc ? kb_env_err(env, rc, "could not be written", err) : 0;
}

/* A file cut short would be a SIGBUS later: say so now. */
static int check_size(const struct kb_env *env, const char *data_path, struct kb_err *err)
{
	struct stat st;
	MDB_envinfo info;
	MDB_stat stat_env;

	if (stat(data_path, &st) < 0)
		return kb_err_sys(err, errno, "the audit store %s", env->dir);
	mdb_env_info(env->env, &info);
	mdb_env_stat(env->env, &stat_env);
	if ((uint64_t)st.st_size < (info.me_last_pgno + 1) * (uint64_t)stat_env.ms_psize)
		return kb_env_err(env, MDB_CORRUPTED, "its file is cut short", err);
	return 0;
}

static size_t first_map_size(const char *data_path)
{
	struct stat st;
	size_t size = stat(data_path, &st) == 0 ? (size_t)st.st_size : 0;

	return (2 * size / KB_STORE_MAP_STEP + 1) * (size_t)KB_STORE_MAP_STEP;
}

static int open_env(struct kb_env *env, bool writer, struct kb_err *err)
{
	KB_FREE char *data_path = kb_asprintf("%s/data.mdb", env->dir);
	int rc, r;

	if (!data_path)
		return kb_err_nomem(err);
	if (!writer && access(data_path, F_OK) < 0) {
		kb_err_set(err, KB_ERR_NOTFOUND, "there is no audit store in %s", env->dir);
		return kb_err_hint(err, "it is made by the first session: kbsup run");
	}
	rc = mdb_env_create(&env->env);
	if (rc)
		return kb_env_err(env, rc, "could not be opened", err);
	mdb_env_set_maxdbs(env->env, KB_TABLE_MAX_);
	mdb_env_set_maxreaders(env->env, KB_STORE_READERS);
	mdb_env_set_mapsize(env->env, first_map_size(data_path));
	rc = mdb_env_open(env->env, env->dir, MDB_NOTLS | (writer ? 0 : MDB_RDONLY), KB_STORE_MODE);
	if (rc)
		return kb_env_err(env, rc, "could not be opened", err);
	r = check_size(env, data_path, err);
	return r < 0 ? r : open_tables(env, writer, err);
}

int kb_env_open(const char *dir, bool writer, struct kb_env *ret, struct kb_err *err)
{
	struct kb_env env = {.dir = strdup(dir)};
	int r;

	if (!env.dir)
		return kb_err_nomem(err);
	r = open_env(&env, writer, err);
	if (r < 0) {
		kb_env_close(&env);
		return r;
	}
	*ret = env;
	return 0;
}

void kb_env_close(struct kb_env *env)
{
	if (env->env)
		mdb_env_close(env->env);
	free(env->dir);
	*env = (struct kb_env){0};
}

int kb_env_read(struct kb_env *env, MDB_txn **ret, struct kb_err *err)
{
	int rc = mdb_txn_begin(env->env, NULL, MDB_RDONLY, ret);

	if (rc == MDB_MAP_RESIZED) {
		rc = mdb_env_set_mapsize(env->env, 0);
		if (!rc)
			rc = mdb_txn_begin(env->env, NULL, MDB_RDONLY, ret);
	}
	return rc ? kb_env_err(env, rc, "could not be read", err) : 0;
}

void kb_block_key(const uint8_t session[KB_ULID_SIZE], uint64_t seq, uint8_t ret[KB_BLOCK_KEY_SIZE])
{
	memcpy(ret, session, KB_ULID_SIZE);
	for (int i = 0; i < 8; i++)
		ret[KB_ULID_SIZE + i] = (uint8_t)(seq >> (8 * (7 - i)));
}

uint64_t kb_block_key_seq(const void *key)
{
	const uint8_t *p = (const uint8_t *)key + KB_ULID_SIZE;
	uint64_t seq = 0;

	for (int i = 0; i < 8; i++)
		seq = seq << 8 | p[i];
	return seq;
}

bool kb_item_parse(const MDB_val *value, struct kb_item *ret)
{
	const uint8_t *p = value->mv_data;

	if (value->mv_size <= KB_ITEM_HEAD)
		return false;
	ret->hash = p;
	p += KB_HASH_SIZE;
	ret->count = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
	ret->block = p + 4;
	ret->len = value->mv_size - KB_ITEM_HEAD;
	return ret->count > 0;
}

/* ---- SessionState and SessionEnd ------------------------------------------------------------- */

void kb_state_finish(struct kb_state *state)
{
	free(state->end);
	*state = (struct kb_state){0};
}

static int pack(const ProtobufCMessage *msg, struct kb_buf *out, struct kb_err *err)
{
	size_t len = protobuf_c_message_get_packed_size(msg);
	uint8_t *room;
	int r = kb_buf_reserve(out, len, &room, err);

	if (r < 0)
		return r;
	kb_buf_commit(out, protobuf_c_message_pack(msg, room));
	return 0;
}

int kb_state_pack(const struct kb_state *state, struct kb_buf *out, struct kb_err *err)
{
	Kb__SessionState msg = KB__SESSION_STATE__INIT;

	msg.records = state->records;
	msg.denials = state->denials;
	msg.lost = state->lost;
	msg.blocks = state->blocks;
	msg.head = (ProtobufCBinaryData){KB_HASH_SIZE, (uint8_t *)state->head};
	msg.last_time = state->last_time;
	msg.has_bytes = msg.has_execs = msg.has_last_is_end = true;
	msg.bytes = state->bytes;
	msg.execs = state->execs;
	msg.last_is_end = state->last_is_end;
	msg.has_end = state->end != NULL;
	msg.end = (ProtobufCBinaryData){state->end_len, state->end};
	return pack(&msg.base, out, err);
}

int kb_state_parse(const uint8_t *data, size_t len, struct kb_state *ret, struct kb_err *err)
{
	Kb__SessionState *msg = kb__session_state__unpack(NULL, len, data);
	struct kb_state state;

	if (!msg || msg->head.len != KB_HASH_SIZE) {
		if (msg)
			kb__session_state__free_unpacked(msg, NULL);
		return kb_err_set(err, KB_ERR_INVALID, "the state of a session is malformed");
	}
	state = (struct kb_state){
		.records = msg->records,
		.denials = msg->denials,
		.lost = msg->lost,
		.blocks = msg->blocks,
		.bytes = msg->bytes,
		.execs = msg->execs,
		.last_time = msg->last_time,
		.last_is_end = msg->last_is_end,
	};
	memcpy(state.head, msg->head.data, KB_HASH_SIZE);
	if (msg->has_end) { /* taken from the message */
		state.end = msg->end.data ? msg->end.data : calloc(1, 1);
		state.end_len = msg->end.len;
		msg->end = (ProtobufCBinaryData){0};
	}
	kb__session_state__free_unpacked(msg, NULL);
	*ret = state;
	return 0;
}

int kb_end_pack(
	const struct kb_session_end *end, uint8_t **ret, size_t *ret_len, struct kb_err *err)
{
	Kb__SessionEnd msg = KB__SESSION_END__INIT;
	uint8_t *data;

	msg.exit_code = end->exit_code;
	msg.has_signal = end->signal != 0;
	msg.signal = end->signal;
	msg.ended = end->ended;
	msg.reason = (char *)end->reason;
	msg.complete = end->complete;
	*ret_len = kb__session_end__get_packed_size(&msg);
	data = malloc(*ret_len + 1);
	if (!data)
		return kb_err_nomem(err);
	kb__session_end__pack(&msg, data);
	*ret = data;
	return 0;
}

int kb_end_parse(const uint8_t *data, size_t len, struct kb_session_end *ret, char **ret_reason,
	struct kb_err *err)
{
	Kb__SessionEnd *msg = kb__session_end__unpack(NULL, len, data);

	if (!msg)
		return kb_err_set(err, KB_ERR_INVALID, "the finish of a session is malformed");
	*ret = (struct kb_session_end){
		.exit_code = msg->exit_code,
		.signal = msg->signal,
		.ended = msg->ended,
		.complete = msg->complete,
	};
	*ret_reason = msg->reason && msg->reason[0] ? KB_STEAL(msg->reason) : NULL;
	ret->reason = *ret_reason;
	kb__session_end__free_unpacked(msg, NULL);
	return 0;
}
