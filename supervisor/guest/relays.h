/* All streams of one session, carried between its process and the link: those of its processes,
 * three or one each, and those of its connections, either way. Private to kbsup-guest. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "proto/link.pb-c.h"
#include "supervisor/base/err.h"
#include "supervisor/base/frame.h"

struct kb_relays {
	struct kb_channel *link, *session; /* borrowed */
	void (*flushed)(void *arg);
	void *arg;
	struct process_relays *processes;
	struct connection_relay *connections;
};

/* `flushed` is called when output that had to wait has been passed on. */
void kb_relays_init(struct kb_relays *r, struct kb_channel *link, struct kb_channel *session,
	void (*flushed)(void *arg), void *arg);
int kb_relays_process(
	struct kb_relays *r, uint64_t process, const Kb__ProcessSpec *spec, struct kb_err *err);
int kb_relays_connection(struct kb_relays *r, uint32_t stream, struct kb_err *err);
/* Everything a process has written was passed on; also of one that is not known. */
bool kb_relays_are_flushed(const struct kb_relays *r, uint64_t process);
void kb_relays_forget_process(struct kb_relays *r, uint64_t process);
/* It never became one. */
void kb_relays_forget_connection(struct kb_relays *r, uint32_t stream);
/* The session's process goes away: connections end, its processes' output is still passed on. */
void kb_relays_detach(struct kb_relays *r);
/* Forget what the link has not taken. */
void kb_relays_abandon(struct kb_relays *r);
/* Ends all of them; also of one that is only zeroes. */
void kb_relays_finish(struct kb_relays *r);
