/* `audit verify`: walk every block of a session again and tell what is true of it.
 *
 *	intact		every block follows from the one before, up to the finish
 *	tampered	something stored is not what was chained
 *	unreadable	a part cannot be read at all
 *	incomplete	intact as far as it goes, but records are missing: no finish, a
 *			finish that says so, or loss that was counted when it happened
 */
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "block.h"
#include "filter.h"
#include "heads.h"
#include "output/json.h"
#include "reader_db.h"
#include "supervisor/base/util.h"

struct check {
	enum kb_verify verdict;
	char why[256];
	char name[KB_NAME_MAX];
	char id_text[KB_ULID_TEXT];
	uint64_t records, lost;
	uint8_t head[KB_HASH_SIZE];
};

/* A verdict only gets worse: tampered over unreadable over incomplete over intact. */
static void KB_PRINTF(3, 4) judge(struct check *check, enum kb_verify verdict, const char *fmt, ...)
{
	static const int rank[] = {[KB_VERIFY_INTACT] = 0,
		[KB_VERIFY_INCOMPLETE] = 1,
		[KB_VERIFY_UNREADABLE] = 2,
		[KB_VERIFY_TAMPERED] = 3};
	va_list ap;

	if (rank[verdict] <= rank[check->verdict])
		return;
	check->verdict = verdict;
	va_start(ap, fmt);
	vsnprintf(check->why, sizeof(check->why), fmt, ap);
	va_end(ap);
}

struct verifier {
	struct kb_env *env;
	MDB_txn *txn;
	struct kb_chain *chain;
	struct kb_block_iter iter;
	struct kb_filter_maker *maker; /* NULL: this session has no (more) index */
	struct kb_heads heads;
	const struct kb_head *head; /* the next one of this session to be met, */
	size_t n_heads;		    /* and how many there are from it on */
	bool end_signed;
};

/* Hold what has been computed so far against the heads that were signed at this point. */
static void meet_heads(struct verifier *v, struct check *check)
{
	for (; v->n_heads && v->head->records <= check->records; v->head++, v->n_heads--) {
		if (v->head->kind >= KB_HEAD_END)
			continue; /* the finish is part of these: check_end_head() */
		if (!v->head->genuine)
			judge(check, KB_VERIFY_TAMPERED,
				"the signature of its head at record %" PRIu64 " is wrong",
				v->head->records);
		else if (v->head->records < check->records)
			judge(check, KB_VERIFY_TAMPERED,
				"records from %" PRIu64 " on are not those that were signed",
				v->head->records + 1);
		else if (memcmp(v->head->hash, check->head, KB_HASH_SIZE) != 0)
			judge(check, KB_VERIFY_TAMPERED,
				"its records up to %" PRIu64 " are not those that were signed%s",
				check->records, v->head->anchored ? " and anchored" : "");
	}
}

/* The whole session with its finish, against the head signed at its end. */
static void check_end_head(struct verifier *v, const uint8_t *id, struct check *check)
{
	size_t n;
	const struct kb_head *head = kb_heads_of(&v->heads, id, &n);

	for (; n; head++, n--) {
		if (head->kind != KB_HEAD_END)
			continue;
		v->end_signed = true;
		if (!head->genuine)
			judge(check, KB_VERIFY_TAMPERED, "the signature of its finish is wrong");
		else if (head->records != check->records ||
			 memcmp(head->hash, check->head, KB_HASH_SIZE) != 0)
			judge(check, KB_VERIFY_TAMPERED,
				"it is not the session that was signed%s at its end",
				head->anchored ? " and anchored" : "");
	}
}

static bool count_records(
	struct verifier *v, const struct kb_item *item, uint64_t seq, uint64_t *lost)
{
	struct kb_record record;
	int r = kb_block_iter_begin(&v->iter, item->block, item->len, NULL);

	if (r < 0)
		return false;
	if (v->maker)
		kb_filter_begin(v->maker);
	while ((r = kb_block_iter_next(&v->iter, &record, NULL)) > 0) {
		*lost += record.event == KB_EVENT_LOSS ? record.count : 0;
		if (v->maker)
			kb_filter_add(v->maker, &v->iter, &record, seq, NULL);
		seq++;
	}
	return r == 0 && v->iter.count == item->count;
}

/* The stored index is the one that follows from the records. It may end before the session does,
 * once and for all. */
static bool check_filter(struct verifier *v, const MDB_val *key)
{
	MDB_val k = *key, stored;
	const uint8_t *made;
	size_t len;

	if (mdb_get(v->txn, v->env->tables[KB_TABLE_FILTERS], &k, &stored) != 0) {
		kb_filter_maker_destroy(v->maker);
		v->maker = NULL;
		return true;
	}
	return kb_filter_end(v->maker, &made, &len, NULL) == 0 && stored.mv_size == len &&
	       memcmp(stored.mv_data, made, len) == 0;
}

/* One block; false when the walk cannot go on. */
static bool check_block(
	struct verifier *v, const MDB_val *k, const MDB_val *value, struct check *check)
{
	uint64_t want = check->records + 1, seq = kb_block_key_seq(k->mv_data);
	struct kb_item item;

	if (seq != want) {
		judge(check, KB_VERIFY_TAMPERED, "record %" PRIu64 " is followed by %" PRIu64,
			want - 1, seq);
		return false;
	}
	if (!kb_item_parse(value, &item)) {
		judge(check, KB_VERIFY_UNREADABLE, "the block at record %" PRIu64 " is damaged",
			seq);
		return false;
	}
	if (kb_chain_block(v->chain, check->head, seq, item.block, item.len, NULL) < 0 ||
		memcmp(check->head, item.hash, KB_HASH_SIZE) != 0) {
		judge(check, KB_VERIFY_TAMPERED,
			"the block at record %" PRIu64 " is not what was written there", seq);
		return false;
	}
	if (!count_records(v, &item, seq, &check->lost)) {
		judge(check, KB_VERIFY_TAMPERED,
			"the block at record %" PRIu64 " does not hold what it says", seq);
		return false;
	}
	if (v->maker && !check_filter(v, k)) {
		judge(check, KB_VERIFY_TAMPERED,
			"the index of the block at record %" PRIu64 " is not of its records", seq);
		return false;
	}
	check->records += item.count;
	meet_heads(v, check);
	return true;
}

static bool walk(struct verifier *v, const uint8_t id[KB_ULID_SIZE], struct check *check)
{
	uint8_t first[KB_BLOCK_KEY_SIZE];
	MDB_val k = {sizeof(first), first}, value;
	MDB_cursor *cursor;
	bool ok = true;
	int rc = mdb_cursor_open(v->txn, v->env->tables[KB_TABLE_BLOCKS], &cursor);

	if (rc) {
		judge(check, KB_VERIFY_UNREADABLE, "%s", mdb_strerror(rc));
		return false;
	}
	kb_block_key(id, 0, first);
	for (rc = mdb_cursor_get(cursor, &k, &value, MDB_SET_RANGE); rc == 0 && ok;
		rc = mdb_cursor_get(cursor, &k, &value, MDB_NEXT)) {
		if (k.mv_size != sizeof(first) || memcmp(k.mv_data, id, KB_ULID_SIZE) != 0)
			break;
		ok = check_block(v, &k, &value, check);
	}
	if (rc && rc != MDB_NOTFOUND)
		judge(check, KB_VERIFY_UNREADABLE, "%s", mdb_strerror(rc));
	mdb_cursor_close(cursor);
	return ok && (!rc || rc == MDB_NOTFOUND);
}

static void check_finish(
	struct verifier *v, const uint8_t *id, const struct kb_state *state, struct check *check)
{
	struct kb_session_end end;
	KB_FREE char *reason = NULL;

	if (state->end &&
		(kb_chain_end(v->chain, check->head, state->end, state->end_len, NULL) < 0 ||
			kb_end_parse(state->end, state->end_len, &end, &reason, NULL) < 0))
		judge(check, KB_VERIFY_UNREADABLE, "its finish is damaged");
	if (check->records < state->records)
		judge(check, KB_VERIFY_TAMPERED, "its last %" PRIu64 " records have been cut off",
			state->records - check->records);
	else if (check->records != state->records ||
		 memcmp(check->head, state->head, KB_HASH_SIZE) != 0)
		judge(check, KB_VERIFY_TAMPERED, "the chain does not lead to its finish");
	if (v->n_heads && v->head->records > check->records)
		judge(check, KB_VERIFY_TAMPERED,
			"%" PRIu64 " records were signed, and %" PRIu64 " are left",
			v->head[v->n_heads - 1].records, check->records);
	check_end_head(v, id, check);
	if (check->verdict != KB_VERIFY_INTACT)
		return;
	if (v->end_signed && !state->end)
		judge(check, KB_VERIFY_TAMPERED, "its finish has been removed");
	else if (!state->end)
		judge(check, KB_VERIFY_INCOMPLETE, "it has no finish: it runs, or was interrupted");
	else if (!end.complete)
		judge(check, KB_VERIFY_INCOMPLETE, "its end is missing: %s",
			reason ? reason : "it was interrupted");
	else if (check->lost)
		judge(check, KB_VERIFY_INCOMPLETE, "%" PRIu64 " records were lost and counted",
			check->lost);
	else if (!v->end_signed)
		judge(check, KB_VERIFY_INCOMPLETE, "its finish is not signed");
}

static bool get(struct verifier *v, enum kb_table table, const uint8_t *id, MDB_val *ret)
{
	MDB_val key = {KB_ULID_SIZE, (void *)id};

	return mdb_get(v->txn, v->env->tables[table], &key, ret) == 0;
}

static void check_session(struct verifier *v, const uint8_t id[KB_ULID_SIZE], struct check *check)
{
	struct kb_state state;
	MDB_val meta, value;

	v->head = kb_heads_of(&v->heads, id, &v->n_heads);
	v->end_signed = false;
	kb_filter_maker_destroy(v->maker);
	v->maker = v->env->has_filters ? kb_filter_maker_create() : NULL;
	if (!get(v, KB_TABLE_SESSIONS, id, &meta) || !get(v, KB_TABLE_STATES, id, &value)) {
		judge(check, KB_VERIFY_TAMPERED, "its description or state has been removed");
		return;
	}
	if (kb_state_parse(value.mv_data, value.mv_size, &state, NULL) < 0) {
		judge(check, KB_VERIFY_UNREADABLE, "its state is damaged");
		return;
	}
	if (kb_chain_start(v->chain, meta.mv_data, meta.mv_size, check->head, NULL) == 0)
		meet_heads(v, check);
	if (walk(v, id, check))
		check_finish(v, id, &state, check);
	kb_state_finish(&state);
}

/* ---- Telling --------------------------------------------------------------------------------- */

static const char *const verdicts[] = {
	[KB_VERIFY_INTACT] = "intact",
	[KB_VERIFY_TAMPERED] = "tampered",
	[KB_VERIFY_UNREADABLE] = "unreadable",
	[KB_VERIFY_INCOMPLETE] = "incomplete",
};

static void name_check(struct kb_reader *reader, const uint8_t *id, struct check *check)
{
	struct kb_session *session;

	kb_ulid_format(id, check->id_text);
	if (kb_reader_session(reader, id, &session, NULL) < 0) {
		snprintf(check->name, sizeof(check->name), "%s", check->id_text);
		return;
	}
	snprintf(check->name, sizeof(check->name), "%s", session->name);
	kb_session_destroy(session);
}

static bool tell_json(json_t *list, const struct check *check)
{
	char head[2 * KB_HASH_SIZE + 1];
	json_t *o = json_object();

	for (size_t i = 0; i < KB_HASH_SIZE; i++)
		snprintf(head + 2 * i, 3, "%02x", check->head[i]);
	return o && kb_json_text(o, "session", check->name) &&
	       kb_json_text(o, "session_id", check->id_text) &&
	       kb_json_text(o, "verdict", verdicts[check->verdict]) &&
	       kb_json_number(o, "records", check->records) &&
	       kb_json_number(o, "lost", check->lost) && kb_json_text(o, "reason", check->why) &&
	       kb_json_text(o, "head", head) && json_array_append_new(list, o) == 0;
}

static bool tell(const struct kb_view *view, const struct check *check)
{
	static const enum kb_colour colours[] = {
		[KB_VERIFY_INTACT] = KB_GREEN,
		[KB_VERIFY_TAMPERED] = KB_RED,
		[KB_VERIFY_UNREADABLE] = KB_RED,
		[KB_VERIFY_INCOMPLETE] = KB_YELLOW,
	};
	char count[KB_COUNT_MAX];
	KB_FREE char *why = kb_escape_dup(check->why, strlen(check->why));

	return fprintf(view->out, "%s%-10s%s  %s  %s records%s%s\n",
		       kb_colour(view, colours[check->verdict]), verdicts[check->verdict],
		       kb_colour(view, KB_PLAIN), check->name, kb_text_count(check->records, count),
		       why && why[0] ? ": " : "", why ? why : "") >= 0;
}

const char *kb_verify_word(enum kb_verify verdict)
{
	return verdicts[verdict];
}

enum kb_verify kb_verify_session(struct kb_reader *reader, const uint8_t id[KB_ULID_SIZE])
{
	struct verifier v = {.env = &reader->env};
	struct check check = {.verdict = KB_VERIFY_INTACT};

	if (kb_chain_create(&v.chain, NULL) < 0)
		return KB_VERIFY_UNREADABLE;
	/* Heads first: they are signed after their records are durable, so a snapshot taken later
	 * holds them all. */
	if (kb_heads_read(reader->env.dir, &v.heads, NULL) < 0 ||
		kb_env_read(v.env, &v.txn, NULL) < 0) {
		check.verdict = KB_VERIFY_UNREADABLE;
	} else {
		check_session(&v, id, &check);
		mdb_txn_abort(v.txn);
	}
	kb_heads_finish(&v.heads);
	kb_chain_destroy(v.chain);
	kb_block_iter_finish(&v.iter);
	kb_filter_maker_destroy(v.maker);
	return check.verdict;
}

static enum kb_verify worse(enum kb_verify a, enum kb_verify b)
{
	struct check check = {.verdict = a};

	judge(&check, b, "%s", "");
	return check.verdict;
}

struct telling {
	const struct kb_view *view;
	json_t *json; /* NULL: for people */
	enum kb_verify worst;
};

static int tell_one(struct telling *to, const struct check *check, struct kb_err *err)
{
	to->worst = worse(to->worst, check->verdict);
	if (to->json ? tell_json(to->json, check) : tell(to->view, check))
		return 0;
	return kb_err_set(err, KB_ERR_CLOSED, "the output is closed");
}

static int verify_list(struct kb_reader *reader, struct verifier *v,
	const struct kb_session_list *list, struct telling *to, struct kb_err *err)
{
	struct check check;
	int r = 0;

	for (size_t i = 0; i < list->n && r == 0; i++) {
		check = (struct check){0};
		name_check(reader, list->ids[i], &check);
		/* A snapshot each: a long walk must not keep old pages alive. */
		r = kb_env_read(v->env, &v->txn, err);
		if (r < 0)
			return r;
		check_session(v, list->ids[i], &check);
		mdb_txn_abort(v->txn);
		r = tell_one(to, &check, err);
	}
	return r;
}

static bool in_list(const struct kb_session_list *list, const uint8_t *id)
{
	size_t low = 0, high = list->n, mid;

	while (low < high) {
		mid = (low + high) / 2;
		if (memcmp(list->ids[mid], id, KB_ULID_SIZE) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low < list->n && memcmp(list->ids[low], id, KB_ULID_SIZE) == 0;
}

/* Sessions that were signed and are not there any more, without a tombstone. */
static int verify_removed(struct verifier *v, const struct kb_session_list *list,
	struct telling *to, struct kb_err *err)
{
	int r = 0;

	for (size_t i = 0, n; i < v->heads.n && r == 0; i += n) {
		const struct kb_head *head = &v->heads.list[i];
		struct check check = {0};
		bool pruned = false;

		kb_heads_of(&v->heads, head->session, &n);
		for (size_t k = 0; k < n; k++)
			pruned = pruned || (head[k].kind == KB_HEAD_PRUNED && head[k].genuine);
		if (pruned || in_list(list, head->session))
			continue;
		kb_ulid_format(head->session, check.id_text);
		snprintf(check.name, sizeof(check.name), "%s", check.id_text);
		judge(&check, KB_VERIFY_TAMPERED,
			"the whole session has been removed; %" PRIu64 " records were signed",
			head[n - 1].records);
		r = tell_one(to, &check, err);
	}
	return r;
}

/* Sessions that were dropped on purpose do no harm to the verdict. */
static int tell_pruned(
	struct kb_reader *reader, const struct verifier *v, struct telling *to, struct kb_err *err)
{
	KB_FREE struct kb_tombstone *list = NULL;
	char sessions[KB_COUNT_MAX], records[KB_COUNT_MAX];
	uint64_t sum = 0;
	size_t n;
	int r = kb_tombstones_of(reader, &v->heads, &list, &n, err);

	for (size_t i = 0; r == 0 && i < n; i++) {
		json_t *o = to->json ? json_object() : NULL;

		sum += list[i].records;
		if (to->json && (!o || !kb_json_text(o, "session", list[i].id_text) ||
					!kb_json_text(o, "session_id", list[i].id_text) ||
					!kb_json_text(o, "verdict", "pruned") ||
					!kb_json_number(o, "records", list[i].records) ||
					!kb_json_time(o, "pruned", list[i].pruned) ||
					json_array_append_new(to->json, o) < 0))
			r = kb_err_nomem(err);
	}
	if (r < 0 || to->json || n == 0)
		return r;
	if (fprintf(to->view->out,
		    "pruned      %s session%s  %s records: dropped on purpose, as their signed "
		    "tombstones say\n",
		    kb_text_count(n, sessions), n == 1 ? "" : "s", kb_text_count(sum, records)) < 0)
		return kb_err_set(err, KB_ERR_CLOSED, "the output is closed");
	return 0;
}

static int verify_all(struct kb_reader *reader, struct verifier *v, const char *sessions,
	struct telling *to, struct kb_err *err)
{
	struct kb_session_list list;
	int r = kb_heads_read(reader->env.dir, &v->heads, err);

	if (r == 0 && reader->anchor)
		r = kb_heads_add_anchor(&v->heads, reader->anchor, strlen(reader->anchor), err);
	if (r == 0 && v->heads.other_key)
		to->worst = KB_VERIFY_TAMPERED;
	if (r == 0 && v->heads.other_key && !to->json)
		fprintf(to->view->out, "tampered    the anchor was made with another key\n");
	if (r < 0)
		return r;
	r = kb_reader_resolve(reader, sessions, &list, err);
	if (r < 0)
		return r;
	r = verify_list(reader, v, &list, to, err);
	if (r == 0 && sessions && strcmp(sessions, "all") == 0)
		r = verify_removed(v, &list, to, err);
	if (r == 0 && sessions && strcmp(sessions, "all") == 0)
		r = tell_pruned(reader, v, to, err);
	kb_session_list_finish(&list);
	return r;
}

int kb_reader_verify(struct kb_reader *reader, const char *sessions, const struct kb_view *view,
	enum kb_verify *ret, struct kb_err *err)
{
	struct telling to = {.view = view, .json = view->json ? json_array() : NULL};
	struct verifier v = {.env = &reader->env};
	int r = kb_chain_create(&v.chain, err);

	if (r == 0)
		r = verify_all(reader, &v, sessions, &to, err);
	if (r == 0 && to.json)
		r = kb_json_put(json_incref(to.json), false, view->out, err);
	if (r == 0 && fflush(view->out) != 0)
		r = kb_err_set(err, KB_ERR_CLOSED, "the output is closed");
	*ret = to.worst;
	json_decref(to.json);
	kb_heads_finish(&v.heads);
	kb_chain_destroy(v.chain);
	kb_block_iter_finish(&v.iter);
	kb_filter_maker_destroy(v.maker);
	return r;
}

int kb_reader_set_anchor(struct kb_reader *reader, const char *text, size_t len, struct kb_err *err)
{
	free(reader->anchor);
	reader->anchor = strndup(text, len);
	return reader->anchor ? 0 : kb_err_nomem(err);
}

int kb_reader_export_anchor(
	struct kb_reader *reader, const struct kb_view *view, struct kb_err *err)
{
	KB_FREE char *path = kb_asprintf("%s.heads", reader->env.dir);
	struct kb_heads heads;
	int r = path ? kb_heads_read(reader->env.dir, &heads, err) : kb_err_nomem(err);

	if (r < 0)
		return r;
	if (!heads.has_key)
		r = kb_err_set(
			err, KB_ERR_NOTFOUND, "the audit store %s has no key yet", reader->env.dir);
	if (r == 0)
		r = kb_heads_write_anchor(&heads, view->out, err);
	kb_heads_finish(&heads);
	return r;
}
