/* Lines: theory of operation.
 *
 * The calling end chooses a random number, the connection, and says CALL until an ACCEPT comes.
 * From then on both ends send DATA, each byte under its number in its direction's stream, and keep
 * what they sent until the other end has acknowledged it, which it does when the byte has left for
 * its user. So an acknowledgement is both: nothing has to be sent again, and there is room for
 * more.
 *
 * What can go wrong on a carrier ends in one of three ways. Bytes are missing (a packet's number is
 * beyond what was received): the receiver says AGAIN, and sending goes back to where it names. The
 * carrier is gone, or brings nothing for too long: the calling end says RECALL over the next one,
 * both tell how far they got, and sending goes on from there. The other process is not the one that
 * had the connection: GONE.
 *
 * A packet names its connection, so whatever an earlier connection left on the way is passed over,
 * and of the same connection a byte's number says whether it is already here: nothing that arrives
 * late, twice or cut does harm.
 *
 * END says that no more will be sent. The other end answers GONE once it has everything. It is sent
 * again until then, for a bounded time.
 */
#include "line.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "buf.h"
#include "fd.h"
#include "packet.h"
#include "util.h"

#define OUT_HIGH   (128u << 10) /* packets made and not written; more are made when it is less */
#define READ_MAX   (64u << 10)	/* per wake-up */
#define ACK_BYTES  (128u << 10) /* delivered and not acknowledged: not to be put off any longer */
#define ACK_MS	   5
#define CALL_MS	   50 /* between two calls; doubles */
#define CALL_MAX   1000
#define PROBE_MS   3000 /* silence after which the other end is asked */
#define AGAIN_MS   200	/* between two requests for the same bytes */
#define END_MS	   300
#define END_MAX_MS 3000 /* for the other end to take the end */
#define HOLD_MIN   1000
#define HOLD_MAX   3600000

struct kb_line {
	struct kb_loop *loop;
	const struct kb_line_ops *ops;
	void *arg;
	bool caller, listening;
	int64_t hold_ms;

	/* The connection. */
	uint64_t id; /* 0: there is none */
	bool agreed; /* CALL and ACCEPT went over this carrier */
	bool ever;   /* over any */
	bool held;   /* bytes do not flow, and it has only so much time */
	uint64_t attempt;
	int inner;
	struct kb_source *inner_io;
	bool inner_eof; /* our user closed it */

	struct kb_buf kept;	    /* from byte `acked` of our stream on */
	uint64_t acked, next, sent; /* next: to be sent; sent: ever sent */
	bool end_due;
	int64_t end_since;

	struct kb_buf taken;	 /* received and not yet delivered */
	uint64_t received, told; /* told: acknowledged */
	bool end_seen;
	int64_t asked_again;
	uint64_t asked_from;

	/* The carrier. */
	int carrier;
	struct kb_source *carrier_io;
	struct kb_packet_decoder in;
	struct kb_buf out;
	int64_t heard;
	int64_t call_ms;

	struct kb_source *ack, *pulse, *hold, *kick;
	bool ack_armed;
	bool lost; /* to be told, by the kick */
	struct kb_err lost_why;
	bool over;
	struct kb_err over_why; /* code 0: an orderly end */
	bool upped;
};

static void serve(struct kb_line *l);

/* ---- The ends of things ---------------------------------------------------------------------- */

static void kick(struct kb_line *l)
{
	(void)kb_source_arm(l->kick, 0, NULL);
}

static uint64_t delivered(const struct kb_line *l)
{
	return l->received - kb_buf_len(&l->taken);
}

/* Bytes do not flow: its time runs. */
static void hold(struct kb_line *l)
{
	if (l->ever && !l->held)
		(void)kb_source_arm(l->hold, l->hold_ms, NULL);
	l->held = l->ever;
}

static void unhold(struct kb_line *l)
{
	if (l->held)
		kb_source_disarm(l->hold);
	l->held = false;
}

static void close_inner(struct kb_line *l)
{
	kb_source_destroy(l->inner_io);
	l->inner_io = NULL;
	kb_close(&l->inner);
}

static void forget_connection(struct kb_line *l)
{
	close_inner(l);
	kb_buf_finish(&l->kept);
	kb_buf_finish(&l->taken);
	unhold(l);
	kb_source_disarm(l->ack);
	l->id = 0;
	l->ack_armed = l->agreed = l->ever = l->inner_eof = false;
	l->end_due = l->end_seen = l->upped = false;
	l->acked = l->next = l->sent = l->received = l->told = 0;
	l->attempt = 0;
	l->asked_again = 0;
}

/* why NULL: one of the ends closed it. */
static void end_connection(struct kb_line *l, const struct kb_err *why)
{
	if (l->id == 0)
		return;
	forget_connection(l);
	l->over = true;
	l->over_why = why ? *why : (struct kb_err){0};
	kick(l);
}

static void forget_carrier(struct kb_line *l)
{
	kb_source_destroy(l->carrier_io);
	l->carrier_io = NULL;
	kb_close(&l->carrier);
	kb_buf_finish(&l->out);
	kb_packet_decoder_reset(&l->in);
	kb_source_disarm(l->pulse);
	hold(l);
	l->agreed = false;
}

static void lose_carrier(struct kb_line *l, const struct kb_err *why)
{
	forget_carrier(l);
	l->lost = true;
	l->lost_why = *why;
	kick(l);
}

static void on_kick(void *arg)
{
	struct kb_line *l = arg;
	struct kb_err why = l->over_why;
	bool over = l->over, lost = l->lost, up = l->agreed && !l->upped;

	l->over = l->lost = false;
	l->upped = l->agreed;
	if (up && l->ops->up)
		l->ops->up(l->arg);
	if (lost)
		l->ops->lost(&l->lost_why, l->arg);
	/* The last: a caller is destroyed in it. */
	if (over)
		l->ops->over(why.code ? &why : NULL, l->arg);
	else
		serve(l);
}

static void broke_protocol(struct kb_line *l, const char *what)
{
	struct kb_err err;

	kb_err_set(&err, KB_ERR_INVALID, "the other end of the line %s", what);
	end_connection(l, &err);
}

/* ---- Sending --------------------------------------------------------------------------------- */

static void put(struct kb_line *l, const struct kb_packet *packet)
{
	if (l->carrier >= 0)
		(void)kb_packet_encode(packet, &l->out, NULL);
}

static void put_gone(struct kb_line *l, uint64_t id)
{
	put(l, &(struct kb_packet){.kind = KB_PACKET_GONE, .line = id});
}

/* A packet about the connection as it stands. */
static void put_state(struct kb_line *l, enum kb_packet_kind kind, uint64_t number)
{
	l->told = delivered(l);
	put(l, &(struct kb_packet){.kind = kind, .line = l->id, .number = number, .ack = l->told});
	kb_source_disarm(l->ack);
	l->ack_armed = false;
}

static void put_call(struct kb_line *l)
{
	uint8_t ms[4];
	struct kb_packet call = {.kind = l->ever ? KB_PACKET_RECALL : KB_PACKET_CALL,
		.line = l->id,
		.number = l->attempt,
		.ack = l->received,
		.data = ms,
		.len = sizeof(ms)};

	for (int i = 0; i < 4; i++)
		ms[i] = (uint8_t)(l->hold_ms >> (8 * i));
	put(l, &call);
}

static uint64_t kept_end(const struct kb_line *l)
{
	return l->acked + kb_buf_len(&l->kept);
}

static void put_data(struct kb_line *l)
{
	size_t len = KB_MIN((size_t)(kept_end(l) - l->next), KB_PACKET_BYTES);

	l->told = delivered(l);
	put(l, &(struct kb_packet){.kind = KB_PACKET_DATA,
		       .line = l->id,
		       .number = l->next,
		       .ack = l->told,
		       .data = kb_buf_data(&l->kept) + (l->next - l->acked),
		       .len = len});
	kb_source_disarm(l->ack);
	l->ack_armed = false;
	l->next += len;
	l->sent = KB_MAX(l->sent, l->next);
}

static void put_end(struct kb_line *l)
{
	if (!l->end_since)
		l->end_since = kb_now_mono();
	put_state(l, KB_PACKET_END, l->next);
	l->end_due = false;
	(void)kb_source_arm(l->pulse, END_MS, NULL);
}

static void make_packets(struct kb_line *l)
{
	while (l->agreed && kb_buf_len(&l->out) < OUT_HIGH && l->next < kept_end(l))
		put_data(l);
	if (l->agreed && l->end_due && l->next == kept_end(l))
		put_end(l);
}

static void flush(struct kb_line *l)
{
	struct kb_err err;

	while (l->carrier >= 0 && kb_buf_len(&l->out) > 0) {
		ssize_t n = write(l->carrier, kb_buf_data(&l->out), kb_buf_len(&l->out));

		if (n > 0) {
			kb_buf_consume(&l->out, (size_t)n);
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		/* A broken one is noticed by reading: there may be last words. */
		if (n < 0 && errno != EAGAIN && errno != EPIPE && errno != ECONNRESET) {
			kb_err_sys(&err, errno, "the line's carrier cannot be written");
			lose_carrier(l, &err);
		}
		break;
	}
}

/* ---- Our user -------------------------------------------------------------------------------- */

static void deliver(struct kb_line *l)
{
	while (l->inner >= 0 && kb_buf_len(&l->taken) > 0) {
		ssize_t n = send(l->inner, kb_buf_data(&l->taken), kb_buf_len(&l->taken),
			MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		/* Nobody reads there any more. */
		kb_buf_consume(&l->taken, n < 0 ? kb_buf_len(&l->taken) : (size_t)n);
	}
	if (l->end_seen && kb_buf_len(&l->taken) == 0) {
		put_gone(l, l->id);
		end_connection(l, NULL);
	}
}

static void acknowledge(struct kb_line *l)
{
	uint64_t due = delivered(l) - l->told;

	if (!l->agreed || due == 0)
		return;
	if (due >= ACK_BYTES) {
		put_state(l, KB_PACKET_DATA, l->next);
	} else if (!l->ack_armed) {
		l->ack_armed = true;
		(void)kb_source_arm(l->ack, ACK_MS, NULL);
	}
}

static void on_ack(void *arg)
{
	struct kb_line *l = arg;

	l->ack_armed = false;
	if (l->agreed && delivered(l) > l->told)
		put_state(l, KB_PACKET_DATA, l->next);
	serve(l);
}

static void read_inner(struct kb_line *l)
{
	size_t room = KB_LINE_WINDOW - kb_buf_len(&l->kept);
	uint8_t *at;
	ssize_t n;

	if (l->inner_eof || room == 0 ||
		kb_buf_reserve(&l->kept, KB_MIN(room, READ_MAX), &at, NULL) < 0)
		return;
	n = recv(l->inner, at, KB_MIN(room, READ_MAX), MSG_DONTWAIT);
	if (n > 0)
		kb_buf_commit(&l->kept, (size_t)n);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
		l->inner_eof = l->end_due = true;
		/* A call nobody took: there is no other end to tell. */
		if (!l->ever)
			end_connection(l, NULL);
	}
}

static void on_inner(int fd, unsigned events, void *arg)
{
	struct kb_line *l = arg;

	if (events & KB_IO_READ)
		read_inner(l);
	serve(l);
}

/* ---- Watching -------------------------------------------------------------------------------- */

static void watch(struct kb_line *l)
{
	unsigned inner = 0, carrier = KB_IO_READ;

	if (!l->inner_eof && kb_buf_len(&l->kept) < KB_LINE_WINDOW)
		inner |= KB_IO_READ;
	if (kb_buf_len(&l->taken) > 0)
		inner |= KB_IO_WRITE;
	if (kb_buf_len(&l->out) > 0)
		carrier |= KB_IO_WRITE;
	if (l->inner_io)
		(void)kb_source_set_events(l->inner_io, inner, NULL);
	if (l->carrier_io)
		(void)kb_source_set_events(l->carrier_io, carrier, NULL);
}

static void serve(struct kb_line *l)
{
	deliver(l);
	acknowledge(l);
	make_packets(l);
	flush(l);
	watch(l);
}

/* ---- Packets --------------------------------------------------------------------------------- */

static void take_ack(struct kb_line *l, uint64_t ack)
{
	if (ack > l->sent) {
		broke_protocol(l, "acknowledged what was not sent");
		return;
	}
	if (ack <= l->acked)
		return;
	kb_buf_consume(&l->kept, (size_t)(ack - l->acked));
	l->acked = ack;
	l->next = KB_MAX(l->next, ack);
}

/* Sending goes on from where the other end is. */
static void rewind_to(struct kb_line *l, uint64_t from)
{
	if (from > l->sent)
		broke_protocol(l, "has more than was sent");
	else
		l->next = KB_MAX(from, l->acked);
}

static void ask_again(struct kb_line *l)
{
	int64_t now = kb_now_mono();

	if (l->asked_from == l->received && now - l->asked_again < (int64_t)AGAIN_MS * 1000000)
		return;
	l->asked_from = l->received;
	l->asked_again = now;
	put(l, &(struct kb_packet){.kind = KB_PACKET_AGAIN, .line = l->id, .ack = l->received});
}

static void agree(struct kb_line *l, uint64_t from)
{
	rewind_to(l, from);
	if (l->id == 0)
		return;
	l->agreed = l->ever = true;
	l->upped = false;
	l->end_due = l->inner_eof;
	unhold(l);
	(void)kb_source_arm(l->pulse, PROBE_MS, NULL);
	kick(l);
}

static void on_data(struct kb_line *l, const struct kb_packet *p)
{
	size_t skip = (size_t)(l->received - p->number);

	take_ack(l, p->ack);
	if (l->id == 0 || p->len == 0)
		return;
	if (p->number > l->received) {
		ask_again(l);
		return;
	}
	/* What was here already is acknowledged once more: the first time may be lost. */
	if (skip >= p->len) {
		put_state(l, KB_PACKET_DATA, l->next);
		return;
	}
	if (kb_buf_append(&l->taken, p->data + skip, p->len - skip, NULL) == 0)
		l->received += p->len - skip;
}

static void on_again(struct kb_line *l, const struct kb_packet *p)
{
	rewind_to(l, p->ack);
	l->end_due = l->inner_eof;
}

static void on_probe(struct kb_line *l, const struct kb_packet *p)
{
	take_ack(l, p->ack);
	if (l->id == 0)
		return;
	if (p->number > l->received)
		ask_again(l);
	put_state(l, KB_PACKET_DATA, l->next);
}

static void on_end(struct kb_line *l, const struct kb_packet *p)
{
	take_ack(l, p->ack);
	if (l->id == 0)
		return;
	if (p->number > l->received)
		ask_again(l);
	else
		l->end_seen = true;
}

static void on_accept(struct kb_line *l, const struct kb_packet *p)
{
	if (!l->agreed && p->number == l->attempt)
		agree(l, p->ack);
}

static void on_gone(struct kb_line *l, const struct kb_packet *p)
{
	struct kb_err err;

	kb_err_set(&err, KB_ERR_CLOSED, "the other end of the line knows the connection no more");
	/* Of a first call nobody can know yet. */
	if (l->ever)
		end_connection(l, l->inner_eof ? NULL : &err);
}

/* What is said about the connection, once it is agreed on. */
static void (*const handlers[KB_PACKET_KINDS_])(struct kb_line *, const struct kb_packet *) = {
	[KB_PACKET_DATA] = on_data,
	[KB_PACKET_AGAIN] = on_again,
	[KB_PACKET_PROBE] = on_probe,
	[KB_PACKET_END] = on_end,
};

/* ---- Calls ----------------------------------------------------------------------------------- */

static int open_inner(struct kb_line *l, int *ret_fd, struct kb_err *err);

static void take_hold(struct kb_line *l, const struct kb_packet *p)
{
	int64_t ms = 0;

	for (size_t i = 0; i < p->len && i < 4; i++)
		ms |= (int64_t)p->data[i] << (8 * i);
	l->hold_ms = KB_MIN(KB_MAX(ms, HOLD_MIN), HOLD_MAX);
}

static void accept_call(struct kb_line *l, const struct kb_packet *p)
{
	/* A repeated call is answered again, and changes nothing. */
	if (!l->agreed || p->number != l->attempt) {
		l->attempt = p->number;
		agree(l, p->ack);
	}
	if (l->id != 0)
		put(l, &(struct kb_packet){.kind = KB_PACKET_ACCEPT,
			       .line = l->id,
			       .number = l->attempt,
			       .ack = l->received});
}

static void on_new_call(struct kb_line *l, const struct kb_packet *p)
{
	struct kb_err err;
	int fd = -1;

	if (l->id != 0) {
		kb_err_set(&err, KB_ERR_CLOSED, "another call came over the line");
		end_connection(l, &err);
		return;
	}
	if (!l->listening || l->over)
		return;
	if (open_inner(l, &fd, &err) < 0)
		return;
	l->listening = false;
	l->id = p->line;
	take_hold(l, p);
	accept_call(l, p);
	if (l->id == 0)
		close(fd);
	else
		l->ops->called(fd, l->arg);
}

static void on_call(struct kb_line *l, const struct kb_packet *p)
{
	if (p->line == l->id)
		accept_call(l, p);
	else if (p->kind == KB_PACKET_CALL)
		on_new_call(l, p);
	else
		put_gone(l, p->line);
}

static void on_packet(struct kb_line *l, const struct kb_packet *p)
{
	bool ours = l->id != 0 && p->line == l->id;

	if (ours) {
		l->heard = kb_now_mono();
		if (l->agreed)
			unhold(l);
	}
	if (!l->caller && (p->kind == KB_PACKET_CALL || p->kind == KB_PACKET_RECALL))
		on_call(l, p);
	else if (ours && l->caller && p->kind == KB_PACKET_ACCEPT)
		on_accept(l, p);
	else if (ours && p->kind == KB_PACKET_GONE)
		on_gone(l, p);
	else if (ours && l->agreed && handlers[p->kind])
		handlers[p->kind](l, p);
	else if (!ours && !l->caller && handlers[p->kind])
		put_gone(l, p->line);
}

/* ---- The carrier ----------------------------------------------------------------------------- */

static void take_packets(struct kb_line *l, const uint8_t *data, size_t len)
{
	struct kb_packet p;
	size_t used;

	while (l->carrier >= 0 && kb_packet_decode(&l->in, data, len, &used, &p) > 0) {
		data += used;
		len -= used;
		on_packet(l, &p);
	}
}

static void on_carrier(int fd, unsigned events, void *arg)
{
	struct kb_line *l = arg;
	uint8_t data[READ_MAX];
	struct kb_err err;
	ssize_t n;

	if (events & KB_IO_READ) {
		n = read(fd, data, sizeof(data));
		if (n > 0) {
			take_packets(l, data, (size_t)n);
		} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
			if (n == 0)
				kb_err_set(&err, KB_ERR_CLOSED, "the line's carrier was closed");
			else
				kb_err_sys(&err, errno, "the line's carrier cannot be read");
			lose_carrier(l, &err);
		}
	}
	serve(l);
}

/* ---- Time ------------------------------------------------------------------------------------ */

static bool is_silent(const struct kb_line *l, int64_t ms)
{
	return kb_now_mono() - l->heard >= ms * 1000000;
}

static void call_on(struct kb_line *l)
{
	/* What is not written yet calls by itself. */
	if (kb_buf_len(&l->out) == 0)
		put_call(l);
	(void)kb_source_arm(l->pulse, l->call_ms, NULL);
	l->call_ms = KB_MIN(2 * l->call_ms, CALL_MAX);
}

static void probe(struct kb_line *l)
{
	struct kb_err err;

	(void)kb_source_arm(l->pulse, PROBE_MS, NULL);
	if (is_silent(l, KB_LINE_DEAD_MS)) {
		kb_err_set(&err, KB_ERR_TIMEOUT, "the line has been silent for %d s",
			KB_LINE_DEAD_MS / 1000);
		/* The answering end does not choose the carrier: it waits for a call. */
		if (l->caller)
			lose_carrier(l, &err);
		else
			hold(l);
		return;
	}
	if (l->caller || l->acked < l->sent)
		put_state(l, KB_PACKET_PROBE, l->sent);
}

/* Our user has closed and the other end does not say that it heard. */
static void end_on(struct kb_line *l)
{
	if (kb_now_mono() - l->end_since < (int64_t)END_MAX_MS * 1000000)
		l->end_due = true;
	else
		end_connection(l, NULL);
	(void)kb_source_arm(l->pulse, END_MS, NULL);
}

static void on_pulse(void *arg)
{
	struct kb_line *l = arg;

	if (l->id == 0 || l->carrier < 0)
		return;
	if (l->caller && !l->agreed)
		call_on(l);
	else if (l->agreed && l->end_since)
		end_on(l);
	else if (l->agreed)
		probe(l);
	serve(l);
}

static void on_hold(void *arg)
{
	struct kb_line *l = arg;
	struct kb_err err;

	kb_err_set(&err, KB_ERR_TIMEOUT, "the line was broken for more than %lld s",
		(long long)l->hold_ms / 1000);
	end_connection(l, &err);
}

/* ---- The object ------------------------------------------------------------------------------ */

static int open_inner(struct kb_line *l, int *ret_fd, struct kb_err *err)
{
	int pair[2], r = kb_fd_socketpair(false, pair, err);

	if (r < 0)
		return r;
	l->inner = pair[0];
	l->end_since = 0;
	r = kb_fd_nonblock(l->inner, err);
	if (r == 0)
		r = kb_loop_io(l->loop, l->inner, KB_IO_READ, on_inner, l, &l->inner_io, err);
	if (r < 0) {
		kb_close(&pair[0]);
		kb_close(&pair[1]);
		l->inner = -1;
		return r;
	}
	*ret_fd = pair[1];
	return 0;
}

static int create(struct kb_loop *loop, const struct kb_line_ops *ops, void *arg,
	struct kb_line **ret, struct kb_err *err)
{
	struct kb_line *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return kb_err_nomem(err);
	l->loop = loop;
	l->ops = ops;
	l->arg = arg;
	l->inner = l->carrier = -1;
	kb_buf_init(&l->kept, KB_LINE_WINDOW + READ_MAX);
	kb_buf_init(&l->taken, KB_LINE_WINDOW);
	kb_buf_init(&l->out, OUT_HIGH + 4 * KB_PACKET_MAX);
	r = kb_loop_timer(loop, on_kick, l, &l->kick, err);
	if (r == 0)
		r = kb_loop_timer(loop, on_ack, l, &l->ack, err);
	if (r == 0)
		r = kb_loop_timer(loop, on_pulse, l, &l->pulse, err);
	if (r == 0)
		r = kb_loop_timer(loop, on_hold, l, &l->hold, err);
	if (r < 0)
		kb_line_destroy(l);
	else
		*ret = l;
	return r;
}

int kb_line_call(struct kb_loop *loop, int64_t hold_ms, const struct kb_line_ops *ops, void *arg,
	struct kb_line **ret, int *ret_fd, struct kb_err *err)
{
	struct kb_line *l;
	int r = create(loop, ops, arg, &l, err);

	if (r < 0)
		return r;
	l->caller = true;
	l->hold_ms = hold_ms ? KB_MIN(KB_MAX(hold_ms, HOLD_MIN), HOLD_MAX) : KB_LINE_HOLD_MS;
	do {
		if (getrandom(&l->id, sizeof(l->id), 0) != sizeof(l->id))
			r = kb_err_sys(err, errno, "no random bytes");
	} while (r == 0 && l->id == 0);
	if (r == 0)
		r = open_inner(l, ret_fd, err);
	if (r < 0)
		kb_line_destroy(l);
	else
		*ret = l;
	return r;
}

int kb_line_answer(struct kb_loop *loop, const struct kb_line_ops *ops, void *arg,
	struct kb_line **ret, struct kb_err *err)
{
	return create(loop, ops, arg, ret, err);
}

void kb_line_listen(struct kb_line *l)
{
	l->listening = true;
}

int kb_line_carry(struct kb_line *l, int fd, struct kb_err *err)
{
	int r;

	forget_carrier(l);
	l->carrier = fd;
	r = kb_fd_nonblock(fd, err);
	if (r == 0)
		r = kb_loop_io(l->loop, fd, KB_IO_READ, on_carrier, l, &l->carrier_io, err);
	if (r < 0) {
		forget_carrier(l);
		return r;
	}
	l->heard = kb_now_mono();
	l->lost = false;
	l->call_ms = CALL_MS;
	l->attempt += l->caller;
	if (l->caller)
		(void)kb_source_arm(l->pulse, 0, NULL);
	kick(l);
	return 0;
}

void kb_line_drop(struct kb_line *l)
{
	forget_carrier(l);
}

bool kb_line_is_up(const struct kb_line *l)
{
	return l->agreed;
}

void kb_line_destroy(struct kb_line *l)
{
	if (!l)
		return;
	/* So that the other end need not hold what nobody will come back for. */
	if (l->agreed) {
		put_state(l, KB_PACKET_GONE, 0);
		flush(l);
	}
	forget_connection(l);
	forget_carrier(l);
	kb_source_destroy(l->ack);
	kb_source_destroy(l->pulse);
	kb_source_destroy(l->hold);
	kb_source_destroy(l->kick);
	free(l);
}
