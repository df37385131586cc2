/* Private to audit/: the index of a block.
 *
 * Beside each block the store keeps what can be said of all its records at once: the span of their
 * times, which events, decisions, outcomes and lanes there are, a Bloom filter (Bloom 1970) of
 * pids, paths with every directory above them, last components, programs, short names, hosts,
 * addresses, ports and rules; and the processes of its records as they were before it. A question
 * looks at these first, decodes only blocks that may hold an answer, and still knows whose records
 * they are.
 *
 * Everything here follows from the records alone, so verify makes it again and compares.
 */
#pragma once

#include "audit/block.h"
#include "audit/process.h"

/* As stored, little-endian: this, the Bloom filter, the processes. */
struct kb_filter_head {
	uint64_t min_time, max_time;
	uint64_t events;		    /* bit n: event n */
	uint8_t decisions, outcomes, lanes; /* the same */
	uint8_t bloom_log2;		    /* of its size in bytes */
	uint32_t count;			    /* records of the block */
	uint32_t n_procs;
	uint32_t zero;
};
struct kb_filter_proc {
	uint32_t pid, ppid;
	uint64_t started;
	uint64_t image_seq; /* of the exec record of its program; 0: none */
	uint32_t parent;    /* 1 + its place in this list; 0: not known */
	uint8_t exited;
	uint8_t former; /* its pid belongs to another process by now; here as a parent */
	uint8_t comm_len;
	uint8_t comm[KB_COMM_MAX];
	uint8_t zero;
};

struct kb_filter {
	struct kb_filter_head head;
	const uint8_t *bloom;
	const uint8_t *procs; /* n_procs of struct kb_filter_proc, unaligned */
};
/* False when the bytes are no filter. */
bool kb_filter_parse(const void *data, size_t len, struct kb_filter *ret);
struct kb_filter_proc kb_filter_process(const struct kb_filter *filter, uint32_t i);

/* What a Bloom filter is asked about. */
enum kb_filter_class {
	KB_FILTER_PID = 'p',
	KB_FILTER_PATH = 'f',
	KB_FILTER_UNDER = 'd', /* a directory above a path, without the last slash */
	KB_FILTER_NAME = 'b',  /* the last component of a path */
	KB_FILTER_EXE = 'e',
	KB_FILTER_EXE_UNDER = 'E',
	KB_FILTER_EXE_NAME = 'n',
	KB_FILTER_COMM = 'c',
	KB_FILTER_HOST = 'h',
	KB_FILTER_ADDRESS = 'a',
	KB_FILTER_PORT = 'o',
	KB_FILTER_RULE = 'r',
};
bool kb_filter_may(
	const struct kb_filter *filter, enum kb_filter_class class, const void *data, size_t len);
bool kb_filter_may_number(
	const struct kb_filter *filter, enum kb_filter_class class, uint32_t number);

/* Makes filters, block after block of one session. */
struct kb_filter_maker;
struct kb_filter_maker *kb_filter_maker_create(void); /* NULL: out of memory */
void kb_filter_maker_destroy(struct kb_filter_maker *maker);
/* Call for each block: begin, add for each record as the iterator gives it, end. */
void kb_filter_begin(struct kb_filter_maker *maker);
int kb_filter_add(struct kb_filter_maker *maker, const struct kb_block_iter *iter,
	const struct kb_record *record, uint64_t seq, struct kb_err *err);
/* The filter's bytes live until the next begin. */
int kb_filter_end(
	struct kb_filter_maker *maker, const uint8_t **ret, size_t *ret_len, struct kb_err *err);
