/* Positions in the two directions:
 *
 *	out:  acked ≤ sent ≤ reached ≤ acked + length of `out`, and one more once the end is sent
 *	in:   told ≤ handed ≤ received
 *
 * `out` holds the bytes from `acked` on, sent or not; `in` those from `handed` to `received`. A new
 * carrier sets both `acked` and `sent` to what the peer has.
 *
 * Callbacks run from the loop or from a carrier's packet, never from within a call of the user's;
 * `later` is a timer of 0 ms for what must wait until then.
 */
#include "resume.h"

#include <errno.h>
#include <sys/socket.h>

#include "fd.h"

#define LOCAL_READ (64u << 10)
#define TELL_BYTES (64u << 10) /* handed on and not acknowledged yet: then at once */
#define TELL_MS	   10	       /* else after so long */

struct kb_resume {
	const struct kb_resume_ops *ops;
	void *arg;
	int fd;
	struct kb_source *io, *tell, *ping, *later;
	struct kb_carrier *carrier; /* NULL: none */
	struct kb_buf out, in;
	uint64_t acked, sent;
	uint64_t reached; /* the most that was ever sent: what the peer can have */
	uint64_t received, handed, told;
	bool out_end;  /* the local side ended: so does the stream, behind the bytes of `out` */
	bool out_over; /* … and the peer knows */
	bool in_end;   /* the peer's end came; it counts in `received` */
	bool in_over;  /* … and was handed on */
	bool told_over;
	struct kb_err why; /* for `stranded`; code 0: nothing to tell */
};

static uint64_t out_last(const struct kb_resume *r)
{
	return r->acked + kb_buf_len(&r->out);
}

bool kb_resume_is_carried(const struct kb_resume *r)
{
	return r->carrier != NULL;
}

uint64_t kb_resume_handed(const struct kb_resume *r)
{
	return r->handed;
}

uint64_t kb_resume_peer_has(const struct kb_resume *r)
{
	return r->acked + r->out_over;
}

static void tell_later(struct kb_resume *r)
{
	(void)kb_source_arm(r->later, 0, NULL);
}

static void strand(struct kb_resume *r, const struct kb_err *why)
{
	kb_carrier_destroy(r->carrier);
	r->carrier = NULL;
	r->why = *why;
	tell_later(r);
}

static void violation(struct kb_resume *r, const char *what)
{
	struct kb_err err;

	kb_err_set(&err, KB_ERR_INVALID, "the other side %s", what);
	strand(r, &err);
}

static bool send_packet(struct kb_resume *r, enum kb_resume_kind kind, uint64_t offset,
	const uint8_t *data, size_t len)
{
	const struct kb_packet packet = {
		.kind = (uint8_t)kind, .offset = offset, .data = data, .len = len};

	return r->carrier && kb_carrier_send(r->carrier, &packet);
}

static void watch(struct kb_resume *r)
{
	unsigned events = 0;

	if (!r->out_end && kb_buf_len(&r->out) < KB_RESUME_WINDOW)
		events |= KB_IO_READ;
	if (kb_buf_len(&r->in) > 0)
		events |= KB_IO_WRITE;
	(void)kb_source_set_events(r->io, events, NULL);
}

/* ---- From here to the peer ------------------------------------------------------------------- */

static void send_out(struct kb_resume *r)
{
	while (r->sent < out_last(r)) {
		size_t at = (size_t)(r->sent - r->acked);
		size_t len = KB_MIN(kb_buf_len(&r->out) - at, (size_t)KB_PACKET_DATA_MAX);

		if (!send_packet(r, KB_RESUME_DATA, r->sent, kb_buf_data(&r->out) + at, len))
			return;
		r->sent += len;
		r->reached = KB_MAX(r->reached, r->sent);
	}
	if (r->out_end && !r->out_over && r->sent == out_last(r) &&
		send_packet(r, KB_RESUME_FIN, r->sent, NULL, 0)) {
		r->sent++;
		r->reached = KB_MAX(r->reached, r->sent);
	}
}

static void read_local(struct kb_resume *r)
{
	size_t room = KB_MIN(KB_RESUME_WINDOW - kb_buf_len(&r->out), (size_t)LOCAL_READ);
	uint8_t *to;
	ssize_t n;

	if (r->out_end || room == 0 || kb_buf_reserve(&r->out, room, &to, NULL) < 0)
		return;
	n = read(r->fd, to, room);
	if (n > 0)
		kb_buf_commit(&r->out, (size_t)n);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		r->out_end = true;
	send_out(r);
}

/* Everything before `offset` is the peer's. False: it cannot have that. */
static bool take_ack(struct kb_resume *r, uint64_t offset)
{
	uint64_t last = out_last(r);

	if (offset < r->acked || offset > r->reached)
		return false;
	r->out_over = offset > last;
	kb_buf_consume(&r->out, (size_t)(KB_MIN(offset, last) - r->acked));
	r->acked = KB_MIN(offset, last);
	/* Sent over an earlier carrier, and not again over this one yet. */
	r->sent = KB_MAX(r->sent, offset);
	if (r->out_over && r->in_over)
		tell_later(r);
	return true;
}

/* ---- From the peer to here ------------------------------------------------------------------- */

static void tell(struct kb_resume *r)
{
	if (send_packet(r, KB_RESUME_ACK, r->handed, NULL, 0))
		r->told = r->handed;
}

static void tell_soon(struct kb_resume *r)
{
	if (r->handed - r->told >= TELL_BYTES || r->in_over)
		tell(r);
	else if (r->handed != r->told)
		(void)kb_source_arm(r->tell, TELL_MS, NULL);
}

static void on_tell(void *arg)
{
	tell(arg);
}

/* Nobody reads here any more: it is taken all the same, so that the peer gets on with its end. */
static void drop_local(struct kb_resume *r)
{
	r->handed += kb_buf_len(&r->in);
	kb_buf_finish(&r->in);
	r->out_end = true;
	send_out(r);
}

static void write_local(struct kb_resume *r)
{
	while (kb_buf_len(&r->in) > 0) {
		ssize_t n = send(r->fd, kb_buf_data(&r->in), kb_buf_len(&r->in), MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			drop_local(r);
			break;
		}
		kb_buf_consume(&r->in, (size_t)n);
		r->handed += (uint64_t)n;
	}
	if (r->in_end && !r->in_over && kb_buf_len(&r->in) == 0) {
		(void)shutdown(r->fd, SHUT_WR);
		r->in_over = true;
		r->handed++;
		if (r->out_over)
			tell_later(r);
	}
	tell_soon(r);
}

static void take_data(struct kb_resume *r, const struct kb_packet *packet)
{
	uint64_t known = r->received - packet->offset;

	if (packet->offset > r->received || r->in_end) {
		if (packet->offset > r->received)
			violation(r, "left bytes out");
		return;
	}
	if (known >= packet->len)
		return; /* sent again, and had come after all */
	if (kb_buf_append(&r->in, packet->data + known, packet->len - (size_t)known, NULL) < 0) {
		violation(r, "sent more than was allowed");
		return;
	}
	r->received += packet->len - known;
	write_local(r);
}

static void take_end(struct kb_resume *r, const struct kb_packet *packet)
{
	if (r->in_end) {
		tell(r);
		return;
	}
	if (packet->offset != r->received) {
		violation(r, "ended in a place where it is not");
		return;
	}
	r->in_end = true;
	r->received++;
	write_local(r);
}

/* ---- The carrier ----------------------------------------------------------------------------- */

static void on_packet(struct kb_carrier *carrier, const struct kb_packet *packet, void *arg)
{
	struct kb_resume *r = arg;
	bool fine = true;

	switch (packet->kind) {
	case KB_RESUME_SYN:
	case KB_RESUME_SYNACK:
		r->ops->handshake(r, packet, r->arg);
		return;
	case KB_RESUME_DATA:
		take_data(r, packet);
		break;
	case KB_RESUME_FIN:
		take_end(r, packet);
		break;
	case KB_RESUME_PING:
	case KB_RESUME_ACK:
		fine = take_ack(r, packet->offset);
		break;
	default:
		fine = false;
	}
	if (!fine)
		violation(r, "said what it cannot");
	else if (packet->kind == KB_RESUME_PING)
		tell(r);
	send_out(r);
	watch(r);
}

static void on_room(struct kb_carrier *carrier, void *arg)
{
	struct kb_resume *r = arg;

	if (r->told != r->handed)
		tell(r);
	send_out(r);
}

static void on_ended(struct kb_carrier *carrier, const struct kb_err *why, void *arg)
{
	struct kb_err err;

	kb_err_set(&err, KB_ERR_CLOSED, "%s", why ? why->msg : "the connection was closed");
	strand(arg, &err);
}

static const struct kb_carrier_ops carrier_ops = {on_packet, on_room, on_ended};

static void on_ping(void *arg)
{
	struct kb_resume *r = arg;
	struct kb_err err;

	if (!r->carrier)
		return;
	if (kb_now_mono() - kb_carrier_heard(r->carrier) > KB_RESUME_DEAD_MS * INT64_C(1000000)) {
		kb_err_set(&err, KB_ERR_TIMEOUT, "nothing was heard for %d s",
			KB_RESUME_DEAD_MS / 1000);
		strand(r, &err);
		return;
	}
	if (send_packet(r, KB_RESUME_PING, r->handed, NULL, 0))
		r->told = r->handed;
	(void)kb_source_arm(r->ping, KB_RESUME_PING_MS, NULL);
}

int kb_resume_carry(
	struct kb_resume *r, struct kb_carrier *carrier, uint64_t peer_has, struct kb_err *err)
{
	kb_carrier_destroy(r->carrier);
	r->carrier = NULL;
	r->why.code = 0;
	if (!take_ack(r, peer_has)) {
		kb_carrier_destroy(carrier);
		return kb_err_set(err, KB_ERR_INVALID,
			"the other side's place in the stream is not one it can be at");
	}
	r->carrier = carrier;
	kb_carrier_assign(carrier, &carrier_ops, r);
	r->sent = r->acked + r->out_over;
	tell(r);
	send_out(r);
	watch(r);
	return kb_source_arm(r->ping, KB_RESUME_PING_MS, err);
}

struct kb_carrier *kb_resume_release(struct kb_resume *r)
{
	struct kb_carrier *carrier = r->carrier;

	r->carrier = NULL;
	return carrier;
}

/* ---- The object ------------------------------------------------------------------------------ */

static void on_io(int fd, unsigned events, void *arg)
{
	struct kb_resume *r = arg;

	if (events & KB_IO_READ)
		read_local(r);
	if (events & KB_IO_WRITE)
		write_local(r);
	watch(r);
}

static void on_later(void *arg)
{
	struct kb_resume *r = arg;
	struct kb_err why = r->why;

	r->why.code = 0;
	if (r->out_over && r->in_over && !r->told_over) {
		r->told_over = true;
		r->ops->over(r, r->arg);
	} else if (why.code && !r->told_over && !r->carrier) {
		r->ops->stranded(r, &why, r->arg);
	}
}

static int set_up(struct kb_resume *r, struct kb_loop *loop, struct kb_err *err)
{
	int e = kb_fd_nonblock(r->fd, err);

	if (e == 0)
		e = kb_loop_io(loop, r->fd, KB_IO_READ, on_io, r, &r->io, err);
	if (e == 0)
		e = kb_loop_timer(loop, on_tell, r, &r->tell, err);
	if (e == 0)
		e = kb_loop_timer(loop, on_ping, r, &r->ping, err);
	if (e == 0)
		e = kb_loop_timer(loop, on_later, r, &r->later, err);
	return e;
}

int kb_resume_create(struct kb_loop *loop, int fd, const struct kb_resume_ops *ops, void *arg,
	struct kb_resume **ret, struct kb_err *err)
{
	struct kb_resume *r = calloc(1, sizeof(*r));
	int e;

	if (!r) {
		kb_close(&fd);
		return kb_err_nomem(err);
	}
	*r = (struct kb_resume){.ops = ops, .arg = arg, .fd = fd};
	kb_buf_init(&r->out, KB_RESUME_WINDOW);
	kb_buf_init(&r->in, KB_RESUME_WINDOW);
	e = set_up(r, loop, err);
	if (e < 0) {
		kb_resume_destroy(r);
		return e;
	}
	*ret = r;
	return 0;
}

void kb_resume_destroy(struct kb_resume *r)
{
	if (!r)
		return;
	kb_carrier_destroy(r->carrier);
	kb_source_destroy(r->io);
	kb_source_destroy(r->tell);
	kb_source_destroy(r->ping);
	kb_source_destroy(r->later);
	kb_close(&r->fd);
	kb_buf_finish(&r->out);
	kb_buf_finish(&r->in);
	free(r);
}
