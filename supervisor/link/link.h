/* Role link: one process per machine, between the supervisor and what runs there. It starts (or
 * reaches) the machine's kbsup-guest, decodes what it sends, and hands on only what is valid and
 * bounded. */
#pragma once

#include "supervisor/base/err.h"

#define KB_LINK_PROTOCOL 1

/* fd: the channel to main. Runs until the guest or main is gone; returns the exit status. */
int kb_link_role(int fd);
