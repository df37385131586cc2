#include "packet.h"

#include <string.h>

#define RUN_MAX 254 /* bytes without a zero behind one length byte */

/* ---- Numbers --------------------------------------------------------------------------------- */

static void put_le(uint8_t *p, uint64_t v, int size)
{
	for (int i = 0; i < size; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get_le(const uint8_t *p, int size)
{
	uint64_t v = 0;

	for (int i = 0; i < size; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

/* Eight bytes a step, because a machine without KVM pays for each. */
static uint32_t sum_of(const uint8_t *data, size_t len)
{
	uint64_t h = 0x9e3779b97f4a7c15u ^ len;

	for (; len >= 8; data += 8, len -= 8) {
		h = (h ^ get_le(data, 8)) * 0xff51afd7ed558ccdu;
		h ^= h >> 32;
	}
	h = (h ^ get_le(data, (int)len)) * 0xc4ceb9fe1a85ec53u;
	return (uint32_t)(h >> 32);
}

/* ---- Encoding -------------------------------------------------------------------------------- */

/* Length bytes take the places of the zeros: 1 + the bytes up to the next. */
struct stuffer {
	uint8_t *at, *length;
};

static void stuff(struct stuffer *s, const uint8_t *data, size_t len)
{
	while (len > 0) {
		size_t room = RUN_MAX - (size_t)(s->at - s->length - 1);
		size_t n = KB_MIN(len, room);
		const uint8_t *zero = memchr(data, 0, n);

		if (zero)
			n = (size_t)(zero - data);
		memcpy(s->at, data, n);
		s->at += n;
		data += n;
		len -= n;
		if (zero) {
			data++;
			len--;
		} else if (n < room) {
			break;
		}
		*s->length = (uint8_t)(s->at - s->length);
		s->length = s->at++;
	}
}

int kb_packet_encode(const struct kb_packet *packet, struct kb_buf *out, struct kb_err *err)
{
	uint8_t plain[KB_PACKET_HEADER + KB_PACKET_BYTES + KB_PACKET_SUM], *dst;
	size_t len = KB_PACKET_HEADER + packet->len;
	struct stuffer s;
	int r;

	if (packet->len > KB_PACKET_BYTES)
		return kb_err_set(err, KB_ERR_LIMIT, "a packet of %zu bytes", packet->len);
	r = kb_buf_reserve(out, KB_PACKET_MAX, &dst, err);
	if (r < 0)
		return r;
	plain[0] = (uint8_t)packet->kind;
	put_le(plain + 1, packet->line, 8);
	put_le(plain + 9, packet->number, 8);
	put_le(plain + 17, packet->ack, 8);
	if (packet->len > 0)
		memcpy(plain + KB_PACKET_HEADER, packet->data, packet->len);
	put_le(plain + len, sum_of(plain, len), KB_PACKET_SUM);
	dst[0] = 0;
	s = (struct stuffer){.at = dst + 2, .length = dst + 1};
	stuff(&s, plain, len + KB_PACKET_SUM);
	*s.length = (uint8_t)(s.at - s.length);
	*s.at++ = 0;
	kb_buf_commit(out, (size_t)(s.at - dst));
	return 0;
}

/* ---- Decoding -------------------------------------------------------------------------------- */

/* In place. The length, or 0 when it is none. */
static size_t unstuff(uint8_t *bytes, size_t len)
{
	size_t in = 0, out = 0;

	while (in < len) {
		size_t run = bytes[in];

		if (run == 0 || in + run > len)
			return 0;
		memmove(bytes + out, bytes + in + 1, run - 1);
		in += run;
		out += run - 1;
		if (run <= RUN_MAX && in < len)
			bytes[out++] = 0;
	}
	return out;
}

static bool parse(struct kb_packet_decoder *d, struct kb_packet *ret)
{
	size_t len = unstuff(d->bytes, d->len);

	if (len < KB_PACKET_HEADER + KB_PACKET_SUM ||
		len > KB_PACKET_HEADER + KB_PACKET_BYTES + KB_PACKET_SUM)
		return false;
	len -= KB_PACKET_SUM;
	if (get_le(d->bytes + len, KB_PACKET_SUM) != sum_of(d->bytes, len))
		return false;
	*ret = (struct kb_packet){.kind = (enum kb_packet_kind)d->bytes[0],
		.line = get_le(d->bytes + 1, 8),
		.number = get_le(d->bytes + 9, 8),
		.ack = get_le(d->bytes + 17, 8),
		.data = d->bytes + KB_PACKET_HEADER,
		.len = len - KB_PACKET_HEADER};
	return d->bytes[0] != 0 && d->bytes[0] < KB_PACKET_KINDS_ && ret->line != 0;
}

/* Up to a zero; false when it lasts longer than a packet can. */
static void gather(struct kb_packet_decoder *d, const uint8_t *data, size_t len)
{
	if (d->skip || d->len + len > sizeof(d->bytes)) {
		d->skip = true;
		return;
	}
	memcpy(d->bytes + d->len, data, len);
	d->len += len;
}

int kb_packet_decode(struct kb_packet_decoder *d, const uint8_t *data, size_t len, size_t *ret_used,
	struct kb_packet *ret)
{
	*ret_used = 0;
	while (*ret_used < len) {
		const uint8_t *at = data + *ret_used;
		const uint8_t *zero = memchr(at, 0, len - *ret_used);
		size_t n = zero ? (size_t)(zero - at) : len - *ret_used;
		bool good;

		gather(d, at, n);
		*ret_used += n + (zero ? 1 : 0);
		if (!zero)
			return 0;
		good = !d->skip && d->len > 0 && parse(d, ret);
		d->bad += !good && (d->skip || d->len > 0);
		kb_packet_decoder_reset(d);
		if (good)
			return 1;
	}
	return 0;
}

void kb_packet_decoder_reset(struct kb_packet_decoder *d)
{
	d->len = 0;
	d->skip = false;
}
