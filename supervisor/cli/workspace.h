/* Which directory a session may write. */
#pragma once

#include <limits.h>

#include "policy/policy.h"
#include "supervisor/base/dirs.h"
#include "supervisor/base/err.h"

/* The absolute, resolved path of what the user named (NULL: the current directory), if it may be a
 * workspace: an existing directory that is not /, not the home directory or above it, and not
 * among kbsup's own files. */
int kb_workspace_find(
	const char *named, const struct kb_dirs *dirs, char ret[PATH_MAX], struct kb_err *err);

/* The path of the policy that a project brings along (KB_WORKSPACE_POLICY), which can only take
 * away from the one that was asked for; "" when the workspace has none. Whatever stands there by
 * that name must be a plain file: the workspace is the agent's to write. */
int kb_workspace_policy(const char *workspace, char ret[PATH_MAX], struct kb_err *err);
