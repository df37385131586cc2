#include "supervisor/guest/dropped.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>

#define IPV4_HEADER 20
#define IPV6_HEADER 40

static bool parse_packet(const uint8_t *p, size_t len, struct kb_dropped *ret)
{
	size_t header;

	*ret = (struct kb_dropped){0};
	if (len >= IPV4_HEADER && p[0] >> 4 == 4) {
		header = (size_t)(p[0] & 15) * 4;
		ret->protocol = p[9];
		ret->len = 4;
		memcpy(ret->address, p + 16, 4);
	} else if (len >= IPV6_HEADER && p[0] >> 4 == 6) {
		header = IPV6_HEADER;
		ret->protocol = p[6];
		ret->len = 16;
		memcpy(ret->address, p + 24, 16);
	} else {
		return false;
	}
	if ((ret->protocol == IPPROTO_UDP || ret->protocol == IPPROTO_TCP ||
		    ret->protocol == IPPROTO_SCTP || ret->protocol == IPPROTO_UDPLITE) &&
		len >= header + 4)
		ret->port = (uint16_t)(p[header + 2] << 8 | p[header + 3]);
	return true;
}

static void parse_attributes(const uint8_t *p, size_t len,
	void (*fn)(const struct kb_dropped *packet, void *arg), void *arg)
{
	while (len >= NLA_HDRLEN) {
		struct nlattr attribute;
		struct kb_dropped packet;

		memcpy(&attribute, p, sizeof(attribute));
		if (attribute.nla_len < NLA_HDRLEN || attribute.nla_len > len)
			return;
		if ((attribute.nla_type & NLA_TYPE_MASK) == NFULA_PAYLOAD &&
			parse_packet(
				p + NLA_HDRLEN, (size_t)attribute.nla_len - NLA_HDRLEN, &packet))
			fn(&packet, arg);
		if ((size_t)NLA_ALIGN(attribute.nla_len) >= len)
			return;
		p += NLA_ALIGN(attribute.nla_len);
		len -= NLA_ALIGN(attribute.nla_len);
	}
}

void kb_dropped_parse(const uint8_t *data, size_t len,
	void (*fn)(const struct kb_dropped *packet, void *arg), void *arg)
{
	const size_t head = NLMSG_HDRLEN + sizeof(struct nfgenmsg);

	while (len >= NLMSG_HDRLEN) {
		struct nlmsghdr msg;

		memcpy(&msg, data, sizeof(msg));
		if (msg.nlmsg_len < NLMSG_HDRLEN || msg.nlmsg_len > len)
			return;
		if (msg.nlmsg_type == (NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET) &&
			msg.nlmsg_len >= head)
			parse_attributes(data + head, msg.nlmsg_len - head, fn, arg);
		if (NLMSG_ALIGN(msg.nlmsg_len) >= len)
			return;
		data += NLMSG_ALIGN(msg.nlmsg_len);
		len -= NLMSG_ALIGN(msg.nlmsg_len);
	}
}
