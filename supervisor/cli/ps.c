/* kbsup ps, kbsup stop */
#include <string.h>

#include "connect.h"
#include "named.h"
#include "sessions.h"
#include "verbs.h"
#include "vm.h"

/* ---- ps -------------------------------------------------------------------------------------- */

static int run_ps(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_connection connection KB_CONNECTION_CLEANUP = {0};
	struct kb_rows rows KB_ROWS_CLEANUP = {0};
	bool all = kb_args_has(args, "all"), running = true;
	int r = all ? kb_connect(&connection, true, err)
		    : kb_connect_running(&connection, &running, err);

	/* Where no supervisor runs, no session does: none is started to say so. */
	if (r == 0 && !running)
		rows.list = json_array();
	else if (r == 0)
		r = kb_rows_read(&rows, &connection, all, err);
	if (r < 0)
		return r;
	return cli->json ? kb_rows_print_json(&rows, cli, err) : kb_rows_print(&rows, cli);
}

static const struct kb_option ps_options[] = {
	{.name = "all", .letter = 'a', .help = "Those that have ended too"},
	{0},
};

const struct kb_command kb_cmd_ps = {
	.name = "ps",
	.group = KB_GROUP_SESSIONS,
	.summary = "List the sessions that run",
	.about = "Lists the sessions that run, oldest first.",
	.options = ps_options,
	.json = true,
	.man = "kbsup-session",
	.run = run_ps,
};

/* ---- stop ------------------------------------------------------------------------------------ */

static int stop_one(struct kb_cli *cli, struct kb_connection *connection, const char *name,
	bool now, struct kb_err *err)
{
	struct kb_session session = {0};
	char id[KB_ULID_TEXT], ran[KB_WORDS_MAX];
	int r = kb_session_resolve(connection, name, id, err);

	if (r == 0)
		r = kb_client_stop(connection->client, id, now, &session, err);
	if (r < 0)
		return r;
	if (cli->err_tty) {
		kb_format_duration(ran, (int64_t)(session.ended - session.started));
		fprintf(stderr, "kbsup: session %s stopped after %s\n", session.name, ran);
	}
	kb_session_finish(&session);
	return 0;
}

static int stop_named(struct kb_cli *cli, struct kb_connection *connection, const char *name,
	bool now, struct kb_err *err)
{
	bool machine;
	int r = kb_names_machine(name, &machine, err);

	if (r == 0 && machine)
		return kb_vm_stop_named(cli, name, now, err);
	if (r == 0 && !connection->client)
		r = kb_connect(connection, true, err);
	return r < 0 ? r : stop_one(cli, connection, name, now, err);
}

static int run_stop(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_connection connection KB_CONNECTION_CLEANUP = {0};
	int r = 0;

	for (size_t i = 0; r == 0 && i < args->n_operands; i++)
		r = stop_named(cli, &connection, args->operands[i], kb_args_has(args, "now"), err);
	return r;
}

static const struct kb_option stop_options[] = {
	{.name = "now", .help = "Do not ask the processes to end: end them"},
	{0},
};

const struct kb_command kb_cmd_stop = {
	.name = "stop",
	.group = KB_GROUP_SESSIONS,
	.summary = "End sessions and destroy what they leave",
	.about = "Asks the processes of each session to end, ends those that do not, and destroys "
		 "the container. The records stay. The name of a machine shuts that down, as vm "
		 "stop "
		 "does.",
	.options = stop_options,
	.operands = {{.name = "S", .min = 1, .max = KB_MANY, .kind = KB_KIND_RUNNING}},
	.man = "kbsup-session",
	.run = run_stop,
};
