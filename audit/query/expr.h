/* Private to audit/: expressions of the query language.
 *
 *	expression  = conjunction { "or" conjunction }
 *	conjunction = term { "and" term }
 *	term        = "not" term | "(" expression ")" | comparison
 *	comparison  = field ( "=" | "!=" | "<" | "<=" | ">" | ">=" | "~" ) value
 *	            | field [ "not" ] "in" "(" value { "," value } ")"
 *	value       = word | 'text' | "text"     (\n \t \r \\ \" \xHH as on the screens)
 *
 * A comparison with a value the record does not have is false; `!=` and `not in` are the negation
 * of `=` and `in`, so they are then true.
 */
#pragma once

#include "field.h"

#define KB_EXPR_MAX	  (64u << 10) /* bytes of text */
#define KB_EXPR_NODES_MAX 4096u
#define KB_EXPR_DEPTH_MAX 100u

enum kb_op { KB_OP_EQ, KB_OP_NE, KB_OP_LT, KB_OP_LE, KB_OP_GT, KB_OP_GE, KB_OP_GLOB };

enum kb_node_kind { KB_NODE_AND, KB_NODE_OR, KB_NODE_NOT, KB_NODE_COMPARE };

struct kb_value {
	int64_t number;
	char *text; /* NUL-terminated, owned; may hold NULs */
	size_t len;
	uint8_t ip[16];	 /* KB_KIND_IP, `=`: address, */
	uint8_t ip_len;	 /* 4 or 16 bytes, */
	uint8_t ip_bits; /* and how many bits of it count */
};

struct kb_term {
	enum kb_node_kind kind;
	uint32_t left, right; /* and, or: both; not: left */
	const struct kb_field *field;
	enum kb_op op;
	struct kb_value value;
};

struct kb_expr {
	struct kb_term *nodes;
	uint32_t n_nodes, cap;
	uint32_t root;
	size_t n_values;
};

struct kb_expr_options {
	const char *home; /* what ~/ means at the start of a path; may be NULL */
	int64_t now;
	bool utc;
};

/* What is wrong with the text, and where: bytes, from 0. */
struct kb_expr_error {
	size_t at, len;
	char what[200];
	char hint[120]; /* "did you mean …"; may be empty */
};

/* 0; or -KB_ERR_USAGE with *ret_error filled; or -KB_ERR_NOMEM. */
int kb_expr_parse(const char *text, const struct kb_expr_options *options, struct kb_expr **ret,
	struct kb_expr_error *ret_error);
void kb_expr_destroy(struct kb_expr *expr); /* NULL is fine */
/* An expression of NULL matches everything. */
bool kb_expr_match(const struct kb_expr *expr, const struct kb_row *row);
/* Expression, caret and hint, as people read them. */
int kb_expr_error_render(const char *text, const struct kb_expr_error *error, struct kb_buf *out,
	struct kb_err *err);
/* The same in one line. Returns -KB_ERR_USAGE. */
int kb_expr_error_set(const char *text, const struct kb_expr_error *error, struct kb_err *err);

/* Make a value for field and op from its text (value.c). False with error->what and ->hint set. */
bool kb_value_parse(const struct kb_field *field, enum kb_op op, const char *text, size_t len,
	bool quoted, const struct kb_expr_options *options, struct kb_value *ret,
	struct kb_expr_error *error);
bool kb_value_match(const struct kb_term *node, const struct kb_row *row);
