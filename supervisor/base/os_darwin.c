/* The same on macOS. Compiled by the test `darwin`, and by who builds there. */
#define __STDC_WANT_LIB_EXT1__ 1 /* memset_s */
#include "os.h"

#include <errno.h>
#include <fcntl.h>
#include <mach-o/dyld.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/event.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "fd.h"

static int prepare(int fd, bool nonblock)
{
	int flags = nonblock ? fcntl(fd, F_GETFL) : 0;

	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return -1;
	return nonblock ? fcntl(fd, F_SETFL, flags | O_NONBLOCK) : 0;
}

static int prepare_both(int fds[2], bool nonblock)
{
	int saved;

	if (prepare(fds[0], nonblock) == 0 && prepare(fds[1], nonblock) == 0)
		return 0;
	saved = errno;
	close(fds[0]);
	close(fds[1]);
	errno = saved;
	return -1;
}

static int prepare_or_close(int fd, bool nonblock)
{
	int saved;

	if (fd < 0 || prepare(fd, nonblock) == 0)
		return fd;
	saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

int kb_os_pipe(int ret[2], bool nonblock)
{
	return pipe(ret) < 0 ? -1 : prepare_both(ret, nonblock);
}

int kb_os_socket(int domain, int type, int protocol, bool nonblock)
{
	return prepare_or_close(socket(domain, type, protocol), nonblock);
}

int kb_os_socketpair(int type, int ret[2])
{
	return socketpair(AF_UNIX, type, 0, ret) < 0 ? -1 : prepare_both(ret, false);
}

int kb_fd_accept(int listener)
{
	return prepare_or_close(accept(listener, NULL, NULL), true);
}

ssize_t kb_os_recvmsg(int sock, struct msghdr *msg)
{
	ssize_t n = recvmsg(sock, msg, 0);

	for (struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		int fd;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < fds; i++) {
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			(void)fcntl(fd, F_SETFD, FD_CLOEXEC);
		}
	}
	return n;
}

int kb_os_random(void *ret, size_t len)
{
	return getentropy(ret, len);
}

void kb_os_wipe(void *memory, size_t len)
{
	(void)memset_s(memory, len, 0, len);
}

void kb_os_keep_private(void)
{
	/* A task port, which is what it takes, is given to debuggers with the right to it alone. */
}

int kb_fd_peer(int sock, struct kb_peer *ret, struct kb_err *err)
{
	socklen_t len = sizeof(ret->pid);

	if (getpeereid(sock, &ret->uid, &ret->gid) < 0 ||
		getsockopt(sock, SOL_LOCAL, LOCAL_PEERPID, &ret->pid, &len) < 0)
		return kb_err_sys(err, errno, "the peer's credentials cannot be read");
	return 0;
}

static int64_t nanoseconds(struct timespec t)
{
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t kb_os_mtime(const struct stat *st)
{
	return nanoseconds(st->st_mtimespec);
}

int64_t kb_os_ctime(const struct stat *st)
{
	return nanoseconds(st->st_ctimespec);
}

/* A kqueue is readable while it has events. */
static int watch(struct kevent *changes, int n)
{
	int queue = prepare_or_close(kqueue(), false), saved;

	if (queue < 0 || kevent(queue, changes, n, NULL, 0, NULL) == 0)
		return queue;
	saved = errno;
	close(queue);
	errno = saved;
	return -1;
}

int kb_os_process_open(pid_t pid)
{
	struct kevent end;

	EV_SET(&end, pid, EVFILT_PROC, EV_ADD, NOTE_EXIT, 0, NULL);
	return watch(&end, 1);
}

int kb_os_process_kill(int process, pid_t pid, int signo)
{
	return kill(pid, signo);
}

int kb_os_signal_open(const sigset_t *set)
{
	struct kevent changes[NSIG];
	int n = 0;

	for (int signo = 1; signo < NSIG; signo++)
		if (sigismember(set, signo) == 1) {
			EV_SET(&changes[n], signo, EVFILT_SIGNAL, EV_ADD, 0, 0, NULL);
			n++;
		}
	return sigprocmask(SIG_BLOCK, set, NULL) < 0 ? -1 : watch(changes, n);
}

int kb_os_signal_take(int fd)
{
	const struct timespec now = {0};
	struct kevent event;

	return kevent(fd, NULL, 0, &event, 1, &now) == 1 ? (int)event.ident : -1;
}

/* clonefile(2) makes the file itself: an open one is copied byte by byte. */
int kb_os_clone(int in, int out)
{
	errno = ENOTSUP;
	return -1;
}

int kb_os_sync(int fd)
{
	return fcntl(fd, F_FULLFSYNC);
}

int kb_os_allocate(int fd, off_t len)
{
	fstore_t store = {
		.fst_flags = F_ALLOCATEALL, .fst_posmode = F_PEOFPOSMODE, .fst_length = len};

	return fcntl(fd, F_PREALLOCATE, &store) < 0 ? -1 : ftruncate(fd, len);
}

ssize_t kb_os_copy(int in, int out, off_t *at, size_t len)
{
	char bytes[65536];
	ssize_t n = pread(in, bytes, len < sizeof(bytes) ? len : sizeof(bytes), *at);

	if (n > 0)
		n = write(out, bytes, (size_t)n);
	if (n > 0)
		*at += n;
	return n;
}

int kb_os_rename_new(const char *from, const char *to)
{
	return renamex_np(from, to, RENAME_EXCL);
}

/* There are none. */
int kb_os_unnamed_file(int dir)
{
	errno = ENOTSUP;
	return -1;
}

int kb_os_name_file(int fd, int dir, const char *name)
{
	errno = ENOTSUP;
	return -1;
}

int kb_os_cloexec_from(int first)
{
	int end = getdtablesize();

	for (int fd = first; fd < end; fd++)
		(void)fcntl(fd, F_SETFD, FD_CLOEXEC);
	return 0;
}

int kb_os_die_with_parent(pid_t parent)
{
	if (getppid() == parent)
		return 0;
	errno = ESRCH;
	return -1;
}

const char *kb_os_signal_name(int signo)
{
	return signo > 0 && signo < NSIG ? sys_signame[signo] : NULL;
}

int kb_os_self_path(char *ret, size_t size)
{
	uint32_t room = (uint32_t)size;

	if (_NSGetExecutablePath(ret, &room) == 0)
		return 0;
	errno = ENAMETOOLONG;
	return -1;
}

int kb_os_forbid_dumps(pid_t pid)
{
	/* Off unless its user turned them on; only the process itself can change that. */
	return 0;
}
