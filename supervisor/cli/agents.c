/* kbsup agents */
#include <string.h>

#include "profile.h"
#include "verbs.h"

#define AGENT_PLAIN "shell"
#define COMMAND_MAX 4096

/* One line of the list. */
struct entry {
	const struct kb_policy_entry *policy;
	struct kb_profile profile;
	struct kb_err broken; /* code 0: fine */
};

struct entries {
	struct entry *list;
	size_t len;
};

static void finish(struct entries *entries)
{
	for (size_t i = 0; i < entries->len; i++)
		kb_profile_finish(&entries->list[i].profile);
	free(entries->list);
}

/* The user's own, and the presets that describe an agent; shell is one, though it runs none. A
 * policy of the user's replaces a preset of the same name. */
static bool is_agent(const struct kb_policy_list *list, const struct entry *entry)
{
	const struct kb_policy_entry *e = entry->policy;

	return kb_policy_list_find(list, e->name) == e &&
	       (e->file || entry->profile.described || !strcmp(e->name, AGENT_PLAIN));
}

static void collect(const struct kb_policies *policies, const struct kb_policy_list *list,
	struct entries *entries)
{
	entries->list = kb_xcalloc(list->len + 1, sizeof(*entries->list));
	for (size_t i = 0; i < list->len; i++) {
		struct entry *entry = &entries->list[entries->len];

		*entry = (struct entry){.policy = &list->entries[i]};
		(void)kb_profile_peek(
			policies, list->entries[i].name, &entry->profile, &entry->broken);
		if (is_agent(list, entry))
			entries->len++;
		else
			kb_profile_finish(&entry->profile);
	}
}

static char *command_text(const struct entry *entry)
{
	struct kb_buf text KB_BUF_CLEANUP;

	if (entry->broken.code)
		return kb_xstrdup("has mistakes: kbsup policy check shows them");
	kb_buf_init(&text, COMMAND_MAX);
	for (const char *const *w = entry->profile.command; w && *w; w++)
		(void)kb_buf_printf(
			&text, NULL, "%s%s", w == entry->profile.command ? "" : " ", *w);
	return kb_buf_len(&text) ? kb_buf_steal_string(&text) : kb_xstrdup("your shell");
}

static json_t *entry_json(const struct entry *entry)
{
	const struct kb_policy_entry *e = entry->policy;
	json_t *command = json_array();

	for (const char *const *w = entry->profile.command; w && *w; w++)
		json_array_append_new(command, kb_json_of(*w, strlen(*w)));
	return json_pack("{s:o, s:s, s:o, s:s, s:o}", "name", kb_json_of(e->name, strlen(e->name)),
		"source", e->file ? "user" : "preset", "file",
		e->file ? kb_json_of(e->file, strlen(e->file)) : json_null(), "policy",
		entry->profile.policy ? entry->profile.policy : e->name, "command", command);
}

static int print_json(const struct kb_cli *cli, const struct entries *entries, struct kb_err *err)
{
	json_t *all = json_array();

	for (size_t i = 0; i < entries->len; i++)
		json_array_append_new(all, entry_json(&entries->list[i]));
	return kb_json_print(cli, all, err);
}

static int run(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	static const struct kb_column columns[] = {{.title = "AGENT"}, {.title = "FROM"},
		{.title = "RUNS", .shrink = true}, {.title = "POLICY", .shrink = true}, {0}};
	struct kb_policy_list list KB_POLICY_LIST_CLEANUP = {0};
	struct entries entries KB_CLEANUP(finish) = {0};
	struct kb_table table KB_TABLE_CLEANUP;
	struct kb_policies policies;
	int r = kb_policies_init(&policies, err);

	kb_table_init(&table, columns);
	if (r == 0)
		r = kb_policy_list_read(&list, &policies, err);
	if (r < 0)
		return r;
	collect(&policies, &list, &entries);
	if (cli->json)
		return print_json(cli, &entries, err);
	for (size_t i = 0; i < entries.len; i++) {
		const struct kb_policy_entry *e = entries.list[i].policy;
		char *file KB_FREE =
			e->file ? kb_format_path(cli, e->file) : kb_xprintf("preset:%s", e->name);
		char *command KB_FREE = command_text(&entries.list[i]);

		kb_table_cell(&table, KB_TONE_BOLD, e->name);
		kb_table_cell(&table, KB_TONE_NONE, e->file ? "user" : "preset");
		kb_table_cell(&table, KB_TONE_NONE, command);
		kb_table_cell(&table, KB_TONE_DIM, file);
	}
	kb_table_print(&table, cli, stdout);
	return KB_EXIT_OK;
}

const struct kb_command kb_cmd_agents = {
	.name = "agents",
	.group = KB_GROUP_OTHER,
	.summary = "List the agents that run knows",
	.about = "Lists the agents that kbsup run --agent knows, with the command each runs: the "
		 "presets "
		 "that describe one, and the policies in ~/.config/kbsup.",
	.json = true,
	.man = "kbsup",
	.run = run,
};
