#include "sessions.h"

#include <string.h>
#include <time.h>

#include "publish.h"
#include "supervisor/base/str.h"

/* A time as the contract's JSON has it: RFC 3339 in UTC, to the nanosecond; null when there is
 * none. */
static json_t *time_json(uint64_t ns)
{
	char text[40], date[24];
	time_t seconds = (time_t)(ns / 1000000000);
	struct tm tm;

	if (!ns || !gmtime_r(&seconds, &tm))
		return json_null();
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text, sizeof(text), "%s.%09uZ", date, (unsigned)(ns % 1000000000));
	return json_string(text);
}

static json_t *text_json(const char *text)
{
	return kb_json_of(text, strlen(text));
}

static json_t *row(const struct kb_session *s)
{
	json_t *one = json_pack("{s:s, s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:I, s:I, s:I}", "id",
		s->id, "name", text_json(s->name), "agent", text_json(s->agent), "machine",
		text_json(s->machine), "state", s->state, "started", time_json(s->started), "ended",
		time_json(s->ended), "exit_code",
		s->exit_code < 0 ? json_null() : json_integer(s->exit_code), "records",
		(json_int_t)s->records, "denials", (json_int_t)s->denials, "lost",
		(json_int_t)s->lost);

	json_object_set_new(one, "workspace", text_json(s->workspace));
	json_object_set_new(one, "attached", json_boolean(s->attached));
	json_object_set_new(one, "questions", json_integer(s->questions));
	json_object_set_new(one, "ports", kb_publish_json(s->ports, s->n_ports));
	return one;
}

static const char *field(const json_t *one, const char *name)
{
	const char *text = json_string_value(json_object_get(one, name));

	return text ? text : "";
}

/* What the store knows, without those that the supervisor has live numbers of, and without those of
 * which only a tombstone is left. */
static json_t *ended_only(json_t *stored, const struct kb_sessions *running)
{
	json_t *list = json_array(), *one;
	size_t i;

	json_array_foreach(stored, i, one)
	{
		if (strcmp(field(one, "state"), "pruned") != 0 &&
			!kb_session_find(running->list, running->len, field(one, "id")))
			json_array_append(list, one);
	}
	return list;
}

int kb_rows_read(
	struct kb_rows *rows, struct kb_connection *connection, bool ended, struct kb_err *err)
{
	struct kb_sessions running KB_SESSIONS_CLEANUP = {0};
	struct kb_ask question = {.verb = "sessions", .json = true};
	json_t *stored KB_JSON_CLEANUP = NULL;
	int r = kb_sessions_read(&running, connection, err);

	if (r == 0 && ended)
		r = kb_ask_json(connection, &question, &stored, err);
	if (r < 0)
		return r;
	rows->list = ended ? ended_only(stored, &running) : json_array();
	for (size_t i = 0; i < running.len; i++)
		json_array_append_new(rows->list, row(&running.list[i]));
	return 0;
}

void kb_rows_finish(struct kb_rows *rows)
{
	json_decref(rows->list);
	rows->list = NULL;
}

/* ---- For people ------------------------------------------------------------------------------ */

/* Seconds since the epoch of an RFC 3339 time in UTC; 0 when it is none. */
static int64_t seconds_of(const char *text)
{
	struct tm tm = {0};

	return strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) ? (int64_t)timegm(&tm) : 0;
}

static void state_cell(struct kb_table *table, const json_t *one)
{
	const char *state = field(one, "state");
	const json_t *code = json_object_get(one, "exit_code");
	bool running = !strcmp(state, "running");
	json_int_t questions = json_integer_value(json_object_get(one, "questions"));

	if (json_is_integer(code))
		kb_table_cellf(table, json_integer_value(code) ? KB_TONE_WARN : KB_TONE_NONE,
			"%s, exit %d", state, (int)json_integer_value(code));
	else if (questions)
		kb_table_cellf(table, KB_TONE_WARN, "asks (%d)", (int)questions);
	else
		kb_table_cell(table, running ? KB_TONE_GOOD : KB_TONE_NONE, state);
}

static void age_cell(struct kb_table *table, const json_t *one)
{
	int64_t started = seconds_of(field(one, "started"));
	char age[KB_WORDS_MAX];

	kb_format_age(age, kb_now_real() - started * 1000000000);
	kb_table_cell(table, KB_TONE_NONE, started ? age : NULL);
}

static void count_cell(struct kb_table *table, const json_t *one, const char *name, bool alarming)
{
	json_int_t n = json_integer_value(json_object_get(one, name));
	char text[KB_WORDS_MAX];

	kb_format_count(text, (uint64_t)n);
	kb_table_cell(table, alarming && n ? KB_TONE_BAD : KB_TONE_NONE, text);
}

int kb_rows_print(const struct kb_rows *rows, const struct kb_cli *cli)
{
	static const struct kb_column columns[] = {{.title = "SESSION"},
		{.title = "AGENT", .shrink = true}, {.title = "MACHINE", .shrink = true},
		{.title = "STATE"}, {.title = "AGE", .right = true},
		{.title = "RECORDS", .right = true}, {.title = "DENIALS", .right = true},
		{.title = "ID"}, {0}};
	struct kb_table table KB_TABLE_CLEANUP;
	const json_t *one;
	size_t i;

	kb_table_init(&table, columns);
	json_array_foreach(rows->list, i, one)
	{
		kb_table_cell(&table, KB_TONE_BOLD, field(one, "name"));
		kb_table_cell(&table, KB_TONE_NONE, field(one, "agent"));
		kb_table_cell(&table, KB_TONE_NONE, field(one, "machine"));
		state_cell(&table, one);
		age_cell(&table, one);
		count_cell(&table, one, "records", false);
		count_cell(&table, one, "denials", true);
		kb_table_cell(&table, KB_TONE_DIM, field(one, "id"));
	}
	if (json_array_size(rows->list))
		kb_table_print(&table, cli, stdout);
	else if (cli->columns)
		puts("no sessions (kbsup run starts one)");
	return KB_EXIT_OK;
}

int kb_rows_print_json(const struct kb_rows *rows, const struct kb_cli *cli, struct kb_err *err)
{
	return kb_json_print(cli, json_incref(rows->list), err);
}
