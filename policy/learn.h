/* What a learner knows. Private to policy/learn*.c. */
#pragma once

#include "policy/judge.h"
#include "policy/made.h"
#include "policy/tally.h"
#include "supervisor/base/str.h"

#define KB_LEARN_TEXT_MAX 8800 /* two paths and a word */

#define KB_NEED_OVERRIDE 8u /* beside KB_FS_*: the base denies it in so many words */

struct kb_learner {
	struct kb_learn_options opts;
	const char *home, *workspace;
	struct kb_memo *memo;
	struct kb_arena arena;
	struct kb_tally paths;	       /* bits: KB_FS_*, KB_NEED_OVERRIDE */
	struct kb_tally hosts;	       /* "connect host:443" */
	struct kb_tally calls;	       /* names */
	struct kb_tally denied;	       /* texts */
	struct kb_tally withheld;      /* texts: needed, but not for a learner to give */
	struct kb_tally unseen;	       /* lines of the sessions' policies that no record shows */
	struct kb_made made;	       /* by the session whose events come now */
	char session[KB_NAME_MAX + 1]; /* of the last event */
	uint64_t seq;
	uint64_t *used; /* by rule of the base: records it allowed */
	uint64_t records, covered;
};

/* Directories take the place of their entries where enough of these were used. 0, or -1 without
 * memory. (learn_paths.c) */
int kb_learn_generalise(struct kb_learner *ln);
/* Rules that another rule of the list gives as well are dropped. (learn_paths.c) */
void kb_learn_prune(struct kb_learner *ln);
/* Credentials: nothing in them is ever given. */
bool kb_learn_guarded(const struct kb_learner *ln, const char *path);
/* Too much to be given as a whole: a place that must not be, or one that leads to it. */
bool kb_learn_too_wide(const struct kb_learner *ln, const char *dir);
/* The directory a path is in; false when that is the root. */
bool kb_learn_parent(const char *path, char *ret, size_t size);
