/* How a session's root directory is made.
 *
 * The session process has a mount namespace of its own. On a scratch tmpfs in it stand two more
 * file systems: "rootfs", a skeleton of directories, links and generated files that ends up
 * read-only, and "data", whose size the policy's disk limit bounds and whose directories are the
 * private /tmp, home and so on. Everything else is a copy of one of the machine's mounts. Entries
 * are mounted from the shallowest to the deepest, so a workspace inside the home directory lands on
 * the private home, not under it.
 *
 * Mount points are made only on our own two file systems, never on the machine's. The source of
 * what is writable is opened without following symbolic links and mounted through that fd.
 */
#include "supervisor/guest/rootfs_private.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"
#include "supervisor/guest/etc.h"
#include "supervisor/guest/keep.h"
#include "supervisor/guest/mount.h"

#define SKELETON_MAX (4u << 20) /* bytes of the read-only skeleton */
#define SCRATCH_MAX  (16u << 20)

static const char *const devices[] = {"null", "zero", "full", "random", "urandom", "tty"};

static const struct {
	const char *path, *target;
} device_links[] = {
	{"dev/fd", "/proc/self/fd"},
	{"dev/stdin", "/proc/self/fd/0"},
	{"dev/stdout", "/proc/self/fd/1"},
	{"dev/stderr", "/proc/self/fd/2"},
	{"dev/ptmx", "pts/ptmx"},
};

static const char *const skeleton_dirs[] = {
	"proc", "dev", "dev/pts", "sys", "etc", "etc/kbsup", "var", ".kbsup"};

/* Directories that merged-usr systems have as links. */
static const char *const usr_links[] = {"bin", "sbin", "lib", "lib32", "lib64", "libx32"};

/* ---- Making mount points --------------------------------------------------------------------- */

static uint64_t mount_id(int fd)
{
	struct statx stx;

	return statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &stx) == 0 && stx.stx_mask & STATX_MNT_ID
		       ? stx.stx_mnt_id
		       : 0;
}

/* Only ours: rootfs, data and the agent's kept trees. */
static bool is_ours(const struct kb_build *b, int fd)
{
	uint64_t id;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return false;
	if (st.st_dev == b->root_dev || st.st_dev == b->data_dev)
		return true;
	id = b->n_kept ? mount_id(fd) : 0;
	for (unsigned i = 0; id && i < b->n_kept; i++)
		if (b->kept[i] == id)
			return true;
	return false;
}

/* Make one missing component below dir. */
static int make_component(const struct kb_build *b, int dir, const char *name, bool file)
{
	int fd;

	if (!is_ours(b, dir))
		return -ENOENT;
	if (!file)
		return mkdirat(dir, name, 0755) < 0 && errno != EEXIST ? -errno : 0;
	fd = openat(dir, name, O_CREAT | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

/* The directory that holds the last component of path, made if need be. */
static int parent_fd(const struct kb_build *b, const char *path, unsigned flags)
{
	char part[PATH_MAX];
	int r;

	for (const char *slash = path;;) {
		const char *next = strchr(slash + 1, '/');
		KB_CLOSE int dir = -1;
		char *name;

		snprintf(part, sizeof(part), "%.*s", (int)(slash - path), path);
		dir = kb_open_below(b->root, part[0] ? part : "/", flags | KB_OPEN_DIR);
		if (dir < 0)
			return dir;
		if (!next)
			return kb_steal_fd(&dir);
		snprintf(part, sizeof(part), "%.*s", (int)(next - path), path);
		name = part + (slash - path) + 1;
		r = faccessat(dir, name, F_OK, AT_SYMLINK_NOFOLLOW);
		if (r < 0 && errno == ENOENT) {
			r = make_component(b, dir, name, false);
			if (r < 0)
				return r;
		}
		slash = next;
	}
}

/* O_PATH fd of where path is, made if missing. flags as kb_open_below(). */
static int target_fd(const struct kb_build *b, const char *path, bool file, unsigned flags)
{
	KB_CLOSE int parent = -1;
	int fd = kb_open_below(b->root, path, flags | KB_OPEN_LAST);

	if (fd != -ENOENT)
		return fd;
	parent = parent_fd(b, path, flags);
	if (parent < 0)
		return parent;
	fd = make_component(b, parent, strrchr(path, '/') + 1, file);
	return fd < 0 ? fd : kb_open_below(b->root, path, flags | KB_OPEN_LAST);
}

/* ---- Mounting the entries -------------------------------------------------------------------- */

/* Root's sessions have root's user id and no capability: what belongs to somebody else (the person
 * in a virtual machine) would be closed to them, and must stay that person's. */
static int take_over(int mount, const struct stat *st, struct kb_err *err)
{
	const struct kb_mount_owner owner = {st->st_uid, st->st_gid}, us = {geteuid(), getegid()};

	if (us.uid != 0 || owner.uid == us.uid)
		return 0;
	return kb_mount_map_owner(mount, &owner, &us, err);
}

/* A copy of the mounts at fd, restricted, put at e->path. */
static int mount_copy(struct kb_build *b, const struct kb_entry *e, const char *path, int fd,
	unsigned attrs, unsigned target_flags, struct kb_err *err)
{
	KB_CLOSE int mount = -1;
	KB_CLOSE int target = -1;
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return kb_rootfs_path_error(err, errno, e, path, "cannot be looked at");
	target = target_fd(b, path, !S_ISDIR(st.st_mode), target_flags);
	if (target < 0)
		return kb_rootfs_path_error(err, -target, e, path, "has no place in the session");
	r = kb_mount_clone(fd, &mount, err);
	if (r == 0 && e && e->kind == KB_ENTRY_WRITE)
		r = take_over(mount, &st, err);
	if (r == 0)
		r = kb_mount_restrict(mount, attrs, true, err);
	if (r == 0)
		r = kb_mount_attach(mount, target, err);
	if (r < 0) {
		char shown[256];

		kb_escape(shown, sizeof(shown), path, strlen(path));
		return kb_err_prefix(err, "%s", shown);
	}
	return 0;
}

static int mount_private(struct kb_build *b, const struct kb_entry *e, struct kb_err *err)
{
	KB_CLOSE int dir = -1;
	char name[16];

	snprintf(name, sizeof(name), "p%u", b->n_private++);
	if (mkdirat(b->data, name, 0700) < 0 || fchmodat(b->data, name, e->mode, 0) < 0)
		return kb_rootfs_path_error(err, errno, e, e->path, "cannot be made");
	dir = openat(b->data, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return kb_rootfs_path_error(err, errno, e, e->path, "cannot be made");
	return mount_copy(b, e, e->path, dir, 0, 0, err);
}

/* The agent's own tree of this path, as its last session left it. */
static int mount_keep(struct kb_build *b, const struct kb_entry *e, struct kb_err *err)
{
	KB_CLOSE int dir = -1;
	KB_CLOSE int there = -1;
	int r;

	if (!b->spec->profile)
		return mount_private(b, e, err);
	if (b->n_kept == KB_ROOTFS_KEPT_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "the policy keeps more than %d trees",
			KB_ROOTFS_KEPT_MAX);
	r = kb_keep_open(b->spec->profile, b->spec->home, e->path, &dir, err);
	if (r == 0)
		r = mount_copy(b, e, e->path, dir, 0, 0, err);
	if (r < 0)
		return r;
	there = kb_open_below(b->root, e->path, KB_OPEN_DIR);
	if (there >= 0)
		b->kept[b->n_kept++] = mount_id(there);
	return 0;
}

/* A link of the machine becomes the same link in the skeleton: what it points to is another
 * entry's business. */
static int copy_link(struct kb_build *b, const struct kb_entry *e, int link, struct kb_err *err)
{
	KB_CLOSE int parent = parent_fd(b, e->path, 0);
	char text[PATH_MAX];
	ssize_t n = readlinkat(link, "", text, sizeof(text) - 1);

	if (parent < 0 || n < 0)
		return kb_rootfs_path_error(
			err, parent < 0 ? -parent : errno, e, e->path, "cannot be linked");
	text[n] = '\0';
	if (!is_ours(b, parent))
		return 0;
	if (symlinkat(text, parent, strrchr(e->path, '/') + 1) < 0 && errno != EEXIST)
		return kb_rootfs_path_error(err, errno, e, e->path, "cannot be linked");
	return 0;
}

static int mount_read(struct kb_build *b, const struct kb_entry *e, struct kb_err *err)
{
	/* What a session can write must not choose what another one sees: exact there. */
	bool exact = b->spec->workspace && kb_rootfs_path_below(e->path, b->spec->workspace);
	KB_CLOSE int fd =
		kb_open_below(b->source, e->path, KB_OPEN_LAST | (exact ? KB_OPEN_EXACT : 0));
	struct stat st;

	if (fd == -ENOENT || fd == -ENOTDIR) {
		if (e->optional)
			return 0;
		kb_rootfs_path_error(err, ENOENT, e, e->path, "is wanted by the policy");
		return kb_err_hint(err, "make the path on this machine, or say if-available");
	}
	if (fd < 0)
		return kb_rootfs_path_error(err, -fd, e, e->path, "cannot be opened");
	if (fstat(fd, &st) == 0 && S_ISLNK(st.st_mode))
		return copy_link(b, e, fd, err);
	return mount_copy(b, e, e->path, fd, KB_ATTR_RDONLY, 0, err);
}

static int mount_write(struct kb_build *b, const struct kb_entry *e, struct kb_err *err)
{
	KB_CLOSE int fd = kb_open_below(AT_FDCWD, e->path, KB_OPEN_EXACT);
	bool workspace = b->spec->workspace && strcmp(e->path, b->spec->workspace) == 0;
	const char *what = workspace ? "cannot be the workspace" : "cannot be made writable";

	if (fd == -ENOENT && e->optional)
		return 0;
	if (fd == -ELOOP) {
		kb_rootfs_path_error(err, ELOOP, e, e->path, what);
		return kb_err_hint(err, "it is reached through a symbolic link; give the real path "
					"(realpath prints it)");
	}
	if (fd == -ENOENT && workspace) {
		kb_rootfs_path_error(err, ENOENT, e, e->path, what);
		return kb_err_hint(err, "make the directory where the session is to run, or name "
					"another with --workspace DIR");
	}
	if (fd < 0)
		return kb_rootfs_path_error(err, -fd, e, e->path, what);
	return mount_copy(b, e, e->path, fd, 0, KB_OPEN_EXACT, err);
}

static bool gives_below(const struct kb_build *b, const struct kb_entry *top)
{
	for (size_t i = 0; i < b->n_entries; i++) {
		const struct kb_entry *e = &b->entries[i];

		if (e != top && e->kind != KB_ENTRY_HIDE &&
			kb_rootfs_path_below(e->path, top->path))
			return true;
	}
	return false;
}

/* A directory of its own for what is given in it; read-only once that is mounted. */
static int mount_stand_in(struct kb_build *b, const struct kb_entry *e, struct kb_err *err)
{
	KB_CLOSE int dir = -1;
	char name[16];
	int r, there;

	if (b->n_stand_ins == KB_ROOTFS_STAND_INS_MAX)
		return kb_err_set(err, KB_ERR_LIMIT,
			"the policy gives something in more than %d hidden directories",
			KB_ROOTFS_STAND_INS_MAX);
	snprintf(name, sizeof(name), "h%u", b->n_stand_ins);
	if (mkdirat(b->data, name, 0755) < 0)
		return kb_rootfs_path_error(err, errno, e, e->path, "cannot be hidden");
	dir = openat(b->data, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return kb_rootfs_path_error(err, errno, e, e->path, "cannot be hidden");
	r = mount_copy(b, e, e->path, dir, KB_ATTR_NOEXEC, 0, err);
	if (r < 0)
		return r;
	there = kb_open_below(b->root, e->path, KB_OPEN_DIR);
	if (there < 0)
		return kb_rootfs_path_error(err, -there, e, e->path, "cannot be hidden");
	b->stand_ins[b->n_stand_ins++] = there;
	return 0;
}

/* Is what is there of the way to path a tree that the session writes? */
static bool in_written_tree(const struct kb_build *b, const char *path)
{
	char part[PATH_MAX];
	struct stat st;
	int dir = -ENOENT;
	bool ret;

	snprintf(part, sizeof(part), "%s", path);
	while (dir == -ENOENT && part[0]) {
		*strrchr(part, '/') = '\0';
		dir = kb_open_below(b->root, part[0] ? part : "/", KB_OPEN_DIR);
	}
	ret = dir >= 0 && fstat(dir, &st) == 0 && st.st_dev != b->root_dev && is_ours(b, dir);
	if (dir >= 0)
		kb_close(&dir);
	return ret;
}

/* Where a denied path of such a tree will be: of the kind that the machine has there, else a
 * directory. -ENOENT where nothing has to be hidden. */
static int denied_place(const struct kb_build *b, const struct kb_entry *e)
{
	KB_CLOSE int machines = kb_open_below(b->source, e->path, KB_OPEN_LAST);
	struct stat st;
	bool file = machines >= 0 && fstat(machines, &st) == 0 && !S_ISDIR(st.st_mode);

	return in_written_tree(b, e->path) ? target_fd(b, e->path, file, 0) : -ENOENT;
}

/* Cover what is visible there by now, or could be made there. */
static int mount_hide(struct kb_build *b, const struct kb_entry *e, struct kb_err *err)
{
	KB_CLOSE int there = kb_open_below(b->root, e->path, 0);
	KB_CLOSE int mount = -1;
	struct stat st;
	int r;

	if (there == -ENOENT && e->vague == KB_ENTRY_NAMED)
		there = denied_place(b, e);
	if (there == -ENOENT || there == -ENOTDIR || there == -ELOOP)
		return 0;
	if (there < 0 || fstat(there, &st) < 0)
		return kb_rootfs_path_error(
			err, there < 0 ? -there : errno, e, e->path, "cannot be hidden");
	if (S_ISDIR(st.st_mode) && gives_below(b, e))
		return mount_stand_in(b, e, err);
	r = kb_mount_clone(S_ISDIR(st.st_mode) ? b->hidden_dir : b->hidden_file, &mount, err);
	if (r == 0)
		r = kb_mount_restrict(mount, KB_ATTR_RDONLY | KB_ATTR_NOEXEC, false, err);
	return r < 0 ? r : kb_mount_attach(mount, there, err);
}

static int mount_init(struct kb_build *b, const struct kb_entry *e, struct kb_err *err)
{
	KB_CLOSE int fd = kb_open_below(AT_FDCWD, e->source, 0);

	if (fd < 0)
		return kb_rootfs_path_error(err, -fd, NULL, e->source, "cannot be opened");
	return mount_copy(b, e, e->path, fd, KB_ATTR_RDONLY, 0, err);
}

/* A file of our own, once more at the place where programs look. */
static int mount_again(struct kb_build *b, const struct kb_entry *e, struct kb_err *err)
{
	KB_CLOSE int fd = kb_open_below(b->root, e->source, KB_OPEN_EXACT);
	KB_CLOSE int there = e->optional ? kb_open_below(b->root, e->path, KB_OPEN_EXACT) : -1;

	if (fd < 0)
		return kb_rootfs_path_error(err, -fd, NULL, e->source, "cannot be opened");
	if (e->optional && there < 0)
		return 0;
	return mount_copy(b, e, e->path, fd, KB_ATTR_RDONLY, 0, err);
}

static int (*const mount_entry[])(struct kb_build *, const struct kb_entry *, struct kb_err *) = {
	[KB_ENTRY_PRIVATE] = mount_private,
	[KB_ENTRY_KEEP] = mount_keep,
	[KB_ENTRY_READ] = mount_read,
	[KB_ENTRY_WRITE] = mount_write,
	[KB_ENTRY_HIDE] = mount_hide,
	[KB_ENTRY_INIT] = mount_init,
	[KB_ENTRY_AGAIN] = mount_again,
};

/* ---- In order ----------------------------------------------------------------------------- */

static int by_depth(const void *a, const void *b)
{
	const struct kb_entry *x = a, *y = b;

	if (x->depth != y->depth)
		return x->depth < y->depth ? -1 : 1;
	return strcmp(x->path, y->path);
}

static int mount_entries(struct kb_build *b, struct kb_err *err)
{
	int r = 0;

	qsort(b->entries, b->n_entries, sizeof(*b->entries), by_depth);
	for (size_t i = 0; i < b->n_entries && r == 0; i++)
		r = mount_entry[b->entries[i].kind](b, &b->entries[i], err);
	for (unsigned i = 0; i < b->n_stand_ins && r == 0; i++)
		r = kb_mount_restrict(b->stand_ins[i], KB_ATTR_RDONLY | KB_ATTR_NOEXEC, false, err);
	return r;
}

/* A right on a path that is not there could not be given: init would only know that it failed. */
static int check_rights(const struct kb_build *b, struct kb_err *err)
{
	const struct kb_landlock_rule *rights;
	const struct kb_rule *rules;
	size_t n = kb_bundle_landlock(b->spec->bundle, &rights);
	size_t n_rules = kb_bundle_rules(b->spec->bundle, &rules);

	for (size_t i = 0; i < n; i++) {
		const struct kb_entry e = {
			.rule = rights[i].rule < n_rules ? rules[rights[i].rule].id : NULL};
		KB_CLOSE int fd = -1;

		if (rights[i].optional || kb_rootfs_is_kernels(rights[i].path))
			continue;
		fd = kb_open_below(b->root, rights[i].path, KB_OPEN_LAST);
		if (fd != -ENOENT && fd != -ENOTDIR)
			continue;
		kb_rootfs_path_error(err, -fd, &e, rights[i].path, "is wanted by the policy");
		return kb_err_hint(err, "make the path on this machine, or say if-available");
	}
	return 0;
}

/* ---- The skeleton ---------------------------------------------------------------------------- */

/* A new tmpfs of at most `size` bytes on `name` below dir. */
static int mount_fs(int dir, const char *name, uint64_t size, int *ret_fd, struct kb_err *err)
{
	KB_CLOSE int target = openat(dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	KB_CLOSE int mount = -1;
	int r;

	if (target < 0)
		return kb_err_sys(err, errno, "%s cannot be opened", name);
	r = kb_mount_tmpfs(size, 0755, &mount, err);
	if (r == 0)
		r = kb_mount_attach(mount, target, err);
	if (r == 0)
		*ret_fd = kb_steal_fd(&mount);
	return r;
}

static int make_hidden(struct kb_build *b)
{
	int fd;

	if (mkdirat(b->data, "hidden", 0) < 0)
		return -errno;
	fd = openat(b->data, "nothing", O_CREAT | O_WRONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	close(fd);
	b->hidden_dir = openat(b->data, "hidden", O_PATH | O_CLOEXEC);
	b->hidden_file = openat(b->data, "nothing", O_PATH | O_CLOEXEC);
	return b->hidden_dir < 0 || b->hidden_file < 0 ? -errno : 0;
}

static int make_file_systems(struct kb_build *b, const char *dir, struct kb_err *err)
{
	static const char *const subdirs[] = {"rootfs", "data", "runtime"};
	struct stat root, data;
	int r = mount_fs(AT_FDCWD, dir, SCRATCH_MAX, &b->scratch, err);

	for (size_t i = 0; i < KB_ARRAY_LEN(subdirs) && r == 0; i++)
		if (mkdirat(b->scratch, subdirs[i], 0700) < 0)
			r = kb_err_sys(err, errno, "%s cannot be made", subdirs[i]);
	if (r == 0)
		r = mount_fs(b->scratch, "rootfs", SKELETON_MAX, &b->root, err);
	if (r == 0)
		r = mount_fs(b->scratch, "data", b->spec->disk, &b->data, err);
	if (r < 0)
		return r;
	if (fstat(b->root, &root) < 0 || fstat(b->data, &data) < 0)
		return kb_err_sys(err, errno, "a private file system cannot be looked at");
	b->root_dev = root.st_dev;
	b->data_dev = data.st_dev;
	r = make_hidden(b);
	return r < 0 ? kb_err_sys(err, -r, "stand-ins for hidden paths cannot be made") : 0;
}

/* bin → usr/bin and so on, where the machine has them as links. */
static int make_usr_links(struct kb_build *b, struct kb_err *err)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(usr_links); i++) {
		char path[16], text[PATH_MAX];
		KB_CLOSE int fd = -1;
		ssize_t n;

		snprintf(path, sizeof(path), "/%s", usr_links[i]);
		fd = kb_open_below(b->source, path, KB_OPEN_LAST);
		n = fd < 0 ? -1 : readlinkat(fd, "", text, sizeof(text) - 1);
		if (n < 0)
			continue;
		text[n] = '\0';
		if (symlinkat(text, b->root, usr_links[i]) < 0)
			return kb_err_sys(err, errno, "/%s cannot be linked", usr_links[i]);
	}
	return 0;
}

static int make_devices(struct kb_build *b, struct kb_err *err)
{
	int r = 0;

	for (size_t i = 0; i < KB_ARRAY_LEN(devices) && r == 0; i++) {
		KB_CLOSE int fd = -1;
		char path[32];

		snprintf(path, sizeof(path), "/dev/%s", devices[i]);
		fd = kb_open_below(AT_FDCWD, path, 0);
		r = fd < 0 ? kb_err_sys(err, -fd, "%s cannot be opened", path)
			   : mount_copy(b, NULL, path, fd, KB_ATTR_DEV | KB_ATTR_NOEXEC, 0, err);
	}
	for (size_t i = 0; i < KB_ARRAY_LEN(device_links) && r == 0; i++)
		if (symlinkat(device_links[i].target, b->root, device_links[i].path) < 0)
			r = kb_err_sys(err, errno, "%s cannot be linked", device_links[i].path);
	return r;
}

static int make_skeleton(struct kb_build *b, struct kb_err *err)
{
	int r;

	for (size_t i = 0; i < KB_ARRAY_LEN(skeleton_dirs); i++)
		if (mkdirat(b->root, skeleton_dirs[i], 0755) < 0)
			return kb_err_sys(err, errno, "/%s cannot be made", skeleton_dirs[i]);
	r = make_devices(b, err);
	if (r < 0 || !b->spec->bundle)
		return r;
	r = make_usr_links(b, err);
	return r < 0 ? r : kb_etc_write(b->root, b->spec, err);
}

static int open_source(struct kb_build *b, struct kb_err *err)
{
	if (!b->spec->source)
		return 0;
	b->source = kb_open_below(AT_FDCWD, b->spec->source, KB_OPEN_DIR);
	if (b->source >= 0)
		return 0;
	kb_rootfs_path_error(
		err, -b->source, NULL, b->spec->source, "cannot be the root file system");
	return kb_err_hint(err, "--rootfs wants a directory with a usr in it");
}

static int build(struct kb_build *b, const char *dir, struct kb_err *err)
{
	int r = open_source(b, err);

	if (r == 0)
		r = kb_rootfs_collect(b, err);
	if (r == 0)
		r = make_file_systems(b, dir, err);
	if (r == 0)
		r = make_skeleton(b, err);
	if (r == 0)
		r = mount_entries(b, err);
	if (r == 0 && b->spec->bundle)
		r = check_rights(b, err);
	return r < 0 ? r : kb_mount_restrict(b->root, KB_ATTR_RDONLY | KB_ATTR_DEV, false, err);
}

int kb_rootfs_build(const struct kb_rootfs_spec *spec, const char *dir, struct kb_rootfs *ret,
	struct kb_err *err)
{
	struct kb_rootfs out = {.scratch = -1};
	struct kb_build b = {.spec = spec,
		.out = &out,
		.scratch = -1,
		.root = -1,
		.data = -1,
		.source = AT_FDCWD,
		.hidden_dir = -1,
		.hidden_file = -1};
	int r;

	b.entries = calloc(KB_ROOTFS_ENTRIES_MAX, sizeof(*b.entries));
	r = b.entries ? build(&b, dir, err) : kb_err_nomem(err);
	free(b.entries);
	for (size_t i = 0; i < b.n_matches; i++)
		free(b.matches[i]);
	free(b.matches);
	kb_close(&b.root);
	kb_close(&b.data);
	kb_close(&b.hidden_dir);
	kb_close(&b.hidden_file);
	while (b.n_stand_ins)
		kb_close(&b.stand_ins[--b.n_stand_ins]);
	if (b.source >= 0)
		kb_close(&b.source);
	if (r < 0) {
		kb_close(&b.scratch);
		return r;
	}
	out.scratch = b.scratch;
	*ret = out;
	return 0;
}
