/* What the verbs print: the story as table, tree, timeline, numbers; names that fight back. */
#include "fixture.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/base/util.h"

static char *dir;
static uint8_t session[KB_ULID_SIZE];

typedef int (*verb_fn)(struct kb_reader *reader, const char *session, const struct kb_view *view,
	struct kb_err *err);

static char *run(verb_fn verb, const char *name, bool json, unsigned columns)
{
	struct kb_reader *reader;
	char *text;
	size_t len;
	struct kb_view view = fix_view(&text, &len);
	struct kb_err err;

	view.json = json;
	view.columns = columns;
	assert_int_equal(kb_reader_open(dir, &reader, &err), 0);
	if (verb(reader, name, &view, &err) < 0)
		fail_msg("%s", err.msg);
	kb_reader_close(reader);
	fix_view_end(&view);
	return text;
}

static void has(const char *text, const char *line)
{
	if (!strstr(text, line))
		fail_msg("'%s' is not in\n%s", line, text);
}

static void test_table(void **state)
{
	KB_FREE char *text =
		fix_query(dir, "amber-otter", "event = unlink or decision = denied", false);
	KB_FREE char *all = fix_query(dir, "all", "event = unlink", false);

	assert_string_equal(text,
		"TIME                 PROCESS           EVENT    WHAT                              "
		"DECISION       RULE\n"
		"2025-11-24 16:00:08  rm(102) ← make    unlink   ~/shop/dist/.env                  "
		"allowed        base.policy:21\n"
		"2025-11-24 16:00:10  cat(103) ← make   open     ~/.ssh/id_ed25519 (read)          "
		"denied EACCES  base.policy:14\n"
		"2025-11-24 16:00:12  rm(102) ← make    connect  evil.example:443 (192.0.2.7)      "
		"denied EACCES  base.policy:22\n");
	has(all, "SESSION");
	has(all, "amber-otter    rm(102) ← make");
}

static void test_tree(void **state)
{
	KB_FREE char *text = fix_tree(dir, "amber-otter", 0, false);
	KB_FREE char *around = fix_tree(dir, "amber-otter", 103, false);

	assert_string_equal(text,
		"make all (100)  16:00:01\n"
		"├─ gcc -c \"a b.c\" (101)  16:00:03  exit 0  · wrote ~/shop/a b.o\n"
		"├─ rm -rf dist (102)  16:00:07  · deleted ~/shop/dist/.env  · connected 1 ×\n"
		"│       ✗ denied connect evil.example:443 (192.0.2.7)  EACCES  by base.policy:22  "
		"net deny\n"
		"└─ cat /home/dev/.ssh/id_ed25519 (103)  16:00:09  exit 1\n"
		"        ✗ denied open ~/.ssh/id_ed25519 (read)  EACCES  by base.policy:14  "
		"fs deny \"~/.ssh\"\n");
	assert_null(strstr(around, "gcc"));
	has(around, "make all (100)");
	has(around, "cat /home");
}

static void test_tree_json(void **state)
{
	KB_FREE char *text = fix_tree(dir, "amber-otter", 0, true);
	json_t *doc = json_loads(text, 0, NULL), *make, *cat, *denied;

	assert_non_null(doc);
	make = json_array_get(json_object_get(doc, "processes"), 0);
	assert_int_equal(json_integer_value(json_object_get(make, "pid")), 100);
	assert_int_equal(json_array_size(json_object_get(make, "children")), 3);
	cat = json_array_get(json_object_get(make, "children"), 2);
	denied = json_array_get(json_object_get(cat, "denied"), 0);
	assert_string_equal(
		json_string_value(json_object_get(denied, "path")), "/home/dev/.ssh/id_ed25519");
	assert_string_equal(
		json_string_value(json_object_get(denied, "rule")), "base.policy:14#00000000");
	assert_string_equal(
		json_string_value(json_object_get(denied, "rule_text")), "fs deny \"~/.ssh\"");
	json_decref(doc);
}

static void test_timeline(void **state)
{
	KB_FREE char *text = run(kb_reader_timeline, "amber-otter", false, 0);
	KB_FREE char *json = run(kb_reader_timeline, "amber-otter", true, 0);
	size_t lines = 0;

	has(text, "+00:00:03.000  gcc(101)            exec     gcc -c \"a b.c\"\n");
	has(text, "+00:00:02.000  make(100)           read     1 file\n");
	has(text, "+00:00:05.000  gcc(101)            read     1 that failed\n");
	has(text, "+00:00:10.000  cat(103)            open     ~/.ssh/id_ed25519 (read)  denied "
		  "EACCES  base.policy:14\n");
	for (const char *p = json; *p; p++)
		lines += *p == '\n';
	assert_int_equal(lines, 15);
	has(json, "\"offset_ms\":10000.0");
}

static void test_stats(void **state)
{
	KB_FREE char *all = run(kb_reader_stats, NULL, true, 0);
	KB_FREE char *one = run(kb_reader_stats, "amber-otter", true, 0);
	KB_FREE char *text = run(kb_reader_stats, "amber-otter", false, 0);
	json_t *doc = json_loads(all, 0, NULL), *doc1 = json_loads(one, 0, NULL);

	assert_int_equal(json_integer_value(json_object_get(doc, "sessions")), 2);
	assert_int_equal(json_integer_value(json_object_get(doc, "lost")), 7);
	assert_int_equal(json_integer_value(json_object_get(doc1, "records")), 15);
	assert_int_equal(json_integer_value(json_object_get(doc1, "denials")), 2);
	assert_int_equal(
		json_integer_value(json_object_get(json_object_get(doc1, "events"), "open")), 4);
	json_decref(doc);
	json_decref(doc1);
	has(text, "busiest processes");
	has(text, "rm(102) ← make");
}

static int list(
	struct kb_reader *reader, const char *name, const struct kb_view *view, struct kb_err *err)
{
	return kb_reader_sessions(reader, view, err);
}

static void test_sessions(void **state)
{
	KB_FREE char *text = run(list, NULL, false, 0), *json = run(list, NULL, true, 0);
	json_t *doc = json_loads(json, 0, NULL), *first = json_array_get(doc, 0);
	static const char *const fields[] = {"id", "name", "agent", "machine", "state", "started",
		"ended", "exit_code", "records", "denials", "lost"};

	has(text, "amber-otter");
	has(text, "exit 0");
	assert_int_equal(json_array_size(doc), 2);
	for (size_t i = 0; i < KB_ARRAY_LEN(fields); i++)
		assert_non_null(json_object_get(first, fields[i]));
	assert_string_equal(json_string_value(json_object_get(first, "state")), "ended");
	json_decref(doc);
}

static void test_summary(void **state)
{
	struct kb_reader *reader;
	struct kb_summary s;
	struct kb_err err;

	assert_int_equal(kb_reader_open(dir, &reader, &err), 0);
	assert_int_equal(kb_reader_summary(reader, "amber-otter", &s, &err), 0);
	kb_reader_close(reader);
	assert_int_equal(s.records, 15);
	assert_int_equal(s.denials, 2);
	assert_int_equal(s.commands, 4);
	assert_int_equal(s.changed, 1);
	assert_int_equal(s.deleted, 1);
	assert_int_equal(s.hosts, 1);
}

/* Nothing foreign reaches a screen as it is, and everything comes back exact from JSON. */
static void test_hostile(void **state)
{
	static const verb_fn verbs[] = {kb_reader_timeline};
	KB_FREE char *table = fix_query(dir, "hostile-otter", NULL, false);
	KB_FREE char *tree = fix_tree(dir, "hostile-otter", 0, false);
	KB_FREE char *json = fix_query(dir, "hostile-otter", "event = unlink", true);
	KB_FREE char *found =
		fix_query(dir, "hostile-otter", "path = \"/w/a\\nb\\xff\\x1b[31m\"", true);
	KB_FREE char *line = run(verbs[0], "hostile-otter", false, 0);
	const char *texts[] = {table, tree, line};
	json_t *doc = json_loads(json, JSON_DISABLE_EOF_CHECK, NULL);

	for (size_t i = 0; i < KB_ARRAY_LEN(texts); i++) {
		has(texts[i], "/w/a\\nb\\xff\\x1b[31m");
		assert_null(strchr(texts[i], '\033'));
		assert_true(kb_utf8_valid(texts[i], strlen(texts[i])));
	}
	assert_non_null(doc);
	assert_string_equal(
		json_string_value(json_object_get(doc, "path")), "/w/a\\nb\\xff\\x1b[31m");
	assert_string_equal(
		json_string_value(json_object_get(doc, "path_b64")), "L3cvYQpi/xtbMzFt");
	assert_string_equal(found, json);
	json_decref(doc);
}

static void test_names(void **state)
{
	struct kb_reader *reader;
	struct kb_query query = {.sessions = "amber-oter"};
	struct kb_view view = {.out = stdout};
	struct kb_err err;

	assert_int_equal(kb_reader_open(dir, &reader, &err), 0);
	assert_int_equal(kb_reader_query(reader, &query, &view, &err), -KB_ERR_NOTFOUND);
	has(err.msg, "there is no session 'amber-oter'; did you mean amber-otter?");
	query = (struct kb_query){.sessions = "all", .since = "lunch"};
	assert_int_equal(kb_reader_query(reader, &query, &view, &err), -KB_ERR_USAGE);
	query = (struct kb_query){.sessions = "all", .follow = true};
	assert_int_equal(kb_reader_query(reader, &query, &view, &err), -KB_ERR_USAGE);
	assert_int_equal(kb_reader_tree(reader, "all", 0, &view, &err), -KB_ERR_USAGE);
	assert_int_equal(kb_reader_tree(reader, "last", 4242, &view, &err), -KB_ERR_NOTFOUND);
	kb_reader_close(reader);
}

/* A file written twice is one file; devices and the kernel's own files are none. */
static void test_what_counts_as_changed(void **state)
{
	static const char *const written[] = {
		"/w/out", "/w/out", "/dev/null", "/dev/shm/x", "/proc/self/oom_score_adj"};
	char *own = fix_dir();
	KB_FREE char *tree = NULL;
	struct kb_reader *reader;
	struct kb_summary sum;
	struct kb_store *store;
	uint8_t id[KB_ULID_SIZE];
	struct kb_err err;

	assert_int_equal(kb_store_open(own, &store, &err), 0);
	fix_begin(store, "writer", id);
	for (size_t i = 0; i < KB_ARRAY_LEN(written); i++) {
		struct kb_record r = fix_record(KB_EVENT_OPEN, (int)i + 1, 50);

		r.path = fix_bytes(written[i]);
		r.has_flags = true;
		r.flags = 1;
		fix_append(store, id, &r);
	}
	assert_int_equal(kb_store_commit(store, &err), 0);
	tree = fix_tree(own, "writer", 0, false);
	has(tree, "wrote /w/out /dev/shm/x\n");
	assert_int_equal(kb_reader_open(own, &reader, &err), 0);
	assert_int_equal(kb_reader_summary(reader, "writer", &sum, &err), 0);
	assert_int_equal(sum.changed, 2);
	kb_reader_close(reader);
	kb_store_close(store);
	fix_dir_remove(own);
}

/* On a narrow terminal a line is cut in the middle of what happened, not wrapped. */
static void test_narrow(void **state)
{
	const struct kb_query query = {.sessions = "amber-otter", .expr = "decision = denied"};
	struct kb_reader *reader;
	char *text;
	size_t len;
	struct kb_view view = fix_view(&text, &len);
	struct kb_err err;

	view.columns = 100;
	assert_int_equal(kb_reader_open(dir, &reader, &err), 0);
	assert_int_equal(kb_reader_query(reader, &query, &view, &err), 0);
	kb_reader_close(reader);
	fix_view_end(&view);
	has(text, "…");
	free(text);
}

static void check_tombstones(const char *place, const uint8_t *a, const uint8_t *b)
{
	struct kb_reader *reader;
	char *text, first[KB_ULID_TEXT], second[KB_ULID_TEXT];
	size_t len;
	struct kb_view view = fix_view(&text, &len);
	struct kb_err err;

	kb_ulid_format(a, first);
	kb_ulid_format(b, second);
	view.json = true;
	assert_int_equal(kb_reader_open(place, &reader, &err), 0);
	assert_int_equal(kb_reader_sessions(reader, &view, &err), 0);
	kb_reader_close(reader);
	fix_view_end(&view);
	has(text, first);
	has(text, second);
	has(text, "\"state\": \"pruned\"");
	has(text, "\"name\": \"open-otter\"");
	free(text);
}

/* Somebody died while the blocks were going: the session is gone all the same, nothing is tampered
 * with, and the next one goes on. */
static void test_prune_interrupted(void **state)
{
	char *place = fix_dir();
	const struct kb_prune old = {.keep_ns = 1};
	KB_FREE char *said = NULL, *said2 = NULL;
	struct kb_pruned sum = {0};
	struct kb_store *store;
	uint8_t id[KB_ULID_SIZE];
	struct kb_err err;
	int steps = 0;

	assert_int_equal(kb_store_open(place, &store, &err), 0);
	fix_begin(store, "first-otter", id);
	fix_story(store, id);
	assert_int_equal(kb_store_prune_step(store, &old, &sum, &err), 1);
	assert_int_equal(sum.sessions, 1);
	kb_store_close(store);
	assert_int_equal(fix_verify(place, "all", &said), KB_VERIFY_INTACT);
	has(said, "pruned      1 session  15 records");
	assert_int_equal(kb_store_open(place, &store, &err), 0);
	sum = (struct kb_pruned){0};
	while (kb_store_prune_step(store, &old, &sum, &err) == 1)
		steps++;
	assert_int_equal(steps, 1); /* the blocks that were left */
	assert_int_equal(sum.sessions, 0);
	assert_int_equal(sum.left_bytes, 0);
	fix_begin(store, "again-otter", id); /* life goes on */
	fix_story(store, id);
	kb_store_close(store);
	assert_int_equal(fix_verify(place, "again-otter", &said2), KB_VERIFY_INTACT);
	fix_dir_remove(place);
}

static void test_prune(void **state)
{
	char *place = fix_dir();
	const struct kb_prune nothing = {.keep_ns = UINT64_C(1) << 62}, old = {.keep_ns = 1},
			      size = {.max_bytes = 1};
	KB_FREE char *said = NULL;
	struct kb_store *store;
	struct kb_pruned pruned;
	uint8_t a[KB_ULID_SIZE], b[KB_ULID_SIZE], open_id[KB_ULID_SIZE];
	struct kb_record r = fix_record(KB_EVENT_UNLINK, 1, 7);
	struct kb_err err;

	assert_int_equal(kb_store_open(place, &store, &err), 0);
	fix_begin(store, "first-otter", a);
	fix_story(store, a);
	assert_int_equal(kb_store_prune(store, &nothing, &pruned, &err), 0);
	assert_int_equal(pruned.sessions, 0);
	assert_true(pruned.left_bytes > 0);
	fix_begin(store, "second-otter", b);
	fix_story(store, b);
	fix_begin(store, "open-otter", open_id);
	fix_append(store, open_id, &r);
	assert_int_equal(kb_store_prune(store, &old, &pruned, &err), 0);
	assert_int_equal(pruned.sessions, 2);
	assert_int_equal(pruned.records, 30);
	assert_int_equal(kb_store_prune(store, &size, &pruned, &err), 0);
	assert_int_equal(pruned.sessions, 0); /* what runs stays */
	fix_append(store, open_id, &r);	      /* and goes on */
	assert_int_equal(fix_verify(place, "all", &said), KB_VERIFY_INCOMPLETE);
	assert_null(strstr(said, "removed")); /* dropped is not taken away */
	assert_null(strstr(said, "first-otter"));
	has(said, "pruned      2 sessions  30 records");
	kb_store_close(store);
	check_tombstones(place, a, b);
	fix_dir_remove(place);
}

static int set_up(void **state)
{
	const struct kb_session_end end = {.ended = fix_time(30), .complete = true};
	struct kb_bytes argv[] = {fix_bytes("rm"), fix_bytes("a\nb\xff\x1b[31m")};
	struct kb_record r = fix_record(KB_EVENT_EXEC, 1, 50);
	uint8_t hostile[KB_ULID_SIZE];
	struct kb_store *store;
	struct kb_err err;

	dir = fix_dir();
	assert_int_equal(kb_store_open(dir, &store, &err), 0);
	fix_begin(store, "amber-otter", session);
	fix_story(store, session);
	fix_begin(store, "hostile-otter", hostile);
	r.ppid = 1;
	r.exe = fix_bytes("/bin/rm\x1b[2J");
	r.argv = argv;
	r.argc = 2;
	fix_append(store, hostile, &r);
	r = fix_record(KB_EVENT_UNLINK, 2, 50);
	r.path = fix_bytes("/w/a\nb\xff\x1b[31m");
	fix_append(store, hostile, &r);
	r = fix_record(KB_EVENT_LOSS, 3, 0);
	r.count = 7;
	r.text = fix_bytes("the buffer was full\x07");
	fix_append(store, hostile, &r);
	assert_int_equal(kb_store_session_finish(store, hostile, &end, &err), 0);
	assert_int_equal(kb_store_commit(store, &err), 0);
	kb_store_close(store);
	return 0;
}

static int tear_down(void **state)
{
	fix_dir_remove(dir);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_tree),
		cmocka_unit_test(test_tree_json),
		cmocka_unit_test(test_timeline),
		cmocka_unit_test(test_stats),
		cmocka_unit_test(test_sessions),
		cmocka_unit_test(test_summary),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_what_counts_as_changed),
		cmocka_unit_test(test_narrow),
		cmocka_unit_test(test_prune),
		cmocka_unit_test(test_prune_interrupted),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
