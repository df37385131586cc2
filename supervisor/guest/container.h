/* One container: its name spaces and files, the runtime that makes it, and its kbsup-init.
 *
 * Runs in the session process, which it puts into a mount namespace (and, for an ordinary user, a
 * user namespace) of its own; so there is one container per process, and whatever is mounted goes
 * when the process does.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "supervisor/base/err.h"
#include "supervisor/base/loop.h"
#include "supervisor/guest/cgroup.h"
#include "supervisor/guest/oci.h"
#include "supervisor/guest/rootfs.h"
#include "supervisor/init/protocol.h"

#define KB_CONTAINER_NAME 64

struct kb_container;

struct kb_container_ops {
	/* kbsup-init is up; reports follow. */
	void (*ready)(int landlock_abi, void *arg);
	/* A report about a process; fd is -1 or the callee's. */
	void (*report)(const struct kb_init_report *report, int fd, void *arg);
	/* Everything of the container is gone (or never came to be): no process, no control group.
	 * why is NULL after kb_container_stop() or an orderly end. Called once. */
	void (*gone)(const struct kb_err *why, void *arg);
};

struct kb_container_spec {
	const char *name;    /* runtime id and control group name */
	const char *dir;     /* an empty directory to mount on */
	const char *runtime; /* absolute path */
	struct kb_oci_spec oci;
	struct kb_rootfs_spec rootfs;
};

/* The caller has become a subreaper. Returns when the runtime is on its way. On failure nothing is
 * left but the calling process's namespaces. */
int kb_container_start(struct kb_loop *loop, const struct kb_container_spec *spec,
	const struct kb_container_ops *ops, void *arg, struct kb_container **ret,
	struct kb_err *err);
/* The control socket, for initlink.h. */
int kb_container_control(const struct kb_container *c);
pid_t kb_container_init_pid(const struct kb_container *c);
const struct kb_cgroups *kb_container_cgroups(const struct kb_container *c);
/* O_PATH of the container's root directory, as kbsup-init sees it. */
int kb_container_root(const struct kb_container *c, int *ret_fd, struct kb_err *err);
/* End it: `gone` follows. */
void kb_container_stop(struct kb_container *c);
/* After gone, or to abandon a container whose process is about to exit. NULL is fine. */
void kb_container_destroy(struct kb_container *c);
