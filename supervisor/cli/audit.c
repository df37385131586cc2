/* kbsup audit …, kbsup logs: questions to the store, answered by a reader process that writes
 * straight to our standard output. */
#include <string.h>

#include "audit/audit.h"
#include "connect.h"
#include "supervisor/base/buf.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/str.h"
#include "verbs.h"

#define EXPR_MAX   (64u << 10)
#define ANCHOR_MAX (2u << 20)

static const char *session_or(const struct kb_args *args, const char *fallback)
{
	return args->n_operands ? args->operands[0] : fallback;
}

#define UTC_OPTION                                                                                 \
	{                                                                                          \
		.name = "utc", .help = "Times in UTC instead of local time"                        \
	}

static const struct kb_option utc_options[] = {UTC_OPTION, {0}};

/* ---- sessions -------------------------------------------------------------------------------- */

static int run_sessions(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_ask question = {.verb = "sessions", .utc = kb_args_has(args, "utc")};

	return kb_ask_show(cli, &question, STDOUT_FILENO, err);
}

const struct kb_command kb_cmd_audit_sessions = {
	.name = "audit sessions",
	.group = KB_GROUP_AUDIT,
	.summary = "List every recorded session and how it ended",
	.about = "Lists every session of the store, oldest first: what was run, when, by whom, "
		 "where, "
		 "and how it ended.",
	.options = utc_options,
	.json = true,
	.man = "kbsup-audit",
	.run = run_sessions,
};

/* ---- query ----------------------------------------------------------------------------------- */

/* The words of an expression that was given without quotes, with single spaces. */
static char *join(char *const *words, size_t n, struct kb_err *err)
{
	struct kb_buf text KB_BUF_CLEANUP;
	int r = 0;

	kb_buf_init(&text, EXPR_MAX);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = kb_buf_printf(&text, err, "%s%s", i ? " " : "", words[i]);
	return r == 0 ? kb_buf_steal_string(&text) : NULL;
}

/* [S] [EXPR]: a single word that could be a session's name is one; expressions hold an operator. */
static int split(
	const struct kb_args *args, const char **ret_session, char **ret_expr, struct kb_err *err)
{
	size_t first = args->n_operands && kb_name_valid(args->operands[0]) &&
		       !(args->n_operands > 1 &&
			       strpbrk(args->operands[1], "=<>~!") == args->operands[1]) &&
		       strcmp(args->operands[0], "not");

	*ret_session = first ? args->operands[0] : NULL;
	if (args->n_operands == first)
		return 0;
	*ret_expr = join(args->operands + first, args->n_operands - first, err);
	return *ret_expr ? 0 : -KB_ERR_LIMIT;
}

/* A mistake in the expression is shown with its place where somebody reads; the error that follows
 * says it in one line. */
static int check_expression(const struct kb_cli *cli, const char *expr, struct kb_err *err)
{
	struct kb_buf screen KB_BUF_CLEANUP;
	int r;

	kb_buf_init(&screen, EXPR_MAX * 2);
	r = expr ? kb_query_check(expr, &screen, err) : 0;
	if (r < 0 && cli->err_tty)
		fwrite(kb_buf_data(&screen), 1, kb_buf_len(&screen), stderr);
	return r;
}

static int run_query(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_ask question = {
		.verb = "query",
		.since = kb_args_value(args, "since"),
		.until = kb_args_value(args, "until"),
		.limit = kb_args_count(args, "limit", 0),
		.utc = kb_args_has(args, "utc"),
	};
	char *expr KB_FREE = NULL;
	int r = split(args, &question.sessions, &expr, err);

	if (r == 0)
		r = check_expression(cli, expr, err);
	if (r < 0)
		return r;
	question.expr = expr;
	return kb_ask_show(cli, &question, STDOUT_FILENO, err);
}

static const struct kb_option query_options[] = {
	{.name = "since",
		.arg = "TIME",
		.help = "Only from this time on: 2026-11-23, yesterday, 2h"},
	{.name = "until", .arg = "TIME", .help = "Only up to this time"},
	{.name = "limit",
		.letter = 'n',
		.arg = "N",
		.kind = KB_KIND_COUNT,
		.help = "At most this many records"},
	UTC_OPTION,
	{0},
};

const struct kb_command kb_cmd_audit_query = {
	.name = "audit query",
	.group = KB_GROUP_AUDIT,
	.summary = "Print the records that an expression describes",
	.about = "Prints the records of a session (the last, unless told otherwise; all for every "
		 "one) for which an expression holds, such as\n"
		 "  event = open and path ~ \"/home/*/.ssh/**\" and decision = denied\n"
		 "Fields: time event syscall lane pid ppid tid exe comm argv path path2 flags host "
		 "ip port secret bytes result errno signal decision outcome rule session agent "
		 "machine seq. Operators: = != < <= > >= ~ in and or not ( ).",
	.options = query_options,
	.operands = {{.name = "S", .max = 1, .kind = KB_KIND_RECORDED},
		{.name = "EXPR", .max = KB_MANY, .kind = KB_KIND_EXPR}},
	.json = true,
	.man = "kbsup-audit",
	.run = run_query,
};

/* ---- tree ------------------------------------------------------------------------------------ */

static int run_tree(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_ask question = {
		.verb = "tree",
		.sessions = session_or(args, "last"),
		.around_pid = (uint32_t)KB_MIN(kb_args_count(args, "around", 0), UINT32_MAX),
		.utc = kb_args_has(args, "utc"),
	};

	return kb_ask_show(cli, &question, STDOUT_FILENO, err);
}

static const struct kb_option tree_options[] = {
	{.name = "around",
		.arg = "PID",
		.kind = KB_KIND_COUNT,
		.help = "Only this process, those that led to it, and those it started"},
	UTC_OPTION,
	{0},
};

const struct kb_command kb_cmd_audit_tree = {
	.name = "audit tree",
	.group = KB_GROUP_AUDIT,
	.summary = "Show the processes of a session and what each did",
	.about = "Shows the processes of a session (the last, unless told otherwise) as a tree, "
		 "with "
		 "what each of them did.",
	.options = tree_options,
	.operands = {{.name = "S", .max = 1, .kind = KB_KIND_RECORDED}},
	.json = true,
	.man = "kbsup-audit",
	.run = run_tree,
};

/* ---- verify ---------------------------------------------------------------------------------- */

static int run_verify(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_ask question = {.verb = "verify", .sessions = session_or(args, "all")};
	struct kb_buf anchor KB_BUF_CLEANUP;
	char *text KB_FREE = NULL;
	int r = 0;

	if (kb_args_has(args, "export-anchor")) {
		question.verb = "anchor";
		return kb_ask_show(cli, &question, STDOUT_FILENO, err);
	}
	kb_buf_init(&anchor, ANCHOR_MAX);
	if (kb_args_has(args, "anchor")) {
		r = kb_file_read(kb_args_value(args, "anchor"), &anchor, err);
		if (r == 0 && !(text = kb_buf_steal_string(&anchor)))
			r = kb_err_nomem(err);
		question.expr = text; /* the question that verify answers: is this still so? */
	}
	return r < 0 ? r : kb_ask_show(cli, &question, STDOUT_FILENO, err);
}

static const struct kb_option verify_options[] = {
	{.name = "export-anchor", .help = "Print the newest signed heads, to be kept elsewhere"},
	{.name = "anchor",
		.arg = "FILE",
		.kind = KB_KIND_FILE,
		.help = "Hold the store against heads that were exported before"},
	{0},
};

const struct kb_command kb_cmd_audit_verify = {
	.name = "audit verify",
	.group = KB_GROUP_AUDIT,
	.summary = "Check that the records are those that were written",
	.options = verify_options,
	.about = "Checks the chain of hashes over the records of a session (all, unless told "
		 "otherwise), and the signed heads. Exits 0 when they are intact, 1 when they were "
		 "tampered with, 2 when "
		 "they "
		 "cannot be read, 3 when they are intact but incomplete.",
	.operands = {{.name = "S", .max = 1, .kind = KB_KIND_RECORDED}},
	.json = true,
	.man = "kbsup-audit",
	.run = run_verify,
};

/* ---- logs ------------------------------------------------------------------------------------ */

static int run_logs(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_ask question = {
		.verb = "query",
		.sessions = session_or(args, "last"),
		.follow = kb_args_has(args, "follow"),
		.limit = kb_args_count(args, "limit", 0),
		.utc = kb_args_has(args, "utc"),
	};

	return kb_ask_show(cli, &question, STDOUT_FILENO, err);
}

static const struct kb_option logs_options[] = {
	{.name = "follow",
		.letter = 'f',
		.help = "Go on as records arrive, until the session ends"},
	{.name = "limit",
		.letter = 'n',
		.arg = "N",
		.kind = KB_KIND_COUNT,
		.help = "At most this many records"},
	UTC_OPTION,
	{0},
};

const struct kb_command kb_cmd_logs = {
	.name = "logs",
	.group = KB_GROUP_SESSIONS,
	.summary = "Print a session's records, also as they arrive",
	.about =
		"Prints the records of a session (the last, unless told otherwise) in their order.",
	.options = logs_options,
	.operands = {{.name = "S", .max = 1, .kind = KB_KIND_RECORDED}},
	.json = true,
	.man = "kbsup-session",
	.run = run_logs,
};
