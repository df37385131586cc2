/* The table of records. Widths are those of the first rows, which are held back until there are
 * enough to know; later rows that are wider push their line out. On a terminal the column of what
 * happened is cut in its middle so that a line fits. */
#include "table.h"

#include <string.h>

#include "supervisor/base/util.h"

#define HELD_ROWS 200u
#define LIVE_ROWS 1u
#define GAP	  2u
#define WHAT_MIN  24u /* columns left for what happened, however narrow the terminal */

enum column {
	COL_TIME,
	COL_SESSION,
	COL_PROCESS,
	COL_EVENT,
	COL_WHAT,
	COL_DECISION,
	COL_RULE,
	COLUMNS
};

static const char *const titles[COLUMNS] = {
	"TIME", "SESSION", "PROCESS", "EVENT", "WHAT", "DECISION", "RULE"};
/* Columns start no narrower than this, so that a live table stays in line. */
static const size_t least[COLUMNS] = {19, 12, 16, 7, 32, 8, 0};

struct cells {
	char *text[COLUMNS];
	enum kb_colour colour;
};

struct kb_table {
	const struct kb_view *view;
	bool sessions;
	bool titled;
	size_t width[COLUMNS];
	struct cells *held;
	size_t n_held, max_held;
	struct kb_buf line;
};

int kb_table_create(const struct kb_view *view, bool sessions, bool live, struct kb_table **ret,
	struct kb_err *err)
{
	struct kb_table *table = calloc(1, sizeof(*table));

	if (!table)
		return kb_err_nomem(err);
	table->view = view;
	table->sessions = sessions;
	table->max_held = live ? LIVE_ROWS : HELD_ROWS;
	table->held = calloc(HELD_ROWS, sizeof(*table->held));
	memcpy(table->width, least, sizeof(least));
	kb_buf_init(&table->line, KB_TEXT_MAX);
	if (!table->held) {
		kb_table_destroy(table);
		return kb_err_nomem(err);
	}
	*ret = table;
	return 0;
}

static void cells_finish(struct cells *cells)
{
	for (int i = 0; i < COLUMNS; i++)
		free(cells->text[i]);
	*cells = (struct cells){0};
}

void kb_table_destroy(struct kb_table *table)
{
	if (!table)
		return;
	for (size_t i = 0; i < table->n_held; i++)
		cells_finish(&table->held[i]);
	free(table->held);
	kb_buf_finish(&table->line);
	free(table);
}

static int cell_time(struct kb_buf *out, const struct kb_view *view, const struct kb_row *row,
	struct kb_err *err)
{
	char text[KB_WHEN_MAX];

	kb_when_format(row->record->time, view->utc, false, text);
	return kb_buf_puts(out, text, err);
}

static int cell_session(struct kb_buf *out, const struct kb_view *view, const struct kb_row *row,
	struct kb_err *err)
{
	return kb_buf_puts(out, row->session->name, err);
}

static int cell_process(struct kb_buf *out, const struct kb_view *view, const struct kb_row *row,
	struct kb_err *err)
{
	return row->proc ? kb_text_proc(out, row->proc, 1, err) : 0;
}

static int cell_event(struct kb_buf *out, const struct kb_view *view, const struct kb_row *row,
	struct kb_err *err)
{
	return kb_buf_puts(out, kb_event_name(row->record->event), err);
}

static int cell_decision(struct kb_buf *out, const struct kb_view *view, const struct kb_row *row,
	struct kb_err *err)
{
	return kb_text_decision(out, row->record, err);
}

static int cell_rule(struct kb_buf *out, const struct kb_view *view, const struct kb_row *row,
	struct kb_err *err)
{
	return kb_text_rule(out, kb_session_rule(row->session, row->record->rule), err);
}

static int (*const cell[COLUMNS])(struct kb_buf *out, const struct kb_view *view,
	const struct kb_row *row, struct kb_err *err) = {
	cell_time, cell_session, cell_process, cell_event, kb_text_what, cell_decision, cell_rule};

static int fill(const struct kb_table *table, const struct kb_row *row, struct cells *ret,
	struct kb_err *err)
{
	KB_BUF_CLEANUP struct kb_buf buf;
	int r = 0;

	kb_buf_init(&buf, KB_TEXT_MAX);
	ret->colour = row->record->decision == KB_DECISION_ALLOWED ? KB_PLAIN : KB_RED;
	for (int i = 0; i < COLUMNS && r == 0; i++) {
		r = cell[i](&buf, table->view, row, err);
		if (r == 0 && !(ret->text[i] = kb_buf_steal_string(&buf)))
			r = kb_err_nomem(err);
	}
	return r;
}

static int put_cell(
	struct kb_table *table, int column, const char *text, bool last, struct kb_err *err)
{
	size_t len = strlen(text), have;
	int r = 0;

	if (column == COL_WHAT && table->view->columns)
		r = kb_text_fit(&table->line, text, len, table->width[column], err);
	else
		r = kb_buf_append(&table->line, text, len, err);
	have = kb_text_columns(text, len);
	if (last || r < 0 || have >= table->width[column])
		return r == 0 && !last ? kb_buf_puts(&table->line, "  ", err) : r;
	return kb_buf_printf(
		&table->line, err, "%*s", (int)(table->width[column] - have + GAP), "");
}

static int put_line(struct kb_table *table, char *const text[COLUMNS], enum kb_colour colour,
	struct kb_err *err)
{
	int r = 0, last = COLUMNS - 1;

	while (last > 0 && !text[last][0])
		last--;
	if (colour != KB_PLAIN)
		r = kb_buf_puts(&table->line, kb_colour(table->view, colour), err);
	for (int i = 0; i <= last && r == 0; i++)
		if (i != COL_SESSION || table->sessions)
			r = put_cell(table, i, text[i], i == last, err);
	if (r == 0 && colour != KB_PLAIN)
		r = kb_buf_puts(&table->line, kb_colour(table->view, KB_PLAIN), err);
	if (r == 0)
		r = kb_buf_puts(&table->line, "\n", err);
	return r < 0 ? r : kb_text_flush(&table->line, table->view, err);
}

static void settle_widths(struct kb_table *table)
{
	size_t others = 0, left;

	for (size_t row = 0; row < table->n_held; row++)
		for (int i = 0; i < COLUMNS - 1; i++)
			table->width[i] =
				KB_MAX(table->width[i], kb_text_columns(table->held[row].text[i],
								strlen(table->held[row].text[i])));
	if (!table->view->columns)
		return;
	for (size_t row = 0; row < table->n_held; row++)
		table->width[COL_RULE] =
			KB_MAX(table->width[COL_RULE], strlen(table->held[row].text[COL_RULE]));
	for (int i = 0; i < COLUMNS; i++)
		if (i != COL_WHAT && (i != COL_SESSION || table->sessions))
			others += table->width[i] + GAP;
	left = table->view->columns > others ? table->view->columns - others : 0;
	table->width[COL_WHAT] = KB_MIN(table->width[COL_WHAT], KB_MAX(left, (size_t)WHAT_MIN));
}

int kb_table_flush(struct kb_table *table, struct kb_err *err)
{
	int r = 0;

	if (table->n_held == 0)
		return 0;
	if (!table->titled) {
		settle_widths(table);
		table->titled = true;
		r = put_line(table, (char *const *)titles, KB_SOFT, err);
	}
	for (size_t i = 0; i < table->n_held && r == 0; i++)
		r = put_line(table, table->held[i].text, table->held[i].colour, err);
	for (size_t i = 0; i < table->n_held; i++)
		cells_finish(&table->held[i]);
	table->n_held = 0;
	return r;
}

int kb_table_row(struct kb_table *table, const struct kb_row *row, struct kb_err *err)
{
	int r = fill(table, row, &table->held[table->n_held], err);

	table->n_held++;
	if (r < 0 || table->n_held < (table->titled ? 1 : table->max_held))
		return r;
	return kb_table_flush(table, err);
}
