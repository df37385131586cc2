/* kbsup vm list, kbsup vm status */
#include <stdarg.h>
#include <string.h>

#include "connect.h"
#include "verbs.h"
#include "vm.h"

#define ASK_LIVE true

static json_t *disks_json(const struct kb_vm_info *i)
{
	json_t *list = json_array();

	for (unsigned n = 0; n < i->n_disks; n++)
		json_array_append_new(list, json_string(i->disks[n]));
	return list;
}

struct rows {
	struct kb_cli *cli;
	struct kb_table table;
	json_t *json;
	json_t *sessions; /* per machine; NULL: not known */
	size_t n;
};

static json_t *live_json(const struct kb_vm_info *i)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:f, s:I, s:f, s:I}", "memory_total",
		(json_int_t)i->memory_total, "memory_available", (json_int_t)i->memory_available,
		"root_total", (json_int_t)i->root_total, "root_free", (json_int_t)i->root_free,
		"load", i->load1, "cpus", (json_int_t)i->guest_cpus, "cpu_percent",
		i->cpu_permille / 10.0, "connections", (json_int_t)i->connections);
}

static json_t *info_json(const struct kb_vm_info *i, const json_t *sessions)
{
	json_t *one = json_pack("{s:s, s:s, s:s, s:I, s:s, s:I, s:I, s:I, s:I, s:b, s:I, s:I, s:I}",
		"name", i->name, "state", kb_vm_state_name(i->state), "base", i->base, "generation",
		(json_int_t)i->generation, "user", i->user, "pid", (json_int_t)i->pid, "created",
		(json_int_t)i->created_ns, "disk_bytes", (json_int_t)i->disk_bytes, "disk_virtual",
		(json_int_t)i->disk_virtual, "isolated", i->isolated, "memory_mib",
		(json_int_t)i->memory_mib, "cpus", (json_int_t)i->cpus, "host_memory",
		(json_int_t)i->host_memory);
	char *address KB_FREE = kb_xprintf("%s:%u", i->host, i->ssh_port);

	json_object_set_new(one, "sessions",
		sessions ? json_integer(json_integer_value(json_object_get(sessions, i->name)))
			 : json_null());
	json_object_set_new(one, "why", *i->why ? kb_json_of(i->why, strlen(i->why)) : json_null());
	json_object_set_new(one, "address", i->ssh_port ? json_string(address) : json_null());
	json_object_set_new(one, "mac", json_string(i->mac));
	json_object_set_new(one, "bridge", *i->bridge ? json_string(i->bridge) : json_null());
	json_object_set_new(one, "screen", *i->screen ? json_string(i->screen) : json_null());
	json_object_set_new(one, "disks", disks_json(i));
	if (i->live)
		json_object_set_new(one, "live", live_json(i));
	return one;
}

static const struct {
	enum kb_tone tone;
	const char *mark;
} looks[KB_VM_STATE_MAX_] = {
	[KB_VM_STOPPED] = {KB_TONE_DIM, "○"},
	[KB_VM_STARTING] = {KB_TONE_WARN, "◌"},
	[KB_VM_INCOMPLETE] = {KB_TONE_BAD, "✗"},
	[KB_VM_RUNNING] = {KB_TONE_GOOD, "●"},
	[KB_VM_PAUSED] = {KB_TONE_WARN, "◐"},
	[KB_VM_SUSPENDED] = {KB_TONE_DIM, "◐"},
	[KB_VM_NO_SPACE] = {KB_TONE_BAD, "✗"},
	[KB_VM_PANICKED] = {KB_TONE_BAD, "✗"},
	[KB_VM_CRASHED] = {KB_TONE_BAD, "✗"},
	[KB_VM_HUNG] = {KB_TONE_BAD, "✗"},
	[KB_VM_DAMAGED] = {KB_TONE_BAD, "✗"},
	[KB_VM_REMOTE] = {KB_TONE_NONE, "●"},
	[KB_VM_READY] = {KB_TONE_DIM, "◌"},
};

static void memory_cell(struct kb_table *table, const struct kb_vm_info *i)
{
	if (i->live)
		kb_table_cellf(table, KB_TONE_NONE, "%llu of %llu MB",
			(unsigned long long)(i->memory_total - i->memory_available) >> 20,
			(unsigned long long)i->memory_total >> 20);
	else
		kb_table_cell(table, KB_TONE_NONE, NULL);
}

static void sessions_cell(struct kb_table *table, const json_t *sessions, const char *name)
{
	if (sessions)
		kb_table_cellf(table, KB_TONE_NONE, "%d",
			(int)json_integer_value(json_object_get(sessions, name)));
	else
		kb_table_cell(table, KB_TONE_NONE, NULL);
}

static void add_row(const struct kb_vm_info *i, void *arg)
{
	struct rows *rows = arg;
	struct kb_table *table = &rows->table;
	enum kb_tone tone = looks[i->state].tone;
	char age[KB_WORDS_MAX], disk[KB_WORDS_MAX];

	rows->n++;
	if (rows->json) {
		json_array_append_new(rows->json, info_json(i, rows->sessions));
		return;
	}
	kb_format_age(age, kb_now_real() - i->created_ns);
	kb_format_size(disk, i->disk_bytes);
	if (rows->cli->columns)
		kb_table_cell(table, tone, looks[i->state].mark);
	kb_table_cell(table, KB_TONE_BOLD, i->name);
	kb_table_cell(table, tone, kb_vm_state_name(i->state));
	if (*i->base)
		kb_table_cellf(table, KB_TONE_NONE, "%s/%u", i->base, i->generation);
	else
		kb_table_cell(table, KB_TONE_NONE, NULL);
	kb_table_cell(table, KB_TONE_NONE, age);
	kb_table_cell(table, KB_TONE_NONE, i->state == KB_VM_REMOTE ? NULL : disk);
	memory_cell(table, i);
	sessions_cell(table, rows->sessions, i->name);
	if (i->ssh_port)
		kb_table_cellf(table, KB_TONE_NONE, "%s:%u", i->host, i->ssh_port);
	else
		kb_table_cell(table, KB_TONE_NONE, NULL);
}

/* The mark of a row is for eyes: programs that read the lines find the name first. */
static const struct kb_column list_columns[] = {{.title = ""}, {.title = "MACHINE"},
	{.title = "STATE"}, {.title = "BASE", .shrink = true}, {.title = "AGE", .right = true},
	{.title = "DISK", .right = true}, {.title = "MEMORY", .right = true},
	{.title = "SESSIONS", .right = true}, {.title = "ADDRESS"}, {0}};

static int run_list(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};
	struct rows rows = {.cli = cli, .json = cli->json ? json_array() : NULL};
	int r = kb_vm_cli_open(&v, cli, err);

	kb_table_init(&rows.table, cli->columns ? list_columns : list_columns + 1);
	rows.sessions = kb_sessions_by_machine();
	if (r == 0)
		r = kb_vm_list(v.vm, ASK_LIVE, add_row, &rows, err);
	if (r == 0)
		r = kb_vm_pool_list(v.vm, add_row, &rows, err);
	if (r == 0 && cli->json)
		r = kb_json_print(cli, json_incref(rows.json), err);
	else if (r == 0 && rows.n)
		kb_table_print(&rows.table, cli, stdout);
	else if (r == 0 && cli->columns)
		puts("no machines (kbsup vm start NAME makes one)");
	json_decref(rows.sessions);
	json_decref(rows.json);
	kb_table_finish(&rows.table);
	return r;
}

KB_VM_VERB(list, "List the machines",
	.about = "Lists the machines, oldest first, with what each is doing now. Never waits more "
		 "than a second for them.",
	.json = true, .run = run_list);

/* ---- status ---------------------------------------------------------------------------------- */

static void line(const char *name, const char *fmt, ...) KB_PRINTF(2, 3);
static void line(const char *name, const char *fmt, ...)
{
	va_list ap;

	printf("%-9s ", name);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

static void print_live(const struct kb_vm_info *i)
{
	char words[KB_WORDS_MAX], total[KB_WORDS_MAX];

	kb_format_size(words, i->memory_total - i->memory_available);
	kb_format_size(total, i->memory_total);
	line("memory", "%s of %s used", words, total);
	line("cpu", "%u%% of %u processors, load %.2f", (i->cpu_permille + 5) / 10, i->guest_cpus,
		i->load1);
	kb_format_size(words, i->root_total - i->root_free);
	kb_format_size(total, i->root_total);
	line("root", "%s of %s used", words, total);
}

static void print_ours(const struct kb_vm_info *i)
{
	char words[KB_WORDS_MAX], total[KB_WORDS_MAX];

	line("base", "%s, generation %u", i->base, i->generation);
	kb_format_size(words, i->disk_bytes);
	kb_format_size(total, i->disk_virtual);
	line("disk", "%s of its own, %s inside", words, total);
	for (unsigned n = 0; n < i->n_disks; n++)
		line("attached", "disk %s", i->disks[n]);
	line("size", "%u MiB, %u processors", i->memory_mib, i->cpus);
	line("network", "%s%s",
		*i->bridge    ? "bridge "
		: i->isolated ? "isolated"
			      : "user",
		i->bridge);
	if (*i->screen)
		line("screen", "%s (VNC)", i->screen);
	if (!i->pid)
		return;
	kb_format_size(words, i->host_memory);
	line("process", "%d, %s of this host's memory", i->pid, words);
}

static void print_status(const struct kb_vm_info *i, const json_t *sessions)
{
	char age[KB_WORDS_MAX];
	char *why KB_FREE = kb_escape_dup(i->why, strlen(i->why));

	line("machine", "%s", i->name);
	line("state", "%s%s%s", kb_vm_state_name(i->state), *i->why ? ": " : "", why ? why : "");
	kb_format_age(age, kb_now_real() - i->created_ns);
	line("age", "%s", age);
	if (i->state != KB_VM_REMOTE && i->state != KB_VM_DAMAGED)
		print_ours(i);
	if (i->ssh_port)
		line("address", "%s:%u (ssh, user %s)", i->host, i->ssh_port, i->user);
	if (sessions)
		line("sessions", "%d", (int)json_integer_value(json_object_get(sessions, i->name)));
	if (i->live)
		print_live(i);
}

static int run_status(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};
	json_t *sessions KB_JSON_CLEANUP = NULL;
	struct kb_vm_info info;
	int r;

	if (args->n_operands == 0)
		return run_list(cli, args, err);
	if ((r = kb_vm_cli_open(&v, cli, err)) < 0 ||
		(r = kb_vm_query(v.vm, args->operands[0], ASK_LIVE, &info, err)) < 0)
		return r;
	sessions = kb_sessions_by_machine();
	if (cli->json)
		return kb_json_print(cli, info_json(&info, sessions), err);
	print_status(&info, sessions);
	return KB_EXIT_OK;
}

const struct kb_command kb_cmd_vm_status = {
	.name = "vm status",
	.group = KB_GROUP_MACHINES,
	.summary = "Show a machine with its live figures",
	.about =
		"Never waits more than a second for the machine itself; without a name, lists all.",
	.operands = {{.name = "M", .max = 1, .kind = KB_KIND_MACHINE}},
	.json = true,
	.man = "kbsup-vm",
	.run = run_status,
};
