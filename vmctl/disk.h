/* Encrypted disks: their directories, and what an operation on a machine does about those it has.
 * Internal to vmctl; the public part and its reasons are in vmctl.h. */
#pragma once

#include "machine.h"

struct kb_disk {
	struct kb_vmctl *vm;
	char name[KB_NAME_MAX];
	char dir[PATH_MAX], volume[PATH_MAX];
	json_t *json; /* disk.json */
	const char *id;
	int lock; /* held, or -1 */
};

void kb_disk_finish(struct kb_disk *d);
/* Without its lock, for looking. */
int kb_disk_load(struct kb_vmctl *vm, const char *name, struct kb_disk *ret, struct kb_err *err);
/* With it. A machine's lock, where both are needed, is taken before. */
int kb_disk_lock(struct kb_vmctl *vm, const char *name, struct kb_disk *ret, struct kb_err *err);
int kb_disk_save(struct kb_disk *d, struct kb_err *err);
/* Everything but the live figures. */
int kb_disk_info(const struct kb_disk *d, struct kb_disk_info *ret, struct kb_err *err);
typedef int (*kb_disk_each_fn)(
	struct kb_vmctl *vm, const char *name, void *arg, struct kb_err *err);
/* fn for every disk's name, by name; a failure ends it. */
int kb_disk_each(struct kb_vmctl *vm, kb_disk_each_fn fn, void *arg, struct kb_err *err);
/* The disk's key, from its file. */
struct kb_diskkey;
int kb_disk_key(const struct kb_disk *d, const struct kb_passphrase *passphrase,
	struct kb_diskkey *ret, struct kb_err *err);

/* KB_ERR_USAGE for what machines have for themselves, or what is no plain absolute path. */
int kb_disk_check_place(const char *place, struct kb_err *err);
/* KB_ERR_EXISTS, saying who has it, unless nobody does. */
int kb_disk_refuse_used(const struct kb_disk *d, struct kb_err *err);

/* ---- attach.c: the disks of a machine that is locked ---- */

/* Disks that their machine has let go, while QEMU keeps them open: no passphrase is needed to give
 * them back. */
struct kb_disks_parked {
	struct kb_disk disks[KB_VM_DISKS_MAX];
	size_t n;
};

/* Only a machine that runs can mount and unmount: an error with its remedy for others. */
int kb_machine_must_run(const char *name, enum kb_vm_state state, struct kb_err *err);
/* Before the machine is suspended or forked. Refuses, and changes nothing, while something uses
 * them. */
int kb_disks_park(struct kb_machine *m, struct kb_disks_parked *ret, struct kb_err *err);
/* Give them back; what cannot be is said as progress. Then, or when the machine has ended, finish.
 */
void kb_disks_unpark(struct kb_machine *m, struct kb_disks_parked *parked);
void kb_disks_parked_finish(struct kb_disks_parked *parked);

/* Before the machine ends: as far as it can be done within bounds. Where something uses them, with
 * `now` it is killed, and without they stay mounted (a shutdown unmounts them). */
void kb_disks_release(struct kb_machine *m, bool now);
/* After it has shut down in order, which unmounts them. */
void kb_disks_ended(struct kb_machine *m);
/* Its start need not think of them any more: it is deleted. */
void kb_disks_forget(struct kb_machine *m);
/* The names of those it has now. */
void kb_disks_of(struct kb_vmctl *vm, const char *machine_id, struct kb_vm_info *ret);
