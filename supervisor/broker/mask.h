/* Values that must not come back: wherever one of them appears in a stream of bytes, asterisks of
 * its length go in its place, also where it is cut in two. Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "supervisor/base/buf.h"

#define KB_MASK_MIN    8 /* shorter values stand in too much that has nothing to do with them */
#define KB_MASK_MAX    (16u << 10) /* bytes of one value */
#define KB_MASK_VALUES 128

struct kb_mask_value {
	const uint8_t *at; /* the caller's, as long as the mask */
	size_t len;
};

struct kb_mask {
	struct kb_mask_value values[KB_MASK_VALUES];
	size_t n, longest;
	struct kb_buf held; /* the end of what came: it may be the beginning of a value */
};

void kb_mask_init(struct kb_mask *mask);
void kb_mask_finish(struct kb_mask *mask); /* wipes what it holds */
/* Too short, too long, or one too many: it is left out. */
void kb_mask_add(struct kb_mask *mask, const uint8_t *at, size_t len);
/* Appends to out what can be told of the bytes so far; less than the longest value is held back. */
int kb_mask_feed(struct kb_mask *mask, const uint8_t *data, size_t len, struct kb_buf *out,
	struct kb_err *err);
/* No more comes: the rest. */
int kb_mask_end(struct kb_mask *mask, struct kb_buf *out, struct kb_err *err);
