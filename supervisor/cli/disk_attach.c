/* Giving disks to machines: kbsup disk attach, and what kbsup vm start does about them */
#include <string.h>

#include "disk.h"
#include "settings.h"
#include "verbs.h"

#define DEFAULT_NAME "projects"
#define TRIES	     3
#define WANTED_MAX   KB_VM_DISKS_MAX

/* Never cut off: what is left could be the name of another. */
static int take_name(const char *name, char ret[KB_NAME_MAX], struct kb_err *err)
{
	if (snprintf(ret, KB_NAME_MAX, "%s", name) < KB_NAME_MAX)
		return 0;
	return kb_err_set(err, KB_ERR_USAGE, "the name of a disk is too long");
}

int kb_disk_named(const struct kb_args *args, size_t at, char ret[KB_NAME_MAX], struct kb_err *err)
{
	struct kb_settings settings KB_CLEANUP(kb_settings_finish) = {0};
	const char *name = kb_args_operand(args, at);
	struct kb_dirs dirs;
	int r;

	if (name)
		return take_name(name, ret, err);
	if ((r = kb_dirs_find(&dirs, err)) < 0 || (r = kb_settings_load(&settings, &dirs, err)) < 0)
		return r;
	name = kb_settings_value(&settings, "disk");
	return take_name(name ? name : DEFAULT_NAME, ret, err);
}

static void say_attached(struct kb_vm_cli *v, const struct kb_disk_info *i)
{
	char left[KB_WORDS_MAX];

	kb_vm_cli_settle(v);
	kb_format_size(left, i->free);
	fprintf(stderr, "kbsup: disk %s is at %s in %s · %s free%s\n", i->name, i->place,
		i->machine, left, i->mended ? " · its file system was mended" : "");
}

/* What QEMU has open already needs no passphrase. */
static bool needs_passphrase(const struct kb_disk_info *i, const char *machine)
{
	bool open = i->state == KB_DISK_ATTACHED || i->state == KB_DISK_INCOMPLETE;

	return !open || strcmp(i->machine, machine) != 0;
}

/* What would be refused anyway is refused before anybody types. */
static int look_first(struct kb_vm_cli *v, const struct kb_disk_attach *spec,
	struct kb_disk_info *ret, struct kb_err *err)
{
	struct kb_vm_info machine;
	int r;

	if ((r = kb_disk_query(v->vm, spec->name, false, ret, err)) < 0 ||
		(r = kb_vm_query(v->vm, spec->machine, false, &machine, err)) < 0)
		return r;
	return kb_disk_may_attach(ret, &machine, err);
}

int kb_disk_give(
	struct kb_vm_cli *v, const struct kb_disk_attach *spec, const char *fd, struct kb_err *err)
{
	struct kb_passphrase passphrase KB_PASSPHRASE_CLEANUP = {.len = 0};
	struct kb_disk_attach mine = *spec;
	struct kb_disk_info info;
	int r = look_first(v, spec, &info, err);

	if (r < 0)
		return r;
	if (needs_passphrase(&info, spec->machine))
		mine.passphrase = &passphrase;
	for (int i = 0; i < TRIES; i++) {
		char *what KB_FREE = kb_xprintf("disk %s", spec->name);

		if (mine.passphrase &&
			(r = kb_passphrase_read(v, fd, what, false, &passphrase, err)) < 0)
			return r;
		r = kb_disk_attach(v->vm, &mine, &info, err);
		if (r != -KB_ERR_INVALID || !mine.passphrase || fd || i == TRIES - 1)
			break;
		kb_vm_cli_settle(v);
		fprintf(stderr, "kbsup: %s\n", err->msg);
	}
	if (r == 0)
		say_attached(v, &info);
	return r;
}

/* ---- after a start --------------------------------------------------------------------------- */

struct wanted {
	const char *machine;
	char names[WANTED_MAX][KB_NAME_MAX];
	size_t n;
};

static void want(struct wanted *w, const char *name)
{
	for (size_t i = 0; i < w->n; i++)
		if (!strcmp(w->names[i], name))
			return;
	if (w->n < WANTED_MAX)
		snprintf(w->names[w->n++], KB_NAME_MAX, "%s", name);
}

static void note_wanted(const struct kb_disk_info *i, void *arg)
{
	struct wanted *w = arg;

	if (i->wanted && !strcmp(i->machine, w->machine) && i->state != KB_DISK_ATTACHED)
		want(w, i->name);
}

static void say_not_attached(
	struct kb_vm_cli *v, const char *name, const char *machine, const struct kb_err *why)
{
	kb_vm_cli_settle(v);
	fprintf(stderr, "kbsup: disk %s is not attached: %s\n", name,
		why ? why->msg : "it needs its passphrase");
	if (!why || why->code != KB_ERR_EXISTS)
		fprintf(stderr, "       later: kbsup disk attach %s %s\n", machine, name);
}

static void give_one(struct kb_vm_cli *v, const char *name, const char *machine, const char *fd)
{
	struct kb_disk_attach spec = {.name = name, .machine = machine};
	struct kb_disk_info info;
	struct kb_err err = {0};
	int r = look_first(v, &spec, &info, &err);

	if (r == 0 && info.state == KB_DISK_ATTACHED && !strcmp(info.machine, machine))
		return;
	if (r == 0 && !fd && needs_passphrase(&info, machine) && !kb_passphrase_can_ask(v->cli)) {
		say_not_attached(v, name, machine, NULL);
		return;
	}
	if (r == 0)
		r = kb_disk_give(v, &spec, fd, &err);
	if (r < 0)
		say_not_attached(v, name, machine, &err);
}

static int give_asked(struct kb_vm_cli *v, const struct kb_disk_start *start, struct kb_err *err)
{
	struct kb_disk_attach spec = {.name = start->disk, .machine = start->machine};

	return kb_disk_give(v, &spec, start->fd, err);
}

int kb_disk_at_start(struct kb_vm_cli *v, const struct kb_disk_start *start, struct kb_err *err)
{
	struct wanted w = {.machine = start->machine};
	int r = start->must ? give_asked(v, start, err) : 0;

	if (start->disk && !start->must)
		want(&w, start->disk);
	kb_disk_list(v->vm, false, note_wanted, &w, NULL);
	for (size_t i = 0; i < w.n; i++)
		if (r == 0 || strcmp(w.names[i], start->disk))
			give_one(v, w.names[i], start->machine, start->fd);
	return r;
}

/* ---- attach ---------------------------------------------------------------------------------- */

static int run_attach(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};
	char name[KB_NAME_MAX];
	struct kb_disk_attach spec = {.machine = args->operands[0],
		.name = name,
		.place = kb_args_value(args, "mount"),
		.repair = kb_args_has(args, "repair")};
	int r = kb_disk_named(args, 1, name, err);

	if (r < 0 || (r = kb_vm_cli_open(&v, cli, err)) < 0)
		return r;
	return kb_disk_give(&v, &spec, kb_args_value(args, "passphrase-fd"), err);
}

static const struct kb_option attach_options[] = {
	{.name = "mount", .arg = "DIR", .help = "Where, in the machine, this time"},
	{.name = "repair", .help = "Mend a damaged file system, whatever that takes"},
	KB_PASSPHRASE_OPTION,
	{0},
};

const struct kb_command kb_cmd_disk_attach = {
	.name = "disk attach",
	.group = KB_GROUP_MACHINES,
	.summary = "Unlock an encrypted disk and mount it in a machine",
	.about = "Asks for the passphrase, unlocks the disk, and mounts it in a running machine. "
		 "One machine at a time has it. Finishes what an interrupted attach began.",
	.options = attach_options,
	.operands = {{.name = "M", .min = 1, .max = 1, .kind = KB_KIND_MACHINE},
		{.name = "NAME", .max = 1, .kind = KB_KIND_DISK}},
	.man = "kbsup-disk",
	.run = run_attach,
};
