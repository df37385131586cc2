/* QMP lines as a broken or hostile QEMU could send them: the parser, and the client fed the same
 * bytes as a stream, with a command waiting. */
#include <sys/socket.h>
#include <unistd.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/util.h"
#include "vmctl/qmp.h"

static void on_reply(const json_t *ret, const struct kb_err *err, void *arg)
{
	if ((ret != NULL) == (err != NULL))
		abort();
	++*(int *)arg;
}

static void on_closed(struct kb_qmp *q, const struct kb_err *why, void *arg)
{
	kb_loop_stop(arg);
}

static void feed_client(const uint8_t *data, size_t size)
{
	static const struct kb_qmp_ops ops = {.closed = on_closed};
	struct kb_loop *loop = NULL;
	struct kb_qmp *q = NULL;
	int pair[2], replies = 0;

	if (size > 65536 || kb_loop_create(&loop, NULL) < 0)
		return;
	if (kb_fd_socketpair(false, pair, NULL) < 0 ||
		kb_qmp_create(loop, pair[0], &ops, loop, &q, NULL) < 0)
		abort();
	kb_qmp_count_from(q, 0);
	kb_qmp_execute(q, "query-status", NULL, -1, 50, on_reply, &replies, NULL);
	if (kb_fd_write_all(pair[1], data, size, NULL) < 0)
		abort();
	shutdown(pair[1], SHUT_WR);
	kb_loop_run(loop, NULL);
	/* The stream ended, so the command was answered one way or the other, once. */
	if (replies != 1)
		abort();
	kb_qmp_destroy(q);
	close(pair[1]);
	kb_loop_destroy(loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kb_qmp_msg msg;

	if (kb_qmp_parse((const char *)data, size, &msg, NULL) == 0)
		json_decref(msg.root);
	feed_client(data, size);
	return 0;
}
