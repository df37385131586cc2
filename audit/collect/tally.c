#include "tally.h"

#include <stdlib.h>

#include "supervisor/base/util.h"

bool kb_tallies_count(struct kb_tallies *tallies, const struct kb_record *record)
{
	for (uint32_t i = 0; i < tallies->len; i++) {
		struct kb_tally *t = &tallies->items[i];

		if (t->rule == record->rule && t->syscall == record->syscall &&
			t->decision == record->decision) {
			t->count++;
			return true;
		}
	}
	if (!tallies->items)
		tallies->items = calloc(KB_TALLIES_MAX, sizeof(*tallies->items));
	if (tallies->items && tallies->len < KB_TALLIES_MAX)
		tallies->items[tallies->len++] = (struct kb_tally){.rule = record->rule,
			.syscall = record->syscall,
			.event = record->event,
			.decision = record->decision};
	return false;
}

bool kb_tally_record(
	const struct kb_tally *tally, enum kb_lane lane, uint32_t pid, struct kb_record *ret)
{
	*ret = (struct kb_record){
		.time = (uint64_t)kb_now_real(),
		.event = tally->event,
		.lane = lane,
		.pid = pid,
		.syscall = tally->syscall,
		.decision = tally->decision,
		.outcome = KB_OUTCOME_UNKNOWN,
		.rule = tally->rule,
		.count = tally->count,
	};
	return tally->count > 0;
}
