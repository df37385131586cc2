/* From a machine to here. Names, links and modes are what the machine says, and it may say
 * anything: everything is made relative to a directory that was opened without following a link,
 * names are single names, and a link that leads out of what is copied is not made. A link inside
 * may begin with some ".." but have none later, so that no chain of them leads out either. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/os.h"
#include "vm_cp.h"

#define ENTRIES_MAX 1000000 /* of one directory */

struct entry {
	char *name;
	struct kb_ssh_attrs attrs;
};

struct listing {
	struct kb_cp *cp;
	struct entry *list;
	size_t n, cap;
	bool too_many;
};

static int get_any(struct kb_cp *cp, const char *from, const struct kb_ssh_attrs *attrs, int at,
	const char *name, int depth, struct kb_err *err);

/* ---- Files ----------------------------------------------------------------------------------- */

/* A file without a name where the system has that, so that nothing is left of it even when we are
 * killed; else one with a name of its own. */
static int open_part(int at, const char *part, bool *ret_named)
{
	int fd = kb_os_unnamed_file(at);

	*ret_named = fd < 0;
	if (fd >= 0)
		return fd;
	unlinkat(at, part, 0);
	return openat(at, part, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
}

static int name_part(int at, int fd, const char *part, bool named, const char *name)
{
	if (!named) {
		unlinkat(at, part, 0);
		if (kb_os_name_file(fd, at, part) < 0)
			return -1;
	}
	return renameat(at, part, at, name);
}

static int get_file(struct kb_cp *cp, const char *from, unsigned mode, int at, const char *name,
	struct kb_err *err)
{
	char *part KB_FREE = kb_xprintf(".%.200s.kbsup-part", name);
	bool named;
	KB_CLOSE int fd = open_part(at, part, &named);
	int r;

	if (fd < 0)
		return kb_err_sys(err, errno, "%s cannot be made here", name);
	r = kb_cp_contents(cp, false, fd, from, 0, from, err);
	if (r == 0 &&
		(fchmod(fd, mode & KB_CP_MODE) < 0 || name_part(at, fd, part, named, name) < 0))
		r = kb_err_sys(err, errno, "%s cannot be put in its place here", name);
	if (r < 0)
		unlinkat(at, part, 0);
	return r;
}

/* ---- Links ----------------------------------------------------------------------------------- */

/* depth: of the directory the link is in, below the one that everything is copied into. */
static bool stays_inside(const char *target, int depth)
{
	bool named = false;

	if (*target == '/' || !*target)
		return false;
	for (const char *at = target; *at; at += strcspn(at, "/"), at += strspn(at, "/")) {
		size_t len = strcspn(at, "/");

		if (len == 2 && !strncmp(at, "..", 2)) {
			if (named || --depth < 0)
				return false;
		} else if (len != 1 || *at != '.') {
			named = true;
		}
	}
	return true;
}

static int get_link(
	struct kb_cp *cp, const char *from, int at, const char *name, int depth, struct kb_err *err)
{
	int r = kb_cp_readlink(cp, from, err);

	if (r < 0)
		return r;
	if (!stays_inside(cp->text, depth - 1)) {
		kb_cp_skip(cp, from, "it is a link that leads out of what is copied");
		return 0;
	}
	if (unlinkat(at, name, 0) < 0 && errno != ENOENT)
		return kb_err_sys(err, errno, "%s here is in the way of a link", name);
	if (symlinkat(cp->text, at, name) < 0)
		return kb_err_sys(err, errno, "%s cannot be made here", name);
	return 0;
}

/* ---- Directories ----------------------------------------------------------------------------- */

static void on_entry(const char *name, const struct kb_ssh_attrs *attrs, void *arg)
{
	struct listing *l = arg;

	if (l->n == ENTRIES_MAX) {
		l->too_many = true;
		return;
	}
	if (l->n == l->cap) {
		struct entry *more;

		l->cap = l->cap ? 2 * l->cap : 64;
		more = kb_xcalloc(l->cap, sizeof(*more));
		if (l->n)
			memcpy(more, l->list, l->n * sizeof(*more));
		free(l->list);
		l->list = more;
	}
	l->list[l->n++] = (struct entry){kb_xstrdup(name), *attrs};
}

static void on_listed(const struct kb_err *why, void *arg)
{
	struct listing *l = arg;

	l->cp->answered = true;
	if (why)
		l->cp->failed = *why;
	kb_loop_stop(l->cp->loop);
}

static void listing_finish(struct listing *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->list[i].name);
	free(l->list);
}

static int list(struct kb_cp *cp, const char *from, struct listing *l, struct kb_err *err)
{
	struct kb_ssh_lister lister = {.entry = on_entry, .done = on_listed, .arg = l};
	int r;

	*l = (struct listing){.cp = cp};
	cp->answered = false;
	cp->failed.code = 0;
	r = kb_cp_wait(cp, kb_ssh_list(cp->ssh, from, &lister, err), err);
	if (r == 0 && l->too_many)
		r = kb_err_set(err, KB_ERR_LIMIT, "%s has more than %d entries", from, ENTRIES_MAX);
	return r;
}

static bool is_single_name(const char *name)
{
	return *name && !strchr(name, '/') && strlen(name) <= NAME_MAX && strcmp(name, ".") != 0 &&
	       strcmp(name, "..") != 0;
}

static int get_entries(struct kb_cp *cp, const char *from, int at, int depth, struct kb_err *err)
{
	struct listing l KB_CLEANUP(listing_finish) = {0};
	int r = list(cp, from, &l, err);

	for (size_t i = 0; r == 0 && i < l.n; i++) {
		char *source KB_FREE = kb_cp_join(from, l.list[i].name);

		if (is_single_name(l.list[i].name))
			r = get_any(
				cp, source, &l.list[i].attrs, at, l.list[i].name, depth + 1, err);
		else
			kb_cp_skip(cp, source, "that is no name of a file");
	}
	return r;
}

static int get_dir(struct kb_cp *cp, const char *from, unsigned mode, int at, const char *name,
	int depth, struct kb_err *err)
{
	KB_CLOSE int fd = -1;
	int r;

	if (mkdirat(at, name, 0700) < 0 && errno != EEXIST)
		return kb_err_sys(err, errno, "%s cannot be made here", name);
	fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (depth ? O_NOFOLLOW : 0));
	if (fd < 0)
		return kb_err_sys(err, errno, "%s here is no directory", name);
	r = get_entries(cp, from, fd, depth, err);
	if (r == 0 && fchmod(fd, mode & KB_CP_MODE) < 0)
		r = kb_err_sys(err, errno, "%s cannot be given its mode here", name);
	return r;
}

static int get_any(struct kb_cp *cp, const char *from, const struct kb_ssh_attrs *attrs, int at,
	const char *name, int depth, struct kb_err *err)
{
	if (depth > KB_CP_DEPTH_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "%s: more than %d directories deep", from,
			KB_CP_DEPTH_MAX);
	if (S_ISDIR(attrs->mode))
		return get_dir(cp, from, attrs->mode, at, name, depth, err);
	if (S_ISREG(attrs->mode))
		return get_file(cp, from, attrs->mode, at, name, err);
	if (S_ISLNK(attrs->mode))
		return get_link(cp, from, at, name, depth, err);
	kb_cp_skip(cp, from, "it is no file, directory or link");
	return 0;
}

/* The directory a path is in. */
static void parent_of(const char *path, char ret[PATH_MAX])
{
	size_t end = strlen(path);

	while (end && path[end - 1] == '/')
		end--;
	while (end && path[end - 1] != '/')
		end--;
	snprintf(ret, PATH_MAX, "%.*s", end ? (int)end : 1, end ? path : ".");
}

/* Where `to` is: its directory, opened, and the name in it. */
static int find_place(
	const char *from, const char *to, int *ret_dir, char name[NAME_MAX + 1], struct kb_err *err)
{
	char dir[PATH_MAX];
	struct stat st;

	if (stat(to, &st) == 0 && S_ISDIR(st.st_mode) && kb_cp_base(from, name))
		snprintf(dir, sizeof(dir), "%s", to);
	else if (kb_cp_base(to, name))
		parent_of(to, dir);
	else /* ".", "/": itself */
		snprintf(dir, sizeof(dir), "%s", to), snprintf(name, NAME_MAX + 1, ".");
	*ret_dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return *ret_dir < 0 ? kb_err_sys(err, errno, "%s cannot be opened", dir) : 0;
}

int kb_cp_get(struct kb_cp *cp, const char *from, const char *to, struct kb_err *err)
{
	char name[NAME_MAX + 1] = "";
	KB_CLOSE int at = -1;
	struct kb_ssh_attrs attrs;
	int r = kb_cp_stat(cp, from, true, err);

	attrs = cp->attrs;
	if (r == 0)
		r = find_place(from, to, &at, name, err);
	return r < 0 ? r : get_any(cp, from, &attrs, at, name, 0, err);
}
