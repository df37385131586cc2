#include "supervisor/guest/initlink.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define LANDLOCK_HANDLED 0xffffULL /* all rights of ABI 5, the latest with new file rights */
#define LANDLOCK_SCOPED	 0x3ULL	   /* abstract sockets and signals, ABI 6 */

static int add_string(
	struct kb_buf *out, const uint8_t *data, size_t len, const char *what, struct kb_err *err)
{
	static const char nul = '\0';
	int r;

	if (len > 0 && memchr(data, '\0', len))
		return kb_err_set(err, KB_ERR_INVALID, "%s has a NUL byte inside", what);
	r = kb_buf_append(out, data, len, err);
	return r < 0 ? r : kb_buf_append(out, &nul, 1, err);
}

static int add_strings(struct kb_buf *out, const struct kb_byte_string *strings, size_t n,
	const char *what, struct kb_err *err)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++)
		r = add_string(out, strings[i].data, strings[i].len, what, err);
	return r;
}

static int add_all_strings(const struct kb_init_process *p, struct kb_buf *out, struct kb_err *err)
{
	int r = add_string(out, p->cwd.data, p->cwd.len, "the working directory", err);

	if (r == 0)
		r = add_strings(out, p->argv, p->n_argv, "an argument", err);
	if (r == 0)
		r = add_strings(out, p->env, p->n_env, "an environment variable", err);
	for (size_t i = 0; i < p->n_landlock && r == 0; i++)
		r = add_string(out, (const uint8_t *)p->landlock[i].path,
			strlen(p->landlock[i].path), "a path", err);
	return r;
}

static int check_counts(const struct kb_init_process *p, struct kb_err *err)
{
	if (p->n_argv == 0 || p->argv[0].len == 0)
		return kb_err_set(err, KB_ERR_USAGE, "there is no command to run");
	if (p->cwd.len == 0 || p->cwd.data[0] != '/')
		return kb_err_set(err, KB_ERR_USAGE, "the working directory must be absolute");
	if (p->n_argv + p->n_env > KB_INIT_STRINGS_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "more than %u arguments and variables",
			KB_INIT_STRINGS_MAX);
	if (p->n_landlock > KB_INIT_LANDLOCK_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "the policy has more than %u paths",
			KB_INIT_LANDLOCK_MAX);
	if (p->n_filter == 0 || p->n_filter > KB_INIT_FILTERS_MAX ||
		p->n_rlimits > KB_INIT_RLIMITS_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "the policy's program has %zu instructions",
			p->n_filter);
	return 0;
}

static int add_tables(const struct kb_init_process *p, struct kb_buf *out, struct kb_err *err)
{
	int r = 0;

	for (size_t i = 0; i < p->n_rlimits && r == 0; i++) {
		struct kb_init_rlimit lim = {
			.resource = (uint32_t)p->rlimits[i].resource, .value = p->rlimits[i].value};

		r = kb_buf_append(out, &lim, sizeof(lim), err);
	}
	for (size_t i = 0; i < p->n_landlock && r == 0; i++) {
		struct kb_init_landlock rule = {
			.access = p->landlock[i].access, .optional = p->landlock[i].optional};

		r = kb_buf_append(out, &rule, sizeof(rule), err);
	}
	if (r == 0)
		r = kb_buf_append(out, p->filter, p->n_filter * sizeof(*p->filter), err);
	return r;
}

int kb_initlink_spec(const struct kb_init_process *p, struct kb_buf *out, struct kb_err *err)
{
	KB_BUF_CLEANUP struct kb_buf strings;
	struct kb_init_spec header = {
		.magic = KB_INIT_SPEC_MAGIC,
		.version = KB_INIT_PROTOCOL,
		.flags = (p->tty ? KB_SPEC_TTY : 0) | (p->listener ? KB_SPEC_LISTENER : 0),
		.uid = p->uid,
		.gid = p->gid,
		.rows = p->rows,
		.cols = p->cols,
		.n_rlimits = (uint32_t)p->n_rlimits,
		.n_landlock = (uint32_t)p->n_landlock,
		.n_filters = (uint32_t)p->n_filter,
		.n_argv = (uint32_t)p->n_argv,
		.n_env = (uint32_t)p->n_env,
		.landlock_handled = LANDLOCK_HANDLED,
		.landlock_scoped = LANDLOCK_SCOPED,
	};
	size_t size;
	int r = check_counts(p, err);

	kb_buf_init(&strings, KB_INIT_SPEC_MAX);
	if (r == 0)
		r = add_all_strings(p, &strings, err);
	if (r < 0)
		return r;
	size = sizeof(header) + p->n_rlimits * sizeof(struct kb_init_rlimit) +
	       p->n_landlock * sizeof(struct kb_init_landlock) +
	       p->n_filter * sizeof(struct sock_filter) + kb_buf_len(&strings);
	if (size > KB_INIT_SPEC_MAX)
		return kb_err_set(err, KB_ERR_LIMIT,
			"the command, its environment and its policy exceed %u bytes",
			KB_INIT_SPEC_MAX);
	header.size = (uint32_t)size;
	header.strings = (uint32_t)kb_buf_len(&strings);
	r = kb_buf_append(out, &header, sizeof(header), err);
	if (r == 0)
		r = add_tables(p, out, err);
	return r < 0 ? r : kb_buf_append(out, kb_buf_data(&strings), kb_buf_len(&strings), err);
}

/* A memfd with these bytes that nobody can change any more. */
static int sealed_copy(const struct kb_buf *buf, int *ret_fd, struct kb_err *err)
{
	const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	KB_CLOSE int fd = memfd_create("kbsup-spec", flags | MFD_NOEXEC_SEAL);
	int r;

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("kbsup-spec", flags);
	if (fd < 0)
		return kb_err_sys(err, errno, "a memory file cannot be made");
	r = kb_fd_write_all(fd, kb_buf_data(buf), kb_buf_len(buf), err);
	if (r < 0)
		return r;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return kb_err_sys(err, errno, "a memory file cannot be sealed");
	*ret_fd = kb_steal_fd(&fd);
	return 0;
}

int kb_initlink_start(int control, const struct kb_init_process *p, struct kb_err *err)
{
	struct kb_init_request req = {.op = KB_INIT_START, .id = p->id};
	KB_BUF_CLEANUP struct kb_buf spec;
	KB_CLOSE int fd = -1;
	int fds[4], r;

	kb_buf_init(&spec, KB_INIT_SPEC_MAX);
	r = kb_initlink_spec(p, &spec, err);
	if (r == 0)
		r = sealed_copy(&spec, &fd, err);
	if (r < 0)
		return r;
	fds[0] = fd;
	memcpy(fds + 1, p->stdio, sizeof(p->stdio));
	return kb_fd_send(control, &req, sizeof(req), fds, p->tty ? 1 : KB_ARRAY_LEN(fds), err);
}

int kb_initlink_signal(int control, uint64_t id, int signo, struct kb_err *err)
{
	struct kb_init_request req = {.op = KB_INIT_SIGNAL, .arg = (uint32_t)signo, .id = id};

	return kb_fd_send(control, &req, sizeof(req), NULL, 0, err);
}

int kb_initlink_signal_all(int control, int signo, struct kb_err *err)
{
	struct kb_init_request req = {.op = KB_INIT_SIGNAL_ALL, .arg = (uint32_t)signo};

	return kb_fd_send(control, &req, sizeof(req), NULL, 0, err);
}

static void take_control(struct msghdr *msg, int *ret_fd, pid_t *ret_pid)
{
	struct ucred cred;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET)
			continue;
		if (c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int))) {
			memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
		} else if (c->cmsg_type == SCM_CREDENTIALS) {
			memcpy(&cred, CMSG_DATA(c), sizeof(cred));
			*ret_pid = cred.pid;
		}
	}
}

int kb_initlink_receive(
	int control, struct kb_init_report *ret, int *ret_fd, pid_t *ret_pid, struct kb_err *err)
{
	union {
		char buf[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
		struct cmsghdr align;
	} space;
	struct iovec iov = {.iov_base = ret, .iov_len = sizeof(*ret)};
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = space.buf,
		.msg_controllen = sizeof(space.buf)};
	ssize_t n;

	*ret_fd = -1;
	*ret_pid = 0;
	do
		n = recvmsg(control, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return -KB_ERR_TIMEOUT;
	if (n < 0 && errno == ECONNRESET)
		return 0;
	if (n < 0)
		return kb_err_sys(err, errno, "the session's init cannot be heard");
	if (n == 0)
		return 0;
	take_control(&msg, ret_fd, ret_pid);
	if (n != (ssize_t)sizeof(*ret) || (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) ||
		ret->kind == 0 || ret->kind >= KB_INIT_KIND_MAX_ || ret->stage >= KB_STAGE_MAX_) {
		kb_close(ret_fd);
		return kb_err_set(
			err, KB_ERR_INVALID, "the session's init sent a malformed report");
	}
	return 1;
}

static const struct {
	const char *what;
	const char *hint;
} stages[KB_STAGE_MAX_] = {
	[KB_STAGE_NONE] = {"the process could not be started", ""},
	[KB_STAGE_REQUEST] = {"no further process can be started in this session", ""},
	[KB_STAGE_SPEC] = {"the process's specification was not understood", ""},
	[KB_STAGE_FORK] = {"the process could not be started",
		"raise the policy's `limit pids`, or end processes of the session"},
	[KB_STAGE_TERMINAL] = {"the session's terminal could not be made", ""},
	[KB_STAGE_STDIO] = {"standard input and output could not be connected", ""},
	[KB_STAGE_USERNS] = {"a user namespace could not be made",
		"raise user.max_user_namespaces (sysctl) on this machine"},
	[KB_STAGE_CWD] = {"the working directory cannot be entered",
		"choose one that the policy makes visible"},
	[KB_STAGE_RLIMIT] = {"a limit could not be set", ""},
	[KB_STAGE_CAPS] = {"capabilities could not be dropped", ""},
	[KB_STAGE_LANDLOCK] = {"Landlock could not be applied",
		"a kernel with Landlock (5.13 or newer, lsm= contains landlock) is needed"},
	[KB_STAGE_LOOKUP] = {"cannot be run", ""},
	[KB_STAGE_SECCOMP] = {"the policy's seccomp program was refused by the kernel", ""},
	[KB_STAGE_EXEC] = {"cannot be run", ""},
};

int kb_initlink_explain(const struct kb_init_report *report, const char *argv0, struct kb_err *err)
{
	enum kb_init_stage stage = (enum kb_init_stage)report->stage;
	char shown[256];

	kb_escape(shown, sizeof(shown), argv0, strlen(argv0));
	if (stage != KB_STAGE_LOOKUP && stage != KB_STAGE_EXEC) {
		kb_err_sys(err, report->errnum, "%s", stages[stage].what);
		return kb_err_hint(err, "%s", stages[stage].hint);
	}
	if (report->errnum == ENOENT && !strchr(argv0, '/')) {
		kb_err_set(err, KB_ERR_NOCOMMAND, "%s: command not found in the session", shown);
		return kb_err_hint(
			err, "check PATH and the policy's `fs read` lines, or give the path");
	}
	kb_err_sys(err, report->errnum, "%s cannot be run", shown);
	if (report->errnum == ENOENT || report->errnum == ENOTDIR) {
		err->code = KB_ERR_NOCOMMAND;
		return kb_err_hint(err, "it does not exist inside the session");
	}
	if (report->errnum == EACCES || report->errnum == EPERM) {
		err->code = KB_ERR_REFUSED;
		return kb_err_hint(err, "it is not executable, or the policy has no line that "
					"lets it be executed");
	}
	return -(int)err->code;
}
