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
/* Put the detached mount where target (an O_PATH fd) is. */
int kb_mount_attach(int mount, int target, struct kb_err *err);
