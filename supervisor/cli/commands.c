#include "command.h"

#include <stdio.h>
#include <string.h>

#include "supervisor/base/str.h"
#include "supervisor/base/util.h"
#include "verbs.h"

const struct kb_command *const kb_commands[] = {
	&kb_cmd_run,
	&kb_cmd_ps,
	&kb_cmd_attach,
	&kb_cmd_answer,
	&kb_cmd_exec,
	&kb_cmd_publish,
	&kb_cmd_stop,
	&kb_cmd_logs,
	&kb_cmd_vm_start,
	&kb_cmd_vm_stop,
	&kb_cmd_vm_suspend,
	&kb_cmd_vm_resume,
	&kb_cmd_vm_fork,
	&kb_cmd_vm_delete,
	&kb_cmd_vm_list,
	&kb_cmd_vm_status,
	&kb_cmd_vm_console,
	&kb_cmd_vm_ssh,
	&kb_cmd_vm_ssh_config,
	&kb_cmd_vm_cp,
	&kb_cmd_vm_add,
	&kb_cmd_vm_forward,
	&kb_cmd_vm_isolate,
	&kb_cmd_vm_bridge,
	&kb_cmd_vm_base,
	&kb_cmd_disk_create,
	&kb_cmd_disk_list,
	&kb_cmd_disk_attach,
	&kb_cmd_disk_detach,
	&kb_cmd_disk_grow,
	&kb_cmd_disk_passphrase,
	&kb_cmd_disk_delete,
	&kb_cmd_start,
	&kb_cmd_suspend,
	&kb_cmd_resume,
	&kb_cmd_delete,
	&kb_cmd_list,
	&kb_cmd_isolate,
	&kb_cmd_bridge,
	&kb_cmd_policy_list,
	&kb_cmd_policy_show,
	&kb_cmd_policy_check,
	&kb_cmd_policy_compile,
	&kb_cmd_policy_explain,
	&kb_cmd_policy_diff,
	&kb_cmd_policy_test,
	&kb_cmd_policy_learn,
	&kb_cmd_policy_replay,
	&kb_cmd_policy_groups,
	&kb_cmd_audit_sessions,
	&kb_cmd_audit_query,
	&kb_cmd_audit_tree,
	&kb_cmd_audit_timeline,
	&kb_cmd_audit_report,
	&kb_cmd_audit_export,
	&kb_cmd_audit_verify,
	&kb_cmd_audit_stats,
	&kb_cmd_audit_prune,
	&kb_cmd_audit_import,
	&kb_cmd_doctor,
	&kb_cmd_status,
	&kb_cmd_agents,
	&kb_cmd_config_show,
	&kb_cmd_completion,
	&kb_cmd_version,
	&kb_cmd_help,
	&kb_cmd_complete,
	&kb_cmd_keep,
	NULL,
};

const struct kb_option kb_common_options[] = {
	{.name = "help", .letter = 'h', .help = "Show what the command does and its options"},
	{0},
};

const struct kb_option kb_json_option = {
	.name = "json", .help = "Print JSON for programs instead of text for people"};

static const char *const group_titles[KB_GROUP_MAX_] = {
	[KB_GROUP_SESSIONS] = "Sessions",
	[KB_GROUP_MACHINES] = "Machines",
	[KB_GROUP_POLICIES] = "Policies",
	[KB_GROUP_AUDIT] = "Audit",
	[KB_GROUP_OTHER] = "The rest",
};

#define NAMES_MAX 128

const char *kb_group_title(enum kb_group group)
{
	return group_titles[group];
}

const struct kb_option *kb_command_option(const struct kb_command *command, size_t i)
{
	const struct kb_option *option = command->options;

	for (; option && option->name; option++)
		if (i-- == 0)
			return option;
	if (command->json && i-- == 0)
		return &kb_json_option;
	for (option = kb_common_options; option->name; option++)
		if (i-- == 0)
			return option;
	return NULL;
}

/* Length of the first word of a command's name. */
static size_t first_word(const struct kb_command *command)
{
	return strcspn(command->name, " ");
}

static bool in_family(const struct kb_command *command, const char *family)
{
	size_t len = strlen(family);

	return first_word(command) == len && command->name[len] == ' ' &&
	       !strncmp(command->name, family, len);
}

bool kb_command_is_family(const char *word)
{
	for (size_t i = 0; kb_commands[i]; i++)
		if (in_family(kb_commands[i], word))
			return true;
	return false;
}

static const struct kb_command *find(const char *first, const char *second)
{
	size_t len = strlen(first);

	for (size_t i = 0; kb_commands[i]; i++) {
		const struct kb_command *command = kb_commands[i];

		if (strncmp(command->name, first, len))
			continue;
		if (!second && command->name[len] == '\0' && len == first_word(command))
			return command;
		if (second && command->name[len] == ' ' && !strcmp(command->name + len + 1, second))
			return command;
	}
	return NULL;
}

/* The names that could have been meant: of a family, or first words. Returns how many. */
static size_t candidates(const char *family, const char *ret[NAMES_MAX], char store[][32])
{
	size_t n = 0;

	for (size_t i = 0; kb_commands[i] && n < NAMES_MAX; i++) {
		const struct kb_command *command = kb_commands[i];

		if (command->hidden || (family && !in_family(command, family)))
			continue;
		if (family)
			snprintf(store[n], 32, "%s", command->name + strlen(family) + 1);
		else
			snprintf(store[n], 32, "%.*s", (int)first_word(command), command->name);
		if (n && !strcmp(store[n], store[n - 1]))
			continue;
		ret[n] = store[n];
		n++;
	}
	return n;
}

static int unknown(const char *family, const char *word, struct kb_err *err)
{
	char store[NAMES_MAX][32];
	const char *names[NAMES_MAX], *near;
	const char *sep = family ? " " : "";

	if (!family)
		family = "";
	near = kb_closest(word, names, candidates(*family ? family : NULL, names, store));
	kb_err_set(err, KB_ERR_USAGE, "'%s%s%s' is not a command of kbsup", family, sep, word);
	if (near)
		return kb_err_hint(err, "did you mean: kbsup %s%s%s", family, sep, near);
	return kb_err_hint(err, "the commands are listed by: kbsup help%s%s", sep, family);
}

const char *kb_family_members(const struct kb_command *command, char ret[KB_MEMBERS_MAX])
{
	size_t family = first_word(command) + 1, at = 0;

	ret[0] = '\0';
	for (size_t i = 0; kb_commands[i] && at < KB_MEMBERS_MAX; i++) {
		const char *name = kb_commands[i]->name;

		if (!kb_commands[i]->hidden && !strncmp(name, command->name, family))
			at += (size_t)snprintf(ret + at, KB_MEMBERS_MAX - at, "%s%s",
				at ? ", " : "", name + family);
	}
	return ret;
}

static int family_alone(const char *family, struct kb_err *err)
{
	char members[KB_MEMBERS_MAX] = "";

	for (size_t i = 0; kb_commands[i] && !*members; i++)
		if (in_family(kb_commands[i], family))
			kb_family_members(kb_commands[i], members);
	kb_err_set(err, KB_ERR_USAGE, "'%s' needs to be told what to do", family);
	return kb_err_hint(err, "kbsup %s with one of: %s", family, members);
}

const struct kb_command *kb_command_find(
	char *const *words, int n_words, int *ret_used, struct kb_err *err)
{
	const struct kb_command *command;

	if (!kb_command_is_family(words[0])) {
		command = find(words[0], NULL);
		if (!command)
			unknown(NULL, words[0], err);
		*ret_used = 1;
		return command;
	}
	if (n_words < 2 || words[1][0] == '-') {
		family_alone(words[0], err);
		return NULL;
	}
	command = find(words[0], words[1]);
	if (!command)
		unknown(words[0], words[1], err);
	*ret_used = 2;
	return command;
}
