/* Mounts by file descriptor: nothing here resolves a path twice, so nothing can be swapped between
 * a check and its use. All fds are close-on-exec.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "supervisor/base/err.h"

/* O_PATH fd of path below dir (AT_FDCWD: absolute). With KB_OPEN_EXACT no component may be a
 * symbolic link; otherwise links are followed, but never out of dir. Returns the fd or -errno. */
#define KB_OPEN_EXACT 1u
#define KB_OPEN_DIR   2u
#define KB_OPEN_LAST  4u /* a symbolic link in the last place is not followed: its own fd */
int kb_open_below(int dir, const char *path, unsigned flags);

/* A detached tmpfs. size 0: the kernel's default bound. */
int kb_mount_tmpfs(uint64_t size, mode_t mode, int *ret_mount, struct kb_err *err);
/* A detached copy of what is mounted at fd (an O_PATH fd) and below. */
int kb_mount_clone(int fd, int *ret_mount, struct kb_err *err);

/* nosuid and nodev always; the whole tree of mounts at `mount`. */
#define KB_ATTR_RDONLY 1u
#define KB_ATTR_NOEXEC 2u
#define KB_ATTR_DEV    4u /* device nodes work */
int kb_mount_restrict(int mount, unsigned attrs, bool recursive, struct kb_err *err);
/* The owner of the tree at `mount` becomes `to` as seen through it, and files that `to` makes there
 * are the owner's (an idmapped mount, Linux 5.12; the file system must support it). Nobody else's
 * files can be owned or written through it. For root only. */
struct kb_mount_owner {
	uid_t uid;
	gid_t gid;
};
int kb_mount_map_owner(int mount, const struct kb_mount_owner *owner,
	const struct kb_mount_owner *to, struct kb_err *err);
/* Put the detached mount where target (an O_PATH fd) is. */
int kb_mount_attach(int mount, int target, struct kb_err *err);
