/* Packets: the pieces a line (line.h) travels in over a carrier that may lose bytes, cut anywhere,
 * or join what belongs to different connections.
 *
 * On the carrier a packet stands between zero bytes and has none in itself (consistent overhead
 *byte stuffing, Cheshire and Baker 1999): wherever reading begins, the next packet is found.
 *Inside:
 *
 *	u8  kind	enum kb_packet_kind
 *	u64 line	the connection it belongs to; never 0
 *	u64 number	by kind
 *	u64 ack		by kind
 *	bytes		by kind, at most KB_PACKET_BYTES
 *	u32 sum		of all before
 *
 * Numbers are little-endian. The sum tells packets from pieces of packets; it is no protection from
 * somebody who writes packets of his own. Pure, but for the buffers.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "err.h"

#define KB_PACKET_BYTES	 (32u << 10)
#define KB_PACKET_HEADER 25
#define KB_PACKET_SUM	 4
/* One, as it lies on the carrier, at most: a byte more in 254, and its two zeros. */
#define KB_PACKET_MAX                                                                              \
	(KB_PACKET_HEADER + KB_PACKET_BYTES + KB_PACKET_SUM +                                      \
		(KB_PACKET_HEADER + KB_PACKET_BYTES + KB_PACKET_SUM) / 254 + 3)

enum kb_packet_kind {
	KB_PACKET_CALL = 1, /* a new connection. number: which try; data: u32, how long it holds */
	KB_PACKET_RECALL,   /* the same over a new carrier. number: which try; ack: bytes taken */
	KB_PACKET_ACCEPT,   /* to either. number: of the try; ack: bytes taken */
	KB_PACKET_GONE,	    /* the connection is not known here (any more) */
	KB_PACKET_DATA,	    /* number: of the first byte; ack: bytes taken. May be empty */
	KB_PACKET_AGAIN,    /* bytes are missing from ack on: send them again */
	KB_PACKET_PROBE,    /* number: bytes sent; ack: bytes taken. Wants any answer */
	KB_PACKET_END,	    /* number: bytes sent, no more will be */
	KB_PACKET_KINDS_,
};

struct kb_packet {
	enum kb_packet_kind kind;
	uint64_t line, number, ack;
	const uint8_t *data; /* decoded: in the decoder, until the next step */
	size_t len;
};

int kb_packet_encode(const struct kb_packet *packet, struct kb_buf *out, struct kb_err *err);

/* What has come and is not a packet yet. */
struct kb_packet_decoder {
	uint8_t bytes[KB_PACKET_MAX]; /* of one packet, stuffed; then unstuffed */
	size_t len;
	bool skip;    /* too long to be one: up to the next zero it is rubbish */
	uint64_t bad; /* pieces that were no packet */
};

/* Take bytes until a packet is whole: 1, and how many were taken in *ret_used; 0 when all were
 * taken and none is. Rubbish is passed over. */
int kb_packet_decode(struct kb_packet_decoder *decoder, const uint8_t *data, size_t len,
	size_t *ret_used, struct kb_packet *ret);
/* A new carrier: forget what the last one left. */
void kb_packet_decoder_reset(struct kb_packet_decoder *decoder);
