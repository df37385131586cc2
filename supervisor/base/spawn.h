/* Starting a program with exactly what it is given: a complete environment, a list of fds, nothing
 * else. Signals have their default actions and an empty mask in it. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include "err.h"

struct kb_spawn_fd {
	int from; /* here; stays open here */
	int to;	  /* there */
};

#define KB_SPAWN_FDS_MAX 16

#define KB_SPAWN_PDEATHSIG 1u /* SIGKILL it when the thread that starts it ends (Linux) */
#define KB_SPAWN_SETSID	   2u

struct kb_spawn {
	const char *path;	       /* absolute, or /proc/self/exe */
	const char *const *argv;       /* NULL-terminated */
	const char *const *env;	       /* complete, NULL-terminated; NULL: empty */
	const char *cwd;	       /* NULL: unchanged */
	const struct kb_spawn_fd *fds; /* 0, 1 and 2 are /dev/null when not among them */
	size_t n_fds;
	unsigned flags;
};

/* Returns once the program runs, or could not be executed (KB_ERR_SYSTEM with its errno). The
 * caller waits for *ret_pid. */
int kb_spawn(const struct kb_spawn *spawn, pid_t *ret_pid, struct kb_err *err);
/* "exit 3" or "killed by SIGKILL", for a status of waitpid(2). ret has KB_EXIT_TEXT bytes. */
#define KB_EXIT_TEXT 48
void kb_exit_describe(int status, char *ret);
