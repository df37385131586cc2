/* What running machines are doing, asked of all of them at once, so that a list of many takes no
 * longer than the slowest answer it is prepared to wait for. Internal to vmctl.
 */
#pragma once

#include "op.h"

#define KB_LOOK_QUICK_MS   700	/* for lists and figures: under a second with all the rest */
#define KB_LOOK_CAREFUL_MS 5000 /* for operations, which do something about what they see */

struct kb_look {
	const char *id;
	pid_t pid;    /* that holds its pid file */
	bool figures; /* ask the machine's own service, too */
	/* The answers. */
	enum kb_vm_state state; /* KB_VM_HUNG without one */
	bool ended;		/* its process is gone by now: the state is to be looked up again */
	json_t *stats;		/* the service's figures, a new reference; NULL: none */
};

/* Fill in the answers of those that came within limit_ms. */
void kb_look(struct kb_vmctl *vm, struct kb_look *looks, size_t n, int64_t limit_ms);
