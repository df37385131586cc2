#include "op.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/os.h"
#include "supervisor/base/spawn.h"

#define KILL_MS 5000

extern char **environ;

void kb_op_progress(struct kb_vmctl *vm, const char *step, const char *fmt, ...)
{
	char detail[KB_OP_LINE_MAX] = "";
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(detail, sizeof(detail), fmt, ap);
	va_end(ap);
	kb_log_debug("%s: %s", step, detail);
	vm->tail_n = 0;
	if (vm->progress)
		vm->progress(step, detail, vm->arg);
}

void kb_op_output(struct kb_vmctl *vm, const char *step, const char *line)
{
	size_t at = (vm->tail_at + vm->tail_n) % KB_VM_TAIL_MAX;

	snprintf(vm->tail[at], sizeof(vm->tail[at]), "%s", line);
	if (vm->tail_n < KB_VM_TAIL_MAX)
		vm->tail_n++;
	else
		vm->tail_at = (vm->tail_at + 1) % KB_VM_TAIL_MAX;
	kb_log_debug("%s: %s", step, line);
	if (vm->output)
		vm->output(step, line, vm->arg);
}

size_t kb_vmctl_tail(const struct kb_vmctl *vm, const char *ret[KB_VM_TAIL_MAX])
{
	for (size_t i = 0; i < vm->tail_n; i++)
		ret[i] = vm->tail[(vm->tail_at + i) % KB_VM_TAIL_MAX];
	return vm->tail_n;
}

static void end_line(struct kb_op_lines *lines)
{
	lines->line[lines->len] = '\0';
	if (lines->len > 0) {
		memcpy(lines->last, lines->line, lines->len + 1);
		if (lines->step)
			kb_op_output(lines->vm, lines->step, lines->line);
	}
	lines->len = 0;
}

void kb_op_lines_take(struct kb_op_lines *lines, const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		bool end = data[i] == '\n' || data[i] == '\r';

		if (end || lines->len == sizeof(lines->line) - 1)
			end_line(lines);
		if (!end)
			lines->line[lines->len++] = data[i] ? data[i] : '?';
	}
}

void kb_op_lines_end(struct kb_op_lines *lines)
{
	end_line(lines);
}

int kb_op_wait(struct kb_vmctl *vm, const bool *done, int64_t timeout_ms, const char *what,
	struct kb_err *err)
{
	int r = kb_source_arm(vm->timer, timeout_ms, err);

	vm->expired = false;
	while (r == 0 && !*done && !vm->expired && !(vm->cancelled && !vm->shielded))
		r = kb_loop_run(vm->loop, err);
	kb_source_disarm(vm->timer);
	if (r < 0 || *done)
		return r;
	if (vm->expired)
		return kb_err_set(err, KB_ERR_TIMEOUT, "%s: nothing within %lld ms", what,
			(long long)timeout_ms);
	return kb_err_set(err, KB_ERR_CLOSED, "%s: cancelled", what);
}

int kb_op_sleep(struct kb_vmctl *vm, int64_t msec, struct kb_err *err)
{
	static const bool never = false;
	struct kb_err why = {0};
	int r = kb_op_wait(vm, &never, msec, "waiting", &why);

	if (r == -KB_ERR_TIMEOUT)
		return 0;
	if (r < 0 && err)
		*err = why;
	return r;
}

int kb_op_program(const char *name, char ret[PATH_MAX], const char *package, struct kb_err *err)
{
	const char *path = getenv("PATH");

	if (!path || !*path)
		path = "/usr/sbin:/usr/bin:/sbin:/bin";
	while (*path) {
		size_t len = strcspn(path, ":");
		int n = snprintf(ret, PATH_MAX, "%.*s/%s", (int)len, path, name);

		if (len > 0 && n < PATH_MAX && access(ret, X_OK) == 0)
			return 0;
		path += len + (path[len] == ':');
	}
	/* Not in a plain user's PATH, but theirs to run. */
	snprintf(ret, PATH_MAX, "/usr/sbin/%s", name);
	if (access(ret, X_OK) == 0)
		return 0;
	kb_err_set(err, KB_ERR_NOTFOUND, "%s is not installed", name);
	return kb_err_hint(err, "install it: apt-get install %s", package ? package : name);
}

/* ---- running a program ---- */

struct run {
	struct kb_vmctl *vm;
	int out, pidfd;
	struct kb_source *out_io, *end_io;
	bool ended, drained, done;
	struct kb_op_lines lines;
};

static void run_check(struct run *run)
{
	if (!run->ended || !run->drained)
		return;
	run->done = true;
	kb_loop_stop(run->vm->loop);
}

/* Take one chunk; false when nothing (more) is there now. */
static bool take_output(struct run *run)
{
	char chunk[4096];
	ssize_t n = read(run->out, chunk, sizeof(chunk));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return false;
	if (n > 0) {
		kb_op_lines_take(&run->lines, chunk, (size_t)n);
		return true;
	}
	kb_op_lines_end(&run->lines);
	run->drained = true;
	return false;
}

static void on_output(int fd, unsigned events, void *arg)
{
	struct run *run = arg;

	take_output(run);
	if (run->drained)
		kb_source_set_events(run->out_io, 0, NULL);
	run_check(run);
}

static void on_end(int fd, unsigned events, void *arg)
{
	struct run *run = arg;

	run->ended = true;
	/* A daemon it left behind may hold the pipe: what came so far is all. */
	while (!run->drained && take_output(run))
		;
	run->drained = true;
	kb_source_set_events(run->end_io, 0, NULL);
	run_check(run);
}

static void kill_group(pid_t pid, int pidfd)
{
	struct pollfd p = {pidfd, POLLIN, 0};

	kill(-pid, SIGTERM);
	if (poll(&p, 1, KILL_MS) == 0)
		kill(-pid, SIGKILL);
}

static int run_wait(struct run *run, pid_t pid, int64_t timeout_ms, struct kb_err *err)
{
	struct kb_loop *loop = run->vm->loop;
	int r = kb_fd_nonblock(run->out, err);

	if (r == 0)
		r = kb_loop_io(loop, run->out, KB_IO_READ, on_output, run, &run->out_io, err);
	if (r == 0)
		r = kb_loop_io(loop, run->pidfd, KB_IO_READ, on_end, run, &run->end_io, err);
	if (r == 0)
		r = kb_op_wait(run->vm, &run->done, timeout_ms, "a program", err);
	kb_source_destroy(run->out_io);
	kb_source_destroy(run->end_io);
	if (r < 0)
		kill_group(pid, run->pidfd);
	return r;
}

static int run_status(struct run *run, pid_t pid, const char *name, struct kb_err *err)
{
	char how[KB_EXIT_TEXT];
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return kb_err_sys(err, errno, "%s was lost", name);
	if (status == 0)
		return 0;
	kb_exit_describe(status, how);
	return kb_err_set(err, KB_ERR_FAILED, "%s failed (%s): %s", name, how, run->lines.last);
}

int kb_op_run_input(struct kb_vmctl *vm, const char *step, const char *const *argv, int input,
	int64_t timeout_ms, struct kb_err *err)
{
	struct run run = {.vm = vm, .out = -1, .pidfd = -1, .lines = {.vm = vm, .step = step}};
	char path[PATH_MAX];
	int pipes[2], r, status;
	pid_t pid;

	r = kb_op_program(argv[0], path, NULL, err);
	if (r < 0)
		return r;
	if (kb_os_pipe(pipes, false) < 0)
		return kb_err_sys(err, errno, "no pipe");
	struct kb_spawn_fd fds[] = {{pipes[1], 1}, {pipes[1], 2}, {input, 0}};
	struct kb_spawn spawn = {.path = path,
		.argv = argv,
		.env = (const char *const *)environ,
		.fds = fds,
		.n_fds = input >= 0 ? 3 : 2,
		.flags = KB_SPAWN_SETSID | KB_SPAWN_PDEATHSIG};
	r = kb_spawn(&spawn, &pid, err);
	close(pipes[1]);
	run.out = pipes[0];
	if (r == 0) {
		run.pidfd = kb_os_process_open(pid);
		r = run.pidfd < 0 ? kb_err_sys(err, errno, "%s cannot be watched", argv[0])
				  : run_wait(&run, pid, timeout_ms, err);
		status = run_status(&run, pid, argv[0], r < 0 ? NULL : err);
		r = r < 0 ? kb_err_prefix(err, "%s", argv[0]) : status;
	}
	kb_close(&run.out);
	kb_close(&run.pidfd);
	return r;
}

int kb_op_run(struct kb_vmctl *vm, const char *step, const char *const *argv, int64_t timeout_ms,
	struct kb_err *err)
{
	return kb_op_run_input(vm, step, argv, -1, timeout_ms, err);
}

/* ---- JSON files ---- */

int kb_json_load(const char *path, json_t **ret, struct kb_err *err)
{
	struct kb_buf buf KB_BUF_CLEANUP;
	json_error_t jerr;
	int r;

	kb_buf_init(&buf, KB_OP_JSON_MAX);
	r = kb_file_read(path, &buf, err);
	if (r < 0)
		return r;
	*ret = json_loadb((const char *)kb_buf_data(&buf), kb_buf_len(&buf), 0, &jerr);
	if (!json_is_object(*ret)) {
		json_decref(*ret);
		*ret = NULL;
		return kb_err_set(err, KB_ERR_INVALID, "%s is damaged: %s", path, jerr.text);
	}
	return 0;
}

int kb_json_save(const char *path, const json_t *json, struct kb_err *err)
{
	KB_FREE char *text = json_dumps(json, JSON_INDENT(2) | JSON_SORT_KEYS);

	if (!text)
		return kb_err_nomem(err);
	return kb_file_write_atomic(path, text, strlen(text), 0600, err);
}

const char *kb_json_str(const json_t *json, const char *key, const char *fallback)
{
	const char *text = json_string_value(json_object_get(json, key));

	return text ? text : fallback;
}

json_int_t kb_json_int(const json_t *json, const char *key, json_int_t fallback)
{
	const json_t *value = json_object_get(json, key);

	return json_is_integer(value) ? json_integer_value(value) : fallback;
}
