/* The programs of sessions that a base or a machine has been given. Private to vmctl. */
#pragma once

#include "files.h"
#include "op.h"

#define KB_PROGRAMS_ID (2 * KB_HASH_TEXT)

/* Which ones ours are: their bytes. */
int kb_programs_id(struct kb_vmctl *vm, char ret[KB_PROGRAMS_ID], struct kb_err *err);
