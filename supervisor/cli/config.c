/* kbsup config show */
#include <string.h>

#include "cli.h"
#include "keys.h"
#include "policies.h"
#include "settings.h"
#include "verbs.h"

struct setting {
	const char *name, *value, *from;
};

#define SETTINGS_MAX 16

static struct setting of_variable(const char *name, const char *variable, const char *fallback)
{
	const char *set = getenv(variable);
	bool is_set = set && *set;

	return (struct setting){name, is_set ? set : fallback, is_set ? variable : "default"};
}

/* A place has what was made of the variable. */
static struct setting of_place(const char *name, const char *variable, const char *place)
{
	struct setting setting = of_variable(name, variable, place);

	setting.value = place;
	return setting;
}

/* What an option says that is not given: its variable, the file, what is built in. */
static struct setting of_option(const struct kb_settings *file, const char *name,
	const char *variable, const char *fallback)
{
	struct setting setting = of_variable(name, variable ? variable : "", fallback);
	const char *value = kb_settings_value(file, name);

	if (value && !strcmp(setting.from, "default")) {
		setting.value = value;
		setting.from = file->path;
	}
	return setting;
}

static size_t collect(const struct kb_dirs *dirs, const struct kb_settings *file,
	struct setting list[SETTINGS_MAX])
{
	size_t n = 0;

	list[n++] = of_option(file, "agent", NULL, "shell");
	list[n++] = of_option(file, "machine", NULL, "local");
	list[n++] = of_option(file, "lane", NULL, "auto");
	list[n++] = of_option(file, "runtime", NULL, "the first that works");
	list[n++] = of_option(file, "disk", NULL, "none is attached by a start");
	list[n++] = of_option(file, "disk-place", NULL, "/mnt/NAME");
	list[n++] = of_option(file, "detach-keys", "KBSUP_DETACH_KEYS", KB_KEYS_DEFAULT);
	list[n++] = of_option(file, "idle-suspend", NULL, "never");
	list[n++] = of_option(file, "pool", NULL, "0");
	list[n++] = of_variable("log level", "KBSUP_LOG", "warn");
	list[n++] = of_variable("programs", "KBSUP_LIBEXEC", "beside kbsup");
	list[n++] = of_place("settings", "XDG_CONFIG_HOME", file->path);
	list[n++] = of_place("policies", "XDG_CONFIG_HOME", dirs->config);
	list[n++] = of_place("state", "XDG_STATE_HOME", dirs->state);
	list[n++] = of_place("store", "XDG_STATE_HOME", dirs->store);
	list[n++] = of_place("socket", "XDG_RUNTIME_DIR", dirs->socket);
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
	struct kb_settings file KB_CLEANUP(kb_settings_finish) = {0};
	struct kb_table table KB_TABLE_CLEANUP;
	struct setting list[SETTINGS_MAX];
	struct kb_dirs dirs;
	size_t n;
	int r = kb_dirs_find(&dirs, err);

	kb_table_init(&table, columns);
	if (r == 0)
		r = kb_settings_load(&file, &dirs, err);
	if (r < 0)
		return r;
	n = collect(&dirs, &file, list);
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
