/* One recorded event under a policy: the fast path of replay and learn. Private to policy/. */
#pragma once

#include "policy/memo.h"

enum kb_judged {
	KB_JUDGED_ALLOWED,
	KB_JUDGED_DENIED,
	KB_JUDGED_UNKNOWN, /* the record lacks an argument that the policy looks at */
	KB_JUDGED_SKIP,	   /* nothing a policy decides on */
};

struct kb_judgement {
	enum kb_judged judged;
	struct kb_verdict verdict;
	struct kb_question question;
	/* denied: because of the path, the second path, the address; else of the call itself */
	bool by_path, by_path2, by_address;
	/* allowed, and the path, the second path lies in a tree of the session's own */
	bool own, own2;
};

/* memo may be NULL. */
void kb_judge(struct kb_memo *memo, const struct kb_bundle *bundle, const struct kb_observed *seen,
	struct kb_judgement *ret);
/* Did the session have the machine's own file at this path? was: the policy it ran under, NULL when
 * that is not known; then its workspace is taken to have been the machine's. */
bool kb_judge_had(struct kb_memo *memo, const struct kb_bundle *was, const struct kb_observed *seen,
	unsigned access, const char *path);
/* The name that the event made, as far as it is known; or NULL. */
const char *kb_observed_made(const struct kb_observed *seen);
/* Denied by a pattern that covers only what was there when the session started, and this was not:
 * made has the names that the session made. */
struct kb_made;
bool kb_judge_made_since(const struct kb_bundle *bundle, const struct kb_observed *seen,
	const struct kb_judgement *judgement, const struct kb_made *made);
/* "open /path (write)", "connect host:443", "ptrace": what happened, for people. Not escaped. */
void kb_observed_text(
	const struct kb_observed *seen, const struct kb_question *question, char *to, size_t size);
