/* Opening the store for reading, finding sessions, and the scan over their records. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "proto/record.pb-c.h"
#include "reader_db.h"
#include "supervisor/base/util.h"

int kb_reader_open(const char *dir, struct kb_reader **ret, struct kb_err *err)
{
	struct kb_reader *reader = calloc(1, sizeof(*reader));
	int r;

	if (!reader)
		return kb_err_nomem(err);
	r = kb_env_open(dir, false, &reader->env, err);
	if (r < 0) {
		free(reader);
		return r;
	}
	*ret = reader;
	return 0;
}

void kb_reader_close(struct kb_reader *reader)
{
	if (!reader)
		return;
	kb_env_close(&reader->env);
	free(reader->anchor);
	free(reader);
}

uint64_t kb_reader_file_size(struct kb_reader *reader)
{
	KB_FREE char *path = kb_asprintf("%s/data.mdb", reader->env.dir);
	struct stat st;

	return path && stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* ---- Sessions -------------------------------------------------------------------------------- */

struct kb_session_private {
	Kb__SessionMeta *meta;
	struct kb_bytes *argv;
	struct kb_rule_text *rules;
	char *reason;
};

void kb_session_destroy(struct kb_session *session)
{
	struct kb_session_private *priv;

	if (!session)
		return;
	priv = session->priv;
	if (priv) {
		if (priv->meta)
			kb__session_meta__free_unpacked(priv->meta, NULL);
		free(priv->argv);
		free(priv->rules);
		free(priv->reason);
		free(priv);
	}
	free(session);
}

const struct kb_rule_text *kb_session_rule(const struct kb_session *session, uint32_t rule)
{
	return rule < session->n_rules ? &session->rules[rule] : NULL;
}

static struct kb_bytes bytes_of(ProtobufCBinaryData data, bool has)
{
	return (struct kb_bytes){has ? data.data : NULL, has ? data.len : 0};
}

static int fill_lists(struct kb_session *s, const Kb__SessionMeta *meta, struct kb_err *err)
{
	struct kb_session_private *priv = s->priv;

	priv->argv = calloc(meta->n_argv + 1, sizeof(*priv->argv));
	priv->rules = calloc(meta->n_rules + 1, sizeof(*priv->rules));
	if (!priv->argv || !priv->rules)
		return kb_err_nomem(err);
	for (size_t i = 0; i < meta->n_argv; i++)
		priv->argv[i] = bytes_of(meta->argv[i], true);
	for (size_t i = 0; i < meta->n_rules; i++)
		priv->rules[i] = (struct kb_rule_text){
			.id = meta->rules[i]->id,
			.file = meta->rules[i]->file,
			.text = meta->rules[i]->text,
			.reason = meta->rules[i]->reason,
			.line = meta->rules[i]->line,
		};
	s->argv = priv->argv;
	s->argc = meta->n_argv;
	s->rules = priv->rules;
	s->n_rules = meta->n_rules;
	return 0;
}

static const char *or_empty(const char *text)
{
	return text ? text : "";
}

static int fill_meta(struct kb_session *s, const MDB_val *value, struct kb_err *err)
{
	Kb__SessionMeta *meta = kb__session_meta__unpack(NULL, value->mv_size, value->mv_data);

	if (!meta)
		return kb_err_set(
			err, KB_ERR_INVALID, "session %s: its description is damaged", s->id_text);
	s->priv->meta = meta;
	s->name = meta->name;
	s->agent = meta->agent;
	s->machine = meta->machine;
	s->user = or_empty(meta->user);
	s->policy = or_empty(meta->policy);
	s->lane = or_empty(meta->lane);
	s->started = meta->started;
	s->arch = meta->has_arch ? meta->arch : 0;
	s->workspace = bytes_of(meta->workspace, meta->has_workspace);
	s->bundle = bytes_of(meta->bundle, meta->has_bundle);
	s->policy_files = (const char *const *)meta->policy_files;
	s->n_policy_files = meta->n_policy_files;
	return fill_lists(s, meta, err);
}

static int fill_state(struct kb_session *s, const MDB_val *value, struct kb_err *err)
{
	struct kb_state state;
	int r = kb_state_parse(value->mv_data, value->mv_size, &state, err);

	if (r < 0)
		return kb_err_prefix(err, "session %s", s->id_text);
	s->records = state.records;
	s->denials = state.denials;
	s->lost = state.lost;
	s->blocks = state.blocks;
	s->bytes = state.bytes;
	s->execs = state.execs;
	s->last_time = state.last_time;
	s->ended = state.end != NULL;
	if (state.end)
		r = kb_end_parse(state.end, state.end_len, &s->end, &s->priv->reason, err);
	kb_state_finish(&state);
	return r;
}

static int load(struct kb_reader *reader, MDB_txn *txn, struct kb_session *s, struct kb_err *err)
{
	MDB_val key = {KB_ULID_SIZE, s->id}, value;
	int rc, r;

	rc = mdb_get(txn, reader->env.tables[KB_TABLE_SESSIONS], &key, &value);
	if (rc == MDB_NOTFOUND)
		return kb_err_set(err, KB_ERR_NOTFOUND, "there is no session %s", s->id_text);
	if (rc)
		return kb_env_err(&reader->env, rc, "could not be read", err);
	r = fill_meta(s, &value, err);
	if (r < 0)
		return r;
	rc = mdb_get(txn, reader->env.tables[KB_TABLE_STATES], &key, &value);
	if (rc)
		return kb_err_set(
			err, KB_ERR_INVALID, "session %s: its state is missing", s->id_text);
	return fill_state(s, &value, err);
}

int kb_reader_session(struct kb_reader *reader, const uint8_t id[KB_ULID_SIZE],
	struct kb_session **ret, struct kb_err *err)
{
	struct kb_session *s = calloc(1, sizeof(*s));
	MDB_txn *txn;
	int r;

	if (!s || !(s->priv = calloc(1, sizeof(*s->priv)))) {
		kb_session_destroy(s);
		return kb_err_nomem(err);
	}
	memcpy(s->id, id, KB_ULID_SIZE);
	kb_ulid_format(id, s->id_text);
	r = kb_env_read(&reader->env, &txn, err);
	if (r == 0) {
		r = load(reader, txn, s, err);
		mdb_txn_abort(txn);
	}
	if (r < 0) {
		kb_session_destroy(s);
		return r;
	}
	*ret = s;
	return 0;
}
