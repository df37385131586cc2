#include "index.h"

#include <string.h>

struct kb_index_slot {
	uint32_t number; /* 1 + number; 0: free */
	uint32_t hash;
};

/* FNV-1a: these tables live for one report, so an attacker gains little by colliding them, but
 * the work is bounded by the caller's bounds all the same. */
static uint32_t hash_of(struct kb_bytes key)
{
	uint64_t h = 14695981039346656037u;

	for (size_t i = 0; i < key.len; i++)
		h = (h ^ key.data[i]) * 1099511628211u;
	return (uint32_t)(h ^ h >> 32);
}

static bool same(struct kb_bytes a, struct kb_bytes b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static bool grow(struct kb_index *index)
{
	uint32_t cap = index->cap ? 2 * index->cap : 64, at;
	struct kb_index_slot *slots = calloc(cap, sizeof(*slots));

	if (!slots)
		return false;
	for (uint32_t i = 0; i < index->cap; i++) {
		if (!index->slots[i].number)
			continue;
		at = index->slots[i].hash & (cap - 1);
		while (slots[at].number)
			at = (at + 1) & (cap - 1);
		slots[at] = index->slots[i];
	}
	free(index->slots);
	index->slots = slots;
	index->cap = cap;
	return true;
}

/* The slot of a key, or the free one where it belongs. */
static struct kb_index_slot *probe(const struct kb_index *index, struct kb_bytes key, uint32_t hash,
	kb_index_key keep, const void *arg)
{
	uint32_t mask = index->cap - 1, at = hash & mask;

	for (; index->slots[at].number; at = (at + 1) & mask)
		if (index->slots[at].hash == hash &&
			same(keep(arg, index->slots[at].number - 1), key))
			break;
	return &index->slots[at];
}

uint32_t kb_index_put(struct kb_index *index, struct kb_bytes key, kb_index_key keep,
	const void *arg, bool *ret_new)
{
	uint32_t hash = hash_of(key);
	struct kb_index_slot *slot;

	if (2 * (index->n + 1) > index->cap && !grow(index))
		return KB_INDEX_NOMEM;
	slot = probe(index, key, hash, keep, arg);
	*ret_new = slot->number == 0;
	if (*ret_new)
		*slot = (struct kb_index_slot){.number = ++index->n, .hash = hash};
	return slot->number - 1;
}

uint32_t kb_index_get(
	const struct kb_index *index, struct kb_bytes key, kb_index_key keep, const void *arg)
{
	if (!index->cap)
		return KB_INDEX_NOMEM;
	/* A free slot has number 0, so this wraps to KB_INDEX_NOMEM. */
	return probe(index, key, hash_of(key), keep, arg)->number - 1;
}

void kb_index_finish(struct kb_index *index)
{
	free(index->slots);
	*index = (struct kb_index){0};
}
