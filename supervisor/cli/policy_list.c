/* kbsup policy list, policy show */
#include <string.h>

#include "policies.h"
#include "supervisor/base/fd.h"
#include "verbs.h"

#define POLICY_TEXT_MAX (1u << 20)
#define EFFECTIVE_MAX	(16u << 20)

static const char *source_of(const struct kb_policy_entry *entry)
{
	return entry->file ? "user" : "preset";
}

static int list_json(
	const struct kb_cli *cli, const struct kb_policy_list *list, struct kb_err *err)
{
	json_t *all = json_array();

	for (size_t i = 0; i < list->len; i++) {
		const struct kb_policy_entry *e = &list->entries[i];
		json_t *one = json_pack("{s:o, s:s}", "name", kb_json_of(e->name, strlen(e->name)),
			"source", source_of(e));

		if (e->file)
			json_object_set_new(one, "file", kb_json_of(e->file, strlen(e->file)));
		json_array_append_new(all, one);
	}
	return kb_json_print(cli, all, err);
}

static int run_list(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	static const struct kb_column columns[] = {
		{.title = "POLICY"}, {.title = "FROM"}, {.title = "FILE", .shrink = true}, {0}};
	struct kb_policy_list list KB_POLICY_LIST_CLEANUP = {0};
	struct kb_table table KB_TABLE_CLEANUP;
	struct kb_policies policies;
	int r;

	kb_table_init(&table, columns);
	r = kb_policies_init(&policies, err);
	if (r == 0)
		r = kb_policy_list_read(&list, &policies, err);
	if (r < 0)
		return r;
	if (cli->json)
		return list_json(cli, &list, err);
	for (size_t i = 0; i < list.len; i++) {
		const struct kb_policy_entry *e = &list.entries[i];
		char *file KB_FREE = e->file ? kb_format_path(cli, e->file) : NULL;

		kb_table_cell(&table, KB_TONE_BOLD, e->name);
		kb_table_cell(&table, KB_TONE_NONE, source_of(e));
		kb_table_cell(&table, KB_TONE_DIM, file);
	}
	kb_table_print(&table, cli, stdout);
	return KB_EXIT_OK;
}

const struct kb_command kb_cmd_policy_list = {
	.name = "policy list",
	.group = KB_GROUP_POLICIES,
	.summary = "List the presets and your own policies",
	.about = "Lists the policies that a name can mean: the presets that come with kbsup, and "
		 "the "
		 "files NAME.policy in ~/.config/kbsup.",
	.json = true,
	.man = "kbsup-policy",
	.run = run_list,
};

/* ---- show ------------------------------------------------------------------------------------ */

static int show_text(const char *name, struct kb_err *err)
{
	struct kb_policy_list list KB_POLICY_LIST_CLEANUP = {0};
	struct kb_buf text KB_BUF_CLEANUP;
	const struct kb_policy_entry *entry;
	struct kb_policies policies;
	const char *preset;
	size_t len;
	int r;

	kb_buf_init(&text, POLICY_TEXT_MAX);
	r = kb_policies_init(&policies, err);
	if (r == 0)
		r = kb_policy_list_read(&list, &policies, err);
	if (r < 0)
		return r;
	entry = kb_policy_list_find(&list, name);
	if (!entry && !kb_policy_is_file(name))
		return kb_policy_unknown(&list, name, err);
	if (entry && !entry->file) {
		preset = kb_preset_text(name, &len);
		fwrite(preset, 1, len, stdout);
		return KB_EXIT_OK;
	}
	r = kb_file_read(entry ? entry->file : name, &text, err);
	if (r < 0)
		return r;
	fwrite(kb_buf_data(&text), 1, kb_buf_len(&text), stdout);
	return KB_EXIT_OK;
}

/* Every rule that holds after `extends`, with its place and what overrules it. */
static int show_effective(const struct kb_cli *cli, const char *name, struct kb_err *err)
{
	struct kb_policy *policy KB_POLICY_CLEANUP = NULL;
	struct kb_buf encoded KB_BUF_CLEANUP, text KB_BUF_CLEANUP;
	struct kb_policies policies;
	int r;

	kb_buf_init(&encoded, KB_BUNDLE_MAX);
	kb_buf_init(&text, EFFECTIVE_MAX);
	r = kb_policies_init(&policies, err);
	if (r == 0)
		r = kb_policies_compile(&policies, name, &policy, &encoded, err);
	if (r == 0)
		r = kb_policy_show(policy, cli->json, &text, err);
	if (r < 0)
		return r;
	fwrite(kb_buf_data(&text), 1, kb_buf_len(&text), stdout);
	return KB_EXIT_OK;
}

static int run_show(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	const char *name = kb_args_operand(args, 0);

	if (kb_args_has(args, "effective"))
		return show_effective(cli, name, err);
	if (!cli->json)
		return show_text(name, err);
	kb_err_set(err, KB_ERR_USAGE, "the text of a policy is not data");
	return kb_err_hint(err, "its rules are: kbsup policy show --effective --json %s", name);
}

static const struct kb_option show_options[] = {
	{.name = "effective",
		.help = "Show the rules that hold after extends, each with its file and line"},
	{0},
};

const struct kb_command kb_cmd_policy_show = {
	.name = "policy show",
	.group = KB_GROUP_POLICIES,
	.summary = "Print a policy, or the rules that come of it",
	.about = "Prints the text of a preset, of one of your policies, or of a file. With "
		 "--effective, "
		 "prints every rule that holds once all that it extends is read.",
	.options = show_options,
	.operands = {{.name = "A", .min = 1, .max = 1, .kind = KB_KIND_POLICY}},
	.json = true,
	.man = "kbsup-policy",
	.run = run_show,
};
