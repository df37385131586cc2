/* The list of sessions, running and ended, as ps shows it. */
#pragma once

#include "connect.h"

/* Session objects with the contract's fields, oldest first. */
struct kb_rows {
	json_t *list;
};

int kb_rows_read(
	struct kb_rows *rows, struct kb_connection *connection, bool ended, struct kb_err *err);
void kb_rows_finish(struct kb_rows *rows);
#define KB_ROWS_CLEANUP KB_CLEANUP(kb_rows_finish)
int kb_rows_print(const struct kb_rows *rows, const struct kb_cli *cli);
int kb_rows_print_json(const struct kb_rows *rows, const struct kb_cli *cli, struct kb_err *err);
