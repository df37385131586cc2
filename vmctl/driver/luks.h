/* An encrypted volume and QEMU: making one, and what a running QEMU has of it. Internal to vmctl.
 *
 * In a QEMU a volume has up to two parts, each named by the disk's id: a *node*, which is open,
 * holds the key and locks the file (QEMU's own lock, gone with the process), and a *device*, by
 * which the machine sees it. The key is handed over as a secret object on the monitor's socket and
 * the object is removed as soon as the node is open.
 */
#pragma once

#include "vmctl/diskkey.h"
#include "vmctl/monitor.h"

struct kb_luks_parts {
	bool node, device;
};

/* A sparse LUKS volume of so many bytes, mode 0600. */
int kb_luks_create(struct kb_vmctl *vm, const char *path, uint64_t bytes,
	const struct kb_diskkey *key, struct kb_err *err);
/* The machine sees so many bytes the next time it is opened. */
int kb_luks_grow(const char *path, uint64_t bytes, struct kb_err *err);
/* Whether some QEMU (or qemu-img) has the file open for writing. */
bool kb_luks_locked(const char *path);
/* The serial number by which the machine knows the device. */
#define KB_LUKS_SERIAL 24
void kb_luks_serial(const char *id, char ret[KB_LUKS_SERIAL]);

int kb_luks_look(struct kb_mon *mon, const char *id, struct kb_luks_parts *ret, struct kb_err *err);
/* In the QEMU that is process pid, which dumps no core from then on. */
int kb_luks_open(struct kb_mon *mon, pid_t pid, const char *id, const char *path,
	const struct kb_diskkey *key, struct kb_err *err);
int kb_luks_plug(struct kb_mon *mon, const char *id, struct kb_err *err);
/* Takes the device away from a machine that has let it go. */
int kb_luks_unplug(struct kb_mon *mon, const char *id, struct kb_err *err);
/* Closes the node: written back, key forgotten, file unlocked. */
int kb_luks_close(struct kb_mon *mon, const char *id, struct kb_err *err);
