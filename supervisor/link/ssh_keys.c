#include "ssh_keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "supervisor/base/util.h"

void kb_ssh_keys_find(
	struct kb_ssh_keys *keys, const char *own, const char *home, struct kb_ssh_target *target)
{
	static const char *const names[] = {"id_ed25519", "id_ecdsa"};
	const char *agent = getenv("SSH_AUTH_SOCK");
	size_t n = 0;

	if (*own) {
		keys->list[n++] = own;
	} else {
		target->agent = agent && *agent ? agent : NULL;
		for (size_t i = 0; i < KB_ARRAY_LEN(names); i++)
			if (snprintf(keys->path[n], PATH_MAX, "%s/.ssh/%s", home, names[i]) <
					PATH_MAX &&
				access(keys->path[n], R_OK) == 0) {
				keys->list[n] = keys->path[n];
				n++;
			}
	}
	keys->list[n] = NULL;
	target->keys = keys->list;
}
