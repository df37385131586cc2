/* A session's way out, as it passes the link: what the guest says of its connections goes to the
 * session's broker, checked; what the broker says goes back; their streams are carried between the
 * two channels. The broker's records join those of the guest on their way to the store, which is
 * why the store's numbers are not the guest's: `marks` remembers which of the guest's records the
 * store has when it acknowledges. */
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "audit/audit.h"
#include "link_private.h"
#include "supervisor/base/egress.h"
#include "supervisor/base/log.h"
#include "supervisor/base/relay.h"
#include "supervisor/base/util.h"

#define MARKS_MAX 65536 /* blocks of the guest the store has not acknowledged */

struct flow {
	struct flow *next;
	uint32_t stream;
	struct kb_relay *relay;
};

struct mark {
	uint64_t stored, guest;
};

struct kb_link_egress {
	struct kb_link_session *session;
	struct kb_channel *broker; /* NULL: gone */
	uint32_t base;
	struct flow *flows;
	size_t n_flows;
	struct mark *marks; /* a ring */
	size_t first, n_marks;
};

/* ---- Connections ----------------------------------------------------------------------------- */

static void close_flows(struct kb_link_egress *e, bool all)
{
	struct flow **at = &e->flows;

	while (*at) {
		struct flow *f = *at;

		if (!all && !kb_relay_is_done(f->relay)) {
			at = &f->next;
			continue;
		}
		*at = f->next;
		kb_relay_destroy(f->relay);
		free(f);
		e->n_flows--;
	}
}

static void nothing(void *arg)
{
}

static int open_flow(struct kb_link_egress *e, uint32_t stream, struct kb_err *err)
{
	struct flow *f;
	int r;

	close_flows(e, false);
	if (stream - e->base >= KB_EGRESS_STREAMS || e->n_flows >= 2 * KB_EGRESS_FLOWS)
		return kb_err_set(err, KB_ERR_INVALID, "the guest opened a connection it cannot");
	f = calloc(1, sizeof(*f));
	if (!f)
		return kb_err_nomem(err);
	f->stream = stream;
	r = kb_relay_create(
		e->broker, e->session->link->guest, stream, nothing, NULL, &f->relay, err);
	if (r < 0) {
		free(f);
		return r;
	}
	f->next = e->flows;
	e->flows = f;
	e->n_flows++;
	return 0;
}

/* ---- From the guest -------------------------------------------------------------------------- */

static void tell_guest(struct kb_link_egress *e, uint32_t kind, uint32_t stream)
{
	Kb__Egress egress = KB__EGRESS__INIT;
	Kb__ToGuest msg = KB__TO_GUEST__INIT;
	struct kb_err err;

	egress.session = kb_link_id(e->session);
	egress.kind = kind;
	egress.has_stream = stream != 0;
	egress.stream = stream;
	msg.body_case = KB__TO_GUEST__BODY_EGRESS;
	msg.egress = &egress;
	if (kb_link_tell_guest(e->session->link, &msg, &err) < 0)
		kb_log_debug("the guest is not told of a connection: %s", err.msg);
}

static int forward(struct kb_link_egress *e, const Kb__Egress *msg, struct kb_err *err)
{
	Kb__Role__BrokerEgress egress = KB__ROLE__BROKER_EGRESS__INIT;
	Kb__Role__LinkToBroker out = KB__ROLE__LINK_TO_BROKER__INIT;

	egress.kind = msg->kind;
	egress.has_stream = msg->has_stream;
	egress.stream = msg->stream;
	egress.has_address = msg->has_address;
	egress.address = msg->address;
	egress.has_port = msg->has_port;
	egress.port = msg->port;
	egress.has_protocol = msg->has_protocol;
	egress.protocol = msg->protocol;
	out.egress = &egress;
	return kb_channel_send(e->broker, 0, &out.base, -1, err);
}

int kb_link_egress_message(struct kb_link_session *s, const Kb__Egress *msg, struct kb_err *err)
{
	struct kb_link_egress *e = s->egress;
	bool opens;
	int r = e ? kb_check_egress(msg, err)
		  : kb_err_set(err, KB_ERR_INVALID, "the guest has no way out in this session");

	if (r < 0)
		return r;
	opens = kb_egress_opens(msg->kind);
	/* Without its broker the session is about to end. */
	if (!e->broker && msg->kind == KB_EGRESS_FINISH)
		tell_guest(e, KB_EGRESS_FINISHED, 0);
	if (!e->broker)
		return 0;
	r = opens ? open_flow(e, msg->stream, err) : 0;
	return r < 0 ? r : forward(e, msg, err);
}

/* ---- From the broker ------------------------------------------------------------------------- */

static int take_records(
	struct kb_link_egress *e, const Kb__Role__BrokerRecords *msg, struct kb_err *err)
{
	struct kb_link_session *s = e->session;
	uint32_t count;
	int r = kb_block_check(msg->block.data, msg->block.len, &count, err);

	if (r == 0 && (count != msg->count || count == 0 || msg->denials > count))
		r = kb_err_set(err, KB_ERR_INVALID, "the broker miscounted a block");
	if (r < 0 || s->over)
		return r;
	s->denials += msg->denials;
	kb_link_store_block(s, &msg->block, count);
	return 0;
}

static int on_broker_message(struct kb_channel *ch, uint32_t stream, const uint8_t *data,
	size_t len, int fd, void *arg, struct kb_err *err)
{
	struct kb_link_egress *e = arg;
	Kb__Role__BrokerToLink *msg = kb__role__broker_to_link__unpack(NULL, len, data);
	int r = 0;

	kb_close(&fd);
	if (!msg)
		return kb_err_set(err, KB_ERR_INVALID, "the broker sent a malformed message");
	if (msg->body_case == KB__ROLE__BROKER_TO_LINK__BODY_RECORDS)
		r = take_records(e, msg->records, err);
	else if (msg->body_case == KB__ROLE__BROKER_TO_LINK__BODY_EGRESS)
		tell_guest(e, msg->egress->kind, msg->egress->stream);
	kb__role__broker_to_link__free_unpacked(msg, NULL);
	return r;
}

/* main hears of it too, and ends the session. */
static void on_broker_closed(struct kb_channel *ch, const struct kb_err *why, void *arg)
{
	struct kb_link_egress *e = arg;

	if (why)
		kb_log_error("a broker's channel: %s", why->msg);
	close_flows(e, true);
	kb_channel_destroy(e->broker);
	e->broker = NULL;
	tell_guest(e, KB_EGRESS_FINISHED, 0);
}

static const struct kb_channel_ops broker_ops = {on_broker_message, on_broker_closed};

/* ---- Numbers --------------------------------------------------------------------------------- */

int kb_link_egress_mark(struct kb_link_session *s, uint64_t stored, struct kb_err *err)
{
	struct kb_link_egress *e = s->egress;

	if (!e)
		return 0;
	if (!e->marks)
		e->marks = calloc(MARKS_MAX, sizeof(*e->marks));
	if (!e->marks || e->n_marks == MARKS_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "the store is too far behind");
	e->marks[(e->first + e->n_marks++) % MARKS_MAX] = (struct mark){stored, s->received};
	return 0;
}

uint64_t kb_link_egress_acked(struct kb_link_session *s, uint64_t stored)
{
	struct kb_link_egress *e = s->egress;
	uint64_t guest = 0;

	if (!e)
		return stored;
	while (e->n_marks > 0 && e->marks[e->first].stored <= stored) {
		guest = e->marks[e->first].guest;
		e->first = (e->first + 1) % MARKS_MAX;
		e->n_marks--;
	}
	return guest;
}

/* ---- The object ------------------------------------------------------------------------------ */

int kb_link_egress_create(struct kb_link_session *s, int fd, uint32_t base, struct kb_err *err)
{
	struct kb_link_egress *e = calloc(1, sizeof(*e));
	int r;

	if (!e) {
		close(fd);
		return kb_err_nomem(err);
	}
	*e = (struct kb_link_egress){.session = s, .base = base};
	r = kb_channel_create(s->link->loop, fd, &broker_ops, e, &e->broker, err);
	if (r < 0)
		free(e);
	else
		s->egress = e;
	return r;
}

void kb_link_egress_forget_guest(struct kb_link_session *s)
{
	if (s->egress)
		close_flows(s->egress, true);
}

void kb_link_egress_destroy(struct kb_link_session *s)
{
	struct kb_link_egress *e = s->egress;

	if (!e)
		return;
	close_flows(e, true);
	kb_channel_destroy(e->broker);
	free(e->marks);
	free(e);
	s->egress = NULL;
}
