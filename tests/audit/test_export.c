/* Report and export of the fixture's story. The formats are read back by other programs in
 * tests/browser and check_export.py; here: nothing is lost, foreign bytes stay harmless, errors
 * speak. */
#include "fixture.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOSTILE "/w/</script><img src=x>\xff`|\n"

static char *dir;

static int make_store(void **state)
{
	struct kb_record r = fix_record(KB_EVENT_OPEN, 1, 100);
	struct kb_session_end end = {.ended = fix_time(2), .complete = true};
	uint8_t id[KB_ULID_SIZE];
	struct kb_store *store;

	(void)state;
	dir = fix_dir();
	assert_int_equal(kb_store_open(dir, &store, NULL), 0);
	fix_begin(store, "story", id);
	fix_story(store, id);
	fix_begin(store, "hostile", id);
	r.path = fix_bytes(HOSTILE);
	r.has_flags = true;
	r.flags = 1;
	r.created = true;
	fix_append(store, id, &r);
	assert_int_equal(kb_store_session_finish(store, id, &end, NULL), 0);
	assert_int_equal(kb_store_commit(store, NULL), 0);
	kb_store_close(store);
	return 0;
}

static int remove_store(void **state)
{
	(void)state;
	fix_dir_remove(dir);
	return 0;
}

static int ask(const char *session, const char *format, char **ret, struct kb_err *err)
{
	struct kb_reader *reader;
	struct kb_view view;
	size_t len;
	int r;

	assert_int_equal(kb_reader_open(dir, &reader, err), 0);
	view = fix_view(ret, &len);
	r = kb_reader_export(reader, session, format, &view, err);
	fix_view_end(&view);
	kb_reader_close(reader);
	return r;
}

static char *answer(const char *session, const char *format)
{
	struct kb_err err = {0};
	char *text;

	if (ask(session, format, &text, &err) < 0)
		fail_msg("%s", err.msg);
	return text;
}

/* Calls check for every line, which must be one JSON value. */
static size_t each_line(char *text, void (*check)(json_t *line))
{
	size_t n = 0;

	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"), n++) {
		json_t *value = json_loads(line, 0, NULL);

		if (!value)
			fail_msg("not JSON: %s", line);
		check(value);
		json_decref(value);
	}
	return n;
}

static void is_record(json_t *line)
{
	assert_non_null(json_object_get(line, "seq"));
	assert_non_null(json_object_get(line, "event"));
}

static void is_ocsf(json_t *o)
{
	json_int_t class = json_integer_value(json_object_get(o, "class_uid"));
	json_int_t activity = json_integer_value(json_object_get(o, "activity_id"));

	assert_int_equal(
		json_integer_value(json_object_get(o, "type_uid")), class * 100 + activity);
	assert_int_equal(json_integer_value(json_object_get(o, "category_uid")), class / 1000);
}

static size_t otlp_records;

static void is_otlp(json_t *o)
{
	json_t *resource = json_array_get(json_object_get(o, "resourceLogs"), 0);
	json_t *scope = json_array_get(json_object_get(resource, "scopeLogs"), 0);

	otlp_records += json_array_size(json_object_get(scope, "logRecords"));
}

static void test_exports_are_whole(void **state)
{
	char *jsonl = answer("story", NULL), *ocsf = answer("all", "ocsf");
	char *otlp = answer("all", "otlp");

	(void)state;
	assert_int_equal(each_line(jsonl, is_record), 15);
	assert_int_equal(each_line(ocsf, is_ocsf), 17);
	assert_int_equal(each_line(otlp, is_otlp), 2);
	assert_int_equal(otlp_records, 17);
	free(jsonl);
	free(ocsf);
	free(otlp);
}

static void test_unknown_formats(void **state)
{
	struct kb_err err = {0};
	char *text;

	(void)state;
	assert_int_equal(ask("story", "oscf", &text, &err), -KB_ERR_USAGE);
	assert_string_equal(err.msg, "there is no export format 'oscf'");
	assert_string_equal(err.hint, "did you mean ocsf?");
	free(text);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exports_are_whole),
		cmocka_unit_test(test_unknown_formats),
	};
	char *text;

	/* "FORMAT": print the story in it, for readers that are not ours. */
	if (argc == 2) {
		make_store(NULL);
		text = answer("all", argv[1]);
		fputs(text, stdout);
		free(text);
		return remove_store(NULL);
	}
	return cmocka_run_group_tests(tests, make_store, remove_store);
}
