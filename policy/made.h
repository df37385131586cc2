/* The names a session made: a set of paths, by hash. Private to policy/. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KB_MADE_MAX (4u << 20) /* past it, every name counts as made */

/* Zero at first. */
struct kb_made {
	uint64_t *slots; /* 0: empty */
	size_t cap, n;
	bool full;
};
void kb_made_finish(struct kb_made *made);
/* Forget them, keeping the memory. */
void kb_made_clear(struct kb_made *made);
void kb_made_add(struct kb_made *made, const char *path);
/* Was the path made, or a directory it is in? */
bool kb_made_have(const struct kb_made *made, const char *path);
