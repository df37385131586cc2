#include "policy/diag.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

#define SHOWN_MAX    20 /* diagnostics that are kept; the others are counted */
#define MESSAGE_MAX  512
#define LINE_MAX_    200 /* bytes of a source line that are shown */
#define GUTTER_WIDTH 5

/* The text of a place is copied: a diagnostic outlives the policy it is about. */
struct place {
	char file[128];
	unsigned line, col, len;
	char text[LINE_MAX_ + 1];
	size_t text_len;
};

struct diag {
	enum kb_severity severity;
	struct place at, also;
	bool has_also;
	char message[MESSAGE_MAX], hint[MESSAGE_MAX], help[MESSAGE_MAX];
};

struct kb_diags {
	struct diag items[SHOWN_MAX];
	size_t len;
	size_t errors, warnings;
	bool dropped; /* the last one was not kept: its additions go nowhere */
};

struct kb_diags *kb_diags_create(void)
{
	return calloc(1, sizeof(struct kb_diags));
}

void kb_diags_destroy(struct kb_diags *diags)
{
	free(diags);
}

size_t kb_diags_errors(const struct kb_diags *diags)
{
	return diags->errors;
}

size_t kb_diags_warnings(const struct kb_diags *diags)
{
	return diags->warnings;
}

static void place_set(struct place *place, struct kb_pos pos)
{
	const char *line, *end, *stop;

	if (!pos.source)
		return;
	snprintf(place->file, sizeof(place->file), "%s", pos.source->name);
	place->line = pos.line;
	place->col = pos.col;
	place->len = pos.len;
	line = pos.source->text;
	stop = pos.source->text + pos.source->len;
	for (unsigned n = 1; n < pos.line && line < stop; n++) {
		const char *eol = memchr(line, '\n', (size_t)(stop - line));

		line = eol ? eol + 1 : stop;
	}
	end = memchr(line, '\n', (size_t)(stop - line));
	place->text_len = (size_t)((end ? end : stop) - line);
	if (place->text_len > LINE_MAX_)
		place->text_len = LINE_MAX_;
	memcpy(place->text, line, place->text_len);
}

void kb_diag(
	struct kb_diags *diags, enum kb_severity severity, struct kb_pos pos, const char *fmt, ...)
{
	struct diag *diag;
	va_list args;

	if (severity == KB_DIAG_ERROR)
		diags->errors++;
	else if (severity == KB_DIAG_WARNING)
		diags->warnings++;
	/* Errors matter more than warnings: those leave the last quarter to them. */
	diags->dropped = diags->len == SHOWN_MAX ||
			 (severity != KB_DIAG_ERROR && diags->len >= SHOWN_MAX / 4 * 3);
	if (diags->dropped)
		return;
	diag = &diags->items[diags->len++];
	memset(diag, 0, sizeof(*diag));
	diag->severity = severity;
	place_set(&diag->at, pos);
	va_start(args, fmt);
	vsnprintf(diag->message, sizeof(diag->message), fmt, args);
	va_end(args);
}

static struct diag *last(struct kb_diags *diags)
{
	return diags->dropped || !diags->len ? NULL : &diags->items[diags->len - 1];
}

void kb_diag_hint(struct kb_diags *diags, const char *fmt, ...)
{
	struct diag *diag = last(diags);
	va_list args;

	if (!diag)
		return;
	va_start(args, fmt);
	vsnprintf(diag->hint, sizeof(diag->hint), fmt, args);
	va_end(args);
}

#define PREFIX_MIN 4

const char *kb_diag_near(const char *word, const char *const *candidates, size_t n)
{
	const char *best = kb_closest(word, candidates, n);
	size_t longest = PREFIX_MIN - 1;

	for (size_t i = 0; !best && i < n; i++) {
		size_t same = 0;

		while (word[same] && word[same] == candidates[i][same])
			same++;
		if (same > longest && same * 2 >= strlen(word)) {
			longest = same;
			best = candidates[i];
		}
	}
	return best;
}

void kb_diag_also(struct kb_diags *diags, struct kb_pos pos)
{
	struct diag *diag = last(diags);

	if (!diag)
		return;
	place_set(&diag->also, pos);
	diag->has_also = true;
}

void kb_diag_help(struct kb_diags *diags, const char *fmt, ...)
{
	struct diag *diag = last(diags);
	va_list args;

	if (!diag)
		return;
	va_start(args, fmt);
	vsnprintf(diag->help, sizeof(diag->help), fmt, args);
	va_end(args);
}

int kb_diags_err(const struct kb_diags *diags, enum kb_errcode code, struct kb_err *err)
{
	const struct diag *first = NULL;
	char *message KB_FREE = NULL, *help KB_FREE = NULL;
	char more[48] = "";

	for (size_t i = 0; !first && i < diags->len; i++)
		if (diags->items[i].severity == KB_DIAG_ERROR)
			first = &diags->items[i];
	if (!first)
		return kb_err_set(err, code, "the policy has errors");
	message = kb_escape_dup(first->message, strlen(first->message));
	if (diags->errors > 1)
		snprintf(more, sizeof(more), " (and %zu more)", diags->errors - 1);
	kb_err_set(err, code, "%s:%u:%u: %s%s", first->at.file, first->at.line, first->at.col,
		message ? message : "", more);
	help = first->help[0] ? kb_escape_dup(first->help, strlen(first->help))
			      : kb_escape_dup(first->hint, strlen(first->hint));
	return help && help[0] ? kb_err_hint(err, "%s", help) : -(int)code;
}

/* ---- Rendering ------------------------------------------------------------------------------- */

static int put_escaped(struct kb_buf *out, const char *text, size_t len, struct kb_err *err)
{
	int r = 0;

	/* A backslash is harmless by itself, and messages show the language's own escapes. */
	while (r >= 0 && len) {
		const char *stop = memchr(text, '\\', len);
		size_t plain = stop ? (size_t)(stop - text) : len;
		char *safe KB_FREE = kb_escape_dup(text, plain);

		r = safe ? kb_buf_puts(out, safe, err) : kb_err_nomem(err);
		if (r >= 0 && stop)
			r = kb_buf_puts(out, "\\", err);
		text += plain + (stop != NULL);
		len -= plain + (stop != NULL);
	}
	return r;
}

/* Tabs become spaces so that the caret stands where it should. Returns the number of screen columns
 * before the byte at `col`, and how many the next `len` bytes take. */
static int put_source_line(struct kb_buf *out, const struct place *place, unsigned *ret_before,
	unsigned *ret_width, struct kb_err *err)
{
	unsigned column = 0, start = place->col - 1, stop = start + place->len;
	int r = kb_buf_printf(out, err, "%*u | ", GUTTER_WIDTH, place->line);

	*ret_before = *ret_width = 0;
	for (size_t i = 0; r >= 0 && i < place->text_len;) {
		char safe[16];
		size_t step = 1, width;

		while (i + step < place->text_len && (place->text[i + step] & 0xc0) == 0x80 &&
			step < 4)
			step++;
		if (!kb_utf8_valid(place->text + i, step))
			step = 1;
		if (i == start)
			*ret_before = column;
		if (place->text[i] == '\t') {
			width = 8 - column % 8;
			snprintf(safe, sizeof(safe), "%*s", (int)width, "");
		} else if (place->text[i] == '\\') {
			width = 1;
			snprintf(safe, sizeof(safe), "\\");
		} else {
			width = kb_escape(safe, sizeof(safe), place->text + i, step);
			width = step > 1 && width == step ? 1 : width;
		}
		r = kb_buf_puts(out, safe, err);
		column += (unsigned)width;
		i += step;
		if (i <= stop)
			*ret_width = column;
	}
	if (start >= place->text_len)
		*ret_before = *ret_width = column;
	*ret_width = *ret_width > *ret_before ? *ret_width - *ret_before : 1;
	return r < 0 ? r : kb_buf_puts(out, "\n", err);
}

static int put_caret(struct kb_buf *out, const struct diag *diag, unsigned before, unsigned width,
	struct kb_err *err)
{
	int r = kb_buf_printf(out, err, "%*s | %*s^", GUTTER_WIDTH, "", (int)before, "");

	for (unsigned i = 1; r >= 0 && i < width; i++)
		r = kb_buf_puts(out, "~", err);
	if (r >= 0 && diag->hint[0]) {
		r = kb_buf_puts(out, " ", err);
		if (r >= 0)
			r = put_escaped(out, diag->hint, strlen(diag->hint), err);
	}
	return r < 0 ? r : kb_buf_puts(out, "\n", err);
}

static const char *const severity_names[] = {"error", "warning", "note"};

static int put_diag(struct kb_buf *out, const struct diag *diag, struct kb_err *err)
{
	unsigned before, width;
	int r = 0;

	if (diag->at.line) {
		r = put_escaped(out, diag->at.file, strlen(diag->at.file), err);
		if (r >= 0)
			r = kb_buf_printf(out, err, ":%u:%u: ", diag->at.line, diag->at.col);
	}
	if (r >= 0)
		r = kb_buf_printf(out, err, "%s: ", severity_names[diag->severity]);
	if (r >= 0)
		r = put_escaped(out, diag->message, strlen(diag->message), err);
	if (r >= 0)
		r = kb_buf_puts(out, "\n", err);
	if (r >= 0 && diag->at.line) {
		r = put_source_line(out, &diag->at, &before, &width, err);
		if (r >= 0)
			r = put_caret(out, diag, before, width, err);
	}
	if (r >= 0 && diag->has_also) {
		r = put_escaped(out, diag->also.file, strlen(diag->also.file), err);
		if (r >= 0)
			r = kb_buf_printf(
				out, err, ":%u:%u: the other\n", diag->also.line, diag->also.col);
		if (r >= 0)
			r = put_source_line(out, &diag->also, &before, &width, err);
	}
	if (r >= 0 && diag->help[0]) {
		r = kb_buf_printf(out, err, "%*s | ", GUTTER_WIDTH, "");
		if (r >= 0)
			r = put_escaped(out, diag->help, strlen(diag->help), err);
		if (r >= 0)
			r = kb_buf_puts(out, "\n", err);
	}
	return r;
}

static int put_total(struct kb_buf *out, const struct kb_diags *diags, struct kb_err *err)
{
	size_t hidden = diags->errors + diags->warnings -
			KB_MIN(diags->len, diags->errors + diags->warnings);
	int r = 0;

	if (!diags->errors && !diags->warnings)
		return 0;
	if (diags->errors)
		r = kb_buf_printf(
			out, err, "%zu error%s", diags->errors, diags->errors == 1 ? "" : "s");
	if (r >= 0 && diags->warnings)
		r = kb_buf_printf(out, err, "%s%zu warning%s", diags->errors ? ", " : "",
			diags->warnings, diags->warnings == 1 ? "" : "s");
	if (r >= 0 && hidden)
		r = kb_buf_printf(out, err, " (%zu not shown)", hidden);
	return r < 0 ? r : kb_buf_puts(out, "\n", err);
}

static json_t *json_place(const struct place *place)
{
	char *file KB_FREE = kb_escape_dup(place->file, strlen(place->file));

	return json_pack("{s:s, s:i, s:i, s:i}", "file", file ? file : "", "line", (int)place->line,
		"col", (int)place->col, "length", (int)place->len);
}

static int json_text(json_t *object, const char *key, const char *text)
{
	char *safe KB_FREE = kb_escape_dup(text, strlen(text));

	return text[0] ? json_object_set_new(object, key, json_string(safe ? safe : "")) : 0;
}

static json_t *json_diag(const struct diag *diag)
{
	json_t *object = json_place(&diag->at);

	if (!object)
		return NULL;
	json_object_set_new(object, "severity", json_string(severity_names[diag->severity]));
	json_text(object, "message", diag->message);
	json_text(object, "hint", diag->hint);
	json_text(object, "help", diag->help);
	if (diag->has_also)
		json_object_set_new(object, "also", json_place(&diag->also));
	return object;
}

static int render_json(const struct kb_diags *diags, struct kb_buf *out, struct kb_err *err)
{
	json_t *list = json_array(), *root;
	char *text;
	int r;

	for (size_t i = 0; i < diags->len; i++)
		json_array_append_new(list, json_diag(&diags->items[i]));
	root = json_pack("{s:I, s:I, s:o}", "errors", (json_int_t)diags->errors, "warnings",
		(json_int_t)diags->warnings, "diagnostics", list);
	text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
	json_decref(root);
	if (!text)
		return kb_err_nomem(err);
	r = kb_buf_puts(out, text, err);
	free(text);
	return r < 0 ? r : kb_buf_puts(out, "\n", err);
}

int kb_diags_render(const struct kb_diags *diags, bool json, struct kb_buf *out, struct kb_err *err)
{
	if (json)
		return render_json(diags, out, err);
	for (size_t i = 0; i < diags->len; i++) {
		int r = put_diag(out, &diags->items[i], err);

		if (r < 0)
			return r;
	}
	return put_total(out, diags, err);
}
