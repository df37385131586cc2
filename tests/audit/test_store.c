/* The store: exactly once, durable before acknowledged, closed after a crash, refused when newer,
 * and a chain that shows every change. */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "audit/reader.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/util.h"

struct place {
	char *dir;
};

static int set_up(void **state)
{
	struct place *place = calloc(1, sizeof(*place));

	place->dir = fix_dir();
	*state = place;
	return 0;
}

static int tear_down(void **state)
{
	struct place *place = *state;

	fix_dir_remove(place->dir);
	free(place);
	return 0;
}

static struct kb_store *open_store(const char *dir)
{
	struct kb_store *store;
	struct kb_err err;

	if (kb_store_open(dir, &store, &err) < 0)
		fail_msg("%s", err.msg);
	return store;
}

/* n opens of /n/FIRST, /n/FIRST+1, … */
static void fill(struct kb_block *block, uint64_t first, uint32_t n)
{
	struct kb_record r;
	char path[64];

	kb_block_reset(block);
	for (uint64_t i = first; i < first + n; i++) {
		snprintf(path, sizeof(path), "/n/%llu", (unsigned long long)i);
		r = fix_record(KB_EVENT_OPEN, (double)i / 1000, 7);
		r.path = fix_bytes(path);
		assert_int_equal(kb_block_add(block, &r, NULL), 0);
	}
}

static int append(
	struct kb_store *store, const uint8_t *id, uint64_t first, uint32_t n, struct kb_err *err)
{
	struct kb_block block;
	int r;

	kb_block_init(&block);
	fill(&block, first, n);
	r = kb_store_append(store, id, first, kb_buf_data(&block.buf), kb_buf_len(&block.buf), err);
	kb_block_finish(&block);
	return r;
}

/* Every record of the session is the one its number says. Returns how many there are. */
static uint64_t check_records(const char *dir, const uint8_t *id)
{
	struct kb_reader *reader;
	struct kb_session *session;
	struct kb_scan *scan;
	struct kb_row row;
	struct kb_err err;
	char path[64];
	uint64_t n = 0;
	int r;

	assert_int_equal(kb_reader_open(dir, &reader, &err), 0);
	assert_int_equal(kb_reader_session(reader, id, &session, &err), 0);
	assert_int_equal(kb_scan_create(reader, session, &scan, &err), 0);
	while ((r = kb_scan_next(scan, &row, &err)) > 0) {
		assert_int_equal(row.seq, ++n);
		if (row.record->event == KB_EVENT_END)
			continue;
		snprintf(path, sizeof(path), "/n/%llu", (unsigned long long)n);
		assert_int_equal(row.record->path.len, strlen(path));
		assert_memory_equal(row.record->path.data, path, strlen(path));
	}
	if (r < 0)
		fail_msg("%s", err.msg);
	assert_int_equal(n, session->records);
	kb_scan_destroy(scan);
	kb_session_destroy(session);
	kb_reader_close(reader);
	return n;
}

static void finish(struct kb_store *store, const uint8_t *id)
{
	const struct kb_session_end end = {.ended = fix_time(100), .complete = true};
	struct kb_err err;

	if (kb_store_session_finish(store, id, &end, &err) < 0 || kb_store_commit(store, &err) < 0)
		fail_msg("%s", err.msg);
}

static void test_exactly_once(void **state)
{
	const char *dir = ((struct place *)*state)->dir;
	struct kb_store *store = open_store(dir);
	uint8_t id[KB_ULID_SIZE], other[KB_ULID_SIZE];
	struct kb_err err;

	fix_begin(store, "calm-otter", id);
	fix_begin(store, "calm-mole", other);
	assert_int_equal(kb_store_last_seq(store, id), 0);
	assert_int_equal(append(store, id, 1, 100, &err), 0);
	assert_int_equal(kb_store_last_seq(store, id), 0); /* not durable yet */
	assert_int_equal(kb_store_commit(store, &err), 0);
	assert_int_equal(kb_store_last_seq(store, id), 100);
	assert_int_equal(append(store, id, 1, 100, &err), 0);	/* sent again, whole */
	assert_int_equal(append(store, id, 51, 100, &err), 0);	/* and half */
	assert_int_equal(append(store, other, 1, 10, &err), 0); /* in between, another */
	assert_int_equal(append(store, id, 151, 1, &err), 0);
	assert_int_equal(append(store, id, 153, 1, &err), -KB_ERR_INVALID); /* a gap */
	assert_int_equal(append(store, id, 0, 1, &err), -KB_ERR_INVALID);
	assert_int_equal(
		kb_store_append(store, id, 152, (const uint8_t *)"junk", 4, &err), -KB_ERR_INVALID);
	assert_int_equal(kb_store_commit(store, &err), 0);
	assert_int_equal(kb_store_last_seq(store, id), 151);
	finish(store, id);
	assert_int_equal(append(store, id, 153, 1, &err), -KB_ERR_NOTFOUND); /* it is over */
	finish(store, other);
	kb_store_close(store);
	assert_int_equal(check_records(dir, id), 152);
	assert_int_equal(check_records(dir, other), 11);
	assert_int_equal(fix_verify(dir, "all", NULL), KB_VERIFY_INTACT);
}

static void test_begin(void **state)
{
	struct kb_store *store = open_store(((struct place *)*state)->dir);
	uint8_t id[KB_ULID_SIZE];
	struct kb_err err;

	fix_begin(store, "calm-otter", id);
	assert_int_equal(
		kb_store_session_begin(store, (const uint8_t *)"junk", 4, &err), -KB_ERR_INVALID);
	assert_int_equal(
		append(store, (const uint8_t *)"0123456789abcdef", 1, 1, &err), -KB_ERR_NOTFOUND);
	kb_store_close(store); /* nothing was committed */
	store = open_store(((struct place *)*state)->dir);
	assert_int_equal(append(store, id, 1, 1, &err), -KB_ERR_NOTFOUND);
	kb_store_close(store);
}

static void test_one_writer(void **state)
{
	const char *dir = ((struct place *)*state)->dir;
	struct kb_store *store = open_store(dir), *second;
	struct kb_err err;

	assert_int_equal(kb_store_open(dir, &second, &err), -KB_ERR_EXISTS);
	assert_non_null(strstr(err.msg, "in use by another supervisor"));
	kb_store_close(store);
	store = open_store(dir);
	kb_store_close(store);
}

static void test_big(void **state)
{
	const char *dir = ((struct place *)*state)->dir;
	struct kb_store *store = open_store(dir);
	uint8_t id[KB_ULID_SIZE];
	struct kb_err err;
	uint64_t n = 0;

	/* Past the first map and past the bound of one transaction. */
	fix_begin(store, "grand-otter", id);
	for (int i = 0; i < 70; i++, n += 60000)
		if (append(store, id, n + 1, 60000, &err) < 0)
			fail_msg("%s", err.msg);
	finish(store, id);
	kb_store_close(store);
	assert_int_equal(check_records(dir, id), n + 1);
	assert_int_equal(fix_verify(dir, "all", NULL), KB_VERIFY_INTACT);
}

/* ---- Crashes --------------------------------------------------------------------------------- */

/* Writes until it is killed; says on fd what has been acknowledged. */
static void writer(const char *dir, int fd, unsigned seed)
{
	struct kb_store *store = open_store(dir);
	uint8_t id[KB_ULID_SIZE];
	struct kb_err err;
	uint64_t n = 0;
	uint32_t some;

	fix_seed(seed);
	fix_begin(store, "brave-otter", id);
	if (kb_store_commit(store, &err) < 0)
		abort();
	for (;;) {
		for (int blocks = fix_random() % 5; blocks >= 0; blocks--, n += some) {
			some = 1 + fix_random() % 300;
			if (append(store, id, n + 1, some, &err) < 0)
				abort();
		}
		if (kb_store_commit(store, &err) < 0)
			abort();
		/* One write of 24 bytes: whole or not at all. */
		uint8_t message[KB_ULID_SIZE + 8];

		memcpy(message, id, KB_ULID_SIZE);
		memcpy(message + KB_ULID_SIZE, &n, 8);
		if (write(fd, message, sizeof(message)) != sizeof(message))
			_exit(1);
	}
}

static void test_killed(void **state)
{
	const char *dir = ((struct place *)*state)->dir;
	const char *rounds_text = getenv("KBSUP_CRASH_ROUNDS");
	int rounds = rounds_text ? (int)strtol(rounds_text, NULL, 10) : 20, fds[2], status;
	uint8_t message[KB_ULID_SIZE + 8];
	struct kb_store *store;
	uint64_t acked, have;
	pid_t pid;

	fix_seed(5);
	for (int round = 0; round < rounds; round++) {
		assert_int_equal(pipe(fds), 0);
		pid = fork();
		if (pid == 0) {
			close(fds[0]);
			writer(dir, fds[1], (unsigned)round);
		}
		close(fds[1]);
		/* After its first acknowledgement, at some moment within 30 ms. */
		assert_int_equal(read(fds[0], message, sizeof(message)), sizeof(message));
		usleep(fix_random() % 30000);
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		do
			memcpy(&acked, message + KB_ULID_SIZE, 8);
		while (read(fds[0], message, sizeof(message)) == sizeof(message));
		close(fds[0]);
		store = open_store(dir); /* works at once, and closes the session */
		have = kb_store_last_seq(store, message);
		kb_store_close(store);
		if (have < acked + 1)
			fail_msg("round %d: %llu acknowledged, %llu there", round,
				(unsigned long long)acked, (unsigned long long)have);
		assert_int_equal(check_records(dir, message), have);
		assert_int_equal(fix_verify(dir, "all", NULL), KB_VERIFY_INCOMPLETE);
	}
	KB_FREE char *text = fix_query(dir, "last", "event = end", true);

	assert_non_null(strstr(text, "ended without closing this session"));
}

/* ---- A full disk ----------------------------------------------------------------------------- */

/* On a tmpfs of 6 MiB in a mount namespace of its own; 77 when there may be none. */
static int full_disk(const char *dir)
{
	const struct kb_session_end end = {.ended = fix_time(9), .reason = "the disk is full"};
	struct kb_store *store;
	uint8_t id[KB_ULID_SIZE];
	struct kb_err err = {0};
	uint64_t n = 0, acked = 0;
	int r = 0;

	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		mount("kbsup", dir, "tmpfs", 0, "size=6m") < 0)
		return 77;
	store = open_store(dir);
	fix_begin(store, "full-otter", id);
	while (n < 10000000) {
		r = append(store, id, n + 1, 5000, &err);
		if (r == 0)
			n += 5000;
		if (r == 0)
			r = kb_store_commit(store, &err);
		if (r < 0)
			break;
		acked = n;
	}
	assert_int_equal(r, -KB_ERR_SYSTEM);
	assert_int_equal(err.errnum, ENOSPC);
	assert_non_null(strstr(err.msg, "No space left"));
	assert_non_null(strstr(err.hint, "audit prune"));
	assert_true(acked > 0);
	assert_int_equal(kb_store_last_seq(store, id), acked);
	/* There is room to end the session with the reason. */
	if (kb_store_session_finish(store, id, &end, &err) < 0 || kb_store_commit(store, &err) < 0)
		fail_msg("%s", err.msg);
	kb_store_close(store);
	assert_int_equal(check_records(dir, id), acked + 1);
	assert_int_equal(fix_verify(dir, "all", NULL), KB_VERIFY_INCOMPLETE);
	return 0;
}

/* An early commit on behalf of one session fails: what the other had in it is gone as well, and
 * nobody may acknowledge it. */
static int full_disk_for_two(const char *dir)
{
	struct kb_store *store;
	uint8_t quiet[KB_ULID_SIZE], loud[KB_ULID_SIZE];
	struct kb_err err = {0};
	uint64_t n = 0;
	int r = 0;

	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		mount("kbsup", dir, "tmpfs", 0, "size=6m") < 0)
		return 77;
	store = open_store(dir);
	fix_begin(store, "quiet-otter", quiet);
	fix_begin(store, "loud-otter", loud);
	assert_int_equal(kb_store_commit(store, &err), 0);
	assert_int_equal(append(store, quiet, 1, 10, &err), 0);
	for (; r == 0 && n < 50000000; n += 60000)
		r = append(store, loud, n + 1, 60000, &err);
	assert_int_equal(r, -KB_ERR_SYSTEM);
	assert_int_equal(kb_store_commit(store, &err), -KB_ERR_SYSTEM);
	assert_int_equal(err.errnum, ENOSPC);
	assert_int_equal(kb_store_last_seq(store, quiet), 0);
	assert_int_equal(append(store, quiet, 1, 10, &err), 0); /* sent again */
	finish(store, quiet);
	kb_store_close(store);
	assert_int_equal(check_records(dir, quiet), 11);
	return 0;
}

static void in_child(int (*fn)(const char *dir), const char *dir)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(fn(dir));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_full_disk(void **state)
{
	in_child(full_disk, ((struct place *)*state)->dir);
}

static void test_full_disk_for_two(void **state)
{
	in_child(full_disk_for_two, ((struct place *)*state)->dir);
}

/* ---- Stores that are not ours to read -------------------------------------------------------- */

typedef void (*edit_fn)(MDB_env *env, MDB_txn *txn, const uint8_t *id);

static void edit(const char *dir, const uint8_t *id, edit_fn fn)
{
	MDB_env *env;
	MDB_txn *txn;

	assert_int_equal(mdb_env_create(&env), 0);
	mdb_env_set_maxdbs(env, 32);
	mdb_env_set_mapsize(env, 1u << 30);
	assert_int_equal(mdb_env_open(env, dir, 0, 0600), 0);
	assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
	fn(env, txn, id);
	assert_int_equal(mdb_txn_commit(txn), 0);
	mdb_env_close(env);
}

static MDB_dbi table(MDB_txn *txn, const char *name)
{
	MDB_dbi dbi;

	assert_int_equal(mdb_dbi_open(txn, name, 0, &dbi), 0);
	return dbi;
}

static void make_newer(MDB_env *env, MDB_txn *txn, const uint8_t *id)
{
	MDB_val k = {6, (void *)"schema"}, v = {4, (void *)"\x63\0\0\0"};

	assert_int_equal(mdb_put(txn, table(txn, "meta"), &k, &v, 0), 0);
}

static void test_newer(void **state)
{
	const char *dir = ((struct place *)*state)->dir;
	struct kb_store *store = open_store(dir);
	struct kb_reader *reader;
	struct kb_err err;

	kb_store_close(store);
	edit(dir, NULL, make_newer);
	assert_int_equal(kb_store_open(dir, &store, &err), -KB_ERR_REFUSED);
	assert_non_null(strstr(err.msg, "has format 99, made by a newer kbsup"));
	assert_int_equal(kb_reader_open(dir, &reader, &err), -KB_ERR_REFUSED);
}

static void test_no_store(void **state)
{
	const char *dir = ((struct place *)*state)->dir;
	KB_FREE char *data = kb_asprintf("%s/data.mdb", dir), *not_dir = kb_asprintf("%s/f", dir);
	struct kb_reader *reader;
	struct kb_store *store;
	struct kb_err err;

	assert_int_equal(kb_reader_open(dir, &reader, &err), -KB_ERR_NOTFOUND);
	assert_non_null(strstr(err.hint, "kbsup run"));
	assert_int_equal(kb_file_write_atomic(data, "not a database, but long enough to be one?",
				 42, 0600, &err),
		0);
	assert_true(kb_reader_open(dir, &reader, &err) < 0);
	assert_true(kb_store_open(dir, &store, &err) < 0);
	assert_int_equal(kb_file_write_atomic(not_dir, "x", 1, 0600, &err), 0);
	assert_true(kb_store_open(not_dir, &store, &err) < 0);
}

static void test_cut_file(void **state)
{
	const char *dir = ((struct place *)*state)->dir;
	KB_FREE char *data = kb_asprintf("%s/data.mdb", dir);
	struct kb_store *store = open_store(dir);
	struct kb_reader *reader;
	uint8_t id[KB_ULID_SIZE];
	struct stat st;
	struct kb_err err;

	fix_begin(store, "cut-otter", id);
	append(store, id, 1, 20000, &err);
	finish(store, id);
	kb_store_close(store);
	assert_int_equal(stat(data, &st), 0);
	assert_int_equal(truncate(data, st.st_size / 2), 0);
	assert_int_equal(kb_reader_open(dir, &reader, &err), -KB_ERR_INVALID);
	assert_non_null(strstr(err.msg, "cut short"));
}

/* ---- Tampering ------------------------------------------------------------------------------- */

static MDB_cursor *at_block(MDB_txn *txn, const uint8_t *id, uint64_t n, MDB_val *k, MDB_val *v)
{
	MDB_cursor *cursor;
	uint8_t *key = malloc(KB_ULID_SIZE + 8);

	memcpy(key, id, KB_ULID_SIZE);
	memset(key + KB_ULID_SIZE, 0, 8);
	*k = (MDB_val){KB_ULID_SIZE + 8, key};
	assert_int_equal(mdb_cursor_open(txn, table(txn, "blocks"), &cursor), 0);
	assert_int_equal(mdb_cursor_get(cursor, k, v, MDB_SET_RANGE), 0);
	while (--n > 0)
		assert_int_equal(mdb_cursor_get(cursor, k, v, MDB_NEXT), 0);
	free(key);
	return cursor;
}

static void change_byte(MDB_env *env, MDB_txn *txn, const uint8_t *id)
{
	MDB_val k, v, copy;
	MDB_cursor *cursor = at_block(txn, id, 3, &k, &v);

	copy = (MDB_val){v.mv_size, malloc(v.mv_size)};
	memcpy(copy.mv_data, v.mv_data, v.mv_size);
	((uint8_t *)copy.mv_data)[v.mv_size - 20] ^= 1;
	assert_int_equal(mdb_cursor_put(cursor, &k, &copy, MDB_CURRENT), 0);
	free(copy.mv_data);
	mdb_cursor_close(cursor);
}

static void cut_tail(MDB_env *env, MDB_txn *txn, const uint8_t *id)
{
	MDB_val k, v;
	MDB_cursor *cursor = at_block(txn, id, 5, &k, &v);

	assert_int_equal(mdb_cursor_del(cursor, 0), 0); /* the fifth; the sixth has the end */
	assert_int_equal(mdb_cursor_get(cursor, &k, &v, MDB_GET_CURRENT), 0);
	assert_int_equal(mdb_cursor_del(cursor, 0), 0);
	mdb_cursor_close(cursor);
}

static void drop_middle(MDB_env *env, MDB_txn *txn, const uint8_t *id)
{
	MDB_val k, v;
	MDB_cursor *cursor = at_block(txn, id, 3, &k, &v);

	assert_int_equal(mdb_cursor_del(cursor, 0), 0);
	mdb_cursor_close(cursor);
}

static void swap_blocks(MDB_env *env, MDB_txn *txn, const uint8_t *id)
{
	MDB_val k2, v2, k3, v3, a, b;
	MDB_cursor *second = at_block(txn, id, 2, &k2, &v2),
		   *third = at_block(txn, id, 3, &k3, &v3);

	a = (MDB_val){v2.mv_size, malloc(v2.mv_size)};
	b = (MDB_val){v3.mv_size, malloc(v3.mv_size)};
	memcpy(a.mv_data, v2.mv_data, v2.mv_size);
	memcpy(b.mv_data, v3.mv_data, v3.mv_size);
	assert_int_equal(mdb_cursor_put(second, &k2, &b, MDB_CURRENT), 0);
	third = at_block(txn, id, 3, &k3, &v3);
	assert_int_equal(mdb_cursor_put(third, &k3, &a, MDB_CURRENT), 0);
	free(a.mv_data);
	free(b.mv_data);
}

static void change_meta(MDB_env *env, MDB_txn *txn, const uint8_t *id)
{
	MDB_val k = {KB_ULID_SIZE, (void *)id}, v, copy;
	uint8_t *p;

	assert_int_equal(mdb_get(txn, table(txn, "sessions"), &k, &v), 0);
	copy = (MDB_val){v.mv_size, malloc(v.mv_size)};
	memcpy(copy.mv_data, v.mv_data, v.mv_size);
	p = memmem(copy.mv_data, v.mv_size, "shell", 5);
	assert_non_null(p);
	p[1] = 'm';
	assert_int_equal(mdb_put(txn, table(txn, "sessions"), &k, &copy, 0), 0);
	free(copy.mv_data);
}

static void drop_state(MDB_env *env, MDB_txn *txn, const uint8_t *id)
{
	MDB_val k = {KB_ULID_SIZE, (void *)id};

	assert_int_equal(mdb_del(txn, table(txn, "states"), &k, NULL), 0);
}

static void break_state(MDB_env *env, MDB_txn *txn, const uint8_t *id)
{
	MDB_val k = {KB_ULID_SIZE, (void *)id}, v = {3, (void *)"\xff\xff\xff"};

	assert_int_equal(mdb_put(txn, table(txn, "states"), &k, &v, 0), 0);
}

static const struct {
	const char *what;
	edit_fn fn;
	enum kb_verify verdict;
	const char *said;
} tampers[] = {
	{"a changed byte", change_byte, KB_VERIFY_TAMPERED, "is not what was written there"},
	{"a cut tail", cut_tail, KB_VERIFY_TAMPERED, "have been cut off"},
	{"a missing block", drop_middle, KB_VERIFY_TAMPERED, "is followed by"},
	{"swapped blocks", swap_blocks, KB_VERIFY_TAMPERED, "is not what was written there"},
	{"a changed description", change_meta, KB_VERIFY_TAMPERED, "is not what was written there"},
	{"a removed state", drop_state, KB_VERIFY_TAMPERED, "has been removed"},
	{"a broken state", break_state, KB_VERIFY_UNREADABLE, "its state is damaged"},
};

static void test_tampered(void **state)
{
	uint8_t id[KB_ULID_SIZE], good[KB_ULID_SIZE];
	struct kb_store *store;
	struct kb_err err;

	for (size_t i = 0; i < KB_ARRAY_LEN(tampers); i++) {
		char *dir = fix_dir();
		KB_FREE char *said = NULL;

		store = open_store(dir);
		fix_begin(store, "good-otter", good);
		append(store, good, 1, 10, &err);
		finish(store, good);
		fix_begin(store, "bad-otter", id);
		for (uint64_t n = 1; n < 50; n += 10)
			append(store, id, n, 10, &err);
		finish(store, id);
		kb_store_close(store);
		assert_int_equal(fix_verify(dir, "all", NULL), KB_VERIFY_INTACT);
		edit(dir, id, tampers[i].fn);
		if (fix_verify(dir, "all", &said) != (int)tampers[i].verdict ||
			!strstr(said, tampers[i].said))
			fail_msg("%s: %s", tampers[i].what, said);
		assert_int_equal(fix_verify(dir, "good-otter", NULL), KB_VERIFY_INTACT);
		fix_dir_remove(dir);
	}
}

static void test_incomplete(void **state)
{
	const char *dir = ((struct place *)*state)->dir;
	const struct kb_session_end lost_machine = {
		.ended = fix_time(5), .reason = "the machine is gone", .exit_code = 255};
	struct kb_store *store = open_store(dir);
	struct kb_record r = fix_record(KB_EVENT_LOSS, 1, 0);
	uint8_t id[KB_ULID_SIZE];
	struct kb_err err;
	KB_FREE char *said = NULL, *said2 = NULL, *said3 = NULL;

	fix_begin(store, "open-otter", id);
	append(store, id, 1, 5, &err);
	assert_int_equal(kb_store_commit(store, &err), 0);
	assert_int_equal(fix_verify(dir, "last", &said), KB_VERIFY_INCOMPLETE);
	assert_non_null(strstr(said, "has no finish"));
	r.count = 12;
	fix_append(store, id, &r);
	finish(store, id);
	assert_int_equal(fix_verify(dir, "last", &said2), KB_VERIFY_INCOMPLETE);
	assert_non_null(strstr(said2, "12 records were lost"));
	fix_begin(store, "gone-otter", id);
	append(store, id, 1, 5, &err);
	assert_int_equal(kb_store_session_finish(store, id, &lost_machine, &err), 0);
	assert_int_equal(kb_store_commit(store, &err), 0);
	assert_int_equal(fix_verify(dir, "last", &said3), KB_VERIFY_INCOMPLETE);
	assert_non_null(strstr(said3, "the machine is gone"));
	kb_store_close(store);
}

/* A reader sees whole commits while the writer goes on, and the file does not grow for it. */
static void test_reader_beside_writer(void **state)
{
	const char *dir = ((struct place *)*state)->dir;
	struct kb_store *store = open_store(dir);
	struct kb_reader *reader;
	struct kb_session *session;
	struct kb_scan *scan;
	struct kb_row row;
	uint8_t id[KB_ULID_SIZE];
	struct kb_err err;
	uint64_t n = 0, seen = 0;

	fix_begin(store, "live-otter", id);
	assert_int_equal(kb_store_commit(store, &err), 0);
	assert_int_equal(kb_reader_open(dir, &reader, &err), 0);
	assert_int_equal(kb_reader_session(reader, id, &session, &err), 0);
	assert_int_equal(kb_scan_create(reader, session, &scan, &err), 0);
	for (int i = 0; i < 300; i++) {
		assert_int_equal(append(store, id, n + 1, 2000, &err), 0);
		n += 2000;
		assert_int_equal(kb_scan_next(scan, &row, &err), 0); /* not yet committed */
		assert_int_equal(kb_store_commit(store, &err), 0);
		while (kb_scan_next(scan, &row, &err) > 0)
			assert_int_equal(row.seq, ++seen);
		assert_int_equal(seen, n);
	}
	kb_scan_destroy(scan);
	kb_session_destroy(session);
	kb_reader_close(reader);
	finish(store, id);
	kb_store_close(store);
}

int main(void)
{
#define PLACE(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		PLACE(test_exactly_once),
		PLACE(test_begin),
		PLACE(test_one_writer),
		PLACE(test_big),
		PLACE(test_killed),
		PLACE(test_full_disk),
		PLACE(test_full_disk_for_two),
		PLACE(test_newer),
		PLACE(test_no_store),
		PLACE(test_cut_file),
		PLACE(test_tampered),
		PLACE(test_incomplete),
		PLACE(test_reader_beside_writer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
