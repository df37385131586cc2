/* Reading a process specification (protocol.h). Pure: no system calls, and every byte is
 * distrusted.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "supervisor/init/protocol.h"

/* Points into the bytes it was read from; the string vectors are allocated. */
struct kb_spec {
	const struct kb_init_spec *header;
	const struct kb_init_rlimit *rlimits;
	const struct kb_init_landlock *landlock;
	const struct sock_filter *filters;
	const char *cwd;
	char **argv; /* NULL-terminated; one free slot in front of argv[0] for an interpreter */
	char **env;  /* NULL-terminated */
	const char **landlock_paths;
};

/* data must be 8-byte aligned and outlive *ret. False when malformed or out of memory. */
bool kb_spec_parse(const void *data, size_t len, struct kb_spec *ret);
void kb_spec_finish(struct kb_spec *spec);
