/* One machine's directory and what it says. Internal to vmctl. */
#pragma once

#include "base.h"
#include "monitor.h"

#define KB_MACHINE_LOCK_MS                                                                         \
	120000 /* how long an operation waits for another on the same machine                      \
		*/

struct kb_machine {
	struct kb_vmctl *vm;
	char name[KB_NAME_MAX];
	char dir[PATH_MAX];
	json_t *json; /* machine.json */
	const char *id;
	struct kb_base base;
	int lock;     /* held, or -1 */
	bool damaged; /* machine.json cannot be read */
};

void kb_machine_finish(struct kb_machine *m);
/* Lock the name, and load the machine if there is one (else json is NULL: the name is ours to
 * create). Finish *ret in any case. One that is damaged fails, and is locked all the same. */
int kb_machine_claim(
	struct kb_vmctl *vm, const char *name, struct kb_machine *ret, struct kb_err *err);
/* The same for a machine that must be there, and whose life is ours. */
int kb_machine_lock(
	struct kb_vmctl *vm, const char *name, struct kb_machine *ret, struct kb_err *err);
int kb_machine_json(struct kb_vmctl *vm, const char *name, json_t **ret, struct kb_err *err);
int kb_machine_save(struct kb_machine *m, struct kb_err *err);
int kb_machine_path(
	const struct kb_machine *m, const char *file, char ret[PATH_MAX], struct kb_err *err);
/* driver/ssh.c */
bool kb_machine_is_remote(const json_t *json);
/* The life of a remote machine is not ours: an error. 0 for others, and for none. */
int kb_machine_refuse_remote(const struct kb_machine *m, struct kb_err *err);
void kb_machine_remote_info(const json_t *json, struct kb_vm_info *ret);
/* Of this host's memory, with shared pages counted in parts. */
uint64_t kb_process_memory(pid_t pid);
bool kb_machine_has(const struct kb_machine *m, const char *file);
/* For operations: gives a busy machine some seconds to answer. */
enum kb_vm_state kb_machine_state(struct kb_vmctl *vm, const json_t *json, const char *dir);
/* The state as files and locks have it, without asking the process; *ret_runs: there is one, and
 * the state (KB_VM_HUNG) is what it is when that does not answer. */
enum kb_vm_state kb_machine_resting(
	struct kb_vmctl *vm, const json_t *json, const char *dir, bool *ret_runs);
/* Of a machine of ours that has just answered, and need not be asked again: everything but the live
 * figures. */
int kb_machine_info(struct kb_vmctl *vm, const json_t *json, const char *dir,
	struct kb_vm_info *ret, struct kb_err *err);
/* Held while what machines need (bases, layers) is linked or collected; briefly. */
int kb_machine_gc_lock(struct kb_vmctl *vm, int *ret, struct kb_err *err);
/* Write its memory to the disk and end it; its lock is held by the caller, and it runs. */
int kb_machine_suspend(struct kb_machine *m, struct kb_err *err);
/* Remove a machine's process and files; its lock is held by the caller. */
int kb_machine_remove(struct kb_machine *m, struct kb_err *err);

/* ---- launch.c ---- */

/* A new machine's directory: keys and machine.json, in place. m is locked, its base loaded, its
 * disk made. */
struct kb_machine_new {
	const char *id; /* and that of its disk */
	bool isolated;
	const char *bridge;
	unsigned memory_mib, cpus;
	const json_t *words;
	json_t *layers; /* borrowed; may be NULL */
};
int kb_machine_publish(struct kb_machine *m, const struct kb_machine_new *spec, const char *dir,
	struct kb_err *err);
/* What QEMU needs of it; the strings live in buf. */
struct kb_qemu_run;
struct kb_machine_paths {
	char disk[PATH_MAX], log[PATH_MAX], kernel[PATH_MAX], initrd[PATH_MAX];
};
int kb_machine_run(const struct kb_machine *m, struct kb_machine_paths *buf,
	struct kb_qemu_run *ret, struct kb_err *err);
/* The machine behind mon is loaded and paused (or about to boot): forward its ssh port, let it run,
 * and give it its identity (or, with `same`, only the time). */
int kb_machine_go(
	struct kb_machine *m, struct kb_mon *mon, int64_t wait_ms, bool same, struct kb_err *err);
/* kbsup's own client key, STATE/client_key[.pub]: made once, known to every machine. */
#define KB_CLIENT_KEY_MAX 8192
int kb_machine_client_key(
	struct kb_vmctl *vm, char ret_public[KB_CLIENT_KEY_MAX], struct kb_err *err);
/* Forward 127.0.0.1:*port (0: a free one) to guest_port. */
int kb_machine_forward(struct kb_mon *mon, unsigned *port, unsigned guest_port, struct kb_err *err);
/* From its disk. */
int kb_machine_boot(struct kb_machine *m, struct kb_err *err);
/* From its suspended memory. */
int kb_machine_wake(struct kb_machine *m, struct kb_err *err);
