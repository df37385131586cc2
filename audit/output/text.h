/* Private to audit/: records as people read them. Everything foreign is escaped here. */
#pragma once

#include "audit/query/expr.h"
#include "audit/query/when.h"
#include "audit/reader.h"

enum kb_colour { KB_PLAIN, KB_BOLD, KB_SOFT, KB_RED, KB_GREEN, KB_YELLOW };
/* The start of a colour on view's terminal, or "" where there is none; KB_PLAIN ends one. */
const char *kb_colour(const struct kb_view *view, enum kb_colour colour);

/* All of these append to `out`, whose bound is generous; they fail only without memory. */
int kb_text_bytes(struct kb_buf *out, struct kb_bytes bytes, struct kb_err *err);
/* A path, with view->home shown as ~. */
int kb_text_path(
	struct kb_buf *out, const struct kb_view *view, struct kb_bytes path, struct kb_err *err);
/* A command line, quoted where a shell would need it. */
int kb_text_argv(struct kb_buf *out, const struct kb_bytes *argv, size_t argc, struct kb_err *err);
/* "rm(4377) ← bash"; `generations` more parents at most. */
int kb_text_proc(struct kb_buf *out, const struct kb_process *proc, unsigned generations,
	struct kb_err *err);
/* What the record is about: a path, a destination, a command line, words. */
int kb_text_what(struct kb_buf *out, const struct kb_view *view, const struct kb_row *row,
	struct kb_err *err);
/* "allowed", "denied EACCES", "allowed, ENOENT". */
int kb_text_decision(struct kb_buf *out, const struct kb_record *record, struct kb_err *err);
/* "base.policy:14": a rule's id without its hash. */
int kb_text_rule(struct kb_buf *out, const struct kb_rule_text *rule, struct kb_err *err);

#define KB_TEXT_MAX (8u << 20)
/* Columns a finished UTF-8 text takes; and the text cut in its middle to fit in `columns`. */
size_t kb_text_columns(const char *text, size_t len);
int kb_text_fit(
	struct kb_buf *out, const char *text, size_t len, size_t columns, struct kb_err *err);
/* "12.3 MB" */
const char *kb_text_size(uint64_t bytes, char ret[KB_COUNT_MAX]);
/* Write buf to view->out, empty it, and notice when nobody reads any more (KB_ERR_CLOSED). */
int kb_text_flush(struct kb_buf *buf, const struct kb_view *view, struct kb_err *err);
