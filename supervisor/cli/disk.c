/* kbsup disk create, list, detach, grow, passphrase, delete */
#include "disk.h"

#include <string.h>

#include "verbs.h"

static int parse_bytes(const char *text, const char *what, uint64_t *ret, struct kb_err *err)
{
	if (!text || kb_parse_size(text, ret))
		return 0;
	return kb_err_set(err, KB_ERR_USAGE, "%s %s is not a size, like 32G", what, text);
}

/* ---- create ---------------------------------------------------------------------------------- */

/* --mount; what is set is the place of the one disk that is meant when none is named. */
static int place_of(
	const struct kb_args *args, const char *name, const char **ret, struct kb_err *err)
{
	const struct kb_args none = {.command = args->command};
	char meant[KB_NAME_MAX];
	int r = kb_disk_named(&none, 0, meant, err);

	if (r == 0 && (kb_args_given(args, "mount") || !strcmp(name, meant)))
		*ret = kb_args_value(args, "mount");
	return r;
}

static int run_create(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_passphrase passphrase KB_PASSPHRASE_CLEANUP = {.len = 0};
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};
	char name[KB_NAME_MAX];
	struct kb_disk_spec spec = {.name = name};
	struct kb_disk_info info;
	char *what KB_FREE = NULL;
	int r;

	if ((r = parse_bytes(kb_args_value(args, "size"), "--size", &spec.bytes, err)) < 0 ||
		(r = kb_disk_named(args, 0, name, err)) < 0 ||
		(r = place_of(args, name, &spec.place, err)) < 0 ||
		(r = kb_vm_cli_open(&v, cli, err)) < 0)
		return r;
	what = kb_xprintf("disk %s", name);
	if ((r = kb_disk_may_create(v.vm, &spec, err)) < 0 ||
		(r = kb_passphrase_read(&v, kb_args_value(args, "passphrase-fd"), what, true,
			 &passphrase, err)) < 0 ||
		(r = kb_disk_create(v.vm, &spec, &passphrase, err)) < 0 ||
		(r = kb_disk_query(v.vm, spec.name, false, &info, err)) < 0)
		return r;
	kb_vm_cli_settle(&v);
	fprintf(stderr, "kbsup: disk %s made · mounted at %s by: kbsup disk attach M%s%s\n",
		info.name, info.place, kb_args_operand(args, 0) ? " " : "",
		kb_args_operand(args, 0) ? info.name : "");
	return KB_EXIT_OK;
}

static const struct kb_option create_options[] = {
	{.name = "size", .arg = "SIZE", .help = "Like 64G; it grows here as it is used. 32G"},
	{.name = "mount",
		.arg = "DIR",
		.setting = "disk-place",
		.help = "Where machines have it; /mnt/NAME"},
	KB_PASSPHRASE_OPTION,
	{0},
};

const struct kb_command kb_cmd_disk_create = {
	.name = "disk create",
	.group = KB_GROUP_MACHINES,
	.summary = "Make an encrypted disk, which outlives machines",
	.about = "Asks for a passphrase, twice, and makes an encrypted (LUKS) disk under it. "
		 "Without the passphrase nothing on it can be read again.",
	.options = create_options,
	.operands = {{.name = "NAME", .max = 1}},
	.man = "kbsup-disk",
	.run = run_create,
};

/* ---- list ------------------------------------------------------------------------------------ */

struct rows {
	struct kb_table table;
	json_t *json;
	size_t n;
};

static json_t *info_json(const struct kb_disk_info *i)
{
	json_t *one = json_pack("{s:s, s:s, s:o, s:s, s:b, s:I, s:I, s:I}", "name", i->name,
		"state", kb_disk_state_name(i->state), "machine",
		*i->machine ? json_string(i->machine) : json_null(), "mount", i->place, "wanted",
		i->wanted, "bytes", (json_int_t)i->bytes, "disk_bytes", (json_int_t)i->occupied,
		"created", (json_int_t)i->created_ns);

	if (i->live)
		json_object_set_new(one, "live",
			json_pack("{s:I, s:I}", "total", (json_int_t)i->total, "free",
				(json_int_t)i->free));
	return one;
}

static enum kb_tone state_tone(enum kb_disk_state state)
{
	switch (state) {
	case KB_DISK_DETACHED:
		return KB_TONE_DIM;
	case KB_DISK_ATTACHED:
		return KB_TONE_GOOD;
	default:
		return KB_TONE_WARN;
	}
}

static void add_row(const struct kb_disk_info *i, void *arg)
{
	struct rows *rows = arg;
	char size[KB_WORDS_MAX], here[KB_WORDS_MAX], left[KB_WORDS_MAX];

	rows->n++;
	if (rows->json) {
		json_array_append_new(rows->json, info_json(i));
		return;
	}
	kb_format_size(size, i->bytes);
	kb_format_size(here, i->occupied);
	kb_format_size(left, i->free);
	kb_table_cell(&rows->table, KB_TONE_BOLD, i->name);
	kb_table_cell(&rows->table, state_tone(i->state), kb_disk_state_name(i->state));
	kb_table_cell(&rows->table, KB_TONE_NONE,
		i->state == KB_DISK_DETACHED || !*i->machine ? NULL : i->machine);
	kb_table_cell(&rows->table, KB_TONE_NONE, i->place);
	kb_table_cell(&rows->table, KB_TONE_NONE, size);
	kb_table_cell(&rows->table, KB_TONE_NONE, i->live ? left : NULL);
	kb_table_cell(&rows->table, KB_TONE_NONE, here);
}

static int run_list(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	static const struct kb_column columns[] = {{.title = "DISK"}, {.title = "STATE"},
		{.title = "MACHINE"}, {.title = "MOUNTED AT", .shrink = true},
		{.title = "SIZE", .right = true}, {.title = "FREE", .right = true},
		{.title = "HERE", .right = true}, {0}};
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};
	struct rows rows = {.json = cli->json ? json_array() : NULL};
	int r = kb_vm_cli_open(&v, cli, err);

	kb_table_init(&rows.table, columns);
	if (r == 0)
		r = kb_disk_list(v.vm, true, add_row, &rows, err);
	if (r == 0 && cli->json)
		r = kb_json_print(cli, json_incref(rows.json), err);
	else if (r == 0 && rows.n)
		kb_table_print(&rows.table, cli, stdout);
	else if (r == 0 && cli->columns)
		puts("no disks (kbsup disk create NAME makes one)");
	json_decref(rows.json);
	kb_table_finish(&rows.table);
	return r;
}

const struct kb_command kb_cmd_disk_list = {
	.name = "disk list",
	.group = KB_GROUP_MACHINES,
	.summary = "List the encrypted disks and who has them",
	.about = "Lists the encrypted disks with the machine that has each, and what is free on "
		 "those that are mounted.",
	.json = true,
	.man = "kbsup-disk",
	.run = run_list,
};

/* ---- detach, grow, passphrase ---------------------------------------------------------------- */

/* What a verb does to one disk. */
typedef int (*disk_fn)(
	struct kb_vm_cli *v, const char *name, const struct kb_args *args, struct kb_err *err);

static int with_disk(struct kb_cli *cli, const struct kb_args *args, size_t at, disk_fn fn,
	const char *done, struct kb_err *err)
{
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};
	char name[KB_NAME_MAX];
	int r;

	if ((r = kb_disk_named(args, at, name, err)) < 0 || (r = kb_vm_cli_open(&v, cli, err)) < 0)
		return r;
	r = fn(&v, name, args, err);
	kb_vm_cli_settle(&v);
	if (r == 0 && cli->err_tty)
		fprintf(stderr, "kbsup: disk %s %s\n", name, done);
	return r;
}

static int detach(
	struct kb_vm_cli *v, const char *name, const struct kb_args *args, struct kb_err *err)
{
	return kb_disk_detach(v->vm, name, kb_args_has(args, "now"), err);
}

static int grow(
	struct kb_vm_cli *v, const char *name, const struct kb_args *args, struct kb_err *err)
{
	uint64_t bytes = 0;
	int r = parse_bytes(args->operands[0], "SIZE", &bytes, err);

	return r < 0 ? r : kb_disk_grow(v->vm, name, bytes, err);
}

static int change(
	struct kb_vm_cli *v, const char *name, const struct kb_args *args, struct kb_err *err)
{
	struct kb_passphrase old KB_PASSPHRASE_CLEANUP = {.len = 0};
	struct kb_passphrase new KB_PASSPHRASE_CLEANUP = {.len = 0};
	char *what KB_FREE = kb_xprintf("disk %s", name);
	struct kb_disk_info info;
	int r;

	if ((r = kb_disk_query(v->vm, name, false, &info, err)) < 0 ||
		(r = kb_passphrase_read(
			 v, kb_args_value(args, "passphrase-fd"), what, false, &old, err)) < 0 ||
		(r = kb_passphrase_read(
			 v, kb_args_value(args, "new-passphrase-fd"), what, true, &new, err)) < 0)
		return r;
	return kb_disk_passphrase(v->vm, name, &old, &new, err);
}

static int run_detach(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	return with_disk(cli, args, 0, detach, "detached", err);
}

static int run_grow(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	return with_disk(cli, args, 1, grow, "is larger; its file system when it is attached", err);
}

static int run_passphrase(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	return with_disk(cli, args, 0, change, "has a new passphrase", err);
}

static const struct kb_option detach_options[] = {
	{.name = "now", .help = "Kill the processes in the machine that use it"},
	{0},
};

static const struct kb_option passphrase_options[] = {
	KB_PASSPHRASE_OPTION,
	{.name = "new-passphrase-fd",
		.arg = "FD",
		.kind = KB_KIND_COUNT,
		.help = "Read the new one from this descriptor"},
	{0},
};

const struct kb_command kb_cmd_disk_detach = {
	.name = "disk detach",
	.group = KB_GROUP_MACHINES,
	.summary = "Unmount an encrypted disk and lock it",
	.about = "Refuses while something in the machine uses the disk, and says what.",
	.options = detach_options,
	.operands = {{.name = "NAME", .max = 1, .kind = KB_KIND_DISK}},
	.man = "kbsup-disk",
	.run = run_detach,
};

const struct kb_command kb_cmd_disk_grow = {
	.name = "disk grow",
	.group = KB_GROUP_MACHINES,
	.summary = "Make a detached disk larger",
	.about = "Its file system follows when it is attached next. A disk cannot be made smaller.",
	.operands = {{.name = "SIZE", .min = 1, .max = 1},
		{.name = "NAME", .max = 1, .kind = KB_KIND_DISK}},
	.man = "kbsup-disk",
	.run = run_grow,
};

const struct kb_command kb_cmd_disk_passphrase = {
	.name = "disk passphrase",
	.group = KB_GROUP_MACHINES,
	.summary = "Change the passphrase of a disk",
	.about = "Asks for the old one, then for the new one, twice. The disk may be attached.",
	.options = passphrase_options,
	.operands = {{.name = "NAME", .max = 1, .kind = KB_KIND_DISK}},
	.man = "kbsup-disk",
	.run = run_passphrase,
};

/* ---- delete ---------------------------------------------------------------------------------- */

/* What is on it cannot be had back, so its name is typed. */
static int confirm(struct kb_cli *cli, const char *name, struct kb_err *err)
{
	char answer[KB_NAME_MAX + 2] = "";

	if (!cli->in_tty || !cli->err_tty) {
		kb_err_set(err, KB_ERR_REFUSED,
			"disk %s was not deleted: what is on it would be gone for good", name);
		return kb_err_hint(err, "if that is meant: kbsup disk delete --yes %s", name);
	}
	fprintf(stderr, "What is on disk %s will be gone for good. Type its name to go on: ", name);
	if (fgets(answer, sizeof(answer), stdin))
		answer[strcspn(answer, "\n")] = '\0';
	return !strcmp(answer, name)
		       ? 0
		       : kb_err_set(err, KB_ERR_REFUSED, "disk %s was not deleted", name);
}

static int run_delete(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};
	const char *name = args->operands[0];
	struct kb_disk_info info;
	int r;

	/* Asked before signals are ours: ^C at the question ends it. */
	if (!kb_args_has(args, "yes") && (r = confirm(cli, name, err)) < 0)
		return r;
	if ((r = kb_vm_cli_open(&v, cli, err)) < 0 ||
		(r = kb_disk_query(v.vm, name, false, &info, err)) < 0)
		return r;
	return kb_disk_delete(v.vm, name, err);
}

static const struct kb_option delete_options[] = {
	{.name = "yes", .help = "Do not ask"},
	{0},
};

const struct kb_command kb_cmd_disk_delete = {
	.name = "disk delete",
	.group = KB_GROUP_MACHINES,
	.summary = "Delete an encrypted disk and all that is on it",
	.about = "Its key goes first; what remains of the rest is noise.",
	.options = delete_options,
	.operands = {{.name = "NAME", .min = 1, .max = 1, .kind = KB_KIND_DISK}},
	.man = "kbsup-disk",
	.run = run_delete,
};
