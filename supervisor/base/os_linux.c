/* What only Linux offers, behind the portable names of fd.h and os.h. */
#include "os.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fd.h"

int kb_fd_peer(int sock, struct kb_peer *ret, struct kb_err *err)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return kb_err_sys(err, errno, "the peer's credentials cannot be read");
	*ret = (struct kb_peer){.uid = cred.uid, .gid = cred.gid, .pid = cred.pid};
	return 0;
}

int kb_fd_accept(int listener)
{
	return accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

int kb_os_pipe(int ret[2], bool nonblock)
{
	return pipe2(ret, O_CLOEXEC | (nonblock ? O_NONBLOCK : 0));
}

int kb_os_socket(int domain, int type, int protocol, bool nonblock)
{
	return socket(domain, type | SOCK_CLOEXEC | (nonblock ? SOCK_NONBLOCK : 0), protocol);
}

int kb_os_socketpair(int type, int ret[2])
{
	return socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ret);
}

ssize_t kb_os_recvmsg(int sock, struct msghdr *msg)
{
	return recvmsg(sock, msg, MSG_CMSG_CLOEXEC);
}

int kb_os_random(void *ret, size_t len)
{
	return getrandom(ret, len, 0) == (ssize_t)len ? 0 : -1;
}

void kb_os_wipe(void *memory, size_t len)
{
	explicit_bzero(memory, len);
}

void kb_os_keep_private(void)
{
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

static int64_t nanoseconds(struct timespec t)
{
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t kb_os_mtime(const struct stat *st)
{
	return nanoseconds(st->st_mtim);
}

int64_t kb_os_ctime(const struct stat *st)
{
	return nanoseconds(st->st_ctim);
}

int kb_os_process_open(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

int kb_os_process_kill(int process, pid_t pid, int signo)
{
	return (int)syscall(SYS_pidfd_send_signal, process, signo, NULL, 0);
}

int kb_os_signal_open(const sigset_t *set)
{
	return sigprocmask(SIG_BLOCK, set, NULL) < 0 ? -1 : signalfd(-1, set, SFD_CLOEXEC);
}

int kb_os_signal_take(int fd)
{
	struct signalfd_siginfo info;

	return read(fd, &info, sizeof(info)) == sizeof(info) ? (int)info.ssi_signo : -1;
}

int kb_os_clone(int in, int out)
{
	return ioctl(out, FICLONE, in);
}

int kb_os_sync(int fd)
{
	return fdatasync(fd);
}

int kb_os_allocate(int fd, off_t len)
{
	errno = posix_fallocate(fd, 0, len);
	return errno ? -1 : 0;
}

ssize_t kb_os_copy(int in, int out, off_t *at, size_t len)
{
	return sendfile(out, in, at, len);
}

int kb_os_rename_new(const char *from, const char *to)
{
	return renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE);
}

int kb_os_unnamed_file(int dir)
{
	return openat(dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
}

int kb_os_name_file(int fd, int dir, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return linkat(AT_FDCWD, path, dir, name, AT_SYMLINK_FOLLOW);
}

int kb_os_cloexec_from(int first)
{
	return close_range((unsigned)first, ~0u, CLOSE_RANGE_CLOEXEC);
}

int kb_os_die_with_parent(pid_t parent)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return -1;
	if (getppid() != parent) { /* it went before the request took effect */
		errno = ESRCH;
		return -1;
	}
	return 0;
}

const char *kb_os_signal_name(int signo)
{
	return sigabbrev_np(signo);
}

int kb_os_self_path(char *ret, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", ret, size);

	if (n < 0)
		return -1;
	if ((size_t)n >= size) {
		errno = ENAMETOOLONG;
		return -1;
	}
	ret[n] = '\0';
	return 0;
}

int kb_os_forbid_dumps(pid_t pid)
{
	/* 1, because 0 still allows it where a program takes the dumps; see core(5). */
	struct rlimit none = {1, 1};

	return prlimit(pid, RLIMIT_CORE, &none, NULL);
}
