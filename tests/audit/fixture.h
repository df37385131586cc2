/* Stores, sessions and records for the tests of audit/. Everything fails loudly by abort(). */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "audit/audit.h"

/* A fresh directory under $TMPDIR, and its end. */
char *fix_dir(void);
void fix_dir_remove(char *dir);

/* Numbers below 2^31 that are the same in every run. */
void fix_seed(uint64_t seed);
uint32_t fix_random(void);

/* A session of this name in the store; four rules: base.policy:14 (fs deny), :20, :21, :22. */
void fix_begin(struct kb_store *store, const char *name, uint8_t ret_id[KB_ULID_SIZE]);
void fix_begin_as(struct kb_store *store, const char *name, const uint8_t id[KB_ULID_SIZE]);
#define FIX_START 1764000000000000000ull /* ns: 2025-11-24 16:00:00 UTC */
/* Seconds into the fixture's session as its records' time. */
uint64_t fix_time(double seconds);

static inline struct kb_bytes fix_bytes(const char *text)
{
	return (struct kb_bytes){(const uint8_t *)text, text ? __builtin_strlen(text) : 0};
}
/* A record with the defaults: an allowed, unknown-outcome call of the notify lane. */
struct kb_record fix_record(enum kb_event event, double seconds, uint32_t pid);
/* Append one record as its own block. */
void fix_append(struct kb_store *store, const uint8_t *id, const struct kb_record *record);
/* A small story: make runs gcc and rm; cat is denied a key; curl is refused and allowed a host.
 * Fifteen records, ended with exit 0. */
void fix_story(struct kb_store *store, const uint8_t *id);
void fix_story_records(struct kb_store *store, const uint8_t *id); /* without the end */

/* What a reader verb printed. */
char *fix_query(const char *dir, const char *sessions, const char *expr, bool json);
char *fix_tree(const char *dir, const char *session, uint32_t around, bool json);
int fix_verify(const char *dir, const char *sessions, char **ret_out);
struct kb_view fix_view(char **text, size_t *len); /* its FILE is closed by fix_view_end */
void fix_view_end(struct kb_view *view);
/* The session numbers ("1 2 3") of the records an expression finds. */
char *fix_seqs(const char *dir, const char *expr);
