/* The relay: a session's connections, taken in its network namespace and handed to the host as
 * streams of the channel. It decides nothing and looks at no byte of them. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "policy/policy.h"
#include "supervisor/base/err.h"
#include "supervisor/base/frame.h"
#include "supervisor/base/loop.h"
#include "supervisor/base/str.h"

struct kb_egress;
struct Kb__Egress;

struct kb_egress_options {
	uint8_t session[KB_ULID_SIZE];
	uint32_t base; /* its first stream number */
	pid_t init;    /* of the container */
	const struct kb_bundle *bundle;
};

/* Enters the container's network namespace for good. finished: after kb_egress_finish(), when the
 * host has kept every record, or did not say so in time. */
int kb_egress_create(struct kb_loop *loop, struct kb_channel *channel,
	const struct kb_egress_options *options, void (*finished)(void *arg), void *arg,
	struct kb_egress **ret, struct kb_err *err);
/* What the host says. */
void kb_egress_message(struct kb_egress *e, const struct Kb__Egress *msg);
/* End every connection. */
void kb_egress_finish(struct kb_egress *e);
void kb_egress_destroy(struct kb_egress *e);
