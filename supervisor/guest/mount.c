#include "supervisor/guest/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/base/util.h"

/* openat2 reports EAGAIN when a rename or mount raced with a scoped walk. */
#define OPEN_TRIES 16

int kb_open_below(int dir, const char *path, unsigned flags)
{
	struct open_how how = {
		.flags = O_PATH | O_CLOEXEC | (flags & KB_OPEN_DIR ? O_DIRECTORY : 0u),
		.resolve = RESOLVE_NO_MAGICLINKS,
	};
	long fd = -1;

	if (flags & KB_OPEN_LAST)
		how.flags |= O_NOFOLLOW;
	if (flags & KB_OPEN_EXACT)
		how.resolve |= RESOLVE_NO_SYMLINKS;
	if (dir != AT_FDCWD)
		how.resolve |= RESOLVE_IN_ROOT;
	for (int i = 0; i < OPEN_TRIES; i++) {
		fd = syscall(SYS_openat2, dir, path, &how, sizeof(how));
		if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
			break;
	}
	return fd < 0 ? -errno : (int)fd;
}

static int configure_tmpfs(int fs, uint64_t size, mode_t mode)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)size);
	if (size != 0 && fsconfig(fs, FSCONFIG_SET_STRING, "size", text, 0) < 0)
		return -1;
	snprintf(text, sizeof(text), "%o", (unsigned)mode);
	if (fsconfig(fs, FSCONFIG_SET_STRING, "mode", text, 0) < 0)
		return -1;
	return fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
}

int kb_mount_tmpfs(uint64_t size, mode_t mode, int *ret_mount, struct kb_err *err)
{
	KB_CLOSE int fs = fsopen("tmpfs", FSOPEN_CLOEXEC);
	int mount;

	if (fs < 0 || configure_tmpfs(fs, size, mode) < 0)
		return kb_err_sys(err, errno, "a private file system cannot be made");
	mount = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
	if (mount < 0)
		return kb_err_sys(err, errno, "a private file system cannot be mounted");
	*ret_mount = mount;
	return 0;
}

int kb_mount_clone(int fd, int *ret_mount, struct kb_err *err)
{
	int mount = open_tree(
		fd, "", AT_EMPTY_PATH | AT_RECURSIVE | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

	if (mount < 0)
		return kb_err_sys(err, errno, "a mount cannot be copied");
	*ret_mount = mount;
	return 0;
}

int kb_mount_restrict(int mount, unsigned attrs, bool recursive, struct kb_err *err)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_NOSUID};

	if (!(attrs & KB_ATTR_DEV))
		attr.attr_set |= MOUNT_ATTR_NODEV;
	if (attrs & KB_ATTR_RDONLY)
		attr.attr_set |= MOUNT_ATTR_RDONLY;
	if (attrs & KB_ATTR_NOEXEC)
		attr.attr_set |= MOUNT_ATTR_NOEXEC;
	if (mount_setattr(mount, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &attr,
		    sizeof(attr)) < 0)
		return kb_err_sys(err, errno, "a mount cannot be restricted");
	return 0;
}

/* A user namespace with one user, to say whom a mount maps to whom; it ends with its fd. */
static int write_map(pid_t pid, const char *file, unsigned inside, unsigned outside)
{
	char path[64], line[64];
	KB_CLOSE int fd = -1;
	int n;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	n = snprintf(line, sizeof(line), "%u %u 1\n", inside, outside);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd >= 0 && write(fd, line, (size_t)n) == n ? 0 : -1;
}

static _Noreturn void hold_namespace(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (getppid() == parent)
		pause();
	_exit(0);
}

static int open_map(
	const struct kb_mount_owner *owner, const struct kb_mount_owner *to, int *ret_fd)
{
	char path[64];
	int fd = -1, saved;
	pid_t parent = getpid();
	pid_t pid = (pid_t)syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, 0);

	if (pid == 0)
		hold_namespace(parent);
	if (pid < 0)
		return -1;
	snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)pid);
	if (write_map(pid, "uid_map", owner->uid, to->uid) == 0 &&
		write_map(pid, "gid_map", owner->gid, to->gid) == 0)
		fd = open(path, O_RDONLY | O_CLOEXEC);
	saved = errno;
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	errno = saved;
	*ret_fd = fd;
	return fd < 0 ? -1 : 0;
}

int kb_mount_map_owner(int mount, const struct kb_mount_owner *owner,
	const struct kb_mount_owner *to, struct kb_err *err)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP};
	KB_CLOSE int map = -1;

	if (open_map(owner, to, &map) < 0)
		return kb_err_sys(err, errno, "an owner cannot be mapped");
	attr.userns_fd = (uint64_t)map;
	if (mount_setattr(mount, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof(attr)) < 0) {
		kb_err_sys(err, errno, "a mount's owner cannot be mapped");
		return kb_err_hint(err, "the file system must support idmapped mounts; else run "
					"kbsup as the owner of the files");
	}
	return 0;
}

int kb_mount_attach(int mount, int target, struct kb_err *err)
{
	if (move_mount(mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) <
		0)
		return kb_err_sys(err, errno, "a mount cannot be put in place");
	return 0;
}
