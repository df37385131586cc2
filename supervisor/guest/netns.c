#include "supervisor/guest/netns.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/base/egress.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/spawn.h"
#include "supervisor/base/util.h"

#define RULES_MAX      (32u << 10) /* fits a pipe, so that writing it never waits */
#define LOG_GROUP      7
#define LOG_COPY       64 /* bytes of a dropped packet that are looked at */
#define IPV6_FREE_BIND 78 /* IPV6_FREEBIND of linux/in6.h, which does not go with netinet/in.h */

/* As in linux/ipv6.h, which does not go together with netinet/in.h. */
struct in6_address_request {
	struct in6_addr address;
	uint32_t prefix;
	int index;
};
struct in6_route_request {
	struct in6_addr destination, source, gateway;
	uint32_t type;
	uint16_t destination_bits, source_bits;
	uint32_t metric;
	unsigned long info;
	uint32_t flags;
	int index;
};

/* ---- Addresses and routes -------------------------------------------------------------------- */

static int set_up_ipv4(struct kb_err *err)
{
	KB_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in in = {.sin_family = AF_INET};
	struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	struct ifreq alias = {.ifr_name = "lo:0"};
	struct rtentry route = {.rt_flags = RTF_UP, .rt_dev = (char *)"lo"};

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &lo) < 0)
		return kb_err_sys(err, errno, "the session's loopback cannot be brought up");
	memcpy(&route.rt_dst, &in, sizeof(in));
	memcpy(&route.rt_genmask, &in, sizeof(in));
	inet_pton(AF_INET, KB_EGRESS_ADDRESS, &in.sin_addr);
	memcpy(&alias.ifr_addr, &in, sizeof(in));
	if (ioctl(fd, SIOCSIFADDR, &alias) < 0)
		return kb_err_sys(err, errno, "the relay's address cannot be set");
	in.sin_addr.s_addr = htonl(INADDR_BROADCAST);
	memcpy(&alias.ifr_netmask, &in, sizeof(in));
	if (ioctl(fd, SIOCSIFNETMASK, &alias) < 0)
		return kb_err_sys(err, errno, "the relay's address cannot be set");
	if (ioctl(fd, SIOCADDRT, &route) < 0)
		return kb_err_sys(err, errno, "the session's default route cannot be set");
	return 0;
}

/* A machine without IPv6 has no IPv6 to lead anywhere: *ret_has. */
static int set_up_ipv6(bool *ret_has, struct kb_err *err)
{
	KB_CLOSE int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct in6_address_request address = {.prefix = 128, .index = (int)if_nametoindex("lo")};
	struct in6_route_request route = {
		.flags = RTF_UP, .metric = 1, .index = (int)if_nametoindex("lo")};

	*ret_has = false;
	if (fd < 0)
		return 0;
	inet_pton(AF_INET6, KB_EGRESS_ADDRESS6, &address.address);
	if (ioctl(fd, SIOCSIFADDR, &address) < 0)
		return 0; /* switched off; without an address and a route nothing goes anywhere */
	if (ioctl(fd, SIOCADDRT, &route) < 0)
		return kb_err_sys(err, errno, "the session's IPv6 route cannot be set");
	*ret_has = true;
	return 0;
}

/* ---- Rules ----------------------------------------------------------------------------------- */

/* `net connect tcp "127.0.0.1:8080"`: the host's loopback, by name. */
static int add_named_loopback(
	struct kb_buf *out, const struct kb_bundle *bundle, struct kb_err *err)
{
	static const uint8_t loopback6[16] = {[15] = 1};
	const struct kb_net_rule *rules;
	size_t n = kb_bundle_net(bundle, &rules);
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		const struct kb_net_rule *rule = &rules[i];
		char text[INET6_ADDRSTRLEN];
		bool v4 = rule->address_len == 4 && rule->address[0] == 127;
		bool v6 = rule->address_len == 16 && !memcmp(rule->address, loopback6, 16);

		if (rule->direction != KB_NET_CONNECT || rule->action != KB_ALLOW || rule->host ||
			(!v4 && !v6) || rule->prefix != rule->address_len * 8 ||
			rule->port_lo != rule->port_hi || rule->protocol == IPPROTO_UDP)
			continue;
		inet_ntop(v4 ? AF_INET : AF_INET6, rule->address, text, sizeof(text));
		r = kb_buf_printf(out, err, "  %s daddr %s tcp dport %u dnat %s to %s%s%s:%u\n",
			v4 ? "ip" : "ip6", text, rule->port_lo, v4 ? "ip" : "ip6", v4 ? "" : "[",
			v4 ? KB_EGRESS_ADDRESS : KB_EGRESS_ADDRESS6, v4 ? "" : "]",
			KB_EGRESS_TCP_PORT);
	}
	return r;
}

static int make_rules(
	struct kb_buf *out, const struct kb_bundle *bundle, bool ipv6, struct kb_err *err)
{
	int r = kb_buf_puts(
		out, "table inet kbsup {\n chain nat { type nat hook output priority -100;\n", err);

	if (r == 0)
		r = add_named_loopback(out, bundle, err);
	if (r == 0)
		r = kb_buf_printf(out, err,
			"  ip daddr 127.0.0.0/8 return\n  ip daddr %s return\n"
			"  ip6 daddr ::1 return\n  ip6 daddr %s return\n"
			"  meta nfproto ipv4 udp dport 53 dnat ip to %s:%u\n"
			"  meta nfproto ipv4 tcp dport 53 dnat ip to %s:%u\n"
			"  meta nfproto ipv4 meta l4proto tcp dnat ip to %s:%u\n",
			KB_EGRESS_ADDRESS, KB_EGRESS_ADDRESS6, KB_EGRESS_ADDRESS,
			KB_EGRESS_DNS_PORT, KB_EGRESS_ADDRESS, KB_EGRESS_DNS_PORT,
			KB_EGRESS_ADDRESS, KB_EGRESS_TCP_PORT);
	if (r == 0 && ipv6)
		r = kb_buf_printf(out, err,
			"  meta nfproto ipv6 meta l4proto tcp dnat ip6 to [%s]:%u\n",
			KB_EGRESS_ADDRESS6, KB_EGRESS_TCP_PORT);
	return r < 0 ? r
		     : kb_buf_printf(out, err,
			       " }\n chain out { type filter hook output priority 0; policy drop;\n"
			       "  ip daddr { 127.0.0.0/8, %s } accept\n"
			       "  ip6 daddr { ::1, %s } accept\n"
			       "  icmpv6 type { nd-router-solicit, mld-listener-report, "
			       "mld2-listener-report } drop\n"
			       "  limit rate 50/second burst 100 packets log group %d snaplen %d\n"
			       "  reject\n }\n}\n",
			       KB_EGRESS_ADDRESS, KB_EGRESS_ADDRESS6, LOG_GROUP, LOG_COPY);
}

static const char *find_nft(void)
{
	static const char *const places[] = {
		"/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/usr/local/sbin/nft"};

	for (size_t i = 0; i < KB_ARRAY_LEN(places); i++)
		if (access(places[i], X_OK) == 0)
			return places[i];
	return NULL;
}

static int run_nft(const struct kb_buf *rules, struct kb_err *err)
{
	const char *nft = find_nft();
	const char *const argv[] = {"nft", "-f", "-", NULL};
	KB_CLOSE int in = -1;
	KB_CLOSE int out = -1;
	int pipefd[2], status = 0, r;
	pid_t pid;

	if (!nft) {
		kb_err_set(err, KB_ERR_REFUSED, "the policy gives a network, and nft is not there");
		return kb_err_hint(err, "install nftables on the machine");
	}
	if (pipe2(pipefd, O_CLOEXEC) < 0)
		return kb_err_sys(err, errno, "a pipe cannot be made");
	in = pipefd[0];
	out = pipefd[1];
	r = kb_fd_write_all(out, kb_buf_data(rules), kb_buf_len(rules), err);
	kb_close(&out);
	struct kb_spawn_fd fds[] = {{in, STDIN_FILENO}, {STDERR_FILENO, STDERR_FILENO}};
	struct kb_spawn spawn = {.path = nft,
		.argv = argv,
		.fds = fds,
		.n_fds = KB_ARRAY_LEN(fds),
		.flags = KB_SPAWN_PDEATHSIG};
	if (r == 0)
		r = kb_spawn(&spawn, &pid, err);
	if (r < 0)
		return r;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (status == 0)
		return 0;
	kb_err_set(err, KB_ERR_REFUSED, "the session's network rules cannot be set");
	return kb_err_hint(err, "the machine's kernel needs nf_tables with nat, reject and log");
}

static int set_rules(const struct kb_bundle *bundle, bool ipv6, struct kb_err *err)
{
	KB_BUF_CLEANUP struct kb_buf rules;
	int r;

	kb_buf_init(&rules, RULES_MAX);
	r = make_rules(&rules, bundle, ipv6, err);
	return r < 0 ? r : run_nft(&rules, err);
}

/* ---- Sockets --------------------------------------------------------------------------------- */

static int open_socket(int family, int type, uint16_t port, int *ret, struct kb_err *err)
{
	KB_CLOSE int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	const int on = 1;
	int r;

	inet_pton(AF_INET, KB_EGRESS_ADDRESS, &in.sin_addr);
	inet_pton(AF_INET6, KB_EGRESS_ADDRESS6, &in6.sin6_addr);
	if (fd < 0)
		return kb_err_sys(err, errno, "the relay has no socket");
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	/* A new IPv6 address takes a moment until it can be listened on. */
	if (family == AF_INET)
		(void)setsockopt(fd, SOL_IP, IP_FREEBIND, &on, sizeof(on));
	else
		(void)setsockopt(fd, SOL_IPV6, IPV6_FREE_BIND, &on, sizeof(on));
	r = family == AF_INET ? bind(fd, (struct sockaddr *)&in, sizeof(in))
			      : bind(fd, (struct sockaddr *)&in6, sizeof(in6));
	if (r == 0 && type == SOCK_STREAM)
		r = listen(fd, 128);
	if (r < 0)
		return kb_err_sys(err, errno, "the relay cannot listen on port %u", port);
	*ret = kb_steal_fd(&fd);
	return 0;
}

struct log_request {
	struct nlmsghdr header;
	struct nfgenmsg generic;
	struct nlattr attribute;
	union {
		struct nfulnl_msg_config_cmd command;
		struct nfulnl_msg_config_mode mode;
		uint8_t bytes[8];
	} value;
};

static int configure_log(int fd, uint16_t type, const void *value, size_t len, struct kb_err *err)
{
	struct log_request request = {
		.header = {.nlmsg_type = NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG,
			.nlmsg_flags = NLM_F_REQUEST},
		.generic = {.res_id = htons(LOG_GROUP)},
		.attribute = {.nla_type = type, .nla_len = (uint16_t)(NLA_HDRLEN + len)}};

	memcpy(request.value.bytes, value, len);
	request.header.nlmsg_len =
		(uint32_t)(NLMSG_LENGTH(sizeof(request.generic)) + NLA_HDRLEN + NLA_ALIGN(len));
	if (send(fd, &request, request.header.nlmsg_len, 0) < 0)
		return kb_err_sys(err, errno, "dropped packets cannot be listened to");
	return 0;
}

static int open_log(int *ret, struct kb_err *err)
{
	const struct nfulnl_msg_config_cmd bind_command = {.command = NFULNL_CFG_CMD_BIND};
	const struct nfulnl_msg_config_mode mode = {
		.copy_mode = NFULNL_COPY_PACKET, .copy_range = htonl(LOG_COPY)};
	const uint32_t at_once = htonl(1);
	KB_CLOSE int fd =
		socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER);
	int r;

	if (fd < 0)
		return kb_err_sys(err, errno, "dropped packets cannot be listened to");
	r = configure_log(fd, NFULA_CFG_CMD, &bind_command, sizeof(bind_command), err);
	if (r == 0)
		r = configure_log(fd, NFULA_CFG_MODE, &mode, 6, err);
	if (r == 0)
		r = configure_log(fd, NFULA_CFG_QTHRESH, &at_once, sizeof(at_once), err);
	if (r == 0)
		*ret = kb_steal_fd(&fd);
	return r;
}

static int open_sockets(bool ipv6, struct kb_netns_sockets *s, struct kb_err *err)
{
	int r = open_socket(AF_INET, SOCK_STREAM, KB_EGRESS_TCP_PORT, &s->tcp, err);

	if (r == 0 && ipv6)
		r = open_socket(AF_INET6, SOCK_STREAM, KB_EGRESS_TCP_PORT, &s->tcp6, err);
	if (r == 0)
		r = open_socket(AF_INET, SOCK_STREAM, KB_EGRESS_PROXY_PORT, &s->proxy, err);
	if (r == 0)
		r = open_socket(AF_INET, SOCK_DGRAM, KB_EGRESS_DNS_PORT, &s->dns_udp, err);
	if (r == 0)
		r = open_socket(AF_INET, SOCK_STREAM, KB_EGRESS_DNS_PORT, &s->dns_tcp, err);
	return r < 0 ? r : open_log(&s->dropped, err);
}

void kb_netns_close(struct kb_netns_sockets *s)
{
	kb_close(&s->tcp);
	kb_close(&s->tcp6);
	kb_close(&s->proxy);
	kb_close(&s->dns_udp);
	kb_close(&s->dns_tcp);
	kb_close(&s->dropped);
}

int kb_netns_enter(pid_t init, const struct kb_bundle *bundle, struct kb_netns_sockets *ret,
	struct kb_err *err)
{
	struct kb_netns_sockets s = {-1, -1, -1, -1, -1, -1};
	char path[64];
	bool ipv6;
	KB_CLOSE int ns = -1;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)init);
	ns = open(path, O_RDONLY | O_CLOEXEC);
	if (ns < 0 || setns(ns, CLONE_NEWNET) < 0)
		return kb_err_sys(err, errno, "the session's network cannot be entered");
	r = set_up_ipv4(err);
	if (r == 0)
		r = set_up_ipv6(&ipv6, err);
	if (r == 0)
		r = set_rules(bundle, ipv6, err);
	if (r == 0)
		r = open_sockets(ipv6, &s, err);
	if (r < 0)
		kb_netns_close(&s);
	else
		*ret = s;
	return r;
}
