/* The root directory of a session, built in the calling process's own mount namespace.
 *
 * What is visible derives from the policy's mounts; what the guest adds is listed in rootfs.c. The
 * workspace is opened without following any symbolic link and is mounted through that one fd.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "policy/policy.h"
#include "supervisor/base/err.h"

#define KB_ROOTFS_INIT	"/.kbsup/init"	     /* kbsup-init inside */
#define KB_ROOTFS_FACTS "/etc/kbsup/session" /* what the agent may know of its limits */

struct kb_rootfs_spec {
	const struct kb_bundle *bundle; /* NULL: nothing but kbsup-init (a probe) */
	const char *workspace;		/* absolute; any bytes */
	const char *home, *user;	/* inside */
	uint32_t uid, gid;		/* inside */
	const char *hostname;
	const char *source;	   /* where /usr and the like come from; NULL: this machine */
	const char *init;	   /* kbsup-init on this machine */
	uint64_t disk;		   /* bytes of private files; 0: the kernel's default */
	const char *facts;	   /* text of KB_ROOTFS_FACTS */
	const char *context;	   /* a second place of it, where the agent looks; or NULL */
	const char *profile;	   /* directory of kept trees, made when missing; NULL: none */
	const char *trust;	   /* PEM of an authority to be trusted besides; or NULL */
	bool network;		   /* it has a way out: KB_EGRESS_ADDRESS resolves names */
	const char *const *hidden; /* of the machine, never visible inside; NULL-terminated */
};

struct kb_rootfs {
	int scratch; /* the private file system everything is built on */
	bool sysfs;  /* the policy lets /sys be seen */
};

/* Mounts a scratch file system on `dir` and builds the tree in its directory "rootfs". The scratch
 * file system also has an empty directory "runtime" for the runtime's own state. All of it goes
 * with the mount namespace. */
int kb_rootfs_build(const struct kb_rootfs_spec *spec, const char *dir, struct kb_rootfs *ret,
	struct kb_err *err);
