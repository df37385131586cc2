/* kbsup audit timeline, stats, report, export: whole sessions on one page or in one stream. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "connect.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/util.h"
#include "verbs.h"

/* To the file of --output, which appears whole or not at all, or to standard output. */
static int ask_into(
	const struct kb_cli *cli, struct kb_ask *question, const char *path, struct kb_err *err)
{
	char *beside KB_FREE = NULL;
	int fd KB_CLOSE = -1;
	int r;

	if (!path || !strcmp(path, "-"))
		return kb_ask_show(cli, question, STDOUT_FILENO, err);
	beside = kb_asprintf("%s.part", path);
	if (!beside)
		return kb_err_nomem(err);
	fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return kb_err_sys(err, errno, "%s could not be written", beside);
	r = kb_ask_show(cli, question, fd, err);
	if (r == 0 && rename(beside, path) < 0)
		r = kb_err_sys(err, errno, "%s could not be written", path);
	if (r != 0)
		unlink(beside);
	return r;
}

static const char *session_or(const struct kb_args *args, const char *fallback)
{
	return args->n_operands ? args->operands[0] : fallback;
}

#define UTC_OPTION                                                                                 \
	{                                                                                          \
		.name = "utc", .help = "Times in UTC instead of local time"                        \
	}
#define OUTPUT_OPTION                                                                              \
	{                                                                                          \
		.name = "output", .letter = 'o', .arg = "FILE", .kind = KB_KIND_FILE,              \
		.help = "Write to FILE instead of standard output"                                 \
	}

static const struct kb_option utc_options[] = {UTC_OPTION, {0}};

/* ---- timeline, stats ------------------------------------------------------------------------- */

static int run_timeline(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_ask question = {.verb = "timeline",
		.sessions = session_or(args, "last"),
		.utc = kb_args_has(args, "utc")};

	return kb_ask_show(cli, &question, STDOUT_FILENO, err);
}

const struct kb_command kb_cmd_audit_timeline = {
	.name = "audit timeline",
	.group = KB_GROUP_AUDIT,
	.summary = "Show the events of a session in order",
	.about = "Shows the events of a session (the last, unless told otherwise) in order, with "
		 "the time since its start. Runs of reading by one process are one line.",
	.options = utc_options,
	.operands = {{.name = "S", .max = 1, .kind = KB_KIND_RECORDED}},
	.json = true,
	.man = "kbsup-audit",
	.run = run_timeline,
};

static int run_stats(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_ask question = {.verb = "stats",
		.sessions = session_or(args, "all"),
		.utc = kb_args_has(args, "utc")};

	return kb_ask_show(cli, &question, STDOUT_FILENO, err);
}

const struct kb_command kb_cmd_audit_stats = {
	.name = "audit stats",
	.group = KB_GROUP_AUDIT,
	.summary = "Show what the store holds, costs and lost",
	.about = "Shows sizes, rates and losses of the store; for one session also its kinds of "
		 "events and its busiest processes.",
	.options = utc_options,
	.operands = {{.name = "S", .max = 1, .kind = KB_KIND_RECORDED}},
	.json = true,
	.man = "kbsup-audit",
	.run = run_stats,
};

/* ---- report, export -------------------------------------------------------------------------- */

static int run_report(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	const char *format = kb_args_value(args, "format");
	struct kb_ask question = {.verb = "report",
		.sessions = session_or(args, "last"),
		.format = format ? format : "html",
		.utc = kb_args_has(args, "utc")};

	return ask_into(cli, &question, kb_args_value(args, "output"), err);
}

static const struct kb_option report_options[] = {
	OUTPUT_OPTION,
	{.name = "format",
		.arg = "FORMAT",
		.kind = KB_KIND_WORD,
		.words = "html|md",
		.help = "HTML on one self-contained page (the default), or Markdown"},
	UTC_OPTION,
	{0},
};

const struct kb_command kb_cmd_audit_report = {
	.name = "audit report",
	.group = KB_GROUP_AUDIT,
	.summary = "Write a session as one page to read and keep",
	.about = "Writes a session (the last, unless told otherwise) as one self-contained HTML "
		 "page, or as Markdown: summary, denials with their rules, timeline, processes, "
		 "files, network.",
	.options = report_options,
	.operands = {{.name = "S", .max = 1, .kind = KB_KIND_RECORDED}},
	.man = "kbsup-audit",
	.run = run_report,
};

static int run_export(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	const char *format = kb_args_value(args, "format");
	struct kb_ask question = {.verb = "export",
		.sessions = session_or(args, "last"),
		.format = format ? format : "jsonl"};

	return ask_into(cli, &question, kb_args_value(args, "output"), err);
}

static const struct kb_option export_options[] = {
	OUTPUT_OPTION,
	{.name = "format",
		.arg = "FORMAT",
		.kind = KB_KIND_WORD,
		.words = "jsonl|ocsf|otlp",
		.help = "JSON Lines (the default), OCSF events, or OTLP logs"},
	{0},
};

const struct kb_command kb_cmd_audit_export = {
	.name = "audit export",
	.group = KB_GROUP_AUDIT,
	.summary = "Write every record for another system",
	.about = "Writes every record of a session (the last, unless told otherwise; all for every "
		 "one) as JSON Lines, as OCSF events, or as OTLP logs.",
	.options = export_options,
	.operands = {{.name = "S", .max = 1, .kind = KB_KIND_RECORDED}},
	.man = "kbsup-audit",
	.run = run_export,
};
