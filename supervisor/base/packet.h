/* Packets: the envelope of a carrier, that is of a byte stream that may begin in the middle of
 * something (a virtio serial port hands out what an earlier host wrote, a broken connection ends
 * anywhere). Every packet can be found again from any point on, whatever its bytes are.
 *
 * On the wire a packet is a header of KB_PACKET_HEADER bytes and its data, encoded so that no byte
 * of it is zero, between zero bytes. The encoding is COBS (Cheshire and Baker, "Consistent Overhead
 * Byte Stuffing", IEEE/ACM Transactions on Networking 7(2), 1999): one byte more for each 254.
 *
 *	u8  kind	of its user
 *	u8  zero, three times
 *	u32 length	of the data, little-endian, at most KB_PACKET_DATA_MAX
 *	u64 offset	of its user, little-endian
 *
 * What does not decode, or is shorter or longer than its header says, is dropped: it was cut.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "err.h"

#define KB_PACKET_HEADER   16u
#define KB_PACKET_DATA_MAX (16u << 10)
/* The most that one packet takes on the wire, zero bytes included. */
#define KB_PACKET_WIRE_MAX                                                                         \
	(KB_PACKET_HEADER + KB_PACKET_DATA_MAX + (KB_PACKET_HEADER + KB_PACKET_DATA_MAX) / 254 + 3)

struct kb_packet {
	uint8_t kind;
	uint64_t offset;
	const uint8_t *data;
	size_t len;
};

/* Append one packet. */
int kb_packet_encode(const struct kb_packet *packet, struct kb_buf *out, struct kb_err *err);
/* What stands between two zero bytes, decoded in place: ret->data points into it. False when it is
 * no packet. */
bool kb_packet_decode(uint8_t *bytes, size_t len, struct kb_packet *ret);
