/* What a replay knows. Private to policy/replay*.c. */
#pragma once

#include "policy/judge.h"
#include "policy/made.h"
#include "policy/tally.h"
#include "supervisor/base/str.h"

enum kb_change {
	KB_STILL_ALLOWED,
	KB_STILL_DENIED,
	KB_NEWLY_DENIED,
	KB_NEWLY_ALLOWED,
	KB_CANNOT_TELL,
	KB_CHANGES,
	KB_CHANGE_SKIPPED = KB_CHANGES, /* nothing a policy decides on */
};

struct kb_replay {
	struct kb_memo *memo;
	struct kb_arena arena;
	struct kb_tally changes[KB_CHANGES]; /* by change: "SESSION\x1fRULE\x1fEVENT" */
	struct kb_replay_result result;
	int64_t started;	       /* ns, monotonic */
	char session[KB_NAME_MAX + 1]; /* of the last event */
	uint64_t seq;
	struct kb_made made; /* names, by the session */
	bool newly_denied;   /* the session has such */
};
