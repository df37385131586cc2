/* kbsup config show */
#include <string.h>

#include "cli.h"
#include "keys.h"
#include "policies.h"
#include "verbs.h"

struct setting {
	const char *name, *value, *from;
};

#define SETTINGS_MAX 16

static void add(
	struct setting list[], size_t *n, const char *name, const char *value, const char *variable)
{
	const char *set = getenv(variable);

	list[(*n)++] = (struct setting){
		.name = name, .value = value, .from = set && *set ? variable : "default"};
}

static const char *env_or(const char *variable, const char *fallback)
{
	const char *set = getenv(variable);

	return set && *set ? set : fallback;
}

static size_t collect(const struct kb_dirs *dirs, struct setting list[SETTINGS_MAX])
{
	size_t n = 0;

	list[n++] = (struct setting){"agent", "shell", "default"};
	list[n++] = (struct setting){"machine", "local", "default"};
	list[n++] = (struct setting){"lane", "auto", "default"};
	add(list, &n, "detach keys", env_or("KBSUP_DETACH_KEYS", KB_KEYS_DEFAULT),
		"KBSUP_DETACH_KEYS");
	add(list, &n, "log level", env_or("KBSUP_LOG", "warn"), "KBSUP_LOG");
	add(list, &n, "programs", env_or("KBSUP_LIBEXEC", "beside kbsup"), "KBSUP_LIBEXEC");
	add(list, &n, "policies", dirs->config, "XDG_CONFIG_HOME");
	add(list, &n, "state", dirs->state, "XDG_STATE_HOME");
	add(list, &n, "store", dirs->store, "XDG_STATE_HOME");
	add(list, &n, "socket", dirs->socket, "XDG_RUNTIME_DIR");
	return n;
}

static int print_json(
	const struct kb_cli *cli, const struct setting list[], size_t n, struct kb_err *err)
{
	json_t *all = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(
			all, json_pack("{s:s, s:o, s:s}", "setting", list[i].name, "value",
				     kb_json_of(list[i].value, strlen(list[i].value)), "from",
				     list[i].from));
	return kb_json_print(cli, all, err);
}

static int run(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	static const struct kb_column columns[] = {
		{.title = "SETTING"}, {.title = "VALUE", .shrink = true}, {.title = "FROM"}, {0}};
	struct kb_table table KB_TABLE_CLEANUP;
	struct setting list[SETTINGS_MAX];
	struct kb_dirs dirs;
	size_t n;
	int r = kb_dirs_find(&dirs, err);

	kb_table_init(&table, columns);
	if (r < 0)
		return r;
	n = collect(&dirs, list);
	if (cli->json)
		return print_json(cli, list, n, err);
	for (size_t i = 0; i < n; i++) {
		kb_table_cell(&table, KB_TONE_BOLD, list[i].name);
		kb_table_cell(&table, KB_TONE_NONE, list[i].value);
		kb_table_cell(&table, KB_TONE_DIM, list[i].from);
	}
	kb_table_print(&table, cli, stdout);
	return KB_EXIT_OK;
}

const struct kb_command kb_cmd_config_show = {
	.name = "config show",
	.group = KB_GROUP_OTHER,
	.summary = "Print the settings in effect and where each comes from",
	.json = true,
	.man = "kbsup",
	.run = run,
};
