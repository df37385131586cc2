/* `policy replay`, `policy learn`, `policy explain --record`: recorded sessions held against a
 * policy. The policy compiler does the judging; here records become what it judges. */
#include <string.h>

#include "audit/observe.h"
#include "json.h"
#include "supervisor/base/util.h"

#define ANSWER_MAX (64u << 20)

KB_DEFINE_CLEANUP(session_destroyp, struct kb_session, kb_session_destroy);
KB_DEFINE_CLEANUP(bundle_destroyp, struct kb_bundle, kb_bundle_destroy);

/* The policy that the session ran under; NULL when there is none (an imported log) or it is of a
 * version that is not understood any more. */
static struct kb_bundle *bundle_of(const struct kb_session *session)
{
	struct kb_bundle *bundle = NULL;

	if (session->bundle.data)
		(void)kb_bundle_parse(session->bundle.data, session->bundle.len, &bundle, NULL);
	return bundle;
}

/* ---- Walking --------------------------------------------------------------------------------- */

/* What happened in one session, event by event. */
struct walk {
	struct kb_session *session;
	struct kb_scan *scan;
	struct kb_bundle *was; /* may be NULL */
	struct kb_observer observer;
};

static void walk_finish(struct walk *walk)
{
	kb_scan_destroy(walk->scan);
	kb_bundle_destroy(walk->was);
	kb_session_destroy(walk->session);
	free(walk);
}

KB_DEFINE_CLEANUP(walk_finishp, struct walk, walk_finish);

static int walk_start(struct kb_reader *reader, const uint8_t id[KB_ULID_SIZE], struct walk **ret,
	struct kb_err *err)
{
	KB_CLEANUP(walk_finishp) struct walk *walk = calloc(1, sizeof(*walk));
	int r = walk ? kb_reader_session(reader, id, &walk->session, err) : kb_err_nomem(err);

	if (r == 0)
		r = kb_scan_create(reader, walk->session, &walk->scan, err);
	if (r < 0)
		return r;
	walk->observer.bundle = walk->was = bundle_of(walk->session);
	*ret = KB_STEAL(walk);
	return 0;
}

/* 1: *ret is the next event, until the call after it; 0: the end. */
static int walk_next(struct walk *walk, struct kb_observed *ret, struct kb_err *err)
{
	struct kb_row row;
	int r;

	do
		r = kb_scan_next(walk->scan, &row, err);
	while (r > 0 && !kb_observe(&walk->observer, &row, ret));
	return r;
}

static int put_answer(struct kb_buf *answer, const struct kb_view *view, struct kb_err *err)
{
	if (fwrite(kb_buf_data(answer), 1, kb_buf_len(answer), view->out) != kb_buf_len(answer) ||
		fflush(view->out) != 0)
		return kb_err_set(err, KB_ERR_CLOSED, "the output is closed");
	return 0;
}

/* ---- Subjects -------------------------------------------------------------------------------- */

void kb_subjects_finish(struct kb_subjects *subjects)
{
	for (size_t i = 0; i < subjects->n; i++) {
		struct kb_subject *subject = &subjects->items[i];

		for (char **program = subject->programs; program && *program; program++)
			free(*program);
		free(subject->programs);
		free(subject->name);
		free(subject->workspace);
		free(subject->home);
	}
	free(subjects->items);
	*subjects = (struct kb_subjects){0};
}

static bool copy_programs(struct kb_subject *subject, const struct kb_bundle *bundle)
{
	size_t n = 0;

	while (kb_bundle_program(bundle, n))
		n++;
	subject->programs = calloc(n + 1, sizeof(*subject->programs));
	for (size_t i = 0; subject->programs && i < n; i++)
		if (!(subject->programs[i] = strdup(kb_bundle_program(bundle, i))))
			return false;
	return subject->programs != NULL;
}

static int fill_subject(
	struct kb_subject *subject, const struct kb_session *session, struct kb_err *err)
{
	KB_CLEANUP(bundle_destroyp) struct kb_bundle *bundle = bundle_of(session);
	const char *home = bundle ? kb_bundle_variable(bundle, "HOME") : NULL;
	const char *workspace = (const char *)session->workspace.data;

	memcpy(subject->id, session->id_text, sizeof(subject->id));
	subject->name = strdup(session->name);
	subject->workspace = strndup(workspace ? workspace : "", session->workspace.len);
	subject->home = home ? strdup(home) : NULL;
	if (!subject->name || !subject->workspace || (home && !subject->home) ||
		(bundle && !copy_programs(subject, bundle)))
		return kb_err_nomem(err);
	return 0;
}

static int add_subject(struct kb_reader *reader, const uint8_t *id, int64_t since,
	struct kb_subjects *ret, struct kb_err *err)
{
	KB_CLEANUP(session_destroyp) struct kb_session *session = NULL;
	int r = kb_reader_session(reader, id, &session, err);

	if (r < 0 || (int64_t)session->started < since)
		return r;
	return fill_subject(&ret->items[ret->n++], session, err);
}

int kb_reader_subjects(struct kb_reader *reader, const struct kb_query *query, bool utc,
	struct kb_subjects *ret, struct kb_err *err)
{
	struct kb_session_list list;
	int64_t since = INT64_MIN;
	int r = kb_when_bound(query->since, "--since", utc, &since, err);

	*ret = (struct kb_subjects){0};
	if (r == 0)
		r = kb_reader_resolve(reader, query->sessions, &list, err);
	if (r < 0)
		return r;
	ret->items = calloc(list.n + 1, sizeof(*ret->items));
	if (!ret->items)
		r = kb_err_nomem(err);
	for (size_t i = 0; r == 0 && i < list.n; i++)
		r = add_subject(reader, list.ids[i], since, ret, err);
	kb_session_list_finish(&list);
	return r;
}

/* ---- Replay ---------------------------------------------------------------------------------- */

static int replay_one(struct kb_reader *reader, struct kb_replay *replay,
	const struct kb_trial *trial, struct kb_err *err)
{
	KB_CLEANUP(walk_finishp) struct walk *walk = NULL;
	struct kb_observed seen;
	uint8_t id[KB_ULID_SIZE];
	int r;

	if (!kb_ulid_parse(trial->session, id))
		return kb_err_set(err, KB_ERR_INVALID, "this is no session's number");
	r = walk_start(reader, id, &walk, err);
	while (r >= 0 && (r = walk_next(walk, &seen, err)) > 0)
		kb_replay_add(replay, trial->bundle, walk->was, &seen);
	return r;
}

int kb_reader_replay(struct kb_reader *reader, const struct kb_trial *trials, size_t n,
	const struct kb_view *view, bool *ret_denied, struct kb_err *err)
{
	struct kb_buf answer KB_BUF_CLEANUP;
	struct kb_replay_result result;
	struct kb_replay *replay;
	int r = kb_replay_create(&replay, err);

	kb_buf_init(&answer, ANSWER_MAX);
	if (r < 0)
		return r;
	for (size_t i = 0; r == 0 && i < n; i++)
		r = replay_one(reader, replay, &trials[i], err);
	if (r == 0)
		r = kb_replay_render(replay, view->json, &answer, &result, err);
	kb_replay_destroy(replay);
	if (r < 0)
		return r;
	*ret_denied = result.newly_denied > 0;
	return put_answer(&answer, view, err);
}

/* ---- Learn ----------------------------------------------------------------------------------- */

static int learn_one(
	struct kb_reader *reader, struct kb_learner *learner, const uint8_t *id, struct kb_err *err)
{
	KB_CLEANUP(walk_finishp) struct walk *walk = NULL;
	struct kb_observed seen;
	int r = walk_start(reader, id, &walk, err);

	while (r >= 0 && (r = walk_next(walk, &seen, err)) > 0)
		kb_learner_add(learner, walk->was, &seen);
	return r;
}

int kb_reader_learn(struct kb_reader *reader, const char *sessions,
	const struct kb_learn_options *options, const struct kb_view *view, struct kb_err *err)
{
	struct kb_buf answer KB_BUF_CLEANUP;
	struct kb_session_list list;
	struct kb_learner *learner;
	int r = kb_reader_resolve(reader, sessions, &list, err);

	kb_buf_init(&answer, ANSWER_MAX);
	if (r < 0)
		return r;
	r = kb_learner_create(options, &learner, err);
	if (r == 0) {
		for (size_t i = 0; r == 0 && i < list.n; i++)
			r = learn_one(reader, learner, list.ids[i], err);
		if (r == 0)
			r = kb_learner_write(learner, view->json, &answer, err);
		kb_learner_destroy(learner);
	}
	kb_session_list_finish(&list);
	return r < 0 ? r : put_answer(&answer, view, err);
}

/* ---- Explain --------------------------------------------------------------------------------- */

static int no_record(const struct walk *walk, uint64_t seq, struct kb_err *err)
{
	kb_err_set(err, KB_ERR_NOTFOUND, "the session %s has no record %llu", walk->session->name,
		(unsigned long long)seq);
	return kb_err_hint(err, "its records have the numbers 1 to %llu",
		(unsigned long long)walk->session->records);
}

static int no_policy(const struct walk *walk, struct kb_err *err)
{
	kb_err_set(err, KB_ERR_NOTFOUND, "the policy of the session %s is not known",
		walk->session->name);
	return kb_err_hint(err, "name one to hold the record against: kbsup policy explain FILE "
				"--record S:SEQ");
}

static int explain(struct walk *walk, const struct kb_bundle *bundle, uint64_t seq,
	const struct kb_view *view, struct kb_buf *answer, struct kb_err *err)
{
	struct kb_observed seen;
	struct kb_row row;
	int r;

	while ((r = kb_scan_next(walk->scan, &row, err)) > 0 && row.seq < seq)
		;
	if (r < 0)
		return r;
	if (r == 0 || row.seq != seq)
		return no_record(walk, seq, err);
	if (!bundle)
		return no_policy(walk, err);
	if (!kb_observe(&walk->observer, &row, &seen)) {
		kb_err_set(err, KB_ERR_USAGE,
			"record %llu is of the event %s, which no rule decides",
			(unsigned long long)seq, kb_event_name(row.record->event));
		return kb_err_hint(err,
			"those that rules decide: kbsup audit query %s 'event in "
			"(exec, open, connect, syscall, …)'",
			walk->session->name);
	}
	return kb_bundle_explain_observed(bundle, &seen, view->json, answer, NULL, err);
}

int kb_reader_explain(struct kb_reader *reader, const char *name, uint64_t seq,
	const struct kb_bundle *bundle, const struct kb_view *view, struct kb_err *err)
{
	KB_CLEANUP(session_destroyp) struct kb_session *session = NULL;
	KB_CLEANUP(walk_finishp) struct walk *walk = NULL;
	struct kb_buf answer KB_BUF_CLEANUP;
	int r = kb_reader_one(reader, name, &session, err);

	kb_buf_init(&answer, ANSWER_MAX);
	if (r == 0)
		r = walk_start(reader, session->id, &walk, err);
	if (r == 0)
		r = explain(walk, bundle ? bundle : walk->was, seq, view, &answer, err);
	return r < 0 ? r : put_answer(&answer, view, err);
}
