/* One connection of the session: its life. Its bytes are in ends.c.
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

#define OUT_MAX	  (64u << 10) /* plus what one look may add */
#define BACK_MAX  (512u << 10)
#define LINGER_MS 5000 /* for the session to close what was ended here */
#define FIRST_MS  500  /* a first line that is not whole is not waited for longer */

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

void kb_flow_stop(struct kb_flow *f)
{
	close_server(f);
	f->state = KB_FLOW_CLOSING;
	f->securing = f->opening = false;
	kb_source_disarm(f->patience);
	kb_flow_drop_input(f);
	(void)kb_source_arm(f->linger, LINGER_MS, NULL);
}

void kb_flow_cancelled(struct kb_flow *f)
{
	kb_flow_stop(f);
	kb_buf_finish(&f->back);
	kb_flow_settle(f);
}

void kb_flow_cut(struct kb_flow *f)
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

/* Nothing but a request came: its sender understands an answer. */
static bool hears_http(const struct kb_flow *f)
{
	return f->connected && f->down == 0 && !f->inspect.asked && f->proxy != KB_PROXY_SOCKS &&
	       kb_http_looks(kb_buf_data(&f->in), kb_buf_len(&f->in)) > 0;
}

void kb_flow_refuse(struct kb_flow *f, enum kb_event event, const char *why)
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
	} else if (hears_http(f)) {
		kb_proxy_answer(f, "403 Forbidden", refused.why, NULL);
	} else {
		kb_flow_cut(f);
		return;
	}
	kb_flow_stop(f);
}

void kb_flow_fail_tls(struct kb_flow *f, const struct kb_err *why)
{
	kb_report(f->broker, &(struct kb_report){.event = KB_EVENT_CONNECT,
				     .target = &f->target,
				     .ruling = &f->ruling,
				     .errnum = EPROTO,
				     .text = why->msg});
	/* A request in plain HTTP waits for an answer. */
	if (f->opening || f->inner || f->down > 0) {
		kb_flow_cut(f);
		return;
	}
	kb_proxy_answer(f, "502 Bad Gateway", why->msg, NULL);
	kb_flow_stop(f);
}

void kb_flow_reach_limit(struct kb_flow *f)
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
			kb_flow_cut(at);
}

/* ---- Events ---------------------------------------------------------------------------------- */

static void watch(struct kb_flow *f)
{
	unsigned events = 0;

	if (!f->io || f->state != KB_FLOW_OPEN)
		return;
	if (!f->server_eof && (f->securing || kb_flow_room(f) > 0))
		events |= KB_IO_READ;
	if (kb_flow_has_output(f))
		events |= KB_IO_WRITE;
	(void)kb_source_set_events(f->io, events, NULL);
}

/* Everything of the session's was sent: tell the server that no more comes. */
static void finish_output(struct kb_flow *f)
{
	if (f->outer && !f->outer_over) {
		f->outer_over = true;
		kb_tls_end(f->outer);
		kb_flow_send_tls(f);
	}
	if (f->state != KB_FLOW_OPEN || kb_flow_has_output(f))
		return;
	f->shut = true;
	kb_flow_drop_input(f);
	(void)shutdown(f->fd, SHUT_WR);
}

/* Everything for the session was said: tell its program that no more comes. */
static void finish_back(struct kb_flow *f)
{
	if (f->inner && (f->state == KB_FLOW_CLOSING || kb_tls_ended(f->outer))) {
		kb_tls_end(f->inner);
		kb_flow_flush(f);
	}
	if (f->inner && kb_buf_len(kb_tls_output(f->inner)) > 0)
		return;
	f->eof_sent = true;
	(void)kb_stream_eof(f->stream, NULL);
}

/* A first line that is not whole: for a while, the rest is waited for. */
static void wait_for_line(struct kb_flow *f)
{
	if (f->state != KB_FLOW_OPEN || f->securing || f->inspect.state != KB_INSPECT_FIRST ||
		kb_buf_len(&f->in) == 0)
		return;
	if (f->input_over)
		kb_inspect_idle(&f->inspect, kb_buf_data(&f->in), kb_buf_len(&f->in));
	else
		(void)kb_source_arm(f->patience, FIRST_MS, NULL);
	if (f->inspect.state != KB_INSPECT_FIRST)
		kb_flow_push(f);
}

void kb_flow_settle(struct kb_flow *f)
{
	kb_flow_flush(f);
	wait_for_line(f);
	if (f->state == KB_FLOW_OPEN && f->input_over && !f->shut && !f->securing &&
		!kb_flow_has_output(f))
		finish_output(f);
	if (f->state == KB_FLOW_OPEN && f->shut && f->server_eof)
		kb_flow_stop(f);
	if (f->state == KB_FLOW_ASKED && f->client_eof && !f->lookups)
		kb_flow_stop(f);
	if ((f->state == KB_FLOW_CLOSING || f->server_eof) && kb_buf_len(&f->back) == 0 &&
		!f->eof_sent)
		finish_back(f);
	if (f->state == KB_FLOW_CLOSING && f->eof_sent && f->client_eof) {
		kb_broker_tell(f->broker, KB_EGRESS_DONE, kb_stream_id(f->stream));
		kb_flow_destroy(f);
		return;
	}
	watch(f);
}

static void on_patience(void *arg)
{
	struct kb_flow *f = arg;

	if (f->securing)
		kb_secure_late(f);
	else
		kb_inspect_idle(&f->inspect, kb_buf_data(&f->in), kb_buf_len(&f->in));
	kb_flow_push(f);
	kb_flow_settle(f);
}

static void on_server(int fd, unsigned events, void *arg)
{
	struct kb_flow *f = arg;
	bool greeted = f->securing;

	if (events & KB_IO_READ)
		kb_flow_read(f);
	kb_flow_push(f);
	/* What came with the end of the greeting makes no further event. */
	if (greeted && !f->securing)
		kb_flow_read(f);
	kb_flow_settle(f);
}

static void on_dialed(int fd, int errnum, void *arg)
{
	struct kb_flow *f = arg;
	int r;

	f->dial = NULL;
	if (fd < 0 && !f->ruling.allowed) {
		kb_flow_refuse(f, KB_EVENT_CONNECT, f->ruling.why);
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
			kb_flow_cut(f);
		}
		kb_flow_settle(f);
		return;
	}
	f->connected = true;
	f->state = KB_FLOW_OPEN;
	if (f->proxy != KB_PROXY_NONE)
		kb_proxy_connected(f);
	kb_flow_push(f);
	kb_flow_settle(f);
}

void kb_flow_connect(struct kb_flow *f)
{
	struct kb_err err = {0};

	kb_decide_target(f->broker, &f->target, &f->ruling);
	if (!f->ruling.allowed) {
		kb_flow_refuse(f, KB_EVENT_CONNECT, f->ruling.why);
		return;
	}
	f->state = KB_FLOW_DIALING;
	kb_grants_find(f->broker, &f->target, &f->grants);
	f->inspect = (struct kb_inspect){.target = &f->target,
		.http = f->ruling.http,
		.single = f->proxy == KB_PROXY_URL,
		.open = f->ruling.http || f->grants.intercept};
	if (kb_dial_start(f->broker, &f->target, &f->ruling, on_dialed, f, &f->dial, &err) < 0) {
		kb_log_warn("a connection cannot be made: %s", err.msg);
		kb_flow_refuse(f, KB_EVENT_CONNECT, err.msg);
	}
}

static void feed(struct kb_flow *f)
{
	if (f->state == KB_FLOW_ASKED && f->kind == KB_EGRESS_PROXY)
		kb_proxy_feed(f);
	else if (f->state == KB_FLOW_ASKED && f->kind == KB_EGRESS_DNS)
		kb_dns_feed(f);
	else
		kb_flow_push(f);
}

/* Takes what came. False: it has no place. */
static bool take_data(struct kb_flow *f, const uint8_t *data, size_t len)
{
	if (f->state == KB_FLOW_CLOSING || f->shut)
		return false;
	if (!f->inner)
		return kb_buf_append(&f->in, data, len, NULL) == 0;
	f->uncredited += len;
	if (kb_tls_feed(f->inner, data, len, NULL) == 0)
		return true;
	f->uncredited -= len;
	return false;
}

static void on_data(struct kb_stream *st, const uint8_t *data, size_t len, void *arg)
{
	struct kb_flow *f = arg;

	if (!take_data(f, data, len)) {
		kb_stream_consumed(st, len);
		return;
	}
	feed(f);
	kb_flow_settle(f);
}

static void on_writable(struct kb_stream *st, void *arg)
{
	struct kb_flow *f = arg;

	kb_flow_flush(f);
	kb_flow_read(f);
	kb_flow_settle(f);
}

static void on_eof(struct kb_stream *st, void *arg)
{
	struct kb_flow *f = arg;

	f->client_eof = f->input_over = true;
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
	kb_source_destroy(f->patience);
	kb_stream_close(f->stream);
	kb_buf_finish(&f->in);
	kb_buf_wipe(&f->out);
	kb_buf_finish(&f->back);
	kb_tls_destroy(f->inner);
	kb_tls_destroy(f->outer);
	if (f->mask)
		kb_mask_finish(f->mask);
	free(f->mask);
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
	kb_buf_init(&f->out, OUT_MAX + KB_STREAM_CREDIT + 4 * KB_HTTP_HEAD_MAX);
	kb_buf_init(&f->back, BACK_MAX);
	TAILQ_INSERT_TAIL(&b->flows, f, entry);
	b->n_flows++;
	r = kb_stream_open(b->link, stream, &stream_ops, f, &f->stream, err);
	if (r == 0)
		r = kb_loop_timer(b->loop, on_linger, f, &f->linger, err);
	if (r == 0)
		r = kb_loop_timer(b->loop, on_patience, f, &f->patience, err);
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
