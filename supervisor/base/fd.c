#include "fd.h"
#include "os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

int kb_fd_nonblock(int fd, struct kb_err *err)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return kb_err_sys(err, errno, "fd %d cannot be made non-blocking", fd);
	return 0;
}

int kb_fd_cloexec(int fd, bool on, struct kb_err *err)
{
	if (fcntl(fd, F_SETFD, on ? FD_CLOEXEC : 0) < 0)
		return kb_err_sys(err, errno, "close-on-exec of fd %d cannot be set", fd);
	return 0;
}

int kb_fd_socketpair(bool seqpacket, int ret[2], struct kb_err *err)
{
	if (kb_os_socketpair(seqpacket ? SOCK_SEQPACKET : SOCK_STREAM, ret) < 0)
		return kb_err_sys(err, errno, "a socket pair cannot be made");
	return 0;
}

#define BACKLOG 64

int kb_fd_listen_loopback(unsigned *port, int *ret, struct kb_err *err)
{
	struct sockaddr_in sa = {.sin_family = AF_INET,
		.sin_port = htons((uint16_t)*port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	KB_CLOSE int fd = kb_os_socket(AF_INET, SOCK_STREAM, 0, true);
	socklen_t len = sizeof(sa);
	const int on = 1;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
		bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, BACKLOG) < 0 ||
		getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
		return kb_err_sys(err, errno, "127.0.0.1:%u cannot be listened on", *port);
	*port = ntohs(sa.sin_port);
	*ret = kb_steal_fd(&fd);
	return 0;
}

int kb_fd_send(
	int sock, const void *data, size_t len, const int *fds, size_t n_fds, struct kb_err *err)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * KB_FD_PASS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = (void *)data, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c;
	ssize_t n;

	if (n_fds > KB_FD_PASS_MAX)
		return kb_err_set(
			err, KB_ERR_LIMIT, "more than %d fds in a message", KB_FD_PASS_MAX);
	if (n_fds > 0) {
		memset(&control, 0, sizeof(control));
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
	}
	do
		n = sendmsg(sock, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return kb_err_sys(err, errno, "a message cannot be sent");
	if ((size_t)n != len)
		return kb_err_set(err, KB_ERR_FAILED, "a message was sent in part only");
	return 0;
}

/* Take the fds out of a received message; those beyond n_fds are closed. */
static void take_fds(struct msghdr *msg, int *ret_fds, size_t n_fds)
{
	size_t used = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (used < n_fds)
				ret_fds[used++] = fd;
			else
				close(fd);
		}
	}
}

ssize_t kb_fd_recv(int sock, void *data, size_t len, int *ret_fds, size_t n_fds, struct kb_err *err)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * KB_FD_PASS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = data, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf)};
	ssize_t n;

	for (size_t i = 0; i < n_fds; i++)
		ret_fds[i] = -1;
	do
		n = kb_os_recvmsg(sock, &msg);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return kb_err_sys(err, errno, "a message cannot be received");
	take_fds(&msg, ret_fds, n_fds);
	if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
		for (size_t i = 0; i < n_fds; i++)
			kb_close(&ret_fds[i]);
		return kb_err_set(
			err, KB_ERR_LIMIT, "a message was larger than its bound of %zu bytes", len);
	}
	return n;
}

int kb_fd_write_all(int fd, const void *data, size_t len, struct kb_err *err)
{
	const uint8_t *p = data;
	ssize_t n;

	while (len > 0) {
		n = write(fd, p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return kb_err_sys(err, errno, "write failed");
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int kb_fd_read_exact(int fd, void *data, size_t len, struct kb_err *err)
{
	uint8_t *p = data;
	ssize_t n;

	while (len > 0) {
		n = read(fd, p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return kb_err_sys(err, errno, "read failed");
		if (n == 0)
			return kb_err_set(err, KB_ERR_CLOSED, "the other end closed early");
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int kb_file_read(const char *path, struct kb_buf *buf, struct kb_err *err)
{
	KB_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	uint8_t chunk[16384];
	ssize_t n;
	int r;

	if (fd < 0)
		return kb_err_sys(err, errno, "%s cannot be read", path);
	for (;;) {
		n = read(fd, chunk, sizeof(chunk));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return kb_err_sys(err, errno, "%s cannot be read", path);
		if (n == 0)
			return 0;
		r = kb_buf_append(buf, chunk, (size_t)n, err);
		if (r < 0)
			return kb_err_prefix(err, "%s", path);
	}
}

static int write_new(int fd, const void *data, size_t len, bool durable, struct kb_err *err)
{
	int r = kb_fd_write_all(fd, data, len, err);

	if (r == 0 && durable && fsync(fd) < 0)
		r = kb_err_sys(err, errno, "fsync failed");
	return r;
}

static int replace(const char *path, const void *data, size_t len, mode_t mode, bool durable,
	struct kb_err *err)
{
	KB_FREE char *tmp = NULL;
	KB_CLOSE int fd = -1;
	int r;

	if (asprintf(&tmp, "%s.tmp.%d", path, (int)getpid()) < 0) {
		tmp = NULL;
		return kb_err_nomem(err);
	}
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
	if (fd < 0)
		return kb_err_sys(err, errno, "%s cannot be created", tmp);
	r = write_new(fd, data, len, durable, err);
	if (r == 0 && rename(tmp, path) < 0)
		r = kb_err_sys(err, errno, "%s cannot be put in place", path);
	if (r < 0) {
		unlink(tmp);
		return kb_err_prefix(err, "%s", path);
	}
	return 0;
}

int kb_file_write_atomic(
	const char *path, const void *data, size_t len, mode_t mode, struct kb_err *err)
{
	return replace(path, data, len, mode, true, err);
}

int kb_file_write_soon(
	const char *path, const void *data, size_t len, mode_t mode, struct kb_err *err)
{
	return replace(path, data, len, mode, false, err);
}

int kb_mkdirs(const char *path, mode_t mode, struct kb_err *err)
{
	KB_FREE char *copy = strdup(path);
	struct stat st;

	if (!copy)
		return kb_err_nomem(err);
	if (path[0] == '\0')
		return kb_err_set(err, KB_ERR_INVALID, "a directory needs a name");
	for (char *p = copy + 1;; p++) {
		char c = *p;

		if (c != '/' && c != '\0')
			continue;
		*p = '\0';
		if (mkdir(copy, mode) < 0 && errno != EEXIST)
			return kb_err_sys(err, errno, "directory %s cannot be made", copy);
		*p = c;
		if (c == '\0')
			break;
	}
	if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
		return kb_err_sys(err, ENOTDIR, "%s", path);
	return 0;
}

#define KB_RMTREE_DEPTH_MAX 256

/* Remove what is in dirfd (taken). The depth is bounded; deeper trees report ELOOP. */
static int empty_dir(int dirfd, dev_t dev, int depth)
{
	DIR *dir = fdopendir(dirfd);
	struct dirent *e;
	int r = 0;

	if (!dir) {
		close(dirfd);
		return -errno;
	}
	while (r == 0 && (e = readdir(dir))) {
		struct stat st;
		int sub;

		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (unlinkat(dirfd, e->d_name, 0) == 0 || errno == ENOENT)
			continue;
		if (errno != EISDIR && errno != EPERM) {
			r = -errno;
			break;
		}
		if (depth == 0) {
			r = -ELOOP;
			break;
		}
		sub = openat(dirfd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (sub < 0 && errno == EACCES && fchmodat(dirfd, e->d_name, 0700, 0) == 0)
			sub = openat(
				dirfd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (sub < 0) {
			r = -errno;
			break;
		}
		if (fstat(sub, &st) < 0 || st.st_dev != dev) {
			close(sub);
			r = -EXDEV;
			break;
		}
		(void)fchmod(sub, 0700);
		r = empty_dir(sub, dev, depth - 1);
		if (r == 0 && unlinkat(dirfd, e->d_name, AT_REMOVEDIR) < 0)
			r = -errno;
	}
	closedir(dir);
	return r;
}

int kb_rmtree(const char *path, struct kb_err *err)
{
	struct stat st;
	int fd, r;

	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0)
		return kb_err_sys(err, errno, "%s cannot be removed", path);
	if (fstat(fd, &st) < 0) {
		r = -errno;
		close(fd);
	} else {
		r = empty_dir(fd, st.st_dev, KB_RMTREE_DEPTH_MAX);
	}
	if (r == 0 && rmdir(path) < 0)
		r = -errno;
	if (r < 0)
		return kb_err_sys(err, -r, "%s cannot be removed", path);
	return 0;
}

int kb_fd_close_from(int first, const int *keep, size_t n_keep, struct kb_err *err)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *e;

	if (!dir)
		return kb_err_sys(err, errno, "/proc/self/fd cannot be listed");
	while ((e = readdir(dir))) {
		int fd = (int)strtol(e->d_name, NULL, 10);
		bool kept = e->d_name[0] == '.' || fd < first || fd == dirfd(dir);

		for (size_t i = 0; i < n_keep && !kept; i++)
			kept = keep[i] == fd;
		if (!kept)
			close(fd);
	}
	closedir(dir);
	return 0;
}
