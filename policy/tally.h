/* Counts by text, in order of first appearance: what replay and learn print. Private to policy/. */
#pragma once

#include "policy/arena.h"

#include <stdbool.h>
#include <stdint.h>

#define KB_TALLY_MAX 20000 /* distinct texts that are kept; more are only counted */

struct kb_tally_entry {
	const char *text;
	uint64_t count;
	unsigned bits; /* the caller's */
	struct kb_tally_entry *next;
};

struct kb_tally {
	struct kb_arena *arena;
	struct {
		struct kb_tally_entry **items;
		size_t len, cap;
	} entries;
	struct kb_tally_entry **buckets;
	uint64_t dropped; /* counts of texts that were not kept */
};

int kb_tally_init(struct kb_tally *tally, struct kb_arena *arena);
/* The entry of a text, or NULL. */
struct kb_tally_entry *kb_tally_find(const struct kb_tally *tally, const char *text);
/* Adds count; bits are or'ed in. The entry, or NULL when there is no more room. */
struct kb_tally_entry *kb_tally_add(
	struct kb_tally *tally, const char *text, uint64_t count, unsigned bits);
/* The same without a count, also when the caller has taken the text's entry off the list. */
struct kb_tally_entry *kb_tally_put(struct kb_tally *tally, const char *text, unsigned bits);
