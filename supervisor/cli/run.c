/* kbsup run: one session, from the request to the command's exit status. */
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>

#include "closing.h"
#include "connect.h"
#include "environment.h"
#include "policies.h"
#include "profile.h"
#include "program.h"
#include "publish.h"
#include "pump.h"
#include "registry.h"
#include "secrets.h"
#include "start.h"
#include "supervisor/base/str.h"
#include "target.h"
#include "term.h"
#include "verbs.h"
#include "workspace.h"

#define AGENT_DEFAULT "shell"
#define COMMAND_MAX   2 /* words of the default command */

/* Everything that makes up the request. */
struct run {
	struct kb_cli *cli;
	const struct kb_args *args;
	struct kb_connection connection;
	struct kb_policies policies;
	struct kb_profile profile;
	struct kb_policy *policy;
	struct kb_bundle *bundle;
	struct kb_buf encoded;
	struct kb_environment env;
	struct kb_secrets secrets;
	struct kb_program_needs needs;
	struct kb_registries registries;
	char *context;
	char tighten[PATH_MAX]; /* the workspace's own policy; empty: none */
	char workspace[PATH_MAX], rootfs[PATH_MAX], cwd[PATH_MAX];
	const char *command[COMMAND_MAX];
	struct kb_keys keys;
	struct kb_run request;
	struct kb_publish_list ports;
	struct kb_target target;
	bool detach, quiet;
};

static void finish(struct run *run)
{
	kb_connection_finish(&run->connection);
	kb_publish_finish(&run->ports);
	kb_bundle_destroy(run->bundle);
	kb_policy_destroy(run->policy);
	kb_profile_finish(&run->profile);
	kb_buf_finish(&run->encoded);
	kb_environment_finish(&run->env);
	kb_secrets_finish(&run->secrets);
	kb_program_needs_finish(&run->needs);
	kb_registries_finish(&run->registries);
	kb_target_finish(&run->target);
	free(run->context);
}

static const char *user_name(void)
{
	const struct passwd *pw = getpwuid(getuid());

	return pw ? pw->pw_name : "user";
}

static int check_words(const struct run *run, struct kb_err *err)
{
	const char *name = kb_args_value(run->args, "name");

	if (name && (!kb_name_valid(name) || !strcmp(name, "last") || !strcmp(name, "all"))) {
		kb_err_set(err, KB_ERR_USAGE, "'%s' cannot be the name of a session", name);
		return kb_err_hint(err,
			"1 to 63 letters, digits, '.', '_' and '-', beginning with a "
			"letter or digit; not 'last' or 'all'");
	}
	if (!run->cli->json || run->detach)
		return 0;
	kb_err_set(err, KB_ERR_USAGE, "--json prints a session that is left running");
	return kb_err_hint(
		err, "use it with --detach; what is asked of records has its own --json");
}

static int find_rootfs(struct run *run, struct kb_err *err)
{
	const char *named = kb_args_value(run->args, "rootfs");
	struct stat st;

	if (!named)
		return 0;
	if (!run->target.local) {
		run->request.rootfs = named;
		return 0;
	}
	if (!realpath(named, run->rootfs) || stat(run->rootfs, &st) < 0) {
		kb_err_sys(err, errno, "the root file system %s cannot be used", named);
		return kb_err_hint(err, "name a directory that holds one with --rootfs DIR");
	}
	if (!S_ISDIR(st.st_mode)) {
		kb_err_set(err, KB_ERR_FAILED, "the root file system %s is not a directory", named);
		return kb_err_hint(err, "unpack it into a directory first");
	}
	run->request.rootfs = run->rootfs;
	return 0;
}

/* The current directory where it is in the workspace, else the workspace. */
static void find_cwd(struct run *run)
{
	size_t len = strlen(run->workspace);

	if (getcwd(run->cwd, sizeof(run->cwd)) && !strncmp(run->cwd, run->workspace, len) &&
		(run->cwd[len] == '/' || !run->cwd[len]))
		run->request.process.cwd = run->cwd;
}

/* What is named of a machine is the machine's to check. */
static int find_workspace(struct run *run, struct kb_err *err)
{
	const struct kb_dirs *dirs = &run->policies.dirs;
	const char *named = kb_args_value(run->args, "workspace");

	return run->target.local
		       ? kb_workspace_find(named, dirs, run->workspace, err)
		       : kb_target_workspace(&run->target, named, dirs->home, run->workspace, err);
}

static int find_places(struct run *run, struct kb_err *err)
{
	const struct kb_dirs *dirs = &run->policies.dirs;
	int r = kb_policies_init(&run->policies, err);

	if (r == 0)
		r = kb_target_find(&run->target, run->cli, run->args, err);
	if (r == 0)
		r = find_workspace(run, err);
	if (r == 0)
		r = find_rootfs(run, err);
	if (r < 0)
		return r;
	run->request.process.cwd = run->workspace;
	if (run->target.local)
		find_cwd(run);
	kb_registries_init(&run->registries, dirs);
	run->policies.options.find_hosts = kb_registries_find;
	run->policies.options.find_hosts_arg = &run->registries;
	run->policies.options.workspace = run->workspace;
	run->request.workspace = run->workspace;
	run->request.machine = run->target.machine;
	run->request.transport = run->target.transport;
	run->request.address = run->target.local ? NULL : run->target.machine;
	run->request.home = run->target.local ? dirs->home : run->target.home;
	run->request.user = run->target.local ? user_name() : run->target.user;
	run->policies.options.home = run->request.home;
	run->policies.options.user = run->request.user;
	return 0;
}

/* Programs of a root file system that is not this machine's. */
static bool rootfs_has(const struct run *run, const char *name)
{
	static const char *const dirs[] = {"usr/local/bin", "usr/bin", "usr/sbin", "bin", "sbin"};

	for (size_t i = 0; i < KB_ARRAY_LEN(dirs); i++) {
		char *path KB_FREE = kb_xprintf("%s/%s/%s", run->rootfs, dirs[i], name);

		if (faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
			return true;
	}
	return false;
}

/* 1: there is no such program. */
static int find_program(struct run *run, const char *name, struct kb_err *err)
{
	struct kb_program_where where = {
		.path = getenv("PATH"),
		.home = run->policies.dirs.home,
		.workspace = run->workspace,
	};

	if (!run->target.local)
		return 0;
	if (run->request.rootfs)
		return strchr(name, '/') || rootfs_has(run, name) ? 0 : 1;
	return kb_program_needs_add(&run->needs, &where, name, err);
}

static int not_installed(const struct run *run, const char *name, struct kb_err *err)
{
	static const struct {
		const char *kind, *install;
	} ways[] = {{"npm", "npm install -g"}, {"pip", "pipx install"}, {"apt", "apt install"}};
	const struct kb_profile *p = &run->profile;

	kb_err_set(err, KB_ERR_NOTFOUND, "the agent %s needs the program %s, which is not %s",
		run->request.agent, name, run->request.rootfs ? "in --rootfs" : "in your PATH");
	for (size_t i = 0; p->package && i < KB_ARRAY_LEN(ways); i++)
		if (!strcmp(ways[i].kind, p->package_kind) && !strcmp(name, p->command[0]))
			return kb_err_hint(err, "install it: %s %s", ways[i].install, p->package);
	return kb_err_hint(err, "install %s, or correct the PATH", name);
}

/* A command of the user's own that is not there is the session's to report, as a shell would. */
static int find_programs(struct run *run, struct kb_err *err)
{
	const struct kb_profile *p = &run->profile;
	int r = 0;

	for (const char *const *name = p->programs; name && *name && r == 0; name++) {
		r = find_program(run, *name, err);
		if (r > 0)
			return not_installed(run, *name, err);
	}
	if (r == 0 && p->command)
		r = find_program(run, p->command[0], err);
	if (r > 0 && !run->args->n_tail)
		return not_installed(run, p->command[0], err);
	if (r >= 0 && run->args->n_tail)
		r = find_program(run, run->args->tail[0], err);
	run->policies.options.programs = (const char *const *)run->needs.paths;
	return r < 0 ? r : 0;
}

static void find_context(struct run *run)
{
	const char *file = run->profile.context;

	if (!file)
		return;
	free(run->context);
	run->context =
		file[0] == '~' ? kb_xprintf("%s%s", run->request.home, file + 1) : kb_xstrdup(file);
	run->request.context = run->context;
}

static int compile(struct run *run, struct kb_err *err)
{
	const char *agent = kb_args_value(run->args, "agent");
	const char *policy = kb_args_value(run->args, "policy");
	int r;

	/* Of a first time. */
	kb_bundle_destroy(KB_STEAL(run->bundle));
	kb_policy_destroy(KB_STEAL(run->policy));
	kb_profile_finish(&run->profile);
	kb_buf_finish(&run->encoded);
	run->request.agent = agent ? agent : AGENT_DEFAULT;
	kb_buf_init(&run->encoded, KB_BUNDLE_MAX);
	/* --policy alone needs no agent's policy beside it. */
	r = agent || !policy
		    ? kb_profile_load(&run->policies, run->request.agent, &run->profile, err)
		    : 0;
	if (r == 0)
		r = find_programs(run, err);
	if (r == 0 && run->target.local)
		r = kb_workspace_policy(run->workspace, run->tighten, err);
	if (r == 0 && run->tighten[0])
		run->policies.options.tighten = run->tighten;
	if (r == 0)
		r = kb_policies_compile(&run->policies, policy ? policy : run->profile.policy,
			&run->policy, &run->encoded, err);
	if (r == 0)
		r = kb_bundle_parse(
			kb_buf_data(&run->encoded), kb_buf_len(&run->encoded), &run->bundle, err);
	if (r < 0)
		return r;
	run->request.bundle = kb_buf_data(&run->encoded);
	run->request.bundle_len = kb_buf_len(&run->encoded);
	run->request.policy = kb_policy_name(run->policy);
	find_context(run);
	return 0;
}

static int make_environment(struct run *run, struct kb_err *err)
{
	const char *const *vars;
	size_t n = kb_bundle_env(run->bundle, &vars);
	int r;

	for (size_t i = 0; i < n; i++)
		kb_environment_set(&run->env, vars[i]);
	kb_environment_path(&run->env, (const char *const *)run->needs.dirs);
	r = kb_secrets_check_env(run->bundle, run->args, err);
	if (r == 0)
		r = kb_secrets_take(
			run->bundle, run->policies.dirs.home, &run->env, &run->secrets, err);
	if (r == 0)
		r = kb_environment_options(&run->env, run->args, err);
	if (r < 0)
		return r;
	if (run->request.process.tty)
		kb_environment_default(&run->env, "TERM", getenv("TERM"));
	run->request.process.env = (const char *const *)run->env.vars;
	run->request.secrets = run->secrets.fd;
	run->request.trust = run->secrets.trust;
	return 0;
}

/* bash where the user has it, as long as the session sees this machine's own /usr, and in a machine
 * made from one of our bases; else sh. */
static const char *default_shell(const struct run *run)
{
	const char *shell = getenv("SHELL"), *base = shell ? strrchr(shell, '/') : NULL;

	if (run->request.rootfs || run->target.remote)
		return "sh";
	if (!run->target.local || (base && !strcmp(base, "/bash")))
		return "bash";
	return "sh";
}

static void choose_command(struct run *run)
{
	struct kb_process *process = &run->request.process;
	uint32_t rows, cols;

	process->argv = (const char *const *)run->args->tail;
	if (!run->args->n_tail && run->profile.command) {
		process->argv = run->profile.command;
	} else if (!run->args->n_tail) {
		run->command[0] = default_shell(run);
		process->argv = run->command;
	}
	/* A session that is left running has a terminal to come back to. */
	process->tty = run->detach ? !run->args->n_tail || run->cli->in_tty
				   : run->cli->in_tty && run->cli->out_tty;
	if (kb_term_size(STDIN_FILENO, &rows, &cols)) {
		process->rows = rows;
		process->cols = cols;
	}
}

/* A port that is taken is said before anything starts. */
static int open_ports(struct run *run, struct kb_err *err)
{
	const char *text;
	int r = 0;

	for (size_t i = 0; r == 0 && (text = kb_args_value_at(run->args, "publish", i)); i++)
		r = kb_publish_add(&run->ports, text, err);
	return r < 0 ? r : kb_publish_listen(&run->ports, err);
}

static int bring_up(struct run *run, struct kb_err *err)
{
	int r = kb_target_ready(&run->target, err);

	return r < 0 ? r
		     : kb_target_policy(&run->target, run->workspace, run->policies.dirs.runtime,
			       run->tighten, err);
}

static int prepare(struct run *run, struct kb_err *err)
{
	int r = check_words(run, err);

	if (r == 0)
		r = kb_pump_keys(&run->keys, kb_args_value(run->args, "detach-keys"), err);
	if (r == 0)
		r = find_places(run, err);
	/* Mistakes are told before a machine is brought up for them. */
	if (r == 0 && !run->target.local)
		r = compile(run, err);
	if (r == 0 && !run->target.local)
		r = bring_up(run, err);
	if (r == 0)
		r = compile(run, err);
	if (r < 0)
		return r;
	run->request.name = kb_args_value(run->args, "name");
	run->request.lane = kb_args_value(run->args, "lane");
	run->request.runtime = kb_args_value(run->args, "runtime");
	run->request.detach = run->detach;
	run->request.stop_on_hangup = true;
	kb_policy_files(run->policy, &run->request.policy_files);
	choose_command(run);
	r = make_environment(run, err);
	return r < 0 ? r : open_ports(run, err);
}

static void on_started(const struct kb_pump_end *end, const struct kb_started *started, void *arg)
{
	const struct run *run = arg;
	const char *const *files;
	struct kb_opening opening = {
		.bundle = run->bundle,
		.name = end->name,
		.machine = run->request.machine,
		.workspace = run->workspace,
		.policy_files = kb_policy_files(run->policy, &files),
		.tightened = run->tighten[0] != '\0',
		.ports = &run->ports,
	};

	if (!run->quiet)
		kb_opening_print(run->cli, &opening, started);
}

/* The command's status stands for how the session went; what kbsup itself could not do comes on
 * top only when the command had no complaint of its own. */
static int conclude(struct run *run, struct kb_pump_end *end, struct kb_err *err)
{
	int status = end->exit_code;

	if (end->detached) {
		if (!run->quiet)
			kb_leaving_print(run->cli, end);
		if (run->target.fresh && !run->quiet)
			fprintf(stderr, "kbsup: machine %s stays · kbsup vm delete %s\n",
				run->target.machine, run->target.machine);
		run->target.stays = true;
		return KB_EXIT_OK;
	}
	if (end->has_session && !run->quiet)
		kb_closing_print(run->cli, &run->connection, &end->session,
			kb_args_value(run->args, "policy"));
	if (end->output_errnum && status == 0)
		return kb_err_sys(err, end->output_errnum, "the output could not be written");
	return status;
}

static int run_here(struct run *run, struct kb_err *err)
{
	struct kb_pump_options options = {
		.cli = run->cli,
		.loop = run->connection.loop,
		.verb = KB_PUMP_RUN,
		.tty = run->request.process.tty,
		.keys = run->keys,
		.started = on_started,
		.arg = run,
	};
	struct kb_pump_end end = {0};
	struct kb_pump *pump = NULL;
	struct kb_attach *at = NULL;
	int r = kb_pump_create(&options, &pump, err);

	if (r == 0)
		r = kb_client_run(
			run->connection.client, &run->request, &kb_pump_ops, pump, &at, err);
	if (r == 0)
		r = kb_pump_run(pump, at, &end, err);
	kb_attach_destroy(at);
	kb_pump_destroy(pump);
	if (r == 0)
		r = conclude(run, &end, err);
	if (end.has_session)
		kb_session_finish(&end.session);
	return r;
}

static int run_detached(struct run *run, struct kb_err *err)
{
	char id[KB_ULID_TEXT], name[KB_NAME_MAX];
	int r = kb_start_detached(
		run->connection.loop, run->connection.client, &run->request, id, name, err);

	if (r < 0)
		return r;
	if (run->cli->json)
		return kb_json_print(
			run->cli, json_pack("{s:s, s:s}", "id", id, "name", name), err);
	puts(name);
	return KB_EXIT_OK;
}

static int run_verb(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct run run KB_CLEANUP(finish) = {
		.cli = cli,
		.args = args,
		.detach = kb_args_has(args, "detach"),
		.quiet = kb_args_has(args, "quiet"),
	};
	int r = prepare(&run, err);

	if (r == 0)
		r = kb_connect(&run.connection, true, err);
	if (r == 0)
		r = kb_publish_send(&run.ports, run.connection.client, NULL, err);
	if (r < 0)
		return r;
	return run.detach ? run_detached(&run, err) : run_here(&run, err);
}

static const struct kb_option options[] = {
	{.name = "agent",
		.letter = 'a',
		.arg = "A",
		.kind = KB_KIND_AGENT,
		.setting = "agent",
		.help = "The agent: its policy, and its command where it has one; shell unless "
			"told "
			"otherwise"},
	{.name = "vm",
		.arg = "M",
		.kind = KB_KIND_MACHINE,
		.setting = "machine",
		.unless = "local",
		.help = "Run in this machine; it is made, booted or resumed if need be"},
	{.name = "fresh",
		.help = "Run in a machine made for this session, a fork of the one named with "
			"--vm, and delete it at the end"},
	{.name = "local", .help = "Run on this machine"},
	{.name = "link",
		.arg = "LINK",
		.kind = KB_KIND_WORD,
		.words = "serial|ssh",
		.help = "How the machine is reached"},
	{.name = "workspace",
		.letter = 'w',
		.arg = "DIR",
		.kind = KB_KIND_DIR,
		.help = "The project directory, the only writable one; the current one unless told "
			"otherwise"},
	{.name = "policy",
		.letter = 'p',
		.arg = "FILE",
		.kind = KB_KIND_POLICY,
		.help = "The policy, a file or a name, instead of the agent's"},
	{.name = "name",
		.letter = 'n',
		.arg = "N",
		.help = "The session's name; else one is made up"},
	{.name = "env",
		.letter = 'e',
		.arg = "K[=V]",
		.kind = KB_KIND_ENV,
		.repeat = true,
		.help = "Set a variable in the session; without a value, to what it is here"},
	{.name = "publish",
		.arg = "[HOST:]PORT",
		.repeat = true,
		.help = "Make a port of the session reachable on 127.0.0.1 here: on the same port, "
			"or "
			"on HOST"},
	{.name = "rootfs",
		.arg = "DIR",
		.kind = KB_KIND_DIR,
		.help = "A root file system to use instead of this machine's own files"},
	{.name = "detach", .letter = 'd', .help = "Print the session's name and leave it running"},
	{.name = "lane",
		.arg = "LANE",
		.kind = KB_KIND_WORD,
		.words = "auto|bpf|notify",
		.setting = "lane",
		.help = "Which collector records"},
	{.name = "runtime",
		.arg = "R",
		.kind = KB_KIND_FILE,
		.setting = "runtime",
		.help = "The container runtime, by name or path"},
	{.name = "detach-keys",
		.arg = "KEYS",
		.setting = "detach-keys",
		.variable = "KBSUP_DETACH_KEYS",
		.help = "The keys that leave the session running; " KB_KEYS_DEFAULT
			" unless told otherwise"},
	{.name = "quiet", .letter = 'q', .help = "No line at the start and none at the end"},
	{0},
};

const struct kb_command kb_cmd_run = {
	.name = "run",
	.group = KB_GROUP_SESSIONS,
	.summary = "Run one audited, policy-bound session",
	.about = "Starts a session for the project in the current directory, runs a command in it "
		 "(a "
		 "shell, unless told otherwise), and ends with the command's exit status. Only the "
		 "project directory is writable; what is done in the session is recorded.",
	.options = options,
	.tail = KB_TAIL_OPTIONAL,
	.json = true,
	.man = "kbsup-run",
	.run = run_verb,
};
