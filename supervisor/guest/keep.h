/* The trees that outlive a session: one directory for each path an agent keeps, in its profile. */
#pragma once

#include "supervisor/base/err.h"

/* O_PATH fd of the kept tree of `path` (absolute) in the directory `profile`; both are made, 0700,
 * when missing. Paths in `home` are kept by their place in it. The caller closes *ret_fd. */
int kb_keep_open(
	const char *profile, const char *home, const char *path, int *ret_fd, struct kb_err *err);
