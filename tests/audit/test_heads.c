/* Signed heads and anchors: a database that was made again from scratch, with every hash right, is
 * still not the one that was signed. */
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit/heads.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/util.h"

static uint8_t id[KB_ULID_SIZE], second[KB_ULID_SIZE];

static void write_session(
	struct kb_store *store, const char *name, const uint8_t *session, const char *path, int n)
{
	const struct kb_session_end end = {.ended = fix_time(100), .complete = true};
	struct kb_record r = fix_record(KB_EVENT_UNLINK, 1, 7);
	struct kb_err err;

	fix_begin_as(store, name, session);
	assert_int_equal(kb_store_commit(store, &err), 0);
	r.path = fix_bytes(path);
	for (int i = 0; i < n; i++)
		fix_append(store, session, &r);
	assert_int_equal(kb_store_session_finish(store, session, &end, &err), 0);
	assert_int_equal(kb_store_commit(store, &err), 0);
}

/* A store of two sessions, the first about `path`. */
static char *make(const char *path, int n)
{
	char *dir = fix_dir();
	struct kb_store *store;
	struct kb_err err;

	assert_int_equal(kb_store_open(dir, &store, &err), 0);
	write_session(store, "brave-otter", id, path, n);
	write_session(store, "calm-otter", second, "/tmp/x", 2);
	kb_store_close(store);
	return dir;
}

static void copy(const char *from_dir, const char *from, const char *to_dir, const char *to)
{
	KB_FREE char *a = kb_asprintf("%s%s", from_dir, from), *b = kb_asprintf("%s%s", to_dir, to);
	KB_BUF_CLEANUP struct kb_buf buf;
	struct kb_err err;

	kb_buf_init(&buf, 1u << 30);
	assert_int_equal(kb_file_read(a, &buf, &err), 0);
	assert_int_equal(
		kb_file_write_atomic(b, kb_buf_data(&buf), kb_buf_len(&buf), 0600, &err), 0);
}

static void expect(const char *dir, enum kb_verify verdict, const char *said)
{
	KB_FREE char *text = NULL;

	if (fix_verify(dir, "all", &text) != (int)verdict || !strstr(text, said))
		fail_msg("wanted %d and '%s': %s", (int)verdict, said, text);
}

static void test_kept(void **state)
{
	char *dir = make("/home/dev/.env", 5);
	KB_FREE char *key = kb_asprintf("%s.key", dir);
	struct stat st;

	expect(dir, KB_VERIFY_INTACT, "brave-otter");
	assert_int_equal(stat(key, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	fix_dir_remove(dir);
}

static void test_forged_again(void **state)
{
	char *dir = make("/home/dev/.env", 5), *forged = make("/home/dev/innocent", 5);
	char *shorter = make("/home/dev/.env", 3);

	copy(forged, "/data.mdb", dir, "/data.mdb");
	expect(dir, KB_VERIFY_TAMPERED, "it is not the session that was signed at its end");
	copy(shorter, "/data.mdb", dir, "/data.mdb");
	expect(dir, KB_VERIFY_TAMPERED, "6 records were signed, and 4 are left");
	/* With heads of another key, and with none at all. */
	copy(forged, "/data.mdb", dir, "/data.mdb");
	copy(forged, ".heads", dir, ".heads");
	expect(dir, KB_VERIFY_TAMPERED, "the signature of its");
	fix_dir_remove(forged);
	fix_dir_remove(shorter);
	fix_dir_remove(dir);
}

static void test_no_heads(void **state)
{
	char *dir = make("/home/dev/.env", 5);
	KB_FREE char *heads = kb_asprintf("%s.heads", dir);

	assert_int_equal(truncate(heads, 0), 0);
	expect(dir, KB_VERIFY_INCOMPLETE, "its finish is not signed");
	fix_dir_remove(dir);
}

/* A begin that is no line any more is not missed; a finish is. */
static bool in_end_line(const struct kb_buf *buf, size_t at)
{
	const uint8_t *data = kb_buf_data(buf);
	size_t from = at, to = at;

	while (from > 0 && data[from - 1] != '\n')
		from--;
	while (to < kb_buf_len(buf) && data[to] != '\n')
		to++;
	return memmem(data + from, to - from, " end ", 5) != NULL;
}

static void test_changed_heads(void **state)
{
	char *dir = make("/home/dev/.env", 5);
	KB_FREE char *path = kb_asprintf("%s.heads", dir);
	KB_BUF_CLEANUP struct kb_buf buf;
	struct kb_err err;
	int verdict;

	kb_buf_init(&buf, 1u << 20);
	assert_int_equal(kb_file_read(path, &buf, &err), 0);
	for (size_t i = 0; i < kb_buf_len(&buf); i += 13) {
		uint8_t old = kb_buf_data(&buf)[i];

		if (old == '\n')
			continue;
		kb_buf_data(&buf)[i] = old == '1' ? '2' : '1';
		assert_int_equal(
			kb_file_write_atomic(path, kb_buf_data(&buf), kb_buf_len(&buf), 0600, &err),
			0);
		verdict = fix_verify(dir, "all", NULL);
		kb_buf_data(&buf)[i] = old;
		if (verdict == KB_VERIFY_INTACT && in_end_line(&buf, i))
			fail_msg("byte %zu", i);
	}
	fix_dir_remove(dir);
}

static void test_removed_session(void **state)
{
	char *dir = make("/home/dev/.env", 5), *other = fix_dir();
	struct kb_store *store;
	struct kb_err err;

	assert_int_equal(kb_store_open(other, &store, &err), 0);
	write_session(store, "calm-otter", second, "/tmp/x", 2);
	kb_store_close(store);
	copy(other, "/data.mdb", dir, "/data.mdb");
	expect(dir, KB_VERIFY_TAMPERED,
		"the whole session has been removed; 6 records were signed");
	fix_dir_remove(other);
	fix_dir_remove(dir);
}

static enum kb_verify verify_with(const char *dir, const char *anchor, char **ret)
{
	struct kb_reader *reader;
	enum kb_verify verdict;
	size_t len;
	struct kb_view view = fix_view(ret, &len);
	struct kb_err err;

	assert_int_equal(kb_reader_open(dir, &reader, &err), 0);
	assert_int_equal(kb_reader_set_anchor(reader, anchor, strlen(anchor), &err), 0);
	if (kb_reader_verify(reader, "all", &view, &verdict, &err) < 0)
		fail_msg("%s", err.msg);
	kb_reader_close(reader);
	fix_view_end(&view);
	return verdict;
}

/* Someone with the key makes everything again: only the anchor tells. */
static void test_anchor(void **state)
{
	char *dir = make("/home/dev/.env", 5), *forged = fix_dir();
	KB_FREE char *anchor = NULL, *said = NULL, *said2 = NULL, *said3 = NULL;
	struct kb_reader *reader;
	struct kb_store *store;
	size_t len;
	struct kb_view view = fix_view(&anchor, &len);
	struct kb_err err;

	assert_int_equal(kb_reader_open(dir, &reader, &err), 0);
	assert_int_equal(kb_reader_export_anchor(reader, &view, &err), 0);
	kb_reader_close(reader);
	fix_view_end(&view);
	assert_int_equal(strncmp(anchor, "kbsup-anchor 1 ", 15), 0);
	assert_int_equal(verify_with(dir, anchor, &said), KB_VERIFY_INTACT);
	copy(dir, ".key", forged, ".key");
	copy(dir, ".pub", forged, ".pub");
	assert_int_equal(kb_store_open(forged, &store, &err), 0);
	write_session(store, "brave-otter", id, "/home/dev/innocent", 5);
	write_session(store, "calm-otter", second, "/tmp/x", 2);
	kb_store_close(store);
	expect(forged, KB_VERIFY_INTACT, "brave-otter"); /* alone, it looks right */
	assert_int_equal(verify_with(forged, anchor, &said2), KB_VERIFY_TAMPERED);
	assert_non_null(strstr(said2, "signed and anchored"));
	fix_dir_remove(forged);
	forged = make("/home/dev/.env", 5);
	assert_int_equal(verify_with(forged, anchor, &said3), KB_VERIFY_TAMPERED);
	assert_non_null(strstr(said3, "another key"));
	fix_dir_remove(forged);
	fix_dir_remove(dir);
}

static void test_bad_anchor(void **state)
{
	char *dir = make("/home/dev/.env", 1);
	struct kb_heads heads;
	struct kb_err err;

	assert_int_equal(kb_heads_read(dir, &heads, &err), 0);
	assert_int_equal(heads.n, 4);
	assert_int_equal(kb_heads_add_anchor(&heads, "hello", 5, &err), -KB_ERR_INVALID);
	assert_non_null(strstr(err.hint, "--export-anchor"));
	kb_heads_finish(&heads);
	fix_dir_remove(dir);
}

static int set_up(void **state)
{
	return kb_ulid_new(id, NULL) || kb_ulid_new(second, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kept),
		cmocka_unit_test(test_forged_again),
		cmocka_unit_test(test_no_heads),
		cmocka_unit_test(test_changed_heads),
		cmocka_unit_test(test_removed_session),
		cmocka_unit_test(test_anchor),
		cmocka_unit_test(test_bad_anchor),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
