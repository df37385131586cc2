/* kbsup audit prune: what of the store stays. */
#include "connect.h"
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
