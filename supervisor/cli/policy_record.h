/* Policies against single records, for `policy explain`. */
#pragma once

#include "cli.h"

#define KB_RECORD_ANSWER_MAX (64u << 20)

/* record: "SESSION:SEQ". policy NULL: the one the session ran under. Prints, and returns the exit
 * status or an error. */
int kb_policy_explain_record(
	const struct kb_cli *cli, const char *record, const char *policy, struct kb_err *err);
