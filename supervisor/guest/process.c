#include "supervisor/guest/process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "supervisor/base/buf.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/util.h"

#define READS_PER_WAKE 8

/* Output: what the process writes, from fd to a stream. */
struct outflow {
	struct kb_process *process;
	int fd; /* -1: nothing comes any more */
	struct kb_source *source;
	struct kb_stream *stream;
	struct kb_buf ring;
	bool opened; /* there was an fd */
	bool ended;  /* EOF was sent */
};

struct kb_process {
	struct kb_loop *loop;
	const struct kb_process_ops *ops;
	void *arg;
	bool tty, attached, started, exited, drained;
	int ends[3]; /* the process's side of the pipes */
	struct kb_source *linger;
	/* Input: from stream to fd. For a terminal, stream and fd are those of out[0]. */
	int in_fd;
	struct kb_source *in_source;
	struct kb_stream *in_stream;
	struct kb_buf in_pending;
	bool in_eof;
	struct outflow out[2];
};

static unsigned outflows(const struct kb_process *p)
{
	return p->tty ? 1 : 2;
}

/* ---- Output ---------------------------------------------------------------------------------- */

static void out_close(struct outflow *o)
{
	kb_source_destroy(o->source);
	o->source = NULL;
	if (o->process->tty) {
		kb_source_destroy(o->process->in_source);
		o->process->in_source = NULL;
		o->process->in_fd = -1;
	}
	kb_close(&o->fd);
}

static void check_drained(struct kb_process *p)
{
	for (unsigned i = 0; i < outflows(p); i++)
		if (!p->out[i].ended)
			return;
	if (!p->exited || p->drained)
		return;
	p->drained = true;
	p->ops->drained(p, p->arg);
}

static void ring_append(struct outflow *o, const uint8_t *data, size_t len)
{
	size_t over;

	if (len > KB_PROCESS_RING) {
		data += len - KB_PROCESS_RING;
		len = KB_PROCESS_RING;
	}
	over = kb_buf_len(&o->ring) + len;
	if (over > KB_PROCESS_RING)
		kb_buf_consume(&o->ring, over - KB_PROCESS_RING);
	(void)kb_buf_append(&o->ring, data, len, NULL);
}

/* What the ring holds goes first. True when it is empty. */
static bool replay(struct outflow *o)
{
	while (kb_buf_len(&o->ring) > 0) {
		int64_t n = kb_stream_write(
			o->stream, kb_buf_data(&o->ring), kb_buf_len(&o->ring), NULL);

		if (n <= 0)
			return false;
		kb_buf_consume(&o->ring, (size_t)n);
	}
	return true;
}

/* How much may be read now. */
static size_t room(const struct outflow *o)
{
	size_t n = o->process->attached ? kb_stream_writable(o->stream, 1) : KB_STREAM_CHUNK;

	return KB_MIN(n, KB_STREAM_CHUNK);
}

static void deliver(struct outflow *o, const uint8_t *data, size_t len)
{
	int64_t n = 0;

	if (o->process->attached)
		n = kb_stream_write(o->stream, data, len, NULL);
	/* What the stream did not take although it said it would is not lost either. */
	if (n < (int64_t)len)
		ring_append(o, data + KB_MAX(n, 0), len - (size_t)KB_MAX(n, 0));
}

/* Returns true when there may be more. */
static bool read_some(struct outflow *o, size_t want)
{
	uint8_t bytes[KB_STREAM_CHUNK];
	ssize_t n = read(o->fd, bytes, want);

	if (n > 0) {
		deliver(o, bytes, (size_t)n);
		return true;
	}
	if (n < 0 && errno == EINTR)
		return true;
	if (n < 0 && errno == EAGAIN) {
		/* A pipe that is empty after the exit has all been read. A terminal's last bytes
		 * may still be on their way; its end is an error (EIO), or the linger timer. */
		if (o->process->exited && !o->process->tty)
			out_close(o);
		return false;
	}
	out_close(o);
	return false;
}

/* Nothing comes any more, and what came was sent. Output of a detached process that nobody came to
 * see goes with the process. */
static bool all_sent(const struct outflow *o)
{
	const struct kb_process *p = o->process;

	return o->fd < 0 && (o->opened || p->exited) &&
	       (kb_buf_len(&o->ring) == 0 || (p->exited && !p->attached));
}

static void pump(struct outflow *o)
{
	struct kb_process *p = o->process;
	bool empty;
	size_t n = 0;

	if (!p->started) {
		if (o->source)
			kb_source_set_events(o->source, 0, NULL);
		return;
	}
	empty = !p->attached || replay(o);
	for (int i = 0; i < READS_PER_WAKE && o->fd >= 0 && empty; i++) {
		n = room(o);
		if (n == 0 || !read_some(o, n))
			break;
		empty = !p->attached || kb_buf_len(&o->ring) == 0;
	}
	if (o->source)
		kb_source_set_events(o->source, empty && room(o) > 0 ? KB_IO_READ : 0, NULL);
	if (!o->ended && all_sent(o)) {
		o->ended = true;
		kb_stream_eof(o->stream, NULL);
	}
	check_drained(p);
}

static void on_readable(int fd, unsigned events, void *arg)
{
	pump(arg);
}

static void on_writable(struct kb_stream *stream, void *arg)
{
	pump(arg);
}

/* ---- Input ----------------------------------------------------------------------------------- */

static void in_close(struct kb_process *p)
{
	if (p->tty)
		return;
	kb_source_destroy(p->in_source);
	p->in_source = NULL;
	kb_close(&p->in_fd);
}

static void in_write(struct kb_process *p)
{
	ssize_t n;

	while (p->in_fd >= 0 && kb_buf_len(&p->in_pending) > 0) {
		n = write(p->in_fd, kb_buf_data(&p->in_pending), kb_buf_len(&p->in_pending));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			in_close(p);
			break;
		}
		kb_buf_consume(&p->in_pending, (size_t)n);
		kb_stream_consumed(p->in_stream, (size_t)n);
	}
	/* Nobody reads it: take it off the sender's hands. Before a terminal is there, keep it. */
	if (p->in_fd < 0 && (!p->tty || p->exited) && kb_buf_len(&p->in_pending) > 0) {
		kb_stream_consumed(p->in_stream, kb_buf_len(&p->in_pending));
		kb_buf_consume(&p->in_pending, kb_buf_len(&p->in_pending));
	}
	if (p->in_source)
		kb_source_set_events(
			p->in_source, kb_buf_len(&p->in_pending) > 0 ? KB_IO_WRITE : 0, NULL);
	if (p->in_eof && kb_buf_len(&p->in_pending) == 0)
		in_close(p);
}

static void on_in_writable(int fd, unsigned events, void *arg)
{
	in_write(arg);
}

static void on_in_data(struct kb_stream *stream, const uint8_t *data, size_t len, void *arg)
{
	struct kb_process *p = arg;

	/* Credit bounds what can be pending. */
	if (kb_buf_append(&p->in_pending, data, len, NULL) < 0)
		kb_stream_consumed(stream, len);
	in_write(p);
}

static void on_in_eof(struct kb_stream *stream, void *arg)
{
	struct kb_process *p = arg;

	p->in_eof = true;
	in_write(p);
}

static void on_tty_data(struct kb_stream *stream, const uint8_t *data, size_t len, void *arg)
{
	struct outflow *o = arg;

	on_in_data(stream, data, len, o->process);
}

static void on_tty_eof(struct kb_stream *stream, void *arg)
{
}

/* Output streams carry nothing towards the process. */
static void on_stray_data(struct kb_stream *stream, const uint8_t *data, size_t len, void *arg)
{
	kb_stream_consumed(stream, len);
}

static const struct kb_stream_ops in_ops = {.data = on_in_data, .eof = on_in_eof};
static const struct kb_stream_ops out_ops = {
	.data = on_stray_data, .writable = on_writable, .eof = on_tty_eof};
static const struct kb_stream_ops tty_ops = {
	.data = on_tty_data, .writable = on_writable, .eof = on_tty_eof};

/* ---- The object ------------------------------------------------------------------------------ */

static int make_pipe(int *ret_read, int *ret_write, struct kb_err *err)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return kb_err_sys(err, errno, "a pipe cannot be made");
	*ret_read = fds[0];
	*ret_write = fds[1];
	return 0;
}

static int out_watch(struct outflow *o, int fd, struct kb_err *err)
{
	int r = kb_fd_nonblock(fd, err);

	o->fd = fd;
	o->opened = true;
	return r < 0 ? r
		     : kb_loop_io(
			       o->process->loop, fd, KB_IO_READ, on_readable, o, &o->source, err);
}

static int in_watch(struct kb_process *p, int fd, struct kb_err *err)
{
	int r = kb_fd_nonblock(fd, err);

	p->in_fd = fd;
	return r < 0 ? r : kb_loop_io(p->loop, fd, 0, on_in_writable, p, &p->in_source, err);
}

static int open_pipes(
	struct kb_process *p, struct kb_channel *channel, uint32_t stdio, struct kb_err *err)
{
	int fds[3] = {-1, -1, -1};
	int r = kb_stream_open(channel, stdio, &in_ops, p, &p->in_stream, err);

	for (unsigned i = 0; i < 2 && r == 0; i++)
		r = kb_stream_open(
			channel, stdio + 1 + i, &out_ops, &p->out[i], &p->out[i].stream, err);
	if (r == 0)
		r = make_pipe(&p->ends[0], &fds[0], err);
	if (r == 0)
		r = make_pipe(&fds[1], &p->ends[1], err);
	if (r == 0)
		r = make_pipe(&fds[2], &p->ends[2], err);
	if (fds[0] >= 0)
		r = in_watch(p, fds[0], r == 0 ? err : NULL) < 0 && r == 0 ? -KB_ERR_SYSTEM : r;
	for (unsigned i = 0; i < 2; i++)
		if (fds[1 + i] >= 0 && out_watch(&p->out[i], fds[1 + i], r == 0 ? err : NULL) < 0 &&
			r == 0)
			r = -KB_ERR_SYSTEM;
	return r;
}

static int open_tty(
	struct kb_process *p, struct kb_channel *channel, uint32_t stdio, struct kb_err *err)
{
	int r = kb_stream_open(channel, stdio, &tty_ops, &p->out[0], &p->out[0].stream, err);

	p->in_stream = p->out[0].stream;
	return r;
}

static void on_linger(void *arg)
{
	struct kb_process *p = arg;

	for (unsigned i = 0; i < outflows(p); i++)
		if (p->out[i].fd >= 0) {
			out_close(&p->out[i]);
			pump(&p->out[i]);
		}
}

int kb_process_create(struct kb_loop *loop, struct kb_channel *channel, uint32_t stdio, bool tty,
	bool attached, const struct kb_process_ops *ops, void *arg, struct kb_process **ret,
	struct kb_err *err)
{
	struct kb_process *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return kb_err_nomem(err);
	*p = (struct kb_process){.loop = loop,
		.ops = ops,
		.arg = arg,
		.tty = tty,
		.attached = attached,
		.ends = {-1, -1, -1},
		.in_fd = -1};
	kb_buf_init(&p->in_pending, KB_STREAM_CREDIT);
	for (unsigned i = 0; i < KB_ARRAY_LEN(p->out); i++) {
		p->out[i] = (struct outflow){.process = p, .fd = -1};
		kb_buf_init(&p->out[i].ring, KB_PROCESS_RING);
	}
	r = kb_loop_timer(loop, on_linger, p, &p->linger, err);
	if (r == 0)
		r = tty ? open_tty(p, channel, stdio, err) : open_pipes(p, channel, stdio, err);
	if (r < 0) {
		kb_process_destroy(p);
		return r;
	}
	*ret = p;
	return 0;
}

void kb_process_ends(const struct kb_process *p, int ret[3])
{
	memcpy(ret, p->ends, sizeof(p->ends));
}

void kb_process_running(struct kb_process *p)
{
	for (unsigned i = 0; i < KB_ARRAY_LEN(p->ends); i++)
		kb_close(&p->ends[i]);
}

int kb_process_terminal(struct kb_process *p, int master, struct kb_err *err)
{
	int r = out_watch(&p->out[0], master, err);

	if (r == 0)
		r = in_watch(p, master, err);
	if (r == 0)
		in_write(p);
	return r;
}

void kb_process_started(struct kb_process *p)
{
	p->started = true;
	for (unsigned i = 0; i < outflows(p) && !p->drained; i++)
		pump(&p->out[i]);
}

void kb_process_exited(struct kb_process *p)
{
	p->started = true;
	p->exited = true;
	kb_process_running(p);
	in_close(p);
	in_write(p);
	if (p->tty && p->out[0].fd >= 0)
		kb_source_arm(p->linger, KB_PROCESS_LINGER_MS, NULL);
	for (unsigned i = 0; i < outflows(p) && !p->drained; i++)
		pump(&p->out[i]);
}

void kb_process_abandon(struct kb_process *p)
{
	for (unsigned i = 0; i < outflows(p) && !p->drained; i++) {
		struct outflow *o = &p->out[i];

		out_close(o);
		kb_buf_consume(&o->ring, kb_buf_len(&o->ring));
		pump(o);
	}
}

void kb_process_attach(struct kb_process *p, bool attached)
{
	if (p->attached == attached)
		return;
	p->attached = attached;
	for (unsigned i = 0; i < outflows(p) && !p->drained; i++)
		pump(&p->out[i]);
}

void kb_process_resize(struct kb_process *p, uint16_t rows, uint16_t cols)
{
	struct winsize size = {.ws_row = rows, .ws_col = cols};

	if (p->tty && p->out[0].fd >= 0)
		(void)ioctl(p->out[0].fd, TIOCSWINSZ, &size);
}

void kb_process_destroy(struct kb_process *p)
{
	if (!p)
		return;
	kb_source_destroy(p->linger);
	for (unsigned i = 0; i < KB_ARRAY_LEN(p->out); i++) {
		out_close(&p->out[i]);
		kb_stream_close(p->out[i].stream);
		kb_buf_finish(&p->out[i].ring);
	}
	if (!p->tty) {
		in_close(p);
		kb_stream_close(p->in_stream);
	}
	kb_process_running(p);
	kb_buf_finish(&p->in_pending);
	free(p);
}
