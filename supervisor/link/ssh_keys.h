/* Which keys a machine may be opened with: its own, else those of an agent and those that lie where
 * ssh looks. */
#pragma once

#include <limits.h>

#include "ssh.h"

#define KB_SSH_KEY_FILES 4

struct kb_ssh_keys {
	char path[KB_SSH_KEY_FILES][PATH_MAX];
	const char *list[KB_SSH_KEY_FILES + 1];
};

/* Fills target's agent and keys; own: a file, or "". keys must outlive the use of target. */
void kb_ssh_keys_find(
	struct kb_ssh_keys *keys, const char *own, const char *home, struct kb_ssh_target *target);
