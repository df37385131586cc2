/* A connection's bytes, both ways.
 *
 * Towards the network, they wait in `in` until they were looked at, then in `out`; what is no
 * longer looked at goes from `in` straight to the socket. They are reported to the stream as
 * consumed when they leave `in`, and leave it only while `out` is short: so a slow server slows the
 * program. Towards the session, nothing is read that the stream does not take; what has to be
 * looked at or enciphered goes by way of `back`. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker_private.h"
#include "supervisor/base/log.h"
#include "supervisor/base/util.h"

#define OUT_HIGH       (64u << 10)
#define BACK_HIGH      (64u << 10)
#define TLS_HIGH       (64u << 10) /* ciphertext that waits */
#define TLS_RECORD     (16u << 10)
#define READ_SIZE      (64u << 10)
#define READS_PER_WAKE 4

enum { PULL_WAIT = -1, PULL_BROKEN = -2 };

/* ---- To the session -------------------------------------------------------------------------- */

void kb_flow_reply(struct kb_flow *f, const void *data, size_t len)
{
	if (kb_buf_append(&f->back, data, len, NULL) < 0)
		kb_log_warn("an answer to the session found no room");
}

/* To the stream, as far as it takes it. */
static void drain(struct kb_flow *f, struct kb_buf *from)
{
	while (kb_buf_len(from) > 0) {
		int64_t n = kb_stream_write(f->stream, kb_buf_data(from), kb_buf_len(from), NULL);

		if (n <= 0)
			return;
		kb_buf_consume(from, (size_t)n);
	}
}

static void encipher_back(struct kb_flow *f)
{
	struct kb_buf *cipher = kb_tls_output(f->inner);
	struct kb_err err;

	while (kb_buf_len(&f->back) > 0 && kb_buf_len(cipher) < TLS_HIGH) {
		ssize_t n = kb_tls_write(f->inner, kb_buf_data(&f->back),
			KB_MIN(kb_buf_len(&f->back), (size_t)TLS_RECORD), &err);

		if (n < 0)
			kb_buf_finish(&f->back); /* the program broke the protocol */
		if (n <= 0)
			return;
		kb_buf_consume(&f->back, (size_t)n);
	}
}

void kb_flow_flush(struct kb_flow *f)
{
	if (!f->inner) {
		drain(f, &f->back);
		return;
	}
	encipher_back(f);
	drain(f, kb_tls_output(f->inner));
}

static bool is_direct(const struct kb_flow *f)
{
	return !f->inner && !f->mask && kb_buf_len(&f->back) == 0;
}

size_t kb_flow_room(struct kb_flow *f)
{
	if (is_direct(f))
		return kb_stream_writable(f->stream, 1);
	return kb_buf_len(&f->back) < BACK_HIGH ? READ_SIZE : 0;
}

static void deliver(struct kb_flow *f, const uint8_t *data, size_t len)
{
	int r;

	kb_inspect_server(&f->inspect, data, len);
	f->down += len;
	if (is_direct(f)) {
		(void)kb_stream_write(f->stream, data, len, NULL);
		return;
	}
	r = f->mask ? kb_mask_feed(f->mask, data, len, &f->back, NULL)
		    : kb_buf_append(&f->back, data, len, NULL);
	if (r < 0)
		kb_flow_cut(f);
	else
		kb_flow_flush(f);
}

static ssize_t read_socket(struct kb_flow *f, uint8_t *data, size_t len)
{
	ssize_t n;

	do
		n = read(f->fd, data, len);
	while (n < 0 && errno == EINTR);
	return n >= 0 ? n : errno == EAGAIN ? PULL_WAIT : PULL_BROKEN;
}

/* What the engine has, as far as there is room: it makes no further event. */
static ssize_t decipher(struct kb_flow *f, uint8_t *data, size_t len)
{
	struct kb_err err;
	size_t total = 0;
	ssize_t n;

	do {
		n = kb_tls_read(f->outer, data + total, len - total, &err);
		total += n > 0 ? (size_t)n : 0;
	} while (n > 0 && total < len);
	return total == 0 && n < 0 ? PULL_BROKEN : (ssize_t)total;
}

/* Plain bytes of the server's; 0: no more will come. */
static ssize_t pull(struct kb_flow *f, uint8_t *data, size_t len)
{
	uint8_t cipher[TLS_RECORD];

	if (!f->outer)
		return read_socket(f, data, len);
	for (;;) {
		ssize_t n = decipher(f, data, len);

		if (n != 0 || kb_tls_ended(f->outer))
			return n;
		n = read_socket(f, cipher, sizeof(cipher));
		if (n <= 0)
			return n;
		if (kb_tls_feed(f->outer, cipher, (size_t)n, NULL) < 0)
			return PULL_BROKEN;
	}
}

/* While the server greets us nothing of it is for the session. */
static void read_greeting(struct kb_flow *f)
{
	uint8_t cipher[TLS_RECORD];
	ssize_t n = read_socket(f, cipher, sizeof(cipher));

	if (n == PULL_WAIT)
		return;
	if (n > 0 && kb_tls_feed(f->outer, cipher, (size_t)n, NULL) < 0)
		n = PULL_BROKEN;
	f->server_eof = n <= 0;
	kb_secure_advance(f);
}

void kb_flow_read(struct kb_flow *f)
{
	uint8_t bytes[READ_SIZE];

	if (f->securing)
		read_greeting(f);
	for (int i = 0;
		i < READS_PER_WAKE && f->state == KB_FLOW_OPEN && !f->server_eof && !f->securing;
		i++) {
		size_t room = KB_MIN(kb_flow_room(f), sizeof(bytes));
		ssize_t n = room ? pull(f, bytes, room) : PULL_WAIT;

		if (n == PULL_WAIT)
			return;
		if (n == PULL_BROKEN) {
			kb_flow_cut(f);
			return;
		}
		if (n > 0)
			deliver(f, bytes, (size_t)n);
		f->server_eof = n == 0;
		if (n > 0 && !f->outer && (size_t)n < room)
			return;
	}
	if (f->server_eof && f->mask)
		(void)kb_mask_end(f->mask, &f->back, NULL);
}

/* ---- To the network -------------------------------------------------------------------------- */

void kb_flow_take(struct kb_flow *f, size_t n)
{
	size_t ours = KB_MIN(n, f->ours);

	kb_buf_consume(&f->in, n);
	f->ours -= ours;
	/* Of what was enciphered, the ciphertext counts: see kb_secure_decrypt(). */
	if (!f->inner)
		kb_stream_consumed(f->stream, n - ours);
}

void kb_flow_drop_input(struct kb_flow *f)
{
	kb_flow_take(f, kb_buf_len(&f->in));
	if (f->uncredited)
		kb_stream_consumed(f->stream, f->uncredited);
	f->uncredited = 0;
	kb_buf_wipe(&f->out);
}

/* How many of len bytes may still be sent. */
static size_t allowance(const struct kb_broker *b, size_t len)
{
	return b->limit ? (size_t)KB_MIN((uint64_t)len, b->limit - b->sent) : len;
}

/* How many went; 0: none for now, or for ever. */
static size_t send_bytes(struct kb_flow *f, const uint8_t *data, size_t want)
{
	size_t len = allowance(f->broker, want);
	ssize_t n;

	if (len == 0) {
		kb_flow_reach_limit(f);
		return 0;
	}
	do
		n = send(f->fd, data, len, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EAGAIN)
		kb_flow_cut(f);
	if (n < 0)
		return 0;
	f->up += (uint64_t)n;
	f->broker->sent += (uint64_t)n;
	return (size_t)n;
}

void kb_flow_send_tls(struct kb_flow *f)
{
	while (f->state == KB_FLOW_OPEN && f->outer && kb_buf_len(kb_tls_output(f->outer)) > 0) {
		struct kb_buf *cipher = kb_tls_output(f->outer);
		size_t n = send_bytes(f, kb_buf_data(cipher), kb_buf_len(cipher));

		if (n == 0)
			return;
		kb_buf_consume(cipher, n);
	}
}

/* From one of the buffers, in the server's form. 0: none for now, or for ever. */
static size_t send_some(struct kb_flow *f, const struct kb_buf *from)
{
	struct kb_err err;
	ssize_t n;

	if (!f->outer)
		return send_bytes(f, kb_buf_data(from), kb_buf_len(from));
	kb_flow_send_tls(f);
	if (f->state != KB_FLOW_OPEN || kb_buf_len(kb_tls_output(f->outer)) >= TLS_HIGH)
		return 0;
	n = kb_tls_write(
		f->outer, kb_buf_data(from), KB_MIN(kb_buf_len(from), (size_t)TLS_RECORD), &err);
	if (n < 0)
		kb_flow_cut(f);
	else
		kb_flow_send_tls(f);
	return n > 0 && f->state == KB_FLOW_OPEN ? (size_t)n : 0;
}

/* ---- Looking --------------------------------------------------------------------------------- */

/* False: nothing more for now. */
static bool look_once(struct kb_flow *f)
{
	const uint8_t *data = kb_buf_data(&f->in);
	char why[KB_WHY_MAX];
	size_t n = 0;
	int r;

	switch (kb_inspect_client(&f->inspect, data, kb_buf_len(&f->in), &n, why)) {
	case KB_INSPECT_MORE:
		return false;
	case KB_INSPECT_REFUSE:
		kb_flow_refuse(f, KB_EVENT_REQUEST, why);
		return false;
	case KB_INSPECT_OPEN:
		kb_secure_begin(f, true);
		return false;
	case KB_INSPECT_REQUEST:
		r = kb_flow_request(f, data, &f->inspect.head, why, NULL);
		break;
	default:
		r = kb_buf_append(&f->out, data, n, NULL);
	}
	if (r > 0)
		kb_flow_refuse(f, KB_EVENT_REQUEST, why);
	else if (r < 0)
		kb_flow_cut(f);
	if (f->state != KB_FLOW_OPEN)
		return false;
	kb_flow_take(f, n);
	return true;
}

/* From in to out, as far as may be. */
static void look(struct kb_flow *f)
{
	struct kb_err err = {0};

	if (f->inner && kb_secure_decrypt(f, &err) < 0) {
		kb_flow_fail_tls(f, &err);
		return;
	}
	while (f->state == KB_FLOW_OPEN && !f->opening && f->inspect.state != KB_INSPECT_OPAQUE &&
		kb_buf_len(&f->out) < OUT_HIGH && look_once(f))
		;
}

void kb_flow_push(struct kb_flow *f)
{
	while (f->state == KB_FLOW_OPEN) {
		size_t n;

		look(f);
		if (f->state != KB_FLOW_OPEN || f->securing)
			return;
		if (kb_buf_len(&f->out) > 0) {
			n = send_some(f, &f->out);
			kb_buf_consume(&f->out, f->state == KB_FLOW_OPEN ? n : 0);
			if (kb_buf_len(&f->out) == 0 && f->mask)
				kb_buf_wipe(&f->out); /* a secret was in it */
		} else if (f->inspect.state == KB_INSPECT_OPAQUE && kb_buf_len(&f->in) > 0) {
			n = send_some(f, &f->in);
			if (n > 0)
				kb_flow_take(f, n);
		} else {
			kb_flow_send_tls(f);
			return;
		}
		if (n == 0)
			return;
	}
}

bool kb_flow_has_output(const struct kb_flow *f)
{
	if (f->outer && kb_buf_len(kb_tls_output(f->outer)) > 0)
		return true;
	return !f->securing && (kb_buf_len(&f->out) > 0 || (f->inspect.state == KB_INSPECT_OPAQUE &&
								   kb_buf_len(&f->in) > 0));
}
