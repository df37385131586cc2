/* The steps that take rights away from a process about to be started, in the order they must run.
 * Each acts on the calling process, returns 0 or a negative errno, and prints nothing.
 */
#pragma once

#include "supervisor/init/spec.h"

/* The kernel's Landlock ABI, 0 when there is none. */
int kb_confine_landlock_abi(void);

/* A user namespace of its own in which the container's root is plain uid and gid. Gives the caller
 * every capability in that namespace, which kb_confine_caps() takes away again. */
int kb_confine_userns(const struct kb_spec *spec);
int kb_confine_rlimits(const struct kb_spec *spec);
/* No capability in any set, none to be regained by exec or setuid, and no_new_privs. */
int kb_confine_caps(const struct kb_spec *spec);
int kb_confine_landlock(const struct kb_spec *spec);
/* Install the filter. Returns the listener (>= 0), or -1 when none was asked for, or a value below
 * -1: a negative errno minus 1. After it the filter decides which system calls still work. */
int kb_confine_seccomp(const struct kb_spec *spec);
