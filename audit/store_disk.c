/* The disk under the store: room kept for bad times, and what a full one looks like. */
#include <errno.h>
#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "store_private.h"
#include "supervisor/base/os.h"
#include "supervisor/base/util.h"

#define KB_BALLAST (1u << 20)

static char *ballast_path(const struct kb_env *env)
{
	return kb_asprintf("%s/ballast", env->dir);
}

void kb_store_ballast_keep(const struct kb_env *env)
{
	KB_FREE char *path = ballast_path(env);
	KB_CLOSE int fd = -1;

	if (path)
		fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, KB_STORE_MODE);
	if (fd >= 0 && kb_os_allocate(fd, KB_BALLAST) < 0)
		unlink(path); /* the disk is full already: the next commit will say so */
}

void kb_store_ballast_drop(const struct kb_env *env)
{
	KB_FREE char *path = ballast_path(env);

	if (path)
		unlink(path);
}

int kb_store_commit_code(const struct kb_env *env, int rc)
{
	struct statvfs fs;

	if (rc == EIO && statvfs(env->dir, &fs) == 0 &&
		(uint64_t)fs.f_bavail * fs.f_frsize < KB_TXN_MAX)
		return ENOSPC;
	return rc;
}
