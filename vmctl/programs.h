/* The programs of sessions that a base or a machine has been given. Private to vmctl. */
#pragma once

#include "arch.h"
#include "files.h"
#include "op.h"

#define KB_PROGRAMS_ID (2 * KB_HASH_TEXT)

/* kbsup-machine, kbsup-guest or kbsup-init as machines of that architecture run it; an empty *ret:
 * it is not needed. */
int kb_program_for(struct kb_vmctl *vm, const struct kb_arch *arch, const char *name,
	char ret[PATH_MAX], struct kb_err *err);
/* Which ones ours are: their bytes. */
int kb_programs_id(struct kb_vmctl *vm, const struct kb_arch *arch, char ret[KB_PROGRAMS_ID],
	struct kb_err *err);
/* Into a base's manifest: which ones it has been given. */
int kb_programs_note(
	struct kb_vmctl *vm, const struct kb_arch *arch, json_t *base, struct kb_err *err);
/* Whether a base has those of this build. */
bool kb_programs_are_ours(struct kb_vmctl *vm, const json_t *base);
