/* The policy's `limit notify-rate`: so many calls of a session are answered in a second, the rest
 * wait their turn. Nothing is lost; when it begins and when it is over are records. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct kb_err;
struct kb_notify;
struct kb_source;

struct kb_throttle {
	uint64_t rate; /* calls a second; 0: no bound */
	uint32_t rule;
	int64_t due;	/* when the calls so far are paid for, monotonic ns */
	bool on;	/* a throttle record was made, its end is to come */
	bool waiting;	/* nothing is received just now */
	int64_t since;	/* waiting since then */
	int64_t held;	/* ns, in all since it is on */
	uint64_t count; /* calls answered since it is on */
	struct kb_source *timer;
};

int kb_throttle_init(struct kb_notify *notify, struct kb_err *err);
/* So many calls were answered. May begin to wait. */
void kb_throttle_count(struct kb_notify *notify, unsigned calls);
/* The session is over. */
void kb_throttle_finish(struct kb_notify *notify);
