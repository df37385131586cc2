/* Is there a call that two decision lists judge differently? Private to policy/. */
#pragma once

#include "policy/bundle.h"

enum kb_solved { KB_SOLVED_NO, KB_SOLVED_YES, KB_SOLVED_GAVE_UP };

/* Find arguments for which clause i of a and clause j of b decide. */
enum kb_solved kb_solve_pair(const struct kb_clauses *a, size_t i, const struct kb_clauses *b,
	size_t j, uint64_t ret_args[KB_CALL_ARGS]);
