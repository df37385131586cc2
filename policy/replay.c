/* `policy replay`: recorded events against another policy.
 *
 * A record says what happened; both policies, that of the session and the other, say what the rules
 * make of it. Only where they differ can anything change: what the session met for another reason
 * (a limit, a file that was not there, an address the name did not fit) it would meet again.
 */
#include "policy/replay.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/base/util.h"

#define TEXT_MAX     8800	  /* two paths and a word */
#define REPLAY_LINES (128u << 20) /* bytes of distinct lines */

/* A file that was not there before would not be there either. */
static bool harmless(const struct kb_observed *seen, const struct kb_judgement *judgement)
{
	return seen->failed && (seen->errnum == ENOENT || seen->errnum == ENOTDIR) &&
	       judgement->verdict.by_default;
}

/* Does the policy the session ran under say the same? */
static bool same_word(struct kb_replay *rp, const struct kb_bundle *was,
	const struct kb_observed *seen, enum kb_judged judged)
{
	struct kb_judgement then;

	if (!was)
		return false;
	kb_judge(rp->memo, was, seen, &then);
	return then.judged == judged && then.verdict.action != KB_ASK;
}

/* Was it the machine's, and would be looked for in a tree that begins empty? What the session makes
 * by itself it would make there, too. */
static bool left_behind(struct kb_replay *rp, const struct kb_bundle *was,
	const struct kb_observed *seen, const struct kb_judgement *judgement)
{
	return judgement->judged == KB_JUDGED_ALLOWED && judgement->own && !seen->failed &&
	       !kb_observed_made(seen) && !(seen->open && (seen->flags & O_CREAT)) &&
	       seen->decision == KB_OBSERVED_ALLOWED &&
	       kb_judge_had(rp->memo, was, seen, judgement->question.access, seen->path) &&
	       !kb_made_have(&rp->made, seen->path);
}

static enum kb_change change_of(struct kb_replay *rp, const struct kb_bundle *bundle,
	const struct kb_bundle *was, const struct kb_observed *seen,
	const struct kb_judgement *judgement)
{
	bool asked = seen->decision == KB_OBSERVED_ASKED;
	bool allowed = seen->decision == KB_OBSERVED_ALLOWED || (asked && !seen->failed);
	enum kb_change still = allowed ? KB_STILL_ALLOWED : KB_STILL_DENIED;

	if (judgement->judged == KB_JUDGED_SKIP)
		return KB_CHANGE_SKIPPED;
	if (judgement->judged == KB_JUDGED_UNKNOWN)
		return KB_CANNOT_TELL;
	/* Somebody would be asked; who was asked before would answer the same. */
	if (judgement->verdict.action == KB_ASK)
		return asked ? still : KB_CANNOT_TELL;
	if ((judgement->judged == KB_JUDGED_ALLOWED) == allowed)
		return still;
	if (allowed && (harmless(seen, judgement) ||
			       kb_judge_made_since(bundle, seen, judgement, &rp->made)))
		return still;
	if (same_word(rp, was, seen, judgement->judged))
		return still;
	return allowed ? KB_NEWLY_DENIED : KB_NEWLY_ALLOWED;
}

static void put_down(struct kb_replay *rp, const struct kb_bundle *bundle,
	const struct kb_observed *seen, const struct kb_judgement *judgement, enum kb_change change)
{
	char text[TEXT_MAX], line[TEXT_MAX + 256];
	const char *id = judgement->verdict.rule < bundle->rules.len
				 ? bundle->rules.items[judgement->verdict.rule].id
				 : "";

	kb_observed_text(seen, &judgement->question, text, sizeof(text));
	/* The fields end with \x1f; the text, which is foreign, comes last. */
	snprintf(line, sizeof(line), "%s\x1f%.*s\x1f%s", rp->session, (int)strcspn(id, "#"), id,
		text);
	kb_tally_add(&rp->changes[change], line, seen->count ? seen->count : 1, 0);
}

static void begin_session(struct kb_replay *rp, const char *name)
{
	snprintf(rp->session, sizeof(rp->session), "%s", name);
	rp->result.sessions++;
	rp->newly_denied = false;
	kb_made_clear(&rp->made);
}

void kb_replay_add(struct kb_replay *rp, const struct kb_bundle *bundle,
	const struct kb_bundle *was, const struct kb_observed *seen)
{
	struct kb_replay_result *result = &rp->result;
	uint64_t *const counts[] = {&result->still_allowed, &result->still_denied,
		&result->newly_denied, &result->newly_allowed, &result->cannot_tell};
	struct kb_judgement judgement;
	enum kb_change change;

	/* Names may be used again, numbers within a session go up. */
	if (!result->sessions || seen->seq <= rp->seq ||
		strcmp(rp->session, seen->session ? seen->session : "") != 0)
		begin_session(rp, seen->session ? seen->session : "");
	rp->seq = seen->seq;
	result->records++;
	kb_judge(rp->memo, bundle, seen, &judgement);
	change = left_behind(rp, was, seen, &judgement)
			 ? KB_NEWLY_DENIED
			 : change_of(rp, bundle, was, seen, &judgement);
	if (kb_observed_made(seen))
		kb_made_add(&rp->made, kb_observed_made(seen));
	if (change == KB_CHANGE_SKIPPED)
		return;
	*counts[change] += seen->count ? seen->count : 1;
	if (change < KB_NEWLY_DENIED)
		return;
	if (change == KB_NEWLY_DENIED && !rp->newly_denied) {
		rp->newly_denied = true;
		result->sessions_newly_denied++;
	}
	put_down(rp, bundle, seen, &judgement, change);
}

/* ---- Life ------------------------------------------------------------------------------------ */

int kb_replay_create(struct kb_replay **ret, struct kb_err *err)
{
	struct kb_replay *rp = calloc(1, sizeof(*rp));
	bool ok;

	if (!rp)
		return kb_err_nomem(err);
	rp->started = kb_now_mono();
	kb_arena_init(&rp->arena, REPLAY_LINES);
	rp->memo = kb_memo_create();
	ok = rp->memo != NULL;
	for (int i = KB_NEWLY_DENIED; ok && i < KB_CHANGES; i++)
		ok = kb_tally_init(&rp->changes[i], &rp->arena) == 0;
	if (!ok) {
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
	kb_made_finish(&rp->made);
	kb_arena_finish(&rp->arena);
	free(rp);
}
