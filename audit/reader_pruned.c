/* Sessions that were dropped on purpose, known by their tombstones among the signed heads. */
#include <stdlib.h>
#include <string.h>

#include "heads.h"
#include "reader_db.h"
#include "supervisor/base/util.h"

/* A ULID begins with its milliseconds. */
static uint64_t time_of(const uint8_t id[KB_ULID_SIZE])
{
	uint64_t ms = 0;

	for (int i = 0; i < 6; i++)
		ms = ms << 8 | id[i];
	return ms * 1000000;
}

static bool is_there(struct kb_reader *reader, MDB_txn *txn, const uint8_t id[KB_ULID_SIZE])
{
	MDB_val key = {KB_ULID_SIZE, (void *)id}, value;

	return mdb_get(txn, reader->env.tables[KB_TABLE_SESSIONS], &key, &value) == 0;
}

int kb_tombstones_of(struct kb_reader *reader, const struct kb_heads *heads,
	struct kb_tombstone **ret, size_t *ret_n, struct kb_err *err)
{
	struct kb_tombstone *list = calloc(heads->n + 1, sizeof(*list)), *one;
	const struct kb_head *head = heads->list, *last = NULL;
	MDB_txn *txn;
	size_t n = 0;
	int r = list ? kb_env_read(&reader->env, &txn, err) : kb_err_nomem(err);

	if (r < 0) {
		free(list);
		return r;
	}
	for (; head && head < heads->list + heads->n; head++) {
		if (head->kind != KB_HEAD_PRUNED || !head->genuine)
			continue;
		/* Signed again after a crash, or not followed by the deed: not (another) one. */
		if ((last && memcmp(last->session, head->session, KB_ULID_SIZE) == 0) ||
			is_there(reader, txn, head->session))
			continue;
		last = head;
		one = &list[n++];
		kb_ulid_format(head->session, one->id_text);
		one->started = time_of(head->session);
		one->pruned = head->time;
		one->records = head->records;
	}
	mdb_txn_abort(txn);
	*ret = list;
	*ret_n = n;
	return 0;
}

int kb_reader_tombstones(
	struct kb_reader *reader, struct kb_tombstone **ret, size_t *ret_n, struct kb_err *err)
{
	struct kb_heads heads;
	int r = kb_heads_read(reader->env.dir, &heads, err);

	if (r < 0)
		return r;
	r = kb_tombstones_of(reader, &heads, ret, ret_n, err);
	kb_heads_finish(&heads);
	return r;
}
