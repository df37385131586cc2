/* What a pattern of the policy stands for on this machine right now. In a component, * stands for
 * any bytes and ? for one; a component ** stands for any number of directories, none included.
 */
#pragma once

#include "supervisor/base/err.h"

#define KB_GLOB_VISITS_MAX 1000000 /* directory entries looked at; a larger tree is refused */
#define KB_GLOB_DEPTH_MAX  128

/* Calls found for every existing path that matches the absolute pattern, possibly more than once.
 * Symbolic links are matched but not followed; a directory that cannot be read is skipped. A
 * negative return of found ends the walk and is returned. */
int kb_glob_walk(const char *pattern, int (*found)(const char *path, void *arg, struct kb_err *err),
	void *arg, struct kb_err *err);
