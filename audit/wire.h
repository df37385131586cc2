/* Private to audit/: the few pieces of the protobuf wire format that packed blocks use
 * (protobuf.dev/programming-guides/encoding). Writers trust that there is room; readers trust
 * nothing. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define KB_WIRE_VARINT		 0u
#define KB_WIRE_FIXED64		 1u
#define KB_WIRE_BYTES		 2u
#define KB_WIRE_VARINT_MAX	 10 /* bytes */
#define KB_WIRE_TAG(field, type) ((uint32_t)(field) << 3 | (type))

static inline uint64_t kb_wire_zigzag(int64_t v)
{
	return (uint64_t)v << 1 ^ (uint64_t)(v >> 63);
}

static inline int64_t kb_wire_unzigzag(uint64_t v)
{
	return (int64_t)(v >> 1 ^ (~(v & 1) + 1));
}

static inline uint8_t *kb_wire_put(uint8_t *p, uint64_t v)
{
	while (v >= 0x80) {
		*p++ = (uint8_t)(v | 0x80);
		v >>= 7;
	}
	*p++ = (uint8_t)v;
	return p;
}

static inline uint8_t *kb_wire_put_field(uint8_t *p, unsigned field, uint64_t v)
{
	return kb_wire_put(kb_wire_put(p, KB_WIRE_TAG(field, KB_WIRE_VARINT)), v);
}

static inline uint8_t *kb_wire_put_bytes(uint8_t *p, unsigned field, const void *data, size_t len)
{
	p = kb_wire_put(kb_wire_put(p, KB_WIRE_TAG(field, KB_WIRE_BYTES)), len);
	if (len)
		memcpy(p, data, len);
	return p + len;
}

static inline size_t kb_wire_size(uint64_t v)
{
	size_t n = 1;

	while (v >= 0x80) {
		v >>= 7;
		n++;
	}
	return n;
}

/* A read position. `bad` sticks: reads past the end return 0 and set it. */
struct kb_wire {
	const uint8_t *p, *end;
	bool bad;
};

static inline uint64_t kb_wire_get(struct kb_wire *w)
{
	uint64_t v = 0;

	if (w->p < w->end && *w->p < 0x80)
		return *w->p++;
	for (unsigned shift = 0; shift < 64 && w->p < w->end; shift += 7) {
		uint8_t c = *w->p++;

		if (shift == 63 && c > 1)
			break;
		v |= (uint64_t)(c & 0x7f) << shift;
		if (c < 0x80)
			return v;
	}
	w->bad = true;
	return 0;
}

static inline uint64_t kb_wire_get_fixed64(struct kb_wire *w)
{
	uint64_t v = 0;

	if (w->end - w->p < 8) {
		w->bad = true;
		return 0;
	}
	for (int i = 0; i < 8; i++)
		v |= (uint64_t)*w->p++ << (8 * i);
	return v;
}

/* A length-delimited piece, as its own read position. */
static inline struct kb_wire kb_wire_get_bytes(struct kb_wire *w)
{
	uint64_t len = kb_wire_get(w);
	struct kb_wire sub = {w->p, w->p, false};

	if (w->bad || len > (uint64_t)(w->end - w->p)) {
		w->bad = true;
		return sub;
	}
	w->p += len;
	sub.end = w->p;
	return sub;
}
