#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fd.h"
#include "os.h"
#include "util.h"

#define HIGH_FD 64 /* sources are moved up here first, so that no target overwrites a source */

/* Where in the child it went wrong; travels through the pipe with the errno. */
enum step { STEP_SETUP, STEP_CWD, STEP_EXEC };
struct report {
	enum step step;
	int errnum;
};

static int place_fds(const struct kb_spawn_fd *fds, size_t n, int null_fd)
{
	int high[KB_SPAWN_FDS_MAX];

	for (size_t i = 0; i < n; i++) {
		high[i] = fcntl(fds[i].from, F_DUPFD_CLOEXEC, HIGH_FD);
		if (high[i] < 0)
			return -errno;
	}
	for (int fd = 0; fd <= 2; fd++)
		if (dup2(null_fd, fd) < 0)
			return -errno;
	if (kb_os_cloexec_from(3) < 0)
		return -errno;
	for (size_t i = 0; i < n; i++)
		if (dup2(high[i], fds[i].to) < 0)
			return -errno;
	return 0;
}

static void reset_signals(void)
{
	sigset_t none;

	for (int signo = 1; signo < NSIG; signo++)
		if (signo != SIGKILL && signo != SIGSTOP)
			(void)signal(signo, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void give_up(int report_fd, enum step step, int errnum)
{
	struct report report = {step, errnum};
	ssize_t n = write(report_fd, &report, sizeof(report));

	_exit(n == sizeof(report) ? 127 : 126);
}

static _Noreturn void child(const struct kb_spawn *spawn, pid_t parent, int report_fd)
{
	static const char *const no_env[] = {NULL};
	const char *const *env = spawn->env ? spawn->env : no_env;
	int null_fd, r;

	reset_signals();
	if ((spawn->flags & KB_SPAWN_PDEATHSIG) && kb_os_die_with_parent(parent) < 0)
		give_up(report_fd, STEP_SETUP, errno);
	if ((spawn->flags & KB_SPAWN_SETSID) && setsid() < 0)
		give_up(report_fd, STEP_SETUP, errno);
	report_fd = fcntl(report_fd, F_DUPFD_CLOEXEC, HIGH_FD);
	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	null_fd = null_fd < 0 ? null_fd : fcntl(null_fd, F_DUPFD_CLOEXEC, HIGH_FD);
	if (report_fd < 0 || null_fd < 0)
		_exit(126);
	r = place_fds(spawn->fds, spawn->n_fds, null_fd);
	if (r < 0)
		give_up(report_fd, STEP_SETUP, -r);
	if (spawn->cwd && chdir(spawn->cwd) < 0)
		give_up(report_fd, STEP_CWD, errno);
	execve(spawn->path, (char *const *)spawn->argv, (char *const *)env);
	give_up(report_fd, STEP_EXEC, errno);
}

static int wait_for_exec(int fd, const struct kb_spawn *spawn, pid_t pid, struct kb_err *err)
{
	struct report report;
	int status;

	if (kb_fd_read_exact(fd, &report, sizeof(report), NULL) < 0) {
		/* Closed by the exec (or by death: the caller's waitpid tells). */
		return 0;
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (report.step == STEP_CWD)
		return kb_err_sys(
			err, report.errnum, "%s cannot be started in %s", spawn->path, spawn->cwd);
	return kb_err_sys(err, report.errnum, "%s cannot be started", spawn->path);
}

int kb_spawn(const struct kb_spawn *spawn, pid_t *ret_pid, struct kb_err *err)
{
	KB_CLOSE int report_r = -1;
	int report[2], r;
	pid_t parent = getpid(), pid;

	if (spawn->n_fds > KB_SPAWN_FDS_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "more than %d fds", KB_SPAWN_FDS_MAX);
	if (kb_os_pipe(report, false) < 0)
		return kb_err_sys(err, errno, "a pipe cannot be made");
	report_r = report[0];
	pid = fork();
	if (pid == 0)
		child(spawn, parent, report[1]);
	close(report[1]);
	if (pid < 0)
		return kb_err_sys(err, errno, "a process cannot be started");
	r = wait_for_exec(report_r, spawn, pid, err);
	if (r < 0)
		return r;
	*ret_pid = pid;
	return 0;
}

void kb_exit_describe(int status, char *ret)
{
	const char *abbrev;

	if (WIFEXITED(status)) {
		snprintf(ret, KB_EXIT_TEXT, "exit %d", WEXITSTATUS(status));
		return;
	}
	abbrev = WIFSIGNALED(status) ? kb_os_signal_name(WTERMSIG(status)) : NULL;
	if (abbrev)
		snprintf(ret, KB_EXIT_TEXT, "killed by SIG%s", abbrev);
	else
		snprintf(ret, KB_EXIT_TEXT, "status 0x%x", (unsigned)status);
}
