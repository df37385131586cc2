/* Watches what a session writes to the terminal for the modes it switches on (alternate screen,
 * hidden cursor, mouse reports, bracketed paste, …), so that they can be switched off when the user
 * leaves or the session is killed. Nothing is changed on the way through. Pure: no I/O.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KB_MODES_RESET_MAX 256

struct kb_modes {
	unsigned state;	   /* of the little parser */
	unsigned number;   /* parameter being read */
	uint32_t seen;	   /* parameters of this sequence, as bits of the table in modes.c */
	uint32_t switched; /* modes that are not as a shell expects them */
};

void kb_modes_init(struct kb_modes *modes);
void kb_modes_feed(struct kb_modes *modes, const uint8_t *data, size_t len);
/* The alternate screen is on; the cursor is hidden. */
bool kb_modes_alternate(const struct kb_modes *modes);
bool kb_modes_hidden_cursor(const struct kb_modes *modes);
/* What undoes them, as bytes for the terminal; returns the length. Forgets them. */
size_t kb_modes_reset(struct kb_modes *modes, char ret[KB_MODES_RESET_MAX]);
