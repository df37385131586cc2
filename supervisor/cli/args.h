/* Parsed words of one command. The parser checks what the table says (arity, kinds, words) and
 * nothing else; what the words mean is the verb's business.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "command.h"

#define KB_ARGS_OPTIONS_MAX 256 /* options given in one call, repeats counted */

struct kb_arg {
	const struct kb_option *option;
	const char *value; /* NULL for a flag */
	bool assumed;	   /* by kb_args_default() */
};

/* Points into argv; owns only the arrays. */
struct kb_args {
	const struct kb_command *command;
	struct kb_arg given[KB_ARGS_OPTIONS_MAX];
	size_t n_given;
	char **operands;
	size_t n_operands;
	char **tail; /* what follows `--` where the command takes a command; NULL-terminated */
	size_t n_tail;
};

/* words: argv after the command's name. When --help is among the options nothing else is checked.
 * Errors are KB_ERR_USAGE, with the remedy. kb_args_finish() is fine in any case. */
int kb_args_parse(struct kb_args *args, const struct kb_command *command, int n_words, char **words,
	struct kb_err *err);
void kb_args_finish(struct kb_args *args);
/* As if the option, which was not given, had been; value must outlive args. */
int kb_args_default(struct kb_args *args, const struct kb_option *option, const char *value,
	struct kb_err *err);

/* The option must be in the command's table: asking for another is a bug and aborts. */
bool kb_args_has(const struct kb_args *args, const char *name);
/* The same, on the command line: a setting does not count. */
bool kb_args_given(const struct kb_args *args, const char *name);
const char *kb_args_value(const struct kb_args *args, const char *name); /* NULL: not given */
/* The i-th value of a repeatable option, NULL past the last. */
const char *kb_args_value_at(const struct kb_args *args, const char *name, size_t i);
/* A KB_KIND_COUNT option, or fallback. The parser has checked it. */
uint64_t kb_args_count(const struct kb_args *args, const char *name, uint64_t fallback);
/* The i-th operand, or NULL. */
const char *kb_args_operand(const struct kb_args *args, size_t i);
