/* kbsup status */
#include <string.h>

#include "connect.h"
#include "verbs.h"

static json_t *text_json(const char *text)
{
	return text ? kb_json_of(text, strlen(text)) : json_null();
}

static json_t *roles_json(const struct kb_status *status)
{
	json_t *list = json_array();

	for (size_t i = 0; i < status->n_roles; i++) {
		const struct kb_role_status *role = &status->roles[i];
		json_t *one = json_pack("{s:s, s:i, s:s}", "role", role->name, "pid",
			(int)role->pid, "state", role->state);

		if (*role->machine)
			json_object_set_new(one, "machine", text_json(role->machine));
		json_array_append_new(list, one);
	}
	return list;
}

static json_t *local_json(const struct kb_status *status)
{
	json_t *missing = json_array();

	for (size_t i = 0; i < status->n_limits_missing; i++)
		json_array_append_new(missing, text_json(status->limits_missing[i]));
	return json_pack("{s:i, s:o, s:o, s:i, s:b, s:o}", "guest_pid", (int)status->guest_pid,
		"runtime", text_json(status->runtime), "kernel", text_json(status->kernel),
		"landlock_abi", (int)status->landlock_abi, "rootless", status->rootless,
		"limits_missing", missing);
}

static int print_json(const struct kb_cli *cli, const struct kb_status *status, struct kb_err *err)
{
	json_t *all = json_pack("{s:b, s:i, s:s, s:s, s:I, s:o, s:o, s:o, s:o}", "running", 1,
		"pid", (int)status->pid, "version", status->version, "build", status->build,
		"sessions", (json_int_t)status->sessions, "roles", roles_json(status), "socket",
		text_json(status->socket), "store", text_json(status->store), "log",
		*status->log ? text_json(status->log) : json_null());

	if (all && *status->runtime)
		json_object_set_new(all, "local", local_json(status));
	return kb_json_print(cli, all, err);
}

static void line(const struct kb_cli *cli, const char *name, const char *text)
{
	printf("%s%-12s%s %s\n", kb_tone(cli->colour, KB_TONE_DIM), name,
		kb_tone_end(cli->colour, KB_TONE_DIM), text);
}

static void path_line(const struct kb_cli *cli, const char *name, const char *path)
{
	char *shown KB_FREE = kb_format_path(cli, path);

	line(cli, name, shown);
}

static void print_roles(const struct kb_cli *cli, const struct kb_status *status)
{
	for (size_t i = 0; i < status->n_roles; i++) {
		const struct kb_role_status *role = &status->roles[i];
		char *text KB_FREE = kb_xprintf("%s%s%s, pid %d", role->state,
			*role->machine ? ", machine " : "", role->machine, (int)role->pid);

		line(cli, role->name, text);
	}
}

static void print_text(const struct kb_cli *cli, const struct kb_status *status)
{
	char up[KB_WORDS_MAX];
	char *head KB_FREE = NULL;

	kb_format_duration(up, kb_now_real() - (int64_t)status->started);
	head = kb_xprintf("running for %s, pid %d, version %s, %u %s", up, (int)status->pid,
		status->version, status->sessions, status->sessions == 1 ? "session" : "sessions");
	line(cli, "supervisor", head);
	print_roles(cli, status);
	if (*status->runtime) {
		char *text KB_FREE = kb_xprintf("%s%s%s", status->runtime,
			*status->runtime_why ? ": " : "", status->runtime_why);

		line(cli, "runtime", text);
	}
	for (size_t i = 0; i < status->n_limits_missing; i++)
		line(cli, "not limited", status->limits_missing[i]);
	path_line(cli, "socket", status->socket);
	path_line(cli, "store", status->store);
	if (*status->log)
		path_line(cli, "log", status->log);
}

/* That none runs is an answer, on standard output as any other, and an exit status of its own. */
static int print_none(const struct kb_cli *cli, struct kb_err *err)
{
	struct kb_dirs dirs;
	int r = kb_dirs_find(&dirs, err);

	if (r < 0)
		return r;
	if (cli->json)
		r = kb_json_print(cli,
			json_pack("{s:b, s:n, s:o, s:o}", "running", 0, "pid", "socket",
				text_json(dirs.socket), "store", text_json(dirs.store)),
			err);
	else
		line(cli, "supervisor", "not running (it starts when it is needed)");
	return r < 0 ? r : KB_EXIT_UNREACHABLE;
}

static int run(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_connection connection KB_CONNECTION_CLEANUP = {0};
	struct kb_status status KB_CLEANUP(kb_status_finish) = {0};
	bool running;
	int r;

	if (args->n_operands)
		return kb_cmd_vm_status.run(cli, args, err);
	r = kb_connect_running(&connection, &running, err);
	if (r == 0 && !running)
		return print_none(cli, err);
	if (r == 0)
		r = kb_client_status(connection.client, &status, err);
	if (r < 0)
		return r;
	if (cli->json)
		return print_json(cli, &status, err);
	print_text(cli, &status);
	return KB_EXIT_OK;
}

const struct kb_command kb_cmd_status = {
	.name = "status",
	.group = KB_GROUP_OTHER,
	.summary = "Say whether the supervisor runs, with its processes and files",
	.about = "Says whether the supervisor runs, which processes it consists of and where its "
		 "files "
		 "are. Does not start one; exits 3 when none runs. With a machine's name it is vm "
		 "status.",
	.operands = {{.name = "M", .max = 1, .kind = KB_KIND_MACHINE}},
	.json = true,
	.man = "kbsup",
	.run = run,
};
