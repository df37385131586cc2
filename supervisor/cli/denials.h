/* The denials of a session, as a person wants to read them: each kind once, with what it was, by
 * which line of the policy, and what would allow it. */
#pragma once

#include <stdio.h>

#include "connect.h"

struct kb_denials_view {
	const struct kb_cli *cli;
	bool colour;
	unsigned columns;    /* 0: lines may be as long as they are */
	const char *session; /* id */
	const char *policy;  /* the session's: a name, or a file */
	const char *config;  /* directory of the user's policies */
};

/* Asks the store and prints to out. */
int kb_denials_print(const struct kb_denials_view *view, struct kb_connection *connection,
	FILE *out, struct kb_err *err);
/* The printing alone: records are the query's JSON objects. */
void kb_denials_render(const struct kb_denials_view *view, const json_t *records, FILE *out);
