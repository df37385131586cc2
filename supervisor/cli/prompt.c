#include "prompt.h"

#include <string.h>

#define SCREEN_ON  "\033[?1049h\033[H\033[2J"
#define SCREEN_OFF "\033[?1049l"
/* The session is on the alternate screen itself: that is cleared, and redrawn by it after. */
#define CLEAR	   "\033[H\033[2J"
#define CURSOR_ON  "\033[?25h"
#define CURSOR_OFF "\033[?25l"
#define EOL	   "\r\n"

static char *copy(const char *text)
{
	return kb_xstrdup(text);
}

void kb_prompt_finish(struct kb_prompt *prompt)
{
	for (size_t i = 0; i < prompt->len; i++)
		kb_question_finish(&prompt->list[i]);
	prompt->len = 0;
}

bool kb_prompt_add(struct kb_prompt *prompt, const struct kb_question *q)
{
	struct kb_question *mine = &prompt->list[prompt->len];

	if (prompt->len == KB_PROMPT_MAX)
		return false;
	*mine = *q;
	mine->session = copy(q->session);
	mine->process = copy(q->process);
	mine->call = copy(q->call);
	mine->rule = copy(q->rule);
	mine->rule_text = copy(q->rule_text);
	mine->text = copy(q->text);
	mine->file = copy(q->file);
	prompt->len++;
	return true;
}

static void drop_at(struct kb_prompt *prompt, size_t i)
{
	kb_question_finish(&prompt->list[i]);
	prompt->len--;
	memmove(&prompt->list[i], &prompt->list[i + 1],
		(prompt->len - i) * sizeof(prompt->list[0]));
}

bool kb_prompt_drop(struct kb_prompt *prompt, uint64_t number)
{
	for (size_t i = 0; i < prompt->len; i++) {
		if (prompt->list[i].number != number)
			continue;
		/* What was done about it is still being read. */
		if (i == 0 && prompt->shown && prompt->told)
			return false;
		drop_at(prompt, i);
		return i == 0 && prompt->shown;
	}
	return false;
}

static void print(struct kb_buf *out, const char *text)
{
	(void)kb_buf_puts(out, text, NULL);
}

void kb_prompt_show(struct kb_prompt *prompt, const struct kb_modes *modes, struct kb_buf *out)
{
	const struct kb_question *q = &prompt->list[0];

	prompt->shown = true;
	prompt->told = false;
	prompt->line_len = 0;
	prompt->alternate = kb_modes_alternate(modes);
	prompt->no_cursor = kb_modes_hidden_cursor(modes);
	print(out, prompt->alternate ? CLEAR : SCREEN_ON);
	if (prompt->no_cursor)
		print(out, CURSOR_ON);
	(void)kb_buf_printf(out, NULL,
		"\033[0m\akbsup: session %s waits for your answer (%llu)" EOL EOL, q->session,
		(unsigned long long)q->number);
	kb_question_describe(q, "  ", EOL, out);
	print(out, EOL);
	for (const struct kb_answer_word *w = kb_answer_words; w->word; w++)
		(void)kb_buf_printf(out, NULL, "  %c  %s" EOL, w->key, w->meaning);
	(void)kb_buf_printf(out, NULL,
		EOL "Without an answer it is denied after %u seconds." EOL "Letter and Enter: ",
		q->wait_ms / 1000);
}

void kb_prompt_hide(struct kb_prompt *prompt, struct kb_buf *out)
{
	prompt->shown = false;
	if (prompt->told && prompt->len)
		drop_at(prompt, 0);
	prompt->told = false;
	print(out, prompt->alternate ? CLEAR : SCREEN_OFF);
	if (prompt->no_cursor)
		print(out, CURSOR_OFF);
}

static const struct kb_answer_word *enter(struct kb_prompt *prompt, struct kb_buf *out)
{
	const struct kb_answer_word *word;

	prompt->line[prompt->line_len] = '\0';
	prompt->line_len = 0;
	word = kb_answer_find(prompt->line);
	if (!word)
		print(out, EOL "One of the letters above, then Enter: ");
	return word;
}

const struct kb_answer_word *kb_prompt_keys(struct kb_prompt *prompt, const uint8_t *data,
	size_t len, struct kb_buf *out, bool *ret_done)
{
	*ret_done = prompt->told && memchr(data, '\r', len);
	for (size_t i = 0; i < len && !prompt->told; i++) {
		uint8_t c = data[i];

		if (c == '\r' || c == '\n') {
			const struct kb_answer_word *word = enter(prompt, out);

			if (word)
				return word;
		} else if ((c == 0x7f || c == '\b') && prompt->line_len) {
			prompt->line_len--;
			print(out, "\b \b");
		} else if (c >= 'a' && c <= 'z' && prompt->line_len < KB_PROMPT_LINE_MAX) {
			prompt->line[prompt->line_len++] = (char)c;
			(void)kb_buf_append(out, &c, 1, NULL);
		}
	}
	return NULL;
}

void kb_prompt_tell(struct kb_prompt *prompt, const char *said, struct kb_buf *out)
{
	prompt->told = true;
	(void)kb_buf_printf(out, NULL, EOL EOL "%s" EOL EOL "Enter to go on: ", said);
}

void kb_prompt_line(const struct kb_question *q)
{
	struct kb_buf text KB_BUF_CLEANUP;
	char *words KB_FREE;

	kb_buf_init(&text, 64u << 10);
	kb_question_describe(q, "       ", "\n", &text);
	words = kb_buf_steal_string(&text);
	fprintf(stderr,
		"kbsup: session %s waits for an answer:\n%s       kbsup answer %s %llu "
		"allow|session|always|deny|never\n",
		q->session, words ? words : "", q->session, (unsigned long long)q->number);
}
