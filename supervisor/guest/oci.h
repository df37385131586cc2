/* The OCI bundle's config.json. The rootfs is already built (rootfs.h), so that the runtime only
 * makes namespaces, /proc and the terminal file system, and starts kbsup-init.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "supervisor/base/buf.h"
#include "supervisor/base/err.h"

struct kb_oci_spec {
	const char *hostname;
	const char *cgroup; /* below the runtime's default place; NULL: none can be made */
	bool sysfs;
	/* Enforced by cgroup; 0: no bound. */
	uint64_t memory; /* bytes */
	bool swap;	 /* memory and swap together can be bounded, so that none is swapped */
	uint64_t pids;
	uint64_t cpu; /* thousandths of a CPU */
};

int kb_oci_config(const struct kb_oci_spec *spec, struct kb_buf *out, struct kb_err *err);
