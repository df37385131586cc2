/* The index of blocks: every question gives the same answer, to the byte, with it and without it;
 * it rules out most of what it can; verify notices when it is changed. */
#include "fixture.h"

#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit/filter.h"
#include "audit/query/plan.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/util.h"

enum { BLOCKS = 120, A_BLOCK = 60 };

static char *dir, *plain; /* the same store, the second without an index */

static void random_record(struct kb_record *r, uint64_t n, char path[128], struct kb_bytes argv[3])
{
	static const char *const programs[] = {
		"/usr/bin/make", "/usr/bin/gcc", "/usr/lib/cc1", "/bin/sh", "/home/dev/bin/tool"};
	static const uint8_t addresses[3][4] = {{10, 0, 0, 1}, {10, 0, 0, 2}, {192, 0, 2, 9}};
	uint32_t kind = fix_random() % 20;
	/* Time goes on, pids drift, so that each block has its own. */
	uint32_t pid = 100 + (uint32_t)(n / 90) + fix_random() % 6;

	*r = fix_record(KB_EVENT_OPEN, (double)n / 100, pid);
	snprintf(path, 128, "/home/dev/p%u/src/f%u.c", (unsigned)(n / 500), fix_random() % 50);
	r->path = fix_bytes(path);
	/* Long-lived ones are seldom met: a block may be without them, and the next one not. */
	if (n == 0 || (kind == 5 && fix_random() % 8 == 0)) {
		kind = n == 0 ? 0 : kind;
		r->pid = pid = 7;
	}
	if (kind == 0) {
		r->event = KB_EVENT_EXEC;
		r->ppid = 100 + (uint32_t)(n / 90) + fix_random() % 4;
		r->ppid = r->ppid == pid ? 1 : r->ppid;
		r->exe = r->path = fix_bytes(programs[fix_random() % 5]);
		argv[0] = fix_bytes("prog");
		argv[1] = fix_bytes(path);
		r->argv = argv;
		r->argc = 2;
	} else if (kind == 1) {
		r->event = KB_EVENT_EXIT;
		r->path = (struct kb_bytes){0};
		r->ppid = 1;
	} else if (kind == 2 && fix_random() % 4 == 0) {
		r->event = KB_EVENT_CONNECT;
		r->path = (struct kb_bytes){0};
		r->family = 2;
		r->port = 80 + fix_random() % 3;
		r->address = (struct kb_bytes){addresses[fix_random() % 3], 4};
		r->host = fix_bytes(fix_random() % 2 ? "a.example" : "b.example");
		if (fix_random() % 2)
			r->pid = 0; /* as the broker has it */
	} else if (kind == 3 && fix_random() % 8 == 0) {
		r->decision = KB_DECISION_DENIED;
		r->rule = fix_random() % 4;
	} else if (kind == 4) {
		r->ppid = 100 + (uint32_t)(n / 90); /* a fork that never execs */
		r->comm = fix_bytes("forked");
	}
}

static void make_store(const char *place)
{
	struct kb_session_end end = {.ended = fix_time(900), .complete = true};
	struct kb_store *store;
	uint8_t id[KB_ULID_SIZE];
	struct kb_bytes argv[3];
	struct kb_block block;
	struct kb_record r;
	struct kb_err err;
	char path[128];
	uint64_t n = 0;

	fix_seed(11);
	assert_int_equal(kb_store_open(place, &store, &err), 0);
	fix_begin(store, "amber-otter", id);
	kb_block_init(&block);
	for (int b = 0; b < BLOCKS; b++) {
		kb_block_reset(&block);
		for (int i = 0; i < A_BLOCK; i++, n++) {
			random_record(&r, n, path, argv);
			assert_int_equal(kb_block_add(&block, &r, &err), 0);
		}
		assert_int_equal(kb_store_append(store, id, n - A_BLOCK + 1,
					 kb_buf_data(&block.buf), kb_buf_len(&block.buf), &err),
			0);
		assert_int_equal(kb_store_commit(store, &err), 0);
	}
	kb_block_finish(&block);
	assert_int_equal(kb_store_session_finish(store, id, &end, &err), 0);
	assert_int_equal(kb_store_commit(store, &err), 0);
	kb_store_close(store);
}

typedef void (*edit_fn)(MDB_txn *txn, MDB_dbi filters);

static void edit(const char *place, edit_fn fn)
{
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi filters;

	assert_int_equal(mdb_env_create(&env), 0);
	mdb_env_set_maxdbs(env, 32);
	mdb_env_set_mapsize(env, 1u << 30);
	assert_int_equal(mdb_env_open(env, place, 0, 0600), 0);
	assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
	assert_int_equal(mdb_dbi_open(txn, "filters", 0, &filters), 0);
	fn(txn, filters);
	assert_int_equal(mdb_txn_commit(txn), 0);
	mdb_env_close(env);
}

static void drop_all(MDB_txn *txn, MDB_dbi filters)
{
	assert_int_equal(mdb_drop(txn, filters, 0), 0);
}

static void change_one(MDB_txn *txn, MDB_dbi filters)
{
	MDB_cursor *cursor;
	MDB_val k, v, copy;

	assert_int_equal(mdb_cursor_open(txn, filters, &cursor), 0);
	for (int i = 0; i < 5; i++)
		assert_int_equal(mdb_cursor_get(cursor, &k, &v, MDB_NEXT), 0);
	copy = (MDB_val){v.mv_size, malloc(v.mv_size)};
	memcpy(copy.mv_data, v.mv_data, v.mv_size);
	/* The times of the block: a question by time would not look into it. */
	memset(copy.mv_data, 1, 8);
	assert_int_equal(mdb_cursor_put(cursor, &k, &copy, MDB_CURRENT), 0);
	free(copy.mv_data);
	mdb_cursor_close(cursor);
}

static const char *const questions[] = {
	"pid = 130",
	"pid = 7",
	"event = connect or pid = 7",
	"event = connect or event = exit",
	"pid in (101, 179)",
	"pid = 130 and event = exec",
	"event = connect",
	"event != open",
	"event in (connect, exit)",
	"decision = denied",
	"decision != allowed",
	"not decision = allowed",
	"not (decision = allowed or pid = 5)",
	"path ~ \"/home/dev/p3/**\"",
	"path ~ \"/home/dev/p3/src/f7.c\"",
	"path = \"/home/dev/p5/src/f7.c\"",
	"path ~ \"**/f13.c\"",
	"path ~ \"**/f1?.c\"",
	"path ~ \"/home/*/p7/**\"",
	"path ~ \"/nowhere/**\"",
	"path = /usr/bin/make",
	"exe = /usr/bin/gcc",
	"exe ~ \"/usr/lib/*\" and event = connect",
	"exe ~ \"**/tool\"",
	"comm = cc1",
	"comm = forked",
	"comm ~ \"g*\" and event = exit",
	"argv = prog and event = connect",
	"argv ~ \"*p4*\"",
	"ppid = 120",
	"host = a.example",
	"host ~ \"*.example\" and port = 81",
	"ip = 10.0.0.2",
	"ip = 192.0.2.0/24",
	"port = 82",
	"rule = base.policy:14",
	"rule ~ \"base.policy:2*\"",
	"time >= \"2025-11-24 16:00:30\" and time < \"2025-11-24 16:00:31\"",
	"time > \"2026-01-01\"",
	"seq in (1, 600, 7200)",
	"seq > 7190",
	"outcome = failed",
	"lane = runtime",
	"event = end",
};

static void test_same_answers(void **state)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(questions); i++) {
		KB_FREE char *with = fix_query(dir, "last", questions[i], true);
		KB_FREE char *without = fix_query(plain, "last", questions[i], true);
		KB_FREE char *table = fix_query(dir, "last", questions[i], false);
		KB_FREE char *table2 = fix_query(plain, "last", questions[i], false);

		if (strcmp(with, without) != 0 || strcmp(table, table2) != 0) {
			size_t at = 0;

			while (with[at] && with[at] == without[at])
				at++;
			fail_msg("%s: differs at byte %zu\n%.400s\n---\n%.400s", questions[i], at,
				with + (at > 200 ? at - 200 : 0),
				without + (at > 200 ? at - 200 : 0));
		}
	}
}

/* How many blocks a question has to look into. */
static unsigned may_count(const char *text)
{
	const struct kb_expr_options options = {.now = (int64_t)FIX_START, .utc = true};
	struct kb_expr_error error;
	struct kb_reader *reader;
	struct kb_session *session;
	struct kb_filter filter;
	struct kb_expr *expr;
	struct kb_plan plan;
	struct kb_err err;
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi filters;
	MDB_cursor *cursor;
	MDB_val k, v;
	unsigned n = 0;

	assert_int_equal(kb_expr_parse(text, &options, &expr, &error), 0);
	kb_plan_init(&plan, expr, INT64_MIN, INT64_MAX);
	assert_int_equal(kb_reader_open(dir, &reader, &err), 0);
	assert_int_equal(kb_reader_one(reader, "last", &session, &err), 0);
	kb_reader_close(reader);
	assert_int_equal(mdb_env_create(&env), 0);
	mdb_env_set_maxdbs(env, 32);
	assert_int_equal(mdb_env_open(env, dir, MDB_RDONLY, 0600), 0);
	assert_int_equal(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), 0);
	assert_int_equal(mdb_dbi_open(txn, "filters", 0, &filters), 0);
	assert_int_equal(mdb_cursor_open(txn, filters, &cursor), 0);
	while (mdb_cursor_get(cursor, &k, &v, MDB_NEXT) == 0) {
		assert_true(kb_filter_parse(v.mv_data, v.mv_size, &filter));
		n += kb_plan_may(&plan, session, &filter);
	}
	mdb_cursor_close(cursor);
	mdb_txn_abort(txn);
	mdb_env_close(env);
	kb_session_destroy(session);
	kb_expr_destroy(expr);
	return n;
}

static void test_rules_out(void **state)
{
	assert_in_range(may_count("pid = 130"), 1, 12);
	assert_in_range(may_count("pid = 99999"), 0, 4);
	assert_in_range(may_count("path ~ \"/home/dev/p3/**\""), 8, 14);
	assert_in_range(may_count("path ~ \"/nowhere/**\""), 0, 4);
	assert_in_range(may_count("path = \"/home/dev/p5/src/f7.c\""), 1, 14);
	assert_in_range(may_count("time > \"2026-01-01\""), 0, 0);
	assert_in_range(may_count("outcome = failed"), 0, 0);
	assert_in_range(may_count("host = c.example"), 0, 4);
	assert_in_range(may_count("event = end"), 1, 1);
	assert_in_range(may_count("exe = /usr/bin/nothing"), 0, 4);
	assert_int_equal(may_count("seq = 5"), BLOCKS + 1);
}

static void test_verify(void **state)
{
	KB_FREE char *said = NULL;

	assert_int_equal(fix_verify(dir, "all", NULL), KB_VERIFY_INTACT);
	assert_int_equal(fix_verify(plain, "all", NULL), KB_VERIFY_INTACT);
	edit(dir, change_one);
	assert_int_equal(fix_verify(dir, "all", &said), KB_VERIFY_TAMPERED);
	assert_non_null(strstr(said, "the index of the block at record 241 is not of its records"));
}

static int set_up(void **state)
{
	KB_FREE char *from = NULL, *to = NULL;
	KB_BUF_CLEANUP struct kb_buf buf;
	static const char *const files[] = {"/data.mdb", ".heads", ".pub"};

	kb_buf_init(&buf, 1u << 28);
	dir = fix_dir();
	plain = fix_dir();
	make_store(dir);
	for (size_t i = 0; i < KB_ARRAY_LEN(files); i++) {
		free(from);
		free(to);
		from = kb_asprintf("%s%s", dir, files[i]);
		to = kb_asprintf("%s%s", plain, files[i]);
		kb_buf_consume(&buf, kb_buf_len(&buf));
		if (kb_file_read(from, &buf, NULL) < 0 ||
			kb_file_write_atomic(to, kb_buf_data(&buf), kb_buf_len(&buf), 0600, NULL) <
				0)
			return -1;
	}
	edit(plain, drop_all);
	return 0;
}

static int tear_down(void **state)
{
	fix_dir_remove(dir);
	fix_dir_remove(plain);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_answers),
		cmocka_unit_test(test_rules_out),
		cmocka_unit_test(test_verify),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
