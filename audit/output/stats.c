/* `audit stats`: what the store holds, what it costs, what was lost; for one session also what
 * kinds of records it is made of and which processes were the busiest and ran longest. */
#include <inttypes.h>
#include <string.h>

#include "digest.h"
#include "json.h"
#include "supervisor/base/util.h"

#define BUSIEST 10u

struct totals {
	uint64_t sessions, running, interrupted, records, denials, lost, bytes;
	uint64_t oldest, newest, busy_ns;
};

static int add_up(struct kb_reader *reader, const struct kb_session_list *list, struct totals *t,
	struct kb_err *err)
{
	struct kb_session *s;
	int r;

	for (size_t i = 0; i < list->n; i++) {
		r = kb_reader_session(reader, list->ids[i], &s, err);
		if (r == -KB_ERR_INVALID)
			continue; /* verify tells about damaged ones */
		if (r < 0)
			return r;
		t->sessions++;
		t->running += !s->ended;
		t->interrupted += s->ended && !s->end.complete;
		t->records += s->records;
		t->denials += s->denials;
		t->lost += s->lost;
		t->bytes += s->bytes;
		t->busy_ns += s->last_time > s->started ? s->last_time - s->started : 0;
		if (!t->oldest || s->started < t->oldest)
			t->oldest = s->started;
		t->newest = KB_MAX(t->newest, s->last_time);
		kb_session_destroy(s);
	}
	return 0;
}

static double ratio(uint64_t a, double b)
{
	return b > 0 ? (double)a / b : 0;
}

/* ---- One session ----------------------------------------------------------------------------- */

typedef uint64_t (*rank_fn)(const struct kb_digest *d, uint32_t i);

static uint64_t records_of(const struct kb_digest *d, uint32_t i)
{
	return d->nodes[i].records;
}

/* From its first record to its exit; to the session's last record while it runs. */
static uint64_t lasted(const struct kb_digest *d, uint32_t i)
{
	const struct kb_process *proc = d->nodes[i].proc;
	uint64_t end = proc->exited ? proc->ended : d->last_time;

	return end > proc->started ? end - proc->started : 0;
}

/* Indices of the processes that rank highest, the first first. */
static uint32_t highest(const struct kb_digest *d, rank_fn rank, uint32_t ret[BUSIEST])
{
	uint32_t n = 0, at;

	for (uint32_t i = 0; i < d->n_nodes; i++) {
		for (at = n; at > 0 && rank(d, ret[at - 1]) < rank(d, i); at--)
			if (at < BUSIEST)
				ret[at] = ret[at - 1];
		if (at < BUSIEST) {
			ret[at] = i;
			n = KB_MIN(n + 1, BUSIEST);
		}
	}
	return n;
}

static int put_longest(struct kb_buf *line, const struct kb_digest *d, struct kb_err *err)
{
	uint32_t list[BUSIEST], n = highest(d, lasted, list);
	char duration[KB_WHEN_MAX];
	int r = n ? kb_buf_puts(line, "longest processes\n", err) : 0;

	for (uint32_t i = 0; i < n && r == 0; i++) {
		kb_duration_format(lasted(d, list[i]), duration);
		r = kb_buf_printf(line, err, "  %10s  ", duration);
		if (r == 0)
			r = kb_text_proc(line, d->nodes[list[i]].proc, 3, err);
		if (r == 0)
			r = kb_buf_puts(line, "\n", err);
	}
	return r;
}

static int put_session_text(
	const struct kb_view *view, const struct kb_digest *d, struct kb_err *err)
{
	uint32_t list[BUSIEST], n = highest(d, records_of, list);
	char count[KB_COUNT_MAX];
	KB_BUF_CLEANUP struct kb_buf line;
	int r = 0;

	kb_buf_init(&line, KB_TEXT_MAX);
	for (unsigned i = 1; i < KB_EVENT_MAX_ && r == 0; i++)
		if (d->by_event[i])
			r = kb_buf_printf(&line, err, "  %-10s %14s\n", kb_event_name(i),
				kb_text_count(d->by_event[i], count));
	if (r == 0 && n)
		r = kb_buf_puts(&line, "busiest processes\n", err);
	for (uint32_t i = 0; i < n && r == 0; i++) {
		r = kb_buf_printf(
			&line, err, "  %10s  ", kb_text_count(d->nodes[list[i]].records, count));
		if (r == 0)
			r = kb_text_proc(&line, d->nodes[list[i]].proc, 3, err);
		if (r == 0)
			r = kb_buf_puts(&line, "\n", err);
	}
	if (r == 0)
		r = put_longest(&line, d, err);
	return r == 0 ? kb_text_flush(&line, view, err) : r;
}

static json_t *processes_json(const struct kb_digest *d, rank_fn rank)
{
	uint32_t list[BUSIEST], n = highest(d, rank, list);
	json_t *processes = json_array();
	bool ok = processes;

	for (uint32_t i = 0; i < n && ok; i++) {
		json_t *o = json_object();

		ok = o && kb_json_number(o, "pid", d->nodes[list[i]].proc->pid) &&
		     kb_json_bytes(o, "comm", kb_process_comm(d->nodes[list[i]].proc)) &&
		     kb_json_number(o, "records", d->nodes[list[i]].records) &&
		     kb_json_number(o, "lasted_ns", lasted(d, list[i])) &&
		     json_array_append(processes, o) == 0;
		json_decref(o);
	}
	if (ok)
		return processes;
	json_decref(processes);
	return NULL;
}

static bool add_session_json(json_t *doc, const struct kb_digest *d)
{
	json_t *events = json_object();
	bool ok = events;

	for (unsigned i = 1; i < KB_EVENT_MAX_ && ok; i++)
		ok = !d->by_event[i] || kb_json_number(events, kb_event_name(i), d->by_event[i]);
	ok = ok && json_object_set(doc, "events", events) == 0 &&
	     json_object_set_new(doc, "busiest", processes_json(d, records_of)) == 0 &&
	     json_object_set_new(doc, "longest", processes_json(d, lasted)) == 0;
	json_decref(events);
	return ok;
}

/* ---- All of it ------------------------------------------------------------------------------- */

static int put_text(
	const struct kb_view *view, const struct totals *t, uint64_t file, struct kb_err *err)
{
	char a[KB_COUNT_MAX], b[KB_COUNT_MAX], c[KB_COUNT_MAX], when[KB_WHEN_MAX] = "-";
	int ok = fprintf(view->out,
		"sessions   %14s  (%" PRIu64 " running, %" PRIu64 " interrupted)\n",
		kb_text_count(t->sessions, a), t->running, t->interrupted);

	if (t->oldest)
		kb_when_format(t->oldest, view->utc, false, when);
	if (ok >= 0)
		ok = fprintf(view->out,
			"records    %14s  %.0f a second while sessions ran, since %s\n",
			kb_text_count(t->records, a), ratio(t->records, (double)t->busy_ns / 1e9),
			when);
	if (ok >= 0)
		ok = fprintf(view->out, "denials    %14s\nlost       %14s\n",
			kb_text_count(t->denials, a), kb_text_count(t->lost, b));
	if (ok >= 0)
		ok = fprintf(view->out, "size       %14s  %.1f bytes a record; the file has %s\n",
			kb_text_size(t->bytes, a), ratio(t->bytes, (double)t->records),
			kb_text_size(file, c));
	return ok < 0 ? kb_err_set(err, KB_ERR_CLOSED, "the output is closed") : 0;
}

static json_t *totals_json(const struct totals *t, uint64_t file)
{
	json_t *o = json_object();

	if (o && kb_json_number(o, "sessions", t->sessions) &&
		kb_json_number(o, "running", t->running) &&
		kb_json_number(o, "interrupted", t->interrupted) &&
		kb_json_number(o, "records", t->records) &&
		kb_json_number(o, "denials", t->denials) && kb_json_number(o, "lost", t->lost) &&
		kb_json_number(o, "bytes", t->bytes) && kb_json_number(o, "file_bytes", file) &&
		json_object_set_new(o, "bytes_per_record",
			json_real(ratio(t->bytes, (double)t->records))) == 0 &&
		(!t->oldest || (kb_json_time(o, "oldest", t->oldest) &&
				       kb_json_time(o, "newest", t->newest))))
		return o;
	json_decref(o);
	return NULL;
}

static int put_stats(struct kb_reader *reader, const struct kb_session_list *list,
	const struct kb_view *view, struct kb_err *err)
{
	struct kb_session *session = NULL;
	struct kb_digest *digest = NULL;
	struct totals t = {0};
	uint64_t file = kb_reader_file_size(reader);
	json_t *doc = NULL;
	int r = add_up(reader, list, &t, err);

	if (r == 0 && list->n == 1)
		r = kb_reader_session(reader, list->ids[0], &session, err);
	if (r == 0 && session)
		r = kb_digest_create(reader, session, view, &digest, err);
	if (r == 0 && view->json) {
		doc = totals_json(&t, file);
		if (!doc || (digest && !add_session_json(doc, digest)))
			r = kb_err_nomem(err);
		if (r == 0)
			r = kb_json_put(json_incref(doc), false, view->out, err);
		json_decref(doc);
	} else if (r == 0) {
		r = put_text(view, &t, file, err);
		if (r == 0 && digest)
			r = put_session_text(view, digest, err);
	}
	kb_digest_destroy(digest);
	kb_session_destroy(session);
	return r;
}

int kb_reader_stats(struct kb_reader *reader, const char *sessions, const struct kb_view *view,
	struct kb_err *err)
{
	struct kb_session_list list;
	int r = kb_reader_resolve(reader, sessions ? sessions : "all", &list, err);

	if (r < 0)
		return r;
	r = put_stats(reader, &list, view, err);
	kb_session_list_finish(&list);
	if (r == 0 && fflush(view->out) != 0)
		r = kb_err_set(err, KB_ERR_CLOSED, "the output is closed");
	return r;
}
