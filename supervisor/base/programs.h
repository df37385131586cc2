/* Where our own programs are: $KBSUP_LIBEXEC if set, else beside the running program, else in its
 * build tree, else where they were installed. */
#pragma once

#include <limits.h>

#include "err.h"

/* name: kbsupd, kbsup-guest, kbsup-init or kbsup-machine. */
int kb_program_path(const char *name, char ret[PATH_MAX], struct kb_err *err);
/* The same program built for another architecture (as uname -m has it): in a folder of that name
 * beside those, or in a build tree of that name beside the running program's. */
int kb_program_path_arch(
	const char *name, const char *arch, char ret[PATH_MAX], struct kb_err *err);
