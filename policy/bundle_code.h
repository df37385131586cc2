/* What the two directions of a bundle's encoding share: bundle.c, bundle_secret.c. */
#pragma once

#include "policy/bundle.h"
#include "proto/bundle.pb-c.h"

/* ---- Writing --------------------------------------------------------------------------------- */

/* protobuf-c wants arrays of pointers to messages; all of them live in one arena until packed. */
struct kb_bundle_writer {
	struct kb_arena arena;
	bool failed;
};
void *kb_wr_alloc(struct kb_bundle_writer *wr, size_t size); /* NULL: failed is set */

/* Fill a repeated message field: msgs becomes n messages, each initialised and handed to fill(). */
#define WRITE_LIST(wr, msg, n_field, field, type, init, vec, fill)                                 \
	do {                                                                                       \
		(msg)->field = kb_wr_alloc(wr, (vec)->len * sizeof(*(msg)->field));                \
		for (size_t i_ = 0; !(wr)->failed && i_ < (vec)->len; i_++) {                      \
			type *item_ = kb_wr_alloc(wr, sizeof(*item_));                             \
			if (!item_)                                                                \
				break;                                                             \
			init(item_);                                                               \
			fill(wr, item_, &(vec)->items[i_]);                                        \
			(msg)->field[i_] = item_;                                                  \
			(msg)->n_field = i_ + 1;                                                   \
		}                                                                                  \
	} while (0)

#define WRITE_RULE(msg, index) ((msg)->has_rule = (index) != KB_RULE_NONE, (msg)->rule = (index))

void kb_write_secret(
	struct kb_bundle_writer *wr, Kb__BundleSecret *msg, const struct kb_secret *secret);

/* ---- Reading --------------------------------------------------------------------------------- */

struct kb_bundle_reader {
	struct kb_bundle *bundle;
	const char *why; /* what is wrong; the first reason stays */
	bool nomem;
};

/* Both return false. */
bool kb_rd_bad(struct kb_bundle_reader *rd, const char *why);
bool kb_rd_nomem(struct kb_bundle_reader *rd);
/* A copy in the bundle; NULL after one of the above. */
const char *kb_rd_text(struct kb_bundle_reader *rd, const char *text);
bool kb_rd_index(struct kb_bundle_reader *rd, bool has, uint32_t value, uint32_t *ret);

/* Read a repeated message field into a vector of the bundle. */
#define READ_LIST(rd, vec, n, msgs, max, read)                                                     \
	({                                                                                         \
		bool ok_ = (n) <= (max) || kb_rd_bad(rd, "too many " #msgs);                       \
		for (size_t i_ = 0; ok_ && i_ < (n); i_++) {                                       \
			__typeof__((vec)->items) slot_ = KB_ARENA_PUSH(&(rd)->bundle->arena, vec); \
			ok_ = slot_ ? read(rd, (msgs)[i_], slot_) : kb_rd_nomem(rd);               \
		}                                                                                  \
		ok_;                                                                               \
	})

bool kb_read_secret(
	struct kb_bundle_reader *rd, const Kb__BundleSecret *msg, struct kb_secret *ret);
