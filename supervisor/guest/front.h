/* The resident part of kbsup-guest in a machine that is reached over a serial port or ssh: answers
 * whoever dials (supervisor/link/lasting.h), starts the guest proper for a new stream, and holds
 * the stream while it has no carrier, for as long as the dialler has patience. Then the guest's
 * link closes, and its sessions end. */
#pragma once

#include <stdbool.h>

#include "supervisor/base/err.h"

struct kb_front_options {
	const char *port;   /* name of a virtio serial port to answer on; NULL: none */
	const char *socket; /* path of a unix socket to answer on; NULL: none */
	const char *state;  /* for the guest: its --state */
	bool leaves;	    /* exits when nobody has needed it for a while */
};

/* Returns the exit status. */
int kb_front_main(const struct kb_front_options *options);
/* `ssh machine kbsup-guest --attach`: standard input and output become a carrier to the front that
 * answers on `socket`; one is started if there is none. Returns the exit status. */
int kb_front_attach(const char *socket, const char *state);
