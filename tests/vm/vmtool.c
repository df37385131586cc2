/* Machines from the shell, without a supervisor: one operation of vmctl per run. For tests and
 * measurements; VMTOOL_STATE and VMTOOL_RUN say where, VMTOOL_MACHINE which machine service. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "supervisor/base/log.h"
#include "supervisor/base/util.h"
#include "vmctl/vmctl.h"

static void progress(const char *step, const char *detail, void *arg)
{
	const char *quiet = getenv("VMTOOL_QUIET");
	char line[1024];

	if (!quiet || !*quiet) {
		kb_escape(line, sizeof(line), detail, strlen(detail));
		fprintf(stderr, "%7.3f %s: %s\n", (double)(kb_now_mono() - *(int64_t *)arg) / 1e9,
			step, line);
	}
}

static void output(const char *step, const char *line, void *arg)
{
	if (getenv("VMTOOL_VERBOSE") || strcmp(step, "dotfiles") == 0)
		progress(step, line, arg);
}

static void show(const struct kb_vm_info *i, void *arg)
{
	printf("%s %s base=%s/%u pid=%d port=%u disk=%llu pss=%llu forked=%d took_ms=%.1f", i->name,
		kb_vm_state_name(i->state), i->base, i->generation, i->pid, i->ssh_port,
		(unsigned long long)i->disk_bytes, (unsigned long long)i->host_memory, i->forked,
		(double)i->took_ns / 1e6);
	if (i->live)
		printf(" memory=%llu/%llu load=%.2f",
			(unsigned long long)(i->memory_total - i->memory_available) >> 20,
			(unsigned long long)i->memory_total >> 20, i->load1);
	printf("\n");
}

static void show_base(const struct kb_base_info *i, void *arg)
{
	printf("%s generation=%u current=%d frozen=%d users=%u disk=%llu\n", i->name, i->generation,
		i->current, i->frozen, i->users, (unsigned long long)i->disk_bytes);
}

struct call {
	struct kb_vmctl *vm;
	int argc;
	char **argv; /* after the verb */
	struct kb_err *err;
};

static const char *arg_at(const struct call *c, int i)
{
	return i < c->argc ? c->argv[i] : NULL;
}

/* The value of a KEY=VALUE among the arguments, or NULL. */
static const char *setting(const struct call *c, const char *key)
{
	size_t len = strlen(key);

	for (int i = 1; i < c->argc; i++)
		if (!strncmp(c->argv[i], key, len) && c->argv[i][len] == '=')
			return c->argv[i] + len + 1;
	return NULL;
}

static int base_create(struct call *c)
{
	const char *packages[] = {setting(c, "package"), NULL};
	struct kb_base_spec spec = {.name = arg_at(c, 0),
		.from = setting(c, "from"),
		.arch = setting(c, "arch"),
		.user = setting(c, "user"),
		.ssh_key = setting(c, "key"),
		.dotfiles = setting(c, "dotfiles"),
		.packages = packages,
		.no_template = setting(c, "template") != NULL,
		.fresh = setting(c, "fresh") != NULL,
		.import_ms = setting(c, "import_ms") ? atoi(setting(c, "import_ms")) : 0};

	if (setting(c, "size") && !kb_parse_size(setting(c, "size"), &spec.disk_bytes))
		return kb_err_set(c->err, KB_ERR_USAGE, "a bad size");
	return kb_base_create(c->vm, &spec, c->err);
}

static int base_list(struct call *c)
{
	return kb_base_list(c->vm, show_base, NULL, c->err);
}

static int base_delete(struct call *c)
{
	return kb_base_delete(c->vm, arg_at(c, 0), c->err);
}

static int start(struct call *c)
{
	const char *how = arg_at(c, 1);
	struct kb_vm_spec spec = {.name = arg_at(c, 0),
		.base = setting(c, "base"),
		.cold = how && strcmp(how, "cold") == 0,
		.isolated = how && strcmp(how, "isolated") == 0};
	struct kb_vm_info info;
	int r = kb_vm_start(c->vm, &spec, &info, c->err);

	if (r == 0)
		show(&info, NULL);
	return r;
}

static int stop(struct call *c)
{
	return kb_vm_stop(c->vm, arg_at(c, 0), arg_at(c, 1) != NULL, c->err);
}

static int suspend(struct call *c)
{
	return kb_vm_suspend(c->vm, arg_at(c, 0), c->err);
}

static int resume(struct call *c)
{
	struct kb_vm_info info;
	int r = kb_vm_resume(c->vm, arg_at(c, 0), &info, c->err);

	if (r == 0)
		show(&info, NULL);
	return r;
}

static int fork_machine(struct call *c)
{
	struct kb_vm_info info;
	int64_t pause;
	int r = kb_vm_fork(c->vm, arg_at(c, 0), arg_at(c, 1), &pause, &info, c->err);

	if (r < 0)
		return r;
	printf("pause_ms=%.1f ", (double)pause / 1e6);
	show(&info, NULL);
	return 0;
}

static int delete (struct call *c)
{
	return kb_vm_delete(c->vm, arg_at(c, 0), c->err);
}

static int list(struct call *c)
{
	return kb_vm_list(c->vm, arg_at(c, 0) != NULL, show, NULL, c->err);
}

static int status(struct call *c)
{
	struct kb_vm_info info;
	int r = kb_vm_query(c->vm, arg_at(c, 0), true, &info, c->err);

	if (r == 0)
		show(&info, NULL);
	return r;
}

static int forward(struct call *c)
{
	unsigned port;
	int r = kb_vm_forward(c->vm, arg_at(c, 0), 0, (unsigned)atoi(arg_at(c, 1)), &port, c->err);

	if (r == 0)
		printf("%u\n", port);
	return r;
}

static int exec(struct call *c)
{
	char *out = NULL, *errs = NULL;
	int code = 0;
	int r = kb_vm_exec(c->vm, arg_at(c, 0), (const char *const *)c->argv + 1, 60000, &code,
		&out, &errs, c->err);

	if (r == 0) {
		fputs(out, stdout);
		fputs(errs, stderr);
	}
	free(out);
	free(errs);
	return r < 0 ? r : code;
}

static int console(struct call *c)
{
	char path[108];
	int r = kb_vm_console_path(c->vm, arg_at(c, 0), path, c->err);

	if (r == 0)
		puts(path);
	return r;
}

static int pool(struct call *c)
{
	return kb_vm_pool_fill(c->vm, (unsigned)atoi(arg_at(c, 0)), c->err);
}

static int pool_list(struct call *c)
{
	return kb_vm_pool_list(c->vm, show, NULL, c->err);
}

static int collect(struct call *c)
{
	return kb_vmctl_collect_garbage(c->vm, c->err);
}

static void show_disk(const struct kb_disk_info *i, void *arg)
{
	printf("%s %s machine=%s wanted=%d place=%s bytes=%llu occupied=%llu live=%d total=%llu "
	       "free=%llu mended=%d\n",
		i->name, kb_disk_state_name(i->state), *i->machine ? i->machine : "-", i->wanted,
		i->place, (unsigned long long)i->bytes, (unsigned long long)i->occupied, i->live,
		(unsigned long long)i->total, (unsigned long long)i->free, i->mended);
}

/* Its passphrase comes on standard input, up to the end. */
static const struct kb_passphrase *passphrase(struct call *c)
{
	static struct kb_passphrase p;
	ssize_t n;

	p.len = 0;
	while (p.len < sizeof(p.bytes) &&
		(n = read(STDIN_FILENO, p.bytes + p.len, sizeof(p.bytes) - p.len)) > 0)
		p.len += (size_t)n;
	return p.len ? &p : NULL;
}

static int disk_create(struct call *c)
{
	struct kb_disk_spec spec = {.name = arg_at(c, 0),
		.bytes = (uint64_t)atoi(arg_at(c, 1)) << 20,
		.place = arg_at(c, 2)};

	return kb_disk_create(c->vm, &spec, passphrase(c), c->err);
}

static int disk_attach(struct call *c)
{
	const char *how = arg_at(c, 2);
	struct kb_disk_attach spec = {.name = arg_at(c, 0),
		.machine = arg_at(c, 1),
		.passphrase = passphrase(c),
		.repair = how && strcmp(how, "repair") == 0,
		.place = how && *how == '/' ? how : NULL};
	struct kb_disk_info info;
	int r = kb_disk_attach(c->vm, &spec, &info, c->err);

	if (r == 0)
		show_disk(&info, NULL);
	return r;
}

static int disk_detach(struct call *c)
{
	return kb_disk_detach(c->vm, arg_at(c, 0), arg_at(c, 1) != NULL, c->err);
}

static int disk_delete(struct call *c)
{
	return kb_disk_delete(c->vm, arg_at(c, 0), c->err);
}

static int disk_grow(struct call *c)
{
	return kb_disk_grow(c->vm, arg_at(c, 0), (uint64_t)atoi(arg_at(c, 1)) << 20, c->err);
}

static int disk_list(struct call *c)
{
	return kb_disk_list(c->vm, true, show_disk, NULL, c->err);
}

static const struct {
	const char *verb;
	int (*fn)(struct call *c);
	int args;
} verbs[] = {
	{"base-create", base_create, 1},
	{"base-list", base_list, 0},
	{"base-delete", base_delete, 1},
	{"start", start, 1},
	{"stop", stop, 1},
	{"suspend", suspend, 1},
	{"resume", resume, 1},
	{"fork", fork_machine, 2},
	{"delete", delete, 1},
	{"list", list, 0},
	{"status", status, 1},
	{"forward", forward, 2},
	{"exec", exec, 2},
	{"console", console, 1},
	{"collect", collect, 0},
	{"pool", pool, 1},
	{"pool-list", pool_list, 0},
	{"disk-create", disk_create, 2},
	{"disk-attach", disk_attach, 2},
	{"disk-detach", disk_detach, 1},
	{"disk-delete", disk_delete, 1},
	{"disk-grow", disk_grow, 2},
	{"disk-list", disk_list, 0},
};

static void show_tail(const struct kb_vmctl *vm)
{
	const char *lines[KB_VM_TAIL_MAX];
	size_t n = kb_vmctl_tail(vm, lines);

	for (size_t i = 0; i < n; i++)
		fprintf(stderr, "  %s\n", lines[i]);
}

/* A descriptor that becomes readable with the first SIGINT or SIGTERM: the operation is cancelled
 * and puts things back, instead of dying where it stands. */
static int cancel_on_signal(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

int main(int argc, char **argv)
{
	int64_t start_ns = kb_now_mono();
	struct kb_err err = {0};
	struct kb_vmctl_config config = {.state_dir = getenv("VMTOOL_STATE"),
		.run_dir = getenv("VMTOOL_RUN"),
		.machine_program = getenv("VMTOOL_MACHINE"),
		.guest_program = getenv("VMTOOL_GUEST"),
		.init_program = getenv("VMTOOL_INIT"),
		.accel = "tcg",
		.cancel_fd = cancel_on_signal(),
		.progress = progress,
		.output = output,
		.arg = &start_ns};
	struct call call = {.argc = argc - 2, .argv = argv + 2, .err = &err};
	int r = -KB_ERR_USAGE;

	kb_log_init("vmtool");
	if (!config.state_dir || !config.run_dir || argc < 2) {
		fprintf(stderr, "usage: VMTOOL_STATE=… VMTOOL_RUN=… vmtool VERB [NAME …]\n");
		return 2;
	}
	if (kb_vmctl_open(&config, &call.vm, &err) < 0)
		goto out;
	for (size_t i = 0; i < KB_ARRAY_LEN(verbs); i++)
		if (strcmp(argv[1], verbs[i].verb) == 0 && call.argc >= verbs[i].args)
			r = verbs[i].fn(&call);
	if (err.code)
		show_tail(call.vm);
	kb_vmctl_close(call.vm);
out:
	if (err.code)
		fprintf(stderr, "vmtool: %s\n%s%s", err.msg, err.hint, *err.hint ? "\n" : "");
	return err.code ? 1 : r < 0 ? 2 : r;
}
