/* One connection of the session.
 *
 * Towards the network, bytes wait in `in` until they were looked at, then in `out`; what is no
 * longer looked at goes from `in` straight to the socket. They are reported to the stream as
 * consumed when they leave `in`, and leave it only while `out` is short: so a slow server slows the
 * program. Towards the session, nothing is read that the stream does not take.
 *
 * kb_flow_settle() is the last thing every event does: it ends what is at its end, and may free the
 * flow.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker_private.h"
#include "supervisor/base/log.h"
#include "supervisor/base/util.h"

#define OUT_HIGH       (64u << 10)
#define READ_SIZE      (64u << 10)
#define READS_PER_WAKE 4
#define LINGER_MS      5000 /* for the session to close what was ended here */

/* ---- Ends ------------------------------------------------------------------------------------ */

static void close_server(struct kb_flow *f)
{
	kb_dial_cancel(f->dial);
	f->dial = NULL;
	kb_source_destroy(f->io);
	f->io = NULL;
	kb_close(&f->fd);
	if (f->connected)
		kb_report(
			f->broker, &(struct kb_report){.event = KB_EVENT_SEND,
					   .target = &f->target,
					   .ruling = &f->ruling,
					   .has_bytes = true,
					   .up = f->up,
					   .down = f->down,
					   .text = "bytes sent; the result is what was received"});
	f->connected = false;
}

static void drop_input(struct kb_flow *f)
{
	kb_flow_take(f, kb_buf_len(&f->in));
	kb_buf_finish(&f->out);
}

void kb_flow_stop(struct kb_flow *f)
{
	close_server(f);
	f->state = KB_FLOW_CLOSING;
	drop_input(f);
	(void)kb_source_arm(f->linger, LINGER_MS, NULL);
}

void kb_flow_cancelled(struct kb_flow *f)
{
	kb_flow_stop(f);
	kb_buf_finish(&f->back);
	kb_flow_settle(f);
}

/* The program must notice that its connection was cut. */
static void cut(struct kb_flow *f)
{
	kb_flow_stop(f);
	kb_broker_tell(f->broker, KB_EGRESS_CANCEL, kb_stream_id(f->stream));
}

static void on_linger(void *arg)
{
	struct kb_flow *f = arg;

	kb_broker_tell(f->broker, KB_EGRESS_CANCEL, kb_stream_id(f->stream));
}

/* The line that would have allowed it. */
static void remedy_of(const struct kb_flow *f, char *ret, size_t size)
{
	char target[KB_TARGET_TEXT];

	kb_target_text(&f->target, target);
	snprintf(ret, size, "net connect tcp \"%s\"", target);
}

static void refuse(struct kb_flow *f, enum kb_event event, const char *why)
{
	struct kb_ruling refused = f->ruling;
	char remedy[KB_TARGET_TEXT + 32];

	if (refused.allowed) {
		refused.allowed = false;
		refused.errnum = EACCES;
		if (refused.record == KB_RECORD_NONE)
			refused.record = KB_RECORD_SUMMARY;
		snprintf(refused.why, sizeof(refused.why), "%s", why);
	}
	kb_report(f->broker,
		&(struct kb_report){.event = event, .target = &f->target, .ruling = &refused});
	if (f->proxy != KB_PROXY_NONE && !f->connected) {
		remedy_of(f, remedy, sizeof(remedy));
		kb_proxy_failed(f, true, refused.why, f->ruling.allowed ? NULL : remedy);
		kb_flow_stop(f);
	} else {
		cut(f);
	}
}

static void reach_limit(struct kb_flow *f)
{
	struct kb_broker *b = f->broker;
	struct kb_ruling over = {
		.errnum = EDQUOT, .rule = b->limit_rule, .record = KB_RECORD_SUMMARY};
	struct kb_flow *at;

	snprintf(over.why, sizeof(over.why), "the limit of %llu bytes sent was reached",
		(unsigned long long)b->limit);
	if (!b->limit_hit)
		kb_report(
			b, &(struct kb_report){
				   .event = KB_EVENT_LIMIT, .target = &f->target, .ruling = &over});
	b->limit_hit = true;
	TAILQ_FOREACH(at, &b->flows, entry)
		if (at->kind != KB_EGRESS_DNS && at->state != KB_FLOW_CLOSING)
			cut(at);
}

/* ---- To the session -------------------------------------------------------------------------- */

void kb_flow_reply(struct kb_flow *f, const void *data, size_t len)
{
	if (kb_buf_append(&f->back, data, len, NULL) < 0)
		kb_log_warn("an answer to the session found no room");
}

static void flush_back(struct kb_flow *f)
{
	while (kb_buf_len(&f->back) > 0) {
		int64_t n = kb_stream_write(
			f->stream, kb_buf_data(&f->back), kb_buf_len(&f->back), NULL);

		if (n <= 0)
			return;
		kb_buf_consume(&f->back, (size_t)n);
	}
}

static void read_server(struct kb_flow *f)
{
	uint8_t bytes[READ_SIZE];

	for (int i = 0; i < READS_PER_WAKE && f->fd >= 0 && !f->server_eof; i++) {
		size_t room = kb_buf_len(&f->back) ? 0 : kb_stream_writable(f->stream, 1);
		ssize_t n;

		if (room == 0)
			return;
		n = read(f->fd, bytes, KB_MIN(room, sizeof(bytes)));
		if (n > 0) {
			kb_inspect_server(&f->inspect, bytes, (size_t)n);
			(void)kb_stream_write(f->stream, bytes, (size_t)n, NULL);
			f->down += (uint64_t)n;
		} else if (n == 0) {
			f->server_eof = true;
		} else if (errno == EAGAIN) {
			return;
		} else if (errno != EINTR) {
			cut(f);
			return;
		}
		if (n > 0 && (size_t)n < KB_MIN(room, sizeof(bytes)))
			return;
	}
}

/* ---- To the network -------------------------------------------------------------------------- */

void kb_flow_take(struct kb_flow *f, size_t n)
{
	size_t ours = KB_MIN(n, f->ours);

	kb_buf_consume(&f->in, n);
	f->ours -= ours;
	kb_stream_consumed(f->stream, n - ours);
}

int kb_flow_request(struct kb_flow *f, const uint8_t *head, const struct kb_http_head *parsed,
	struct kb_err *err)
{
	const struct kb_slice *target = &parsed->target;
	const char *query = memchr(target->at, '?', target->len);
	char text[512];

	/* What follows the "?" may be secret, and is long. */
	snprintf(text, sizeof(text), "%.*s %.*s", (int)parsed->method.len, parsed->method.at,
		(int)KB_MIN(query ? (size_t)(query - target->at) : target->len, (size_t)480),
		target->at);
	kb_report(f->broker, &(struct kb_report){.event = KB_EVENT_REQUEST,
				     .target = &f->target,
				     .ruling = &f->ruling,
				     .text = text});
	return kb_buf_append(&f->out, head, parsed->len, err);
}

/* From in to out, as far as may be. */
static void look(struct kb_flow *f)
{
	while (f->inspect.state != KB_INSPECT_OPAQUE && kb_buf_len(&f->out) < OUT_HIGH) {
		const uint8_t *data = kb_buf_data(&f->in);
		char why[KB_WHY_MAX];
		size_t n = 0;
		int r = 0;
		enum kb_inspect_word word =
			kb_inspect_client(&f->inspect, data, kb_buf_len(&f->in), &n, why);

		if (word == KB_INSPECT_MORE)
			return;
		if (word == KB_INSPECT_REFUSE) {
			refuse(f, KB_EVENT_REQUEST, why);
			return;
		}
		r = word == KB_INSPECT_REQUEST ? kb_flow_request(f, data, &f->inspect.head, NULL)
					       : kb_buf_append(&f->out, data, n, NULL);
		if (r < 0) {
			cut(f);
			return;
		}
		kb_flow_take(f, n);
	}
}

/* How many of len bytes may still be sent. */
static size_t allowance(const struct kb_broker *b, size_t len)
{
	return b->limit ? (size_t)KB_MIN((uint64_t)len, b->limit - b->sent) : len;
}

/* False: no more for now, or ever. */
static bool send_some(struct kb_flow *f, struct kb_buf *from)
{
	size_t len = allowance(f->broker, kb_buf_len(from));
	ssize_t n;

	if (len == 0) {
		reach_limit(f);
		return false;
	}
	n = send(f->fd, kb_buf_data(from), len, MSG_NOSIGNAL);
	if (n < 0 && errno == EINTR)
		return true;
	if (n < 0 && errno != EAGAIN)
		cut(f);
	if (n < 0)
		return false;
	f->up += (uint64_t)n;
	f->broker->sent += (uint64_t)n;
	if (from == &f->in)
		kb_flow_take(f, (size_t)n);
	else
		kb_buf_consume(from, (size_t)n);
	return true;
}

static void push(struct kb_flow *f)
{
	while (f->state == KB_FLOW_OPEN) {
		look(f);
		if (f->state != KB_FLOW_OPEN)
			return;
		if (kb_buf_len(&f->out) > 0) {
			if (!send_some(f, &f->out))
				return;
		} else if (f->inspect.state == KB_INSPECT_OPAQUE && kb_buf_len(&f->in) > 0) {
			if (!send_some(f, &f->in))
				return;
		} else {
			return;
		}
	}
}

/* ---- Events ---------------------------------------------------------------------------------- */

static void watch(struct kb_flow *f)
{
	unsigned events = 0;

	if (!f->io || f->state != KB_FLOW_OPEN)
		return;
	if (!f->server_eof && kb_buf_len(&f->back) == 0 && kb_stream_writable(f->stream, 1) > 0)
		events |= KB_IO_READ;
	if (kb_buf_len(&f->out) > 0 ||
		(f->inspect.state == KB_INSPECT_OPAQUE && kb_buf_len(&f->in) > 0))
		events |= KB_IO_WRITE;
	(void)kb_source_set_events(f->io, events, NULL);
}

void kb_flow_settle(struct kb_flow *f)
{
	bool sent = kb_buf_len(&f->out) == 0 &&
		    (kb_buf_len(&f->in) == 0 || f->inspect.state != KB_INSPECT_OPAQUE);

	flush_back(f);
	if (f->state == KB_FLOW_OPEN && f->client_eof && sent && !f->shut) {
		f->shut = true;
		drop_input(f);
		(void)shutdown(f->fd, SHUT_WR);
	}
	if (f->state == KB_FLOW_OPEN && f->shut && f->server_eof)
		kb_flow_stop(f);
	if (f->state <= KB_FLOW_DIALING && f->client_eof && !f->lookups)
		kb_flow_stop(f);
	if ((f->state == KB_FLOW_CLOSING || f->server_eof) && kb_buf_len(&f->back) == 0 &&
		!f->eof_sent) {
		f->eof_sent = true;
		(void)kb_stream_eof(f->stream, NULL);
	}
	if (f->state == KB_FLOW_CLOSING && f->eof_sent && f->client_eof) {
		kb_broker_tell(f->broker, KB_EGRESS_DONE, kb_stream_id(f->stream));
		kb_flow_destroy(f);
		return;
	}
	watch(f);
}

static void on_server(int fd, unsigned events, void *arg)
{
	struct kb_flow *f = arg;

	if (events & KB_IO_READ)
		read_server(f);
	push(f);
	kb_flow_settle(f);
}

static void on_dialed(int fd, int errnum, void *arg)
{
	struct kb_flow *f = arg;
	int r;

	f->dial = NULL;
	if (fd < 0 && !f->ruling.allowed) {
		refuse(f, KB_EVENT_CONNECT, f->ruling.why);
		kb_flow_settle(f);
		return;
	}
	kb_report(f->broker, &(struct kb_report){.event = KB_EVENT_CONNECT,
				     .target = &f->target,
				     .ruling = &f->ruling,
				     .errnum = fd < 0 ? errnum : 0});
	f->fd = fd;
	r = fd < 0 ? -1 : kb_loop_io(f->broker->loop, fd, KB_IO_READ, on_server, f, &f->io, NULL);
	if (r < 0) {
		if (f->proxy != KB_PROXY_NONE) {
			kb_proxy_failed(f, false, strerror(errnum), NULL);
			kb_flow_stop(f);
		} else {
			cut(f);
		}
		kb_flow_settle(f);
		return;
	}
	f->connected = true;
	f->state = KB_FLOW_OPEN;
	if (f->proxy != KB_PROXY_NONE)
		kb_proxy_connected(f);
	push(f);
	kb_flow_settle(f);
}

void kb_flow_connect(struct kb_flow *f)
{
	struct kb_err err = {0};

	kb_decide_target(f->broker, &f->target, &f->ruling);
	if (!f->ruling.allowed) {
		refuse(f, KB_EVENT_CONNECT, f->ruling.why);
		return;
	}
	f->state = KB_FLOW_DIALING;
	f->inspect = (struct kb_inspect){
		.target = &f->target, .http = f->ruling.http, .single = f->proxy == KB_PROXY_URL};
	if (kb_dial_start(f->broker, &f->target, &f->ruling, on_dialed, f, &f->dial, &err) < 0) {
		kb_log_warn("a connection cannot be made: %s", err.msg);
		refuse(f, KB_EVENT_CONNECT, err.msg);
	}
}

static void feed(struct kb_flow *f)
{
	if (f->state == KB_FLOW_ASKED && f->kind == KB_EGRESS_PROXY)
		kb_proxy_feed(f);
	else if (f->state == KB_FLOW_ASKED && f->kind == KB_EGRESS_DNS)
		kb_dns_feed(f);
	else
		push(f);
}

static void on_data(struct kb_stream *st, const uint8_t *data, size_t len, void *arg)
{
	struct kb_flow *f = arg;

	if (f->state == KB_FLOW_CLOSING || f->shut || kb_buf_append(&f->in, data, len, NULL) < 0) {
		kb_stream_consumed(st, len);
		return;
	}
	feed(f);
	kb_flow_settle(f);
}

static void on_writable(struct kb_stream *st, void *arg)
{
	struct kb_flow *f = arg;

	flush_back(f);
	if (f->state == KB_FLOW_OPEN)
		read_server(f);
	kb_flow_settle(f);
}

static void on_eof(struct kb_stream *st, void *arg)
{
	struct kb_flow *f = arg;

	f->client_eof = true;
	kb_flow_settle(f);
}

static const struct kb_stream_ops stream_ops = {on_data, on_writable, on_eof};

/* ---- The object ------------------------------------------------------------------------------ */

struct kb_flow *kb_flow_find(struct kb_broker *b, uint32_t stream)
{
	struct kb_flow *f;

	TAILQ_FOREACH(f, &b->flows, entry)
		if (kb_stream_id(f->stream) == stream)
			return f;
	return NULL;
}

void kb_flow_destroy(struct kb_flow *f)
{
	kb_dns_forget(f);
	close_server(f);
	kb_source_destroy(f->linger);
	kb_stream_close(f->stream);
	kb_buf_finish(&f->in);
	kb_buf_finish(&f->out);
	kb_buf_finish(&f->back);
	TAILQ_REMOVE(&f->broker->flows, f, entry);
	f->broker->n_flows--;
	free(f);
}

/* A connection to a made-up address is one to a name. */
static void name_target(struct kb_flow *f)
{
	const char *name =
		kb_names_find(&f->broker->names, f->target.address.bytes, f->target.address.len);

	if (!name)
		return;
	snprintf(f->target.name, sizeof(f->target.name), "%s", name);
	f->target.address.len = 0;
}

int kb_flow_create(struct kb_broker *b, uint32_t stream, enum kb_egress_kind kind,
	const struct kb_target *target, struct kb_err *err)
{
	struct kb_flow *f;
	int r;

	if (b->n_flows >= 2 * KB_EGRESS_FLOWS)
		return kb_err_set(err, KB_ERR_LIMIT, "too many connections");
	f = calloc(1, sizeof(*f));
	if (!f)
		return kb_err_nomem(err);
	*f = (struct kb_flow){.broker = b, .kind = kind, .fd = -1};
	kb_buf_init(&f->in, KB_STREAM_CREDIT + KB_HTTP_HEAD_MAX + KB_WHY_MAX);
	kb_buf_init(&f->out, OUT_HIGH + KB_STREAM_CREDIT + 2 * KB_HTTP_HEAD_MAX);
	kb_buf_init(&f->back, KB_STREAM_CREDIT);
	TAILQ_INSERT_TAIL(&b->flows, f, entry);
	b->n_flows++;
	r = kb_stream_open(b->link, stream, &stream_ops, f, &f->stream, err);
	if (r == 0)
		r = kb_loop_timer(b->loop, on_linger, f, &f->linger, err);
	if (r < 0) {
		kb_flow_destroy(f);
		return r;
	}
	if (target) {
		f->target = *target;
		name_target(f);
		kb_flow_connect(f);
		kb_flow_settle(f);
	}
	return 0;
}
