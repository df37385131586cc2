/* A session's way out: the words the relay (in the machine) and the broker (on the host) share. See
 * Egress in proto/link.proto. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define KB_EGRESS_STREAMS 0x8000u     /* numbers a session has, used in turn */
#define KB_EGRESS_BASE	  0x80000000u /* the first session's first; terminals have those below */
#define KB_EGRESS_FLOWS	  512	      /* connections of a session at once */

enum kb_egress_kind {
	/* From the guest. */
	KB_EGRESS_TCP = 1, /* a stream: a connection made to address and port */
	KB_EGRESS_PROXY,   /* a stream: a connection to the session's HTTP and SOCKS proxy */
	KB_EGRESS_DNS,	   /* a stream: DNS messages, each behind its length (RFC 1035, 4.2.2) */
	KB_EGRESS_DROPPED, /* a packet to address and port was dropped */
	KB_EGRESS_FULL,	   /* KB_EGRESS_FLOWS are open: the next ones wait */
	KB_EGRESS_FINISH,
	/* Both ways. */
	KB_EGRESS_CANCEL,
	/* From the host. */
	KB_EGRESS_DONE,
	KB_EGRESS_FINISHED,
	KB_EGRESS_KINDS_,
};

static inline bool kb_egress_opens(uint32_t kind)
{
	return kind >= KB_EGRESS_TCP && kind <= KB_EGRESS_DNS;
}

/* Where the relay is found in the session. The addresses are of the range for benchmarks (RFC 2544)
 * and of a unique local prefix (RFC 4193): no network a policy may name has them. */
#define KB_EGRESS_ADDRESS    "198.18.0.1"
#define KB_EGRESS_ADDRESS6   "fd6b:6273:7570::1"
#define KB_EGRESS_DNS_PORT   53
#define KB_EGRESS_PROXY_PORT 3128
#define KB_EGRESS_PROXY_URL  "http://198.18.0.1:3128"
#define KB_EGRESS_NO_PROXY   "localhost,127.0.0.1,::1"
#define KB_EGRESS_TCP_PORT   1 /* where connections to anywhere are led */

/* Made-up addresses that stand for names: in 198.18.0.0/15 and in the prefix. */
#define KB_EGRESS_NAMES_FIRST 256u /* 198.18.1.0 */
#define KB_EGRESS_NAMES_MAX   16384u
