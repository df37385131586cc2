/* Private to audit/: the words of records as tables, shared by output and the query language. */
#pragma once

#include "audit/audit.h"

#define KB_LANE_MAX_	 (KB_LANE_RUNTIME + 1)
#define KB_DECISION_MAX_ (KB_DECISION_ASKED + 1)
#define KB_OUTCOME_MAX_	 (KB_OUTCOME_INTERRUPTED + 1)
#define KB_TRUST_MAX_	 (KB_TRUST_UNREADABLE + 1)

struct kb_words {
	const char *const *names; /* by value; NULL where a value has no word */
	unsigned n;
};
extern const struct kb_words kb_event_words, kb_lane_words, kb_decision_words, kb_outcome_words,
	kb_trust_words;
/* The word of a value, or NULL; the value of a word, or -1. */
const char *kb_word(const struct kb_words *words, unsigned value);
int kb_word_find(const struct kb_words *words, const char *text, size_t len);
