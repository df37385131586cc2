/* The control groups a runtime made for a session, on hierarchies of either version. The runtime
 * creates and configures them; we read their counters and remove them.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "supervisor/base/err.h"

#define KB_CGROUP_PREFIX "kbsup-" /* then the session's id */
#define KB_CGROUPS_MAX	 24
#define KB_CGROUP_PATH	 512

struct kb_cgroups {
	char paths[KB_CGROUPS_MAX][KB_CGROUP_PATH]; /* directories */
	unsigned n;
	unsigned others;			 /* hierarchies that showed none */
	char memory_events[KB_CGROUP_PATH + 32]; /* "" when there is none */
	char pids_events[KB_CGROUP_PATH + 32];
};

/* Those of a process that are named `name`. Of one that is just dying not all may show: version 1
 * has it in the root group then. */
void kb_cgroups_find(pid_t pid, const char *name, struct kb_cgroups *ret);
/* How often the kernel killed for memory, and refused a fork. */
uint64_t kb_cgroups_oom_kills(const struct kb_cgroups *groups);
uint64_t kb_cgroups_pids_refused(const struct kb_cgroups *groups);
/* The process numbers in a file of the kernel's (cgroup.procs, children), at most max of them. */
size_t kb_pids_read(const char *path, pid_t *ret, size_t max);
/* Kill what is in them. */
void kb_cgroups_kill(const struct kb_cgroups *groups);
/* Returns how many could not be removed yet. */
unsigned kb_cgroups_remove(const struct kb_cgroups *groups);
/* Every group with our prefix beside or below our own whose name `is_dead` confirms is killed and
 * removed. */
void kb_cgroups_sweep(int (*is_dead)(const char *name, void *arg), void *arg);
