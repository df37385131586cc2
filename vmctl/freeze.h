/* Frozen machines: a directory with the memory (`ram`), the state of the devices (`state`) and what
 * they belong to (`frozen.json`). Templates, suspended machines and forks of running ones are all
 * made of it. Internal to vmctl.
 *
 * A machine whose memory is a shared file is frozen in place: stop, and save the devices with
 * QEMU's x-ignore-shared, which leaves memory where it is. Templates are made so. All other
 * machines map a frozen memory privately or have anonymous memory: their siblings share the pages
 * nobody wrote, but no file holds what they are. Those migrate, while running, into a second QEMU
 * on the same host. For a suspend, that twin has a shared file and is frozen in place; for a fork
 * it simply becomes the new machine. Either way the source stands still only for the last pass.
 *
 * State travels only through descriptors (getfd): QEMU's exec: reports success on a full disk.
 * QEMU checks little of what it loads, so frozen.json holds the machine's words, QEMU's version,
 * sizes and a hash, and what differs is refused here.
 */
#pragma once

#include "driver/qemu.h"
#include "monitor.h"

#define KB_FREEZE_MS  60000  /* devices only */
#define KB_MIGRATE_MS 300000 /* memory too */

/* Freeze in place the stopped or running machine behind mon into dir (which has its `ram`). On
 * failure it is as it was, and dir has no state. */
int kb_freeze(struct kb_mon *mon, const json_t *words, const char *dir, struct kb_err *err);

/* Check a frozen directory against the machine's words: 0, or why it cannot be loaded. */
int kb_frozen_check(const char *dir, const json_t *words, struct kb_err *err);

/* Start QEMU on a frozen directory: memory mapped privately, machine paused. run needs id, log,
 * kernel, initrd, disk, mac. The monitor is open afterwards. On failure no process is left. */
int kb_thaw(struct kb_vmctl *vm, const json_t *words, const char *dir, struct kb_qemu_run *run,
	pid_t *ret_pid, struct kb_mon *ret_mon, struct kb_err *err);

/* Move what runs behind `from` into the waiting QEMU behind `to`. at_pause is called when the
 * source has stopped and nothing has switched yet; NULL: nothing to do. Afterwards the source is in
 * "postmigrate", and *ret_paused_at tells since when it stands still. On failure it runs on, if it
 * ran. */
typedef int (*kb_pause_fn)(void *arg, struct kb_err *err);
int kb_migrate(struct kb_mon *from, struct kb_mon *to, kb_pause_fn at_pause, void *arg,
	int64_t *ret_paused_at, struct kb_err *err);
/* One that may be under way, of an earlier operation too, is over when this returns: it would stop
 * the machine once more at its end. */
void kb_migrate_cancel(struct kb_mon *mon);
