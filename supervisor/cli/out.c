#include <errno.h>
#include <locale.h>
#include <pwd.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <wchar.h>

#include "cli.h"
#include "supervisor/base/str.h"

#define COLUMNS_DEFAULT 80
#define SHRINK_MIN	12 /* a cell is never cut to fewer columns */

static void no_memory(void)
{
	fputs("kbsup: out of memory\n", stderr);
	exit(KB_EXIT_FAILED);
}

char *kb_xprintf(const char *fmt, ...)
{
	char *text;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		no_memory();
	va_end(ap);
	return text;
}

char *kb_xstrdup(const char *text)
{
	char *copy = strdup(text);

	if (!copy)
		no_memory();
	return copy;
}

void *kb_xcalloc(size_t n, size_t size)
{
	void *p = calloc(n, size);

	if (!p)
		no_memory();
	return p;
}

static unsigned terminal_columns(int fd)
{
	struct winsize size;

	if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col)
		return size.ws_col;
	return COLUMNS_DEFAULT;
}

static const char *home_directory(void)
{
	const char *home = getenv("HOME");
	const struct passwd *pw;

	if (home && home[0] == '/')
		return home;
	pw = getpwuid(getuid());
	return pw ? kb_xstrdup(pw->pw_dir) : NULL;
}

void kb_cli_init(struct kb_cli *cli)
{
	const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
	bool plain = (no_color && *no_color) || (term && !strcmp(term, "dumb"));

	/* Only for the width of characters: text is UTF-8 whatever the user's locale says. */
	if (!setlocale(LC_CTYPE, "C.UTF-8"))
		setlocale(LC_CTYPE, "en_US.UTF-8");
	*cli = (struct kb_cli){
		.in_tty = isatty(STDIN_FILENO),
		.out_tty = isatty(STDOUT_FILENO),
		.err_tty = isatty(STDERR_FILENO),
		.home = home_directory(),
	};
	cli->colour = cli->out_tty && !plain;
	cli->err_colour = cli->err_tty && !plain;
	cli->columns = cli->out_tty ? terminal_columns(STDOUT_FILENO) : 0;
	cli->err_columns = cli->err_tty ? terminal_columns(STDERR_FILENO) : 0;
}

static const char *const tones[] = {
	[KB_TONE_NONE] = "",
	[KB_TONE_BOLD] = "\033[1m",
	[KB_TONE_DIM] = "\033[2m",
	[KB_TONE_GOOD] = "\033[32m",
	[KB_TONE_WARN] = "\033[33m",
	[KB_TONE_BAD] = "\033[31m",
};

const char *kb_tone(bool colour, enum kb_tone tone)
{
	return colour ? tones[tone] : "";
}

const char *kb_tone_end(bool colour, enum kb_tone tone)
{
	return colour && tone != KB_TONE_NONE ? "\033[0m" : "";
}

/* ---- Tables ---------------------------------------------------------------------------------- */

void kb_table_init(struct kb_table *table, const struct kb_column *columns)
{
	*table = (struct kb_table){.columns = columns};
	while (columns[table->n_columns].title)
		table->n_columns++;
}

void kb_table_finish(struct kb_table *table)
{
	for (size_t i = 0; i < table->n_cells; i++)
		free(table->cells[i]);
	free(table->cells);
	free(table->tones);
	*table = (struct kb_table){0};
}

void kb_table_cell(struct kb_table *table, enum kb_tone tone, const char *text)
{
	if (table->n_cells == table->cap) {
		table->cap = table->cap ? table->cap * 2 : 64;
		table->cells = realloc(table->cells, table->cap * sizeof(*table->cells));
		table->tones = realloc(table->tones, table->cap * sizeof(*table->tones));
		if (!table->cells || !table->tones)
			no_memory();
	}
	table->cells[table->n_cells] = text ? kb_escape_dup(text, strlen(text)) : kb_xstrdup("–");
	if (!table->cells[table->n_cells])
		no_memory();
	table->tones[table->n_cells++] = tone;
}

void kb_table_cellf(struct kb_table *table, enum kb_tone tone, const char *fmt, ...)
{
	char *text;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		no_memory();
	va_end(ap);
	kb_table_cell(table, tone, text);
	free(text);
}

/* Bytes and columns of the longest prefix of text that is at most max columns wide. */
static size_t prefix(const char *text, size_t max, size_t *ret_width)
{
	mbstate_t state = {0};
	size_t at = 0, width = 0;

	while (text[at]) {
		wchar_t c;
		size_t len = mbrtowc(&c, text + at, strlen(text + at), &state);
		int w = 1;

		if (len == 0 || len > 4) { /* not UTF-8: a column a byte */
			state = (mbstate_t){0};
			len = 1;
		} else {
			w = wcwidth(c);
		}
		if (w < 0)
			w = 1;
		if (width + (size_t)w > max)
			break;
		width += (size_t)w;
		at += len;
	}
	*ret_width = width;
	return at;
}

size_t kb_text_width(const char *text)
{
	size_t width;

	prefix(text, SIZE_MAX, &width);
	return width;
}

char *kb_text_cut(const char *text, size_t columns)
{
	size_t width, bytes;

	if (kb_text_width(text) <= columns)
		return kb_xstrdup(text);
	bytes = prefix(text, columns ? columns - 1 : 0, &width);
	return kb_xprintf("%.*s…", (int)bytes, text);
}

static void measure(const struct kb_table *table, size_t widths[])
{
	for (size_t c = 0; c < table->n_columns; c++)
		widths[c] = kb_text_width(table->columns[c].title);
	for (size_t i = 0; i < table->n_cells; i++) {
		size_t width = kb_text_width(table->cells[i]);

		widths[i % table->n_columns] = KB_MAX(widths[i % table->n_columns], width);
	}
}

/* Take what is too wide from the columns that may shrink, the widest first. */
static void fit(const struct kb_table *table, size_t widths[], size_t columns)
{
	size_t total = 0, widest;

	for (size_t c = 0; c < table->n_columns; c++)
		total += widths[c] + 2;
	while (total > columns + 2) {
		widest = table->n_columns;
		for (size_t c = 0; c < table->n_columns; c++)
			if (table->columns[c].shrink &&
				(widest == table->n_columns || widths[c] > widths[widest]))
				widest = c;
		if (widest == table->n_columns || widths[widest] <= SHRINK_MIN)
			return;
		widths[widest]--;
		total--;
	}
}

static void print_cell(FILE *out, const char *text, size_t width, bool right, bool last,
	bool colour, enum kb_tone tone)
{
	bool cut = kb_text_width(text) > width;
	size_t used, bytes = prefix(text, cut ? width - 1 : width, &used);
	int pad = (int)(width - used - (cut ? 1 : 0));

	fprintf(out, "%*s%s%.*s%s%s%*s%s", right ? pad : 0, "", kb_tone(colour, tone), (int)bytes,
		text, cut ? "…" : "", kb_tone_end(colour, tone), right || last ? 0 : pad, "",
		last ? "\n" : "  ");
}

static void print_aligned(const struct kb_table *table, const struct kb_cli *cli, FILE *out)
{
	size_t widths[KB_TABLE_COLUMNS_MAX], n = table->n_columns;

	measure(table, widths);
	fit(table, widths, cli->columns);
	for (size_t c = 0; c < n; c++)
		print_cell(out, table->columns[c].title, widths[c], table->columns[c].right,
			c + 1 == n, cli->colour, KB_TONE_DIM);
	for (size_t i = 0; i < table->n_cells; i++) {
		const struct kb_column *column = &table->columns[i % n];

		print_cell(out, table->cells[i], widths[i % n], column->right, (i + 1) % n == 0,
			cli->colour, table->tones[i]);
	}
}

void kb_table_print(const struct kb_table *table, const struct kb_cli *cli, FILE *out)
{
	if (cli->columns) {
		print_aligned(table, cli, out);
		return;
	}
	for (size_t i = 0; i < table->n_cells; i++)
		fprintf(out, "%s%c", table->cells[i],
			(i + 1) % table->n_columns == 0 ? '\n' : '\t');
}

/* ---- Words for numbers ----------------------------------------------------------------------- */

#define NS_SECOND 1000000000LL

void kb_format_duration(char ret[KB_WORDS_MAX], int64_t ns)
{
	long long s = ns / NS_SECOND;

	if (ns < 0)
		ns = s = 0;
	if (s < 10)
		snprintf(ret, KB_WORDS_MAX, "%lld.%llds", s,
			(long long)(ns % NS_SECOND) / (NS_SECOND / 10));
	else if (s < 60)
		snprintf(ret, KB_WORDS_MAX, "%llds", s);
	else if (s < 3600)
		snprintf(ret, KB_WORDS_MAX, "%lldm%02llds", s / 60, s % 60);
	else if (s < 86400)
		snprintf(ret, KB_WORDS_MAX, "%lldh%02lldm", s / 3600, s / 60 % 60);
	else
		snprintf(ret, KB_WORDS_MAX, "%lldd%02lldh", s / 86400, s / 3600 % 24);
}

void kb_format_age(char ret[KB_WORDS_MAX], int64_t ns)
{
	long long s = KB_MAX(ns, 0) / NS_SECOND;

	if (s < 60)
		snprintf(ret, KB_WORDS_MAX, "%llds", s);
	else if (s < 3600)
		snprintf(ret, KB_WORDS_MAX, "%lldm", s / 60);
	else if (s < 2 * 86400)
		snprintf(ret, KB_WORDS_MAX, "%lldh", s / 3600);
	else
		snprintf(ret, KB_WORDS_MAX, "%lldd", s / 86400);
}

void kb_format_count(char ret[KB_WORDS_MAX], uint64_t n)
{
	kb_text_count(n, ret);
}

void kb_format_size(char ret[KB_WORDS_MAX], uint64_t bytes)
{
	static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
	double value = (double)bytes;
	size_t unit = 0;

	while (value >= 1024 && unit + 1 < KB_ARRAY_LEN(units)) {
		value /= 1024;
		unit++;
	}
	snprintf(ret, KB_WORDS_MAX, unit && value < 10 ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

char *kb_format_path(const struct kb_cli *cli, const char *path)
{
	size_t len = cli->home ? strlen(cli->home) : 0;
	char *shown KB_FREE = NULL, *escaped;

	if (len > 1 && !strncmp(path, cli->home, len) && (path[len] == '/' || !path[len]))
		shown = kb_xprintf("~%s", path + len);
	else
		shown = kb_xstrdup(path);
	escaped = kb_escape_dup(shown, strlen(shown));
	if (!escaped)
		no_memory();
	return escaped;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

json_t *kb_json_of(const void *data, size_t len)
{
	char *escaped KB_FREE = NULL;

	if (kb_utf8_valid(data, len))
		return json_stringn(data, len);
	escaped = kb_escape_dup(data, len);
	if (!escaped)
		no_memory();
	return json_string(escaped);
}

int kb_json_print(const struct kb_cli *cli, json_t *document, struct kb_err *err)
{
	json_t *owned KB_JSON_CLEANUP = document;

	if (!owned)
		return kb_err_nomem(err);
	if (json_dumpf(owned, stdout, cli->columns ? JSON_INDENT(2) : JSON_COMPACT) < 0)
		return kb_err_set(err, KB_ERR_FAILED, "the answer cannot be written as JSON");
	putchar('\n');
	return 0;
}
