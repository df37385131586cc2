/* The far end of `ssh machine kbsup-guest --attach`. The front lives on when ssh does not. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/spawn.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"
#include "supervisor/guest/front.h"

#define START_MS 5000 /* for a new front to answer */
#define POLL_MS	 20
#define CHUNK	 (32u << 10)

static int connect_to(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	KB_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(addr.sun_path))
		return -1;
	memcpy(addr.sun_path, path, strlen(path) + 1);
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return -1;
	return kb_steal_fd(&fd);
}

/* Its child is nobody's: it goes on without us, and writes what it has to say into a file. */
static int start_front(const char *socket, const char *state, struct kb_err *err)
{
	KB_FREE char *socket_arg = kb_asprintf("--socket=%s", socket);
	KB_FREE char *state_arg = state ? kb_asprintf("--state=%s", state) : NULL;
	KB_FREE char *log = kb_asprintf("%s.log", socket);
	const char *const argv[] = {
		"kbsup-guest", "--serve", "--leave", socket_arg, state_arg, NULL};
	KB_CLOSE int log_fd =
		log ? open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600) : -1;
	const struct kb_spawn_fd fds[] = {{log_fd, STDERR_FILENO}};
	struct kb_spawn spawn = {.path = "/proc/self/exe",
		.argv = argv,
		.env = (const char *const *)environ,
		.cwd = "/",
		.fds = fds,
		.n_fds = log_fd >= 0,
		.flags = KB_SPAWN_SETSID};
	pid_t pid;

	return socket_arg ? kb_spawn(&spawn, &pid, err) : kb_err_nomem(err);
}

static int reach_front(const char *socket, const char *state, int *ret_fd, struct kb_err *err)
{
	int64_t deadline = kb_now_mono() + START_MS * INT64_C(1000000);
	int fd = connect_to(socket), r = 0;

	if (fd < 0)
		r = start_front(socket, state, err);
	while (fd < 0 && r == 0 && kb_now_mono() < deadline) {
		usleep(POLL_MS * 1000);
		fd = connect_to(socket);
	}
	if (r == 0 && fd < 0)
		r = kb_err_sys(err, errno, "kbsup-guest does not answer on %s", socket);
	*ret_fd = fd;
	return r;
}

/* False at the end of `from`, or when nobody takes it. */
static bool copy(int from, int to)
{
	char bytes[CHUNK];
	ssize_t n = read(from, bytes, sizeof(bytes));

	if (n < 0 && errno == EINTR)
		return true;
	return n > 0 && kb_fd_write_all(to, bytes, (size_t)n, NULL) == 0;
}

static void splice_stdio(int fd)
{
	struct pollfd polls[] = {{STDIN_FILENO, POLLIN, 0}, {fd, POLLIN, 0}};

	for (;;) {
		if (poll(polls, 2, -1) < 0 && errno != EINTR)
			return;
		if (polls[0].revents && !copy(STDIN_FILENO, fd))
			return;
		if (polls[1].revents && !copy(fd, STDOUT_FILENO))
			return;
	}
}

int kb_front_attach(const char *socket, const char *state)
{
	KB_CLOSE int fd = -1;
	struct kb_err err;

	signal(SIGPIPE, SIG_IGN);
	if (reach_front(socket, state, &fd, &err) < 0) {
		kb_log_error("%s", err.msg);
		return 1;
	}
	splice_stdio(fd);
	return 0;
}
