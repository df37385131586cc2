/* What the files of a line share.
 *
 *	line.c		the object: its user's end, its carrier, time, the ends of things
 *	line_packets.c	what is said over the carrier
 */
#pragma once

#include "buf.h"
#include "line.h"
#include "packet.h"

#define KB_LINE_HOLD_MIN 1000
#define KB_LINE_HOLD_MAX 3600000
#define KB_LINE_OUT_HIGH (128u << 10) /* packets made and not written; more when it is less */
#define KB_LINE_ACK_MS	 5
#define KB_LINE_PROBE_MS 3000 /* silence after which the other end is asked */
#define KB_LINE_END_MS	 300  /* between two tries to end */

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

static inline uint64_t kb_line_delivered(const struct kb_line *l)
{
	return l->received - kb_buf_len(&l->taken);
}

/* line.c */
/* Something is to be told, or done, soon. */
void kb_line_kick(struct kb_line *l);
/* Bytes flow again: its time does not run. */
void kb_line_unhold(struct kb_line *l);
/* why NULL: one of the ends closed it. */
void kb_line_end(struct kb_line *l, const struct kb_err *why);
int kb_line_open_inner(struct kb_line *l, int *ret_fd, struct kb_err *err);

/* line_packets.c */
void kb_line_put_gone(struct kb_line *l, uint64_t id);
/* A packet about the connection as it stands. */
void kb_line_put_state(struct kb_line *l, enum kb_packet_kind kind, uint64_t number);
void kb_line_put_call(struct kb_line *l);
/* As many as the carrier's queue should have. */
void kb_line_make_packets(struct kb_line *l);
void kb_line_packet(struct kb_line *l, const struct kb_packet *p);
