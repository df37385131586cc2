/* Counting what a rule wants summarised: the first occurrence is a record, the others a number. */
#pragma once

#include "audit/audit.h"

/* How often one rule decided one call, after the first time. */
struct kb_tally {
	uint32_t rule;
	int32_t syscall;
	enum kb_event event;
	enum kb_decision decision;
	uint64_t count;
};
#define KB_TALLIES_MAX 64

/* Of one process. All zero is empty; free(items) at the end. */
struct kb_tallies {
	struct kb_tally *items;
	uint32_t len;
};
/* True: counted, nothing more to do. False: the first of its kind (or there is no room): report it.
 */
bool kb_tallies_count(struct kb_tallies *tallies, const struct kb_record *record);
/* The record that says how many there were; false if there were none. */
bool kb_tally_record(
	const struct kb_tally *tally, enum kb_lane lane, uint32_t pid, struct kb_record *ret);
