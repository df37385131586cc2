/* Commands whose output is wanted while they run: each piece goes to the host as it comes, in a
 * line
 * {"id":…,"part":"base64"}, and the answer follows when the command has ended. */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/spawn.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

#define PART_MAX 4096

static int tell(const json_t *request, const void *data, size_t len, struct kb_err *err)
{
	KB_FREE char *text = kb_base64(data, len);
	json_t *part = json_pack(
		"{s:O, s:s}", "id", json_object_get(request, "id"), "part", text ? text : "");
	int r = part ? kbm_send(part, err) : kb_err_nomem(err);

	json_decref(part);
	return r;
}

/* Pass on what there is now; false at the end of it, for now or for good. */
static bool pass_on(const json_t *request, int out)
{
	char chunk[PART_MAX];
	ssize_t n = read(out, chunk, sizeof(chunk));

	return n > 0 && tell(request, chunk, (size_t)n, NULL) == 0;
}

/* Until it has ended; a daemon that it leaves behind may hold its output open. */
static void follow(const json_t *request, pid_t pid, int out, int64_t deadline)
{
	KB_CLOSE int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd polls[2] = {{out, POLLIN, 0}, {pidfd, POLLIN, 0}};

	while (pidfd >= 0 && !polls[1].revents) {
		int64_t left = (deadline - kb_now_mono()) / 1000000;

		if (left <= 0)
			break;
		if (poll(polls, 2, (int)KB_MIN(left, 1000)) < 0 && errno != EINTR)
			break;
		if (polls[0].revents && !pass_on(request, out) && polls[0].revents & POLLHUP)
			polls[0].fd = -1; /* it closed its output and goes on */
	}
	if (kb_now_mono() >= deadline)
		kill(-pid, SIGKILL);
	while (pass_on(request, out))
		;
}

int kbm_follow(const json_t *request, json_t *reply, struct kb_err *err)
{
	json_int_t msec = json_integer_value(json_object_get(request, "timeout_ms"));
	int64_t deadline = kb_now_mono() + (msec > 0 ? msec : KBM_COMMAND_MS) * 1000000;
	const char *argv[KBM_ARGS_MAX];
	int pipes[2], status = 0, r;
	pid_t pid;

	if ((r = kbm_argv(request, argv, err)) < 0)
		return r;
	if (pipe2(pipes, O_CLOEXEC) < 0)
		return kb_err_sys(err, errno, "no pipe");
	struct kb_spawn_fd fds[] = {{pipes[1], 1}, {pipes[1], 2}};
	struct kb_spawn spawn = {.path = "/usr/bin/env",
		.argv = argv,
		.env = kbm_env,
		.cwd = "/",
		.fds = fds,
		.n_fds = 2,
		.flags = KB_SPAWN_SETSID};
	r = kb_spawn(&spawn, &pid, err);
	close(pipes[1]);
	if (r == 0 && (r = kb_fd_nonblock(pipes[0], err)) == 0)
		follow(request, pid, pipes[0], deadline);
	close(pipes[0]);
	while (r == 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	json_object_set_new(reply, "exit", json_integer(kbm_exit(status)));
	return r;
}
