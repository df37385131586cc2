/* `policy replay`: recorded events against another policy. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/judge.h"
#include "policy/tally.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

#define TEXT_MAX     4400
#define REPLAY_LINES (128u << 20) /* bytes of distinct lines */

enum change { STILL_ALLOWED, STILL_DENIED, NEWLY_DENIED, NEWLY_ALLOWED, CANNOT_TELL, SKIPPED };

struct kb_replay {
	struct kb_memo *memo;
	struct kb_arena arena;
	struct kb_tally tally;
	struct kb_replay_result result;
	char session[KB_NAME_MAX + 1]; /* of the last event */
	uint64_t seq;
	bool newly_denied; /* the session has such */
};

/* A file that was not there before would not be there either. */
static bool harmless(const struct kb_observed *seen, const struct kb_judgement *judgement)
{
	return seen->failed && (seen->errnum == ENOENT || seen->errnum == ENOTDIR) &&
	       judgement->verdict.by_default;
}

static enum change change_of(const struct kb_observed *seen, const struct kb_judgement *judgement)
{
	bool was = seen->decision == KB_OBSERVED_ALLOWED;

	switch (judgement->judged) {
	case KB_JUDGED_SKIP:
		return SKIPPED;
	case KB_JUDGED_UNKNOWN:
		return CANNOT_TELL;
	case KB_JUDGED_ALLOWED:
		return was ? STILL_ALLOWED : NEWLY_ALLOWED;
	default:
		if (was && harmless(seen, judgement))
			return STILL_ALLOWED;
		return was ? NEWLY_DENIED : STILL_DENIED;
	}
}

static void put_down(struct kb_replay *rp, const struct kb_bundle *bundle,
	const struct kb_observed *seen, const struct kb_judgement *judgement, enum change change)
{
	char text[TEXT_MAX], line[TEXT_MAX + 256];
	const char *id = judgement->verdict.rule < bundle->rules.len
				 ? bundle->rules.items[judgement->verdict.rule].id
				 : "";

	kb_observed_text(seen, &judgement->question, text, sizeof(text));
	/* The fields end with \x1f; the text, which is foreign, comes last. */
	snprintf(line, sizeof(line), "%c\x1f%s\x1f%.*s\x1f%s", '0' + (int)change,
		seen->session ? seen->session : "", (int)strcspn(id, "#"), id, text);
	kb_tally_add(&rp->tally, line, seen->count ? seen->count : 1, 0);
}

static void begin_session(struct kb_replay *rp, const char *name)
{
	snprintf(rp->session, sizeof(rp->session), "%s", name);
	rp->result.sessions++;
	rp->newly_denied = false;
}

void kb_replay_add(
	struct kb_replay *rp, const struct kb_bundle *bundle, const struct kb_observed *seen)
{
	struct kb_replay_result *result = &rp->result;
	uint64_t *const counts[] = {&result->still_allowed, &result->still_denied,
		&result->newly_denied, &result->newly_allowed, &result->cannot_tell};
	uint64_t n = seen->count ? seen->count : 1;
	struct kb_judgement judgement;
	enum change change;

	/* Names may be used again, numbers within a session go up. */
	if (!result->sessions || seen->seq <= rp->seq ||
		strcmp(rp->session, seen->session ? seen->session : "") != 0)
		begin_session(rp, seen->session ? seen->session : "");
	rp->seq = seen->seq;
	result->records++;
	kb_judge(rp->memo, bundle, seen, &judgement);
	change = change_of(seen, &judgement);
	if (change == SKIPPED)
		return;
	*counts[change] += n;
	if (change < NEWLY_DENIED)
		return;
	if (change == NEWLY_DENIED && !rp->newly_denied) {
		rp->newly_denied = true;
		result->sessions_newly_denied++;
	}
	put_down(rp, bundle, seen, &judgement, change);
}

/* ---- Showing --------------------------------------------------------------------------------- */

static const char *const change_names[] = {
	"still allowed", "still denied", "newly denied", "newly allowed", "cannot tell"};

struct line {
	enum change change;
	char session[KB_NAME_MAX + 1], rule[TEXT_MAX];
	const char *text;
};

static void split(const char *line, struct line *ret)
{
	const char *session = line + 2, *rule = strchr(session, '\x1f') + 1;
	const char *text = strchr(rule, '\x1f') + 1;

	ret->change = (enum change)(line[0] - '0');
	snprintf(ret->session, sizeof(ret->session), "%.*s", (int)(rule - session - 1), session);
	snprintf(ret->rule, sizeof(ret->rule), "%.*s", (int)(text - rule - 1), rule);
	ret->text = text;
}

static int put_line(
	const struct kb_tally_entry *entry, json_t *list, struct kb_buf *out, struct kb_err *err)
{
	char *safe KB_FREE = NULL;
	struct line line;

	split(entry->text, &line);
	safe = kb_escape_dup(line.text, strlen(line.text));
	if (!safe)
		return kb_err_nomem(err);
	if (list)
		return json_array_append_new(list,
			       json_pack("{s:s, s:s, s:s, s:s, s:I}", "session", line.session,
				       "change", change_names[line.change], "event", safe, "rule",
				       line.rule, "count", (json_int_t)entry->count)) < 0
			       ? kb_err_nomem(err)
			       : 0;
	return kb_buf_printf(out, err, "  %-13s %s%s%s   %s%s%llu ×\n", change_names[line.change],
		line.session, line.session[0] ? "   " : "", safe, line.rule,
		line.rule[0] ? "   " : "", (unsigned long long)entry->count);
}

static int put_lines(
	const struct kb_replay *rp, json_t *list, struct kb_buf *out, struct kb_err *err)
{
	int r = 0;

	/* New denials first: they are what was asked for. */
	for (enum change change = NEWLY_DENIED; change <= CANNOT_TELL; change++)
		for (size_t i = 0; r >= 0 && i < rp->tally.entries.len; i++)
			if (rp->tally.entries.items[i]->text[0] == '0' + (int)change)
				r = put_line(rp->tally.entries.items[i], list, out, err);
	return r;
}

static int render_text(const struct kb_replay *rp, struct kb_buf *out, struct kb_err *err)
{
	const struct kb_replay_result *result = &rp->result;
	int r;

	r = kb_buf_printf(out, err,
		"%llu session%s, %llu records: ", (unsigned long long)result->sessions,
		result->sessions == 1 ? "" : "s", (unsigned long long)result->records);
	if (r >= 0 && !result->sessions_newly_denied)
		r = kb_buf_puts(out, "none would meet new denials\n", err);
	else if (r >= 0)
		r = kb_buf_printf(out, err, "%llu session%s would meet new denials\n",
			(unsigned long long)result->sessions_newly_denied,
			result->sessions_newly_denied == 1 ? "" : "s");
	if (r >= 0)
		r = kb_buf_printf(out, err,
			"  %llu still allowed, %llu still denied, %llu newly denied, "
			"%llu newly allowed, %llu cannot be told\n",
			(unsigned long long)result->still_allowed,
			(unsigned long long)result->still_denied,
			(unsigned long long)result->newly_denied,
			(unsigned long long)result->newly_allowed,
			(unsigned long long)result->cannot_tell);
	if (r >= 0)
		r = put_lines(rp, NULL, out, err);
	if (r >= 0 && rp->tally.dropped)
		r = kb_buf_printf(
			out, err, "  … and %llu more\n", (unsigned long long)rp->tally.dropped);
	return r;
}

static int render_json(const struct kb_replay *rp, struct kb_buf *out, struct kb_err *err)
{
	const struct kb_replay_result *result = &rp->result;
	json_t *list = json_array(), *root;
	char *text;
	int r = list ? put_lines(rp, list, NULL, err) : kb_err_nomem(err);

	if (r < 0) {
		json_decref(list);
		return r;
	}
	root = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "sessions",
		(json_int_t)result->sessions, "sessions_newly_denied",
		(json_int_t)result->sessions_newly_denied, "records", (json_int_t)result->records,
		"still_allowed", (json_int_t)result->still_allowed, "still_denied",
		(json_int_t)result->still_denied, "newly_denied", (json_int_t)result->newly_denied,
		"newly_allowed", (json_int_t)result->newly_allowed, "cannot_tell",
		(json_int_t)result->cannot_tell, "not_listed", (json_int_t)rp->tally.dropped,
		"changes", list);
	text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
	json_decref(root);
	r = text ? kb_buf_printf(out, err, "%s\n", text) : kb_err_nomem(err);
	free(text);
	return r;
}

int kb_replay_render(const struct kb_replay *rp, bool json, struct kb_buf *out,
	struct kb_replay_result *ret, struct kb_err *err)
{
	*ret = rp->result;
	return json ? render_json(rp, out, err) : render_text(rp, out, err);
}

/* ---- Life ------------------------------------------------------------------------------------ */

int kb_replay_create(struct kb_replay **ret, struct kb_err *err)
{
	struct kb_replay *rp = calloc(1, sizeof(*rp));

	if (!rp)
		return kb_err_nomem(err);
	kb_arena_init(&rp->arena, REPLAY_LINES);
	rp->memo = kb_memo_create();
	if (!rp->memo || kb_tally_init(&rp->tally, &rp->arena) < 0) {
		kb_replay_destroy(rp);
		return kb_err_nomem(err);
	}
	*ret = rp;
	return 0;
}

void kb_replay_destroy(struct kb_replay *rp)
{
	if (!rp)
		return;
	kb_memo_destroy(rp->memo);
	kb_arena_finish(&rp->arena);
	free(rp);
}
