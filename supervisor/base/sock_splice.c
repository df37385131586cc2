#include "sock_splice.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "buf.h"
#include "fd.h"
#include "util.h"

#define READS_PER_WAKE 8

struct kb_sock_splice {
	const struct kb_sock_splice_ops *ops;
	void *arg;
	int fd; /* -1: closed */
	struct kb_source *io, *later;
	struct kb_stream *stream;
	struct kb_buf pending; /* from the stream, not yet written */
	uint64_t read, written;
	bool eof_sent, eof_seen, shut;
	bool broken, told_broken, told_over;
};

static void close_fd(struct kb_sock_splice *f)
{
	kb_source_destroy(f->io);
	f->io = NULL;
	kb_close(&f->fd);
	kb_stream_consumed(f->stream, kb_buf_len(&f->pending));
	kb_buf_finish(&f->pending);
}

static void send_eof(struct kb_sock_splice *f)
{
	if (!f->eof_sent)
		(void)kb_stream_eof(f->stream, NULL);
	f->eof_sent = true;
}

static void break_off(struct kb_sock_splice *f)
{
	close_fd(f);
	send_eof(f);
	f->broken = true;
}

static void watch(struct kb_sock_splice *f)
{
	unsigned events = 0;

	if (f->fd < 0)
		return;
	if (!f->eof_sent && kb_stream_writable(f->stream, 1) > 0)
		events |= KB_IO_READ;
	if (kb_buf_len(&f->pending) > 0)
		events |= KB_IO_WRITE;
	(void)kb_source_set_events(f->io, events, NULL);
}

static bool is_over(const struct kb_sock_splice *f)
{
	return f->fd < 0 && f->eof_seen && f->eof_sent;
}

/* What has come true is told from the loop, where the user may destroy us. */
static void settle(struct kb_sock_splice *f)
{
	if (f->fd >= 0 && f->eof_seen && kb_buf_len(&f->pending) == 0 && !f->shut) {
		f->shut = true;
		(void)shutdown(f->fd, SHUT_WR);
	}
	if (f->fd >= 0 && f->shut && f->eof_sent)
		close_fd(f);
	watch(f);
	if ((f->broken && !f->told_broken) || (is_over(f) && !f->told_over))
		(void)kb_source_arm(f->later, 0, NULL);
}

static void on_later(void *arg)
{
	struct kb_sock_splice *f = arg;

	if (f->broken && !f->told_broken) {
		f->told_broken = true;
		f->ops->broken(f, f->arg);
	}
	if (!is_over(f) || f->told_over)
		return;
	f->told_over = true;
	f->ops->over(f, f->arg);
}

static void read_socket(struct kb_sock_splice *f)
{
	uint8_t bytes[KB_STREAM_CHUNK];

	for (int i = 0; i < READS_PER_WAKE && !f->eof_sent; i++) {
		size_t room = KB_MIN(kb_stream_writable(f->stream, 1), sizeof(bytes));
		ssize_t n = room ? read(f->fd, bytes, room) : -1;

		if (room == 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
			return;
		if (n < 0) {
			break_off(f);
		} else if (n == 0) {
			send_eof(f);
		} else {
			f->read += (uint64_t)n;
			(void)kb_stream_write(f->stream, bytes, (size_t)n, NULL);
			if ((size_t)n < room)
				return; /* all there was */
		}
	}
}

static void write_socket(struct kb_sock_splice *f)
{
	while (f->fd >= 0 && kb_buf_len(&f->pending) > 0) {
		ssize_t n = send(
			f->fd, kb_buf_data(&f->pending), kb_buf_len(&f->pending), MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			break_off(f);
		if (n < 0)
			return;
		f->written += (uint64_t)n;
		kb_buf_consume(&f->pending, (size_t)n);
		kb_stream_consumed(f->stream, (size_t)n);
	}
}

static void on_io(int fd, unsigned events, void *arg)
{
	struct kb_sock_splice *f = arg;

	if (events & KB_IO_WRITE)
		write_socket(f);
	if ((events & KB_IO_READ) && f->fd >= 0)
		read_socket(f);
	settle(f);
}

static void on_data(struct kb_stream *st, const uint8_t *data, size_t len, void *arg)
{
	struct kb_sock_splice *f = arg;

	/* Credit bounds it. */
	if (f->fd < 0 || kb_buf_append(&f->pending, data, len, NULL) < 0)
		kb_stream_consumed(st, len);
	else
		write_socket(f);
	settle(f);
}

static void on_writable(struct kb_stream *st, void *arg)
{
	watch(arg);
}

static void on_eof(struct kb_stream *st, void *arg)
{
	struct kb_sock_splice *f = arg;

	f->eof_seen = true;
	settle(f);
}

static const struct kb_stream_ops stream_ops = {
	.data = on_data, .writable = on_writable, .eof = on_eof};

int kb_sock_splice_create(struct kb_loop *loop, struct kb_channel *ch, uint32_t stream, int fd,
	const struct kb_sock_splice_ops *ops, void *arg, struct kb_sock_splice **ret,
	struct kb_err *err)
{
	struct kb_sock_splice *f = calloc(1, sizeof(*f));
	int r;

	if (!f) {
		close(fd);
		return kb_err_nomem(err);
	}
	*f = (struct kb_sock_splice){.ops = ops, .arg = arg, .fd = fd};
	kb_buf_init(&f->pending, KB_STREAM_CREDIT);
	r = kb_fd_nonblock(fd, err);
	if (r == 0)
		r = kb_loop_timer(loop, on_later, f, &f->later, err);
	if (r == 0)
		r = kb_stream_open(ch, stream, &stream_ops, f, &f->stream, err);
	if (r == 0)
		r = kb_loop_io(loop, fd, KB_IO_READ, on_io, f, &f->io, err);
	if (r < 0)
		kb_sock_splice_destroy(f);
	else
		*ret = f;
	return r;
}

void kb_sock_splice_abort(struct kb_sock_splice *f)
{
	const struct linger now = {.l_onoff = 1};

	if (f->fd >= 0) {
		(void)setsockopt(f->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		close_fd(f);
	}
	send_eof(f);
	settle(f);
}

void kb_sock_splice_refuse(struct kb_sock_splice *f)
{
	if (kb_buf_len(&f->pending) == 0 && !f->eof_seen) {
		kb_sock_splice_abort(f);
		return;
	}
	send_eof(f);
	settle(f);
}

uint32_t kb_sock_splice_stream(const struct kb_sock_splice *f)
{
	return kb_stream_id(f->stream);
}

void kb_sock_splice_count(const struct kb_sock_splice *f, uint64_t *ret_read, uint64_t *ret_written)
{
	*ret_read = f->read;
	*ret_written = f->written;
}

void kb_sock_splice_destroy(struct kb_sock_splice *f)
{
	if (!f)
		return;
	kb_source_destroy(f->io);
	kb_source_destroy(f->later);
	kb_close(&f->fd);
	kb_buf_finish(&f->pending);
	kb_stream_close(f->stream);
	free(f);
}
