/* kbsup vm: the life of machines */
#include "vm_ssh.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "disk.h"
#include "keeper.h"
#include "supervisor/base/dirs.h"
#include "supervisor/base/os.h"
#include "supervisor/base/programs.h"
#include "verbs.h"

#define DEFAULT_BRIDGE "br0"
#define TAIL_WIDTH     512

/* On a terminal one line that changes; elsewhere a line per step. What programs say (mmdebstrap's
 * hundreds of lines) is shown when asked for, and on the terminal's line as it comes. */
static void show(struct kb_vm_cli *v, const char *step, const char *text, int64_t since)
{
	char line[160], took[KB_WORDS_MAX] = "";

	kb_escape(line, sizeof(line), text, strlen(text));
	if (!v->cli->err_tty || v->detailed) {
		fprintf(stderr, "kbsup: %s: %s\n", step, line);
		return;
	}
	if (v->building)
		kb_format_duration(took, kb_now_mono() - since);
	fprintf(stderr, "\r\033[K%s%s%s %s%s%.60s", kb_tone(v->cli->err_colour, KB_TONE_DIM), step,
		kb_tone_end(v->cli->err_colour, KB_TONE_DIM), took, *took ? " · " : "", line);
	fflush(stderr);
	v->shown = true;
}

static void end_step(struct kb_vm_cli *v)
{
	if (v->n_steps)
		v->steps[v->n_steps - 1].ns = kb_now_mono() - v->steps[v->n_steps - 1].start;
}

static void progress(const char *step, const char *detail, void *arg)
{
	struct kb_vm_cli *v = arg;

	if (v->silent)
		return;
	end_step(v);
	if (v->n_steps < KB_VM_STEPS_MAX) {
		snprintf(v->steps[v->n_steps].name, sizeof(v->steps[0].name), "%s", step);
		v->steps[v->n_steps++].start = kb_now_mono();
	}
	show(v, step, detail, kb_now_mono());
}

static void wipe(struct kb_vm_cli *v)
{
	if (v->shown)
		fputs("\r\033[K", stderr);
	v->shown = false;
}

/* What the person's own set-up says is theirs to see, line by line. */
static bool is_own(const char *step)
{
	return strcmp(step, "dotfiles") == 0;
}

static void output(const char *step, const char *line, void *arg)
{
	struct kb_vm_cli *v = arg;

	if (is_own(step)) {
		char text[TAIL_WIDTH];

		wipe(v);
		kb_escape(text, sizeof(text), line, strlen(line));
		fprintf(stderr, "kbsup: %s: %s\n", step, text);
	} else if (v->detailed || (v->cli->err_tty && v->building)) {
		show(v, step, line, v->n_steps ? v->steps[v->n_steps - 1].start : kb_now_mono());
	}
}

void kb_vm_cli_tail(struct kb_vm_cli *v)
{
	const char *lines[KB_VM_TAIL_MAX];
	bool seen = v->detailed || (v->n_steps && is_own(v->steps[v->n_steps - 1].name));
	size_t n = seen ? 0 : kb_vmctl_tail(v->vm, lines);

	kb_vm_cli_settle(v);
	for (size_t i = 0; i < n; i++) {
		char line[TAIL_WIDTH];

		kb_escape(line, sizeof(line), lines[i], strlen(lines[i]));
		fprintf(stderr, "  %s\n", line);
	}
}

void kb_vm_cli_settle(struct kb_vm_cli *v)
{
	end_step(v);
	wipe(v);
}

static void cancelling(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGHUP);
}

void kb_vm_cli_unblock(void)
{
	sigset_t set;

	cancelling(&set);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

int kb_vm_cli_open(struct kb_vm_cli *v, struct kb_cli *cli, struct kb_err *err)
{
	struct kb_dirs dirs;
	char machine[PATH_MAX], guest[PATH_MAX], init[PATH_MAX];
	sigset_t set;
	int r;

	*v = (struct kb_vm_cli){.cli = cli, .cancel_fd = -1};
	if ((r = kb_dirs_find(&dirs, err)) < 0 ||
		(r = kb_program_path("kbsup-machine", machine, err)) < 0 ||
		(r = kb_program_path("kbsup-guest", guest, err)) < 0 ||
		(r = kb_program_path("kbsup-init", init, err)) < 0)
		return r;
	cancelling(&set);
	v->cancel_fd = kb_os_signal_open(&set);
	if (v->cancel_fd < 0)
		return kb_err_sys(err, errno, "signals cannot be watched");
	if ((r = kb_dirs_make(dirs.state, err)) < 0 || (r = kb_dirs_make(dirs.runtime, err)) < 0)
		return r;
	struct kb_vmctl_config config = {.state_dir = dirs.vm,
		.run_dir = dirs.vm_run,
		.machine_program = machine,
		.guest_program = guest,
		.init_program = init,
		.accel = getenv("KBSUP_ACCEL"),
		.cancel_fd = v->cancel_fd,
		.progress = progress,
		.output = output,
		.arg = v};
	return kb_vmctl_open(&config, &v->vm, err);
}

void kb_vm_cli_close(struct kb_vm_cli *v)
{
	kb_vm_cli_settle(v);
	kb_keeper_ensure(v);
	kb_vmctl_close(v->vm);
	v->vm = NULL;
	kb_close(&v->cancel_fd);
}

static void say_up(struct kb_vm_cli *v, const struct kb_vm_info *info)
{
	static const char *const words[] = {
		[KB_VM_RAN] = "was running, from",
		[KB_VM_FORKED] = "forked from",
		[KB_VM_TAKEN] = "taken from the pool of",
		[KB_VM_BOOTED] = "booted from",
		[KB_VM_RESUMED] = "resumed, from",
	};

	kb_vm_cli_settle(v);
	fprintf(stderr, "kbsup: %s %s %s in %.2f s", info->name, words[info->way], info->base,
		(double)info->took_ns / 1e9);
	if (info->ssh_port)
		fprintf(stderr, " · ssh %s.kbsup", info->name);
	fprintf(stderr, " · console: kbsup vm console %s\n", info->name);
}

/* Machines get their encrypted disks back unless they are told not to. */
#define DISK_OPTIONS                                                                               \
	{.name = "disk",                                                                           \
		.arg = "NAME",                                                                     \
		.kind = KB_KIND_DISK,                                                              \
		.setting = "disk",                                                                 \
		.unless = "no-disk",                                                               \
		.help = "Attach this encrypted disk, too"},                                        \
		{.name = "no-disk", .help = "Attach no encrypted disk"}, KB_PASSPHRASE_OPTION

/* That a machine lacks its disk fails no start, unless the disk was asked for. */
static int give_disks(
	struct kb_vm_cli *v, const char *name, const struct kb_args *args, struct kb_err *err)
{
	struct kb_disk_start start = {.machine = name,
		.disk = kb_args_value(args, "disk"),
		.must = kb_args_given(args, "disk"),
		.fd = kb_args_value(args, "passphrase-fd")};

	return kb_args_has(args, "no-disk") ? 0 : kb_disk_at_start(v, &start, err);
}

/* ---- start ----------------------------------------------------------------------------------- */

static int run_start(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};
	struct kb_vm_spec spec = {.name = args->operands[0],
		.base = kb_args_value(args, "base"),
		.cold = kb_args_has(args, "cold"),
		.isolated = kb_args_has(args, "isolated"),
		.bridge = kb_args_has(args, "bridged") ? DEFAULT_BRIDGE : NULL,
		.screen = kb_args_has(args, "gui"),
		.cpus = (unsigned)kb_args_count(args, "cpus", 0)};
	const char *memory = kb_args_value(args, "memory");
	struct kb_vm_info info;
	struct kb_vm_ssh to;
	uint64_t bytes = 0;
	int r;

	if (memory && (!kb_parse_size(memory, &bytes) || bytes < 128u << 20 || bytes > 1ull << 42))
		return kb_err_set(
			err, KB_ERR_USAGE, "--memory %s is not a size of a machine", memory);
	spec.memory_mib = (unsigned)(bytes >> 20);
	if ((r = kb_vm_cli_open(&v, cli, err)) < 0 ||
		(r = kb_vm_start(v.vm, &spec, &info, err)) < 0)
		return r;
	say_up(&v, &info);
	if (spec.screen)
		kb_vm_show_screen(&info);
	if ((r = give_disks(&v, spec.name, args, err)) < 0 || !kb_args_has(args, "ssh"))
		return r < 0 ? r : KB_EXIT_OK;
	r = kb_vm_ssh(v.vm, spec.name, &to, err);
	return r < 0 ? r : kb_vm_shell(&v, &to, NULL, err);
}

static const struct kb_option start_options[] = {
	{.name = "base",
		.arg = "B",
		.kind = KB_KIND_BASE,
		.help = "The base to make it from, if it is new"},
	{.name = "cold", .help = "Boot instead of forking; drops saved memory"},
	{.name = "isolated", .help = "No way out of the machine but its forwarded ports"},
	{.name = "bridged", .help = "Join the host's bridge " DEFAULT_BRIDGE},
	{.name = "cpus", .arg = "N", .kind = KB_KIND_COUNT, .help = "Processors of a new machine"},
	{.name = "memory", .arg = "SIZE", .help = "Memory of a new machine, like 2G"},
	{.name = "gui", .help = "With a screen, and a window that shows it"},
	DISK_OPTIONS,
	{.name = "ssh", .help = "Then open a shell in it"},
	{0},
};

KB_VM_VERB(start, "Make, boot or resume a machine",
	.about = "Brings a machine up: a new one is forked from its base's running template, a "
		 "suspended one continues, a stopped one boots. Returns once the machine answers.",
	.options = start_options,
	.operands = {{.name = "M", .min = 1, .max = 1, .kind = KB_KIND_MACHINE}}, .run = run_start);

/* ---- verbs that take machines one by one ------------------------------------------------------
 */

typedef int (*one_fn)(
	struct kb_vm_cli *v, const char *name, const struct kb_args *args, struct kb_err *err);

static int each(struct kb_cli *cli, const struct kb_args *args, one_fn fn, const char *done,
	struct kb_err *err)
{
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};
	int r = kb_vm_cli_open(&v, cli, err);

	for (size_t i = 0; r == 0 && i < args->n_operands; i++) {
		r = fn(&v, args->operands[i], args, err);
		kb_vm_cli_settle(&v);
		if (r == 0 && done && cli->err_tty)
			fprintf(stderr, "kbsup: %s %s\n", args->operands[i], done);
	}
	return r;
}

static int stop_one(
	struct kb_vm_cli *v, const char *name, const struct kb_args *args, struct kb_err *err)
{
	return kb_vm_stop(v->vm, name, kb_args_has(args, "now"), err);
}

int kb_vm_stop_named(struct kb_cli *cli, const char *name, bool now, struct kb_err *err)
{
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};
	int r = kb_vm_cli_open(&v, cli, err);

	if (r == 0)
		r = kb_vm_stop(v.vm, name, now, err);
	kb_vm_cli_settle(&v);
	if (r == 0 && cli->err_tty)
		fprintf(stderr, "kbsup: %s stopped\n", name);
	return r;
}

static int suspend_one(
	struct kb_vm_cli *v, const char *name, const struct kb_args *args, struct kb_err *err)
{
	return kb_vm_suspend(v->vm, name, err);
}

static int resume_one(
	struct kb_vm_cli *v, const char *name, const struct kb_args *args, struct kb_err *err)
{
	struct kb_vm_info info;
	int r = kb_vm_resume(v->vm, name, &info, err);

	if (r < 0)
		return r;
	say_up(v, &info);
	return give_disks(v, name, args, err);
}

static int delete_one(
	struct kb_vm_cli *v, const char *name, const struct kb_args *args, struct kb_err *err)
{
	return kb_vm_delete(v->vm, name, err);
}

/* What the machine is to have from its next start; neither: the way out of user networking. */
struct wanted {
	bool isolated;
	const char *bridge;
};

static int change_network(
	struct kb_vm_cli *v, const char *name, const struct wanted *to, struct kb_err *err)
{
	const char *word = to->bridge ? "bridged" : to->isolated ? "isolated" : "neither";
	struct kb_vm_info info;
	int r = kb_vm_query(v->vm, name, false, &info, err);

	if (r == 0 && to->isolated == info.isolated &&
		!strcmp(to->bridge ? to->bridge : "", info.bridge)) {
		fprintf(stderr, "kbsup: %s is %s already\n", name, word);
		return 0;
	}
	return r < 0 ? r : kb_vm_network(v->vm, name, to->isolated, to->bridge, err);
}

static int isolate_one(
	struct kb_vm_cli *v, const char *name, const struct kb_args *args, struct kb_err *err)
{
	struct wanted to = {.isolated = !kb_args_has(args, "off")};

	return change_network(v, name, &to, err);
}

static int bridge_one(
	struct kb_vm_cli *v, const char *name, const struct kb_args *args, struct kb_err *err)
{
	struct wanted to = {.bridge = kb_args_has(args, "off") ? NULL : DEFAULT_BRIDGE};

	return change_network(v, name, &to, err);
}

static int run_stop(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	return each(cli, args, stop_one, "stopped", err);
}

static int run_suspend(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	return each(cli, args, suspend_one, "suspended", err);
}

static int run_resume(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	return each(cli, args, resume_one, NULL, err);
}

static int run_delete(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	return each(cli, args, delete_one, "deleted", err);
}

static int run_isolate(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	return each(cli, args, isolate_one, NULL, err);
}

static int run_bridge(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	return each(cli, args, bridge_one, NULL, err);
}

static const struct kb_option stop_options[] = {
	{.name = "now", .help = "Do not ask the machine to shut down"},
	{0},
};

static const struct kb_option resume_options[] = {DISK_OPTIONS, {0}};

static const struct kb_option network_options[] = {
	{.name = "off", .help = "Back to a way out through this host, and no neighbours"},
	{0},
};

#define MACHINES                                                                                   \
	{                                                                                          \
		{                                                                                  \
			.name = "M", .min = 1, .max = KB_MANY, .kind = KB_KIND_MACHINE             \
		}                                                                                  \
	}

const struct kb_command kb_cmd_vm_stop = {
	.name = "vm stop",
	.group = KB_GROUP_MACHINES,
	.summary = "Shut machines down",
	.about = "Asks each machine to shut down; one that does not is told by its power button, "
		 "then ended. Its disk stays.",
	.options = stop_options,
	.operands = MACHINES,
	.man = "kbsup-vm",
	.run = run_stop,
};

KB_VM_VERB(suspend, "Write machines' memory to the disk and end them",
	.about = "A suspended machine takes no memory and survives a restart of the host.",
	.operands = MACHINES, .run = run_suspend);

KB_VM_VERB(resume, "Let suspended or halted machines go on",
	.about = "Unlike start, boots and makes nothing.", .options = resume_options,
	.operands = MACHINES, .run = run_resume);

KB_VM_VERB(delete, "End machines and remove all they have",
	.about = "Ends each machine at once and removes its disk, saved memory and keys.",
	.operands = MACHINES, .run = run_delete);

KB_VM_VERB(isolate, "Cut stopped machines off from the network",
	.about = "From its next start a machine reaches nothing outside; forwarded ports still "
		 "reach it.",
	.options = network_options, .operands = MACHINES, .run = run_isolate);

KB_VM_VERB(bridge, "Put stopped machines on the host's bridge",
	.about = "From its next start a machine is a neighbour on the bridge " DEFAULT_BRIDGE
		 " and asks its DHCP server for an address.",
	.options = network_options, .operands = MACHINES, .run = run_bridge);

/* ---- fork ------------------------------------------------------------------------------------ */

static int run_fork(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};
	struct kb_vm_info info;
	int64_t pause;
	int r;

	if ((r = kb_vm_cli_open(&v, cli, err)) < 0 ||
		(r = kb_vm_fork(v.vm, args->operands[0], args->operands[1], &pause, &info, err)) <
			0)
		return r;
	kb_vm_cli_settle(&v);
	fprintf(stderr,
		"kbsup: %s forked from running %s in %.2f s, which stood still for %.0f ms\n",
		info.name, args->operands[0], (double)info.took_ns / 1e9, (double)pause / 1e6);
	return KB_EXIT_OK;
}

const struct kb_command kb_cmd_vm_fork = {
	.name = "vm fork",
	.group = KB_GROUP_MACHINES,
	.summary = "Fork a running machine, memory and disk",
	.about =
		"The new machine goes on from the same moment under its own name and identity. The "
		"source hardly pauses.",
	.operands = {{.name = "M", .min = 1, .max = 1, .kind = KB_KIND_MACHINE},
		{.name = "NEW", .min = 1, .max = 1}},
	.man = "kbsup-vm",
	.run = run_fork,
};

/* ---- forward --------------------------------------------------------------------------------- */

static int run_forward(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};
	const char *colon = strchr(args->operands[1], ':');
	uint64_t host = 0, guest = 0;
	unsigned port;
	int r;

	if (colon) {
		char *first KB_FREE =
			strndup(args->operands[1], (size_t)(colon - args->operands[1]));

		if (!first || !kb_parse_u64(first, &host))
			host = UINT16_MAX + 1u;
	}
	if (!kb_parse_u64(colon ? colon + 1 : args->operands[1], &guest) || guest > UINT16_MAX ||
		host > UINT16_MAX) {
		kb_err_set(err, KB_ERR_USAGE, "%s is not HOST:GUEST, two ports", args->operands[1]);
		return kb_err_hint(err, "for example 8080:80, or just 80 for any free port here");
	}
	if ((r = kb_vm_cli_open(&v, cli, err)) < 0 ||
		(r = kb_vm_forward(
			 v.vm, args->operands[0], (unsigned)host, (unsigned)guest, &port, err)) < 0)
		return r;
	printf("127.0.0.1:%u\n", port);
	return KB_EXIT_OK;
}

const struct kb_command kb_cmd_vm_forward = {
	.name = "vm forward",
	.group = KB_GROUP_MACHINES,
	.summary = "Forward a port of this host to a machine",
	.about = "Forwards a port of 127.0.0.1 to a port of a running machine, until it stops. "
		 "Prints the address.",
	.operands = {{.name = "M", .min = 1, .max = 1, .kind = KB_KIND_MACHINE},
		{.name = "HOST:GUEST", .min = 1, .max = 1}},
	.man = "kbsup-vm",
	.run = run_forward,
};
