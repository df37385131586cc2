/* The words of a command, gathered one by one. Internal to vmctl. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "supervisor/base/err.h"

#define KB_WORDS_MAX_ 160

struct kb_words {
	const char *list[KB_WORDS_MAX_ + 1]; /* NULL-terminated */
	char *owned[KB_WORDS_MAX_];
	size_t n, n_owned;
	bool failed; /* too many, or no memory: kb_words_check() says so */
};

void kb_words_add(struct kb_words *words, const char *word); /* borrowed */
void kb_words_addf(struct kb_words *words, const char *fmt, ...) KB_PRINTF(2, 3);
int kb_words_check(const struct kb_words *words, struct kb_err *err);
void kb_words_finish(struct kb_words *words);
