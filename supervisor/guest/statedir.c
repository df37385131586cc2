#include "supervisor/guest/statedir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/base/dirs.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"
#include "supervisor/guest/cgroup.h"

static int open_locked(const char *path, int how)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	if (fd >= 0 && flock(fd, how) < 0)
		kb_close(&fd);
	return fd;
}

/* True if the session NAME has no process that holds its lock. */
static int is_dead(const char *name, void *arg)
{
	KB_FREE char *path = kb_asprintf("%s/%s", (const char *)arg, name);
	KB_CLOSE int fd = path ? open_locked(path, LOCK_EX | LOCK_NB) : -1;

	return fd >= 0;
}

static void remove_dirs(const char *dir, const char *name, bool mounted)
{
	KB_FREE char *path = kb_asprintf("%s/%s", dir, name);
	KB_FREE char *mount = kb_asprintf("%s/%s/" KB_STATEDIR_MOUNT, dir, name);

	if (!path || !mount)
		return;
	if (mounted)
		umount2(mount, MNT_DETACH);
	rmdir(mount);
	if (rmdir(path) < 0 && errno != ENOENT)
		kb_log_warn("%s cannot be removed: %s", path, strerror(errno));
}

void kb_statedir_remove_own(const char *dir, const char *name)
{
	remove_dirs(dir, name, true);
}

void kb_statedir_release(const char *dir, const char *name)
{
	if (is_dead(name, (void *)dir))
		remove_dirs(dir, name, false);
}

static bool is_session(const char *name)
{
	return strncmp(name, KB_CGROUP_PREFIX, strlen(KB_CGROUP_PREFIX)) == 0;
}

static unsigned count_dead(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	unsigned n = 0;

	while (d && (e = readdir(d)))
		n += is_session(e->d_name) && is_dead(e->d_name, (void *)dir);
	if (d)
		closedir(d);
	return n;
}

void kb_statedir_sweep(const char *dir)
{
	/* Nobody claims a directory while we look; if somebody is just doing so, another time. */
	KB_CLOSE int fd = open_locked(dir, LOCK_EX | LOCK_NB);
	struct dirent *e;
	DIR *d;

	if (fd < 0 || count_dead(dir) == 0)
		return;
	kb_cgroups_sweep(is_dead, (void *)dir);
	d = opendir(dir);
	while (d && (e = readdir(d)))
		if (is_session(e->d_name))
			kb_statedir_release(dir, e->d_name);
	if (d)
		closedir(d);
}

int kb_statedir_open(const char *dir, struct kb_err *err)
{
	int r = kb_dirs_make(dir, err);

	if (r == 0)
		kb_statedir_sweep(dir);
	return r;
}

int kb_statedir_claim(const char *dir, const char *name, int *ret_fd, struct kb_err *err)
{
	KB_FREE char *path = kb_asprintf("%s/%s", dir, name);
	KB_CLOSE int parent = open_locked(dir, LOCK_SH);
	KB_CLOSE int fd = -1;

	if (!path)
		return kb_err_nomem(err);
	if (parent < 0)
		return kb_err_sys(err, errno, "%s cannot be locked", dir);
	if (mkdirat(parent, name, 0700) < 0)
		return kb_err_sys(err, errno, "%s cannot be made", path);
	fd = open_locked(path, LOCK_EX | LOCK_NB);
	if (fd < 0 || mkdirat(fd, KB_STATEDIR_MOUNT, 0700) < 0) {
		kb_err_sys(err, errno, "%s cannot be claimed", path);
		unlinkat(parent, name, AT_REMOVEDIR);
		return -KB_ERR_SYSTEM;
	}
	*ret_fd = kb_steal_fd(&fd);
	return 0;
}
