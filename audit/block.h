/* Private to audit/: reading packed blocks one record at a time. */
#pragma once

#include "audit/audit.h"
#include "audit/wire.h"

/* What many records of a block share; see Shape in record.proto. Compared byte by byte, so it has
 * no padding. */
struct kb_shape {
	uint32_t event, lane, arch, decision, outcome, rule, trust, family, port;
	int32_t syscall, errnum;
	uint32_t flags, mode;
	uint32_t has;	  /* KB_SHAPE_* */
	uint32_t created; /* 0 or 1 */
};
#define KB_SHAPE_FLAGS 1u
#define KB_SHAPE_MODE  2u

/* Walks a block. Zero at first; may be used for one block after the other, keeping its memory. The
 * record's byte strings point into the block, its argv into the iterator: both live until the next
 * call. */
struct kb_block_iter {
	struct kb_wire wire;
	struct kb_bytes *strings; /* [0] is the absent string */
	uint32_t n_strings, strings_cap;
	struct kb_shape *shapes;
	uint32_t n_shapes, shapes_cap;
	struct kb_bytes *argv;
	uint32_t argv_cap;
	uint64_t time;
	uint32_t pid;
	uint32_t shape;	   /* of the last record; with n_shapes it lets a caller cache by shape */
	uint32_t path_ref; /* number of the last record's path in the block, 0: none */
	uint32_t count;	   /* records so far */
};
int kb_block_iter_begin(
	struct kb_block_iter *iter, const uint8_t *data, size_t len, struct kb_err *err);
/* 1: *ret is the next record; 0: the end; negative: the block is malformed. */
int kb_block_iter_next(struct kb_block_iter *iter, struct kb_record *ret, struct kb_err *err);
void kb_block_iter_finish(struct kb_block_iter *iter);
