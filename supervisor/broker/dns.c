#include "dns.h"

#include <ctype.h>
#include <string.h>

#define HEADER	  12
#define LABEL_MAX 63
#define F_REPLY	  0x8000u
#define F_OPCODE  0x7800u
#define F_WANTED  0x0100u
#define F_CAN	  0x0080u

static uint16_t u16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint8_t *put16(uint8_t *p, unsigned value)
{
	p[0] = (uint8_t)(value >> 8);
	p[1] = (uint8_t)value;
	return p + 2;
}

/* A name in a question is never compressed. Returns its length in the message, 0: malformed. */
static size_t parse_name(const uint8_t *data, size_t len, char name[KB_HOST_MAX])
{
	size_t at = 0, out = 0;

	while (at < len && data[at] != 0) {
		size_t label = data[at++];

		if (label > LABEL_MAX || at + label > len || out + label + 2 > KB_HOST_MAX)
			return 0;
		if (out > 0)
			name[out++] = '.';
		for (size_t i = 0; i < label; i++) {
			uint8_t c = data[at + i];

			/* Anything else is in no rule; it must not look like something else. */
			if (!isalnum(c) && c != '-' && c != '_')
				c = '?';
			name[out++] = (char)tolower(c);
		}
		at += label;
	}
	name[out] = '\0';
	return at < len ? at + 1 : 0;
}

bool kb_dns_parse(const uint8_t *data, size_t len, struct kb_dns_query *ret)
{
	size_t name;

	if (len < HEADER)
		return false;
	*ret = (struct kb_dns_query){.id = u16(data), .flags = u16(data + 2)};
	if ((ret->flags & (F_REPLY | F_OPCODE)) || u16(data + 4) != 1)
		return false;
	name = parse_name(data + HEADER, len - HEADER, ret->name);
	if (name == 0 || HEADER + name + 4 > len || name + 4 > sizeof(ret->question))
		return false;
	ret->type = u16(data + HEADER + name);
	ret->class_ = u16(data + HEADER + name + 2);
	ret->question_len = name + 4;
	memcpy(ret->question, data + HEADER, ret->question_len);
	return true;
}

size_t kb_dns_answer(const struct kb_dns_query *q, unsigned code, const uint8_t *address,
	size_t address_len, uint8_t ret[KB_DNS_REPLY])
{
	uint8_t *p = ret;

	p = put16(p, q->id);
	p = put16(p, F_REPLY | F_CAN | (q->flags & F_WANTED) | code);
	p = put16(p, 1);
	p = put16(p, address ? 1 : 0);
	p = put16(p, 0);
	p = put16(p, 0);
	memcpy(p, q->question, q->question_len);
	p += q->question_len;
	if (!address)
		return (size_t)(p - ret);
	p = put16(p, 0xc000 | HEADER);
	p = put16(p, q->type);
	p = put16(p, q->class_);
	p = put16(p, 0);
	p = put16(p, KB_DNS_TTL);
	p = put16(p, (unsigned)address_len);
	memcpy(p, address, address_len);
	return (size_t)(p - ret) + address_len;
}
