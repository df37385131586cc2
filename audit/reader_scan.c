/* The scan over the records of a session.
 *
 * Without a plan, or when the session's last blocks have no index, blocks are decoded one after the
 * other and the processes follow from the records. With a plan, the index of each block is asked
 * first, and blocks that cannot match are not decoded. From the first such jump on the processes
 * are seeded from the index of each block that is entered (it lists the processes that block has,
 * and no others): who they are and who made them, and the number of the exec record of what they
 * run, which kb_scan_resolve() fetches when somebody wants to know.
 */
#include <stdlib.h>
#include <string.h>

#include "block.h"
#include "filter.h"
#include "query/plan.h"
#include "reader_db.h"
#include "supervisor/base/util.h"

#define SNAPSHOT_BLOCKS 256u /* how many decoded blocks one snapshot serves */
#define IMAGES_KEPT	64u  /* programs fetched lately */
#define ANCESTORS	8u   /* whose programs are fetched with that of a process */

struct kb_scan {
	struct kb_reader *reader;
	const struct kb_session *session;
	const struct kb_plan *plan;
	bool indexed, index_known;
	MDB_txn *txn;
	MDB_cursor *blocks, *filters;
	unsigned snapshot_left;
	bool fresh; /* the cursors stand nowhere yet */
	struct kb_block_iter iter;
	bool in_block;
	bool jumped;	   /* once: what is known of processes is not all there is */
	uint64_t next_seq; /* of the next record */
	struct kb_record record;
	struct kb_processes *procs;
	struct kb_block_iter fetch; /* for programs */
	struct kb_image *images[IMAGES_KEPT];
	unsigned n_images;
};

int kb_scan_create(struct kb_reader *reader, const struct kb_session *session, struct kb_scan **ret,
	struct kb_err *err)
{
	struct kb_scan *scan = calloc(1, sizeof(*scan));

	if (!scan || !(scan->procs = kb_processes_create())) {
		free(scan);
		return kb_err_nomem(err);
	}
	scan->reader = reader;
	scan->session = session;
	scan->next_seq = 1;
	*ret = scan;
	return 0;
}

void kb_scan_select(struct kb_scan *scan, const struct kb_plan *plan)
{
	scan->plan = plan;
}

static void release(struct kb_scan *scan)
{
	if (scan->blocks)
		mdb_cursor_close(scan->blocks);
	if (scan->filters)
		mdb_cursor_close(scan->filters);
	if (scan->txn)
		mdb_txn_abort(scan->txn);
	scan->blocks = scan->filters = NULL;
	scan->txn = NULL;
}

void kb_scan_destroy(struct kb_scan *scan)
{
	if (!scan)
		return;
	release(scan);
	for (unsigned i = 0; i < IMAGES_KEPT; i++)
		kb_image_unref(scan->images[i]);
	kb_block_iter_finish(&scan->iter);
	kb_block_iter_finish(&scan->fetch);
	kb_processes_destroy(scan->procs);
	free(scan);
}

static int snapshot(struct kb_scan *scan, struct kb_err *err)
{
	struct kb_env *env = &scan->reader->env;
	int rc, r;

	release(scan);
	r = kb_env_read(env, &scan->txn, err);
	if (r < 0) {
		scan->txn = NULL;
		return r;
	}
	rc = mdb_cursor_open(scan->txn, env->tables[KB_TABLE_BLOCKS], &scan->blocks);
	if (!rc && env->has_filters)
		rc = mdb_cursor_open(scan->txn, env->tables[KB_TABLE_FILTERS], &scan->filters);
	if (rc)
		return kb_env_err(env, rc, "could not be read", err);
	scan->snapshot_left = SNAPSHOT_BLOCKS;
	scan->fresh = true;
	return 0;
}

static int damaged(const struct kb_scan *scan, const char *what, struct kb_err *err)
{
	kb_err_set(err, KB_ERR_INVALID, "session %s: %s at record %llu", scan->session->name, what,
		(unsigned long long)scan->next_seq);
	return kb_err_hint(err, "kbsup audit verify %s", scan->session->name);
}

static bool of_session(const struct kb_scan *scan, const MDB_val *k)
{
	return k->mv_size == KB_BLOCK_KEY_SIZE &&
	       memcmp(k->mv_data, scan->session->id, KB_ULID_SIZE) == 0;
}

/* Whether the last block of the session has an index: then all have. */
static bool last_is_indexed(struct kb_scan *scan)
{
	uint8_t key[KB_BLOCK_KEY_SIZE];
	MDB_val k = {sizeof(key), key}, v;
	MDB_cursor *cursors[2] = {scan->blocks, scan->filters};
	uint64_t seq[2];

	if (!scan->filters)
		return false;
	for (int i = 0; i < 2; i++) {
		kb_block_key(scan->session->id, UINT64_MAX, key);
		k = (MDB_val){sizeof(key), key};
		if (mdb_cursor_get(cursors[i], &k, &v, MDB_SET_RANGE) == 0) {
			if (mdb_cursor_get(cursors[i], &k, &v, MDB_PREV) != 0)
				return false;
		} else if (mdb_cursor_get(cursors[i], &k, &v, MDB_LAST) != 0) {
			return false;
		}
		if (!of_session(scan, &k))
			return false;
		seq[i] = kb_block_key_seq(k.mv_data);
	}
	return seq[0] == seq[1];
}

/* Move next_seq past blocks that cannot match. 1: the block at next_seq may, and *ret is its index;
 * 0: there are no more. */
static int skip_blocks(struct kb_scan *scan, struct kb_filter *ret, struct kb_err *err)
{
	uint8_t want[KB_BLOCK_KEY_SIZE];
	MDB_val k = {sizeof(want), want}, v;
	MDB_cursor_op op = scan->fresh ? MDB_SET_RANGE : MDB_NEXT;
	int rc;

	kb_block_key(scan->session->id, scan->next_seq, want);
	while ((rc = mdb_cursor_get(scan->filters, &k, &v, op)) == 0 && of_session(scan, &k)) {
		if (kb_block_key_seq(k.mv_data) != scan->next_seq ||
			!kb_filter_parse(v.mv_data, v.mv_size, ret) || ret->head.count == 0)
			return damaged(scan, "the index is damaged", err);
		if (kb_plan_may(scan->plan, scan->session, ret))
			return 1;
		scan->next_seq += ret->head.count;
		scan->jumped = true;
		op = MDB_NEXT;
	}
	if (rc && rc != MDB_NOTFOUND)
		return kb_env_err(&scan->reader->env, rc, "could not be read", err);
	return 0;
}

/* 1: the place of the next block is known; 0: there is none yet. */
static int find_block(struct kb_scan *scan, struct kb_err *err)
{
	struct kb_filter filter;
	int r;

	if ((!scan->txn || scan->snapshot_left == 0) && (r = snapshot(scan, err)) < 0)
		return r;
	if (!scan->index_known) {
		scan->indexed = last_is_indexed(scan);
		scan->index_known = true;
	}
	if (!scan->plan || !scan->indexed)
		return 1;
	r = skip_blocks(scan, &filter, err);
	if (r <= 0 || !scan->jumped)
		return r;
	r = kb_processes_seed(scan->procs, &filter, err);
	return r < 0 ? r : 1;
}

/* 1: a block has begun; 0: there is none yet. */
static int next_block(struct kb_scan *scan, struct kb_err *err)
{
	uint8_t want[KB_BLOCK_KEY_SIZE];
	MDB_val k = {sizeof(want), want}, v;
	struct kb_item item;
	int rc, r = find_block(scan, err);

	if (r < 0)
		return r;
	kb_block_key(scan->session->id, scan->next_seq, want);
	rc = r == 0 ? MDB_NOTFOUND
		    : mdb_cursor_get(scan->blocks, &k, &v,
			      scan->fresh || scan->plan ? MDB_SET_RANGE : MDB_NEXT);
	if (rc == 0 && !of_session(scan, &k))
		rc = MDB_NOTFOUND;
	if (rc == MDB_NOTFOUND) {
		release(scan);
		return 0;
	}
	if (rc)
		return kb_env_err(&scan->reader->env, rc, "could not be read", err);
	if (memcmp(k.mv_data, want, sizeof(want)) != 0)
		return damaged(scan, "records are missing", err);
	if (!kb_item_parse(&v, &item))
		return damaged(scan, "a block is damaged", err);
	scan->fresh = false;
	scan->snapshot_left--;
	r = kb_block_iter_begin(&scan->iter, item.block, item.len, err);
	return r < 0 ? r : 1;
}

int kb_scan_next(struct kb_scan *scan, struct kb_row *ret, struct kb_err *err)
{
	int r;

	for (;;) {
		if (!scan->in_block) {
			r = next_block(scan, err);
			if (r <= 0)
				return r;
			scan->in_block = true;
		}
		r = kb_block_iter_next(&scan->iter, &scan->record, err);
		if (r < 0)
			return damaged(scan, "a block is damaged", err);
		if (r > 0)
			break;
		scan->in_block = false;
	}
	ret->session = scan->session;
	ret->record = &scan->record;
	ret->seq = scan->next_seq++;
	r = kb_processes_update(scan->procs, &scan->record, ret->seq, &ret->proc, err);
	return r < 0 ? r : 1;
}

/* ---- Programs that a jump left out ----------------------------------------------------------- */

/* The block that holds record seq, and the number of its first record. */
static bool block_of(struct kb_scan *scan, uint64_t seq, struct kb_item *ret, uint64_t *ret_first)
{
	uint8_t key[KB_BLOCK_KEY_SIZE];
	MDB_val k = {sizeof(key), key}, v;
	MDB_cursor *cursor;
	int rc;

	if (mdb_cursor_open(scan->txn, scan->reader->env.tables[KB_TABLE_BLOCKS], &cursor))
		return false;
	kb_block_key(scan->session->id, seq, key);
	rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
	if (rc == MDB_NOTFOUND)
		rc = mdb_cursor_get(cursor, &k, &v, MDB_LAST);
	else if (rc == 0 && (!of_session(scan, &k) || kb_block_key_seq(k.mv_data) != seq))
		rc = mdb_cursor_get(cursor, &k, &v, MDB_PREV);
	mdb_cursor_close(cursor);
	if (rc || !of_session(scan, &k) || !kb_item_parse(&v, ret))
		return false;
	*ret_first = kb_block_key_seq(k.mv_data);
	return *ret_first <= seq && seq - *ret_first < ret->count;
}

/* NULL when the record is not there or is no exec: the program stays unknown. */
static struct kb_image *fetch_image(struct kb_scan *scan, uint64_t seq)
{
	struct kb_record record;
	struct kb_item item;
	uint64_t at;

	for (unsigned i = 0; i < IMAGES_KEPT; i++)
		if (scan->images[i] && scan->images[i]->seq == seq)
			return kb_image_ref(scan->images[i]);
	if (!scan->txn || !block_of(scan, seq, &item, &at) ||
		kb_block_iter_begin(&scan->fetch, item.block, item.len, NULL) < 0)
		return NULL;
	for (; kb_block_iter_next(&scan->fetch, &record, NULL) > 0; at++) {
		struct kb_image **place = &scan->images[scan->n_images % IMAGES_KEPT], *image;

		if (at != seq)
			continue;
		image = record.event == KB_EVENT_EXEC ? kb_image_create(&record, seq) : NULL;
		if (!image)
			return NULL;
		kb_image_unref(*place);
		*place = image;
		scan->n_images++;
		return kb_image_ref(image);
	}
	return NULL;
}

int kb_scan_resolve(struct kb_scan *scan, const struct kb_row *row, struct kb_err *err)
{
	struct kb_process *proc = row->proc;

	for (unsigned i = 0; proc && i < ANCESTORS; i++, proc = proc->parent) {
		if (proc->image || !proc->image_seq)
			continue;
		proc->image = fetch_image(scan, proc->image_seq);
		if (!proc->image)
			proc->image_seq = 0; /* not asked again */
	}
	return 0;
}
