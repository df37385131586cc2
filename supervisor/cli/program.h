/* What of this machine a session's command needs, when it is not in the places every session sees:
 * a program under the user's own prefix (npm, nvm, pipx, uv …), its package, and what interprets
 * it.
 */
#pragma once

#include <stddef.h>

#include "supervisor/base/err.h"

#define KB_PROGRAM_PATHS_MAX 32

struct kb_program_needs {
	/* Absolute; to be seen and run, read-only. None lies in another. NULL-terminated. */
	char *paths[KB_PROGRAM_PATHS_MAX + 1];
	size_t n_paths;
	/* Directories that its PATH needs besides the usual ones. */
	char *dirs[KB_PROGRAM_PATHS_MAX + 1];
	size_t n_dirs;
};

struct kb_program_where {
	const char *path;      /* the user's PATH */
	const char *home;      /* never given as a whole, nor what is above it */
	const char *workspace; /* is there already */
};

/* Add what `command` needs: a name is looked up in the PATH, links and "#!" lines are followed. 0,
 * or 1 when there is no such program here. What every session sees (/usr …) is not listed. */
int kb_program_needs_add(struct kb_program_needs *needs, const struct kb_program_where *where,
	const char *command, struct kb_err *err);
void kb_program_needs_finish(struct kb_program_needs *needs);
