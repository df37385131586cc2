/* Reading another process's memory: bounded, and never past the page that is known to be there.
 *
 * Everything read here is racy: another thread of the caller may change it before the kernel looks.
 * Errors are negative errno values, because they become answers: EFAULT for memory that is not
 * there, ENAMETOOLONG for a string without an end, as the kernel itself would say.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "audit/audit.h"

/* At most size bytes. Returns how many were readable before the first page that is not (0 < n), or
 * -errno. */
ssize_t kb_mem_read(pid_t tid, uint64_t addr, void *buf, size_t size);

/* A NUL-terminated string into buf; the length without the NUL. */
ssize_t kb_mem_string(pid_t tid, uint64_t addr, char *buf, size_t size);

/* An argument vector. What each argument costs in a record (its bytes and their framing) is bounded
 * by KB_ARGV_MAX; whatever comes after is counted in `lost`, not kept. */
#define KB_ARGV_MAX	 (2u << 20)
#define KB_ARGV_FRAMING	 5u
#define KB_ARGV_SCAN_MAX (8u << 20) /* the kernel takes no more than 6 MiB */
struct kb_argv {
	struct kb_buf text; /* the arguments, one after another */
	struct kb_bytes *items;
	size_t count, cap;
	uint64_t lost; /* bytes, without NULs */
};
void kb_argv_init(struct kb_argv *argv);
void kb_argv_finish(struct kb_argv *argv);
/* Replaces what argv held. A NULL vector is an empty one. Returns 0 or -errno; what could be read
 * before an error stays. */
int kb_mem_argv(pid_t tid, uint64_t addr, struct kb_argv *argv);
