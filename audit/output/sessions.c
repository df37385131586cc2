/* `audit sessions`: what was run, when, by whom, where, how it ended. */
#include <string.h>

#include "json.h"
#include "supervisor/base/util.h"

static int put_end(struct kb_buf *line, const struct kb_session *s, struct kb_err *err)
{
	char duration[KB_WHEN_MAX];

	if (!s->ended)
		return kb_buf_printf(line, err, "%-9s  %-12s", "", "running");
	kb_duration_format(s->end.ended > s->started ? s->end.ended - s->started : 0, duration);
	if (!s->end.complete)
		return kb_buf_printf(line, err, "%9s  %-12s", duration, "interrupted");
	if (s->end.signal)
		return kb_buf_printf(line, err, "%9s  signal %-5u", duration, s->end.signal);
	return kb_buf_printf(line, err, "%9s  exit %-7d", duration, s->end.exit_code);
}

static int put_counts(struct kb_buf *line, const struct kb_view *view, const struct kb_session *s,
	struct kb_err *err)
{
	char records[KB_COUNT_MAX], denials[KB_COUNT_MAX], lost[KB_COUNT_MAX];
	int r;

	kb_text_count(s->records, records);
	kb_text_count(s->denials, denials);
	r = kb_buf_printf(line, err, "  %11s  %s%7s%s", records,
		s->denials ? kb_colour(view, KB_RED) : "", denials,
		s->denials ? kb_colour(view, KB_PLAIN) : "");
	if (r == 0 && s->lost)
		r = kb_buf_printf(line, err, " %s(%s lost)%s", kb_colour(view, KB_YELLOW),
			kb_text_count(s->lost, lost), kb_colour(view, KB_PLAIN));
	return r;
}

static int put_line(struct kb_buf *line, const struct kb_view *view, const struct kb_session *s,
	struct kb_err *err)
{
	char started[KB_WHEN_MAX];
	int r;

	kb_when_format(s->started, view->utc, false, started);
	r = kb_buf_printf(line, err, "%s  %-18s  %-14s  %-10s  %-8s  ", started, s->name, s->agent,
		s->machine, s->user);
	if (r == 0)
		r = put_end(line, s, err);
	if (r == 0)
		r = put_counts(line, view, s, err);
	if (r == 0)
		r = kb_buf_puts(line, "  ", err);
	if (r == 0)
		r = kb_text_argv(line, s->argv, s->argc, err);
	if (r == 0)
		r = kb_buf_puts(line, "\n", err);
	return r < 0 ? r : kb_text_flush(line, view, err);
}

static int put_unreadable(
	struct kb_buf *line, const struct kb_view *view, const char *why, struct kb_err *err)
{
	int r = kb_buf_printf(line, err, "%sunreadable%s  %s\n", kb_colour(view, KB_RED),
		kb_colour(view, KB_PLAIN), why);

	return r < 0 ? r : kb_text_flush(line, view, err);
}

static int put_one(struct kb_reader *reader, const uint8_t *id, const struct kb_view *view,
	json_t *json, struct kb_buf *line, struct kb_err *err)
{
	struct kb_session *session;
	struct kb_err why;
	json_t *o;
	int r = kb_reader_session(reader, id, &session, &why);

	if (r < 0) /* one bad session does not hide the others; verify tells more */
		return json ? 0 : put_unreadable(line, view, why.msg, err);
	if (json) {
		o = kb_json_session(session);
		r = o && json_array_append_new(json, o) == 0 ? 0 : kb_err_nomem(err);
	} else {
		r = put_line(line, view, session, err);
	}
	kb_session_destroy(session);
	return r;
}

/* What is left of a session that was dropped: its number and how much it was. */
static int put_tombstone(struct kb_buf *line, const struct kb_view *view, json_t *json,
	const struct kb_tombstone *t, struct kb_err *err)
{
	char started[KB_WHEN_MAX], pruned[KB_WHEN_MAX], records[KB_COUNT_MAX];
	json_t *o;
	int r;

	if (json) {
		o = json_object();
		return o && kb_json_text(o, "id", t->id_text) &&
				       kb_json_text(o, "name", t->id_text) &&
				       kb_json_text(o, "state", "pruned") &&
				       kb_json_time(o, "started", t->started) &&
				       kb_json_time(o, "pruned", t->pruned) &&
				       kb_json_number(o, "records", t->records) &&
				       json_array_append_new(json, o) == 0
			       ? 0
			       : kb_err_nomem(err);
	}
	kb_when_format(t->started, view->utc, false, started);
	kb_when_format(t->pruned, view->utc, false, pruned);
	r = kb_buf_printf(line, err, "%s%s  %s  %s records, pruned %s%s\n",
		kb_colour(view, KB_SOFT), started, t->id_text, kb_text_count(t->records, records),
		pruned, kb_colour(view, KB_PLAIN));
	return r < 0 ? r : kb_text_flush(line, view, err);
}

static int put_tombstones(struct kb_reader *reader, const struct kb_view *view, json_t *json,
	struct kb_buf *line, struct kb_err *err)
{
	KB_FREE struct kb_tombstone *list = NULL;
	size_t n = 0;
	int r = kb_reader_tombstones(reader, &list, &n, err);

	for (size_t i = 0; r == 0 && i < n; i++)
		r = put_tombstone(line, view, json, &list[i], err);
	return r;
}

int kb_reader_sessions(struct kb_reader *reader, const struct kb_view *view, struct kb_err *err)
{
	KB_BUF_CLEANUP struct kb_buf line;
	struct kb_session_list list;
	json_t *json = view->json ? json_array() : NULL;
	int r = kb_reader_resolve(reader, "all", &list, err);

	kb_buf_init(&line, KB_TEXT_MAX);
	if (r == 0 && !view->json && list.n)
		r = kb_buf_printf(&line, err,
			"%s%-19s  %-18s  %-14s  %-10s  %-8s  %9s  %-12s  %11s  %7s  %s%s\n",
			kb_colour(view, KB_SOFT), "STARTED", "SESSION", "AGENT", "MACHINE", "USER",
			"LASTED", "ENDED", "RECORDS", "DENIALS", "COMMAND",
			kb_colour(view, KB_PLAIN));
	if (r == 0)
		r = put_tombstones(reader, view, json, &line, err);
	for (size_t i = 0; r == 0 && i < list.n; i++)
		r = put_one(reader, list.ids[i], view, json, &line, err);
	kb_session_list_finish(&list);
	if (r == 0 && view->json)
		r = kb_json_put(json_incref(json), false, view->out, err);
	json_decref(json);
	if (r == 0 && fflush(view->out) != 0)
		r = kb_err_set(err, KB_ERR_CLOSED, "the output is closed");
	return r;
}
