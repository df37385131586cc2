/* Forks of the template that wait, paused, for a name: a machine that is started takes one instead
 * of making its own. The guest of such a fork has not run a step since the template was frozen, so
 * it gets its identity where every fork does, in kb_machine_go(), and has drawn no random number
 * before. Internal to vmctl.
 *
 *	STATE/pool/ID/	pool.json qemu.log; its disk is STATE/disks/ID, its process RUN/ID
 *
 * It appears with its disk before its process starts, not ready, and belongs to whoever holds the
 * lock of the pool until it is. One that is taken becomes, in one step, something in the making:
 * whatever happens then is what happens to a machine whose start was interrupted.
 */
#pragma once

#include "base.h"
#include "files.h"

/* All of these want the lock of the garbage collection (kb_machine_gc_lock) held. */

/* One that is ready, of this generation of the base: moved to tmp and locked. False: none. */
bool kb_pool_take(
	struct kb_vmctl *vm, const struct kb_base *base, char ret_dir[PATH_MAX], int *ret_lock);
/* Remove those that are of no use: interrupted, dead, or of a generation that is not current. */
int kb_pool_prune(struct kb_vmctl *vm, struct kb_err *err);
/* Remove those of one base. */
int kb_pool_drop(struct kb_vmctl *vm, const char *base, struct kb_err *err);
/* The names of all as keys of an object, which are those of their disks and processes, too. */
json_t *kb_pool_ids(struct kb_vmctl *vm);
