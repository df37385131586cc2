/* DNS messages (RFC 1035), as a resolver of made-up addresses needs them. Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "http.h"

#define KB_DNS_A     1
#define KB_DNS_AAAA  28
#define KB_DNS_OK    0
#define KB_DNS_FORM  1
#define KB_DNS_FAIL  2
#define KB_DNS_NONE  3 /* there is no such name */
#define KB_DNS_TTL   60
#define KB_DNS_REPLY 512 /* the longest answer */

struct kb_dns_query {
	uint16_t id, type, class_;
	uint16_t flags;
	char name[KB_HOST_MAX];		   /* lower case, no dot at the end; "" is the root */
	uint8_t question[KB_HOST_MAX + 8]; /* as it came */
	size_t question_len;
};

/* One query with one question; false: it is none, and gets no answer (or FORM if an id is there).
 */
bool kb_dns_parse(const uint8_t *data, size_t len, struct kb_dns_query *ret);
/* The answer: code, and with address (4 or 16 bytes; NULL: none) a record of it. Its length. */
size_t kb_dns_answer(const struct kb_dns_query *query, unsigned code, const uint8_t *address,
	size_t address_len, uint8_t ret[KB_DNS_REPLY]);
