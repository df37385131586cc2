/* Role link: one process per machine, between the supervisor and what runs there. It starts (or
 * reaches) the machine's kbsup-guest, decodes what it sends, and hands on only what is valid and
 * bounded. */
#pragma once

#include "supervisor/base/err.h"

#define KB_LINK_PROTOCOL 1

struct kb_link_options {
	const char *machine;   /* its name, for messages */
	const char *transport; /* pipe, … */
	const char *address;   /* of the machine; what it means is the transport's business */
};

/* fd: the channel to main. Runs until the guest or main is gone; returns the exit status. */
int kb_link_role(int fd, const struct kb_link_options *options);
