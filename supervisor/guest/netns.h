/* The network namespace of a session that has a way out: routes and rules that lead every
 * connection to the relay. */
#pragma once

#include <sys/types.h>

#include "policy/policy.h"
#include "supervisor/base/err.h"

/* What the relay listens on, all of them non-blocking. Unused ones are -1. */
struct kb_netns_sockets {
	int tcp, tcp6, proxy, dns_udp, dns_tcp;
	int dropped; /* netlink: packets that were dropped, see nfnetlink_log(7) */
};

/* Puts the calling process into the network namespace of process `init`, for good, and sets it up:
 * no packet leaves it. TCP goes to the relay, wherever it was sent to, but for what stays on
 * loopback; loopback addresses that a rule of the bundle names with one port are the host's. */
int kb_netns_enter(pid_t init, const struct kb_bundle *bundle, struct kb_netns_sockets *ret,
	struct kb_err *err);
void kb_netns_close(struct kb_netns_sockets *sockets);
