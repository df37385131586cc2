/* kbsup vm base: the images that machines are made from */
#include <errno.h>
#include <string.h>

#include "verbs.h"
#include "vm.h"

#define KEY_MAX	     4096
#define DISK_MIN     (2ull << 30)
#define DEFAULT_NAME "default"

/* ---- create ---------------------------------------------------------------------------------- */

/* One line "TYPE BASE64 …" of a public key. */
static int read_key(const char *path, char ret[KEY_MAX], struct kb_err *err)
{
	FILE *file = fopen(path, "re");
	char line[KEY_MAX - 1]; /* the line end comes back at the end */
	bool good = file && fgets(line, sizeof(line), file);

	if (!file)
		return kb_err_sys(err, errno, "%s cannot be read", path);
	fclose(file);
	if (good && strstr(line, "PRIVATE KEY")) {
		kb_err_set(err, KB_ERR_USAGE, "%s is a private key, which stays here", path);
		return kb_err_hint(err, "give the public one beside it: %s.pub", path);
	}
	line[good ? strcspn(line, "\r\n") : 0] = '\0';
	if (!good || !strchr(line, ' ') ||
		(strncmp(line, "ssh-", 4) && strncmp(line, "ecdsa-", 6) && strncmp(line, "sk-", 3)))
		return kb_err_set(err, KB_ERR_USAGE, "%s is no file with a public ssh key", path);
	snprintf(ret, KEY_MAX, "%s\n", line);
	return 0;
}

/* The key that ssh itself would offer first. */
static int find_key(struct kb_cli *cli, const char *given, char ret[KEY_MAX], struct kb_err *err)
{
	static const char *const names[] = {"id_ed25519", "id_ed25519_sk", "id_ecdsa", "id_rsa"};

	*ret = '\0';
	if (given)
		return read_key(given, ret, err);
	for (size_t i = 0; cli->home && i < KB_ARRAY_LEN(names); i++) {
		char *path KB_FREE = kb_xprintf("%s/.ssh/%s.pub", cli->home, names[i]);

		if (read_key(path, ret, NULL) == 0) {
			fprintf(stderr, "kbsup: the key is ~/.ssh/%s.pub\n", names[i]);
			return 0;
		}
	}
	fputs("kbsup: no public key of yours is in ~/.ssh; kbsup's own opens its machines\n",
		stderr);
	*ret = '\0';
	return 0;
}

static void say_made(struct kb_vm_cli *v, const char *name, int64_t took_ns)
{
	char took[KB_WORDS_MAX];

	kb_vm_cli_settle(v);
	kb_format_duration(took, took_ns);
	fprintf(stderr, "kbsup: base %s made in %s", name, took);
	for (size_t i = 0; i < v->n_steps; i++) {
		kb_format_duration(took, v->steps[i].ns);
		fprintf(stderr, "%s%s %s", i ? ", " : " (", v->steps[i].name, took);
	}
	fputs(v->n_steps ? ")\n" : "\n", stderr);
}

static int read_spec(const struct kb_args *args, struct kb_base_spec *spec, struct kb_err *err)
{
	const char *size = kb_args_value(args, "size");

	spec->arch = kb_args_value(args, "arch");
	spec->from = kb_args_value(args, "from");
	spec->user = kb_args_value(args, "user");
	spec->dotfiles = kb_args_value(args, "dotfiles");
	spec->fresh = kb_args_has(args, "fresh");
	spec->no_template = kb_args_has(args, "no-freeze");
	if (size && (!kb_parse_size(size, &spec->disk_bytes) || spec->disk_bytes < DISK_MIN))
		return kb_err_set(err, KB_ERR_USAGE, "--size %s is not a size of 2G or more", size);
	return 0;
}

/* Several in one value, as apt-get takes them, or an option each. */
static int split_packages(const struct kb_args *args, char *ret_text[], const char *ret[],
	size_t max, struct kb_err *err)
{
	const char *value;
	size_t n = 0;

	for (size_t i = 0; (value = kb_args_value_at(args, "packages", i)); i++) {
		char *save = NULL;

		ret_text[i] = kb_xstrdup(value);
		for (char *word = strtok_r(ret_text[i], ", ", &save); word;
			word = strtok_r(NULL, ", ", &save)) {
			if (n == max)
				return kb_err_set(err, KB_ERR_LIMIT,
					"a base takes at most %zu further packages", max);
			ret[n++] = word;
		}
	}
	ret[n] = NULL;
	return 0;
}

static int run_create(
	struct kb_cli *cli, const struct kb_args *args, const char *name, struct kb_err *err)
{
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};
	char *texts[KB_ARGS_OPTIONS_MAX] = {NULL};
	const char *packages[KB_BASE_PACKAGES_MAX + 1];
	struct kb_base_spec spec = {.name = name, .packages = packages};
	int64_t start = kb_now_mono();
	char key[KEY_MAX];
	int r;

	if ((r = split_packages(args, texts, packages, KB_BASE_PACKAGES_MAX, err)) == 0 &&
		(r = read_spec(args, &spec, err)) == 0 && (r = kb_vm_cli_open(&v, cli, err)) == 0 &&
		(r = find_key(cli, kb_args_value(args, "ssh-key"), key, err)) == 0) {
		spec.ssh_key = *key ? key : NULL;
		v.building = true;
		v.detailed = kb_args_has(args, "verbose");
		r = kb_base_create(v.vm, &spec, err);
		if (r == 0)
			say_made(&v, name, kb_now_mono() - start);
		else
			kb_vm_cli_tail(&v);
	}
	for (size_t i = 0; i < KB_ARRAY_LEN(texts); i++)
		free(texts[i]);
	return r;
}

static const struct kb_option create_options[] = {
	{.name = "name", .arg = "NAME", .kind = KB_KIND_BASE, .help = "Its name; default"},
	{.name = "arch",
		.arg = "ARCH",
		.kind = KB_KIND_WORD,
		.words = "x86_64|aarch64",
		.help = "Its architecture; this host's"},
	{.name = "from",
		.arg = "IMAGE",
		.kind = KB_KIND_FILE,
		.help = "Make it of a cloud image (qcow2 or raw) instead of packages"},
	{.name = "size", .arg = "SIZE", .help = "Of the disk, like 32G; it grows as it is used"},
	{.name = "user", .arg = "USER", .help = "The account in it (uid 1000, sudo); dev"},
	{.name = "ssh-key",
		.arg = "FILE",
		.kind = KB_KIND_FILE,
		.help = "A public key for it; the first one in ~/.ssh"},
	{.name = "dotfiles",
		.arg = "REPO|DIR",
		.kind = KB_KIND_DIR,
		.help = "Its set-up: bootstrap.sh, install.sh, Rakefile or files.map is run"},
	{.name = "packages", .arg = "PACKAGE", .repeat = true, .help = "A further Debian package"},
	{.name = "fresh", .help = "Install packages anew, even if they were installed today"},
	{.name = "no-freeze", .help = "Leave the template for: kbsup vm base freeze"},
	{.name = "verbose", .help = "Show everything the build prints"},
	{0},
};

/* ---- list ------------------------------------------------------------------------------------ */

struct rows {
	struct kb_table table;
	json_t *json;
	size_t n;
};

static void add_base(const struct kb_base_info *i, void *arg)
{
	struct rows *rows = arg;
	char age[KB_WORDS_MAX], disk[KB_WORDS_MAX];

	rows->n++;
	if (rows->json) {
		json_array_append_new(rows->json,
			json_pack("{s:s, s:I, s:b, s:b, s:I, s:I, s:I, s:s, s:s, s:I, s:I}", "name",
				i->name, "generation", (json_int_t)i->generation, "current",
				i->current, "frozen", i->frozen, "machines", (json_int_t)i->users,
				"created", (json_int_t)i->created_ns, "disk_bytes",
				(json_int_t)i->disk_bytes, "user", i->user, "arch", i->arch,
				"memory_mib", (json_int_t)i->memory_mib, "cpus",
				(json_int_t)i->cpus));
		return;
	}
	kb_format_age(age, kb_now_real() - i->created_ns);
	kb_format_size(disk, i->disk_bytes);
	kb_table_cell(&rows->table, KB_TONE_BOLD, i->name);
	kb_table_cellf(
		&rows->table, KB_TONE_NONE, "%u%s", i->generation, i->current ? "" : " (old)");
	kb_table_cell(&rows->table, KB_TONE_NONE, i->arch);
	kb_table_cell(&rows->table, KB_TONE_NONE, i->frozen ? "frozen" : "not frozen");
	kb_table_cellf(&rows->table, KB_TONE_NONE, "%u", i->users);
	kb_table_cell(&rows->table, KB_TONE_NONE, age);
	kb_table_cell(&rows->table, KB_TONE_NONE, disk);
}

static int run_list(
	struct kb_cli *cli, const struct kb_args *args, const char *name, struct kb_err *err)
{
	static const struct kb_column columns[] = {{.title = "BASE"}, {.title = "GENERATION"},
		{.title = "ARCH"}, {.title = "TEMPLATE"}, {.title = "MACHINES", .right = true},
		{.title = "AGE", .right = true}, {.title = "DISK", .right = true}, {0}};
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};
	struct rows rows = {.json = cli->json ? json_array() : NULL};
	int r = kb_vm_cli_open(&v, cli, err);

	kb_table_init(&rows.table, columns);
	if (r == 0)
		r = kb_base_list(v.vm, add_base, &rows, err);
	if (r == 0 && cli->json)
		r = kb_json_print(cli, json_incref(rows.json), err);
	else if (r == 0 && rows.n)
		kb_table_print(&rows.table, cli, stdout);
	else if (r == 0 && cli->err_tty)
		fputs("kbsup: there are no bases; make one: kbsup vm base create\n", stderr);
	json_decref(rows.json);
	kb_table_finish(&rows.table);
	return r;
}

/* ---- delete, freeze -------------------------------------------------------------------------- */

static int run_delete(
	struct kb_cli *cli, const struct kb_args *args, const char *name, struct kb_err *err)
{
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};
	int r = kb_vm_cli_open(&v, cli, err);

	return r < 0 ? r : kb_base_delete(v.vm, name, err);
}

static int run_freeze(
	struct kb_cli *cli, const struct kb_args *args, const char *name, struct kb_err *err)
{
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};
	int r = kb_vm_cli_open(&v, cli, err);

	v.building = true;
	return r < 0 ? r : kb_base_freeze(v.vm, name, err);
}

/* ---- the verb -------------------------------------------------------------------------------- */

static const struct {
	const char *word;
	int (*run)(struct kb_cli *cli, const struct kb_args *args, const char *name,
		struct kb_err *err);
	bool creates; /* the options are its */
	bool json;
	bool nameless;
} actions[] = {
	{"create", run_create, .creates = true},
	{"list", run_list, .json = true, .nameless = true},
	{"delete", run_delete},
	{"freeze", run_freeze},
};

static int refuse_options(size_t action, const struct kb_args *args, struct kb_err *err)
{
	for (const struct kb_option *o = create_options; o->name; o++)
		if (!actions[action].creates && strcmp(o->name, "name") &&
			kb_args_has(args, o->name)) {
			kb_err_set(err, KB_ERR_USAGE, "vm base %s has no option '--%s'",
				actions[action].word, o->name);
			return kb_err_hint(err, "--%s is for: kbsup vm base create", o->name);
		}
	if (!actions[action].json && kb_args_has(args, "json"))
		return kb_err_set(err, KB_ERR_USAGE,
			"vm base %s prints no data, so it has no --json", actions[action].word);
	return 0;
}

static int run_base(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	const char *operand = kb_args_operand(args, 1), *name = kb_args_value(args, "name");
	size_t i = 0;
	int r;

	while (strcmp(args->operands[0], actions[i].word))
		i++; /* the table of commands lets no other word through */
	if ((r = refuse_options(i, args, err)) < 0)
		return r;
	if ((operand && name) || (actions[i].nameless && (operand || name))) {
		kb_err_set(err, KB_ERR_USAGE, "vm base %s does not know what to do with '%s'",
			actions[i].word, operand ? operand : name);
		return kb_err_hint(err, "its usage is shown by: kbsup help vm base");
	}
	if (!name)
		name = operand ? operand : DEFAULT_NAME;
	return actions[i].run(cli, args, name, err);
}

const struct kb_command kb_cmd_vm_base = {
	.name = "vm base",
	.group = KB_GROUP_MACHINES,
	.summary = "Build, list, freeze and delete bases",
	.about = "create builds a Debian base from this machine's package sources, or imports a "
		 "cloud image, boots it once and freezes it as the template that machines are "
		 "forked "
		 "from. Machines that exist keep the generation they were made from.",
	.options = create_options,
	.operands = {{.name = "ACTION",
			     .min = 1,
			     .max = 1,
			     .kind = KB_KIND_WORD,
			     .words = "create|list|delete|freeze"},
		{.name = "NAME", .max = 1, .kind = KB_KIND_BASE}},
	.json = true,
	.man = "kbsup-vm",
	.run = run_base,
};
