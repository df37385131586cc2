/* Path rules with their paths resolved: what check compares and lower turns into mounts, Landlock
 * and path rules. Private to policy/. */
#pragma once

#include "policy/ast.h"

enum kb_fs_role {
	KB_FS_ROLE_READ,
	KB_FS_ROLE_WRITE,
	KB_FS_ROLE_PRIVATE,
	KB_FS_ROLE_PRIVATE_READ,
	KB_FS_ROLE_KEEP,
	KB_FS_ROLE_EXEC,
	/* from here on they take away */
	KB_FS_ROLE_PROTECT, /* not writable */
	KB_FS_ROLE_EXEC_DENY,
	KB_FS_ROLE_HIDE,
	KB_FS_ROLE_DENY,
};

struct kb_fs_item {
	enum kb_fs_role role;
	const char *path; /* absolute; a trailing "**" is gone */
	bool glob;
	bool relative; /* written relative to the workspace */
	struct kb_stmt *stmt;
	struct kb_pos pos;
};

struct kb_fs_items {
	struct kb_fs_item *items;
	size_t len, cap;
};

/* 0, or -1 when out of memory; mistakes are diagnosed and left out. */
int kb_fs_collect(struct kb_policy *policy, const struct kb_policy_options *opts,
	struct kb_arena *arena, struct kb_fs_items *ret, struct kb_diags *diags);
/* Conflicts between items, and workspaces that would lay the machine open. */
void kb_fs_check(const struct kb_fs_items *items, const struct kb_policy_options *opts,
	struct kb_diags *diags);
static inline bool kb_fs_takes(enum kb_fs_role role)
{
	return role >= KB_FS_ROLE_PROTECT;
}
/* /proc, /sys, /dev: the runtime makes the session's own. */
bool kb_fs_virtual(const char *path);
