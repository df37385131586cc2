/* From a StartSession message to everything a container and its processes are made of: the policy
 * bundle lowered to this machine. Nothing here changes the machine.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/policy.h"
#include "supervisor/base/err.h"
#include "supervisor/guest/container.h"
#include "supervisor/guest/initlink.h"

struct Kb__StartSession;

/* Which limits the machine's control groups can enforce for us. */
#define KB_CGROUP_MEMORY 1u
#define KB_CGROUP_PIDS	 2u
#define KB_CGROUP_CPU	 4u
#define KB_CGROUP_SWAP	 8u /* with memory */

struct kb_setup_options {
	const char *state;   /* the guest's runtime directory */
	const char *init;    /* kbsup-init on this machine */
	const char *runtime; /* absolute path */
	unsigned cgroups;    /* KB_CGROUP_* */
	bool bpf;	     /* lane bpf works here, and this is our seat */
	unsigned seat;
	const char *no_bpf; /* why it does not; or NULL */
};

#define KB_SETUP_LINES_MAX 32

struct kb_lines {
	char *line[KB_SETUP_LINES_MAX];
	size_t n;
};

struct kb_setup {
	struct kb_bundle *bundle;
	struct kb_program program;
	char *name, *workspace, *home, *user, *rootfs, *runtime;
	char *profile; /* where the agent's kept trees are; NULL: nothing is kept */
	char *context; /* where the agent looks for what it is told; or NULL */
	char container_name[KB_CONTAINER_NAME];
	uint32_t uid, gid; /* inside */
	struct kb_landlock_grant *landlock;
	size_t n_landlock;
	struct kb_rlimit_value rlimits[2];
	size_t n_rlimits;
	struct kb_oci_spec oci;
	uint64_t disk;
	bool bpf;		/* recorded by lane bpf */
	bool network;		/* it has a way out */
	int64_t time_ms;	/* 0: no bound */
	uint32_t ask_ms;	/* how long a question stays open; 0: the policy does not say */
	struct kb_lines limits; /* what is enforced, in words */
	struct kb_lines missing;
	char *facts;
	char *trust;	 /* PEM of an authority its programs trust besides; or NULL */
	char *hidden[5]; /* kbsup's own directories on this machine; NULL-terminated */
};

/* The kernel's Landlock ABI, 0 when there is none. */
int kb_landlock_abi(void);
/* On failure *ret is finished. */
int kb_setup_make(const struct Kb__StartSession *msg, const struct kb_setup_options *options,
	struct kb_setup *ret, struct kb_err *err);
void kb_setup_finish(struct kb_setup *setup);
const char *kb_setup_lane(const struct kb_setup *setup); /* "bpf" or "notify" */
/* What is in force, one line per mechanism, once the container is up. */
int kb_setup_effective(
	const struct kb_setup *setup, int landlock_abi, struct kb_lines *ret, struct kb_err *err);
void kb_lines_finish(struct kb_lines *lines);
int kb_lines_add(struct kb_lines *lines, struct kb_err *err, const char *fmt, ...) KB_PRINTF(3, 4);
