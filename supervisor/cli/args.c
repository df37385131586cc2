#include "args.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

#define OPTIONS_MAX 32 /* of one command; a test holds the table to it */

struct parse {
	struct kb_args *args;
	char **words;
	int n_words, at;
	struct kb_err *err;
};

static const struct kb_option *by_letter(const struct kb_command *command, char letter)
{
	const struct kb_option *option;

	for (size_t i = 0; (option = kb_command_option(command, i)); i++)
		if (option->letter == letter)
			return option;
	return NULL;
}

static const struct kb_option *by_name(
	const struct kb_command *command, const char *name, size_t len)
{
	const struct kb_option *option;

	for (size_t i = 0; (option = kb_command_option(command, i)); i++)
		if (strlen(option->name) == len && !memcmp(option->name, name, len))
			return option;
	return NULL;
}

static int unknown_option(const struct parse *p, const char *word, size_t len)
{
	const char *names[OPTIONS_MAX], *near, *verb = p->args->command->name;
	const struct kb_option *option;
	char *name KB_FREE = strndup(word, len);
	size_t n = 0;

	if (!name)
		return kb_err_nomem(p->err);
	while (n < OPTIONS_MAX && (option = kb_command_option(p->args->command, n)))
		names[n++] = option->name;
	kb_err_set(p->err, KB_ERR_USAGE, "%s has no option '%s'", verb, name);
	near = kb_closest(name + strspn(name, "-"), names, n);
	if (near)
		return kb_err_hint(p->err, "did you mean: --%s", near);
	return kb_err_hint(p->err, "its options are listed by: kbsup help %s", verb);
}

/* Is `word` one of the words of "a|b|c"? */
static bool one_of(const char *words, const char *word)
{
	size_t len = strcspn(word, "|");

	for (const char *at = words; len && !word[len] && at; at = strchr(at, '|')) {
		at += *at == '|';
		if (!strncmp(at, word, len) && (at[len] == '|' || !at[len]))
			return true;
	}
	return false;
}

static int bad_word(const char *what, const char *words, const char *value, struct kb_err *err)
{
	char *copy KB_FREE = strdup(words);
	const char *names[OPTIONS_MAX], *near;
	char *save = NULL;
	size_t n = 0;

	if (!copy)
		return kb_err_nomem(err);
	for (char *w = strtok_r(copy, "|", &save); w && n < OPTIONS_MAX;
		w = strtok_r(NULL, "|", &save))
		names[n++] = w;
	near = kb_closest(value, names, n);
	kb_err_set(err, KB_ERR_USAGE, "'%s' is not a value of %s", value, what);
	if (near)
		return kb_err_hint(err, "did you mean: %s", near);
	return kb_err_hint(err, "it is one of: %s", words);
}

static int check_env(const char *what, const char *value, struct kb_err *err)
{
	size_t len = strcspn(value, "=");

	if (len)
		return 0;
	kb_err_set(err, KB_ERR_USAGE, "%s '%s' names no variable", what, value);
	return kb_err_hint(err, "write %s NAME=VALUE, or %s NAME to take yours", what, what);
}

/* What the table alone can say about a value. `what` names the option or operand. */
static int check_kind(const char *what, enum kb_kind kind, const char *words, const char *value,
	struct kb_err *err)
{
	uint64_t number;

	switch (kind) {
	case KB_KIND_WORD:
		return one_of(words, value) ? 0 : bad_word(what, words, value, err);
	case KB_KIND_COUNT:
		if (kb_parse_u64(value, &number))
			return 0;
		kb_err_set(err, KB_ERR_USAGE, "'%s' is not a whole number", value);
		return kb_err_hint(err, "%s takes one, like %s 100", what, what);
	case KB_KIND_ENV:
		return check_env(what, value, err);
	default:
		return 0;
	}
}

static int add(const struct parse *p, const struct kb_option *option, const char *value)
{
	struct kb_args *args = p->args;
	char what[48];
	int r;

	snprintf(what, sizeof(what), "--%s", option->name);
	if (!option->repeat && kb_args_has(args, option->name)) {
		kb_err_set(p->err, KB_ERR_USAGE, "%s was given twice", what);
		return kb_err_hint(p->err, "give it once");
	}
	if (args->n_given == KB_ARGS_OPTIONS_MAX) {
		kb_err_set(p->err, KB_ERR_USAGE, "more than %d options were given",
			KB_ARGS_OPTIONS_MAX);
		return kb_err_hint(p->err, "put some of them in a policy file");
	}
	if (value && (r = check_kind(what, option->kind, option->words, value, p->err)) < 0)
		return r;
	args->given[args->n_given++] = (struct kb_arg){.option = option, .value = value};
	return 0;
}

static int missing_value(const struct parse *p, const struct kb_option *option)
{
	kb_err_set(p->err, KB_ERR_USAGE, "--%s needs a value", option->name);
	return kb_err_hint(p->err, "write: --%s %s", option->name, option->arg);
}

static int parse_long(struct parse *p, const char *word)
{
	size_t len = strcspn(word + 2, "=");
	const struct kb_option *option = by_name(p->args->command, word + 2, len);
	const char *value = word[2 + len] == '=' ? word + 2 + len + 1 : NULL;

	if (!option)
		return unknown_option(p, word, 2 + len);
	if (!option->arg && value) {
		kb_err_set(p->err, KB_ERR_USAGE, "--%s takes no value", option->name);
		return kb_err_hint(p->err, "write: --%s", option->name);
	}
	if (option->arg && !value) {
		if (p->at == p->n_words)
			return missing_value(p, option);
		value = p->words[p->at++];
	}
	return add(p, option, value);
}

/* -a, -an (two flags), -n NAME, -nNAME */
static int parse_short(struct parse *p, const char *word)
{
	int r;

	for (const char *at = word + 1; *at; at++) {
		const struct kb_option *option = by_letter(p->args->command, *at);

		if (!option)
			return unknown_option(p, word, strlen(word));
		if (!option->arg) {
			if ((r = add(p, option, NULL)) < 0)
				return r;
			continue;
		}
		if (at[1])
			return add(p, option, at + 1);
		if (p->at == p->n_words)
			return missing_value(p, option);
		return add(p, option, p->words[p->at++]);
	}
	return 0;
}

static int too_many(const struct parse *p, const char *word)
{
	const struct kb_command *command = p->args->command;

	kb_err_set(
		p->err, KB_ERR_USAGE, "%s does not know what to do with '%s'", command->name, word);
	if (command->tail != KB_TAIL_NONE)
		return kb_err_hint(p->err,
			"the command to run comes after '--': kbsup %s%s -- %s …", command->name,
			command->operands[0].name ? " S" : "", word);
	return kb_err_hint(p->err, "its usage is shown by: kbsup help %s", command->name);
}

static int check_operands(const struct parse *p)
{
	const struct kb_args *args = p->args;
	size_t used = 0, left;
	int r;

	for (const struct kb_operand *o = args->command->operands; o->name; o++) {
		left = args->n_operands - used;
		if (left < o->min) {
			kb_err_set(
				p->err, KB_ERR_USAGE, "%s needs %s", args->command->name, o->name);
			return kb_err_hint(p->err, "its usage is shown by: kbsup help %s",
				args->command->name);
		}
		for (unsigned i = 0; i < KB_MIN(left, o->max); i++, used++) {
			r = check_kind(o->name, o->kind, o->words, args->operands[used], p->err);
			if (r < 0)
				return r;
		}
	}
	return used < args->n_operands ? too_many(p, args->operands[used]) : 0;
}

static int check_tail(const struct parse *p)
{
	const struct kb_args *args = p->args;

	if (args->n_tail)
		return 0;
	if (args->tail && args->command->tail == KB_TAIL_OPTIONAL) {
		kb_err_set(p->err, KB_ERR_USAGE, "no command follows '--'");
		return kb_err_hint(p->err, "leave '--' out for the default, or name a command");
	}
	if (args->command->tail != KB_TAIL_REQUIRED)
		return 0;
	kb_err_set(p->err, KB_ERR_USAGE, "%s needs a command to run", args->command->name);
	return kb_err_hint(p->err, "write it after '--': kbsup %s %s -- COMMAND …",
		args->command->name, args->n_operands ? args->operands[0] : "S");
}

static int parse_words(struct parse *p)
{
	struct kb_args *args = p->args;
	bool options = true;
	int r = 0;

	while (r == 0 && p->at < p->n_words) {
		char *word = p->words[p->at++];

		if (options && !strcmp(word, "--")) {
			options = false;
			if (args->command->tail != KB_TAIL_NONE) {
				args->tail = p->words + p->at;
				args->n_tail = (size_t)(p->n_words - p->at);
				return 0;
			}
		} else if (options && !strncmp(word, "--", 2)) {
			r = parse_long(p, word);
		} else if (options && word[0] == '-' && word[1]) {
			r = parse_short(p, word);
		} else {
			args->operands[args->n_operands++] = word;
		}
	}
	return r;
}

int kb_args_parse(struct kb_args *args, const struct kb_command *command, int n_words, char **words,
	struct kb_err *err)
{
	struct parse p = {.args = args, .words = words, .n_words = n_words, .err = err};
	int r;

	*args = (struct kb_args){.command = command};
	args->operands = calloc((size_t)n_words + 1, sizeof(*args->operands));
	if (!args->operands)
		return kb_err_nomem(err);
	r = parse_words(&p);
	if (kb_args_has(args, "help"))
		return 0;
	if (r == 0)
		r = check_operands(&p);
	if (r == 0)
		r = check_tail(&p);
	return r;
}

int kb_args_default(
	struct kb_args *args, const struct kb_option *option, const char *value, struct kb_err *err)
{
	const struct parse p = {.args = args, .err = err};
	int r = add(&p, option, value);

	if (r == 0)
		args->given[args->n_given - 1].assumed = true;
	return r;
}

void kb_args_finish(struct kb_args *args)
{
	free(args->operands);
	*args = (struct kb_args){0};
}

static const struct kb_option *known(const struct kb_args *args, const char *name)
{
	const struct kb_option *option = by_name(args->command, name, strlen(name));

	if (!option) {
		fprintf(stderr, "kbsup: bug: %s has no option %s\n", args->command->name, name);
		abort();
	}
	return option;
}

const char *kb_args_value_at(const struct kb_args *args, const char *name, size_t i)
{
	const struct kb_option *option = known(args, name);

	for (size_t g = 0; g < args->n_given; g++)
		if (args->given[g].option == option && i-- == 0)
			return args->given[g].value;
	return NULL;
}

const char *kb_args_value(const struct kb_args *args, const char *name)
{
	return kb_args_value_at(args, name, 0);
}

bool kb_args_has(const struct kb_args *args, const char *name)
{
	const struct kb_option *option = known(args, name);

	for (size_t g = 0; g < args->n_given; g++)
		if (args->given[g].option == option)
			return true;
	return false;
}

bool kb_args_given(const struct kb_args *args, const char *name)
{
	const struct kb_option *option = known(args, name);

	for (size_t g = 0; g < args->n_given; g++)
		if (args->given[g].option == option && !args->given[g].assumed)
			return true;
	return false;
}

uint64_t kb_args_count(const struct kb_args *args, const char *name, uint64_t fallback)
{
	const char *value = kb_args_value(args, name);
	uint64_t number;

	return value && kb_parse_u64(value, &number) ? number : fallback;
}

const char *kb_args_operand(const struct kb_args *args, size_t i)
{
	return i < args->n_operands ? args->operands[i] : NULL;
}
