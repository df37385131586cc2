/* Reads what strace wrote (`strace -f`, any of -t -tt -ttt -y -yy -s -x) as audit records, so that
 * logs people already have can be asked with the same questions. What strace did not write stays
 * unknown: without -y or a chdir seen, relative paths stay relative; without times, records are
 * numbered from `start`.
 */
#pragma once

#include "audit/audit.h"

struct kb_strace_stats {
	uint64_t lines;	  /* read */
	uint64_t records; /* made */
	uint64_t foreign; /* lines that are not strace's; skipped */
	uint64_t cut;	  /* records with a string that strace abbreviated (-s) */
};

/* `record` is called for each; its byte strings live for the call. A negative return ends the
 * reading with *err as filled by the callee. start: ns since the epoch for a log without dates. */
int kb_strace_read(FILE *in, uint64_t start,
	int (*record)(const struct kb_record *record, void *arg, struct kb_err *err), void *arg,
	struct kb_strace_stats *ret, struct kb_err *err);
