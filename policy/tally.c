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

static struct kb_tally_entry **bucket_of(const struct kb_tally *tally, const char *text)
{
	return &tally->buckets[hash(text) & (BUCKETS - 1)];
}

static struct kb_tally_entry *find(struct kb_tally_entry *entry, const char *text)
{
	while (entry && strcmp(entry->text, text) != 0)
		entry = entry->next;
	return entry;
}

struct kb_tally_entry *kb_tally_find(const struct kb_tally *tally, const char *text)
{
	return find(*bucket_of(tally, text), text);
}

/* At the end of the list; false when there is no more room. */
static bool list(struct kb_tally *tally, struct kb_tally_entry *entry)
{
	struct kb_tally_entry **slot = tally->entries.len < KB_TALLY_MAX
					       ? KB_ARENA_PUSH(tally->arena, &tally->entries)
					       : NULL;

	if (slot)
		*slot = entry;
	return slot != NULL;
}

static struct kb_tally_entry *make(struct kb_tally *tally, const char *text)
{
	struct kb_tally_entry **bucket = bucket_of(tally, text);
	struct kb_tally_entry *entry = tally->entries.len < KB_TALLY_MAX
					       ? kb_arena_alloc(tally->arena, sizeof(*entry))
					       : NULL;

	if (!entry || !(entry->text = kb_arena_strndup(tally->arena, text, strlen(text))) ||
		!list(tally, entry))
		return NULL;
	entry->next = *bucket;
	*bucket = entry;
	return entry;
}

struct kb_tally_entry *kb_tally_add(
	struct kb_tally *tally, const char *text, uint64_t count, unsigned bits)
{
	struct kb_tally_entry *entry = kb_tally_find(tally, text);

	if (!entry)
		entry = make(tally, text);
	if (!entry) {
		tally->dropped += count;
		return NULL;
	}
	entry->count += count;
	entry->bits |= bits;
	return entry;
}

struct kb_tally_entry *kb_tally_put(struct kb_tally *tally, const char *text, unsigned bits)
{
	struct kb_tally_entry *entry = kb_tally_find(tally, text);
	bool listed = false;

	for (size_t i = 0; entry && !listed && i < tally->entries.len; i++)
		listed = tally->entries.items[i] == entry;
	if (!entry)
		return kb_tally_add(tally, text, 0, bits);
	if (!listed && !list(tally, entry))
		return NULL;
	entry->bits |= bits;
	return entry;
}
