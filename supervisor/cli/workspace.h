/* Which directory a session may write. */
#pragma once

#include <limits.h>

#include "supervisor/base/dirs.h"
#include "supervisor/base/err.h"

/* The absolute, resolved path of what the user named (NULL: the current directory), if it may be a
 * workspace: an existing directory that is not /, not the home directory or above it, and not
 * among kbsup's own files. */
int kb_workspace_find(
	const char *named, const struct kb_dirs *dirs, char ret[PATH_MAX], struct kb_err *err);
