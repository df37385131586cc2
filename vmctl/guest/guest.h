/* kbsup-machine: the host's hand inside a VM. A root service on the virtio-serial port
 * org.kbsup.machine; it gives a fresh fork its identity before anything else runs, sets the clock,
 * reports figures and carries out a few fixed requests. Sessions are none of its business.
 *
 * Requests and answers are JSON objects, one per line: {"id":7,"op":"clock","time_ns":…} is
 * answered by {"id":7,"ok":true,…} or {"id":7,"error":"…"}; "follow" sends {"id":7,"part":"…"}
 * lines before that. The host is trusted here; the host trusts nothing that comes back.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "supervisor/base/err.h"

#define KBM_PORT       "org.kbsup.machine"
#define KBM_PROTOCOL   1
#define KBM_LINE_MAX   (1u << 20)
#define KBM_OUTPUT_MAX (256u << 10) /* of each of a command's two outputs */
#define KBM_PUT_MAX    (256u << 10) /* of a file, in one request */
#define KBM_COMMAND_MS 60000	    /* when a request names no time of its own */

/* One request: fills `reply` (an object that already holds the id). */
typedef int (*kbm_op_fn)(const json_t *request, json_t *reply, struct kb_err *err);

int kbm_identity(const json_t *request, json_t *reply, struct kb_err *err);
int kbm_prepare(const json_t *request, json_t *reply, struct kb_err *err);
int kbm_clock(const json_t *request, json_t *reply, struct kb_err *err);
int kbm_stats(const json_t *request, json_t *reply, struct kb_err *err);
int kbm_exec(const json_t *request, json_t *reply, struct kb_err *err);
int kbm_put(const json_t *request, json_t *reply, struct kb_err *err);
int kbm_follow(const json_t *request, json_t *reply, struct kb_err *err);
int kbm_online(const json_t *request, json_t *reply, struct kb_err *err);

/* The encrypted disk; `serial` names it in all of them, and it is plugged by the host. */
/* Make it an ext4 file system with `uuid` (hex) and `label`, unless it is that one already. */
int kbm_disk_format(const json_t *request, json_t *reply, struct kb_err *err);
/* Check it (mending what is safe to mend; all with `repair`) and mount it at `place`; mounted
 * already is fine. Answers `mounted` (where), `total`, `free`, `mended` and perhaps `not_grown`
 * (why the file system is smaller than the disk); or `damaged`, what e2fsck says, and then it is
 * not mounted. */
int kbm_disk_open(const json_t *request, json_t *reply, struct kb_err *err);
int kbm_disk_stat(const json_t *request, json_t *reply, struct kb_err *err);
/* Write it back, unmount it and remove the device; or answer `busy`, who keeps it, and leave it as
 * it was. With `kill` those are killed. */
int kbm_disk_close(const json_t *request, json_t *reply, struct kb_err *err);

/* The machine's one network card: a new address for it, and a way out. */
int kbm_net_up(const json_t *request, struct kb_err *err);
int kbm_net_down(struct kb_err *err);
/* As it was last told to be, after a reboot, of which the host knows nothing. */
void kbm_net_again(void);
/* Forget that. */
int kbm_net_forget(struct kb_err *err);

/* Write a small file, unless it says so already: a machine whose disk is full still gets its own
 * identity again. The disk is not waited for, which takes longer than all else that makes an
 * identity; a machine that loses its power is given it again when it boots. */
int kbm_write(const char *path, const char *text, mode_t mode, struct kb_err *err);
bool kbm_has_text(const char *path, const char *text);
/* A line to the host, while a request is being answered. */
int kbm_send(const json_t *object, struct kb_err *err);
/* What the commands of requests have in common: their environment, their words for /usr/bin/env
 * (borrowed from the request), their status as shells have it. */
#define KBM_ARGS_MAX 67
extern const char *const kbm_env[];
int kbm_argv(const json_t *request, const char *ret[KBM_ARGS_MAX], struct kb_err *err);
int kbm_exit(int status);
/* Run a program to its end, output discarded; an error unless it exits 0. */
int kbm_run(const char *const *argv, struct kb_err *err);
/* Run a program found in PATH to its end, at most timeout_ms: its exit status (128 + a signal's
 * number), and the end of what it printed, escaped. */
int kbm_capture(const char *const *argv, int64_t timeout_ms, int *ret_status, char *ret_tail,
	size_t size, struct kb_err *err);
/* Start a program and do not wait for it; kbm_reap() collects those that ended. */
int kbm_start(const char *const *argv, struct kb_err *err);
void kbm_reap(void);
/* A string field of a request, or an error that names it. */
int kbm_string(const json_t *request, const char *key, const char **ret, struct kb_err *err);
/* Decode lower-case hex; returns the number of bytes, or a negative error. */
int kbm_unhex(const char *text, uint8_t *ret, size_t size, struct kb_err *err);
