/* Diagnostics: where in which text, said in words, shown with the line and a caret. Private. */
#pragma once

#include <stddef.h>

#include "policy/policy.h"

struct kb_source {
	const char *name; /* as shown: a file name, or preset:NAME for messages */
	const char *base; /* for rule ids: "base.policy" */
	const char *text;
	size_t len;
	bool preset;
	bool tightens;	/* comes from a workspace: may only take away */
	unsigned level; /* 0: the policy asked for; its parents 1, theirs 2 … (the longest way) */
};

/* A stretch of one line. Columns and lines count from 1, columns in bytes. */
struct kb_pos {
	const struct kb_source *source;
	unsigned line, col, len;
};

/* Add a diagnostic. The further calls add to the last one. */
void kb_diag(struct kb_diags *diags, enum kb_severity severity, struct kb_pos pos, const char *fmt,
	...) KB_PRINTF(4, 5);
#define kb_diag_error(diags, pos, ...) kb_diag(diags, KB_DIAG_ERROR, pos, __VA_ARGS__)
#define kb_diag_warn(diags, pos, ...)  kb_diag(diags, KB_DIAG_WARNING, pos, __VA_ARGS__)
/* Right of the caret. */
void kb_diag_hint(struct kb_diags *diags, const char *fmt, ...) KB_PRINTF(2, 3);
/* The candidate that `word` was probably meant to be, or NULL: near by edits, or with the same
 * first half. */
const char *kb_diag_near(const char *word, const char *const *candidates, size_t n);
/* A second place, shown below the first. */
void kb_diag_also(struct kb_diags *diags, struct kb_pos pos);
/* The remedy, on its own line. */
void kb_diag_help(struct kb_diags *diags, const char *fmt, ...) KB_PRINTF(2, 3);
/* The first error as a one-line report with its remedy; returns -code. */
int kb_diags_err(const struct kb_diags *diags, enum kb_errcode code, struct kb_err *err);
