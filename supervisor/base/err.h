/* The error contract (see docs in ERRORS.md beside this file).
 *
 * A function that can fail returns 0, or a negative enum kb_errcode, and takes a trailing
 * `struct kb_err *` owned by the caller. On failure it fills it; on success it leaves it untouched.
 * The pointer may be NULL when the caller only wants the code. Libraries never print and never
 * exit: the program speaks once, with the reason (msg), the object and the remedy (hint).
 */
#pragma once

#include <stdarg.h>

enum kb_errcode {
	KB_ERR_FAILED = 1,  /* could not be done; no better word */
	KB_ERR_USAGE,	    /* the caller's words are off */
	KB_ERR_UNREACHABLE, /* the supervisor cannot be reached */
	KB_ERR_REFUSED,	    /* policy says no, or isolation is missing */
	KB_ERR_SYSTEM,	    /* a system call failed: errnum says why */
	KB_ERR_NOMEM,
	KB_ERR_INVALID, /* malformed foreign bytes */
	KB_ERR_LIMIT,	/* a stated bound was reached */
	KB_ERR_NOTFOUND,
	KB_ERR_EXISTS,
	KB_ERR_TIMEOUT,
	KB_ERR_CLOSED,	  /* the peer is gone */
	KB_ERR_NOCOMMAND, /* the command of a session is not there */
	KB_ERR_MAX_,
};

#define KB_ERR_MSG_MAX	640
#define KB_ERR_HINT_MAX 320

struct kb_err {
	enum kb_errcode code;
	int errnum;		    /* errno value where one caused it, else 0 */
	char msg[KB_ERR_MSG_MAX];   /* what could not be done, and why; one line, already escaped */
	char hint[KB_ERR_HINT_MAX]; /* what to do about it; may be empty */
};

#define KB_PRINTF(fmt_idx, arg_idx) __attribute__((format(printf, fmt_idx, arg_idx)))

/* Fill err and return -code, so that `return kb_err_set(err, …)` is the usual form. */
int kb_err_set(struct kb_err *err, enum kb_errcode code, const char *fmt, ...) KB_PRINTF(3, 4);
/* The same for a failed system call: code is KB_ERR_SYSTEM (KB_ERR_NOMEM for ENOMEM) and
 * ": <text of errnum>" is appended. errnum is positive. */
int kb_err_sys(struct kb_err *err, int errnum, const char *fmt, ...) KB_PRINTF(3, 4);
/* Out of memory. */
int kb_err_nomem(struct kb_err *err);
/* Add the remedy to a filled error; returns -err->code. NULL-safe (returns -KB_ERR_FAILED). */
int kb_err_hint(struct kb_err *err, const char *fmt, ...) KB_PRINTF(2, 3);
/* Put context in front of the message: "context: message"; returns -err->code. NULL-safe. */
int kb_err_prefix(struct kb_err *err, const char *fmt, ...) KB_PRINTF(2, 3);
/* One lower-case word for a code ("failed", "usage", …), and back (0 when unknown). */
const char *kb_errcode_name(enum kb_errcode code);
/* The exit status the command line promises for this error: 1, 2, 3 or 4, or 127, which is a
 * shell's for a command that is not there. */
int kb_err_exit_status(const struct kb_err *err);
