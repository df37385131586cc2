#include "secret_source.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/os.h"
#include "supervisor/base/spawn.h"
#include "supervisor/base/util.h"

#define COMMAND_MS	120000 /* a password manager may ask somebody */
#define ATTRIBUTES_MAX	16
#define STATUS_NO_SHELL 127

/* ---- Reading --------------------------------------------------------------------------------- */

/* Until it ends or deadline_ms (monotonic; 0: it never waits) is past. Into data alone. */
static int read_value(
	int fd, int64_t deadline, char *data, size_t *ret_len, const char *what, struct kb_err *err)
{
	struct pollfd wait = {.fd = fd, .events = POLLIN};
	size_t n = 0;

	while (n < KB_SECRET_VALUE_MAX) {
		int64_t left = deadline ? (deadline - kb_now_mono()) / 1000000 : -1;
		ssize_t got;

		if (deadline && (left <= 0 || poll(&wait, 1, (int)left) == 0))
			return kb_err_set(err, KB_ERR_TIMEOUT, "%s did not end within %d s", what,
				COMMAND_MS / 1000);
		got = read(fd, data + n, KB_SECRET_VALUE_MAX - n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return kb_err_sys(err, errno, "%s cannot be read", what);
		if (got == 0)
			break;
		n += (size_t)got;
	}
	*ret_len = n;
	return n < KB_SECRET_VALUE_MAX ? 0
				       : kb_err_set(err, KB_ERR_LIMIT, "%s has more than %u bytes",
						 what, KB_SECRET_VALUE_MAX - 1);
}

static int from_env(const struct kb_secret *s, const char *home, char *data, size_t *ret_len,
	struct kb_err *err)
{
	const char *value = getenv(s->source);

	if (!value || !*value) {
		kb_err_set(err, KB_ERR_NOTFOUND, "the variable %s is not set", s->source);
		return kb_err_hint(err, "set it, or write if-available behind the secret");
	}
	*ret_len = strlen(value);
	if (*ret_len >= KB_SECRET_VALUE_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "the variable %s has more than %u bytes",
			s->source, KB_SECRET_VALUE_MAX - 1);
	memcpy(data, value, *ret_len);
	return 0;
}

static int from_file(const struct kb_secret *s, const char *home, char *data, size_t *ret_len,
	struct kb_err *err)
{
	char *path KB_FREE = s->source[0] == '~' ? kb_xprintf("%s%s", home, s->source + 1)
						 : kb_xstrdup(s->source);
	char *what KB_FREE = kb_xprintf("the file %s", path);
	KB_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT) {
		kb_err_set(err, KB_ERR_NOTFOUND, "%s is not there", what);
		return kb_err_hint(err, "make it, or write if-available behind the secret");
	}
	if (fd < 0)
		return kb_err_sys(err, errno, "%s cannot be opened", what);
	return read_value(fd, 0, data, ret_len, what, err);
}

/* ---- Programs -------------------------------------------------------------------------------- */

static int start(const char *const *argv, int *ret_fd, pid_t *ret_pid, struct kb_err *err)
{
	KB_CLOSE int out = -1;
	KB_CLOSE int in = -1;
	int ends[2], r;

	if (kb_os_pipe(ends, false) < 0)
		return kb_err_sys(err, errno, "a pipe cannot be made");
	in = ends[0];
	out = ends[1];
	/* It may ask the person at the terminal. */
	struct kb_spawn_fd fds[] = {
		{STDIN_FILENO, STDIN_FILENO}, {out, STDOUT_FILENO}, {STDERR_FILENO, STDERR_FILENO}};
	struct kb_spawn spawn = {.path = "/bin/sh",
		.argv = argv,
		.env = (const char *const *)environ,
		.fds = fds,
		.n_fds = KB_ARRAY_LEN(fds)};

	r = kb_spawn(&spawn, ret_pid, err);
	if (r == 0)
		*ret_fd = kb_steal_fd(&in);
	return r;
}

/* *ret_status: as of waitpid(2). */
static int run(const char *const *argv, const char *what, char *data, size_t *ret_len,
	int *ret_status, struct kb_err *err)
{
	int64_t deadline = kb_now_mono() + (int64_t)COMMAND_MS * 1000000;
	KB_CLOSE int out = -1;
	pid_t pid;
	int r = start(argv, &out, &pid, err);

	if (r < 0)
		return r;
	r = read_value(out, deadline, data, ret_len, what, err);
	if (r < 0)
		(void)kill(pid, SIGKILL);
	while (waitpid(pid, ret_status, 0) < 0 && errno == EINTR)
		;
	return r;
}

static int from_command(const struct kb_secret *s, const char *home, char *data, size_t *ret_len,
	struct kb_err *err)
{
	const char *const argv[] = {"sh", "-c", s->source, NULL};
	char how[KB_EXIT_TEXT];
	int status, r = run(argv, "its command", data, ret_len, &status, err);

	if (r < 0 || status == 0)
		return r;
	kb_exit_describe(status, how);
	kb_err_set(err, KB_ERR_NOTFOUND, "its command failed (%s): %s", how, s->source);
	return kb_err_hint(err, "try it by hand, or write if-available behind the secret");
}

/* "service=github user=ada" → secret-tool lookup service github user ada */
static int from_keyring(const struct kb_secret *s, const char *home, char *data, size_t *ret_len,
	struct kb_err *err)
{
	static const char lookup[] = "command -v secret-tool >/dev/null 2>&1 || exit 127\n"
				     "exec secret-tool lookup \"$@\"";
	const char *argv[4 + 2 * ATTRIBUTES_MAX + 1] = {"sh", "-c", lookup, "sh"};
	char *words KB_FREE = kb_xstrdup(s->source), *at = words, *word, *value;
	size_t n = 4;
	int status, r;

	while ((word = strsep(&at, " "))) {
		if (!*word)
			continue;
		value = strchr(word, '=');
		if (!value || n + 2 >= KB_ARRAY_LEN(argv)) {
			kb_err_set(err, KB_ERR_USAGE, "'%s' are not the attributes of a key",
				s->source);
			return kb_err_hint(err, "write \"attribute=value attribute=value\"");
		}
		*value = '\0';
		argv[n++] = word;
		argv[n++] = value + 1;
	}
	r = run(argv, "secret-tool", data, ret_len, &status, err);
	if (r < 0 || status == 0)
		return r;
	if (WIFEXITED(status) && WEXITSTATUS(status) == STATUS_NO_SHELL) {
		kb_err_set(
			err, KB_ERR_FAILED, "the keyring cannot be asked: there is no secret-tool");
		return kb_err_hint(err, "install it (libsecret-tools), or take the value from a "
					"command");
	}
	kb_err_set(err, KB_ERR_NOTFOUND, "the keyring has no key with %s", s->source);
	return kb_err_hint(
		err, "store it: secret-tool store --label=%s ATTRIBUTE VALUE …", s->name);
}

/* ---- All ------------------------------------------------------------------------------------- */

/* It becomes part of a line of a request. */
static int check(const char *data, size_t len, struct kb_err *err)
{
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)data[i] < ' ' || data[i] == 0x7f)
			return kb_err_set(err, KB_ERR_INVALID,
				"its value has a control character at byte %zu of %zu", i, len);
	return 0;
}

int kb_secret_read(const struct kb_secret *secret, const char *home, char *data, size_t *ret_len,
	struct kb_err *err)
{
	static int (*const sources[])(const struct kb_secret *s, const char *home, char *data,
		size_t *ret_len, struct kb_err *err) = {
		[KB_SECRET_ENV] = from_env,
		[KB_SECRET_FILE] = from_file,
		[KB_SECRET_COMMAND] = from_command,
		[KB_SECRET_KEYRING] = from_keyring,
	};
	size_t len = 0;
	int r = sources[secret->from](secret, home, data, &len, err);

	if (r == 0 && len > 0 && data[len - 1] == '\n')
		len--;
	if (r == 0 && len > 0 && data[len - 1] == '\r')
		len--;
	if (r == 0 && len == 0)
		r = kb_err_set(err, KB_ERR_NOTFOUND, "its value is empty");
	if (r == 0)
		r = check(data, len, err);
	*ret_len = len;
	return r < 0 ? kb_err_prefix(err, "the secret %s", secret->name) : 0;
}

void kb_secret_forget(const struct kb_secret *secret)
{
	char *value = secret->from == KB_SECRET_ENV ? getenv(secret->source) : NULL;

	if (value)
		kb_os_wipe(value, strlen(value));
}
