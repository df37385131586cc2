/* One stream carried between two channels, both ways, with the credit of both: what one side has
 * not taken is not credited to the other. */
#pragma once

#include <stdbool.h>

#include "err.h"
#include "frame.h"

struct kb_relay;

/* Opens stream `id` on both. `flushed` is called when nothing more is on its way from `inner` to
 * `outer`, whenever that becomes true after bytes had to wait. */
int kb_relay_create(struct kb_channel *outer, struct kb_channel *inner, uint32_t id,
	void (*flushed)(void *arg), void *arg, struct kb_relay **ret, struct kb_err *err);
/* Everything that came from `inner`, its end included, was passed on to `outer`. */
bool kb_relay_is_flushed(const struct kb_relay *relay);
/* Both ways are at their end, and all of it was passed on. */
bool kb_relay_is_done(const struct kb_relay *relay);
/* `inner` is going away: stop speaking to it. What it sent is still passed on. */
void kb_relay_detach(struct kb_relay *relay);
/* Forget what `outer` has not taken. */
void kb_relay_abandon(struct kb_relay *relay);
void kb_relay_destroy(struct kb_relay *relay);
