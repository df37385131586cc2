#include "packet.h"

#include <string.h>

#define RUN_MAX 254u /* bytes behind one count */

static void put_le(uint8_t *to, uint64_t value, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		to[i] = (uint8_t)(value >> 8 * i);
}

static uint64_t get_le(const uint8_t *from, unsigned bytes)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < bytes; i++)
		value |= (uint64_t)from[i] << 8 * i;
	return value;
}

/* The encoder's place: where the count of the current run stands, and where the next byte goes. */
struct stuffing {
	uint8_t *count, *at;
};

static void start_run(struct stuffing *s)
{
	s->count = s->at++;
	*s->count = 1;
}

static void stuff(struct stuffing *s, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (data[i] != 0) {
			*s->at++ = data[i];
			++*s->count;
		}
		if (data[i] == 0 || *s->count == RUN_MAX + 1)
			start_run(s);
	}
}

int kb_packet_encode(const struct kb_packet *packet, struct kb_buf *out, struct kb_err *err)
{
	uint8_t header[KB_PACKET_HEADER] = {packet->kind};
	struct stuffing s;
	uint8_t *start;
	int r;

	if (packet->len > KB_PACKET_DATA_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "a packet of %zu bytes", packet->len);
	r = kb_buf_reserve(out, KB_PACKET_WIRE_MAX, &start, err);
	if (r < 0)
		return r;
	put_le(header + 4, packet->len, 4);
	put_le(header + 8, packet->offset, 8);
	s.at = start;
	*s.at++ = 0;
	start_run(&s);
	stuff(&s, header, sizeof(header));
	stuff(&s, packet->data, packet->len);
	*s.at++ = 0;
	kb_buf_commit(out, (size_t)(s.at - start));
	return 0;
}

/* Decoded bytes never outrun encoded ones, so one place serves both. Returns their number, or
 * SIZE_MAX when a count points beyond the end. */
static size_t unstuff(uint8_t *bytes, size_t len)
{
	size_t from = 0, to = 0;

	while (from < len) {
		size_t run = bytes[from++] - 1u;

		if (run > len - from)
			return SIZE_MAX;
		memmove(bytes + to, bytes + from, run);
		from += run;
		to += run;
		if (run < RUN_MAX && from < len)
			bytes[to++] = 0;
	}
	return to;
}

bool kb_packet_decode(uint8_t *bytes, size_t len, struct kb_packet *ret)
{
	size_t size = len > KB_PACKET_WIRE_MAX ? SIZE_MAX : unstuff(bytes, len);

	if (size == SIZE_MAX || size < KB_PACKET_HEADER || get_le(bytes + 1, 3) != 0)
		return false;
	*ret = (struct kb_packet){.kind = bytes[0],
		.offset = get_le(bytes + 8, 8),
		.data = bytes + KB_PACKET_HEADER,
		.len = size - KB_PACKET_HEADER};
	return ret->len == get_le(bytes + 4, 4);
}
