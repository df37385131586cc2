/* The guest's parent process: the link on one side, one child process for each session on the
 * other.
 */
#pragma once

#include <stdbool.h>

#include "supervisor/base/err.h"

struct kb_guest_options {
	int link_fd;	     /* taken */
	const char *state;   /* directory for sessions; made */
	const char *init;    /* kbsup-init on this machine */
	const char *runtime; /* NULL: choose */
};

/* Runs until the link closes; every session has ended then. Returns the exit status. */
int kb_guest_main(const struct kb_guest_options *options);
