/* `audit query`, `logs`: records that match, as a table or as JSON Lines. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "audit/query/plan.h"
#include "json.h"
#include "supervisor/base/util.h"
#include "table.h"

#define FOLLOW_PAUSE_MS 100

struct run {
	struct kb_reader *reader;
	const struct kb_query *query;
	const struct kb_view *view;
	struct kb_expr *expr;
	struct kb_table *table; /* NULL: JSON */
	int64_t since, until;
	uint64_t found;
	struct kb_plan plan;
};

static int prepare(struct run *run, struct kb_err *err)
{
	const struct kb_expr_options options = {
		.home = run->view->home, .now = kb_now_real(), .utc = run->view->utc};
	struct kb_expr_error error;
	int r;

	run->since = INT64_MIN;
	run->until = INT64_MAX;
	r = kb_when_bound(run->query->since, "--since", run->view->utc, &run->since, err);
	if (r == 0)
		r = kb_when_bound(run->query->until, "--until", run->view->utc, &run->until, err);
	if (r < 0 || !run->query->expr)
		return r;
	r = kb_expr_parse(run->query->expr, &options, &run->expr, &error);
	if (r == -KB_ERR_USAGE)
		return kb_expr_error_set(run->query->expr, &error, err);
	return r < 0 ? kb_err_nomem(err) : 0;
}

static bool wanted(const struct run *run, const struct kb_row *row)
{
	int64_t time = (int64_t)row->record->time;

	return row->seq > run->query->after_seq && time >= run->since && time <= run->until &&
	       kb_expr_match(run->expr, row);
}

static bool enough(const struct run *run)
{
	return run->query->limit && run->found >= run->query->limit;
}

static int drain(struct run *run, struct kb_scan *scan, struct kb_err *err)
{
	struct kb_row row;
	int r = 0;

	while (!enough(run) && (r = kb_scan_next(scan, &row, err)) > 0) {
		if (run->plan.context && (r = kb_scan_resolve(scan, &row, err)) < 0)
			return r;
		if (!wanted(run, &row))
			continue;
		r = kb_scan_resolve(scan, &row, err);
		if (r < 0)
			return r;
		run->found++;
		if (run->table)
			r = kb_table_row(run->table, &row, err);
		else
			r = kb_json_put(kb_json_record(&row, run->view), true, run->view->out, err);
		if (r < 0)
			return r;
	}
	return r;
}

/* Wait a little for more records; false when nobody reads the output any more. */
static bool still_wanted(const struct kb_view *view)
{
	struct pollfd fd = {.fd = fileno(view->out), .events = 0};

	if (fd.fd < 0) {
		nanosleep(&(struct timespec){.tv_nsec = FOLLOW_PAUSE_MS * 1000000L}, NULL);
		return true;
	}
	return poll(&fd, 1, FOLLOW_PAUSE_MS) <= 0 || !(fd.revents & (POLLERR | POLLHUP | POLLNVAL));
}

static int follow(struct run *run, struct kb_scan *scan, const uint8_t *id, struct kb_err *err)
{
	struct kb_session *now;
	bool ended;
	int r;

	do {
		/* Whether it has ended is asked first: what it wrote until then is shown after. */
		r = kb_reader_session(run->reader, id, &now, err);
		if (r < 0)
			return r;
		ended = now->ended;
		kb_session_destroy(now);
		r = drain(run, scan, err);
		if (r == 0 && run->table)
			r = kb_table_flush(run->table, err);
		if (r == 0 && fflush(run->view->out) != 0)
			r = kb_err_set(err, KB_ERR_CLOSED, "the output is closed");
	} while (r == 0 && !ended && !enough(run) && still_wanted(run->view));
	return r;
}

static bool outside(const struct run *run, const struct kb_session *s)
{
	return (int64_t)s->started > run->until || (s->ended && (int64_t)s->last_time < run->since);
}

static int one_session(struct run *run, const uint8_t *id, bool with_follow, struct kb_err *err)
{
	struct kb_session *session;
	struct kb_scan *scan;
	int r;

	r = kb_reader_session(run->reader, id, &session, err);
	if (r < 0)
		return r;
	if (outside(run, session)) {
		kb_session_destroy(session);
		return 0;
	}
	r = kb_scan_create(run->reader, session, &scan, err);
	if (r == 0) {
		kb_scan_select(scan, with_follow ? NULL : &run->plan);
		r = with_follow ? follow(run, scan, id, err) : drain(run, scan, err);
		kb_scan_destroy(scan);
	}
	kb_session_destroy(session);
	return r;
}

static int all_sessions(struct run *run, struct kb_err *err)
{
	struct kb_session_list list;
	bool with_follow = run->query->follow;
	int r = kb_reader_resolve(run->reader, run->query->sessions, &list, err);

	if (r < 0)
		return r;
	if (with_follow && list.n > 1)
		r = kb_err_set(err, KB_ERR_USAGE, "only one session can be followed at a time");
	if (!run->view->json && r == 0)
		r = kb_table_create(run->view, list.n > 1, with_follow, &run->table, err);
	for (size_t i = 0; i < list.n && r == 0 && !enough(run); i++)
		r = one_session(run, list.ids[i], with_follow, err);
	kb_session_list_finish(&list);
	return r;
}

int kb_reader_query(struct kb_reader *reader, const struct kb_query *query,
	const struct kb_view *view, struct kb_err *err)
{
	struct run run = {.reader = reader, .query = query, .view = view};
	int r = prepare(&run, err);

	kb_plan_init(&run.plan, run.expr, run.since, run.until);
	if (r == 0)
		r = all_sessions(&run, err);
	if (r == 0 && run.table)
		r = kb_table_flush(run.table, err);
	if (r == 0 && fflush(view->out) != 0)
		r = kb_err_set(err, KB_ERR_CLOSED, "the output is closed");
	kb_table_destroy(run.table);
	kb_expr_destroy(run.expr);
	return r;
}

int kb_query_check(const char *text, struct kb_buf *screen, struct kb_err *err)
{
	const struct kb_expr_options options = {.now = kb_now_real()};
	struct kb_expr_error error;
	struct kb_expr *expr;
	int r = kb_expr_parse(text, &options, &expr, &error);

	if (r == 0) {
		kb_expr_destroy(expr);
		return 0;
	}
	if (r != -KB_ERR_USAGE)
		return kb_err_nomem(err);
	if (screen) {
		r = kb_expr_error_render(text, &error, screen, err);
		if (r < 0)
			return r;
	}
	return kb_expr_error_set(text, &error, err);
}
