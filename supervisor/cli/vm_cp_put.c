/* From here to a machine. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/base/fd.h"
#include "vm_cp.h"

static int put_any(struct kb_cp *cp, int at, const char *name, const char *from, const char *to,
	int depth, struct kb_err *err);

static int put_file(struct kb_cp *cp, int at, const char *name, const char *from, const char *to,
	const struct stat *st, struct kb_err *err)
{
	/* It may have become something else since it was looked at. */
	KB_CLOSE int fd = openat(at, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		return kb_err_sys(err, errno, "%s cannot be read", from);
	return kb_cp_contents(cp, true, fd, to, st->st_mode & KB_CP_MODE, from, err);
}

/* There is a directory at `to`, afterwards. */
static int put_mkdir(struct kb_cp *cp, const char *to, struct kb_err *err)
{
	struct kb_err why = {0};
	int r = kb_cp_stat(cp, to, true, &why);

	if (r == 0 && S_ISDIR(cp->attrs.mode))
		return 0;
	if (r == 0)
		return kb_err_set(err, KB_ERR_EXISTS, "%s is there, and no directory", to);
	if (r != -KB_ERR_NOTFOUND) {
		*err = why;
		return r;
	}
	return kb_cp_mkdir(cp, to, 0700, err);
}

static int put_entries(
	struct kb_cp *cp, DIR *dir, const char *from, const char *to, int depth, struct kb_err *err)
{
	struct dirent *entry;
	int r = 0;

	while (r == 0 && (errno = 0, entry = readdir(dir))) {
		char *source KB_FREE = NULL, *target KB_FREE = NULL;

		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		source = kb_cp_join(from, entry->d_name);
		target = kb_cp_join(to, entry->d_name);
		r = put_any(cp, dirfd(dir), entry->d_name, source, target, depth + 1, err);
	}
	return r == 0 && errno ? kb_err_sys(err, errno, "%s cannot be read", from) : r;
}

static int put_dir(struct kb_cp *cp, int at, const char *name, const char *from, const char *to,
	const struct stat *st, int depth, struct kb_err *err)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	int r;

	if (!dir) {
		kb_close(&fd);
		return kb_err_sys(err, errno, "%s cannot be read", from);
	}
	r = put_mkdir(cp, to, err);
	if (r == 0)
		r = put_entries(cp, dir, from, to, depth, err);
	closedir(dir);
	/* Last: it may forbid writing in it. */
	return r < 0 ? r : kb_cp_chmod(cp, to, st->st_mode & KB_CP_MODE, err);
}

static int put_link(struct kb_cp *cp, int at, const char *name, const char *from, const char *to,
	struct kb_err *err)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(at, name, target, sizeof(target) - 1);

	if (n < 0)
		return kb_err_sys(err, errno, "%s cannot be read", from);
	target[n] = '\0';
	return kb_cp_symlink(cp, to, target, err);
}

/* depth 0: what was asked for, so a link stands for what it leads to. */
static int put_any(struct kb_cp *cp, int at, const char *name, const char *from, const char *to,
	int depth, struct kb_err *err)
{
	struct stat st;

	if (depth > KB_CP_DEPTH_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "%s: more than %d directories deep", from,
			KB_CP_DEPTH_MAX);
	if (fstatat(at, name, &st, depth ? AT_SYMLINK_NOFOLLOW : 0) < 0)
		return kb_err_sys(err, errno, "%s cannot be copied", from);
	if (S_ISDIR(st.st_mode))
		return put_dir(cp, at, name, from, to, &st, depth, err);
	if (S_ISREG(st.st_mode))
		return put_file(cp, at, name, from, to, &st, err);
	if (S_ISLNK(st.st_mode))
		return put_link(cp, at, name, from, to, err);
	kb_cp_skip(cp, from, "it is no file, directory or link");
	return 0;
}

int kb_cp_put(struct kb_cp *cp, const char *from, const char *to, struct kb_err *err)
{
	char name[NAME_MAX + 1];
	char *target KB_FREE = NULL;
	struct kb_err why = {0};
	int r = kb_cp_stat(cp, to, true, &why);

	if (r < 0 && r != -KB_ERR_NOTFOUND) {
		*err = why;
		return r;
	}
	/* Into a directory that is there, under its own name. */
	if (r == 0 && S_ISDIR(cp->attrs.mode) && kb_cp_base(from, name))
		target = kb_cp_join(to, name);
	return put_any(cp, AT_FDCWD, from, from, target ? target : to, 0, err);
}
