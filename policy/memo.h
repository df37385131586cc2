/* What was lately decided about paths: a record of a build asks the same few thousand questions a
 * million times. A cache of fixed size in which a new answer takes the place of an old one. Private
 * to policy/. */
#pragma once

#include "policy/ask.h"

struct kb_memo;
struct kb_memo *kb_memo_create(void); /* NULL: no memory */
void kb_memo_destroy(struct kb_memo *memo);

/* The mechanisms and the rules together: the verdict on a path, *ret_allowed what comes of it. With
 * memo NULL everything is worked out anew. Bundles are told apart by address: they must outlive the
 * memo. */
struct kb_verdict kb_memo_path(struct kb_memo *memo, const struct kb_bundle *bundle,
	unsigned access, const char *path, bool *ret_allowed);
