/* What only Linux offers, behind the portable names of fd.h and os.h. */
#include "os.h"

#include <errno.h>
#include <linux/close_range.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
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
