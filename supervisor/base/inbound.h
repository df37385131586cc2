/* Connections from outside to a published port of a session: the words the link (on the host) and
 * the session process (in the machine) share. See Inbound in proto/link.proto. */
#pragma once

#include <stdint.h>

#define KB_INBOUND_PORTS 16  /* published ones of a session */
#define KB_INBOUND_FLOWS 256 /* connections of a session at once; more wait to be accepted */

enum kb_inbound_kind {
	/* From the host. */
	KB_INBOUND_OPEN = 1, /* port can be reached at host_port: for the record */
	KB_INBOUND_SHUT,     /* no more */
	KB_INBOUND_CONNECT,  /* stream: a client waits for a connection to port */
	/* From the guest, to a CONNECT: now the stream is open, or it never will be. */
	KB_INBOUND_CONNECTED,
	KB_INBOUND_REFUSED,
	/* Both ways: the sender's socket broke; the receiver ends its own. */
	KB_INBOUND_CANCEL,
	KB_INBOUND_KINDS_,
};
