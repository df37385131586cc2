#include "supervisor/guest/glob.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/base/util.h"

struct walk {
	int (*found)(const char *path, void *arg, struct kb_err *err);
	void *arg;
	struct kb_err *err;
	unsigned visits;
	char path[PATH_MAX]; /* of what is being looked at */
};

/* One component against one pattern component of n bytes. */
static bool matches(const char *pattern, size_t n, const char *name)
{
	const char *end = pattern + n, *star = NULL, *retry = NULL;

	while (*name) {
		if (pattern < end && *pattern == '*') {
			star = pattern++;
			retry = name;
		} else if (pattern < end && (*pattern == '?' || *pattern == *name)) {
			pattern++;
			name++;
		} else if (star) {
			pattern = star + 1;
			name = ++retry;
		} else {
			return false;
		}
	}
	while (pattern < end && *pattern == '*')
		pattern++;
	return pattern == end;
}

static bool is_wild(const char *component, size_t n)
{
	return memchr(component, '*', n) || memchr(component, '?', n);
}

static int walk_dir(struct walk *w, int dir, size_t len, const char *pattern, unsigned depth);

/* name below dir matched the first component of pattern; `rest` follows. */
static int take(
	struct walk *w, int dir, size_t len, const char *name, const char *rest, unsigned depth)
{
	size_t n = strlen(name);
	int fd;

	if (len + 1 + n >= sizeof(w->path))
		return 0;
	w->path[len] = '/';
	memcpy(w->path + len + 1, name, n + 1);
	if (*rest == '\0')
		return w->found(w->path, w->arg, w->err);
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? 0 : walk_dir(w, fd, len + 1 + n, rest, depth + 1);
}

/* Each entry of dir against the component; for ** the directories, with the same pattern again. */
static int walk_entries(struct walk *w, int dir, size_t len, const char *component, size_t n,
	const char *rest, unsigned depth)
{
	bool any = n == 2 && memcmp(component, "**", 2) == 0;
	int list = dup(dir), r = 0;
	DIR *d = list < 0 ? NULL : fdopendir(list);
	struct dirent *e;

	if (!d && list >= 0)
		close(list);
	while (d && r == 0 && (e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (++w->visits > KB_GLOB_VISITS_MAX)
			r = kb_err_set(w->err, KB_ERR_LIMIT,
				"a pattern of the policy has more than %d files to look at",
				KB_GLOB_VISITS_MAX);
		else if (any && (e->d_type == DT_DIR || e->d_type == DT_UNKNOWN))
			r = take(w, dir, len, e->d_name, component, depth);
		else if (!any && matches(component, n, e->d_name))
			r = take(w, dir, len, e->d_name, rest, depth);
	}
	if (d)
		closedir(d);
	return r;
}

/* Takes dir, whose path is the first len bytes of w->path. */
static int walk_dir(struct walk *w, int dir, size_t len, const char *pattern, unsigned depth)
{
	size_t n = strcspn(pattern, "/");
	const char *rest = pattern[n] ? pattern + n + 1 : pattern + n;
	int r = 0;

	if (depth > KB_GLOB_DEPTH_MAX) {
		;
	} else if (n == 2 && memcmp(pattern, "**", 2) == 0) {
		/* None of the directories it may stand for … */
		if (*rest) {
			int same = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

			r = same < 0 ? 0 : walk_dir(w, same, len, rest, depth + 1);
		}
		/* … or one and more; as the last component it stands for everything. */
		if (r == 0)
			r = *rest ? walk_entries(w, dir, len, pattern, n, rest, depth)
				  : walk_entries(w, dir, len, "*", 1, rest, depth);
	} else if (is_wild(pattern, n)) {
		r = walk_entries(w, dir, len, pattern, n, rest, depth);
	} else {
		char name[NAME_MAX + 1];

		if (n > 0 && n <= NAME_MAX) {
			memcpy(name, pattern, n);
			name[n] = '\0';
			if (faccessat(dir, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
				r = take(w, dir, len, name, rest, depth);
		}
	}
	close(dir);
	return r;
}

int kb_glob_walk(const char *pattern, int (*found)(const char *path, void *arg, struct kb_err *err),
	void *arg, struct kb_err *err)
{
	KB_FREE struct walk *w = calloc(1, sizeof(*w));
	int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (!w || root < 0) {
		kb_close(&root);
		return kb_err_nomem(err);
	}
	*w = (struct walk){.found = found, .arg = arg, .err = err};
	return walk_dir(w, root, 0, pattern + 1, 0);
}
