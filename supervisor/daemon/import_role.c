/* Role importer: a log of strace, which is anybody's bytes, is read in a process of its own, and
 * its records go to the store as those of a machine do: in blocks, of which a bounded number is not
 * yet acknowledged. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "audit/audit.h"
#include "proto/role_error.h"
#include "role_io.h"
#include "roles.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/util.h"

#define BLOCK_RECORDS 4096u
#define WINDOW	      (16u * BLOCK_RECORDS) /* records on their way to the store */
#define ARGV_MAX      1024u		    /* words of a command that its session is shown with */

struct importer {
	uint8_t id[KB_ULID_SIZE];
	uint64_t start;
	FILE *log;
	int store;
	struct kb_block block;
	uint64_t sent, acked; /* last seq of each */
	uint32_t first_pid;   /* 0: no record yet */
	uint64_t last_time;
	int32_t exit_code;
	uint32_t signal;
	struct kb_strace_stats stats;
};

/* ---- To the store ---------------------------------------------------------------------------- */

static int take_ack(struct importer *im, struct kb_err *err)
{
	KB_FREE uint8_t *data = NULL;
	KB_CLOSE int fd = -1;
	Kb__Role__StoreToLink *msg;
	size_t len;
	int r = kb_role_receive(im->store, &data, &len, &fd, err);

	if (r < 0)
		return kb_err_prefix(err, "the store");
	msg = kb__role__store_to_link__unpack(NULL, len, data);
	if (!msg || msg->body_case != KB__ROLE__STORE_TO_LINK__BODY_ACK)
		r = kb_err_set(err, KB_ERR_INVALID, "the store's message is malformed");
	else if (msg->ack->discarded)
		r = kb_err_set(err, KB_ERR_FAILED, "the records cannot be kept");
	else
		im->acked = msg->ack->seq;
	if (msg)
		kb__role__store_to_link__free_unpacked(msg, NULL);
	return r;
}

static int flush(struct importer *im, struct kb_err *err)
{
	Kb__Role__AppendBlock append = KB__ROLE__APPEND_BLOCK__INIT;
	Kb__Role__LinkToStore msg = KB__ROLE__LINK_TO_STORE__INIT;
	int r = 0;

	if (im->block.count == 0)
		return 0;
	append.session = (ProtobufCBinaryData){.data = im->id, .len = sizeof(im->id)};
	append.first_seq = im->sent + 1;
	append.count = im->block.count;
	append.block = (ProtobufCBinaryData){
		.data = kb_buf_data(&im->block.buf), .len = kb_buf_len(&im->block.buf)};
	msg.body_case = KB__ROLE__LINK_TO_STORE__BODY_APPEND;
	msg.append = &append;
	while (r == 0 && im->sent - im->acked >= WINDOW)
		r = take_ack(im, err);
	if (r == 0)
		r = kb_role_send(im->store, &msg.base, err);
	im->sent += im->block.count;
	kb_block_reset(&im->block);
	return r;
}

/* ---- Records --------------------------------------------------------------------------------- */

static int say_begins(const struct kb_record *first, struct kb_err *err)
{
	Kb__Role__ImportBegins begins = KB__ROLE__IMPORT_BEGINS__INIT;
	Kb__Role__FromImporter msg = KB__ROLE__FROM_IMPORTER__INIT;
	ProtobufCBinaryData argv[ARGV_MAX];

	begins.started = first->time;
	begins.argv = argv;
	for (size_t i = 0; i < first->argc && i < ARGV_MAX; i++)
		argv[begins.n_argv++] = (ProtobufCBinaryData){
			.data = (uint8_t *)first->argv[i].data, .len = first->argv[i].len};
	msg.body_case = KB__ROLE__FROM_IMPORTER__BODY_BEGINS;
	msg.begins = &begins;
	return kb_role_send(KB_ROLE_FD, &msg.base, err);
}

static int on_record(const struct kb_record *record, void *arg, struct kb_err *err)
{
	struct importer *im = arg;
	int r = 0;

	if (!im->first_pid) {
		im->first_pid = record->pid;
		r = say_begins(record, err);
	}
	if (record->event == KB_EVENT_EXIT && record->pid == im->first_pid) {
		im->exit_code = record->exit_code;
		im->signal = record->signal;
	}
	im->last_time = KB_MAX(im->last_time, record->time);
	if (r == 0 && im->block.count >= BLOCK_RECORDS)
		r = flush(im, err);
	if (r < 0)
		return r;
	r = kb_block_add(&im->block, record, err);
	if (r != -KB_ERR_LIMIT)
		return r;
	r = flush(im, err);
	return r < 0 ? r : kb_block_add(&im->block, record, err);
}

static int import(struct importer *im, struct kb_err *err)
{
	int r = kb_strace_read(im->log, im->start, on_record, im, &im->stats, err);

	if (r == 0 && !im->first_pid) {
		kb_err_set(err, KB_ERR_INVALID, "the log holds no call of strace's");
		return kb_err_hint(
			err, "one is made by: strace -f -ttt -y -s 4096 -o FILE COMMAND");
	}
	if (r == 0)
		r = flush(im, err);
	while (r == 0 && im->acked < im->sent)
		r = take_ack(im, err);
	return r;
}

/* ---- Life ------------------------------------------------------------------------------------ */

static int receive(Kb__Role__ToImporter__BodyCase want, Kb__Role__ToImporter **ret, int *ret_fd,
	struct kb_err *err)
{
	KB_FREE uint8_t *data = NULL;
	KB_CLOSE int fd = -1;
	Kb__Role__ToImporter *msg;
	size_t len;
	int r = kb_role_receive(KB_ROLE_FD, &data, &len, &fd, err);

	if (r < 0)
		return r;
	msg = kb__role__to_importer__unpack(NULL, len, data);
	if (!msg || msg->body_case != want || fd < 0) {
		if (msg)
			kb__role__to_importer__free_unpacked(msg, NULL);
		return kb_err_set(err, KB_ERR_INVALID, "main's message is malformed");
	}
	*ret = msg;
	*ret_fd = kb_steal_fd(&fd);
	return 0;
}

static int take_orders(struct importer *im, struct kb_err *err)
{
	Kb__Role__ToImporter *msg;
	int fd = -1, r = receive(KB__ROLE__TO_IMPORTER__BODY_LOG, &msg, &fd, err);

	if (r < 0)
		return r;
	if (msg->log->session.len == sizeof(im->id))
		memcpy(im->id, msg->log->session.data, sizeof(im->id));
	im->start = msg->log->start;
	kb__role__to_importer__free_unpacked(msg, NULL);
	im->log = fdopen(fd, "r");
	if (!im->log) {
		close(fd);
		return kb_err_nomem(err);
	}
	r = receive(KB__ROLE__TO_IMPORTER__BODY_INTO, &msg, &im->store, err);
	if (r == 0)
		kb__role__to_importer__free_unpacked(msg, NULL);
	return r;
}

static int say_done(const struct importer *im, const struct kb_err *why)
{
	Kb__Role__ImportDone done = KB__ROLE__IMPORT_DONE__INIT;
	Kb__Role__FromImporter msg = KB__ROLE__FROM_IMPORTER__INIT;
	Kb__Role__RoleError error;

	if (why) {
		kb_role_error_fill(&error, why);
		done.error = &error;
	}
	done.last_seq = im->sent;
	done.ended = im->last_time;
	done.exit_code = im->exit_code;
	done.has_signal = im->signal != 0;
	done.signal = im->signal;
	done.lines = im->stats.lines;
	done.foreign = im->stats.foreign;
	done.cut = im->stats.cut;
	msg.body_case = KB__ROLE__FROM_IMPORTER__BODY_DONE;
	msg.done = &done;
	return kb_role_send(KB_ROLE_FD, &msg.base, NULL);
}

int kb_import_role(void)
{
	struct importer im = {.store = -1};
	struct kb_err err;
	int r;

	signal(SIGPIPE, SIG_IGN);
	kb_block_init(&im.block);
	r = take_orders(&im, &err);
	if (r == 0)
		r = import(&im, &err);
	if (say_done(&im, r < 0 ? &err : NULL) < 0)
		kb_log_debug("main does not listen any more");
	kb_block_finish(&im.block);
	if (im.log)
		fclose(im.log);
	kb_close(&im.store);
	return 0;
}
