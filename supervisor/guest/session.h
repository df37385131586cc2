/* The session process: a child of kbsup-guest, one for each session. It speaks the same protocol
 * with its parent as the parent with the link (proto/link.proto), for its one session.
 */
#pragma once

#include "supervisor/guest/setup.h"

#define KB_SESSION_FD 3 /* its end of the socket pair */

/* Runs until the session is over. Returns the exit status. */
int kb_session_main(const struct kb_setup_options *options);
