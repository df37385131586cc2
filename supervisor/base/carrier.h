/* A carrier: packets (packet.h) over a file descriptor, for as long as that lasts. What it is and
 * brings is somebody else's business: resume.h makes one lasting stream of many carriers. */
#pragma once

#include "loop.h"
#include "packet.h"

#define KB_CARRIER_QUEUE (128u << 10) /* encoded bytes that may wait to be written */

struct kb_carrier;

struct kb_carrier_ops {
	/* packet lives for the call. */
	void (*packet)(struct kb_carrier *carrier, const struct kb_packet *packet, void *arg);
	/* There is room again, after a send that found none. */
	void (*room)(struct kb_carrier *carrier, void *arg);
	/* Nothing more will come: it ended, or (why) broke. Called once; destroy it. */
	void (*ended)(struct kb_carrier *carrier, const struct kb_err *why, void *arg);
};

/* Takes fd (made non-blocking), also on failure. */
int kb_carrier_create(struct kb_loop *loop, int fd, const struct kb_carrier_ops *ops, void *arg,
	struct kb_carrier **ret, struct kb_err *err);
/* From now on these hear of it. */
void kb_carrier_assign(struct kb_carrier *carrier, const struct kb_carrier_ops *ops, void *arg);
/* Drops what is unsent and closes the fd. Allowed in any callback. NULL is fine. */
void kb_carrier_destroy(struct kb_carrier *carrier);
/* False when there is no room: `room` is called when there is. */
bool kb_carrier_send(struct kb_carrier *carrier, const struct kb_packet *packet);
/* When something last came, of CLOCK_MONOTONIC. */
int64_t kb_carrier_heard(const struct kb_carrier *carrier);
