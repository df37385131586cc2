/* A channel and a socket, end to end. Each direction holds at most its bound: the faster side is
 * held up. Ends are passed on one by one, so that a half-closed connection stays one. */
#include <errno.h>
#include <string.h>

#include "ssh_private.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"

#define IN_HIGH (256u << 10) /* from the channel, waiting for the socket: then it is paused */
#define IN_LOW	(64u << 10)

struct kb_ssh_splice {
	struct kb_ssh_channel *ch; /* NULL: over, or not yet */
	int fd;
	struct kb_source *io;
	struct kb_buf in;
	bool fd_eof, ch_eof, shut, over, kept;
	struct kb_ssh_exit exit;
	struct kb_err why; /* code 0: it ended by itself */
	kb_ssh_splice_fn fn;
	void *arg;
};

static void watch(struct kb_ssh_splice *sp)
{
	unsigned events = 0;

	if (sp->ch && !sp->fd_eof && kb_ssh_channel_room(sp->ch) > 0)
		events |= KB_IO_READ;
	if (kb_buf_len(&sp->in) > 0)
		events |= KB_IO_WRITE;
	(void)kb_source_set_events(sp->io, events, NULL);
}

/* The last call on it: the user may destroy it. */
static void finish_if_done(struct kb_ssh_splice *sp)
{
	if (sp->over && kb_buf_len(&sp->in) == 0)
		sp->fn(sp, sp->why.code ? NULL : &sp->exit, sp->why.code ? &sp->why : NULL,
			sp->arg);
	else
		watch(sp);
}

static void write_fd(struct kb_ssh_splice *sp)
{
	while (kb_buf_len(&sp->in) > 0) {
		ssize_t n = send(sp->fd, kb_buf_data(&sp->in), kb_buf_len(&sp->in), MSG_NOSIGNAL);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		/* Nobody reads there any more. */
		kb_buf_consume(&sp->in, n < 0 ? kb_buf_len(&sp->in) : (size_t)n);
	}
	if (sp->ch && kb_buf_len(&sp->in) < IN_LOW)
		kb_ssh_channel_pause(sp->ch, false);
	if (sp->ch_eof && !sp->shut && !sp->kept && kb_buf_len(&sp->in) == 0) {
		sp->shut = true;
		shutdown(sp->fd, SHUT_WR);
	}
}

static void read_fd(struct kb_ssh_splice *sp)
{
	uint8_t data[KB_SSH_CHUNK];
	size_t room = sp->ch ? KB_MIN(kb_ssh_channel_room(sp->ch), sizeof(data)) : 0;
	ssize_t n;

	if (room == 0 || sp->fd_eof)
		return;
	n = recv(sp->fd, data, room, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0) {
		/* One byte more than there is room for asks for `writable`. */
		(void)kb_ssh_channel_write(sp->ch, data, (size_t)n);
		if (kb_ssh_channel_room(sp->ch) == 0)
			(void)kb_ssh_channel_write(sp->ch, data, 1);
		return;
	}
	sp->fd_eof = true;
	kb_ssh_channel_eof(sp->ch);
}

static void on_fd(int fd, unsigned events, void *arg)
{
	struct kb_ssh_splice *sp = arg;

	if (events & KB_IO_WRITE)
		write_fd(sp);
	if (events & KB_IO_READ)
		read_fd(sp);
	finish_if_done(sp);
}

static void on_data(
	struct kb_ssh_channel *ch, bool is_err, const uint8_t *data, size_t len, void *arg)
{
	struct kb_ssh_splice *sp = arg;
	struct kb_err err;

	if (is_err) {
		KB_FREE char *text = kb_escape_dup(data, KB_MIN(len, 400));

		kb_log_warn("from the machine: %s", text ? text : "");
		return;
	}
	if (kb_buf_append(&sp->in, data, len, &err) < 0) {
		kb_log_error("a connection is cut: %s", err.msg);
		shutdown(sp->fd, SHUT_RDWR);
		return;
	}
	write_fd(sp);
	if (kb_buf_len(&sp->in) >= IN_HIGH)
		kb_ssh_channel_pause(ch, true);
	watch(sp);
}

static void on_writable(struct kb_ssh_channel *ch, void *arg)
{
	watch(arg);
}

static void on_eof(struct kb_ssh_channel *ch, void *arg)
{
	struct kb_ssh_splice *sp = arg;

	sp->ch_eof = true;
	write_fd(sp);
	watch(sp);
}

static void on_closed(struct kb_ssh_channel *ch, const struct kb_ssh_exit *exit,
	const struct kb_err *why, void *arg)
{
	struct kb_ssh_splice *sp = arg;

	sp->ch = NULL;
	sp->over = sp->ch_eof = true;
	if (exit)
		sp->exit = *exit;
	if (why)
		sp->why = *why;
	write_fd(sp);
	finish_if_done(sp);
}

const struct kb_ssh_channel_ops kb_ssh_splice_ops = {
	.data = on_data, .writable = on_writable, .eof = on_eof, .closed = on_closed};

int kb_ssh_splice_create(struct kb_loop *loop, int fd, kb_ssh_splice_fn over, void *arg,
	struct kb_ssh_splice **ret, struct kb_err *err)
{
	KB_CLOSE int guard = fd;
	struct kb_ssh_splice *sp = calloc(1, sizeof(*sp));
	int r;

	if (!sp)
		return kb_err_nomem(err);
	sp->fd = -1;
	sp->fn = over;
	sp->arg = arg;
	kb_buf_init(&sp->in, IN_HIGH + KB_SSH_CHUNK);
	r = kb_fd_nonblock(guard, err);
	if (r == 0)
		r = kb_loop_io(loop, guard, 0, on_fd, sp, &sp->io, err);
	sp->fd = kb_steal_fd(&guard);
	if (r < 0)
		kb_ssh_splice_destroy(sp);
	else
		*ret = sp;
	return r;
}

void kb_ssh_splice_start(struct kb_ssh_splice *sp, struct kb_ssh_channel *ch)
{
	sp->ch = ch;
	watch(sp);
}

void kb_ssh_splice_keep(struct kb_ssh_splice *sp)
{
	sp->kept = true;
}

int kb_ssh_splice_release(struct kb_ssh_splice *sp)
{
	kb_source_destroy(sp->io);
	sp->io = NULL;
	return kb_steal_fd(&sp->fd);
}

void kb_ssh_splice_destroy(struct kb_ssh_splice *sp)
{
	if (!sp)
		return;
	kb_ssh_channel_close(sp->ch);
	kb_source_destroy(sp->io);
	kb_close(&sp->fd);
	kb_buf_finish(&sp->in);
	free(sp);
}
