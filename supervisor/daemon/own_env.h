/* The supervisor's own environment: where it finds things, and nothing else of its user's. Sessions
 * get theirs with the request; what a shell has exported (keys, tokens) has no business in a
 * process that lives long and starts others. */
#pragma once

#include <stdbool.h>

/* Is "NAME=VALUE" among what a supervisor needs? */
bool kb_own_env_passes(const char *entry);
/* Takes everything else out of this process's environment, and out of its memory. */
void kb_own_env_reduce(void);
