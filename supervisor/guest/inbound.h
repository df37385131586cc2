/* Connections from outside to published ports of a session. The host asks for each; it is made to
 * the session's own loopback, so that a server there sees a local client, whatever address it
 * listens on. */
#pragma once

#include <sys/types.h>

#include "policy/policy.h"
#include "supervisor/base/err.h"
#include "supervisor/base/frame.h"
#include "supervisor/base/loop.h"
#include "supervisor/base/str.h"
#include "supervisor/guest/recorder.h"

struct kb_inbound;
struct Kb__Inbound;

struct kb_inbound_options {
	uint8_t session[KB_ULID_SIZE];
	pid_t init;  /* of the container */
	bool inside; /* we are in its network namespace already; else the first message leads there
		      */
	const struct kb_bundle *bundle;
	struct kb_recorder *recorder;
};

int kb_inbound_create(struct kb_loop *loop, struct kb_channel *channel,
	const struct kb_inbound_options *options, struct kb_inbound **ret, struct kb_err *err);
/* What the host says. */
void kb_inbound_message(struct kb_inbound *in, const struct Kb__Inbound *msg);
/* Ends every connection and records it; before the channel goes. NULL is fine. */
void kb_inbound_destroy(struct kb_inbound *in);
