/* `audit timeline`: the events of a session in order, as a person follows them. Runs of reading
 * (and of calls that only failed) by one process become one line; what changes something, runs
 * something, connects or was denied has a line of its own. */
#include <inttypes.h>
#include <string.h>

#include "json.h"
#include "supervisor/base/util.h"

struct timeline {
	const struct kb_view *view;
	const struct kb_session *session;
	struct kb_buf line;
	struct kb_process *reader; /* of the run, referenced; NULL: no run */
	uint64_t reads, failed, run_time;
};

static int put_time(struct timeline *t, uint64_t time, struct kb_err *err)
{
	int64_t ms = ((int64_t)time - (int64_t)t->session->started) / 1000000;
	const char *sign = ms < 0 ? "-" : "+";
	uint64_t v = (uint64_t)(ms < 0 ? -ms : ms);

	return kb_buf_printf(&t->line, err,
		"%s%s%02" PRIu64 ":%02" PRIu64 ":%02" PRIu64 ".%03" PRIu64 "%s  ",
		kb_colour(t->view, KB_SOFT), sign, v / 3600000, v / 60000 % 60, v / 1000 % 60,
		v % 1000, kb_colour(t->view, KB_PLAIN));
}

static int put_process(struct timeline *t, const struct kb_process *proc, struct kb_err *err)
{
	size_t from = kb_buf_len(&t->line), have;
	int r = proc ? kb_text_proc(&t->line, proc, 0, err) : 0;

	if (r < 0)
		return r;
	have = kb_text_columns(
		(const char *)kb_buf_data(&t->line) + from, kb_buf_len(&t->line) - from);
	return kb_buf_printf(&t->line, err, "%*s", (int)(have < 18 ? 20 - have : 2), "");
}

static int end_run(struct timeline *t, struct kb_err *err)
{
	char reads[KB_COUNT_MAX], failed[KB_COUNT_MAX];
	int r;

	if (!t->reader)
		return 0;
	r = put_time(t, t->run_time, err);
	if (r == 0)
		r = put_process(t, t->reader, err);
	if (r == 0)
		r = kb_buf_printf(&t->line, err, "%-8s ", "read");
	if (r == 0 && t->reads)
		r = kb_buf_printf(&t->line, err, "%s file%s%s", kb_text_count(t->reads, reads),
			t->reads == 1 ? "" : "s", t->failed ? ", " : "");
	if (r == 0 && t->failed)
		r = kb_buf_printf(
			&t->line, err, "%s that failed", kb_text_count(t->failed, failed));
	if (r == 0)
		r = kb_buf_puts(&t->line, "\n", err);
	kb_process_unref(t->reader);
	t->reader = NULL;
	t->reads = t->failed = 0;
	return r < 0 ? r : kb_text_flush(&t->line, t->view, err);
}

static bool is_quiet(const struct kb_record *r)
{
	if (r->decision != KB_DECISION_ALLOWED)
		return false;
	if (r->outcome == KB_OUTCOME_FAILED && r->event != KB_EVENT_CONNECT)
		return true;
	return r->event == KB_EVENT_OPEN && !kb_open_writes(r);
}

static int add_to_run(struct timeline *t, const struct kb_row *row, struct kb_err *err)
{
	int r = t->reader != row->proc ? end_run(t, err) : 0;

	if (r < 0)
		return r;
	if (!t->reader) {
		t->reader = kb_process_ref(row->proc);
		t->run_time = row->record->time;
	}
	if (row->record->outcome == KB_OUTCOME_FAILED)
		t->failed++;
	else
		t->reads++;
	return 0;
}

static int put_row(struct timeline *t, const struct kb_row *row, struct kb_err *err)
{
	const struct kb_record *record = row->record;
	bool denied = record->decision != KB_DECISION_ALLOWED;
	int r = put_time(t, record->time, err);

	if (r == 0)
		r = put_process(t, row->proc, err);
	if (r == 0)
		r = kb_buf_printf(&t->line, err, "%s%-8s ",
			denied ? kb_colour(t->view, KB_RED) : "", kb_event_name(record->event));
	if (r == 0)
		r = kb_text_what(&t->line, t->view, row, err);
	if (r == 0 && (denied || record->outcome == KB_OUTCOME_FAILED)) {
		r = kb_buf_puts(&t->line, "  ", err);
		if (r == 0)
			r = kb_text_decision(&t->line, record, err);
	}
	if (r == 0 && denied) {
		r = kb_buf_puts(&t->line, "  ", err);
		if (r == 0)
			r = kb_text_rule(&t->line, kb_session_rule(t->session, record->rule), err);
	}
	if (r == 0)
		r = kb_buf_printf(
			&t->line, err, "%s\n", denied ? kb_colour(t->view, KB_PLAIN) : "");
	return r < 0 ? r : kb_text_flush(&t->line, t->view, err);
}

static int put_json(struct timeline *t, const struct kb_row *row, struct kb_err *err)
{
	json_t *o = kb_json_record(row, t->view);
	double ms = (double)((int64_t)(row->record->time - t->session->started)) / 1e6;

	if (o && json_object_set_new(o, "offset_ms", json_real(ms)) < 0) {
		json_decref(o);
		o = NULL;
	}
	return kb_json_put(o, true, t->view->out, err);
}

static int step(struct timeline *t, const struct kb_row *row, struct kb_err *err)
{
	int r;

	if (t->view->json)
		return put_json(t, row, err);
	if (row->proc && is_quiet(row->record))
		return add_to_run(t, row, err);
	r = end_run(t, err);
	return r < 0 ? r : put_row(t, row, err);
}

int kb_reader_timeline(
	struct kb_reader *reader, const char *name, const struct kb_view *view, struct kb_err *err)
{
	struct timeline t = {.view = view};
	struct kb_session *session;
	struct kb_scan *scan;
	struct kb_row row;
	int r = kb_reader_one(reader, name, &session, err);

	if (r < 0)
		return r;
	t.session = session;
	kb_buf_init(&t.line, KB_TEXT_MAX);
	r = kb_scan_create(reader, session, &scan, err);
	if (r == 0) {
		while ((r = kb_scan_next(scan, &row, err)) > 0 && (r = step(&t, &row, err)) == 0)
			;
		if (r == 0)
			r = end_run(&t, err);
		kb_process_unref(t.reader);
		kb_scan_destroy(scan);
	}
	kb_buf_finish(&t.line);
	kb_session_destroy(session);
	if (r == 0 && fflush(view->out) != 0)
		r = kb_err_set(err, KB_ERR_CLOSED, "the output is closed");
	return r;
}
