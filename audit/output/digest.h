/* Private to audit/: a session in short, made in one scan: its processes as a tree with what each
 * did, the files it changed, where it connected, what it was denied. Tree, summary, stats and
 * report stand on it.
 *
 * A call counts as done when it was allowed and did not fail; one whose outcome is unknown may have
 * been done and counts too.
 */
#pragma once

#include "audit/reader.h"

#define KB_DIGEST_FILES_MAX   500000u /* distinct changed files; more are counted only */
#define KB_DIGEST_DENIALS_MAX 10000u  /* distinct denials */
#define KB_DIGEST_DESTS_MAX   10000u
#define KB_NODE_SAMPLES	      4u /* names of changed files that a process keeps */
#define KB_NODE_IMAGES	      4u /* programs that a process keeps */
#define KB_NONE		      UINT32_MAX

struct kb_node {
	struct kb_process *proc; /* referenced */
	uint64_t first_seq;
	uint32_t depth;						/* how many are above it */
	uint32_t parent, first_child, last_child, next_sibling; /* indices, or KB_NONE */
	struct kb_image *images[KB_NODE_IMAGES]; /* referenced: what it exec'd, the last one last */
	uint32_t n_images;
	uint64_t records, written, deleted, denied, connected;
	uint32_t written_samples[KB_NODE_SAMPLES], deleted_samples[KB_NODE_SAMPLES]; /* files */
	uint32_t n_written, n_deleted;
};

enum kb_file_fate {
	KB_FILE_MODIFIED,
	KB_FILE_CREATED,
	KB_FILE_DELETED,
	KB_FILE_RENAMED,
	KB_FILE_TEMPORARY
};

struct kb_file {
	struct kb_bytes path, path2; /* owned; path2 of a rename */
	uint64_t times;
	uint32_t node; /* who changed it last, or KB_NONE */
	enum kb_file_fate fate;
};

struct kb_dest {
	struct kb_bytes where; /* owned; "host:port", escaped */
	enum kb_decision decision;
	uint64_t times;
	uint32_t node;
};

struct kb_denial {
	enum kb_event event;
	enum kb_decision decision;
	int32_t errnum, syscall;
	uint32_t rule;
	bool write;	      /* an open for writing */
	struct kb_bytes path; /* owned; exact; empty when it is not about a path */
	struct kb_bytes what; /* owned; as people read it */
	uint64_t times, first_seq, first_time;
	uint32_t node; /* of the first */
};

/* A secret that the broker put into requests. */
#define KB_DIGEST_SECRETS_MAX 64u
struct kb_used_secret {
	char name[64];
	uint64_t times;
};

struct kb_digest {
	struct kb_node *nodes;
	size_t n_nodes;
	struct kb_file *files;
	size_t n_files;
	struct kb_dest *dests;
	size_t n_dests;
	struct kb_denial *denials;
	size_t n_denials;
	struct kb_used_secret secrets[KB_DIGEST_SECRETS_MAX];
	size_t n_secrets;
	uint64_t records, denied, lost, commands;
	uint64_t changed, deleted; /* distinct files at the end: created or modified; deleted */
	uint64_t hosts;		   /* distinct destinations that were not refused */
	uint64_t by_event[KB_EVENT_MAX_];
	uint64_t first_time, last_time;
	bool cut; /* some bound above was reached */
	struct kb_digest_index *index;
};

int kb_digest_create(struct kb_reader *reader, const struct kb_session *session,
	const struct kb_view *view, struct kb_digest **ret, struct kb_err *err);
void kb_digest_destroy(struct kb_digest *digest); /* NULL is fine */

/* The same one record at a time, for callers that scan for other reasons too. row->proc->user is
 * the digest's; *ret_node is the record's process, or KB_NONE. */
int kb_digest_begin(struct kb_digest **ret, struct kb_err *err);
int kb_digest_add(struct kb_digest *digest, const struct kb_view *view, const struct kb_row *row,
	uint32_t *ret_node, struct kb_err *err);
void kb_digest_end(struct kb_digest *digest);
