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
};

/* memo may be NULL. */
void kb_judge(struct kb_memo *memo, const struct kb_bundle *bundle, const struct kb_observed *seen,
	struct kb_judgement *ret);
/* "open /path (write)", "connect host:443", "ptrace": what happened, for people. Not escaped. */
void kb_observed_text(
	const struct kb_observed *seen, const struct kb_question *question, char *to, size_t size);
