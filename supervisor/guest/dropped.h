/* What the kernel says of packets that were dropped in a session's network (nfnetlink_log). */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Where a packet or connection was going. */
struct kb_dropped {
	uint8_t address[16];
	unsigned len;	  /* 4 or 16 */
	uint16_t port;	  /* 0: the protocol has none */
	uint8_t protocol; /* IPPROTO_* */
};

/* Calls fn for each packet of one datagram of the netlink socket. Malformed ones are skipped. */
void kb_dropped_parse(const uint8_t *data, size_t len,
	void (*fn)(const struct kb_dropped *packet, void *arg), void *arg);
