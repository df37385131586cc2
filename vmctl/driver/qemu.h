/* How a machine is put to QEMU. Everything in this folder, qmp and monitor is all that knows QEMU.
 *
 * The argument list is made in two steps. kb_qemu_shape() gives the list with @NAME@ where a path,
 * port or switch of one particular process goes: that list says what the machine *is*, is kept with
 * frozen state and must be the same, word by word, when the state is loaded, because QEMU notices
 * only some differences and runs a wrong machine for others. kb_qemu_start() fills in the rest.
 */
#pragma once

#include "vmctl/op.h"

struct kb_qemu_shape {
	const char *arch;  /* x86_64 or aarch64; NULL or empty: x86_64 */
	const char *accel; /* kvm or tcg */
	bool firmware;	   /* its disk has a boot loader; else a kernel is given at each start */
	bool screen; /* a graphics card, keyboard and pointer, shown by VNC on a socket in RUN/ID */
	unsigned memory_mib, cpus;
};

struct kb_qemu_run {
	const char *arch; /* as the shape had it */
	const char *id;	  /* RUN/ID/ is made */
	const char *log;  /* what QEMU says */
	const char *kernel, *initrd;
	const char *disk; /* qcow2 */
	const char *ram;  /* a file that holds the machine's memory, or NULL */
	bool ram_shared;  /* written through, so that a freeze need not copy it */
	bool incoming;	  /* wait for state instead of booting */
	const char *mac;
	const char *bridge; /* a host bridge, or NULL for user networking */
	bool isolated;	    /* user networking without a way out */
	const char *seed;   /* a directory that the machine sees as a disk, or NULL */
};
#define KB_QEMU_SEED_LABEL "CIDATA" /* of the file system (FAT) on that disk */

/* A JSON array of words. */
int kb_qemu_shape_words(const struct kb_qemu_shape *shape, json_t **ret, struct kb_err *err);
bool kb_qemu_has_screen(const json_t *words);
/* Start QEMU; returns when it has locked its pid file or has failed, with its last words. */
int kb_qemu_start(struct kb_vmctl *vm, const json_t *words, const struct kb_qemu_run *run,
	pid_t *ret_pid, struct kb_err *err);
/* Kill the QEMU of RUN/ID, if any, and remove RUN/ID. */
int kb_qemu_kill(struct kb_vmctl *vm, const char *id, struct kb_err *err);
/* Wait for it to end by itself. KB_ERR_TIMEOUT if it does not. */
int kb_qemu_wait_end(struct kb_vmctl *vm, const char *id, int64_t timeout_ms, struct kb_err *err);
/* The version of the QEMU behind a monitor, e.g. "7.2.22". */
struct kb_mon;
int kb_qemu_version(struct kb_mon *mon, char ret[32], struct kb_err *err);
/* Of the sockets in RUN/ID, the one with the longest name. */
#define KB_QEMU_LONGEST_SOCK "machine.sock"
#define KB_QEMU_SCREEN_SOCK  "screen.sock"

#define KB_KVM_DEVICE "/dev/kvm"
/* Whether a probe machine boots with this accelerator, and how long it took. */
int kb_qemu_boots(struct kb_vmctl *vm, const char *accel, int64_t *ret_ns, struct kb_err *err);
/* What machines of this architecture can run on here, tried by booting one: "kvm" or "tcg". */
const char *kb_qemu_accel(struct kb_vmctl *vm, const char *arch);
/* The emulator's path; the error says which package has it. */
int kb_qemu_program(const char *arch, char ret[PATH_MAX], struct kb_err *err);

/* A fresh overlay; the backing file is named by its absolute path. */
int kb_qemu_overlay(struct kb_vmctl *vm, const char *backing, const char *backing_format,
	const char *path, struct kb_err *err);
/* The same on a disk that a running machine still writes. */
int kb_qemu_overlay_on(
	struct kb_vmctl *vm, const char *layer, const char *path, struct kb_err *err);
/* The size the guest sees; 0 if the file is no qcow2. */
uint64_t kb_qemu_disk_size(const char *path);
