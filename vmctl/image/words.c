#include "words.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORD_MAX (PATH_MAX + 256)

void kb_words_add(struct kb_words *words, const char *word)
{
	if (words->n < KB_WORDS_MAX_)
		words->list[words->n++] = word;
	else
		words->failed = true;
}

void kb_words_addf(struct kb_words *words, const char *fmt, ...)
{
	char word[WORD_MAX];
	char *copy = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(word, sizeof(word), fmt, ap);
	va_end(ap);
	if (n < (int)sizeof(word) && words->n_owned < KB_WORDS_MAX_)
		copy = strdup(word);
	if (!copy) {
		words->failed = true;
		return;
	}
	words->owned[words->n_owned++] = copy;
	kb_words_add(words, copy);
}

int kb_words_check(const struct kb_words *words, struct kb_err *err)
{
	return words->failed ? kb_err_set(err, KB_ERR_LIMIT, "too many words for one command") : 0;
}

void kb_words_finish(struct kb_words *words)
{
	for (size_t i = 0; i < words->n_owned; i++)
		free(words->owned[i]);
	*words = (struct kb_words){0};
}
