/* Talking to a container's kbsup-init (supervisor/init/protocol.h), from outside. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "supervisor/base/buf.h"
#include "supervisor/base/err.h"
#include "supervisor/init/protocol.h"

struct kb_byte_string {
	const uint8_t *data;
	size_t len;
};

struct kb_landlock_grant {
	const char *path;
	uint64_t access;
	bool optional;
};

struct kb_rlimit_value {
	int resource;
	uint64_t value;
};

/* Everything a process needs to be started. */
struct kb_init_process {
	uint64_t id;
	bool tty;
	uint16_t rows, cols;
	uint32_t uid, gid;
	struct kb_byte_string cwd;
	const struct kb_byte_string *argv, *env;
	size_t n_argv, n_env;
	const struct kb_rlimit_value *rlimits;
	size_t n_rlimits;
	const struct kb_landlock_grant *landlock;
	size_t n_landlock;
	const struct sock_filter *filter;
	size_t n_filter;
	bool listener;
	int stdio[3]; /* not for a tty; not taken */
};

/* The specification's bytes (protocol.h); pure. Refuses strings with a NUL inside and whatever is
 * past a bound. */
int kb_initlink_spec(const struct kb_init_process *process, struct kb_buf *out, struct kb_err *err);

int kb_initlink_start(int control, const struct kb_init_process *process, struct kb_err *err);
int kb_initlink_signal(int control, uint64_t id, int signo, struct kb_err *err);
int kb_initlink_signal_all(int control, int signo, struct kb_err *err);
/* One report. *ret_fd is -1 or an fd the caller owns; *ret_pid is the sender's pid as seen here
 * (credentials; the socket must have SO_PASSCRED). Returns 1, or 0 at the end, -KB_ERR_TIMEOUT when
 * there is none now (err untouched), or another error. */
int kb_initlink_receive(
	int control, struct kb_init_report *ret, int *ret_fd, pid_t *ret_pid, struct kb_err *err);

/* What a failed start means to a person, with the remedy; argv0 is foreign. The code is
 * KB_ERR_NOTFOUND when there is no such command, KB_ERR_REFUSED when it may not be executed. */
int kb_initlink_explain(const struct kb_init_report *report, const char *argv0, struct kb_err *err);
