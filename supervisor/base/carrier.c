#include "carrier.h"

#include <errno.h>
#include <string.h>

#include "fd.h"

#define READ_SIZE      (64u << 10)
#define READS_PER_WAKE 4

struct kb_carrier {
	int fd;
	struct kb_source *io;
	const struct kb_carrier_ops *ops;
	void *arg;
	struct kb_buf in, out;
	int64_t heard;
	bool full;  /* somebody waits for room */
	bool ended; /* and told so */
	bool dead;  /* destroyed; memory stays until no callback runs */
	unsigned depth;
};

static void free_memory(struct kb_carrier *c)
{
	kb_buf_finish(&c->in);
	kb_buf_finish(&c->out);
	free(c);
}

static void cut_ties(struct kb_carrier *c)
{
	kb_source_destroy(c->io);
	c->io = NULL;
	kb_close(&c->fd);
}

void kb_carrier_destroy(struct kb_carrier *c)
{
	if (!c || c->dead)
		return;
	c->dead = true;
	cut_ties(c);
	if (c->depth == 0)
		free_memory(c);
}

static void leave(struct kb_carrier *c)
{
	if (--c->depth == 0 && c->dead)
		free_memory(c);
}

static void end(struct kb_carrier *c, const struct kb_err *why)
{
	if (c->ended || c->dead)
		return;
	c->ended = true;
	cut_ties(c);
	c->ops->ended(c, why, c->arg);
}

static void end_errno(struct kb_carrier *c, int errnum, const char *what)
{
	struct kb_err err;

	kb_err_sys(&err, errnum, "%s", what);
	end(c, &err);
}

static void watch(struct kb_carrier *c)
{
	if (c->io)
		(void)kb_source_set_events(
			c->io, KB_IO_READ | (kb_buf_len(&c->out) ? KB_IO_WRITE : 0), NULL);
}

/* ---- Writing --------------------------------------------------------------------------------- */

/* A failed write ends nothing: the other side's last words are read first. */
static void flush(struct kb_carrier *c)
{
	while (kb_buf_len(&c->out) > 0) {
		ssize_t n = write(c->fd, kb_buf_data(&c->out), kb_buf_len(&c->out));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		kb_buf_consume(&c->out, n > 0 ? (size_t)n : kb_buf_len(&c->out));
	}
	watch(c);
}

static bool has_room(const struct kb_carrier *c)
{
	return kb_buf_len(&c->out) + KB_PACKET_WIRE_MAX <= c->out.max;
}

bool kb_carrier_send(struct kb_carrier *c, const struct kb_packet *packet)
{
	bool was_empty = kb_buf_len(&c->out) == 0;

	if (c->dead || c->ended || !has_room(c) || kb_packet_encode(packet, &c->out, NULL) < 0) {
		c->full = true;
		return false;
	}
	if (was_empty)
		flush(c);
	return true;
}

/* ---- Reading --------------------------------------------------------------------------------- */

/* Whatever stands between two zero bytes; the bytes up to the first belong to something older. */
static void take_packets(struct kb_carrier *c)
{
	struct kb_packet packet;

	while (!c->dead && !c->ended && kb_buf_len(&c->in) > 0) {
		uint8_t *bytes = kb_buf_data(&c->in);
		uint8_t *zero = memchr(bytes, 0, kb_buf_len(&c->in));
		size_t len = zero ? (size_t)(zero - bytes) : kb_buf_len(&c->in);

		if (!zero && len <= KB_PACKET_WIRE_MAX)
			return;
		if (zero && len > 0 && kb_packet_decode(bytes, len, &packet))
			c->ops->packet(c, &packet, c->arg);
		kb_buf_consume(&c->in, len + (zero != NULL));
	}
}

/* False when there is nothing more for now. */
static bool read_some(struct kb_carrier *c)
{
	uint8_t *to;
	struct kb_err err;
	ssize_t n;

	if (kb_buf_reserve(&c->in, READ_SIZE, &to, &err) < 0) {
		end(c, &err);
		return false;
	}
	n = read(c->fd, to, READ_SIZE);
	if (n > 0) {
		kb_buf_commit(&c->in, (size_t)n);
		c->heard = kb_now_mono();
		take_packets(c);
		return n == READ_SIZE;
	}
	if (n == 0)
		end(c, NULL);
	else if (errno != EAGAIN && errno != EINTR)
		end_errno(c, errno, "the connection broke");
	return false;
}

static void on_io(int fd, unsigned events, void *arg)
{
	struct kb_carrier *c = arg;

	c->depth++;
	if (events & KB_IO_WRITE)
		flush(c);
	for (int i = 0; i < READS_PER_WAKE && events & KB_IO_READ && !c->dead && !c->ended; i++)
		if (!read_some(c))
			break;
	if (c->full && !c->dead && !c->ended && has_room(c)) {
		c->full = false;
		c->ops->room(c, c->arg);
	}
	leave(c);
}

/* ---- The object ------------------------------------------------------------------------------ */

int kb_carrier_create(struct kb_loop *loop, int fd, const struct kb_carrier_ops *ops, void *arg,
	struct kb_carrier **ret, struct kb_err *err)
{
	struct kb_carrier *c = calloc(1, sizeof(*c));
	int r;

	if (!c) {
		kb_close(&fd);
		return kb_err_nomem(err);
	}
	*c = (struct kb_carrier){.fd = fd, .ops = ops, .arg = arg, .heard = kb_now_mono()};
	kb_buf_init(&c->in, KB_PACKET_WIRE_MAX + READ_SIZE);
	kb_buf_init(&c->out, KB_CARRIER_QUEUE);
	r = kb_fd_nonblock(fd, err);
	if (r == 0)
		r = kb_loop_io(loop, fd, KB_IO_READ, on_io, c, &c->io, err);
	if (r < 0) {
		kb_carrier_destroy(c);
		return r;
	}
	*ret = c;
	return 0;
}

void kb_carrier_assign(struct kb_carrier *c, const struct kb_carrier_ops *ops, void *arg)
{
	c->ops = ops;
	c->arg = arg;
}

int64_t kb_carrier_heard(const struct kb_carrier *c)
{
	return c->heard;
}
