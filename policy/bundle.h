/* A decoded bundle. Private to policy/. Made by lower (from statements) or by kb_bundle_parse (from
 * foreign bytes, checked); everything lives in its arena and is immutable once made. */
#pragma once

#include <string.h>

#include "policy/ast.h"
#include "policy/policy.h"

/* Bounds of a bundle, whoever made it. */
#define KB_BUNDLE_FORMAT      1
#define KB_BUNDLE_BYTES_MAX   (4u << 20)
#define KB_BUNDLE_RULES_MAX   8192
#define KB_BUNDLE_ITEMS_MAX   8192 /* mounts, path rules, … each */
#define KB_BUNDLE_CALLS_MAX   1024 /* of one table */
#define KB_BUNDLE_CLAUSES_MAX 512  /* of one call */
#define KB_BUNDLE_CONDS_MAX   64   /* of one clause */
#define KB_BUNDLE_MEMORY      (64u << 20)
#define KB_SYSCALL_NR_MAX     4095
#define KB_ERRNO_MAX	      4095 /* the kernel cuts larger values */

struct kb_clause {
	struct kb_conds conds;
	enum kb_action action;
	int errnum;
	enum kb_record_level record;
	uint32_t rule;
};

struct kb_clauses {
	struct kb_clause *items;
	size_t len, cap;
};

struct kb_table_call {
	int nr;
	struct kb_clauses clauses; /* never empty; the last has no conditions */
};

struct kb_table {
	uint32_t arch;
	struct kb_clause other;
	struct {
		struct kb_table_call *items;
		size_t len, cap;
	} calls; /* ascending by nr */
};

#define KB_VEC(type)                                                                               \
	struct {                                                                                   \
		type *items;                                                                       \
		size_t len, cap;                                                                   \
	}

struct kb_bundle {
	struct kb_arena arena;
	const char *name;
	KB_VEC(const char *) files;
	bool tightened;
	KB_VEC(struct kb_rule) rules;
	KB_VEC(struct kb_mount) mounts;
	KB_VEC(struct kb_path_rule) paths;
	KB_VEC(struct kb_landlock_rule) landlock;
	KB_VEC(struct kb_net_rule) net;
	KB_VEC(struct kb_limit) limits;
	KB_VEC(const char *) env;
	KB_VEC(struct kb_secret) secrets;
	KB_VEC(struct kb_table) tables;
	struct kb_verdict path_default, net_default;
	/* Lengths of the paths of the three lists, so that a look-up compares and does not measure;
	 * KB_LEN_GLOB: a pattern. Made when a bundle is parsed. */
	uint16_t *path_lens, *mount_lens, *landlock_lens;
};

#define KB_LEN_GLOB UINT16_MAX

/* Is path (of path_len bytes) at or beneath dir (of dir_len bytes, KB_LEN_GLOB for a pattern)? */
static inline bool kb_len_beneath(
	const char *dir, uint16_t dir_len, const char *path, size_t path_len)
{
	if (dir_len == KB_LEN_GLOB)
		return kb_path_match(dir, path);
	if (dir_len == 1)
		return path[0] == '/';
	return dir_len <= path_len && (path[dir_len] == '/' || !path[dir_len]) &&
	       !memcmp(dir, path, dir_len);
}

struct kb_bundle *kb_bundle_new(void);
const struct kb_table *kb_bundle_table(const struct kb_bundle *bundle, uint32_t arch);
const struct kb_table_call *kb_table_find(const struct kb_table *table, int nr);
int kb_bundle_encode(const struct kb_bundle *bundle, struct kb_buf *out, struct kb_err *err);
/* The value a conditions looks at, and whether it holds. */
bool kb_cond_holds(const struct kb_cond *cond, const uint64_t args[6]);
