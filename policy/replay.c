/* `policy replay`: recorded events against another policy. */
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

struct replayer {
	const struct kb_bundle *bundle;
	struct kb_arena arena;
	struct kb_tally tally;
	struct kb_replay_result *result;
};

/* A file that was not there before would not be there either. */
static bool harmless(const struct kb_observed *seen, const struct kb_judgement *judgement)
{
	return seen->failed && seen->errnum == 2 /* ENOENT */ && judgement->verdict.by_default;
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

static void count(struct replayer *rp, const struct kb_observed *seen)
{
	struct kb_replay_result *result = rp->result;
	uint64_t *const counts[] = {&result->still_allowed, &result->still_denied,
		&result->newly_denied, &result->newly_allowed, &result->cannot_tell};
	uint64_t n = seen->count ? seen->count : 1;
	struct kb_judgement judgement;
	enum change change;
	char text[TEXT_MAX], line[TEXT_MAX + 256];
	const char *id;

	result->records += n;
	kb_judge(rp->bundle, seen, &judgement);
	change = change_of(seen, &judgement);
	if (change == SKIPPED)
		return;
	*counts[change] += n;
	if (change < NEWLY_DENIED)
		return;
	id = judgement.verdict.rule < rp->bundle->rules.len
		     ? rp->bundle->rules.items[judgement.verdict.rule].id
		     : "";
	kb_observed_text(seen, &judgement.question, text, sizeof(text));
	/* \x1f separates the fields; it cannot be in an escaped text. */
	snprintf(line, sizeof(line), "%s\x1f%s\x1f%.*s", seen->session ? seen->session : "", text,
		(int)strcspn(id, "#"), id);
	kb_tally_add(&rp->tally, line, n, change);
}

static const char *const change_names[] = {
	"still allowed", "still denied", "newly denied", "newly allowed", "cannot tell"};

static void split(const char *line, char *session, char *text, char *rule, size_t size)
{
	const char *a = strchr(line, '\x1f'), *b = a ? strrchr(a, '\x1f') : NULL;

	snprintf(session, size, "%.*s", a ? (int)(a - line) : 0, line);
	snprintf(text, size, "%.*s", a && b > a ? (int)(b - a - 1) : 0, a ? a + 1 : "");
	snprintf(rule, size, "%s", b ? b + 1 : "");
}

static int put_line(
	const struct kb_tally_entry *entry, json_t *list, struct kb_buf *out, struct kb_err *err)
{
	char session[TEXT_MAX], text[TEXT_MAX], rule[TEXT_MAX];
	char *safe KB_FREE = NULL;
	/* changes are or'ed: the only combination is that of different records of one text */
	const char *change = change_names[entry->bits <= CANNOT_TELL ? entry->bits : CANNOT_TELL];

	split(entry->text, session, text, rule, sizeof(text));
	safe = kb_escape_dup(text, strlen(text));
	if (!safe)
		return kb_err_nomem(err);
	if (list) {
		json_array_append_new(list,
			json_pack("{s:s, s:s, s:s, s:s, s:I}", "session", session, "change", change,
				"event", safe, "rule", rule, "count", (json_int_t)entry->count));
		return 0;
	}
	return kb_buf_printf(out, err, "  %-13s %s%s%s   %s%s%llu ×\n", change, session,
		session[0] ? "   " : "", safe, rule[0] ? rule : "", rule[0] ? "   " : "",
		(unsigned long long)entry->count);
}

static int render(struct replayer *rp, bool json, struct kb_buf *out, struct kb_err *err)
{
	const struct kb_replay_result *result = rp->result;
	json_t *list = json ? json_array() : NULL, *root;
	char *text;
	int r = 0;

	if (!json)
		r = kb_buf_printf(out, err,
			"%llu records: %llu still allowed, %llu still denied, %llu newly denied, "
			"%llu newly allowed, %llu cannot be told\n",
			(unsigned long long)result->records,
			(unsigned long long)result->still_allowed,
			(unsigned long long)result->still_denied,
			(unsigned long long)result->newly_denied,
			(unsigned long long)result->newly_allowed,
			(unsigned long long)result->cannot_tell);
	for (size_t i = 0; r >= 0 && i < rp->tally.entries.len; i++)
		r = put_line(rp->tally.entries.items[i], list, out, err);
	if (r >= 0 && !json && rp->tally.dropped)
		r = kb_buf_printf(
			out, err, "  … and %llu more\n", (unsigned long long)rp->tally.dropped);
	if (r < 0 || !json) {
		json_decref(list);
		return r;
	}
	root = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "records",
		(json_int_t)result->records, "still_allowed", (json_int_t)result->still_allowed,
		"still_denied", (json_int_t)result->still_denied, "newly_denied",
		(json_int_t)result->newly_denied, "newly_allowed",
		(json_int_t)result->newly_allowed, "cannot_tell", (json_int_t)result->cannot_tell,
		"changes", list);
	text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
	json_decref(root);
	r = text ? kb_buf_printf(out, err, "%s\n", text) : kb_err_nomem(err);
	free(text);
	return r;
}

int kb_bundle_replay(const struct kb_bundle *bundle, const struct kb_observed_source *source,
	bool json, struct kb_buf *out, struct kb_replay_result *ret, struct kb_err *err)
{
	struct replayer rp = {.bundle = bundle, .result = ret};
	struct kb_observed seen;
	int r;

	*ret = (struct kb_replay_result){0};
	kb_arena_init(&rp.arena, REPLAY_LINES);
	r = kb_tally_init(&rp.tally, &rp.arena) < 0 ? kb_err_nomem(err) : 0;
	while (r >= 0) {
		seen = (struct kb_observed){.syscall = -1};
		r = source->next(source->arg, &seen, err);
		if (r <= 0)
			break;
		count(&rp, &seen);
	}
	if (r >= 0)
		r = render(&rp, json, out, err);
	kb_arena_finish(&rp.arena);
	return r;
}
