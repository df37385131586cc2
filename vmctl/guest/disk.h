/* A disk that the host plugs and unplugs, and who uses it. Internal to kbsup-machine. */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#include "guest.h"

struct kbm_disk {
	char name[32]; /* sda */
	char path[40]; /* /dev/sda */
	dev_t dev;
};

/* The disk whose serial number the request names, waiting for it at most wait_ms. */
int kbm_disk_find(const json_t *request, int wait_ms, struct kbm_disk *ret, struct kb_err *err);

/* ---- users.c ---- */

/* How many times this mount namespace has it mounted, and where the newest is. */
unsigned kbm_disk_mounted(const struct kbm_disk *disk, char *ret_place, size_t size);
/* The processes that keep it from being let go: an array of at most KBM_USERS_MAX objects with
 * `pid`, `name` and `what` ("has /mnt/projects/x open"). */
#define KBM_USERS_MAX 16
json_t *kbm_disk_users(const struct kbm_disk *disk);
/* SIGKILL to all of them. */
void kbm_disk_kill_users(const struct kbm_disk *disk);
