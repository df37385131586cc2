/* Finding sessions by what people call them. */
#include <string.h>

#include "reader_db.h"
#include "supervisor/base/util.h"

#define NAMES_COMPARED 2000u /* for "did you mean" */

void kb_session_list_finish(struct kb_session_list *list)
{
	free(list->ids);
	*list = (struct kb_session_list){0};
}

static int add(struct kb_session_list *list, const void *id, struct kb_err *err)
{
	void *mem;

	for (size_t i = 0; i < list->n; i++)
		if (memcmp(list->ids[i], id, KB_ULID_SIZE) == 0)
			return 0;
	if ((list->n & (list->n - 1)) == 0) { /* grows at powers of two */
		mem = realloc(list->ids, (list->n ? 2 * list->n : 1) * KB_ULID_SIZE);
		if (!mem)
			return kb_err_nomem(err);
		list->ids = mem;
	}
	memcpy(list->ids[list->n++], id, KB_ULID_SIZE);
	return 0;
}

static int add_all(
	struct kb_env *env, MDB_cursor *cursor, struct kb_session_list *list, struct kb_err *err)
{
	size_t cap = 0;
	MDB_val k, v;
	void *mem;
	int rc;

	while ((rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0) {
		if (k.mv_size != KB_ULID_SIZE)
			continue;
		if (list->n == cap) {
			cap = cap ? 2 * cap : 64;
			mem = realloc(list->ids, cap * KB_ULID_SIZE);
			if (!mem)
				return kb_err_nomem(err);
			list->ids = mem;
		}
		memcpy(list->ids[list->n++], k.mv_data, KB_ULID_SIZE);
	}
	return rc == MDB_NOTFOUND ? 0 : kb_env_err(env, rc, "could not be read", err);
}

/* The newest session of a name: its keys sort by id, so by time. */
static bool newest_of(MDB_cursor *cursor, const char *name, uint8_t ret[KB_ULID_SIZE])
{
	size_t len = strlen(name) + 1;
	MDB_val k = {len, (void *)name}, v;
	bool found = false;

	for (int rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE); rc == 0;
		rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
		if (k.mv_size != len + KB_ULID_SIZE || memcmp(k.mv_data, name, len) != 0)
			break;
		memcpy(ret, (const uint8_t *)k.mv_data + len, KB_ULID_SIZE);
		found = true;
	}
	return found;
}

static int unknown(MDB_cursor *names, const char *word, struct kb_err *err)
{
	const char **known = calloc(NAMES_COMPARED, sizeof(*known));
	const char *best = NULL;
	size_t n = 0;
	MDB_val k, v;
	int r;

	for (int rc = mdb_cursor_get(names, &k, &v, MDB_FIRST);
		known && rc == 0 && n < NAMES_COMPARED;
		rc = mdb_cursor_get(names, &k, &v, MDB_NEXT))
		if (memchr(k.mv_data, '\0', k.mv_size))
			known[n++] = k.mv_data;
	if (known)
		best = kb_closest(word, known, n);
	r = kb_err_set(err, KB_ERR_NOTFOUND, "there is no session '%s'%s%s%s", word,
		best ? "; did you mean " : "", best ? best : "", best ? "?" : "");
	free(known);
	kb_err_hint(err, "kbsup audit sessions lists them");
	return r;
}

struct cursors {
	MDB_cursor *sessions, *names;
};

static int add_word(struct kb_env *env, const struct cursors *cursors, const char *word,
	struct kb_session_list *list, struct kb_err *err)
{
	uint8_t id[KB_ULID_SIZE];
	MDB_val k, v;

	if (strcmp(word, "all") == 0) {
		list->n = 0;
		return add_all(env, cursors->sessions, list, err);
	}
	if (strcmp(word, "last") == 0) {
		if (mdb_cursor_get(cursors->sessions, &k, &v, MDB_LAST) == 0 &&
			k.mv_size == KB_ULID_SIZE)
			return add(list, k.mv_data, err);
		kb_err_set(err, KB_ERR_NOTFOUND, "there is no session yet");
		return kb_err_hint(err, "kbsup run starts one");
	}
	if (kb_ulid_parse(word, id)) {
		k = (MDB_val){KB_ULID_SIZE, id};
		if (mdb_cursor_get(cursors->sessions, &k, &v, MDB_SET) == 0)
			return add(list, id, err);
	}
	if (newest_of(cursors->names, word, id))
		return add(list, id, err);
	return unknown(cursors->names, word, err);
}

static int by_id(const void *a, const void *b)
{
	return memcmp(a, b, KB_ULID_SIZE);
}

static int resolve(struct kb_env *env, const struct cursors *cursors, const char *sessions,
	struct kb_session_list *list, struct kb_err *err)
{
	KB_FREE char *words = strdup(sessions);
	char *save = NULL;
	int r = words ? 0 : kb_err_nomem(err);

	for (char *word = words ? strtok_r(words, ",", &save) : NULL; word && r == 0;
		word = strtok_r(NULL, ",", &save))
		r = add_word(env, cursors, word, list, err);
	if (r == 0 && list->n > 1)
		qsort(list->ids, list->n, KB_ULID_SIZE, by_id);
	return r;
}

int kb_reader_resolve(struct kb_reader *reader, const char *sessions, struct kb_session_list *ret,
	struct kb_err *err)
{
	struct cursors cursors = {0};
	MDB_txn *txn;
	int rc, r;

	*ret = (struct kb_session_list){0};
	r = kb_env_read(&reader->env, &txn, err);
	if (r < 0)
		return r;
	rc = mdb_cursor_open(txn, reader->env.tables[KB_TABLE_SESSIONS], &cursors.sessions);
	if (!rc)
		rc = mdb_cursor_open(txn, reader->env.tables[KB_TABLE_NAMES], &cursors.names);
	r = rc ? kb_env_err(&reader->env, rc, "could not be read", err)
	       : resolve(&reader->env, &cursors, sessions && *sessions ? sessions : "last", ret,
			 err);
	if (cursors.sessions)
		mdb_cursor_close(cursors.sessions);
	if (cursors.names)
		mdb_cursor_close(cursors.names);
	mdb_txn_abort(txn);
	if (r < 0)
		kb_session_list_finish(ret);
	return r;
}

int kb_reader_one(
	struct kb_reader *reader, const char *name, struct kb_session **ret, struct kb_err *err)
{
	struct kb_session_list list;
	int r = kb_reader_resolve(reader, name, &list, err);

	if (r < 0)
		return r;
	if (list.n == 1)
		r = kb_reader_session(reader, list.ids[0], ret, err);
	else
		r = kb_err_set(err, KB_ERR_USAGE, "this works on one session at a time");
	kb_session_list_finish(&list);
	return r;
}
