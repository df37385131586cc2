/* Commands. */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/base/buf.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/spawn.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

const char *const kbm_env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"HOME=/root", "LANG=C.UTF-8", NULL};

int kbm_string(const json_t *request, const char *key, const char **ret, struct kb_err *err)
{
	*ret = json_string_value(json_object_get(request, key));
	return *ret ? 0 : kb_err_set(err, KB_ERR_INVALID, "%s is missing", key);
}

int kbm_unhex(const char *text, uint8_t *ret, size_t size, struct kb_err *err)
{
	size_t len = strlen(text) / 2;

	if (strlen(text) % 2 || len > size || strspn(text, "0123456789abcdef") != 2 * len)
		return kb_err_set(err, KB_ERR_INVALID, "malformed hex");
	for (size_t i = 0; i < len; i++) {
		const char digits[3] = {text[2 * i], text[2 * i + 1]};

		ret[i] = (uint8_t)strtoul(digits, NULL, 16);
	}
	return (int)len;
}

bool kbm_has_text(const char *path, const char *text)
{
	struct kb_buf buf KB_BUF_CLEANUP;

	kb_buf_init(&buf, KBM_LINE_MAX);
	return kb_file_read(path, &buf, NULL) == 0 && kb_buf_len(&buf) == strlen(text) &&
	       memcmp(kb_buf_data(&buf), text, strlen(text)) == 0;
}

/* In place: the file system then has nothing to find, to enter or to take away, and little of its
 * code to run. That counts in a fork, which does this first and runs everything for the first time.
 * Only a plain file that nobody else knows by another name. */
static int overwrite(const char *path, const char *text, mode_t mode)
{
	KB_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, mode);
	size_t len = strlen(text);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_nlink != 1)
		return -1;
	if ((st.st_mode & 07777) != mode && fchmod(fd, mode) < 0)
		return -1;
	if (kb_fd_write_all(fd, text, len, NULL) < 0)
		return -1;
	return st.st_size > (off_t)len ? ftruncate(fd, (off_t)len) : 0;
}

int kbm_write(const char *path, const char *text, mode_t mode, struct kb_err *err)
{
	if (kbm_has_text(path, text) || overwrite(path, text, mode) == 0)
		return 0;
	/* Gone first: ext4 writes a file that takes another's place out at once. */
	unlink(path);
	return kb_file_write_soon(path, text, strlen(text), mode, err);
}

int kbm_start(const char *const *argv, struct kb_err *err)
{
	struct kb_spawn spawn = {.path = argv[0], .argv = argv, .env = kbm_env};
	pid_t pid;

	return kb_spawn(&spawn, &pid, err);
}

void kbm_reap(void)
{
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

int kbm_run(const char *const *argv, struct kb_err *err)
{
	struct kb_spawn spawn = {.path = argv[0], .argv = argv, .env = kbm_env};
	char how[KB_EXIT_TEXT];
	int status, r;
	pid_t pid;

	r = kb_spawn(&spawn, &pid, err);
	if (r < 0)
		return r;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return kb_err_sys(err, errno, "%s", argv[0]);
	if (status == 0)
		return 0;
	kb_exit_describe(status, how);
	return kb_err_set(err, KB_ERR_FAILED, "%s %s: %s", argv[0], argv[1] ? argv[1] : "", how);
}

struct output {
	int fd;
	struct kb_buf buf;
};

/* Read what there is; past the bound it is drained and dropped. Closes at the end of file. */
static void output_read(struct output *out)
{
	uint8_t chunk[4096];
	ssize_t n = read(out->fd, chunk, sizeof(chunk));

	if (n > 0)
		kb_buf_append(&out->buf, chunk, (size_t)n, NULL);
	else if (n == 0 || errno != EINTR)
		kb_close(&out->fd);
}

static void collect(struct output outs[2], int64_t deadline)
{
	while (outs[0].fd >= 0 || outs[1].fd >= 0) {
		struct pollfd polls[2] = {{outs[0].fd, POLLIN, 0}, {outs[1].fd, POLLIN, 0}};
		int64_t left = (deadline - kb_now_mono()) / 1000000;

		if (left <= 0 || poll(polls, 2, (int)KB_MIN(left, 1000)) < 0)
			return;
		for (int i = 0; i < 2; i++)
			if (outs[i].fd >= 0 && polls[i].revents)
				output_read(&outs[i]);
	}
}

/* All ends of the pipes of a command's three streams. */
struct pipes {
	int in[2], out[2], err[2];
};

static void pipes_close(struct pipes *p)
{
	int *all = &p->in[0];

	for (int i = 0; i < 6; i++)
		kb_close(&all[i]);
}

static int feed(int *fd, const json_t *request, struct kb_err *err)
{
	const char *hex = json_string_value(json_object_get(request, "stdin"));
	uint8_t bytes[4096];
	int n = hex ? kbm_unhex(hex, bytes, sizeof(bytes), err) : 0;

	if (n > 0 && kb_fd_write_all(*fd, bytes, (size_t)n, err) < 0)
		n = -KB_ERR_FAILED;
	explicit_bzero(bytes, sizeof(bytes));
	kb_close(fd);
	return n;
}

static int run_collected(const char *const *argv, const json_t *request, int64_t deadline,
	struct output outs[2], int *ret_status, struct kb_err *err)
{
	struct pipes p KB_CLEANUP(pipes_close) = {{-1, -1}, {-1, -1}, {-1, -1}};
	pid_t pid;
	int r;

	if (pipe2(p.in, O_CLOEXEC) < 0 || pipe2(p.out, O_CLOEXEC) < 0 ||
		pipe2(p.err, O_CLOEXEC) < 0)
		return kb_err_sys(err, errno, "no pipes");
	struct kb_spawn_fd fds[] = {{p.in[0], 0}, {p.out[1], 1}, {p.err[1], 2}};
	struct kb_spawn spawn = {.path = "/usr/bin/env",
		.argv = argv,
		.env = kbm_env,
		.cwd = "/",
		.fds = fds,
		.n_fds = 3,
		.flags = KB_SPAWN_SETSID};
	r = kb_spawn(&spawn, &pid, err);
	if (r < 0)
		return r;
	kb_close(&p.in[0]);
	kb_close(&p.out[1]);
	kb_close(&p.err[1]);
	feed(&p.in[1], request, NULL);
	outs[0].fd = kb_steal_fd(&p.out[0]);
	outs[1].fd = kb_steal_fd(&p.err[0]);
	collect(outs, deadline);
	if (kb_now_mono() >= deadline)
		kill(-pid, SIGKILL);
	while (waitpid(pid, ret_status, 0) < 0 && errno == EINTR)
		;
	return 0;
}

/* The last of what was printed, on one line. */
static void tail_of(const struct kb_buf *buf, char *ret, size_t size)
{
	size_t len = kb_buf_len(buf), at = 0;
	const char *text = (const char *)kb_buf_data(buf);
	KB_FREE char *line = malloc(len + 1);

	for (size_t i = 0; line && i < len; i++) {
		bool space = text[i] == '\n' || text[i] == '\t' || text[i] == ' ';

		if (!space)
			line[at++] = text[i];
		else if (at > 0 && line[at - 1] != ' ')
			line[at++] = ' ';
	}
	while (at > 0 && line[at - 1] == ' ')
		at--;
	text = line ? line + at - KB_MIN(at, size / 2) : "";
	kb_escape(ret, size, text, line ? KB_MIN(at, size / 2) : 0);
}

int kbm_capture(const char *const *argv, int64_t timeout_ms, int *ret_status, char *ret_tail,
	size_t size, struct kb_err *err)
{
	struct output outs[2] = {{.fd = -1}, {.fd = -1}};
	const char *words[KBM_ARGS_MAX] = {"env", "--"};
	int status = 0, r;

	for (size_t i = 0; argv[i] && i < KBM_ARGS_MAX - 3; i++)
		words[i + 2] = argv[i];
	kb_buf_init(&outs[0].buf, KBM_OUTPUT_MAX);
	kb_buf_init(&outs[1].buf, KBM_OUTPUT_MAX);
	r = run_collected(words, NULL, kb_now_mono() + timeout_ms * 1000000, outs, &status, err);
	*ret_status = kbm_exit(status);
	tail_of(kb_buf_len(&outs[1].buf) ? &outs[1].buf : &outs[0].buf, ret_tail, size);
	for (int i = 0; i < 2; i++) {
		kb_close(&outs[i].fd);
		kb_buf_finish(&outs[i].buf);
	}
	return r;
}

int kbm_argv(const json_t *request, const char *ret[KBM_ARGS_MAX], struct kb_err *err)
{
	const json_t *argv = json_object_get(request, "argv");
	size_t n = json_array_size(argv);

	if (n == 0 || n > KBM_ARGS_MAX - 3)
		return kb_err_set(
			err, KB_ERR_INVALID, "argv must have 1 to %d words", KBM_ARGS_MAX - 3);
	*ret++ = "env";
	*ret++ = "--";
	for (size_t i = 0; i < n; i++) {
		*ret = json_string_value(json_array_get(argv, i));
		if (!*ret++)
			return kb_err_set(err, KB_ERR_INVALID, "argv must hold text");
	}
	*ret = NULL;
	return 0;
}

int kbm_exit(int status)
{
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int kbm_exec(const json_t *request, json_t *reply, struct kb_err *err)
{
	static const char *const keys[] = {"out", "err"};
	json_int_t msec = json_integer_value(json_object_get(request, "timeout_ms"));
	int64_t deadline = kb_now_mono() + (msec > 0 ? msec : KBM_COMMAND_MS) * 1000000;
	struct output outs[2] = {{.fd = -1}, {.fd = -1}};
	const char *argv[KBM_ARGS_MAX];
	int status = 0, r;

	kb_buf_init(&outs[0].buf, KBM_OUTPUT_MAX);
	kb_buf_init(&outs[1].buf, KBM_OUTPUT_MAX);
	if ((r = kbm_argv(request, argv, err)) == 0)
		r = run_collected(argv, request, deadline, outs, &status, err);
	for (int i = 0; i < 2; i++) {
		KB_FREE char *text = kb_base64(kb_buf_data(&outs[i].buf), kb_buf_len(&outs[i].buf));

		json_object_set_new(reply, keys[i], json_string(text ? text : ""));
		kb_close(&outs[i].fd);
		kb_buf_finish(&outs[i].buf);
	}
	json_object_set_new(reply, "exit", json_integer(kbm_exit(status)));
	return r;
}
