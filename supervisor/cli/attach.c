/* kbsup attach, kbsup exec */
#include <string.h>

#include "closing.h"
#include "connect.h"
#include "environment.h"
#include "named.h"
#include "pump.h"
#include "term.h"
#include "verbs.h"

static int conclude(struct kb_cli *cli, struct kb_connection *connection, struct kb_pump_end *end,
	struct kb_err *err)
{
	int status = end->exit_code;

	if (end->detached) {
		kb_leaving_print(cli, end);
		return KB_EXIT_OK;
	}
	if (end->has_session) {
		kb_closing_print(cli, connection, &end->session, NULL);
		kb_session_finish(&end->session);
	}
	if (end->output_errnum && status == 0)
		return kb_err_sys(err, end->output_errnum, "the output could not be written");
	return status;
}

/* ---- attach ---------------------------------------------------------------------------------- */

static int start_attach(struct kb_connection *connection, const char *id, struct kb_pump *pump,
	struct kb_attach **ret, struct kb_err *err)
{
	uint32_t rows = 0, cols = 0;

	if (!kb_term_size(STDIN_FILENO, &rows, &cols))
		rows = cols = 0;
	return kb_client_attach(connection->client, id, rows, cols, &kb_pump_ops, pump, ret, err);
}

static int run_attach(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_connection connection KB_CONNECTION_CLEANUP = {0};
	struct kb_pump_options options = {
		.cli = cli, .verb = KB_PUMP_ATTACH, .tty = cli->in_tty && cli->out_tty};
	struct kb_pump_end end = {0};
	struct kb_pump *pump = NULL;
	struct kb_attach *at = NULL;
	char id[KB_ULID_TEXT];
	bool machine = false;
	int r = kb_pump_keys(&options.keys, kb_args_value(args, "detach-keys"), err);

	if (r == 0)
		r = kb_names_machine(args->operands[0], &machine, err);
	if (r == 0 && machine)
		return kb_cmd_vm_console.run(cli, args, err);
	if (r == 0)
		r = kb_connect(&connection, true, err);
	if (r == 0)
		r = kb_session_resolve(&connection, args->operands[0], id, err);
	options.loop = connection.loop;
	if (r == 0)
		r = kb_pump_create(&options, &pump, err);
	if (r == 0)
		r = start_attach(&connection, id, pump, &at, err);
	if (r == 0)
		r = kb_pump_run(pump, at, &end, err);
	kb_attach_destroy(at);
	kb_pump_destroy(pump);
	return r < 0 ? r : conclude(cli, &connection, &end, err);
}

static const struct kb_option attach_options[] = {
	{.name = "detach-keys",
		.arg = "KEYS",
		.setting = "detach-keys",
		.variable = "KBSUP_DETACH_KEYS",
		.help = "The keys that detach; " KB_KEYS_DEFAULT " unless told otherwise"},
	{0},
};

const struct kb_command kb_cmd_attach = {
	.name = "attach",
	.group = KB_GROUP_SESSIONS,
	.summary = "Connect this terminal to a session's",
	.about = "Connects this terminal to a running session, until it ends or the detach keys "
		 "(ctrl-p ctrl-q) are pressed. The name of a machine opens its console, as vm "
		 "console does.",
	.options = attach_options,
	.operands = {{.name = "S", .min = 1, .max = 1, .kind = KB_KIND_RUNNING}},
	.man = "kbsup-session",
	.run = run_attach,
};

/* ---- exec ------------------------------------------------------------------------------------ */

static void describe_process(const struct kb_cli *cli, const struct kb_args *args,
	const struct kb_environment *env, struct kb_process *ret)
{
	uint32_t rows, cols;

	*ret = (struct kb_process){
		.argv = (const char *const *)args->tail,
		.env = (const char *const *)env->vars,
		.tty = cli->in_tty && cli->out_tty,
	};
	if (kb_term_size(STDIN_FILENO, &rows, &cols)) {
		ret->rows = rows;
		ret->cols = cols;
	}
}

static int run_exec(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_connection connection KB_CONNECTION_CLEANUP = {0};
	struct kb_environment env KB_ENVIRONMENT_CLEANUP = {0};
	struct kb_pump_options options = {.cli = cli, .verb = KB_PUMP_EXEC};
	struct kb_pump_end end = {0};
	struct kb_pump *pump = NULL;
	struct kb_attach *at = NULL;
	struct kb_process process;
	char id[KB_ULID_TEXT];
	int r = kb_environment_options(&env, args, err);

	describe_process(cli, args, &env, &process);
	options.tty = process.tty;
	if (r == 0)
		r = kb_connect(&connection, true, err);
	if (r == 0)
		r = kb_session_resolve(&connection, args->operands[0], id, err);
	options.loop = connection.loop;
	if (r == 0)
		r = kb_pump_create(&options, &pump, err);
	if (r == 0)
		r = kb_client_exec(connection.client, id, &process, &kb_pump_ops, pump, &at, err);
	if (r == 0)
		r = kb_pump_run(pump, at, &end, err);
	kb_attach_destroy(at);
	kb_pump_destroy(pump);
	return r < 0 ? r : conclude(cli, &connection, &end, err);
}

static const struct kb_option exec_options[] = {
	{.name = "env",
		.letter = 'e',
		.arg = "K[=V]",
		.kind = KB_KIND_ENV,
		.repeat = true,
		.help = "Set a variable for the command; without a value, to what it is here"},
	{0},
};

const struct kb_command kb_cmd_exec = {
	.name = "exec",
	.group = KB_GROUP_SESSIONS,
	.summary = "Run a further command in a session",
	.about = "Runs a further command in a running session, under the same confinement as its "
		 "first, and ends with the command's exit status.",
	.options = exec_options,
	.operands = {{.name = "S", .min = 1, .max = 1, .kind = KB_KIND_SESSION}},
	.tail = KB_TAIL_REQUIRED,
	.man = "kbsup-session",
	.run = run_exec,
};
