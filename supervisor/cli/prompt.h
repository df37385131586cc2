/* The question on the person's terminal. It has a screen of its own: while it is shown, what the
 * session writes waits, and what is typed goes to the question; then the session's screen is back
 * as it was. Where the session has no terminal it is one line on standard error.
 */
#pragma once

#include <stdbool.h>

#include "modes.h"
#include "question.h"

#define KB_PROMPT_MAX	   64 /* questions that wait their turn */
#define KB_PROMPT_LINE_MAX 16

struct kb_prompt {
	struct kb_question list[KB_PROMPT_MAX];
	size_t len;
	bool shown;	/* the first of them is on the screen */
	bool told;	/* and answered: what was done is being read */
	bool alternate; /* the session was on the alternate screen */
	bool no_cursor; /* and had hidden the cursor */
	char line[KB_PROMPT_LINE_MAX + 1];
	size_t line_len;
};

void kb_prompt_finish(struct kb_prompt *prompt);
/* A copy of the question is queued; false when there is no room (it will time out). */
bool kb_prompt_add(struct kb_prompt *prompt, const struct kb_question *question);
/* It is over. True when it was the one on the screen: hide it. */
bool kb_prompt_drop(struct kb_prompt *prompt, uint64_t number);

/* What to write to the terminal: the first question's screen, its end. modes: what the session has
 * switched on. */
void kb_prompt_show(struct kb_prompt *prompt, const struct kb_modes *modes, struct kb_buf *out);
void kb_prompt_hide(struct kb_prompt *prompt, struct kb_buf *out);
/* Keys that were typed while it is shown. What they look like goes to out. Returns the answer once
 * there is one, else NULL. *ret_done: hide it. */
const struct kb_answer_word *kb_prompt_keys(struct kb_prompt *prompt, const uint8_t *data,
	size_t len, struct kb_buf *out, bool *ret_done);
/* After `always`: what was done, until a key. */
void kb_prompt_tell(struct kb_prompt *prompt, const char *said, struct kb_buf *out);
/* Without a terminal: one line on stderr, and how to answer. */
void kb_prompt_line(const struct kb_question *question);
