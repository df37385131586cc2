/* From the path a call names to the file the kernel will find. See resolve.c. */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "supervisor/base/err.h"

/* Who asks: its /proc directory and its numbers in the session. */
struct kb_caller {
	pid_t tid;
	int proc_fd;   /* O_PATH of /proc/TGID */
	bool leader;   /* tid is the thread-group leader */
	uint32_t vpid; /* the thread group's number in the session */
	uint32_t vtid;
};

enum kb_path_state {
	KB_PATH_FOUND,
	KB_PATH_ABSENT,	 /* no such file; the path is where it would be */
	KB_PATH_SPECIAL, /* a descriptor without a path: "pipe:[7]", "/memfd:x (deleted)" */
	KB_PATH_ERROR,	 /* errnum says why; the path is the name, cleaned up */
};

#define KB_RESOLVED_MAX (2 * PATH_MAX)
struct kb_resolved {
	enum kb_path_state state;
	int errnum;
	size_t len;
	char path[KB_RESOLVED_MAX];
};

#define KB_RESOLVE_NOFOLLOW 1u /* the last component is not followed */
#define KB_RESOLVE_EMPTY    2u /* an empty path means dirfd itself */
#define KB_RESOLVE_SCOPED   4u /* openat2's RESOLVE_IN_ROOT or RESOLVE_BENEATH */

struct kb_resolver {
	int root_fd;   /* the session's root directory */
	int self_fd;   /* /proc/self/fd of this process */
	int host_fd;   /* the machine's own root, or -1 */
	size_t prefix; /* length of the root's own path as readlink shows it; 0 for "/" */
	char prefix_path[PATH_MAX];
};
/* root_fd stays the caller's. host_root may be NULL. */
int kb_resolver_init(
	struct kb_resolver *resolver, int root_fd, const char *host_root, struct kb_err *err);
void kb_resolver_finish(struct kb_resolver *resolver);

/* Is what the session has of path on a read-only mount? Unknown reads as yes. */
bool kb_resolver_read_only(const struct kb_resolver *resolver, const char *path);

/* path must be shorter than PATH_MAX. */
void kb_resolve(const struct kb_resolver *resolver, const struct kb_caller *caller, int dirfd,
	const char *path, unsigned flags, struct kb_resolved *ret);
/* The same for who is no longer there to be asked: base is the path a relative one starts from. */
void kb_resolve_from(const struct kb_resolver *resolver, const struct kb_caller *caller,
	const char *base, const char *path, unsigned flags, struct kb_resolved *ret);
/* What a descriptor of the caller refers to. */
void kb_resolve_fd(const struct kb_resolver *resolver, const struct kb_caller *caller, int fd,
	struct kb_resolved *ret);
/* Does the machine itself have this (absolute, resolved) path? */
bool kb_resolver_on_host(const struct kb_resolver *resolver, const char *path);

/* Joins and cleans a path without looking at any file: "/a/b" + "../c/./d" is "/a/c/d". A path that
 * starts with a slash ignores the base. Returns the length, 0 if it does not fit. */
size_t kb_path_join(char *dst, size_t size, const char *base, const char *path);
