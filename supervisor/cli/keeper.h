/* The keeper: a process that suspends machines nobody uses, and fills the pool of forks. Machines
 * need no supervisor, and this is none: it is started by whatever command finds something to do and
 * nobody doing it, there is one at a time by a lock, it remembers nothing that matters, and it
 * leaves when all is done.
 */
#pragma once

#include "vm.h"

/* Start one if the settings ask for what it does, and it is missing. A wrong setting is said on
 * standard error; nothing else can fail for the caller. */
void kb_keeper_ensure(struct kb_vm_cli *v);
