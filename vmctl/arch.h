/* The architectures machines can have. Internal to vmctl. */
#pragma once

#include <stdbool.h>

#include "supervisor/base/err.h"

struct kb_arch {
	const char *name;   /* as uname -m has it */
	const char *debian; /* as dpkg has it */
	const char *kernel; /* Debian's package */
	/* How binfmt_misc recognises its programs: bytes and mask of an ELF header, as escaped
	 * text, and the emulator that runs them. */
	const char *magic, *mask, *emulator;
};

/* By either name; NULL or empty: this host's. */
int kb_arch_find(const char *name, const struct kb_arch **ret, struct kb_err *err);
bool kb_arch_is_native(const struct kb_arch *arch);
