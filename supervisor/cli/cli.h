/* What every verb gets: where it prints and how. Made once in main.c.
 *
 * stdout is for what was asked; stderr for what is said about it. A verb that returns a negative
 * error has printed nothing about it: main.c prints every error, in one place.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "args.h"
#include "supervisor/base/err.h"
#include "supervisor/base/util.h"

/* The exit statuses of the contract. */
enum kb_exit {
	KB_EXIT_OK = 0,
	KB_EXIT_FAILED = 1,
	KB_EXIT_USAGE = 2,
	KB_EXIT_UNREACHABLE = 3,
	KB_EXIT_REFUSED = 4,
};

struct kb_cli {
	bool in_tty, out_tty, err_tty;
	bool colour;	      /* of stdout: a terminal, and NO_COLOR is not set */
	bool err_colour;      /* the same of stderr */
	unsigned columns;     /* of stdout; 0: not a terminal */
	unsigned err_columns; /* of stderr */
	bool json;	      /* --json was given */
	const char *home;     /* the user's home directory; shown as ~ */
};

void kb_cli_init(struct kb_cli *cli);

/* ---- Colours --------------------------------------------------------------------------------- */

enum kb_tone { KB_TONE_NONE, KB_TONE_BOLD, KB_TONE_DIM, KB_TONE_GOOD, KB_TONE_WARN, KB_TONE_BAD };

/* The escape sequence that starts a tone, and the one that ends it; "" when off. */
const char *kb_tone(bool colour, enum kb_tone tone);
const char *kb_tone_end(bool colour, enum kb_tone tone);

/* ---- Tables ---------------------------------------------------------------------------------- */

/* Collects cells row by row, then prints them: aligned under a header on a terminal, else one line
 * per row with tabs between the cells and no header. Cells are foreign text and escaped here. */
#define KB_TABLE_COLUMNS_MAX 12

struct kb_column {
	const char *title; /* NULL ends the list */
	bool right;	   /* numbers */
	bool shrink;	   /* cut first when the terminal is too narrow */
};

struct kb_table {
	const struct kb_column *columns;
	size_t n_columns;
	char **cells;
	enum kb_tone *tones;
	size_t n_cells, cap;
};

void kb_table_init(struct kb_table *table, const struct kb_column *columns);
void kb_table_finish(struct kb_table *table);
/* The next cell; NULL reads as "–". Dies of no memory, as only this program may. */
void kb_table_cell(struct kb_table *table, enum kb_tone tone, const char *text);
void kb_table_cellf(struct kb_table *table, enum kb_tone tone, const char *fmt, ...)
	KB_PRINTF(3, 4);
void kb_table_print(const struct kb_table *table, const struct kb_cli *cli, FILE *out);

#define KB_TABLE_CLEANUP KB_CLEANUP(kb_table_finish)

/* ---- Words for numbers ----------------------------------------------------------------------- */

#define KB_WORDS_MAX 32
/* "0.4s", "14m02s", "3h07m", "2d04h" */
void kb_format_duration(char ret[KB_WORDS_MAX], int64_t ns);
/* The same coarsely, for ages: "3s", "14m", "3h", "2d" */
void kb_format_age(char ret[KB_WORDS_MAX], int64_t ns);
/* "18,204" */
void kb_format_count(char ret[KB_WORDS_MAX], uint64_t n);
/* "212 MB", powers of 1024 */
void kb_format_size(char ret[KB_WORDS_MAX], uint64_t bytes);
/* Columns a text takes on a terminal. */
size_t kb_text_width(const char *text);
/* The text, or as much of it as fits with "…" at its end; fresh memory. */
char *kb_text_cut(const char *text, size_t columns);
/* The path with the home directory as "~", escaped; fresh memory, never NULL. */
char *kb_format_path(const struct kb_cli *cli, const char *path);

/* ---- JSON ------------------------------------------------------------------------------------ */

/* Prints one document and a newline: indented on a terminal. Takes the reference. */
int kb_json_print(const struct kb_cli *cli, json_t *document, struct kb_err *err);
/* A JSON string of foreign bytes: as they are when UTF-8, else escaped. */
json_t *kb_json_of(const void *data, size_t len);
static inline void kb_json_unref_(json_t **json)
{
	json_decref(*json);
}
#define KB_JSON_CLEANUP KB_CLEANUP(kb_json_unref_)

/* asprintf that dies of no memory; so does strdup. */
char *kb_xprintf(const char *fmt, ...) KB_PRINTF(1, 2);
char *kb_xstrdup(const char *text);
void *kb_xcalloc(size_t n, size_t size);
