#include "policy/tally.h"

#include <string.h>

#define BUCKETS 8192 /* a power of two */

int kb_tally_init(struct kb_tally *tally, struct kb_arena *arena)
{
	*tally = (struct kb_tally){.arena = arena};
	tally->buckets = kb_arena_alloc(arena, BUCKETS * sizeof(*tally->buckets));
	return tally->buckets ? 0 : -1;
}

static uint32_t hash(const char *text)
{
	uint32_t h = 2166136261u;

	for (; *text; text++)
		h = (h ^ (uint8_t)*text) * 16777619u;
	return h;
}

struct kb_tally_entry *kb_tally_add(
	struct kb_tally *tally, const char *text, uint64_t count, unsigned bits)
{
	struct kb_tally_entry **bucket = &tally->buckets[hash(text) & (BUCKETS - 1)];
	struct kb_tally_entry *entry = *bucket, **slot;

	while (entry && strcmp(entry->text, text) != 0)
		entry = entry->next;
	if (!entry) {
		entry = tally->entries.len < KB_TALLY_MAX
				? kb_arena_alloc(tally->arena, sizeof(*entry))
				: NULL;
		slot = entry ? KB_ARENA_PUSH(tally->arena, &tally->entries) : NULL;
		if (!slot || !(entry->text = kb_arena_strndup(tally->arena, text, strlen(text)))) {
			tally->entries.len -= slot != NULL;
			tally->dropped += count;
			return NULL;
		}
		*slot = entry;
		entry->next = *bucket;
		*bucket = entry;
	}
	entry->count += count;
	entry->bits |= bits;
	return entry;
}
