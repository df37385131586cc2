#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "main.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/os.h"
#include "supervisor/base/util.h"

#define BACKLOG	      128
#define ACTIVATION_FD 3

/* ---- One per user ---------------------------------------------------------------------------- */

static int held_by_other(int fd, const char *path, struct kb_err *err)
{
	char text[32] = "";
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	int pid = n > 0 ? (int)strtol(text, NULL, 10) : 0;

	if (pid <= 0)
		return kb_err_set(
			err, KB_ERR_EXISTS, "another supervisor is starting: %s is held", path);
	kb_err_set(err, KB_ERR_EXISTS, "another supervisor is running: pid %d holds %s", pid, path);
	return kb_err_hint(err, "one is enough for all sessions; end it with `kill %d`", pid);
}

int kb_listen_lock(const struct kb_dirs *dirs, int *ret, struct kb_err *err)
{
	char path[PATH_MAX + 16], text[32];
	KB_CLOSE int fd = -1;
	int len;

	snprintf(path, sizeof(path), "%s/kbsupd.lock", dirs->runtime);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return kb_err_sys(err, errno, "%s cannot be opened", path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? held_by_other(fd, path, err)
					    : kb_err_sys(err, errno, "%s cannot be locked", path);
	len = snprintf(text, sizeof(text), "%d\n", (int)getpid());
	if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)len, 0) != len)
		return kb_err_sys(err, errno, "%s cannot be written", path);
	*ret = kb_steal_fd(&fd);
	return 0;
}

/* ---- The control socket ---------------------------------------------------------------------- */

/* sd_listen_fds(3): LISTEN_PID is us, LISTEN_FDS says how many from fd 3 on. */
static int from_systemd(int *ret, struct kb_err *err)
{
	const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
	int type = 0, listening = 0;
	socklen_t len = sizeof(type);

	if (!pid || !fds || strtol(pid, NULL, 10) != getpid() || strtol(fds, NULL, 10) < 1)
		return 0;
	if (getsockopt(ACTIVATION_FD, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
		type != SOCK_STREAM ||
		getsockopt(ACTIVATION_FD, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0 ||
		!listening)
		return kb_err_set(err, KB_ERR_INVALID,
			"the socket handed over by LISTEN_FDS is not a listening stream socket");
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	*ret = ACTIVATION_FD;
	return 1;
}

/* We hold the lock: a socket that lies there belongs to nobody. */
static int bind_own(const char *path, int *ret, struct kb_err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	KB_CLOSE int fd = kb_os_socket(AF_UNIX, SOCK_STREAM, 0, false);
	mode_t old;
	int r;

	if (fd < 0)
		return kb_err_sys(err, errno, "a socket cannot be made");
	if (unlink(path) < 0 && errno != ENOENT)
		return kb_err_sys(err, errno, "%s cannot be replaced", path);
	memcpy(addr.sun_path, path, strlen(path) + 1); /* kb_dirs_find() checked its length */
	old = umask(0177);
	r = bind(fd, (struct sockaddr *)&addr, sizeof(addr));
	umask(old);
	if (r < 0 || listen(fd, BACKLOG) < 0)
		return kb_err_sys(err, errno, "%s cannot be listened on", path);
	*ret = kb_steal_fd(&fd);
	return 0;
}

int kb_listen_open(const struct kb_dirs *dirs, int *ret, bool *ret_activated, struct kb_err *err)
{
	int fd = -1, r = from_systemd(&fd, err);

	if (r < 0)
		return r;
	*ret_activated = r > 0;
	if (r == 0)
		r = bind_own(dirs->socket, &fd, err);
	else
		r = kb_fd_cloexec(fd, true, err);
	if (r == 0)
		r = kb_fd_nonblock(fd, err);
	if (r == 0)
		*ret = fd;
	return r;
}
