#include "policy/made.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_CAP 1024u /* a power of two */

/* FNV-1a, one byte further; never the empty slot's value. */
static uint64_t step(uint64_t h, char c)
{
	return (h ^ (uint8_t)c) * 1099511628211u;
}

static uint64_t key(uint64_t h)
{
	return h ? h : 1;
}

#define HASH_START 14695981039346656037u

static bool find(const struct kb_made *made, uint64_t k, size_t *ret)
{
	size_t at = (size_t)(k ^ k >> 32) & (made->cap - 1);

	while (made->slots[at] && made->slots[at] != k)
		at = (at + 1) & (made->cap - 1);
	*ret = at;
	return made->slots[at] == k;
}

/* False: no room for more. */
static bool grow(struct kb_made *made)
{
	struct kb_made bigger = {.cap = made->cap ? made->cap * 2 : FIRST_CAP, .n = made->n};
	size_t at;

	if (bigger.cap / 2 > KB_MADE_MAX)
		return false;
	bigger.slots = calloc(bigger.cap, sizeof(*bigger.slots));
	if (!bigger.slots)
		return false;
	for (size_t i = 0; i < made->cap; i++)
		if (made->slots[i] && !find(&bigger, made->slots[i], &at))
			bigger.slots[at] = made->slots[i];
	free(made->slots);
	*made = bigger;
	return true;
}

void kb_made_finish(struct kb_made *made)
{
	free(made->slots);
	*made = (struct kb_made){0};
}

void kb_made_clear(struct kb_made *made)
{
	if (made->n)
		memset(made->slots, 0, made->cap * sizeof(*made->slots));
	made->n = 0;
	made->full = false;
}

void kb_made_add(struct kb_made *made, const char *path)
{
	uint64_t h = HASH_START;
	size_t at;

	if (made->full || (made->n * 2 >= made->cap && !grow(made))) {
		made->full = true;
		return;
	}
	for (; *path; path++)
		h = step(h, *path);
	if (find(made, key(h), &at))
		return;
	made->slots[at] = key(h);
	made->n++;
}

bool kb_made_have(const struct kb_made *made, const char *path)
{
	uint64_t h = HASH_START;
	size_t at;

	if (made->full)
		return true;
	if (!made->n)
		return false;
	for (const char *p = path; *p; p++) {
		if (*p == '/' && p > path && find(made, key(h), &at))
			return true;
		h = step(h, *p);
	}
	return find(made, key(h), &at);
}
