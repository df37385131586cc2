/* What is said over a line's carrier: see line.c. */
#include <string.h>
#include <unistd.h>

#include "line_private.h"
#include "util.h"

#define AGAIN_MS 200 /* between two requests for the same bytes */

static void broke_protocol(struct kb_line *l, const char *what)
{
	struct kb_err err;

	kb_err_set(&err, KB_ERR_INVALID, "the other end of the line %s", what);
	kb_line_end(l, &err);
}

/* ---- Sending --------------------------------------------------------------------------------- */

static void put(struct kb_line *l, const struct kb_packet *packet)
{
	if (l->carrier >= 0)
		(void)kb_packet_encode(packet, &l->out, NULL);
}

void kb_line_put_gone(struct kb_line *l, uint64_t id)
{
	put(l, &(struct kb_packet){.kind = KB_PACKET_GONE, .line = id});
}

/* A packet about the connection as it stands. */
void kb_line_put_state(struct kb_line *l, enum kb_packet_kind kind, uint64_t number)
{
	l->told = kb_line_delivered(l);
	put(l, &(struct kb_packet){.kind = kind, .line = l->id, .number = number, .ack = l->told});
	kb_source_disarm(l->ack);
	l->ack_armed = false;
}

void kb_line_put_call(struct kb_line *l)
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

	l->told = kb_line_delivered(l);
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
	kb_line_put_state(l, KB_PACKET_END, l->next);
	l->end_due = false;
	(void)kb_source_arm(l->pulse, KB_LINE_END_MS, NULL);
}

void kb_line_make_packets(struct kb_line *l)
{
	while (l->agreed && kb_buf_len(&l->out) < KB_LINE_OUT_HIGH && l->next < kept_end(l))
		put_data(l);
	if (l->agreed && l->end_due && l->next == kept_end(l))
		put_end(l);
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
	kb_line_unhold(l);
	(void)kb_source_arm(l->pulse, KB_LINE_PROBE_MS, NULL);
	kb_line_kick(l);
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
		kb_line_put_state(l, KB_PACKET_DATA, l->next);
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
	kb_line_put_state(l, KB_PACKET_DATA, l->next);
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
		kb_line_end(l, l->inner_eof ? NULL : &err);
}

/* What is said about the connection, once it is agreed on. */
static void (*const handlers[KB_PACKET_KINDS_])(struct kb_line *, const struct kb_packet *) = {
	[KB_PACKET_DATA] = on_data,
	[KB_PACKET_AGAIN] = on_again,
	[KB_PACKET_PROBE] = on_probe,
	[KB_PACKET_END] = on_end,
};

/* ---- Calls ----------------------------------------------------------------------------------- */

static void take_hold(struct kb_line *l, const struct kb_packet *p)
{
	int64_t ms = 0;

	for (size_t i = 0; i < p->len && i < 4; i++)
		ms |= (int64_t)p->data[i] << (8 * i);
	l->hold_ms = KB_MIN(KB_MAX(ms, KB_LINE_HOLD_MIN), KB_LINE_HOLD_MAX);
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
		kb_line_end(l, &err);
		return;
	}
	if (!l->listening || l->over)
		return;
	if (kb_line_open_inner(l, &fd, &err) < 0)
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
		kb_line_put_gone(l, p->line);
}

void kb_line_packet(struct kb_line *l, const struct kb_packet *p)
{
	bool ours = l->id != 0 && p->line == l->id;

	if (ours) {
		l->heard = kb_now_mono();
		if (l->agreed)
			kb_line_unhold(l);
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
		kb_line_put_gone(l, p->line);
}
