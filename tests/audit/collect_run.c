/* Runs a command under the collector, without a container: the tool the comparisons with strace are
 * made with.
 *
 *	collect_run [--bpf] [-o FILE] COMMAND [ARG…]
 *
 * --bpf: lane bpf, in a pid namespace of its own, instead of lane notify.
 * With -o each record becomes a line of tab-separated, escaped fields: event, pid, parent, outcome,
 * errno, decision, exit code, flags in hex, mode in octal, path, path_arg, path2, path2_arg,
 * exe, then the arguments. Without it records are encoded into blocks, as a session does, and
 * thrown away. The command's exit status is passed through.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"
#include "supervisor/base/str.h"

#define BLOCK_BYTES 65536u

struct sink {
	FILE *out;
	struct kb_block block;
};

static void put_bytes(FILE *out, struct kb_bytes bytes)
{
	char *text = kb_escape_dup(bytes.data, bytes.data ? bytes.len : 0);

	fprintf(out, "\t%s", text ? text : "");
	free(text);
}

static void print_record(const struct kb_record *r, void *arg)
{
	struct sink *sink = arg;

	fprintf(sink->out, "%s\t%u\t%u\t%d\t%d\t%d\t%d\t%x\t%o", kb_event_name(r->event), r->pid,
		r->ppid, r->outcome, r->errnum, r->decision, r->has_exit_code ? r->exit_code : -1,
		r->flags, r->mode);
	put_bytes(sink->out, r->path);
	put_bytes(sink->out, r->path_arg);
	put_bytes(sink->out, r->path2);
	put_bytes(sink->out, r->path2_arg);
	put_bytes(sink->out, r->exe);
	for (size_t i = 0; i < r->argc; i++)
		put_bytes(sink->out, r->argv[i]);
	fputc('\n', sink->out);
}

static void encode_record(const struct kb_record *r, void *arg)
{
	struct sink *sink = arg;

	kb_block_add(&sink->block, r, NULL);
	if (kb_buf_len(&sink->block.buf) >= BLOCK_BYTES) {
		kb_block_finish(&sink->block);
		kb_block_init(&sink->block);
	}
}

static int run(void *arg)
{
	char **argv = arg;

	execvp(argv[0], argv);
	perror(argv[0]);
	return 127;
}

int main(int argc, char **argv)
{
	struct sink sink = {0};
	struct live live = {.on_record = encode_record, .arg = &sink};
	int at = 1, status;

	if (argc > 2 && strcmp(argv[at], "--bpf") == 0) {
		live.lane_bpf = true;
		at++;
	}
	if (argc > at + 2 && strcmp(argv[at], "-o") == 0) {
		sink.out = fopen(argv[at + 1], "we");
		live.on_record = print_record;
		at += 2;
		if (!sink.out) {
			perror(argv[at - 1]);
			return 99;
		}
	}
	if (argc <= at) {
		fprintf(stderr, "collect_run [--bpf] [-o FILE] COMMAND [ARG…]\n");
		return 2;
	}
	kb_block_init(&sink.block);
	status = live_run(&live, LIVE_POLICY(LIVE_FILES LIVE_RECORD), run, argv + at);
	if (live.failure[0])
		fprintf(stderr, "collect_run: %s\n", live.failure);
	kb_block_finish(&sink.block);
	if (sink.out && fclose(sink.out) != 0) {
		perror("output");
		return 99;
	}
	live_finish(&live);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
