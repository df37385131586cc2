/* kbsup audit prune, audit import: what leaves the store, and what comes in from elsewhere. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "connect.h"
#include "supervisor/base/os.h"
#include "verbs.h"

/* 0 stands for "no bound" further on; whoever says 0 means nothing. */
static uint64_t bound(uint64_t given)
{
	return given ? given : 1;
}

static int read_bounds(
	const struct kb_args *args, uint64_t *ret_keep, uint64_t *ret_size, struct kb_err *err)
{
	const char *keep = kb_args_value(args, "keep"), *size = kb_args_value(args, "max-size");
	uint64_t bytes = 0;
	int64_t ns = 0;

	if (!keep && !size) {
		kb_err_set(err, KB_ERR_USAGE, "prune needs to be told what may stay");
		return kb_err_hint(err, "kbsup audit prune --keep 30d, or --max-size 10G, or both");
	}
	if (keep && !kb_parse_duration(keep, &ns)) {
		kb_err_set(err, KB_ERR_USAGE, "'%s' is not a duration", keep);
		return kb_err_hint(err, "use 30d, 12h, 90m");
	}
	if (size && !kb_parse_size(size, &bytes)) {
		kb_err_set(err, KB_ERR_USAGE, "'%s' is not a size", size);
		return kb_err_hint(err, "use 10G, 500M");
	}
	*ret_keep = keep ? bound((uint64_t)ns) : 0;
	*ret_size = size ? bound(bytes) : 0;
	return 0;
}

static int show(const struct kb_cli *cli, const struct kb_dropped *d, struct kb_err *err)
{
	char sessions[KB_WORDS_MAX], records[KB_WORDS_MAX], bytes[KB_WORDS_MAX], left[KB_WORDS_MAX];

	if (cli->json)
		return kb_json_print(cli,
			json_pack("{s:I, s:I, s:I, s:I}", "sessions", (json_int_t)d->sessions,
				"records", (json_int_t)d->records, "bytes", (json_int_t)d->bytes,
				"left_bytes", (json_int_t)d->left_bytes),
			err);
	kb_format_count(sessions, d->sessions);
	kb_format_count(records, d->records);
	kb_format_size(bytes, d->bytes);
	kb_format_size(left, d->left_bytes);
	if (d->sessions == 0)
		printf("nothing to drop; %s of records stay\n", left);
	else
		printf("dropped %s session%s with %s records, %s; %s of records stay\n", sessions,
			d->sessions == 1 ? "" : "s", records, bytes, left);
	return 0;
}

static int run_prune(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_connection connection KB_CONNECTION_CLEANUP = {0};
	struct kb_dropped dropped;
	uint64_t keep = 0, size = 0;
	int r = read_bounds(args, &keep, &size, err);

	if (r == 0)
		r = kb_connect(&connection, true, err);
	if (r == 0)
		r = kb_client_prune(connection.client, keep, size, &dropped, err);
	return r < 0 ? r : show(cli, &dropped, err);
}

static const struct kb_option prune_options[] = {
	{.name = "keep",
		.arg = "DURATION",
		.help = "Drop sessions that ended longer ago: 30d, 12h"},
	{.name = "max-size",
		.arg = "SIZE",
		.help = "Drop the oldest sessions until all have at most this: 10G, 500M"},
	{0},
};

const struct kb_command kb_cmd_audit_prune = {
	.name = "audit prune",
	.group = KB_GROUP_AUDIT,
	.summary = "Drop old sessions from the store",
	.about =
		"Drops whole ended sessions from the store, oldest first: those that ended before "
		"--keep, and as many as it takes to get under --max-size. Sessions that run are "
		"never dropped. A signed tombstone stays of each, which `audit sessions` shows, so "
		"that `audit verify` can tell it from one that was taken away.",
	.options = prune_options,
	.json = true,
	.man = "kbsup-audit",
	.run = run_prune,
};

/* ---- import ---------------------------------------------------------------------------------- */

static int show_import(const struct kb_cli *cli, const struct kb_imported *d, struct kb_err *err)
{
	char records[KB_WORDS_MAX], lines[KB_WORDS_MAX], n[KB_WORDS_MAX];

	if (cli->json)
		return kb_json_print(cli,
			json_pack("{s:s, s:s, s:I, s:I, s:I, s:I}", "id", d->id, "name", d->name,
				"records", (json_int_t)d->records, "lines", (json_int_t)d->lines,
				"foreign", (json_int_t)d->foreign, "cut", (json_int_t)d->cut),
			err);
	kb_format_count(records, d->records);
	kb_format_count(lines, d->lines);
	printf("session %s: %s records of %s lines\n", d->name, records, lines);
	kb_format_count(n, d->foreign);
	if (d->foreign)
		printf("  %s lines are not strace's and were left out\n", n);
	kb_format_count(n, d->cut);
	if (d->cut)
		printf("  %s records hold strings that strace had cut short; -s 4096 keeps them\n",
			n);
	printf("  look at it: kbsup audit tree %s\n", d->name);
	return 0;
}

static int open_log(const char *path, int *ret, uint64_t *ret_start, struct kb_err *err)
{
	KB_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return kb_err_sys(err, errno, "%s could not be opened", path);
	if (S_ISDIR(st.st_mode))
		return kb_err_sys(err, EISDIR, "%s could not be read", path);
	/* For lines without a date: the day it was written. */
	*ret_start = (uint64_t)kb_os_mtime(&st);
	*ret = kb_steal_fd(&fd);
	return 0;
}

static int run_import(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_connection connection KB_CONNECTION_CLEANUP = {0};
	struct kb_imported imported;
	KB_CLOSE int fd = -1;
	uint64_t start = 0;
	int r = open_log(args->operands[1], &fd, &start, err);

	if (r == 0)
		r = kb_connect(&connection, true, err);
	if (r == 0)
		r = kb_client_import(
			connection.client, kb_args_value(args, "name"), start, fd, &imported, err);
	return r < 0 ? r : show_import(cli, &imported, err);
}

static const struct kb_option import_options[] = {
	{.name = "name", .arg = "NAME", .help = "Call the session so, instead of two random words"},
	{0},
};

const struct kb_command kb_cmd_audit_import = {
	.name = "audit import",
	.group = KB_GROUP_AUDIT,
	.summary = "Make a session of a log that strace wrote",
	.about =
		"Reads a log of `strace -f` (best with -ttt -y -s 4096) and stores it as a session "
		"that can be asked, shown, reported and verified like any other. What strace did "
		"not write is unknown; nothing was enforced, so nothing is denied.",
	.options = import_options,
	.operands =
		{{.name = "FORMAT", .min = 1, .max = 1, .kind = KB_KIND_WORD, .words = "strace"},
			{.name = "FILE", .min = 1, .max = 1, .kind = KB_KIND_FILE}},
	.json = true,
	.man = "kbsup-audit",
	.run = run_import,
};
