/* Questions of `ask` rules as people meet them: in words, and the words they answer with. */
#pragma once

#include "audit/audit.h"
#include "cli.h"
#include "supervisor/daemon/client.h"

/* One way to answer. */
struct kb_answer_word {
	char key;	  /* on a terminal */
	const char *word; /* for `kbsup answer` */
	enum kb_asked_answer verdict;
	bool keep; /* also as a line of the policy */
	const char *meaning;
};
/* Ended by a NULL word. */
extern const struct kb_answer_word kb_answer_words[];
/* By key or word; NULL when it is none. */
const struct kb_answer_word *kb_answer_find(const char *text);

/* "sh(12) mount(0x0, …)" and on further lines the policy's words and the rule; eol ends each line.
 */
void kb_question_describe(const struct kb_question *question, const char *indent, const char *eol,
	struct kb_buf *out);

/* Make "always" of the rule that asked: it allows from now on, in the user's own policy file. In
 * *ret_said, fresh memory: what was done, or what to write where, in one line. */
void kb_answer_keep(const struct kb_question *question, char **ret_said);
