#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/os.h"

#define LOCK_POLL_MS 20
#define COPY_CHUNK   (1u << 20)
#define TAIL_SIZE    4096
#define REMOVE_MS    120000

int kb_vm_path(struct kb_vmctl *vm, char ret[PATH_MAX], struct kb_err *err, const char *fmt, ...)
{
	int n;
	va_list ap;

	va_start(ap, fmt);
	n = vsnprintf(ret, PATH_MAX, fmt, ap);
	va_end(ap);
	return n >= 0 && n < PATH_MAX
		       ? 0
		       : kb_err_set(err, KB_ERR_LIMIT, "a path is too long: %s", ret);
}

int kb_vm_id_new(char ret[KB_VM_ID_SIZE], struct kb_err *err)
{
	static const char alphabet[] = "0123456789abcdefghjkmnpqrstvwxyz";
	uint8_t bytes[KB_VM_ID_SIZE - 1];

	if (kb_os_random(bytes, sizeof(bytes)) < 0)
		return kb_err_sys(err, errno, "no random bytes");
	for (size_t i = 0; i < sizeof(bytes); i++)
		ret[i] = alphabet[bytes[i] % 32];
	ret[sizeof(bytes)] = '\0';
	return 0;
}

/* ---- our locks ---- */

static int try_lock(const char *path, bool create, int *ret_fd)
{
	KB_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
	struct stat mine, there;

	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return -errno;
	/* Its last holder may have removed the file: then this lock guards nothing. */
	if (fstat(fd, &mine) < 0 || stat(path, &there) < 0 || mine.st_ino != there.st_ino)
		return -EAGAIN;
	*ret_fd = kb_steal_fd(&fd);
	return 0;
}

int kb_lock_name(
	struct kb_vmctl *vm, const char *name, int64_t timeout_ms, int *ret_fd, struct kb_err *err)
{
	int64_t deadline = kb_now_mono() + timeout_ms * 1000000;
	char path[PATH_MAX];
	bool said = false;
	int r = kb_vm_path(vm, path, err, "%s/locks/%s", vm->state, name);

	while (r == 0) {
		int e = try_lock(path, true, ret_fd);

		if (e == 0)
			return 0;
		if (e != -EWOULDBLOCK && e != -EAGAIN)
			return kb_err_sys(err, -e, "%s cannot be locked", path);
		if (kb_now_mono() >= deadline)
			return kb_err_set(err, KB_ERR_TIMEOUT,
				"%s is busy: another operation on it has been running for %lld s",
				name, (long long)timeout_ms / 1000);
		if (!said)
			kb_op_progress(vm, "wait", "another operation on %s is running", name);
		said = true;
		r = kb_op_sleep(vm, LOCK_POLL_MS, err);
	}
	return r;
}

bool kb_lock_name_held(struct kb_vmctl *vm, const char *name)
{
	char path[PATH_MAX];
	int fd;

	if (kb_vm_path(vm, path, NULL, "%s/locks/%s", vm->state, name) < 0)
		return false;
	switch (try_lock(path, false, &fd)) {
	case 0:
		close(fd);
		return false;
	case -EWOULDBLOCK:
		return true;
	default:
		return false;
	}
}

void kb_lock_name_forget(struct kb_vmctl *vm, const char *name)
{
	char path[PATH_MAX];

	if (kb_vm_path(vm, path, NULL, "%s/locks/%s", vm->state, name) == 0)
		unlink(path);
}

int kb_tmp_create(struct kb_vmctl *vm, char ret_path[PATH_MAX], int *ret_lock, struct kb_err *err)
{
	char id[KB_VM_ID_SIZE];
	int r = kb_vm_id_new(id, err);

	if (r < 0 || (r = kb_vm_path(vm, ret_path, err, "%s/tmp/%s", vm->state, id)) < 0)
		return r;
	if (mkdir(ret_path, 0700) < 0)
		return kb_err_sys(err, errno, "%s cannot be made", ret_path);
	*ret_lock = open(ret_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*ret_lock < 0 || flock(*ret_lock, LOCK_EX | LOCK_NB) < 0) {
		kb_close(ret_lock);
		return kb_err_sys(err, errno, "%s cannot be locked", ret_path);
	}
	return 0;
}

/* Between mkdir and flock a directory looks abandoned; it has this long. */
#define TMP_GRACE_S 10

static bool tmp_abandoned(const char *path)
{
	KB_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
		return false;
	return (kb_now_real() - kb_os_ctime(&st)) / 1000000000 > TMP_GRACE_S;
}

const char *kb_tmp_id(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

int kb_tmp_collect(struct kb_vmctl *vm, struct kb_err *err)
{
	char dir[PATH_MAX], path[PATH_MAX];
	struct dirent *entry;
	DIR *d;
	int r = kb_vm_path(vm, dir, err, "%s/tmp", vm->state);

	if (r < 0 || !(d = opendir(dir)))
		return r;
	while (r == 0 && (entry = readdir(d))) {
		if (entry->d_name[0] == '.')
			continue;
		r = kb_vm_path(vm, path, err, "%s/%s", dir, entry->d_name);
		/* Its process, if any, is collected as one that belongs to nothing. */
		if (r == 0 && tmp_abandoned(path))
			r = kb_tree_remove(vm, path, err);
	}
	closedir(d);
	return r;
}

int kb_fsync_path(const char *path, struct kb_err *err)
{
	KB_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) < 0)
		return kb_err_sys(err, errno, "%s cannot be written through", path);
	return 0;
}

int kb_dir_publish(const char *from, const char *to, struct kb_err *err)
{
	char parent[PATH_MAX];
	char *slash;

	snprintf(parent, sizeof(parent), "%s", to);
	slash = strrchr(parent, '/');
	if (slash)
		*slash = '\0';
	if (kb_os_rename_new(from, to) < 0) {
		if (errno == EEXIST)
			return kb_err_set(err, KB_ERR_EXISTS, "%s exists", to);
		return kb_err_sys(err, errno, "%s cannot be put in place", to);
	}
	return kb_fsync_path(parent, err);
}

json_t *kb_dir_entries(const char *path)
{
	json_t *list = json_object();
	struct dirent *entry;
	DIR *d = opendir(path);

	while (d && (entry = readdir(d)))
		if (entry->d_name[0] != '.')
			json_object_set_new(list, entry->d_name, json_true());
	if (d)
		closedir(d);
	return list;
}

/* ---- QEMU's lock ---- */

pid_t kb_pid_of(struct kb_vmctl *vm, const char *id)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char path[PATH_MAX];

	if (kb_vm_path(vm, path, NULL, "%s/%s/pid", vm->run, id) < 0)
		return 0;
	KB_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || fcntl(fd, F_GETLK, &lock) < 0 || lock.l_type == F_UNLCK)
		return 0;
	return lock.l_pid;
}

int kb_run_connect(
	struct kb_vmctl *vm, const char *id, const char *name, int *ret_fd, struct kb_err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int n = snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/%s/%s.sock", vm->run, id, name);
	KB_CLOSE int fd = -1;

	if (n >= (int)sizeof(addr.sun_path))
		return kb_err_set(err, KB_ERR_LIMIT, "%s/%s/%s.sock is too long for a socket",
			vm->run, id, name);
	fd = kb_os_socket(AF_UNIX, SOCK_STREAM, 0, true);
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return kb_err_sys(err, errno, "%s cannot be reached", addr.sun_path);
	*ret_fd = kb_steal_fd(&fd);
	return 0;
}

/* ---- copies, sizes, hashes ---- */

static int copy_range(int in, int out, off_t at, off_t end, struct kb_err *err)
{
	if (lseek(out, at, SEEK_SET) < 0)
		return kb_err_sys(err, errno, "seek");
	while (at < end) {
		ssize_t n = kb_os_copy(in, out, &at, KB_MIN((size_t)(end - at), COPY_CHUNK));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return kb_err_sys(err, errno, "a copy failed");
		if (n == 0)
			return 0;
	}
	return 0;
}

static int copy_data(int in, int out, off_t size, struct kb_err *err)
{
	off_t at = 0;
	int r = 0;

	if (kb_os_clone(in, out) == 0)
		return 0;
	if (ftruncate(out, size) < 0)
		return kb_err_sys(err, errno, "a copy cannot get its size");
	while (r == 0 && (at = lseek(in, at, SEEK_DATA)) >= 0) {
		off_t end = lseek(in, at, SEEK_HOLE);

		r = copy_range(in, out, at, end, err);
		at = end;
	}
	return r;
}

int kb_file_copy(const char *from, const char *to, mode_t mode, struct kb_err *err)
{
	KB_CLOSE int in = open(from, O_RDONLY | O_CLOEXEC);
	KB_CLOSE int out = -1;
	struct stat st;
	int r;

	if (in < 0 || fstat(in, &st) < 0)
		return kb_err_sys(err, errno, "%s cannot be read", from);
	out = open(to, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	if (out < 0)
		return kb_err_sys(err, errno, "%s cannot be created", to);
	r = copy_data(in, out, st.st_size, err);
	if (r < 0) {
		unlink(to);
		kb_err_prefix(err, "%s", to);
	}
	return r;
}

void kb_file_last_line(const char *path, const char *having, char *ret, size_t size)
{
	KB_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	char tail[TAIL_SIZE + 1], *save = NULL;
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return;
	n = pread(fd, tail, TAIL_SIZE, KB_MAX(0, st.st_size - TAIL_SIZE));
	tail[KB_MAX(n, 0)] = '\0';
	for (char *line = strtok_r(tail, "\r\n", &save); line; line = strtok_r(NULL, "\r\n", &save))
		if (!having || strstr(line, having))
			snprintf(ret, size, "%s", line);
}

static uint64_t blocks_at(int dirfd, const char *name, int depth)
{
	struct stat st;
	uint64_t sum;
	DIR *d;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	sum = (uint64_t)st.st_blocks * 512;
	if (!S_ISDIR(st.st_mode) || depth == 0)
		return sum;
	KB_CLOSE int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	d = fd >= 0 ? fdopendir(dup(fd)) : NULL;
	for (struct dirent *e; d && (e = readdir(d));)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			sum += blocks_at(fd, e->d_name, depth - 1);
	if (d)
		closedir(d);
	return sum;
}

int kb_tree_remove(struct kb_vmctl *vm, const char *path, struct kb_err *err)
{
	const char *const argv[] = {
		"unshare", "--map-root-user", "--map-auto", "--", "rm", "-rf", "--", path, NULL};

	if (kb_rmtree(path, NULL) == 0)
		return 0;
	return geteuid() == 0 ? kb_rmtree(path, err) : kb_op_run(vm, NULL, argv, REMOVE_MS, err);
}

void kb_tree_drop(struct kb_vmctl *vm, const char *path)
{
	vm->shielded++;
	kb_tree_remove(vm, path, NULL);
	vm->shielded--;
}

uint64_t kb_tree_blocks(const char *path)
{
	return blocks_at(AT_FDCWD, path, 4);
}

int kb_space_check(const char *path, uint64_t need, struct kb_err *err)
{
	struct statvfs fs;
	uint64_t have;

	if (statvfs(path, &fs) < 0)
		return kb_err_sys(err, errno, "%s cannot be measured", path);
	have = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (have >= need)
		return 0;
	kb_err_set(err, KB_ERR_LIMIT, "%llu MiB are needed where %s is, and %llu are free",
		(unsigned long long)need >> 20, path, (unsigned long long)have >> 20);
	return kb_err_hint(err, "make room: `kbsup vm list` shows what machines occupy");
}

int kb_file_hash(const char *path, char ret[KB_HASH_TEXT], struct kb_err *err)
{
	KB_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	uint8_t chunk[65536], digest[32];
	ssize_t n = -1;
	bool good = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);

	while (fd >= 0 && good && (n = read(fd, chunk, sizeof(chunk))) > 0)
		good = EVP_DigestUpdate(ctx, chunk, (size_t)n);
	good = good && n == 0 && EVP_DigestFinal_ex(ctx, digest, NULL);
	EVP_MD_CTX_free(ctx);
	if (!good)
		return kb_err_sys(err, errno ? errno : EIO, "%s cannot be hashed", path);
	for (size_t i = 0; i < sizeof(digest); i++)
		snprintf(ret + 2 * i, 3, "%02x", digest[i]);
	return 0;
}
