/* kbsup __complete: the live names that completion scripts ask for, one a line, each with a tab and
 * a word about it. Never starts a supervisor and never complains: a shell is waiting. */
#include <string.h>

#include "audit/audit.h"
#include "completion.h"
#include "connect.h"
#include "policies.h"
#include "sessions.h"
#include "supervisor/base/buf.h"
#include "verbs.h"
#include "vm.h"

#define EXPR_MAX (64u << 10)

static void print_policies(void)
{
	struct kb_policy_list list KB_POLICY_LIST_CLEANUP = {0};
	struct kb_policies policies;

	if (kb_policies_init(&policies, NULL) < 0 ||
		kb_policy_list_read(&list, &policies, NULL) < 0)
		return;
	for (size_t i = 0; i < list.len; i++)
		if (kb_policy_list_find(&list, list.entries[i].name) == &list.entries[i])
			printf("%s\t%s\n", list.entries[i].name,
				list.entries[i].file ? "yours" : "preset");
}

static void print_live(bool ended)
{
	struct kb_connection connection KB_CONNECTION_CLEANUP = {0};
	struct kb_rows rows KB_ROWS_CLEANUP = {0};
	const json_t *one;
	size_t i;

	if (kb_connect(&connection, false, NULL) < 0 ||
		kb_rows_read(&rows, &connection, ended, NULL) < 0)
		return;
	json_array_foreach(rows.list, i, one)
		printf("%s\t%s, %s\n", json_string_value(json_object_get(one, "name")),
			json_string_value(json_object_get(one, "agent")),
			json_string_value(json_object_get(one, "state")));
}

static void print_sessions(bool ended)
{
	print_live(ended);
	puts("last\tthe newest session");
	if (ended)
		puts("all\tevery session");
}

static void print_offer(const char *word, const char *help, void *arg)
{
	printf("%s\t%s\n", word, help);
}

static void print_machine(const struct kb_vm_info *info, void *arg)
{
	printf("%s\t%s\n", info->name, kb_vm_state_name(info->state));
}

static void print_machines(struct kb_cli *cli)
{
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};

	if (kb_vm_cli_open(&v, cli, NULL) == 0) {
		v.unkept = true;
		kb_vm_list(v.vm, false, print_machine, NULL, NULL);
	}
}

static void print_disk(const struct kb_disk_info *info, void *arg)
{
	printf("%s\t%s\n", info->name, kb_disk_state_name(info->state));
}

static void print_disks(struct kb_cli *cli)
{
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};

	if (kb_vm_cli_open(&v, cli, NULL) == 0) {
		v.unkept = true;
		kb_disk_list(v.vm, false, print_disk, NULL, NULL);
	}
}

static void print_base(const struct kb_base_info *info, void *arg)
{
	if (info->current)
		printf("%s\t%s, %u machine%s\n", info->name, info->arch, info->users,
			info->users == 1 ? "" : "s");
}

static void print_bases(struct kb_cli *cli)
{
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};

	if (kb_vm_cli_open(&v, cli, NULL) == 0) {
		v.unkept = true;
		kb_base_list(v.vm, print_base, NULL, NULL);
	}
}

static void print_kind(struct kb_cli *cli, const char *kind)
{
	bool both = !strcmp(kind, "running");

	if (both || !strcmp(kind, "session") || !strcmp(kind, "recorded"))
		print_sessions(!strcmp(kind, "recorded"));
	if (both || !strcmp(kind, "machine"))
		print_machines(cli);
	if (!strcmp(kind, "disk"))
		print_disks(cli);
	if (!strcmp(kind, "base"))
		print_bases(cli);
	if (!strcmp(kind, "agent") || !strcmp(kind, "policy"))
		print_policies();
}

/* The next word of an audit expression, whose words so far follow the kind. */
static void print_expression(struct kb_cli *cli, const struct kb_args *args)
{
	struct kb_buf before KB_BUF_CLEANUP;
	char *text KB_FREE = NULL;
	const char *field;

	kb_buf_init(&before, EXPR_MAX);
	for (size_t i = 1; i < args->n_operands; i++)
		if (kb_buf_printf(&before, NULL, "%s ", args->operands[i]) < 0)
			return;
	text = kb_buf_steal_string(&before);
	field = text ? kb_query_complete(text, print_offer, NULL) : NULL;
	if (field)
		print_kind(cli, strcmp(field, "session") ? field : "recorded");
}

static int run(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	if (!strcmp(args->operands[0], "field"))
		print_expression(cli, args);
	else
		print_kind(cli, args->operands[0]);
	return KB_EXIT_OK;
}

const struct kb_command kb_cmd_complete = {
	.name = "__complete",
	.group = KB_GROUP_OTHER,
	.summary = "Print live names for completion scripts",
	.operands =
		{{.name = "KIND",
			 .min = 1,
			 .max = 1,
			 .kind = KB_KIND_WORD,
			 .words = "session|running|recorded|agent|policy|machine|base|disk|field"},
			{.name = "WORD", .max = KB_MANY}},
	.hidden = true,
	.run = run,
};
