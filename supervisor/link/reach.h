/* What the transports of machines share: which machine it is, and whether it can be reached. */
#pragma once

#include "lasting.h"
#include "link_private.h"
#include "vmctl/vmctl.h"

struct kb_reach {
	struct kb_link *link;
	struct kb_vmctl *vm;
	struct kb_lasting *lasting;
	struct kb_vm_info info; /* as of the last look */
};

/* Makes the link's lasting stream with `dial` and `hang_up` as its own; arg of both is arg, whose
 * first member is the reach. */
int kb_reach_open(struct kb_reach *reach, struct kb_link *link,
	int (*dial)(void *arg, int *ret_fd, struct kb_err *err), void (*hang_up)(void *arg),
	int *ret_fd, struct kb_err *err);
void kb_reach_close(struct kb_reach *reach);
/* Whether it makes sense to dial now. KB_ERR_NOTFOUND: nor ever again. */
int kb_reach_check(struct kb_reach *reach, struct kb_err *err);
