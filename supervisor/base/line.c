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
#include "line_private.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "fd.h"
#include "os.h"
#include "util.h"

#define READ_MAX   (64u << 10)	/* per wake-up */
#define ACK_BYTES  (128u << 10) /* delivered and not acknowledged: not to be put off any longer */
#define CALL_MS	   50		/* between two calls; doubles */
#define CALL_MAX   1000
#define END_MAX_MS 3000 /* for the other end to take the end */

static void serve(struct kb_line *l);

/* ---- The ends of things ---------------------------------------------------------------------- */

void kb_line_kick(struct kb_line *l)
{
	(void)kb_source_arm(l->kick, 0, NULL);
}

/* Bytes do not flow: its time runs. */
static void hold(struct kb_line *l)
{
	if (l->ever && !l->held)
		(void)kb_source_arm(l->hold, l->hold_ms, NULL);
	l->held = l->ever;
}

void kb_line_unhold(struct kb_line *l)
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
	kb_line_unhold(l);
	kb_source_disarm(l->ack);
	l->id = 0;
	l->ack_armed = l->agreed = l->ever = l->inner_eof = false;
	l->end_due = l->end_seen = l->upped = false;
	l->acked = l->next = l->sent = l->received = l->told = 0;
	l->attempt = 0;
	l->asked_again = 0;
}

/* why NULL: one of the ends closed it. */
void kb_line_end(struct kb_line *l, const struct kb_err *why)
{
	if (l->id == 0)
		return;
	forget_connection(l);
	l->over = true;
	l->over_why = why ? *why : (struct kb_err){0};
	kb_line_kick(l);
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
	kb_line_kick(l);
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
		kb_line_put_gone(l, l->id);
		kb_line_end(l, NULL);
	}
}

static void acknowledge(struct kb_line *l)
{
	uint64_t due = kb_line_delivered(l) - l->told;

	if (!l->agreed || due == 0)
		return;
	if (due >= ACK_BYTES) {
		kb_line_put_state(l, KB_PACKET_DATA, l->next);
	} else if (!l->ack_armed) {
		l->ack_armed = true;
		(void)kb_source_arm(l->ack, KB_LINE_ACK_MS, NULL);
	}
}

static void on_ack(void *arg)
{
	struct kb_line *l = arg;

	l->ack_armed = false;
	if (l->agreed && kb_line_delivered(l) > l->told)
		kb_line_put_state(l, KB_PACKET_DATA, l->next);
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
			kb_line_end(l, NULL);
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
	kb_line_make_packets(l);
	flush(l);
	watch(l);
}

/* ---- The carrier ----------------------------------------------------------------------------- */

static void take_packets(struct kb_line *l, const uint8_t *data, size_t len)
{
	struct kb_packet p;
	size_t used;

	while (l->carrier >= 0 && kb_packet_decode(&l->in, data, len, &used, &p) > 0) {
		data += used;
		len -= used;
		kb_line_packet(l, &p);
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
		kb_line_put_call(l);
	(void)kb_source_arm(l->pulse, l->call_ms, NULL);
	l->call_ms = KB_MIN(2 * l->call_ms, CALL_MAX);
}

static void probe(struct kb_line *l)
{
	struct kb_err err;

	(void)kb_source_arm(l->pulse, KB_LINE_PROBE_MS, NULL);
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
		kb_line_put_state(l, KB_PACKET_PROBE, l->sent);
}

/* Our user has closed and the other end does not say that it heard. */
static void end_on(struct kb_line *l)
{
	if (kb_now_mono() - l->end_since < (int64_t)END_MAX_MS * 1000000)
		l->end_due = true;
	else
		kb_line_end(l, NULL);
	(void)kb_source_arm(l->pulse, KB_LINE_END_MS, NULL);
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
	kb_line_end(l, &err);
}

/* ---- The object ------------------------------------------------------------------------------ */

int kb_line_open_inner(struct kb_line *l, int *ret_fd, struct kb_err *err)
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
	kb_buf_init(&l->out, KB_LINE_OUT_HIGH + 4 * KB_PACKET_MAX);
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
	l->hold_ms = hold_ms ? KB_MIN(KB_MAX(hold_ms, KB_LINE_HOLD_MIN), KB_LINE_HOLD_MAX)
			     : KB_LINE_HOLD_MS;
	do {
		if (kb_os_random(&l->id, sizeof(l->id)) < 0)
			r = kb_err_sys(err, errno, "no random bytes");
	} while (r == 0 && l->id == 0);
	if (r == 0)
		r = kb_line_open_inner(l, ret_fd, err);
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
	kb_line_kick(l);
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
		kb_line_put_state(l, KB_PACKET_GONE, 0);
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
