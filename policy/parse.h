/* Shared by the parser's files. The functions return 0, 1 after a diagnostic, -1 without memory. */
#pragma once

#include <errno.h>
#include <stdio.h>

#include "policy/ast.h"

struct kb_parser {
	struct kb_source *source;
	const struct kb_tokens *tokens;
	struct kb_arena *arena;
	struct kb_diags *diags;
	size_t at;
};

const struct kb_token *kb_parse_peek(const struct kb_parser *ps);
const struct kb_token *kb_parse_next(struct kb_parser *ps);
/* The next token is this word or punctuation (not a string). */
bool kb_parse_is(const struct kb_parser *ps, const char *text);
bool kb_parse_accept(struct kb_parser *ps, const char *text);
int kb_parse_expect(struct kb_parser *ps, const char *text);
/* Diagnose the next token: "expected WANTED, not '…'". Returns 1. */
int kb_parse_fail(struct kb_parser *ps, const char *wanted);
int kb_parse_push(struct kb_parser *ps, struct kb_operands *list, const struct kb_token *token);
/* A word that begins or belongs to a rule, and so cannot be a bare name. */
bool kb_parse_reserved(const char *word);
bool kb_parse_name_ends(const struct kb_parser *ps);
/* An optional errno after deny. */
int kb_parse_errno(struct kb_parser *ps, struct kb_stmt *stmt, int fallback);
/* parse_blocks.c */
int kb_parse_net(struct kb_parser *ps, struct kb_stmt *stmt);
int kb_parse_agent(struct kb_parser *ps, struct kb_unit *unit);
int kb_parse_test(struct kb_parser *ps, struct kb_unit *unit);
int kb_parse_returns(struct kb_parser *ps, struct kb_expect *expect);
/* parse_secret.c */
int kb_parse_secret(struct kb_parser *ps, struct kb_stmt *stmt);
/* A condition up to and with its closing brace (parse_cond.c). */
int kb_parse_cond(struct kb_parser *ps, struct kb_alts *ret);
