/* Which OCI runtime to use: the first of crun and runc that really runs a container on this
 * machine, with as many of the limits as work. The answer is remembered in the runtime directory
 * until a runtime, the kernel's boot or our build changes.
 */
#pragma once

#include <limits.h>

#include "supervisor/base/err.h"

struct kb_runtime {
	char path[PATH_MAX]; /* "" when none works */
	char version[64];    /* "runc 1.1.5" */
	char why[512];	     /* why this one, or why none */
	unsigned cgroups;    /* KB_CGROUP_* that work */
};

struct kb_runtime_options {
	const char *state; /* an open state directory */
	const char *init;
	const char *wanted; /* a name or path that overrides the choice; or NULL */
};

/* Blocks for some tens of milliseconds when nothing is remembered. Fails only when it cannot try;
 * that nothing works is ret->path[0] == '\0' with the reasons in why. */
int kb_runtime_choose(
	const struct kb_runtime_options *options, struct kb_runtime *ret, struct kb_err *err);

/* The role of the process that tries: runs one container with these limits and prints why it could
 * not. Returns the exit status. */
struct kb_setup_options;
int kb_runtime_probe_main(const struct kb_setup_options *options);
