#include "supervisor/guest/setup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "audit/audit.h"
#include "proto/link.pb-c.h"
#include "supervisor/base/dirs.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

#define INSIDE_ID  1000	      /* uid and gid inside when the machine's user is root */
#define MEMORY_MIN (6u << 20) /* less than that and the runtime itself does not start */

/* ---- Lines of text --------------------------------------------------------------------------- */

int kb_lines_add(struct kb_lines *lines, struct kb_err *err, const char *fmt, ...)
{
	va_list ap;
	char *line = NULL;
	int n;

	if (lines->n == KB_SETUP_LINES_MAX)
		return 0;
	va_start(ap, fmt);
	n = vasprintf(&line, fmt, ap);
	va_end(ap);
	if (n < 0)
		return kb_err_nomem(err);
	lines->line[lines->n++] = line;
	return 0;
}

void kb_lines_finish(struct kb_lines *lines)
{
	for (size_t i = 0; i < lines->n; i++)
		free(lines->line[i]);
	lines->n = 0;
}

static const char *size_text(uint64_t bytes, char ret[32])
{
	static const char units[] = "BKMGT";
	unsigned unit = 0;

	while (unit < 4 && bytes >= 1024 && bytes % 1024 == 0) {
		bytes /= 1024;
		unit++;
	}
	snprintf(ret, 32, unit ? "%llu%c" : "%llu bytes", (unsigned long long)bytes, units[unit]);
	return ret;
}

/* ---- Strings of the message ------------------------------------------------------------------ */

static int copy_bytes(
	const ProtobufCBinaryData *from, const char *what, char **ret, struct kb_err *err)
{
	if (from->len == 0 || memchr(from->data, '\0', from->len))
		return kb_err_set(err, KB_ERR_INVALID, "%s is empty or has a NUL byte", what);
	*ret = strndup((const char *)from->data, from->len);
	return *ret ? 0 : kb_err_nomem(err);
}

/* It is written into passwd(5), where these two would start something else. */
static bool home_valid(const char *home)
{
	return home[0] == '/' && !strpbrk(home, ":\n");
}

static int copy_strings(struct kb_setup *s, const Kb__StartSession *msg, struct kb_err *err)
{
	const char *user = msg->user ? msg->user : "user";
	int r = copy_bytes(&msg->workspace, "the workspace", &s->workspace, err);

	if (r < 0)
		return r;
	if (!kb_name_valid(msg->name) || !kb_name_valid(user))
		return kb_err_set(err, KB_ERR_INVALID,
			"the session's or the user's name is not "
			"a plain word");
	s->name = strdup(msg->name);
	s->user = strdup(user);
	s->home = msg->has_home ? NULL : kb_asprintf("/home/%s", user);
	if (msg->has_home)
		r = copy_bytes(&msg->home, "the home directory", &s->home, err);
	if (r == 0 && msg->has_rootfs)
		r = copy_bytes(&msg->rootfs, "the root file system", &s->rootfs, err);
	if (r == 0 && msg->has_context)
		r = copy_bytes(&msg->context, "the context file", &s->context, err);
	if (r == 0 && msg->has_trust)
		r = copy_bytes(&msg->trust, "the session's authority", &s->trust, err);
	if (r < 0)
		return r;
	if (!s->name || !s->user || !s->home)
		return kb_err_nomem(err);
	if (!home_valid(s->home))
		return kb_err_set(err, KB_ERR_INVALID,
			"the home directory must be an absolute path without ':'");
	return 0;
}

/* ---- Limits ---------------------------------------------------------------------------------- */

static int limit_memory(
	struct kb_setup *s, const struct kb_setup_options *o, uint64_t value, struct kb_err *err)
{
	char text[32];

	if (!(o->cgroups & KB_CGROUP_MEMORY))
		return kb_lines_add(&s->missing, err,
			"memory limit %s: no control group can be made for it here",
			size_text(value, text));
	s->oci.memory = KB_MAX(value, MEMORY_MIN);
	s->oci.swap = o->cgroups & KB_CGROUP_SWAP;
	return kb_lines_add(
		&s->limits, err, "memory %s (control group)", size_text(s->oci.memory, text));
}

static int limit_pids(
	struct kb_setup *s, const struct kb_setup_options *o, uint64_t value, struct kb_err *err)
{
	unsigned long long n = value;

	if (o->cgroups & KB_CGROUP_PIDS) {
		s->oci.pids = value;
		return kb_lines_add(&s->limits, err, "%llu processes (control group)", n);
	}
	/* The kernel counts an ordinary user's processes for each user namespace, and every
	 * process of the session has its own namespace's count and its parents'. */
	if (geteuid() != 0) {
		s->rlimits[s->n_rlimits++] =
			(struct kb_rlimit_value){.resource = RLIMIT_NPROC, .value = value};
		return kb_lines_add(&s->limits, err,
			"%llu processes for each process started from outside (rlimit)", n);
	}
	return kb_lines_add(&s->missing, err,
		"limit of %llu processes: no control group can be made for it here", n);
}

static int limit_cpu(
	struct kb_setup *s, const struct kb_setup_options *o, uint64_t value, struct kb_err *err)
{
	double cpus = (double)value / 1000;

	if (!(o->cgroups & KB_CGROUP_CPU))
		return kb_lines_add(&s->missing, err,
			"limit of %g CPUs: no control group can be made for it here", cpus);
	s->oci.cpu = value;
	return kb_lines_add(&s->limits, err, "%g CPUs (control group)", cpus);
}

static int limit_time(
	struct kb_setup *s, const struct kb_setup_options *o, uint64_t value, struct kb_err *err)
{
	s->time_ms = (int64_t)KB_MIN(value, (uint64_t)INT64_MAX / 1000);
	return kb_lines_add(&s->limits, err, "%g seconds of time", (double)value / 1000);
}

static int limit_open_files(
	struct kb_setup *s, const struct kb_setup_options *o, uint64_t value, struct kb_err *err)
{
	s->rlimits[s->n_rlimits++] =
		(struct kb_rlimit_value){.resource = RLIMIT_NOFILE, .value = value};
	return kb_lines_add(
		&s->limits, err, "%llu open files for each process", (unsigned long long)value);
}

static int limit_disk(
	struct kb_setup *s, const struct kb_setup_options *o, uint64_t value, struct kb_err *err)
{
	char text[32];

	s->disk = value;
	return kb_lines_add(&s->limits, err, "%s of private files", size_text(value, text));
}

/* Lane notify keeps it; see kb_notify_create(). */
static int limit_notify_rate(
	struct kb_setup *s, const struct kb_setup_options *o, uint64_t value, struct kb_err *err)
{
	return kb_lines_add(&s->limits, err, "%llu calls a second through lane notify",
		(unsigned long long)value);
}

static int limit_ask(
	struct kb_setup *s, const struct kb_setup_options *o, uint64_t value, struct kb_err *err)
{
	s->ask_ms = (uint32_t)KB_MIN(value, (uint64_t)UINT32_MAX / 2);
	return 0;
}

static int (*const limit_rows[KB_LIMIT_MAX_])(struct kb_setup *s, const struct kb_setup_options *o,
	uint64_t value, struct kb_err *err) = {
	[KB_LIMIT_MEMORY] = limit_memory,
	[KB_LIMIT_PIDS] = limit_pids,
	[KB_LIMIT_CPU] = limit_cpu,
	[KB_LIMIT_TIME] = limit_time,
	[KB_LIMIT_OPEN_FILES] = limit_open_files,
	[KB_LIMIT_DISK] = limit_disk,
	[KB_LIMIT_NOTIFY] = limit_notify_rate,
	[KB_LIMIT_ASK] = limit_ask,
};

/* The tightest of several limits of one kind. */
static int apply_limits(
	struct kb_setup *s, const struct kb_setup_options *options, struct kb_err *err)
{
	uint64_t tightest[KB_LIMIT_MAX_] = {0};
	const struct kb_limit *limits;
	size_t n = kb_bundle_limits(s->bundle, &limits);
	bool required[KB_LIMIT_MAX_] = {0};
	int r = 0;

	for (size_t i = 0; i < n; i++) {
		uint64_t *t = &tightest[limits[i].kind];

		required[limits[i].kind] |= !limits[i].optional;
		if (limits[i].value > 0 && (*t == 0 || limits[i].value < *t))
			*t = limits[i].value;
	}
	for (unsigned i = 0; i < KB_LIMIT_MAX_ && r == 0; i++) {
		size_t missing = s->missing.n;

		if (tightest[i] > 0 && limit_rows[i])
			r = limit_rows[i](s, options, tightest[i], err);
		if (r < 0 || s->missing.n == missing || !required[i])
			continue;
		kb_err_set(err, KB_ERR_REFUSED, "%s", s->missing.line[missing]);
		r = kb_err_hint(err, "write `if-available` behind the policy's limit to run "
				     "without it, or run as root");
	}
	return r;
}

/* ---- Landlock -------------------------------------------------------------------------------- */

int kb_landlock_abi(void)
{
	long abi = syscall(
		SYS_landlock_create_ruleset, NULL, (size_t)0, LANDLOCK_CREATE_RULESET_VERSION);

	return abi > 0 ? (int)abi : 0;
}

static int collect_landlock(struct kb_setup *s, struct kb_err *err)
{
	const struct kb_landlock_rule *rules;
	size_t n = kb_bundle_landlock(s->bundle, &rules);

	s->landlock = calloc(n + 1, sizeof(*s->landlock));
	if (!s->landlock)
		return kb_err_nomem(err);
	for (size_t i = 0; i < n; i++)
		s->landlock[s->n_landlock++] = (struct kb_landlock_grant){.path = rules[i].path,
			.access = rules[i].access,
			.optional = rules[i].optional};
	/* Everything visible may be listed, "/" and the other directories on the way included:
	 * Landlock knows no rule for one directory alone. What must not be seen is not there. */
	s->landlock[s->n_landlock++] =
		(struct kb_landlock_grant){.path = "/", .access = LANDLOCK_ACCESS_FS_READ_DIR};
	return 0;
}

/* ---- What the agent is told ------------------------------------------------------------------ */

static int write_kept(const struct kb_setup *s, struct kb_buf *text, struct kb_err *err)
{
	const struct kb_mount *mounts;
	size_t n = kb_bundle_mounts(s->bundle, &mounts);
	int r = 0;

	for (size_t i = 0; s->profile && i < n && r == 0; i++)
		if (mounts[i].keep)
			r = kb_buf_printf(
				text, err, "kept for your next session: %s\n", mounts[i].path);
	return r;
}

/* What stands in for values that stay on the host. */
static int write_secrets(const struct kb_setup *s, struct kb_buf *text, struct kb_err *err)
{
	const struct kb_secret *secrets;
	size_t n = kb_bundle_secrets(s->bundle, &secrets);
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		r = kb_buf_printf(text, err,
			"secret: %s, where it is set, holds a placeholder; the value is put in on "
			"the way to",
			secrets[i].name);
		for (size_t j = 0; j < secrets[i].n_endpoints && r == 0; j++)
			r = kb_buf_printf(text, err, " %s:%u", secrets[i].endpoints[j].host,
				secrets[i].endpoints[j].port);
		if (r == 0)
			r = kb_buf_puts(text, "\n", err);
	}
	return r;
}

static int write_facts(struct kb_setup *s, const Kb__StartSession *msg, struct kb_err *err)
{
	KB_BUF_CLEANUP struct kb_buf text;
	char id[KB_ULID_TEXT];
	int r;

	kb_buf_init(&text, 64u << 10);
	kb_ulid_format(msg->session.data, id);
	r = kb_buf_printf(&text, err,
		"You run in a kbsup session: everything you do is recorded.\n"
		"session: %s (%s)\npolicy: %s\nworkspace: %s\n"
		"home, /tmp, /var/tmp, /run and /dev/shm are private and vanish with the session.\n"
		"network: %s.\n",
		s->name, id, kb_bundle_name(s->bundle), s->workspace,
		s->network ? "what the policy names, over TCP; nothing else is there; "
			     "the proxy of http_proxy says why a request was refused"
			   : "loopback only");
	if (r == 0)
		r = write_kept(s, &text, err);
	if (r == 0)
		r = write_secrets(s, &text, err);
	for (size_t i = 0; i < s->limits.n && r == 0; i++)
		r = kb_buf_printf(&text, err, "limit: %s\n", s->limits.line[i]);
	if (r < 0)
		return r;
	s->facts = kb_buf_steal_string(&text);
	return s->facts ? 0 : kb_err_nomem(err);
}

/* ---- Everything ------------------------------------------------------------------------------ */

/* kbsup's own directories must not be seen even if the workspace contains them. What does not exist
 * cannot be hidden, and need not be. */
static void hide_own(struct kb_setup *s, const struct kb_setup_options *options)
{
	struct kb_dirs dirs = {0};
	const char *const own[] = {options->state, dirs.runtime, dirs.state, dirs.config};
	size_t n = 0;

	(void)kb_dirs_find(&dirs, NULL);
	for (size_t i = 0; i < KB_ARRAY_LEN(own); i++) {
		char *real = own[i][0] ? realpath(own[i], NULL) : NULL;

		if (real)
			s->hidden[n++] = real;
	}
}

/* Beside the audit store, not in it: kept trees are an agent's, and can be removed. */
static int find_profile(struct kb_setup *s, const char *agent, struct kb_err *err)
{
	struct kb_dirs dirs;
	int r;

	if (!agent)
		return 0;
	if (!kb_name_valid(agent))
		return kb_err_set(err, KB_ERR_INVALID, "the agent's name is not a plain word");
	r = kb_dirs_find(&dirs, err);
	if (r < 0)
		return r;
	s->profile = kb_asprintf("%s/profiles/%s", dirs.state, agent);
	return s->profile ? 0 : kb_err_nomem(err);
}

const char *kb_setup_lane(const struct kb_setup *setup)
{
	return kb_lane_name(setup->bpf ? KB_LANE_BPF : KB_LANE_NOTIFY);
}

static int choose_lane(struct kb_setup *s, const char *lane, const struct kb_setup_options *options,
	struct kb_err *err)
{
	if (!lane || strcmp(lane, "auto") == 0) {
		s->bpf = options->bpf;
		return 0;
	}
	s->bpf = strcmp(lane, kb_lane_name(KB_LANE_BPF)) == 0;
	if (s->bpf ? options->bpf : strcmp(lane, kb_lane_name(KB_LANE_NOTIFY)) == 0)
		return 0;
	kb_err_set(err, KB_ERR_REFUSED, "this machine cannot record by lane %s%s%s", lane,
		s->bpf && options->no_bpf ? ": " : "",
		s->bpf && options->no_bpf ? options->no_bpf : "");
	return kb_err_hint(err, "use --lane notify, or --lane auto for the best there is");
}

static void name_container(
	struct kb_setup *s, const Kb__StartSession *msg, const struct kb_setup_options *options)
{
	char id[KB_ULID_TEXT];

	kb_ulid_format(msg->session.data, id);
	snprintf(s->container_name, sizeof(s->container_name), KB_CGROUP_PREFIX "%s", id);
	s->oci.cgroup = options->cgroups ? s->container_name : NULL;
	s->oci.hostname = s->name;
	s->uid = geteuid() ? geteuid() : INSIDE_ID;
	s->gid = getegid() ? getegid() : INSIDE_ID;
}

/* What a project forbids holds wherever it is opened: the policy was compiled with it, or there is
 * none. */
static int check_workspace_policy(const struct kb_setup *s, struct kb_err *err)
{
	KB_FREE char *path = kb_asprintf("%s/" KB_WORKSPACE_POLICY, s->workspace);
	struct stat st;

	if (!path)
		return kb_err_nomem(err);
	if (kb_bundle_tightened(s->bundle) || (lstat(path, &st) < 0 && errno == ENOENT))
		return 0;
	kb_err_set(err, KB_ERR_REFUSED,
		"the workspace has a policy of its own, " KB_WORKSPACE_POLICY
		", and the session was not compiled with it");
	return kb_err_hint(err,
		"it is read on this machine and in those of kbsup vm; elsewhere, give "
		"what it says with --policy, and remove it");
}

static int make(const Kb__StartSession *msg, const struct kb_setup_options *options,
	struct kb_setup *s, struct kb_err *err)
{
	int r = choose_lane(s, msg->lane, options, err);

	if (r == 0)
		r = copy_strings(s, msg, err);
	if (r == 0)
		r = kb_bundle_parse(msg->bundle.data, msg->bundle.len, &s->bundle, err);
	if (r == 0)
		r = check_workspace_policy(s, err);
	if (r == 0)
		r = kb_bundle_emit(s->bundle, kb_arch_native(),
			s->bpf ? KB_EMIT_SPLIT : KB_EMIT_NOTIFY, &s->program, err);
	if (r < 0)
		return r;
	s->network = msg->has_egress;
	name_container(s, msg, options);
	s->runtime = strdup(msg->runtime ? msg->runtime : options->runtime);
	if (!s->runtime)
		return kb_err_nomem(err);
	r = apply_limits(s, options, err);
	if (r == 0)
		r = collect_landlock(s, err);
	if (r == 0)
		r = find_profile(s, msg->agent, err);
	if (r == 0)
		r = write_facts(s, msg, err);
	hide_own(s, options);
	return r;
}

int kb_setup_make(const Kb__StartSession *msg, const struct kb_setup_options *options,
	struct kb_setup *ret, struct kb_err *err)
{
	int r;

	*ret = (struct kb_setup){0};
	r = make(msg, options, ret, err);
	if (r < 0)
		kb_setup_finish(ret);
	return r;
}

void kb_setup_finish(struct kb_setup *s)
{
	kb_bundle_destroy(s->bundle);
	kb_program_finish(&s->program);
	free(s->name);
	free(s->workspace);
	free(s->home);
	free(s->user);
	free(s->rootfs);
	free(s->profile);
	free(s->context);
	free(s->runtime);
	free(s->landlock);
	free(s->facts);
	free(s->trust);
	for (size_t i = 0; i < KB_ARRAY_LEN(s->hidden); i++)
		free(s->hidden[i]);
	kb_lines_finish(&s->limits);
	kb_lines_finish(&s->missing);
	*s = (struct kb_setup){0};
}

static void count_mounts(const struct kb_setup *s, size_t ret[KB_MOUNT_PRIVATE + 1])
{
	const struct kb_mount *mounts;
	size_t n = kb_bundle_mounts(s->bundle, &mounts);

	for (size_t i = 0; i < n; i++)
		ret[mounts[i].kind]++;
}

int kb_setup_effective(
	const struct kb_setup *s, int landlock_abi, struct kb_lines *ret, struct kb_err *err)
{
	size_t mounts[KB_MOUNT_PRIVATE + 1] = {0};
	char shown[512];
	int r;

	kb_escape(shown, sizeof(shown), s->workspace, strlen(s->workspace));
	count_mounts(s, mounts);
	r = kb_lines_add(ret, err,
		"files: workspace %s; %zu paths read-only, %zu writable, %zu hidden; private home "
		"and temporary directories",
		shown, mounts[KB_MOUNT_READ], mounts[KB_MOUNT_WRITE], mounts[KB_MOUNT_HIDE]);
	if (r == 0)
		r = kb_lines_add(
			ret, err, "landlock: ABI %d, %zu rules", landlock_abi, s->n_landlock);
	if (r == 0)
		r = kb_lines_add(ret, err, "seccomp: %zu instructions, lane %s", s->program.len,
			kb_setup_lane(s));
	if (r == 0)
		r = kb_lines_add(ret, err,
			"user: uid %u without capabilities, no_new_privs; own user, pid, mount, "
			"network, ipc, uts and cgroup namespaces",
			s->uid);
	if (r == 0)
		r = kb_lines_add(ret, err, "network: %s",
			!s->network ? "loopback only"
			: s->trust  ? "by policy, through the broker, which may open TLS"
				    : "by policy, through the broker");
	for (size_t i = 0; i < s->limits.n && r == 0; i++)
		r = kb_lines_add(ret, err, "limit: %s", s->limits.line[i]);
	return r;
}
