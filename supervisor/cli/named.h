/* What a name stands for in the verbs that take sessions and, for people who come from kodemachine,
 * machines too: stop and attach. A session that runs comes first in nobody's favour: a name that is
 * both is refused. */
#pragma once

#include <stdbool.h>

#include "supervisor/base/err.h"

/* *ret: a machine is meant; else a session, existing or not. Starts no supervisor. */
int kb_names_machine(const char *name, bool *ret, struct kb_err *err);
