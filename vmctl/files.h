/* Where things are, and the locks that say what is alive. Internal to vmctl.
 *
 * Two kinds of lock. Ours are flock(2)s, held by an operation for as long as it runs and gone with
 * its process. QEMU's is the fcntl(2) lock it keeps on its pid file: F_GETLK on it names the living
 * process, which no number in a file can.
 */
#pragma once

#include "op.h"

#define KB_VM_ID_SIZE 11 /* ten characters: sockets have short names */

/* STATE/…, RUN/…; a path that does not fit is an error. */
int kb_vm_path(struct kb_vmctl *vm, char ret[PATH_MAX], struct kb_err *err, const char *fmt, ...)
	KB_PRINTF(4, 5);
int kb_vm_id_new(char ret[KB_VM_ID_SIZE], struct kb_err *err);

/* Lock STATE/locks/NAME, waiting at most timeout_ms for another operation; -1 in *ret_fd is never
 * returned on success. Closing the fd releases. */
int kb_lock_name(
	struct kb_vmctl *vm, const char *name, int64_t timeout_ms, int *ret_fd, struct kb_err *err);
/* Whether an operation holds that lock now. */
bool kb_lock_name_held(struct kb_vmctl *vm, const char *name);
/* Remove the lock's file while holding it: the name is free. */
void kb_lock_name_forget(struct kb_vmctl *vm, const char *name);

/* A fresh locked directory STATE/tmp/ID; *ret_lock is held until closed. */
int kb_tmp_create(struct kb_vmctl *vm, char ret_path[PATH_MAX], int *ret_lock, struct kb_err *err);
/* ID: what a QEMU for something in the making is called, so that it is found if we die. */
const char *kb_tmp_id(const char *path);
/* Remove tmp directories that nobody makes any more, except our own. */
int kb_tmp_collect(struct kb_vmctl *vm, struct kb_err *err);
/* Move a directory into place unless something is there (KB_ERR_EXISTS), durably. */
int kb_dir_publish(const char *from, const char *to, struct kb_err *err);

/* The entries of a directory that do not begin with a dot, as the keys of an object. */
json_t *kb_dir_entries(const char *path);

/* The process that holds QEMU's pid file at RUN/ID/pid, or 0. */
pid_t kb_pid_of(struct kb_vmctl *vm, const char *id);

/* The machine of RUN/ID is in use now (idle.c). */
void kb_run_touch(struct kb_vmctl *vm, const char *id);

/* Connect to RUN/ID/NAME.sock, non-blocking and without waiting: a QEMU that takes no more
 * connections counts as unreachable, too. */
int kb_run_connect(
	struct kb_vmctl *vm, const char *id, const char *name, int *ret_fd, struct kb_err *err);

/* Copy a file's data, by reflink where the file system can, else without its holes. */
int kb_file_copy(const char *from, const char *to, mode_t mode, struct kb_err *err);
/* The last line of a file that is not empty and (when not NULL) has `having` in it, looking at its
 * last 4 KiB; ret stays as it is without one. */
void kb_file_last_line(const char *path, const char *having, char *ret, size_t size);
/* Remove a tree, also one whose files belong to subordinate ids of ours: what a build as the root
 * of a user namespace leaves. */
int kb_tree_remove(struct kb_vmctl *vm, const char *path, struct kb_err *err);
/* The same to undo something: nothing cancels it, and a failure is left to the next collection. */
void kb_tree_drop(struct kb_vmctl *vm, const char *path);
/* Bytes a tree really occupies. */
uint64_t kb_tree_blocks(const char *path);
/* Fail, saying so, when fewer than `need` bytes are free where path is. */
int kb_space_check(const char *path, uint64_t need, struct kb_err *err);
/* SHA-256 of a file as lower-case hex. */
#define KB_HASH_TEXT 65
int kb_file_hash(const char *path, char ret[KB_HASH_TEXT], struct kb_err *err);
int kb_fsync_path(const char *path, struct kb_err *err);
