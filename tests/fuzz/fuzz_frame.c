/* Any bytes on a channel: whole frames are handed on, everything else ends it with a reason. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/frame.h"
#include "supervisor/base/util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_MAX (64u << 10) /* fits the socket's buffer: nobody else drains it while we write */

struct state {
	struct kb_loop *loop;
	struct kb_channel *ch;
	int closed;
};

static int on_message(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len,
	int fd, void *arg, struct kb_err *err)
{
	if (fd >= 0)
		abort(); /* none was sent */
	/* Echo: the queue's bound is reached, too. */
	return kb_channel_send_bytes(ch, stream, data, len, err);
}

static void on_closed(struct kb_channel *ch, const struct kb_err *why, void *arg)
{
	struct state *s = arg;

	if (s->closed++ || (why && (why->code == 0 || why->msg[0] == '\0')))
		abort();
	kb_loop_stop(s->loop);
}

static void on_data(struct kb_stream *st, const uint8_t *data, size_t len, void *arg)
{
	if (kb_stream_write(st, data, len, NULL) >= 0)
		kb_stream_consumed(st, len);
}

static void on_eof(struct kb_stream *st, void *arg)
{
	kb_stream_eof(st, NULL);
}

static const struct kb_channel_ops ops = {on_message, on_closed};
static const struct kb_stream_ops stream_ops = {on_data, NULL, on_eof};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct state s = {0};
	struct kb_stream *st;
	int pair[2];

	signal(SIGPIPE, SIG_IGN);
	if (kb_loop_create(&s.loop, NULL) < 0 || kb_fd_socketpair(false, pair, NULL) < 0 ||
		kb_channel_create(s.loop, pair[0], &ops, &s, &s.ch, NULL) < 0)
		abort();
	for (uint32_t id = 1; id <= 3; id++)
		if (kb_stream_open(s.ch, id, &stream_ops, NULL, &st, NULL) < 0)
			abort();
	if (kb_fd_write_all(pair[1], data, KB_MIN(size, (size_t)INPUT_MAX), NULL) < 0)
		abort();
	close(pair[1]);
	kb_loop_run(s.loop, NULL);
	if (s.closed != 1)
		abort();
	kb_channel_destroy(s.ch);
	kb_loop_destroy(s.loop);
	return 0;
}
