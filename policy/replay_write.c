/* What a replay found, for people and as JSON. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/replay.h"
#include "supervisor/base/util.h"

/* New denials first: they are what was asked for. */
static const struct {
	enum kb_change change;
	const char *word;
} kinds[] = {
	{KB_NEWLY_DENIED, "newly denied"},
	{KB_NEWLY_ALLOWED, "newly allowed"},
	{KB_CANNOT_TELL, "cannot tell"},
};

struct line {
	char session[KB_NAME_MAX + 1], rule[512];
	char *event; /* escaped */
	uint64_t count;
};

static void line_finish(struct line *line)
{
	free(line->event);
}

/* False: no memory. */
static bool line_of(const struct kb_tally_entry *entry, struct line *ret)
{
	const char *session = entry->text, *rule = strchr(session, '\x1f') + 1;
	const char *text = strchr(rule, '\x1f') + 1;

	snprintf(ret->session, sizeof(ret->session), "%.*s", (int)(rule - session - 1), session);
	snprintf(ret->rule, sizeof(ret->rule), "%.*s", (int)(text - rule - 1), rule);
	ret->count = entry->count;
	ret->event = kb_escape_dup(text, strlen(text));
	return ret->event != NULL;
}

/* ---- Text ------------------------------------------------------------------------------------ */

static int put_kind(
	const struct kb_tally *tally, const char *word, struct kb_buf *out, struct kb_err *err)
{
	int r = tally->entries.len ? kb_buf_printf(out, err, "%s\n", word) : 0;

	for (size_t i = 0; r >= 0 && i < tally->entries.len; i++) {
		struct line line KB_CLEANUP(line_finish) = {0};

		r = line_of(tally->entries.items[i], &line)
			    ? kb_buf_printf(out, err, "  %s%s%s   %llu ×%s%s\n", line.session,
				      line.session[0] ? "   " : "", line.event,
				      (unsigned long long)line.count, line.rule[0] ? "   " : "",
				      line.rule)
			    : kb_err_nomem(err);
	}
	if (r >= 0 && tally->dropped)
		r = kb_buf_printf(
			out, err, "  … and %llu more\n", (unsigned long long)tally->dropped);
	return r;
}

static int put_heading(const struct kb_replay *rp, struct kb_buf *out, struct kb_err *err)
{
	const struct kb_replay_result *result = &rp->result;
	char sessions[KB_COUNT_MAX], records[KB_COUNT_MAX], denied[KB_COUNT_MAX] = "none";

	if (result->sessions_newly_denied)
		snprintf(denied, sizeof(denied), "%llu session%s",
			(unsigned long long)result->sessions_newly_denied,
			result->sessions_newly_denied == 1 ? "" : "s");
	return kb_buf_printf(out, err,
		"%s session%s, %s records in %.1f s: %s would meet new denials\n",
		kb_text_count(result->sessions, sessions), result->sessions == 1 ? "" : "s",
		kb_text_count(result->records, records),
		(double)(kb_now_mono() - rp->started) / 1e9, denied);
}

static int put_counts(const struct kb_replay *rp, struct kb_buf *out, struct kb_err *err)
{
	const struct kb_replay_result *result = &rp->result;
	const struct {
		uint64_t n;
		const char *word;
	} counts[] = {
		{result->still_allowed, "still allowed"},
		{result->still_denied, "still denied"},
		{result->newly_denied, "newly denied"},
		{result->newly_allowed, "newly allowed"},
		{result->cannot_tell, "cannot tell"},
	};
	char text[KB_COUNT_MAX];
	int r = 0;

	for (size_t i = 0; r >= 0 && i < KB_ARRAY_LEN(counts); i++)
		r = kb_buf_printf(out, err, "%s%s %s", i ? " · " : "  ",
			kb_text_count(counts[i].n, text), counts[i].word);
	return r < 0 ? r : kb_buf_puts(out, "\n", err);
}

static int render_text(const struct kb_replay *rp, struct kb_buf *out, struct kb_err *err)
{
	int r = put_heading(rp, out, err);

	if (r >= 0)
		r = put_counts(rp, out, err);
	for (size_t i = 0; r >= 0 && i < KB_ARRAY_LEN(kinds); i++)
		r = put_kind(&rp->changes[kinds[i].change], kinds[i].word, out, err);
	return r;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static bool list_kind(const struct kb_tally *tally, const char *word, json_t *list)
{
	bool ok = true;

	for (size_t i = 0; ok && i < tally->entries.len; i++) {
		struct line line KB_CLEANUP(line_finish) = {0};

		ok = line_of(tally->entries.items[i], &line) &&
		     json_array_append_new(
			     list, json_pack("{s:s, s:s, s:s, s:s, s:I}", "session", line.session,
					   "change", word, "event", line.event, "rule", line.rule,
					   "count", (json_int_t)line.count)) == 0;
	}
	return ok;
}

static json_t *document(const struct kb_replay *rp, json_t *changes, uint64_t not_listed)
{
	const struct kb_replay_result *result = &rp->result;

	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "sessions",
		(json_int_t)result->sessions, "sessions_newly_denied",
		(json_int_t)result->sessions_newly_denied, "records", (json_int_t)result->records,
		"still_allowed", (json_int_t)result->still_allowed, "still_denied",
		(json_int_t)result->still_denied, "newly_denied", (json_int_t)result->newly_denied,
		"newly_allowed", (json_int_t)result->newly_allowed, "cannot_tell",
		(json_int_t)result->cannot_tell, "not_listed", (json_int_t)not_listed, "changes",
		changes);
}

static int render_json(const struct kb_replay *rp, struct kb_buf *out, struct kb_err *err)
{
	json_t *changes = json_array(), *root;
	uint64_t not_listed = 0;
	bool ok = changes != NULL;
	char *text KB_FREE = NULL;

	for (size_t i = 0; ok && i < KB_ARRAY_LEN(kinds); i++) {
		const struct kb_tally *tally = &rp->changes[kinds[i].change];

		ok = list_kind(tally, kinds[i].word, changes);
		not_listed += tally->dropped;
	}
	root = document(rp, changes, not_listed);
	text = ok && root ? json_dumps(root, JSON_INDENT(2)) : NULL;
	json_decref(root);
	return text ? kb_buf_printf(out, err, "%s\n", text) : kb_err_nomem(err);
}

int kb_replay_render(const struct kb_replay *rp, bool json, struct kb_buf *out,
	struct kb_replay_result *ret, struct kb_err *err)
{
	*ret = rp->result;
	return json ? render_json(rp, out, err) : render_text(rp, out, err);
}
