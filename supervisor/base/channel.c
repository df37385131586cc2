/* Channels: theory of operation.
 *
 * Reading takes at most KB_CHANNEL_READ bytes per wake-up and hands on every whole frame among
 * them. Fds come as SCM_RIGHTS with the first byte of the frame they belong to; a stream socket
 * never merges two such messages, so they are claimed first come, first served by frames that carry
 * KB_FRAME_FD.
 *
 * Writing appends to one queue. When the queue was empty the bytes are tried at once, which saves a
 * turn of the loop; what is left waits for the fd to become writable. A failed write does not close
 * the channel at once: the peer's last words (often the reason) may still be there to read, so the
 * end is noticed by reading.
 *
 * Callbacks may destroy the channel. `depth` counts the callbacks that are running; destroy cuts
 * all ties to the loop at once but leaves the memory to the outermost one. Whatever must not run
 * inside a caller's call (the closed callback, above all) is left to `kick`, a timer of 0 ms.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "channel_private.h"
#include "fd.h"
#include "os.h"

static void on_io(int fd, unsigned events, void *arg);
static void on_kick(void *arg);

static void kick(struct kb_channel *ch)
{
	if (!ch->dead && !ch->closed)
		(void)kb_source_arm(ch->kick, 0, NULL);
}

int kb_channel_create(struct kb_loop *loop, int fd, const struct kb_channel_ops *ops, void *arg,
	struct kb_channel **ret, struct kb_err *err)
{
	struct kb_channel *ch = calloc(1, sizeof(*ch));
	struct stat st;
	int r;

	if (!ch) {
		close(fd);
		return kb_err_nomem(err);
	}
	ch->loop = loop;
	ch->ops = ops;
	ch->arg = arg;
	ch->fd = fd;
	ch->is_socket = fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
	kb_buf_init(&ch->in, KB_FRAME_HEADER + KB_FRAME_MAX + KB_CHANNEL_READ);
	kb_buf_init(&ch->out, KB_CHANNEL_QUEUE_MAX);
	TAILQ_INIT(&ch->waiting);
	r = kb_fd_nonblock(fd, err);
	if (r == 0)
		r = kb_loop_timer(loop, on_kick, ch, &ch->kick, err);
	if (r == 0)
		r = kb_loop_io(loop, fd, KB_IO_READ, on_io, ch, &ch->io, err);
	if (r < 0) {
		kb_channel_destroy(ch);
		return r;
	}
	*ret = ch;
	return 0;
}

static void cut_ties(struct kb_channel *ch)
{
	kb_source_destroy(ch->io);
	kb_source_destroy(ch->kick);
	ch->io = ch->kick = NULL;
	kb_close(&ch->fd);
}

static void drop_out(struct kb_channel *ch)
{
	kb_buf_finish(&ch->out);
	for (size_t i = 0; i < ch->n_out_fds; i++)
		kb_close(&ch->out_fds[i].fd);
	ch->n_out_fds = 0;
}

static void free_memory(struct kb_channel *ch)
{
	kb_buf_finish(&ch->in);
	free(ch);
}

void kb_channel_destroy(struct kb_channel *ch)
{
	if (!ch || ch->dead)
		return;
	ch->dead = true;
	cut_ties(ch);
	drop_out(ch);
	for (size_t i = 0; i < ch->n_in_fds; i++)
		kb_close(&ch->in_fds[i]);
	kb_stream_finish_all(ch);
	if (ch->depth == 0)
		free_memory(ch);
}

static void enter(struct kb_channel *ch)
{
	ch->depth++;
}

static void leave(struct kb_channel *ch)
{
	if (--ch->depth == 0 && ch->dead)
		free_memory(ch);
}

static bool is_over(const struct kb_channel *ch)
{
	return ch->dead || ch->closed;
}

static void report_closed(struct kb_channel *ch, const struct kb_err *why)
{
	if (is_over(ch))
		return;
	ch->closed = true;
	cut_ties(ch);
	drop_out(ch);
	ch->ops->closed(ch, why, ch->arg);
}

void kb_channel_watch(struct kb_channel *ch)
{
	unsigned events = 0;

	if (is_over(ch))
		return;
	if (!ch->paused && !ch->read_eof && !ch->finishing)
		events |= KB_IO_READ;
	if (!ch->write_dead && (kb_buf_len(&ch->out) > 0 || !TAILQ_EMPTY(&ch->waiting)))
		events |= KB_IO_WRITE;
	if (kb_source_set_events(ch->io, events, &ch->why) < 0) {
		ch->failed = true;
		kick(ch);
	}
}

/* ---- Writing --------------------------------------------------------------------------------- */

/* Write up to the next byte that carries an fd; that byte and its fd leave together. */
static ssize_t write_once(struct kb_channel *ch)
{
	size_t len = KB_MIN(kb_buf_len(&ch->out), KB_CHANNEL_FLUSH_MAX);
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {.iov_base = kb_buf_data(&ch->out)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	size_t first = 0;

	if (!ch->is_socket)
		return write(ch->fd, kb_buf_data(&ch->out), len);
	if (ch->n_out_fds > 0 && ch->out_fds[0].at == ch->written) {
		struct cmsghdr *c = (struct cmsghdr *)control.buf;

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &ch->out_fds[0].fd, sizeof(int));
		msg.msg_control = control.buf;
		msg.msg_controllen = sizeof(control.buf);
		first = 1;
	}
	if (ch->n_out_fds > first)
		len = KB_MIN(len, (size_t)(ch->out_fds[first].at - ch->written));
	iov.iov_len = len;
	return sendmsg(ch->fd, &msg, MSG_NOSIGNAL);
}

static void wrote(struct kb_channel *ch, size_t n)
{
	if (ch->n_out_fds > 0 && ch->out_fds[0].at == ch->written) {
		kb_close(&ch->out_fds[0].fd);
		ch->n_out_fds--;
		memmove(ch->out_fds, ch->out_fds + 1, ch->n_out_fds * sizeof(ch->out_fds[0]));
	}
	ch->written += n;
	kb_buf_consume(&ch->out, n);
	if (kb_buf_len(&ch->out) == 0 && ch->out.cap > KB_CHANNEL_READ)
		kb_buf_finish(&ch->out);
}

static void flush(struct kb_channel *ch)
{
	size_t total = 0;
	ssize_t n;

	while (kb_buf_len(&ch->out) > 0 && total < KB_CHANNEL_FLUSH_MAX && !ch->write_dead) {
		n = write_once(ch);
		if (n > 0) {
			wrote(ch, (size_t)n);
			total += (size_t)n;
		} else if (n == 0 || errno == EAGAIN || errno == EWOULDBLOCK) {
			break;
		} else if (errno != EINTR) {
			ch->write_dead = true;
			drop_out(ch);
		}
	}
	if (ch->finishing && kb_buf_len(&ch->out) == 0)
		kick(ch);
	kb_channel_watch(ch);
}

static int can_send(const struct kb_channel *ch, struct kb_err *err)
{
	if (is_over(ch) || ch->finishing || ch->write_dead)
		return kb_err_set(err, KB_ERR_CLOSED, "the other end is gone");
	return 0;
}

/* Room for a frame in the queue, its header written; *ret is where the payload goes. */
static int begin_frame(
	struct kb_channel *ch, const struct kb_frame *frame, uint8_t **ret, struct kb_err *err)
{
	uint8_t *dst;
	int r = can_send(ch, err);

	if (r == 0 && frame->length > KB_FRAME_MAX)
		r = kb_err_set(err, KB_ERR_LIMIT, "a message of %u bytes exceeds the bound of %u",
			frame->length, KB_FRAME_MAX);
	if (r == 0)
		r = kb_buf_reserve(&ch->out, KB_FRAME_HEADER + frame->length, &dst, err);
	if (r < 0)
		return r;
	kb_frame_encode(frame, dst);
	*ret = dst + KB_FRAME_HEADER;
	return 0;
}

static void commit_frame(struct kb_channel *ch, const struct kb_frame *frame)
{
	bool was_empty = kb_buf_len(&ch->out) == 0;

	kb_buf_commit(&ch->out, KB_FRAME_HEADER + frame->length);
	if (was_empty)
		flush(ch);
}

int kb_channel_queue_frame(struct kb_channel *ch, const struct kb_frame *frame, const void *payload,
	struct kb_err *err)
{
	uint8_t *dst;
	int r = begin_frame(ch, frame, &dst, err);

	if (r < 0)
		return r;
	if (frame->length > 0)
		memcpy(dst, payload, frame->length);
	commit_frame(ch, frame);
	return 0;
}

static int queue_fd(struct kb_channel *ch, int fd, struct kb_err *err)
{
	int copy;

	if (!ch->is_socket)
		return kb_err_set(err, KB_ERR_INVALID, "only a socket can carry an fd");
	if (ch->n_out_fds == KB_CHANNEL_FDS_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "more than %d fds are waiting to be sent",
			KB_CHANNEL_FDS_MAX);
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (copy < 0)
		return kb_err_sys(err, errno, "an fd cannot be duplicated");
	ch->out_fds[ch->n_out_fds].at = ch->written + kb_buf_len(&ch->out);
	ch->out_fds[ch->n_out_fds++].fd = copy;
	return 0;
}

int kb_channel_send(struct kb_channel *ch, uint32_t stream, const ProtobufCMessage *msg, int fd,
	struct kb_err *err)
{
	size_t len = protobuf_c_message_get_packed_size(msg);
	struct kb_frame frame = {.length = (uint32_t)KB_MIN(len, UINT32_MAX),
		.stream = stream,
		.kind = KB_FRAME_MSG,
		.flags = fd >= 0 ? KB_FRAME_FD : 0};
	uint8_t *dst;
	int r = begin_frame(ch, &frame, &dst, err);

	if (r == 0 && fd >= 0)
		r = queue_fd(ch, fd, err);
	if (r < 0)
		return r;
	protobuf_c_message_pack(msg, dst);
	commit_frame(ch, &frame);
	return 0;
}

int kb_channel_send_bytes(
	struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len, struct kb_err *err)
{
	struct kb_frame frame = {.length = (uint32_t)KB_MIN(len, UINT32_MAX),
		.stream = stream,
		.kind = KB_FRAME_MSG};

	return kb_channel_queue_frame(ch, &frame, data, err);
}

size_t kb_channel_queued(const struct kb_channel *ch)
{
	return kb_buf_len(&ch->out);
}

void kb_channel_finish(struct kb_channel *ch)
{
	ch->finishing = true;
	kb_channel_watch(ch);
	if (kb_buf_len(&ch->out) == 0)
		kick(ch);
}

void kb_channel_pause(struct kb_channel *ch, bool paused)
{
	if (ch->paused == paused)
		return;
	ch->paused = paused;
	kb_channel_watch(ch);
	if (!paused)
		kick(ch);
}

/* ---- Reading --------------------------------------------------------------------------------- */

static int keep_fds(struct kb_channel *ch, struct msghdr *msg, struct kb_err *err)
{
	int r = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (ch->n_in_fds < KB_CHANNEL_FDS_MAX) {
				ch->in_fds[ch->n_in_fds++] = fd;
				continue;
			}
			close(fd);
			r = kb_err_set(err, KB_ERR_LIMIT, "too many fds came unannounced");
		}
	}
	if (msg->msg_flags & MSG_CTRUNC)
		r = kb_err_set(err, KB_ERR_LIMIT, "too many fds came at once");
	return r;
}

static ssize_t read_once(struct kb_channel *ch, uint8_t *dst, size_t len, struct kb_err *err)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * KB_FD_PASS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = dst, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf)};
	ssize_t n;
	int r;

	do
		n = ch->is_socket ? kb_os_recvmsg(ch->fd, &msg) : read(ch->fd, dst, len);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return -KB_ERR_TIMEOUT;
	if (n < 0 && (errno == ECONNRESET || errno == EIO))
		return 0; /* the peer went without reading all we sent: the end, as any other */
	if (n < 0)
		return kb_err_sys(err, errno, "a channel cannot be read");
	r = ch->is_socket ? keep_fds(ch, &msg, err) : 0;
	return r < 0 ? r : n;
}

/* 0, or a negative error that ends the channel. */
static int read_some(struct kb_channel *ch, struct kb_err *err)
{
	uint8_t *dst;
	ssize_t n;
	int r = kb_buf_reserve(&ch->in, KB_CHANNEL_READ, &dst, err);

	if (r < 0)
		return r;
	n = read_once(ch, dst, KB_CHANNEL_READ, err);
	if (n == -KB_ERR_TIMEOUT)
		return 0;
	if (n < 0)
		return (int)n;
	if (n == 0)
		ch->read_eof = true;
	kb_buf_commit(&ch->in, (size_t)n);
	return 0;
}

/* The fd a message carries, taken off the list; -1 when it carries none. */
static int claim_fd(
	struct kb_channel *ch, const struct kb_frame *frame, int *ret, struct kb_err *err)
{
	*ret = -1;
	if (!(frame->flags & KB_FRAME_FD))
		return 0;
	if (ch->n_in_fds == 0)
		return kb_err_set(err, KB_ERR_INVALID, "a frame came without the fd it names");
	*ret = ch->in_fds[0];
	ch->n_in_fds--;
	memmove(ch->in_fds, ch->in_fds + 1, ch->n_in_fds * sizeof(ch->in_fds[0]));
	return 0;
}

static int dispatch_frame(struct kb_channel *ch, const struct kb_frame *frame,
	const uint8_t *payload, struct kb_err *err)
{
	int r, fd;

	if (frame->kind != KB_FRAME_MSG)
		return kb_stream_frame(ch, frame, payload, err);
	r = claim_fd(ch, frame, &fd, err);
	if (r < 0)
		return r;
	return ch->ops->message(ch, frame->stream, payload, frame->length, fd, ch->arg, err);
}

/* Hand on every whole frame. 0, or a negative error that ends the channel. */
static int handle_frames(struct kb_channel *ch, struct kb_err *err)
{
	struct kb_frame frame;
	int r;

	while (!is_over(ch) && !ch->paused && !ch->finishing && !ch->failed) {
		r = kb_frame_decode(kb_buf_data(&ch->in), kb_buf_len(&ch->in), &frame, err);
		if (r < 0)
			return r;
		if (r == 0 || kb_buf_len(&ch->in) < KB_FRAME_HEADER + frame.length)
			return 0;
		r = dispatch_frame(ch, &frame, kb_buf_data(&ch->in) + KB_FRAME_HEADER, err);
		if (r < 0)
			return r;
		kb_buf_consume(&ch->in, KB_FRAME_HEADER + frame.length);
	}
	return 0;
}

static bool input_is_done(const struct kb_channel *ch)
{
	return ch->read_eof && !ch->paused && !ch->finishing;
}

/* Everything that follows from new input or from a kick. */
static void proceed(struct kb_channel *ch, int r, struct kb_err *why)
{
	if (r == 0)
		r = handle_frames(ch, why);
	if (is_over(ch))
		return;
	if (r < 0) {
		report_closed(ch, why);
	} else if (ch->failed) {
		report_closed(ch, &ch->why);
	} else if (ch->finishing && kb_buf_len(&ch->out) == 0) {
		report_closed(ch, NULL);
	} else if (input_is_done(ch) && kb_buf_len(&ch->in) > 0) {
		kb_err_set(why, KB_ERR_CLOSED, "the other end closed in the middle of a frame");
		report_closed(ch, why);
	} else if (input_is_done(ch)) {
		report_closed(ch, NULL);
	} else if (kb_buf_len(&ch->in) == 0 && ch->in.cap > 2 * (size_t)KB_CHANNEL_READ) {
		kb_buf_finish(&ch->in);
	}
}

static void on_kick(void *arg)
{
	struct kb_channel *ch = arg;
	struct kb_err why = {0};

	enter(ch);
	proceed(ch, 0, &why);
	leave(ch);
}

static void on_io(int fd, unsigned events, void *arg)
{
	struct kb_channel *ch = arg;
	struct kb_err why = {0};

	enter(ch);
	if (events & KB_IO_WRITE) {
		flush(ch);
		if (kb_buf_len(&ch->out) <= KB_CHANNEL_DATA_LOW)
			kb_stream_serve(ch);
	}
	if ((events & KB_IO_READ) && !is_over(ch) && !ch->paused && !ch->finishing) {
		int r = read_some(ch, &why);

		proceed(ch, r, &why);
	}
	if (!is_over(ch))
		kb_channel_watch(ch);
	leave(ch);
}
