/* `policy learn`: the smallest policy that allows what was seen, on top of a base.
 *
 * What the base allows needs no rule. Of the rest, denied events become comments; paths become fs
 * and exec rules (learn_paths.c makes few of many); hosts become net rules by name; calls become
 * syscall rules. Who made or removed a name needs its directory: no mechanism gives less. What must
 * not be given as a whole, and what holds credentials, is withheld and said so in a comment.
 */
#include "policy/learn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

#define LEARN_MEMORY (256u << 20)

static uint64_t times(const struct kb_observed *seen)
{
	return seen->count ? seen->count : 1;
}

static void put_down(
	struct kb_tally *tally, const struct kb_observed *seen, const struct kb_question *q)
{
	char text[KB_LEARN_TEXT_MAX];

	kb_observed_text(seen, q, text, sizeof(text));
	kb_tally_add(tally, text, times(seen), 0);
}

/* A path in another session's workspace or home is one in ours. */
static const char *here(const struct kb_learner *ln, const struct kb_observed *seen,
	const char *path, char moved[KB_LEARN_TEXT_MAX])
{
	const struct {
		const char *theirs, *ours;
	} places[] = {{seen->workspace, ln->workspace}, {seen->home, ln->home}};

	for (size_t i = 0; path && i < KB_ARRAY_LEN(places); i++) {
		const char *theirs = places[i].theirs;

		if (!theirs || !theirs[0] || !theirs[1] || !kb_path_beneath(theirs, path))
			continue;
		if (!strcmp(theirs, places[i].ours))
			return path;
		snprintf(moved, KB_LEARN_TEXT_MAX, "%s%s", places[i].ours, path + strlen(theirs));
		return moved;
	}
	return path;
}

/* The closest directory that was there before the session made the path: the only thing a rule can
 * name when it starts. False: there is none. */
static bool was_there(const struct kb_learner *ln, const char **path, char room[KB_LEARN_TEXT_MAX])
{
	char parent[KB_LEARN_TEXT_MAX];

	while (kb_made_have(&ln->made, *path)) {
		if (!kb_learn_parent(*path, parent, sizeof(parent)))
			return false;
		memcpy(room, parent, strlen(parent) + 1);
		*path = room;
	}
	return true;
}

static void need_path(struct kb_learner *ln, const struct kb_observed *seen,
	const struct kb_judgement *judgement, unsigned access, const char *path)
{
	unsigned bits = judgement->verdict.by_default ? 0 : KB_NEED_OVERRIDE;
	char parent[KB_LEARN_TEXT_MAX], room[KB_LEARN_TEXT_MAX];

	if (access & KB_FS_EXEC) /* it is opened too, and so is its interpreter's script */
		access |= KB_FS_READ;
	if ((access & KB_FS_WRITE) && seen->names)
		path = kb_learn_parent(path, parent, sizeof(parent)) ? parent : "/";
	if (!was_there(ln, &path, room))
		return;
	if (kb_tally_find(&ln->paths, path)) { /* looked at before */
		kb_tally_add(&ln->paths, path, times(seen), access | bits);
		return;
	}
	/* What reads as a pattern or a variable cannot be said as a plain path. */
	if (kb_learn_guarded(ln, path) || kb_learn_too_wide(ln, path) || kb_path_is_glob(path) ||
		strstr(path, "${"))
		put_down(&ln->withheld, seen, &judgement->question);
	else
		kb_tally_add(&ln->paths, path, times(seen), access | bits);
}

/* Nothing was there, and nothing speaks of it: it need not be given. */
static bool idle(const struct kb_observed *seen, const struct kb_judgement *judgement)
{
	return seen->failed && judgement->verdict.by_default &&
	       (judgement->by_path || judgement->by_path2);
}

static void need_host(
	struct kb_learner *ln, const struct kb_observed *seen, const struct kb_question *q)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789.-_:[] ";
	char text[KB_LEARN_TEXT_MAX];

	kb_observed_text(seen, q, text, sizeof(text));
	/* A host that the base gives for other requests is not given whole. */
	kb_tally_add(q->request || text[strspn(text, plain)] ? &ln->withheld : &ln->hosts, text,
		times(seen), 0);
}

/* An event, as it would be here, and as it was. */
struct event {
	struct kb_observed seen;
	const struct kb_observed *given;
	const struct kb_bundle *was;
};

/* What the base says of it. A tree of the session's own in place of the machine's does not give
 * what was used. */
static void judge(struct kb_learner *ln, const struct event *ev, struct kb_judgement *ret)
{
	const struct kb_observed *given = ev->given;

	kb_judge(ln->memo, ln->opts.bundle, &ev->seen, ret);
	if (ret->judged != KB_JUDGED_ALLOWED)
		return;
	ret->by_path = ret->own && ev->seen.path &&
		       kb_judge_had(ln->memo, ev->was, given, ret->question.access, given->path);
	ret->by_path2 = !ret->by_path && ret->own2 && ev->seen.path2 &&
			kb_judge_had(ln->memo, ev->was, given, KB_FS_WRITE, given->path2);
	if (!ret->by_path && !ret->by_path2)
		return;
	ret->judged = KB_JUDGED_DENIED;
	ret->verdict = (struct kb_verdict){.by_default = true, .rule = KB_RULE_NONE};
}

/* What the base refuses becomes a need; then the rest of the event is looked at. */
static void need(struct kb_learner *ln, struct event *ev, struct kb_judgement *judgement)
{
	const struct kb_question *q = &judgement->question;
	struct kb_observed *seen = &ev->seen;

	if (judgement->by_address) {
		need_host(ln, seen, q);
		return;
	}
	if (judgement->by_path) {
		need_path(ln, seen, judgement, q->access, q->path);
		seen->path = NULL;
	} else if (judgement->by_path2) {
		need_path(ln, seen, judgement, KB_FS_WRITE, q->path2);
		return;
	} else {
		kb_tally_add(&ln->calls, kb_calls[q->call].name, times(seen), 0);
		seen->syscall = -1;
	}
	judge(ln, ev, judgement);
	if (judgement->judged == KB_JUDGED_DENIED && !idle(seen, judgement))
		need(ln, ev, judgement);
}

static void cover(struct kb_learner *ln, const struct kb_judgement *judgement, uint64_t n)
{
	ln->covered += n;
	if (judgement->verdict.rule < ln->opts.bundle->rules.len)
		ln->used[judgement->verdict.rule] += n;
}

/* ---- Sessions -------------------------------------------------------------------------------- */

/* Lines that no record shows, for a person to take over. */
static bool leaves_no_trace(const struct kb_rule *rule)
{
	static const char *const intents[] = {
		"env ", "secret ", "limit ", "fs keep ", "workspace hide ", "workspace protect "};

	for (size_t i = 0; i < KB_ARRAY_LEN(intents); i++)
		if (!strncmp(rule->text, intents[i], strlen(intents[i])))
			return true;
	return false;
}

static bool in_base(const struct kb_learner *ln, const char *id)
{
	for (size_t i = 0; i < ln->opts.bundle->rules.len; i++)
		if (!strcmp(ln->opts.bundle->rules.items[i].id, id))
			return true;
	return false;
}

static void begin_session(
	struct kb_learner *ln, const struct kb_bundle *was, const struct kb_observed *first)
{
	snprintf(ln->session, sizeof(ln->session), "%s", first->session ? first->session : "");
	kb_made_clear(&ln->made);
	for (size_t i = 0; was && i < was->rules.len; i++) {
		const struct kb_rule *rule = &was->rules.items[i];
		char text[KB_LEARN_TEXT_MAX];

		if (!leaves_no_trace(rule) || in_base(ln, rule->id))
			continue;
		snprintf(text, sizeof(text), "%.*s   %s", (int)strcspn(rule->id, "#"), rule->id,
			rule->text);
		kb_tally_put(&ln->unseen, text, 0);
	}
}

void kb_learner_add(
	struct kb_learner *ln, const struct kb_bundle *was, const struct kb_observed *given)
{
	struct event ev = {.seen = *given, .given = given, .was = was};
	char moved[KB_LEARN_TEXT_MAX], moved2[KB_LEARN_TEXT_MAX];
	struct kb_observed *seen = &ev.seen;
	struct kb_judgement judgement;

	/* Names may be used again, numbers within a session go up. */
	if (given->seq <= ln->seq || strcmp(ln->session, given->session ? given->session : ""))
		begin_session(ln, was, given);
	ln->seq = given->seq;
	seen->path = here(ln, given, seen->path, moved);
	seen->path2 = here(ln, given, seen->path2, moved2);
	seen->home = ln->home;
	judge(ln, &ev, &judgement);
	if (judgement.judged == KB_JUDGED_SKIP)
		return;
	ln->records += times(given);
	if (seen->decision != KB_OBSERVED_ALLOWED)
		put_down(&ln->denied, seen, &judgement.question);
	else if (judgement.judged == KB_JUDGED_DENIED && !idle(seen, &judgement))
		need(ln, &ev, &judgement);
	else
		cover(ln, &judgement, times(given));
	seen->path2 = here(ln, given, given->path2, moved2);
	if (kb_observed_made(given))
		kb_made_add(&ln->made,
			given->path2 ? seen->path2 : here(ln, given, given->path, moved));
}

/* ---- Life ------------------------------------------------------------------------------------ */

static int start(struct kb_learner *ln, struct kb_err *err)
{
	struct kb_tally *const tallies[] = {
		&ln->paths, &ln->hosts, &ln->calls, &ln->denied, &ln->withheld, &ln->unseen};

	for (size_t i = 0; i < KB_ARRAY_LEN(tallies); i++)
		if (kb_tally_init(tallies[i], &ln->arena) < 0)
			return kb_err_nomem(err);
	ln->used = kb_arena_alloc(&ln->arena, (ln->opts.bundle->rules.len + 1) * sizeof(*ln->used));
	ln->memo = kb_memo_create();
	return ln->used && ln->memo ? 0 : kb_err_nomem(err);
}

int kb_learner_create(
	const struct kb_learn_options *options, struct kb_learner **ret, struct kb_err *err)
{
	const struct kb_policy_options places = {
		.home = options->home, .workspace = options->workspace};
	struct kb_learner *ln;
	int r;

	if (!kb_name_valid(options->name))
		return kb_err_set(
			err, KB_ERR_USAGE, "'%s' cannot be a policy's name", options->name);
	ln = calloc(1, sizeof(*ln));
	if (!ln)
		return kb_err_nomem(err);
	ln->opts = *options;
	ln->home = kb_option_home(&places);
	ln->workspace = kb_option_workspace(&places);
	kb_arena_init(&ln->arena, LEARN_MEMORY);
	r = start(ln, err);
	if (r < 0) {
		kb_learner_destroy(ln);
		return r;
	}
	*ret = ln;
	return 0;
}

void kb_learner_destroy(struct kb_learner *ln)
{
	if (!ln)
		return;
	kb_memo_destroy(ln->memo);
	kb_made_finish(&ln->made);
	kb_arena_finish(&ln->arena);
	free(ln);
}
