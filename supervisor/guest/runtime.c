#include "supervisor/guest/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/base/build.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/spawn.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"
#include "supervisor/guest/container.h"
#include "supervisor/guest/setup.h"
#include "supervisor/guest/statedir.h"

#define CACHE_NAME    "runtime.json"
#define CACHE_MAX     (64u << 10)
#define OUTPUT_MAX    4096
#define PROBE_MEMORY  (256ull << 20)
#define PROBE_PIDS    64
#define PROBE_CPU     1000
#define SEARCH_PATH   "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define MEMSW_FILE_V1 "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"
#define CGROUP_ALL    (KB_CGROUP_MEMORY | KB_CGROUP_PIDS | KB_CGROUP_CPU)

static const char *const candidates[] = {"crun", "runc"};

/* From everything to nothing; the first set that works is the machine's. */
static const unsigned limit_sets[] = {CGROUP_ALL | KB_CGROUP_SWAP, CGROUP_ALL,
	KB_CGROUP_MEMORY | KB_CGROUP_PIDS, KB_CGROUP_PIDS, 0};

/* ---- Running helpers ------------------------------------------------------------------------- */

/* Runs argv and collects what it prints. Returns its exit status, or a negative error. */
static int run_and_read(const char *path, const char *const *argv, char *out, size_t size)
{
	KB_CLOSE int output = -1;
	const char *env[4] = {"PATH=" SEARCH_PATH};
	int fds[2], status;
	struct kb_spawn_fd pass[1];
	struct kb_spawn spawn = {.path = path,
		.argv = argv,
		.env = env,
		.fds = pass,
		.n_fds = 1,
		.flags = KB_SPAWN_PDEATHSIG};
	size_t used = 0;
	ssize_t n;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -KB_ERR_SYSTEM;
	output = fds[0];
	pass[0] = (struct kb_spawn_fd){fds[1], STDOUT_FILENO};
	if (kb_spawn(&spawn, &pid, NULL) < 0) {
		close(fds[1]);
		return -KB_ERR_SYSTEM;
	}
	close(fds[1]);
	while (used < size - 1 && (n = read(output, out + used, size - 1 - used)) > 0)
		used += (size_t)n;
	out[used] = '\0';
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* The first line of `--version`, without the word "version". */
static void read_version(const char *path, char *ret, size_t size)
{
	const char *const argv[] = {path, "--version", NULL};
	char out[OUTPUT_MAX], name[32], version[24];

	if (run_and_read(path, argv, out, sizeof(out)) == 0 &&
		sscanf(out, "%31s version %23s", name, version) == 2) {
		version[strcspn(version, "+")] = '\0';
		snprintf(ret, size, "%s %s", name, version);
		return;
	}
	snprintf(ret, size, "%.60s", strrchr(path, '/') + 1);
}

static int try_runtime(const struct kb_runtime_options *options, const char *path, unsigned cgroups,
	char *why, size_t size)
{
	KB_FREE char *state = kb_asprintf("--state=%s", options->state);
	KB_FREE char *init = kb_asprintf("--init=%s", options->init);
	KB_FREE char *runtime = kb_asprintf("--runtime=%s", path);
	KB_FREE char *limits = kb_asprintf("--cgroups=%u", cgroups);
	const char *const argv[] = {
		"kbsup-guest", "--role=probe", state, init, runtime, limits, NULL};

	if (!state || !init || !runtime || !limits)
		return -KB_ERR_NOMEM;
	return run_and_read("/proc/self/exe", argv, why, size);
}

/* ---- Choosing -------------------------------------------------------------------------------- */

static bool find_program(const char *name, char ret[PATH_MAX])
{
	const char *dir = SEARCH_PATH;

	if (strchr(name, '/')) {
		snprintf(ret, PATH_MAX, "%s", name);
		return access(ret, X_OK) == 0;
	}
	for (;; dir++) {
		size_t len = strcspn(dir, ":");

		snprintf(ret, PATH_MAX, "%.*s/%s", (int)len, dir, name);
		if (access(ret, X_OK) == 0)
			return true;
		dir += len;
		if (*dir == '\0')
			return false;
	}
}

static bool swap_can_be_bounded(void)
{
	return access(MEMSW_FILE_V1, F_OK) == 0 || access("/sys/fs/cgroup/memory", F_OK) != 0;
}

/* True if path runs a container; *ret is filled then. Otherwise why has the reason. */
static bool accept(const struct kb_runtime_options *options, const char *path,
	struct kb_runtime *ret, char *why, size_t size)
{
	char none[OUTPUT_MAX];

	for (size_t i = 0; i < KB_ARRAY_LEN(limit_sets); i++) {
		if ((limit_sets[i] & KB_CGROUP_SWAP) && !swap_can_be_bounded())
			continue;
		if (try_runtime(options, path, limit_sets[i], none, sizeof(none)) != 0)
			continue;
		snprintf(ret->path, sizeof(ret->path), "%s", path);
		ret->cgroups = limit_sets[i];
		read_version(path, ret->version, sizeof(ret->version));
		return true;
	}
	kb_escape(why, size, none, strcspn(none, "\n"));
	return false;
}

static void try_all(const struct kb_runtime_options *options, struct kb_runtime *ret)
{
	size_t n = options->wanted ? 1 : KB_ARRAY_LEN(candidates);
	const char *const *names = options->wanted ? &options->wanted : candidates;
	char refused[400] = "";

	for (size_t i = 0; i < n; i++) {
		char path[PATH_MAX], why[256] = "";
		size_t used = strlen(refused);

		if (!find_program(names[i], path)) {
			snprintf(refused + used, sizeof(refused) - used, "%s%s is not installed",
				used ? "; " : "", names[i]);
			continue;
		}
		if (accept(options, path, ret, why, sizeof(why))) {
			snprintf(ret->why, sizeof(ret->why), "a container started and ended%s%s%s",
				refused[0] ? " (" : "", refused, refused[0] ? ")" : "");
			return;
		}
		snprintf(refused + used, sizeof(refused) - used, "%s%s refuses this machine: %s",
			used ? "; " : "", names[i], why);
	}
	snprintf(ret->why, sizeof(ret->why), "%s", refused);
}

/* ---- Remembering ----------------------------------------------------------------------------- */

static void key_add_file(struct kb_buf *key, const char *path)
{
	struct stat st;

	if (stat(path, &st) == 0)
		(void)kb_buf_printf(key, NULL, "%s:%lld:%ld:%lld ", path,
			(long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (long long)st.st_size);
}

/* Everything the answer depends on. */
static char *make_key(const struct kb_runtime_options *options)
{
	KB_BUF_CLEANUP struct kb_buf key;
	KB_BUF_CLEANUP struct kb_buf boot;
	char path[PATH_MAX];

	kb_buf_init(&key, 16u << 10);
	kb_buf_init(&boot, 128);
	(void)kb_file_read("/proc/sys/kernel/random/boot_id", &boot, NULL);
	(void)kb_buf_printf(&key, NULL, "%s %u %.36s %s ", kb_build_id(), (unsigned)geteuid(),
		kb_buf_len(&boot) >= 36 ? (const char *)kb_buf_data(&boot) : "",
		options->wanted ? options->wanted : "");
	key_add_file(&key, options->init);
	if (options->wanted && find_program(options->wanted, path))
		key_add_file(&key, path);
	for (size_t i = 0; i < KB_ARRAY_LEN(candidates); i++)
		if (find_program(candidates[i], path))
			key_add_file(&key, path);
	return kb_buf_steal_string(&key);
}

static bool recall(const char *file, const char *key, struct kb_runtime *ret)
{
	KB_BUF_CLEANUP struct kb_buf text;
	const char *old_key, *path, *version, *why;
	json_t *doc = NULL;
	int cgroups;
	bool ok = false;

	kb_buf_init(&text, CACHE_MAX);
	if (kb_file_read(file, &text, NULL) == 0)
		doc = json_loadb((const char *)kb_buf_data(&text), kb_buf_len(&text), 0, NULL);
	if (doc && json_unpack(doc, "{s:s,s:s,s:s,s:s,s:i}", "key", &old_key, "path", &path,
			   "version", &version, "why", &why, "cgroups", &cgroups) == 0)
		ok = strcmp(old_key, key) == 0;
	if (ok) {
		snprintf(ret->path, sizeof(ret->path), "%s", path);
		snprintf(ret->version, sizeof(ret->version), "%s", version);
		snprintf(ret->why, sizeof(ret->why), "%s", why);
		ret->cgroups = (unsigned)cgroups;
	}
	json_decref(doc);
	return ok;
}

static void remember(const char *file, const char *key, const struct kb_runtime *runtime)
{
	json_t *doc = json_pack("{s:s,s:s,s:s,s:s,s:i}", "key", key, "path", runtime->path,
		"version", runtime->version, "why", runtime->why, "cgroups", (int)runtime->cgroups);
	KB_FREE char *text = doc ? json_dumps(doc, JSON_INDENT(1)) : NULL;
	struct kb_err err = {0};

	json_decref(doc);
	if (text && kb_file_write_atomic(file, text, strlen(text), 0600, &err) < 0)
		kb_log_info("the choice of runtime is not remembered: %s", err.msg);
}

int kb_runtime_choose(
	const struct kb_runtime_options *options, struct kb_runtime *ret, struct kb_err *err)
{
	KB_FREE char *file = kb_asprintf("%s/" CACHE_NAME, options->state);
	KB_FREE char *key = make_key(options);

	*ret = (struct kb_runtime){0};
	if (!file || !key)
		return kb_err_nomem(err);
	if (recall(file, key, ret))
		return 0;
	try_all(options, ret);
	if (ret->path[0])
		remember(file, key, ret);
	return 0;
}

/* ---- The role that tries --------------------------------------------------------------------- */

struct probe {
	struct kb_loop *loop;
	struct kb_container *container;
	bool ready;
	struct kb_err err;
};

static void probe_ready(int landlock_abi, void *arg)
{
	struct probe *p = arg;

	p->ready = true;
	kb_container_stop(p->container);
}

static void probe_report(const struct kb_init_report *report, int fd, void *arg)
{
	kb_close(&fd);
}

static void probe_gone(const struct kb_err *why, void *arg)
{
	struct probe *p = arg;

	if (why)
		p->err = *why;
	kb_loop_stop(p->loop);
}

static const struct kb_container_ops probe_ops = {
	.ready = probe_ready, .report = probe_report, .gone = probe_gone};

static int probe(const struct kb_setup_options *options, const char *name, struct probe *p)
{
	KB_FREE char *dir = kb_asprintf("%s/%s/" KB_STATEDIR_MOUNT, options->state, name);
	struct kb_container_spec spec = {
		.name = name,
		.dir = dir,
		.runtime = options->runtime,
		.oci = {.hostname = "probe",
			.cgroup = options->cgroups ? name : NULL,
			.memory = options->cgroups & KB_CGROUP_MEMORY ? PROBE_MEMORY : 0,
			.swap = options->cgroups & KB_CGROUP_SWAP,
			.pids = options->cgroups & KB_CGROUP_PIDS ? PROBE_PIDS : 0,
			.cpu = options->cgroups & KB_CGROUP_CPU ? PROBE_CPU : 0},
		.rootfs = {.init = options->init},
	};
	int r = kb_loop_create(&p->loop, &p->err);

	if (r == 0)
		r = kb_container_start(p->loop, &spec, &probe_ops, p, &p->container, &p->err);
	if (r == 0)
		r = kb_loop_run(p->loop, &p->err);
	kb_container_destroy(p->container);
	kb_loop_destroy(p->loop);
	return r;
}

int kb_runtime_probe_main(const struct kb_setup_options *options)
{
	struct probe p = {0};
	char name[KB_CONTAINER_NAME];
	KB_CLOSE int lock = -1;
	pid_t pid;
	int status;

	/* The namespaces must go before the directory can: a child has them. */
	snprintf(name, sizeof(name), KB_CGROUP_PREFIX "probe-%d", (int)getpid());
	if (kb_statedir_claim(options->state, name, &lock, &p.err) < 0) {
		puts(p.err.msg);
		return 1;
	}
	pid = fork();
	if (pid == 0) {
		umask(022);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
		probe(options, name, &p);
		puts(p.err.msg);
		fflush(stdout);
		_exit(p.ready && !p.err.code ? 0 : 1);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	kb_close(&lock);
	kb_statedir_release(options->state, name);
	return pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
