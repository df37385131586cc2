/* Theory of operation.
 *
 * The kernel resolves a name from the caller's root, working directory or descriptor, through
 * mounts and symbolic links. This file does the same from outside, as an observer with its own
 * root, mount namespace and pid namespace, and without ever opening the file for real: everything
 * is O_PATH, which no driver, FIFO or lease notices.
 *
 * Three ways, tried in order of cost:
 *
 * 1. *straight*: openat2(root, name, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS). When that finds the
 *    file, no link was involved, and then the name, cleaned of "." and "..", is the true path. Most
 *    calls end here: one open, one close.
 * 2. *linked*: the same with links allowed. The path comes from /proc/self/fd, where the kernel
 *    prints it in the session's own terms: it stops at the root of the session's mount namespace.
 *    (If the session's root is a mere directory of ours, as in tests, its prefix is cut off.)
 * 3. *walk*: component by component. Needed for what means something else to us than to the
 *    caller: /proc/self and /proc/thread-self (ours, not theirs, or nothing at all in another pid
 *    namespace), the magic links /proc/PID/{fd/N,cwd,root,exe}, which scoped lookups refuse, and
 *    links that dangle.
 *
 * The answer is a prediction. Whoever can write to a directory of the path can change it before the
 * kernel looks, which is why records say `racy` and why nothing is enforced here that mounts and
 * Landlock do not enforce as well.
 */
#include "resolve.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/util.h"
#include "uapi.h"

#define LINKS_MAX 40 /* MAXSYMLINKS */

static int open_scoped(int root, const char *path, int flags, uint64_t resolve)
{
	struct open_how how = {
		.flags = (uint64_t)(O_PATH | O_CLOEXEC | flags),
		.resolve = RESOLVE_IN_ROOT | resolve,
	};
	long fd = syscall(SYS_openat2, root, *path ? path : ".", &how, sizeof(how));

	return fd >= 0 ? (int)fd : -errno;
}

int kb_resolver_init(
	struct kb_resolver *resolver, int root_fd, const char *host_root, struct kb_err *err)
{
	char name[16];
	ssize_t n;

	*resolver = (struct kb_resolver){.root_fd = root_fd, .self_fd = -1, .host_fd = -1};
	resolver->self_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (resolver->self_fd < 0)
		return kb_err_sys(err, errno, "/proc/self/fd cannot be opened");
	snprintf(name, sizeof(name), "%d", root_fd);
	n = readlinkat(resolver->self_fd, name, resolver->prefix_path, PATH_MAX - 1);
	if (n <= 0 || resolver->prefix_path[0] != '/') {
		kb_resolver_finish(resolver);
		return kb_err_set(err, KB_ERR_INVALID, "the session's root has no path");
	}
	resolver->prefix = n == 1 ? 0 : (size_t)n;
	if (!host_root)
		return 0;
	resolver->host_fd = open(host_root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (resolver->host_fd < 0) {
		int r = kb_err_sys(err, errno, "the machine's root cannot be opened");

		kb_resolver_finish(resolver);
		return r;
	}
	return 0;
}

void kb_resolver_finish(struct kb_resolver *resolver)
{
	kb_close(&resolver->self_fd);
	kb_close(&resolver->host_fd);
}

bool kb_resolver_on_host(const struct kb_resolver *resolver, const char *path)
{
	KB_CLOSE int fd = -1;

	if (resolver->host_fd < 0)
		return false;
	fd = open_scoped(resolver->host_fd, path, O_NOFOLLOW, 0);
	return fd >= 0;
}

bool kb_resolver_read_only(const struct kb_resolver *resolver, const char *path)
{
	char part[KB_RESOLVED_MAX];
	KB_CLOSE int fd = -1;
	struct statvfs st;

	snprintf(part, sizeof(part), "%s", path);
	for (;;) {
		fd = open_scoped(resolver->root_fd, part[0] ? part : "/", O_NOFOLLOW, 0);
		if (fd >= 0 || errno != ENOENT || !part[0])
			break;
		*strrchr(part, '/') = '\0';
	}
	return fd < 0 || fstatvfs(fd, &st) < 0 || (st.f_flag & ST_RDONLY);
}

/* ---- Names ------------------------------------------------------------------------------------
 */

/* Appends the components of path to the clean path dst[0..len), which never ends in a slash. */
static size_t append_clean(char *dst, size_t size, size_t len, const char *path)
{
	while (*path) {
		size_t n = strcspn(path, "/");

		if (n == 2 && path[0] == '.' && path[1] == '.') {
			while (len > 0 && dst[--len] != '/')
				;
		} else if (n > 1 || (n == 1 && path[0] != '.')) {
			if (len + 1 + n + 1 > size)
				return SIZE_MAX;
			dst[len++] = '/';
			memcpy(dst + len, path, n);
			len += n;
		}
		path += n;
		path += *path == '/';
	}
	return len;
}

size_t kb_path_join(char *dst, size_t size, const char *base, const char *path)
{
	size_t len = 0;

	if (path[0] != '/')
		len = append_clean(dst, size, 0, base);
	if (len != SIZE_MAX)
		len = append_clean(dst, size, len, path);
	if (len == SIZE_MAX || size < 2)
		return 0;
	if (len == 0)
		dst[len++] = '/';
	dst[len] = '\0';
	return len;
}

static void set_error(struct kb_resolved *ret, int errnum)
{
	ret->state = errnum == ENOENT ? KB_PATH_ABSENT : KB_PATH_ERROR;
	ret->errnum = errnum;
}

/* A path as the kernel printed it: cut to the session's root. */
static void set_printed(
	const struct kb_resolver *resolver, struct kb_resolved *ret, const char *text, size_t len)
{
	size_t cut = resolver->prefix;

	ret->state = KB_PATH_FOUND;
	ret->errnum = 0;
	if (text[0] != '/') {
		ret->state = KB_PATH_SPECIAL;
		cut = 0;
	} else if (cut && (len < cut || memcmp(text, resolver->prefix_path, cut) != 0 ||
				  (text[cut] != '/' && text[cut] != '\0'))) {
		/* A descriptor from outside of the root: its path means nothing inside. */
		ret->state = KB_PATH_SPECIAL;
		cut = 0;
	}
	ret->len = len - cut;
	memmove(ret->path, text + cut, ret->len);
	if (ret->len == 0)
		ret->path[ret->len++] = '/';
	ret->path[ret->len] = '\0';
}

/* A directory that has gone since, by the name it had: the kernel marks it, and nobody is helped by
 * a path "dir (deleted)/file". Files keep the mark: "/memfd:x (deleted)" is all their name. */
static size_t without_mark(int dir_fd, const char *link, const char *text, size_t len)
{
	static const char mark[] = " (deleted)";
	const size_t size = sizeof(mark) - 1;
	struct stat st;

	if (len <= size || memcmp(text + len - size, mark, size) != 0 ||
		fstatat(dir_fd, link, &st, AT_NO_AUTOMOUNT) < 0 || !S_ISDIR(st.st_mode) ||
		st.st_nlink > 0)
		return len;
	return len - size;
}

/* What a link of /proc leads to. */
static int print_link(
	const struct kb_resolver *resolver, int dir_fd, const char *link, struct kb_resolved *ret)
{
	char text[PATH_MAX];
	ssize_t n = readlinkat(dir_fd, link, text, sizeof(text) - 1);
	size_t len;

	if (n < 0)
		return -errno;
	len = without_mark(dir_fd, link, text, (size_t)n);
	text[len] = '\0';
	set_printed(resolver, ret, text, len);
	return 0;
}

static int print_own_fd(const struct kb_resolver *resolver, int fd, struct kb_resolved *ret)
{
	char name[16];

	snprintf(name, sizeof(name), "%d", fd);
	return print_link(resolver, resolver->self_fd, name, ret);
}

/* A link of the caller's /proc directory: "cwd" or "fd/N". */
static int print_caller_link(const struct kb_resolver *resolver, const struct kb_caller *caller,
	const char *link, struct kb_resolved *ret)
{
	char name[64];

	if (!caller->leader) {
		snprintf(name, sizeof(name), "task/%d/%s", caller->tid, link);
		link = name;
	}
	return print_link(resolver, caller->proc_fd, link, ret);
}

void kb_resolve_fd(const struct kb_resolver *resolver, const struct kb_caller *caller, int fd,
	struct kb_resolved *ret)
{
	char link[32];
	int r;

	ret->len = 0;
	ret->path[0] = '\0';
	if (fd == AT_FDCWD)
		snprintf(link, sizeof(link), "cwd");
	else
		snprintf(link, sizeof(link), "fd/%d", fd);
	r = print_caller_link(resolver, caller, link, ret);
	if (r < 0) {
		ret->state = KB_PATH_ERROR;
		ret->errnum = r == -ENOENT ? EBADF : -r;
	}
}

/* ---- The walk ---------------------------------------------------------------------------------
 */

struct walk {
	const struct kb_resolver *resolver;
	const struct kb_caller *caller;
	struct kb_resolved *ret; /* ret->path: what is resolved; "" is the root */
	char todo[KB_RESOLVED_MAX];
	int links;
};

/* Takes the next component off the list. False when there is none. */
static bool next_component(struct walk *w, char name[NAME_MAX + 1], bool *ret_last)
{
	char *at = w->todo + strspn(w->todo, "/");
	size_t n = strcspn(at, "/");

	if (n == 0)
		return false;
	*ret_last = at[n] == '\0';
	snprintf(name, NAME_MAX + 1, "%.*s", (int)n, at);
	memmove(w->todo, at + n, strlen(at + n) + 1);
	return true;
}

static int push_todo(struct walk *w, const char *text)
{
	size_t n = strlen(text), rest = strlen(w->todo);

	if (n + rest + 2 > sizeof(w->todo))
		return -ENAMETOOLONG;
	memmove(w->todo + n, w->todo, rest + 1);
	memcpy(w->todo, text, n);
	return 0;
}

static int append_done(struct walk *w, const char *name)
{
	size_t len = append_clean(w->ret->path, KB_RESOLVED_MAX - 1, w->ret->len, name);

	if (len == SIZE_MAX)
		return -ENAMETOOLONG;
	w->ret->len = len;
	w->ret->path[len] = '\0';
	return 0;
}

static bool in_proc(const struct walk *w)
{
	return strncmp(w->ret->path, "/proc/", 6) == 0;
}

/* Links whose target is an object, not a name. */
static bool magic(const struct walk *w, const char *text)
{
	return in_proc(w) && (text[0] == '/' || strchr(text, '[') || strchr(text, ':'));
}

static int follow(struct walk *w, int fd)
{
	char text[PATH_MAX];
	ssize_t n;

	if (++w->links > LINKS_MAX)
		return -ELOOP;
	n = readlinkat(fd, "", text, sizeof(text) - 1);
	if (n <= 0)
		return n < 0 ? -errno : -ENOENT;
	text[n] = '\0';
	if (magic(w, text)) {
		set_printed(w->resolver, w->ret, text, (size_t)n);
		if (w->ret->len == 1 && w->ret->path[0] == '/')
			w->ret->len = 0;
		return w->ret->state == KB_PATH_SPECIAL && w->todo[0] ? -ENOTDIR : 0;
	}
	if (text[0] == '/')
		w->ret->len = 0;
	w->ret->path[w->ret->len] = '\0';
	return push_todo(w, text);
}

/* /proc/self as the caller sees it. */
static const char *own_name(const struct walk *w, const char *name, char buf[64])
{
	if (strcmp(w->ret->path, "/proc") != 0)
		return name;
	if (strcmp(name, "self") == 0)
		snprintf(buf, 64, "%u", w->caller->vpid);
	else if (strcmp(name, "thread-self") == 0)
		snprintf(buf, 64, "%u/task/%u", w->caller->vpid, w->caller->vtid);
	else
		return name;
	return buf;
}

static int step(struct walk *w, const char *component, bool follow_it)
{
	char buf[64];
	const char *name = own_name(w, component, buf);
	size_t before = w->ret->len;
	KB_CLOSE int fd = -1;
	struct stat st;
	int r;

	r = append_done(w, name);
	if (r < 0 || strcmp(component, "..") == 0)
		return r;
	fd = open_scoped(w->resolver->root_fd, w->ret->path, O_NOFOLLOW, RESOLVE_NO_SYMLINKS);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISLNK(st.st_mode))
		return w->todo[0] && !S_ISDIR(st.st_mode) ? -ENOTDIR : 0;
	if (!follow_it)
		return 0;
	w->ret->len = before;
	r = follow(w, fd);
	if (r == -ELOOP)
		append_done(w, name);
	return r;
}

static void walk(const struct kb_resolver *resolver, const struct kb_caller *caller,
	const char *joined, unsigned flags, struct kb_resolved *ret)
{
	struct walk w = {.resolver = resolver, .caller = caller, .ret = ret};
	char name[NAME_MAX + 1];
	bool last;
	int r;

	snprintf(w.todo, sizeof(w.todo), "%s", joined);
	ret->len = 0;
	ret->path[0] = '\0';
	ret->state = KB_PATH_FOUND;
	ret->errnum = 0;
	while (next_component(&w, name, &last)) {
		r = step(&w, name, !last || !(flags & KB_RESOLVE_NOFOLLOW));
		if (r < 0) {
			/* Where it would be: the rest as it is written. */
			append_done(&w, w.todo);
			set_error(ret, -r);
			break;
		}
	}
	if (ret->len == 0)
		snprintf(ret->path, KB_RESOLVED_MAX, "/");
	ret->len = strlen(ret->path);
}

/* ---- The shorter ways -------------------------------------------------------------------------
 */

static bool starts(const struct kb_resolved *path, const char *prefix)
{
	return strncmp(path->path, prefix, strlen(prefix)) == 0;
}

/* The last component is missing but its directory is there: the path is the directory's plus it. */
static bool absent_in_parent(
	const struct kb_resolver *resolver, char *joined, struct kb_resolved *ret)
{
	char *slash = strrchr(joined, '/');
	const char *last = slash + 1;
	KB_CLOSE int fd = -1;
	char none[1];
	int r;

	if (!*last || strcmp(last, ".") == 0 || strcmp(last, "..") == 0)
		return false;
	*slash = '\0';
	fd = open_scoped(resolver->root_fd, joined, O_DIRECTORY, 0);
	*slash = '/';
	/* A link that dangles has a target to be found. */
	if (fd < 0 || readlinkat(fd, last, none, 1) >= 0 || errno != ENOENT)
		return false;
	r = print_own_fd(resolver, fd, ret);
	if (r < 0 || ret->state != KB_PATH_FOUND || starts(ret, "/proc/"))
		return false;
	ret->len = append_clean(ret->path, KB_RESOLVED_MAX - 1, ret->len > 1 ? ret->len : 0, last);
	if (ret->len == SIZE_MAX)
		return false;
	ret->path[ret->len] = '\0';
	set_error(ret, ENOENT);
	return true;
}

static void linked(const struct kb_resolver *resolver, const struct kb_caller *caller, char *joined,
	unsigned flags, struct kb_resolved *ret)
{
	int nofollow = flags & KB_RESOLVE_NOFOLLOW ? O_NOFOLLOW : 0;
	KB_CLOSE int fd = open_scoped(resolver->root_fd, joined, nofollow, 0);

	if (fd >= 0 && print_own_fd(resolver, fd, ret) == 0 && ret->state == KB_PATH_FOUND &&
		!starts(ret, "/proc/"))
		return;
	if (fd == -ENOENT && absent_in_parent(resolver, joined, ret))
		return;
	walk(resolver, caller, joined, flags, ret);
}

/* RESOLVE_IN_ROOT and RESOLVE_BENEATH make the directory the root of the lookup. */
static void scoped(const struct kb_resolver *resolver, const char *base, const char *path,
	unsigned flags, struct kb_resolved *ret)
{
	int nofollow = flags & KB_RESOLVE_NOFOLLOW ? O_NOFOLLOW : 0;
	KB_CLOSE int dir = open_scoped(resolver->root_fd, base, O_DIRECTORY, 0);
	KB_CLOSE int fd = dir >= 0 ? open_scoped(dir, path, nofollow, 0) : dir;
	char clean[KB_RESOLVED_MAX];

	if (fd >= 0 && print_own_fd(resolver, fd, ret) == 0)
		return;
	/* ".." stops at the directory. */
	if (kb_path_join(clean, sizeof(clean), "/", path) == 0)
		clean[0] = '\0';
	ret->len = kb_path_join(ret->path, KB_RESOLVED_MAX, base, clean + (clean[0] == '/'));
	set_error(ret, fd < 0 ? -fd : EIO);
}

static void resolve_joined(const struct kb_resolver *resolver, const struct kb_caller *caller,
	char *joined, unsigned flags, struct kb_resolved *ret)
{
	int nofollow = flags & KB_RESOLVE_NOFOLLOW ? O_NOFOLLOW : 0;
	int fd = open_scoped(resolver->root_fd, joined, nofollow, RESOLVE_NO_SYMLINKS);

	if (fd == -ELOOP) {
		linked(resolver, caller, joined, flags, ret);
		return;
	}
	if (fd >= 0)
		close(fd);
	ret->state = KB_PATH_FOUND;
	ret->errnum = 0;
	if (fd < 0)
		set_error(ret, -fd);
	ret->len = kb_path_join(ret->path, KB_RESOLVED_MAX, "/", joined);
	if (ret->len == 0)
		set_error(ret, ENAMETOOLONG);
}

void kb_resolve_from(const struct kb_resolver *resolver, const struct kb_caller *caller,
	const char *base, const char *path, unsigned flags, struct kb_resolved *ret)
{
	size_t base_len = path[0] == '/' ? 0 : strlen(base), len = strlen(path);
	char joined[KB_RESOLVED_MAX];

	if (flags & KB_RESOLVE_SCOPED) {
		scoped(resolver, base, path, flags, ret);
		return;
	}
	if (base_len + len + 2 > sizeof(joined)) {
		ret->len = 0;
		ret->path[0] = '\0';
		set_error(ret, ENAMETOOLONG);
		return;
	}
	/* Not cleaned: only the kernel knows where "link/.." leads. */
	memcpy(joined, base, base_len + 1);
	if (base_len)
		joined[base_len++] = '/';
	memcpy(joined + base_len, path, len + 1);
	/* A trailing slash asks for the directory a link leads to. */
	if (len > 0 && path[len - 1] == '/')
		flags &= ~KB_RESOLVE_NOFOLLOW;
	resolve_joined(resolver, caller, joined, flags, ret);
}

void kb_resolve(const struct kb_resolver *resolver, const struct kb_caller *caller, int dirfd,
	const char *path, unsigned flags, struct kb_resolved *ret)
{
	char base[KB_RESOLVED_MAX];

	ret->len = 0;
	ret->path[0] = '\0';
	if (!path[0] && !(flags & KB_RESOLVE_EMPTY)) {
		set_error(ret, ENOENT);
		return;
	}
	base[0] = '\0';
	if (path[0] != '/' || flags & KB_RESOLVE_SCOPED) {
		kb_resolve_fd(resolver, caller, dirfd, ret);
		if (!path[0] || ret->state == KB_PATH_ERROR)
			return;
		if (ret->state == KB_PATH_SPECIAL) {
			set_error(ret, ENOTDIR);
			return;
		}
		memcpy(base, ret->path, ret->len);
		base[ret->len] = '\0';
	}
	kb_resolve_from(resolver, caller, base, path, flags, ret);
}
