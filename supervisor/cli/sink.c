/* Theory of operation.
 *
 * A terminal is opened a second time: the new description is ours alone and can be non-blocking.
 * A pipe or socket cannot be, so it is asked with poll(2) before every write, and a write is at
 * most PIPE_BUF bytes: that much a pipe that reports POLLOUT takes without blocking (pipe(7)).
 * Files and devices such as /dev/null are always ready and cannot be watched by epoll; poll(2)
 * says so, and the loop is never asked.
 */
#include "sink.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/base/util.h"

#define DEVICE_NAME_MAX 64
#define WRITES_PER_WAKE 64 /* for fairness to the rest of the loop */

static int open_again(int fd)
{
	char name[DEVICE_NAME_MAX];

	if (!isatty(fd) || ttyname_r(fd, name, sizeof(name)) != 0)
		return -1;
	return open(name, O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
}

static void on_writable(int fd, unsigned events, void *arg);

int kb_sink_init(struct kb_sink *sink, struct kb_loop *loop, int fd, const struct kb_sink_ops *ops,
	void *arg, struct kb_err *err)
{
	struct stat st;
	int again = open_again(fd);

	*sink = (struct kb_sink){
		.fd = again >= 0 ? again : fd, .own = again >= 0, .ops = ops, .arg = arg};
	kb_buf_init(&sink->waiting, KB_SINK_MAX);
	sink->regular = fstat(sink->fd, &st) == 0 && S_ISREG(st.st_mode);
	return kb_loop_io(loop, sink->fd, 0, on_writable, sink, &sink->source, err);
}

void kb_sink_finish(struct kb_sink *sink)
{
	kb_source_destroy(sink->source);
	if (sink->own)
		kb_close(&sink->fd);
	kb_buf_finish(&sink->waiting);
	*sink = (struct kb_sink){.fd = -1};
}

size_t kb_sink_waiting(const struct kb_sink *sink)
{
	return kb_buf_len(&sink->waiting);
}

static bool ready(const struct kb_sink *sink)
{
	struct pollfd p = {.fd = sink->fd, .events = POLLOUT};

	return sink->own || sink->regular || poll(&p, 1, 0) > 0;
}

/* Bytes written, 0 when it has to wait, -1 when it is broken. */
static ssize_t write_some(struct kb_sink *sink, const uint8_t *data, size_t len)
{
	size_t most = sink->own || sink->regular ? len : KB_MIN(len, (size_t)PIPE_BUF);
	ssize_t n;

	if (!ready(sink))
		return 0;
	n = write(sink->fd, data, most);
	if (n >= 0)
		return n;
	if (errno == EAGAIN || errno == EINTR)
		return 0;
	sink->broken = errno;
	return -1;
}

static void break_down(struct kb_sink *sink)
{
	size_t dropped = kb_buf_len(&sink->waiting);

	kb_buf_consume(&sink->waiting, dropped);
	(void)kb_source_set_events(sink->source, 0, NULL);
	if (dropped)
		sink->ops->drained(sink, dropped, sink->arg);
	sink->ops->broken(sink, sink->broken, sink->arg);
}

static void on_writable(int fd, unsigned events, void *arg)
{
	struct kb_sink *sink = arg;
	ssize_t n = 1;
	size_t done = 0;

	for (int i = 0; i < WRITES_PER_WAKE && n > 0 && kb_sink_waiting(sink); i++) {
		n = write_some(sink, kb_buf_data(&sink->waiting), kb_sink_waiting(sink));
		if (n > 0) {
			kb_buf_consume(&sink->waiting, (size_t)n);
			done += (size_t)n;
		}
	}
	if (!kb_sink_waiting(sink))
		(void)kb_source_set_events(sink->source, 0, NULL);
	if (done)
		sink->ops->drained(sink, done, sink->arg);
	if (n < 0)
		break_down(sink);
}

int kb_sink_write(struct kb_sink *sink, const uint8_t *data, size_t len, struct kb_err *err)
{
	size_t done = 0;
	ssize_t n = 1;
	int r = 0;

	while (!sink->broken && !kb_sink_waiting(sink) && done < len && n > 0) {
		n = write_some(sink, data + done, len - done);
		done += n > 0 ? (size_t)n : 0;
	}
	if (sink->broken) {
		sink->ops->drained(sink, len, sink->arg);
		if (n < 0)
			sink->ops->broken(sink, sink->broken, sink->arg);
		return 0;
	}
	if (done < len) {
		r = kb_buf_append(&sink->waiting, data + done, len - done, err);
		if (r == 0)
			r = kb_source_set_events(sink->source, KB_IO_WRITE, err);
	}
	if (done)
		sink->ops->drained(sink, done, sink->arg);
	return r;
}
