/* One line of strace's output, taken apart. The form is that of strace(1) 6.x with any of -f -t -tt
 * -ttt -y -yy -s -x. Everything points into the line, which is cut up in place.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KB_STRACE_ARGS_MAX 8

enum kb_strace_kind {
	KB_STRACE_CALL,
	KB_STRACE_UNFINISHED, /* rest: the call's text so far */
	KB_STRACE_RESUMED,    /* name: the call; rest: the text that follows */
	KB_STRACE_EXITED,     /* value: exit code */
	KB_STRACE_KILLED,     /* name: the signal */
	KB_STRACE_OTHER,      /* signals delivered, notes: nothing to record */
};

struct kb_strace_line {
	enum kb_strace_kind kind;
	uint32_t pid; /* 0: none was given */
	bool has_time;
	bool time_of_day; /* time counts from midnight, not from the epoch */
	uint64_t time;	  /* nanoseconds */
	char *name;
	char *rest;
	char *args[KB_STRACE_ARGS_MAX];
	size_t n_args;
	bool has_value;
	int64_t value;
	char *error; /* "ENOENT", or NULL */
};

/* Takes apart `line` (NUL-terminated, no newline). False: it is not a line of strace. */
bool kb_strace_line_parse(char *line, struct kb_strace_line *ret);
/* The call of an unfinished and resumed pair, put together: `name(args) = …` without prefix. */
bool kb_strace_call_parse(char *text, struct kb_strace_line *ret);
/* Decode a C string literal with strace's escapes in place; *ret_end is what follows it, *ret_cut
 * whether strace abbreviated it ("..."). False when it is not a string. */
bool kb_strace_string(char *text, char **ret, size_t *ret_len, char **ret_end, bool *ret_cut);
