/* What rootfs.c (building) and rootfs_entries.c (deciding what goes where) share. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "supervisor/guest/rootfs.h"

#define KB_ROOTFS_ENTRIES_MAX	4096
#define KB_ROOTFS_KEPT_MAX	64
#define KB_ROOTFS_STAND_INS_MAX 64

/* How an entry came to its path. Of several for one path the first of these counts, and among those
 * of the same the last kind. */
enum kb_entry_vague { KB_ENTRY_NAMED, KB_ENTRY_MATCHED, KB_ENTRY_PINNED };

enum kb_entry_kind {
	KB_ENTRY_PRIVATE,
	KB_ENTRY_KEEP,
	KB_ENTRY_READ,
	KB_ENTRY_WRITE,
	KB_ENTRY_HIDE,
	KB_ENTRY_INIT,
	KB_ENTRY_AGAIN,
};

struct kb_entry {
	enum kb_entry_kind kind;
	enum kb_entry_vague vague;
	const char *path;
	const char *source; /* KB_ENTRY_INIT; KB_ENTRY_AGAIN: which of our own files */
	unsigned depth;
	mode_t mode; /* KB_ENTRY_PRIVATE */
	bool optional;
	const char *rule; /* where it is written, for messages; may be NULL */
};

struct kb_build {
	const struct kb_rootfs_spec *spec;
	struct kb_rootfs *out;
	int scratch, root, data; /* directories; O_PATH or mount fds */
	dev_t root_dev, data_dev;
	int source; /* root of the machine's files, or AT_FDCWD */
	int hidden_dir, hidden_file;
	unsigned n_private;
	uint64_t kept[KB_ROOTFS_KEPT_MAX]; /* ids of the mounts of kept trees */
	unsigned n_kept;
	int stand_ins[KB_ROOTFS_STAND_INS_MAX]; /* of hidden directories with something given in
						   them */
	unsigned n_stand_ins;
	struct kb_entry *entries;
	size_t n_entries;
	char **matches; /* paths that patterns stood for */
	size_t n_matches;
};

/* Is path at or beneath top? */
bool kb_rootfs_path_below(const char *path, const char *top);
/* The session's own /proc, /dev or /sys, or in them. */
bool kb_rootfs_is_kernels(const char *path);
/* "PATH WHAT: why", with the rule of the entry where there is one. */
int kb_rootfs_path_error(struct kb_err *err, int errnum, const struct kb_entry *e, const char *path,
	const char *what);
/* Everything that is to be there, one entry for each path, in no order. */
int kb_rootfs_collect(struct kb_build *b, struct kb_err *err);
