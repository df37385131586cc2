/* kbsup policy replay, policy learn, and explain --record: policies against what was recorded.
 *
 * Policies are compiled here, where the user's files and configuration are: for each recorded
 * session as a session in its place would have it. A reader of the store judges the records. */
#include "policy_record.h"

#include <errno.h>
#include <string.h>

#include "connect.h"
#include "policies.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/str.h"
#include "verbs.h"
#include "workspace.h"

#define SESSIONS_MAX (64u << 10)
#define LEARNED_NAME "learned"
#define LEARNED_BASE "base"

/* ---- Asking ---------------------------------------------------------------------------------- */

/* The answer of a reader that was told of policies, to the file named or standard output. */
struct question {
	const struct kb_cli *cli;
	struct kb_connection *connection;
	struct kb_ask ask;
	struct kb_ask_input input;
	const char *output; /* NULL: standard output */
};

static int copy_out(FILE *from, const char *output, struct kb_err *err)
{
	struct kb_buf all KB_BUF_CLEANUP;
	uint8_t *room;
	size_t n = 1;
	int r = 0;

	kb_buf_init(&all, KB_RECORD_ANSWER_MAX);
	while (r == 0 && n > 0) {
		r = kb_buf_reserve(&all, 65536, &room, err);
		if (r < 0)
			return r;
		n = fread(room, 1, 65536, from);
		kb_buf_commit(&all, n);
	}
	if (output && strcmp(output, "-") != 0)
		return kb_file_write_atomic(output, kb_buf_data(&all), kb_buf_len(&all), 0644, err);
	fwrite(kb_buf_data(&all), 1, kb_buf_len(&all), stdout);
	return 0;
}

static int put_question(struct question *q, struct kb_err *err)
{
	FILE *file = tmpfile();
	int status = KB_EXIT_OK, r;

	if (!file)
		return kb_err_sys(err, errno, "a temporary file cannot be made");
	q->ask.json = q->cli->json;
	q->ask.home = q->cli->home;
	r = kb_client_ask_about(q->connection->client, &q->ask, &q->input, file, &status, err);
	if (r == 0)
		r = copy_out(file, q->output, err);
	fclose(file);
	return r < 0 ? r : status;
}

/* The operands as the list that a reader takes; fallback when there are none. */
static int sessions_of(
	const struct kb_args *args, const char *fallback, char **ret, struct kb_err *err)
{
	struct kb_buf text KB_BUF_CLEANUP;
	int r = 0;

	kb_buf_init(&text, SESSIONS_MAX);
	if (!args->n_operands)
		r = kb_buf_puts(&text, fallback, err);
	for (size_t i = 0; r == 0 && i < args->n_operands; i++)
		r = kb_buf_printf(&text, err, "%s%s", i ? "," : "", args->operands[i]);
	*ret = r == 0 ? kb_buf_steal_string(&text) : NULL;
	return *ret ? 0 : r < 0 ? r : kb_err_nomem(err);
}

/* ---- Compiling for a recorded session -------------------------------------------------------- */

/* Two sessions in the same place, with the same programs, get the same policy. */
static bool same_place(const struct kb_recorded *a, const struct kb_recorded *b)
{
	size_t i = 0;

	if (strcmp(a->workspace, b->workspace) != 0 ||
		strcmp(a->home ? a->home : "", b->home ? b->home : "") != 0)
		return false;
	for (; a->programs[i] && b->programs[i]; i++)
		if (strcmp(a->programs[i], b->programs[i]) != 0)
			return false;
	return a->programs[i] == b->programs[i];
}

/* As `kbsup run` would in the session's place, the workspace's own policy included. */
static int compile_for(struct kb_policies *policies, const char *policy,
	const struct kb_recorded *session, struct kb_buf *out, struct kb_err *err)
{
	struct kb_policy *loaded KB_POLICY_CLEANUP = NULL;
	const struct kb_policy_options before = policies->options;
	char tighten[PATH_MAX] = "";
	int r = 0;

	if (session->workspace[0]) {
		policies->options.workspace = session->workspace;
		r = kb_workspace_policy(session->workspace, tighten, NULL);
	}
	if (r == 0 && tighten[0])
		policies->options.tighten = tighten;
	if (session->home)
		policies->options.home = session->home;
	policies->options.programs = (const char *const *)session->programs;
	r = kb_policies_compile(policies, policy, &loaded, out, err);
	policies->options = before;
	return r;
}

/* ---- replay ---------------------------------------------------------------------------------- */

struct trials {
	struct kb_recorded_list sessions;
	struct kb_buf *bundles;
	size_t n_bundles;
	struct kb_ask_trial *list;
};

static void trials_finish(struct trials *t)
{
	for (size_t i = 0; i < t->n_bundles; i++)
		kb_buf_finish(&t->bundles[i]);
	free(t->bundles);
	free(t->list);
	kb_recorded_finish(&t->sessions);
}

/* The bundle for session i: that of an earlier one in the same place, or a new one. */
static int add_trial(struct trials *t, size_t i, struct kb_policies *policies, const char *policy,
	struct kb_err *err)
{
	const struct kb_recorded *session = &t->sessions.items[i];

	t->list[i] = (struct kb_ask_trial){session->id, (uint32_t)t->n_bundles};
	for (size_t k = i; k-- > 0;)
		if (same_place(session, &t->sessions.items[k])) {
			t->list[i].bundle = t->list[k].bundle;
			return 0;
		}
	kb_buf_init(&t->bundles[t->n_bundles], KB_BUNDLE_MAX);
	return compile_for(policies, policy, session, &t->bundles[t->n_bundles++], err);
}

static int make_trials(struct trials *t, struct kb_connection *connection,
	const struct kb_ask *which, const char *policy, struct kb_err *err)
{
	struct kb_policies policies KB_POLICIES_CLEANUP = {0};
	int r = kb_client_recorded(connection->client, which, &t->sessions, err);

	if (r == 0 && !t->sessions.n) {
		kb_err_set(err, KB_ERR_NOTFOUND, "no session began since %s", which->since);
		return kb_err_hint(err, "those that are recorded: kbsup audit sessions");
	}
	if (r == 0)
		r = kb_policies_init(&policies, err);
	if (r < 0)
		return r;
	kb_policies_look_up_hosts(&policies);
	t->bundles = kb_xcalloc(t->sessions.n, sizeof(*t->bundles));
	t->list = kb_xcalloc(t->sessions.n, sizeof(*t->list));
	for (size_t i = 0; r == 0 && i < t->sessions.n; i++)
		r = add_trial(t, i, &policies, policy, err);
	return r;
}

static int run_replay(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	const char *policy = kb_args_value(args, "policy"), *since = kb_args_value(args, "since");
	struct kb_connection connection KB_CONNECTION_CLEANUP = {0};
	struct trials trials KB_CLEANUP(trials_finish) = {0};
	struct question q = {.cli = cli, .connection = &connection};
	char *sessions KB_FREE = NULL;
	int r;

	if (!policy) {
		kb_err_set(err, KB_ERR_USAGE, "policy replay needs --policy FILE");
		return kb_err_hint(err, "name the policy to hold the sessions against");
	}
	r = sessions_of(args, since ? "all" : "last", &sessions, err);
	if (r == 0)
		r = kb_connect(&connection, true, err);
	q.ask = (struct kb_ask){.verb = "replay", .sessions = sessions, .since = since};
	if (r == 0)
		r = make_trials(&trials, &connection, &q.ask, policy, err);
	if (r < 0)
		return r;
	q.input = (struct kb_ask_input){.bundles = trials.bundles,
		.n_bundles = trials.n_bundles,
		.trials = trials.list,
		.n_trials = trials.sessions.n};
	return put_question(&q, err);
}

static const struct kb_option replay_options[] = {
	{.name = "policy",
		.arg = "FILE",
		.kind = KB_KIND_POLICY,
		.help = "The policy to hold them against"},
	{.name = "since",
		.arg = "TIME",
		.help = "Only sessions that began at or after this time: 2026-11-23, yesterday, "
			"30d"},
	{0},
};

const struct kb_command kb_cmd_policy_replay = {
	.name = "policy replay",
	.group = KB_GROUP_POLICIES,
	.summary = "Hold recorded sessions against another policy",
	.about = "Tells what recorded sessions (the last, unless told otherwise; all with --since) "
		 "would have met under another policy: still allowed, newly denied, newly allowed, "
		 "cannot tell. Exits 1 when anything is newly denied.",
	.options = replay_options,
	.operands = {{.name = "S", .max = KB_MANY, .kind = KB_KIND_RECORDED}},
	.json = true,
	.man = "kbsup-policy",
	.run = run_replay,
};

/* ---- learn ----------------------------------------------------------------------------------- */

/* What the sessions' commands were made of, each path once, for the base to give as well. The
 * strings stay the list's. */
static const char **all_programs(const struct kb_recorded_list *sessions)
{
	const char **list = NULL;
	size_t n = 0;

	for (size_t i = 0; i < sessions->n; i++)
		for (char **p = sessions->items[i].programs; *p; p++) {
			size_t k = 0;

			while (k < n && strcmp(list[k], *p) != 0)
				k++;
			if (k < n)
				continue;
			list = realloc(list, (n + 2) * sizeof(*list));
			if (!list)
				abort();
			list[n++] = *p;
			list[n] = NULL;
		}
	return list;
}

/* Sessions in one place are learned for that place, whatever the current directory is. */
static void choose_place(struct kb_policies *policies, const struct kb_recorded_list *sessions)
{
	const char *workspace = sessions->items[0].workspace;

	for (size_t i = 1; i < sessions->n; i++)
		if (strcmp(sessions->items[i].workspace, workspace) != 0)
			return;
	if (workspace[0])
		policies->options.workspace = workspace;
}

static int compile_base(struct kb_policies *policies, const struct kb_recorded_list *sessions,
	const char *base, struct kb_buf *out, struct kb_err *err)
{
	const char **programs KB_FREE = all_programs(sessions);
	struct kb_policy *loaded KB_POLICY_CLEANUP = NULL;
	int r;

	choose_place(policies, sessions);
	policies->options.programs = programs;
	r = kb_policies_compile(policies, base, &loaded, out, err);
	policies->options.programs = NULL;
	return r;
}

static int run_learn(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	const char *base = kb_args_value(args, "base"), *name = kb_args_value(args, "name");
	struct kb_connection connection KB_CONNECTION_CLEANUP = {0};
	struct kb_policies policies KB_POLICIES_CLEANUP = {0};
	struct kb_recorded_list recorded KB_CLEANUP(kb_recorded_finish) = {0};
	struct question q = {
		.cli = cli, .connection = &connection, .output = kb_args_value(args, "output")};
	struct kb_buf bundle KB_BUF_CLEANUP;
	char *sessions KB_FREE = NULL;
	int r;

	base = base ? base : LEARNED_BASE;
	kb_buf_init(&bundle, KB_BUNDLE_MAX);
	r = sessions_of(args, "last", &sessions, err);
	if (r == 0)
		r = kb_connect(&connection, true, err);
	q.ask = (struct kb_ask){.verb = "learn", .sessions = sessions};
	if (r == 0)
		r = kb_client_recorded(connection.client, &q.ask, &recorded, err);
	if (r == 0)
		r = kb_policies_init(&policies, err);
	if (r < 0)
		return r;
	kb_policies_look_up_hosts(&policies);
	r = compile_base(&policies, &recorded, base, &bundle, err);
	if (r < 0)
		return r;
	q.input = (struct kb_ask_input){.bundles = &bundle,
		.n_bundles = 1,
		.name = name ? name : LEARNED_NAME,
		.base = base,
		.home = policies.options.home,
		.workspace = policies.options.workspace};
	return put_question(&q, err);
}

static const struct kb_option learn_options[] = {
	{.name = "base",
		.arg = "FILE",
		.kind = KB_KIND_POLICY,
		.help = "The policy that the learned one extends; base unless told otherwise"},
	{.name = "name",
		.arg = "NAME",
		.help = "What the learned policy is called; learned unless told otherwise"},
	{.name = "output",
		.letter = 'o',
		.arg = "FILE",
		.kind = KB_KIND_FILE,
		.help = "Write to this file instead of standard output"},
	{0},
};

const struct kb_command kb_cmd_policy_learn = {
	.name = "policy learn",
	.group = KB_GROUP_POLICIES,
	.summary = "Write the policy that recorded sessions needed",
	.about = "Writes the smallest policy that allows what recorded sessions (the last, unless "
		 "told otherwise) did and were allowed to. What they were denied, and what is used "
		 "of what the base grants, stands in comments.",
	.options = learn_options,
	.operands = {{.name = "S", .max = KB_MANY, .kind = KB_KIND_RECORDED}},
	.json = true,
	.man = "kbsup-policy",
	.run = run_learn,
};

/* ---- explain --record ------------------------------------------------------------------------ */

/* "brave-otter:11873" */
static int parse_record(const char *text, char **ret_session, uint64_t *ret_seq, struct kb_err *err)
{
	const char *colon = strrchr(text, ':');

	if (colon && colon > text && kb_parse_u64(colon + 1, ret_seq) && *ret_seq) {
		*ret_session = kb_xprintf("%.*s", (int)(colon - text), text);
		return 0;
	}
	kb_err_set(err, KB_ERR_USAGE, "'%s' does not name a record", text);
	return kb_err_hint(err, "write SESSION:SEQ, with the number that --json shows as seq");
}

int kb_policy_explain_record(
	const struct kb_cli *cli, const char *record, const char *policy, struct kb_err *err)
{
	struct kb_connection connection KB_CONNECTION_CLEANUP = {0};
	struct trials trials KB_CLEANUP(trials_finish) = {0};
	struct question q = {.cli = cli, .connection = &connection};
	char *session KB_FREE = NULL;
	int r = parse_record(record, &session, &q.input.seq, err);

	if (r == 0)
		r = kb_connect(&connection, true, err);
	q.ask = (struct kb_ask){.verb = "explain", .sessions = session};
	if (r == 0 && policy)
		r = make_trials(&trials, &connection, &q.ask, policy, err);
	if (r < 0)
		return r;
	q.input.bundles = trials.bundles;
	q.input.n_bundles = trials.n_bundles;
	return put_question(&q, err);
}
