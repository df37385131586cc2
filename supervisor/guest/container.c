/* How a container comes and goes.
 *
 * The session process unshares, builds the root directory (rootfs.c), writes config.json beside it
 * and runs the runtime detached ("run -d": create and start in one go). All of this, the runtime's
 * own state included, is on a tmpfs in our mount namespace: no disk is written, and nothing of it
 * can be left behind. kbsup-init inherits one end of the control socket; its first report brings
 * its pid through the socket's credentials. As a subreaper we become its parent when the runtime
 * exits.
 *
 * To end, the control socket is closed: kbsup-init exits and the kernel kills everything in its pid
 * namespace before we can reap it. Only the control groups remain, and are removed here. `runtime
 * delete` has nothing left to do and is not run. kbsup-init that does not exit in time is killed.
 */
#include "supervisor/guest/container.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/spawn.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"
#include "supervisor/guest/initlink.h"

#define READY_DEADLINE_MS                                                                          \
	30000		      /* a slow, loaded machine; the runtime itself takes milliseconds     \
			       */
#define EXIT_DEADLINE_MS 3000 /* then kbsup-init is killed, then the runtime */
#define CGROUP_RETRY_MS	 2
#define CGROUP_RETRIES	 1000
#define REPORTS_PER_WAKE 64
#define CHILDREN_MAX	 64
#define CONFIG_MAX	 (256u << 10)
#define RUNTIME_LOG_MAX	 (256u << 10)

enum state { STATE_STARTING, STATE_RUNNING, STATE_STOPPING, STATE_GONE };

struct kb_container {
	struct kb_loop *loop;
	const struct kb_container_ops *ops;
	void *arg;
	enum state state;
	char name[KB_CONTAINER_NAME];
	int scratch;
	int control;
	pid_t runtime, init; /* 0: none, or reaped */
	bool init_seen;
	struct kb_cgroups cgroups;
	unsigned cgroup_tries;
	bool failed;
	struct kb_err why;
	struct kb_source *control_source, *child_source, *timer;
};

/* ---- Namespaces ------------------------------------------------------------------------------ */

static int write_self(const char *path, const char *text, struct kb_err *err)
{
	KB_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		return kb_err_sys(err, errno, "%s cannot be written", path);
	return 0;
}

/* An ordinary user gets a user namespace in which to mount: root there is that user. */
static int unshare_user(struct kb_err *err)
{
	char uid_map[64], gid_map[64];
	int r;

	snprintf(uid_map, sizeof(uid_map), "0 %u 1\n", (unsigned)geteuid());
	snprintf(gid_map, sizeof(gid_map), "0 %u 1\n", (unsigned)getegid());
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) {
		kb_err_sys(err, errno, "a user namespace cannot be made");
		if (err)
			err->code = KB_ERR_REFUSED;
		return kb_err_hint(err,
			"allow user namespaces on this machine "
			"(sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, "
			"kernel.apparmor_restrict_unprivileged_userns), or run as root");
	}
	r = write_self("/proc/self/setgroups", "deny", err);
	if (r == 0)
		r = write_self("/proc/self/gid_map", gid_map, err);
	return r < 0 ? r : write_self("/proc/self/uid_map", uid_map, err);
}

static int unshare_all(struct kb_err *err)
{
	int r;

	if (geteuid() != 0) {
		r = unshare_user(err);
		if (r < 0)
			return r;
	} else if (unshare(CLONE_NEWNS) < 0) {
		return kb_err_sys(err, errno, "a mount namespace cannot be made");
	}
	/* The machine's mounts come to us, ours stay with us. */
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		return kb_err_sys(err, errno, "the mount namespace cannot be detached");
	return 0;
}

/* ---- Starting -------------------------------------------------------------------------------- */

static int write_config(
	const struct kb_container *c, const struct kb_oci_spec *oci, struct kb_err *err)
{
	KB_BUF_CLEANUP struct kb_buf config;
	KB_CLOSE int fd =
		openat(c->scratch, "config.json", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int r;

	kb_buf_init(&config, CONFIG_MAX);
	if (fd < 0)
		return kb_err_sys(err, errno, "config.json cannot be made");
	r = kb_oci_config(oci, &config, err);
	return r < 0 ? r : kb_fd_write_all(fd, kb_buf_data(&config), kb_buf_len(&config), err);
}

static int run_runtime(struct kb_container *c, const struct kb_container_spec *spec,
	int init_socket, struct kb_err *err)
{
	const char *const argv[] = {spec->runtime, "--root", "runtime", "--log", "log",
		"--log-format", "json", "run", "--detach", "--bundle", ".", "--preserve-fds", "1",
		c->name, NULL};
	/* The garbage collector has nothing to do in a process that lives for milliseconds. */
	const char *const env[] = {
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GOGC=off",
		NULL};
	const struct kb_spawn_fd fds[] = {{init_socket, KB_INIT_FD}};
	struct kb_spawn spawn = {.path = spec->runtime,
		.argv = argv,
		.env = env,
		.cwd = spec->dir,
		.fds = fds,
		.n_fds = KB_ARRAY_LEN(fds),
		.flags = KB_SPAWN_PDEATHSIG};

	return kb_spawn(&spawn, &c->runtime, err);
}

static int make_control(int ret[2], struct kb_err *err)
{
	const int on = 1;
	int r = kb_fd_socketpair(true, ret, err);

	if (r == 0 && setsockopt(ret[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0)
		r = kb_err_sys(err, errno, "credentials cannot be asked for");
	return r;
}

/* ---- Ending ---------------------------------------------------------------------------------- */

static void fail(struct kb_container *c, const struct kb_err *why)
{
	if (c->failed)
		return;
	c->failed = true;
	c->why = *why;
}

static int is_ours(const char *name, void *arg)
{
	const struct kb_container *c = arg;

	return strcmp(name, c->name) == 0;
}

static void finish(struct kb_container *c)
{
	/* Stopped before kbsup-init could say where it is, or dying while it was looked up: look
	 * for them by name. */
	if (c->cgroups.n == 0 || c->cgroups.others > 0)
		kb_cgroups_sweep(is_ours, c);
	if (kb_cgroups_remove(&c->cgroups) > 0 && c->cgroup_tries++ < CGROUP_RETRIES) {
		kb_source_arm(c->timer, CGROUP_RETRY_MS, NULL);
		return;
	}
	if (c->cgroup_tries >= CGROUP_RETRIES)
		kb_log_warn("a control group of %s could not be removed", c->name);
	c->state = STATE_GONE;
	c->ops->gone(c->failed ? &c->why : NULL, c->arg);
}

/* We are a subreaper: as long as anything of the container lives, we have a child. */
static bool has_children(void)
{
	siginfo_t info;

	return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 || errno != ECHILD;
}

static void kill_children(const struct kb_container *c)
{
	pid_t pids[CHILDREN_MAX];
	char path[64];
	size_t n;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	n = kb_pids_read(path, pids, CHILDREN_MAX);
	for (size_t i = 0; i < n; i++)
		kill(pids[i], SIGKILL);
}

/* All processes gone? Then the rest. */
static void check_gone(struct kb_container *c)
{
	if (c->state == STATE_STOPPING && !has_children())
		finish(c);
}

void kb_container_stop(struct kb_container *c)
{
	if (c->state >= STATE_STOPPING)
		return;
	c->state = STATE_STOPPING;
	kb_source_destroy(c->control_source);
	c->control_source = NULL;
	kb_close(&c->control);
	kb_source_arm(c->timer, EXIT_DEADLINE_MS, NULL);
	check_gone(c);
}

static void stop_for(struct kb_container *c, const struct kb_err *why)
{
	fail(c, why);
	kb_container_stop(c);
}

static void on_timer(void *arg)
{
	struct kb_container *c = arg;
	struct kb_err err = {0};

	if (c->state == STATE_STARTING) {
		kb_err_set(&err, KB_ERR_TIMEOUT, "the container did not start within %d seconds",
			READY_DEADLINE_MS / 1000);
		stop_for(c, &err);
	} else if (!has_children()) {
		finish(c);
	} else {
		kb_log_warn("%s does not end by itself; killed", c->name);
		kill_children(c);
		kb_source_arm(c->timer, EXIT_DEADLINE_MS, NULL);
	}
}

/* ---- While it runs --------------------------------------------------------------------------- */

/* The runtime's own last words, from its log: one JSON object a line, with a "msg". */
static void runtime_reason(struct kb_container *c, char *ret, size_t size)
{
	KB_CLOSE int fd = openat(c->scratch, "log", O_RDONLY | O_CLOEXEC);
	KB_FREE char *text = calloc(1, RUNTIME_LOG_MAX + 1);
	char *line, *save = NULL;

	ret[0] = '\0';
	if (fd < 0 || !text || read(fd, text, RUNTIME_LOG_MAX) <= 0)
		return;
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		json_t *entry = json_loads(line, 0, NULL);
		const char *msg = json_string_value(json_object_get(entry, "msg"));

		if (msg)
			kb_escape(ret, size, msg, strlen(msg));
		json_decref(entry);
	}
}

static void runtime_exited(struct kb_container *c, int status)
{
	char reason[400], how[KB_EXIT_TEXT];
	struct kb_err err = {0};

	c->runtime = 0;
	if (status != 0 && c->state < STATE_STOPPING) {
		kb_exit_describe(status, how);
		runtime_reason(c, reason, sizeof(reason));
		kb_err_set(&err, KB_ERR_REFUSED, "the runtime could not make the container: %s",
			reason[0] ? reason : how);
		kb_err_hint(&err, "kbsup doctor tries every layer and says what is missing");
		stop_for(c, &err);
	}
}

static void init_exited(struct kb_container *c, int status)
{
	struct kb_err err = {0};
	char how[KB_EXIT_TEXT];

	c->init = 0;
	if (c->state < STATE_STOPPING) {
		kb_exit_describe(status, how);
		kb_err_set(&err, KB_ERR_FAILED, "the session's init ended unexpectedly (%s)", how);
		stop_for(c, &err);
	}
}

/* Init can die before it told us its pid, and then its exit says nothing to us: but with the
 * runtime done and no child left, there is no container. */
static void check_alive(struct kb_container *c)
{
	struct kb_err err = {0};

	if (c->state >= STATE_STOPPING || c->runtime != 0 || has_children())
		return;
	kb_err_set(&err, KB_ERR_FAILED, "the session's init ended before it could report");
	stop_for(c, &err);
}

static void on_child(int signo, void *arg)
{
	struct kb_container *c = arg;
	int status;
	pid_t pid;

	while (c->state != STATE_GONE && (pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == c->runtime)
			runtime_exited(c, status);
		else if (pid == c->init)
			init_exited(c, status);
	}
	check_alive(c);
	check_gone(c);
}

static void on_ready(struct kb_container *c, const struct kb_init_report *report, pid_t pid)
{
	struct kb_err err = {0};

	if (report->pid != (int32_t)KB_INIT_PROTOCOL || pid <= 0 || c->state != STATE_STARTING) {
		kb_err_set(&err, KB_ERR_INVALID, "kbsup-init is of another build");
		stop_for(c, &err);
		return;
	}
	c->init = pid;
	c->state = STATE_RUNNING;
	kb_source_disarm(c->timer);
	kb_cgroups_find(pid, c->name, &c->cgroups);
	c->ops->ready(report->status, c->arg);
}

static void on_control(int fd, unsigned events, void *arg)
{
	struct kb_container *c = arg;
	struct kb_init_report report;
	struct kb_err err = {0};
	int report_fd, r;
	pid_t pid;

	for (int i = 0; i < REPORTS_PER_WAKE && c->control >= 0; i++) {
		r = kb_initlink_receive(c->control, &report, &report_fd, &pid, &err);
		if (r == -KB_ERR_TIMEOUT)
			return;
		if (r == 0) {
			/* Its end, or the runtime's failure: their exit says which. */
			kb_source_set_events(c->control_source, 0, NULL);
			return;
		}
		if (r < 0) {
			stop_for(c, &err);
			return;
		}
		if (report.kind == KB_INIT_READY)
			on_ready(c, &report, pid);
		else
			c->ops->report(&report, report_fd, c->arg);
	}
}

/* ---- The object ------------------------------------------------------------------------------ */

static int watch(struct kb_container *c, struct kb_err *err)
{
	int r = kb_loop_io(c->loop, c->control, KB_IO_READ, on_control, c, &c->control_source, err);

	if (r == 0)
		r = kb_loop_signal(c->loop, SIGCHLD, on_child, c, &c->child_source, err);
	if (r == 0)
		r = kb_loop_timer(c->loop, on_timer, c, &c->timer, err);
	return r < 0 ? r : kb_source_arm(c->timer, READY_DEADLINE_MS, err);
}

static int start(struct kb_container *c, const struct kb_container_spec *spec, struct kb_err *err)
{
	struct kb_rootfs rootfs = {.scratch = -1};
	struct kb_oci_spec oci = spec->oci;
	KB_CLOSE int init_socket = -1;
	int pair[2] = {-1, -1}, r;

	r = unshare_all(err);
	if (r == 0)
		r = kb_rootfs_build(&spec->rootfs, spec->dir, &rootfs, err);
	if (r < 0)
		return r;
	c->scratch = rootfs.scratch;
	oci.sysfs = rootfs.sysfs;
	r = write_config(c, &oci, err);
	if (r == 0)
		r = make_control(pair, err);
	c->control = pair[0];
	init_socket = pair[1];
	if (r == 0)
		r = watch(c, err);
	return r < 0 ? r : run_runtime(c, spec, init_socket, err);
}

int kb_container_start(struct kb_loop *loop, const struct kb_container_spec *spec,
	const struct kb_container_ops *ops, void *arg, struct kb_container **ret,
	struct kb_err *err)
{
	struct kb_container *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return kb_err_nomem(err);
	*c = (struct kb_container){
		.loop = loop, .ops = ops, .arg = arg, .scratch = -1, .control = -1};
	snprintf(c->name, sizeof(c->name), "%s", spec->name);
	r = start(c, spec, err);
	if (r < 0) {
		kb_container_destroy(c);
		return r;
	}
	*ret = c;
	return 0;
}

int kb_container_control(const struct kb_container *c)
{
	return c->control;
}

pid_t kb_container_init_pid(const struct kb_container *c)
{
	return c->init;
}

const struct kb_cgroups *kb_container_cgroups(const struct kb_container *c)
{
	return &c->cgroups;
}

int kb_container_root(const struct kb_container *c, int *ret_fd, struct kb_err *err)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/root", (int)c->init);
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return kb_err_sys(err, errno, "the session's root directory cannot be opened");
	*ret_fd = fd;
	return 0;
}

void kb_container_destroy(struct kb_container *c)
{
	if (!c)
		return;
	kb_source_destroy(c->control_source);
	kb_source_destroy(c->child_source);
	kb_source_destroy(c->timer);
	kb_close(&c->control);
	kb_close(&c->scratch);
	free(c);
}
