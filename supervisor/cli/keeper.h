/* The keeper: a process that suspends machines nobody uses. Machines need no supervisor, and this
 * is none: it is started by whatever command finds machines running and no keeper, there is one at
 * a time by a lock, it remembers nothing that matters, and it leaves when there is nothing to do.
 */
#pragma once

#include "vm.h"

/* Start one if the settings ask for what it does, and it is missing. A wrong setting is said on
 * standard error; nothing else can fail for the caller. */
void kb_keeper_ensure(struct kb_vm_cli *v);
