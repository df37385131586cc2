/* Private to audit/: the table of records for people. */
#pragma once

#include "text.h"

struct kb_table;
/* sessions: with a SESSION column. live: every row is written at once. */
int kb_table_create(const struct kb_view *view, bool sessions, bool live, struct kb_table **ret,
	struct kb_err *err);
void kb_table_destroy(struct kb_table *table); /* NULL is fine */
int kb_table_row(struct kb_table *table, const struct kb_row *row, struct kb_err *err);
/* Write what is held back. */
int kb_table_flush(struct kb_table *table, struct kb_err *err);
