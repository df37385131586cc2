/* `audit report`: one self-contained HTML page (report/page.html, with its data as DATA.md says),
 * or Markdown (markdown.c).
 *
 * The records are written as they are scanned; what they refer to (strings, processes, files) comes
 * after them in the same document. `<` never appears in the data, so nothing in it can end the
 * script element that holds it. */
#include <string.h>

#include "audit/report/page.h"
#include "digest.h"
#include "index.h"
#include "json.h"
#include "remedy.h"
#include "report.h"
#include "supervisor/base/util.h"

#define RECORDS_MAX 100000u /* rows of all kinds; past it only what was not allowed */
#define ROWS_MAX    120000u /* rows in all */
#define NONE	    (-1)

struct report {
	const struct kb_view *view;
	const struct kb_session *session;
	struct kb_digest *d;
	struct kb_index strings_index;
	struct kb_bytes *strings;
	size_t n_strings;
	struct kb_buf text;
	uint64_t rows;
	bool cut;
};

/* ---- Writing --------------------------------------------------------------------------------- */

static int write_safe(const char *data, size_t len, void *arg)
{
	FILE *out = arg;
	const char *angle;

	while ((angle = memchr(data, '<', len))) {
		size_t n = (size_t)(angle - data);

		if (fwrite(data, 1, n, out) != n || fputs("\\u003c", out) == EOF)
			return -1;
		data += n + 1;
		len -= n + 1;
	}
	return fwrite(data, 1, len, out) == len ? 0 : -1;
}

static int closed(struct kb_err *err)
{
	return kb_err_set(err, KB_ERR_CLOSED, "the output is closed");
}

/* One JSON value; takes the reference. */
static int put(struct report *rep, json_t *value, struct kb_err *err)
{
	int r;

	if (!value)
		return kb_err_nomem(err);
	r = json_dump_callback(value, write_safe, rep->view->out, JSON_COMPACT | JSON_ENCODE_ANY);
	json_decref(value);
	return r < 0 ? closed(err) : 0;
}

static int puts_plain(struct report *rep, const char *text, struct kb_err *err)
{
	return fputs(text, rep->view->out) == EOF ? closed(err) : 0;
}

/* ---- Strings --------------------------------------------------------------------------------- */

static struct kb_bytes string_key(const void *arg, uint32_t number)
{
	return ((const struct report *)arg)->strings[number];
}

/* The number of what stands in rep->text, which is emptied; NONE when nothing does. */
static int take_string(struct report *rep, json_int_t *ret, struct kb_err *err)
{
	struct kb_bytes key = {kb_buf_data(&rep->text), kb_buf_len(&rep->text)};
	uint32_t number;
	bool fresh;
	void *mem;

	*ret = NONE;
	if (key.len == 0)
		return 0;
	if ((rep->n_strings & (rep->n_strings - 1)) == 0) {
		mem = realloc(rep->strings,
			(rep->n_strings ? 2 * rep->n_strings : 1) * sizeof(*rep->strings));
		if (!mem)
			return kb_err_nomem(err);
		rep->strings = mem;
	}
	number = kb_index_put(&rep->strings_index, key, string_key, rep, &fresh);
	if (number == KB_INDEX_NOMEM)
		return kb_err_nomem(err);
	if (fresh) {
		uint8_t *copy = malloc(key.len);

		if (!copy)
			return kb_err_nomem(err);
		memcpy(copy, key.data, key.len);
		rep->strings[rep->n_strings++] = (struct kb_bytes){copy, key.len};
	}
	kb_buf_consume(&rep->text, key.len);
	*ret = number;
	return 0;
}

static int take_literal(struct report *rep, const char *text, json_int_t *ret, struct kb_err *err)
{
	int r = text ? kb_buf_puts(&rep->text, text, err) : 0;

	return r < 0 ? r : take_string(rep, ret, err);
}

static int take_path(struct report *rep, struct kb_bytes path, json_int_t *ret, struct kb_err *err)
{
	int r = path.data ? kb_text_path(&rep->text, rep->view, path, err) : 0;

	return r < 0 ? r : take_string(rep, ret, err);
}

/* ---- Records --------------------------------------------------------------------------------- */

static double since_start(const struct report *rep, uint64_t time)
{
	return (double)((int64_t)(time - rep->session->started)) / 1e6;
}

static json_int_t node_row(uint32_t node)
{
	return node == KB_NONE ? NONE : (json_int_t)node;
}

/* A rename's two names are apart on the page; the others are as on the screens. */
static int take_what(struct report *rep, const struct kb_row *row, json_int_t *ret_what,
	json_int_t *ret_second, struct kb_err *err)
{
	struct kb_bytes path;
	int r;

	*ret_second = NONE;
	if (!row->record->path2.data || !kb_row_path(row, &path)) {
		r = kb_text_what(&rep->text, rep->view, row, err);
		return r < 0 ? r : take_string(rep, ret_what, err);
	}
	r = take_path(rep, path, ret_what, err);
	return r < 0 ? r : take_path(rep, row->record->path2, ret_second, err);
}

static int put_record(
	struct report *rep, const struct kb_row *row, uint32_t node, struct kb_err *err)
{
	const struct kb_record *record = row->record;
	json_int_t error, what, second, remedy;
	int r = take_literal(rep, kb_error_name(record->errnum), &error, err);

	if (r == 0)
		r = take_what(rep, row, &what, &second, err);
	if (r == 0)
		r = kb_remedy(&rep->text, rep->view, row, err);
	if (r == 0)
		r = take_string(rep, &remedy, err);
	if (r == 0 && rep->rows++)
		r = puts_plain(rep, ",\n", err);
	if (r < 0)
		return r;
	return put(rep,
		json_pack("[IfiIiiIIIIiI]", (json_int_t)row->seq, since_start(rep, record->time),
			(int)record->event, node_row(node), (int)record->decision,
			(int)record->outcome, error,
			record->rule < rep->session->n_rules ? (json_int_t)record->rule
							     : (json_int_t)NONE,
			what, second, kb_open_writes(record) ? 1 : 0, remedy),
		err);
}

static int put_records(struct report *rep, struct kb_reader *reader, struct kb_err *err)
{
	struct kb_scan *scan;
	struct kb_row row;
	uint32_t node;
	int r = kb_scan_create(reader, rep->session, &scan, err);

	if (r < 0)
		return r;
	r = puts_plain(rep, "{\"records\":[", err);
	while (r == 0 && (r = kb_scan_next(scan, &row, err)) > 0) {
		r = kb_digest_add(rep->d, rep->view, &row, &node, err);
		if (r == 0 &&
			(rep->rows < RECORDS_MAX || (row.record->decision != KB_DECISION_ALLOWED &&
							    rep->rows < ROWS_MAX)))
			r = put_record(rep, &row, node, err);
		else
			rep->cut = true;
	}
	kb_scan_destroy(scan);
	kb_digest_end(rep->d);
	return r == 0 ? puts_plain(rep, "]", err) : r;
}

/* ---- Tables ---------------------------------------------------------------------------------- */

static int put_process(struct report *rep, const struct kb_node *node, struct kb_err *err)
{
	const struct kb_process *proc = node->proc;
	const struct kb_image *image =
		node->n_images ? node->images[node->n_images - 1] : proc->image;
	json_int_t exe, command;
	json_t *end;
	int r;

	r = image ? take_path(rep, image->exe, &exe, err)
		  : (kb_text_bytes(&rep->text, kb_process_comm(proc), err) < 0
				    ? -KB_ERR_NOMEM
				    : take_string(rep, &exe, err));
	if (r == 0 && image)
		r = kb_text_argv(&rep->text, image->argv, image->argc, err);
	if (r == 0)
		r = take_string(rep, &command, err);
	if (r < 0)
		return r;
	end = proc->exited ? json_real(since_start(rep, proc->ended)) : json_null();
	return put(rep,
		json_pack("[IIfoiiIIIIII]", (json_int_t)proc->pid, node_row(node->parent),
			since_start(rep, proc->started), end, proc->exit_code, (int)proc->signal,
			exe, command, (json_int_t)node->written, (json_int_t)node->deleted,
			(json_int_t)node->denied, (json_int_t)node->connected),
		err);
}

static int put_processes(struct report *rep, struct kb_err *err)
{
	int r = puts_plain(rep, ",\n\"procs\":[", err);

	for (size_t i = 0; i < rep->d->n_nodes && r == 0; i++) {
		if (i)
			r = puts_plain(rep, ",\n", err);
		if (r == 0)
			r = put_process(rep, &rep->d->nodes[i], err);
	}
	return r == 0 ? puts_plain(rep, "]", err) : r;
}

const char *kb_fate_name(enum kb_file_fate fate)
{
	static const char *const names[] = {
		[KB_FILE_MODIFIED] = "modified",
		[KB_FILE_CREATED] = "created",
		[KB_FILE_DELETED] = "deleted",
		[KB_FILE_RENAMED] = "renamed",
		[KB_FILE_TEMPORARY] = "temporary",
	};

	return names[fate];
}

static int put_file(struct report *rep, const struct kb_file *file, struct kb_err *err)
{
	json_int_t path, second;
	int r = take_path(rep, file->path, &path, err);

	if (r == 0)
		r = take_path(rep, file->path2, &second, err);
	return r < 0 ? r
		     : put(rep,
			       json_pack("[IsIII]", path, kb_fate_name(file->fate),
				       (json_int_t)file->times, node_row(file->node), second),
			       err);
}

static int put_files(struct report *rep, struct kb_err *err)
{
	int r = puts_plain(rep, ",\n\"files\":[", err);

	for (size_t i = 0; i < rep->d->n_files && r == 0; i++) {
		if (i)
			r = puts_plain(rep, ",\n", err);
		if (r == 0)
			r = put_file(rep, &rep->d->files[i], err);
	}
	return r == 0 ? puts_plain(rep, "]", err) : r;
}

static int put_net(struct report *rep, struct kb_err *err)
{
	json_int_t where;
	int r = puts_plain(rep, ",\n\"net\":[", err);

	for (size_t i = 0; i < rep->d->n_dests && r == 0; i++) {
		const struct kb_dest *dest = &rep->d->dests[i];

		if (i)
			r = puts_plain(rep, ",", err);
		if (r == 0)
			r = kb_buf_append(&rep->text, dest->where.data, dest->where.len, err);
		if (r == 0)
			r = take_string(rep, &where, err);
		if (r == 0)
			r = put(rep,
				json_pack("[IiII]", where, (int)dest->decision,
					(json_int_t)dest->times, node_row(dest->node)),
				err);
	}
	return r == 0 ? puts_plain(rep, "]", err) : r;
}

static int put_strings(struct report *rep, struct kb_err *err)
{
	int r = puts_plain(rep, ",\n\"strings\":[", err);

	for (size_t i = 0; i < rep->n_strings && r == 0; i++) {
		if (i)
			r = puts_plain(rep, ",", err);
		if (r == 0)
			r = put(rep,
				json_stringn(
					(const char *)rep->strings[i].data, rep->strings[i].len),
				err);
	}
	return r == 0 ? puts_plain(rep, "]", err) : r;
}

/* ---- The head -------------------------------------------------------------------------------- */

static json_t *escaped(const void *data, size_t len)
{
	KB_FREE char *text = kb_escape_dup(data ? data : "", len);

	return text ? json_string(text) : NULL;
}

static json_t *literal(const char *text)
{
	return escaped(text, text ? strlen(text) : 0);
}

static json_t *path_json(const struct report *rep, struct kb_bytes path)
{
	KB_BUF_CLEANUP struct kb_buf buf;

	kb_buf_init(&buf, KB_TEXT_MAX);
	if (kb_text_path(&buf, rep->view, path, NULL) < 0)
		return NULL;
	return json_stringn((const char *)kb_buf_data(&buf), kb_buf_len(&buf));
}

static json_t *command_json(const struct kb_session *s)
{
	KB_BUF_CLEANUP struct kb_buf buf;

	kb_buf_init(&buf, KB_TEXT_MAX);
	if (kb_text_argv(&buf, s->argv, s->argc, NULL) < 0)
		return NULL;
	return json_stringn((const char *)kb_buf_data(&buf), kb_buf_len(&buf));
}

static json_t *session_json(const struct report *rep, const char *verdict)
{
	const struct kb_session *s = rep->session;

	return json_pack("{so so so so so so so so so sf so si si ss}", "id", literal(s->id_text),
		"name", literal(s->name), "agent", literal(s->agent), "machine",
		literal(s->machine), "user", literal(s->user), "policy", literal(s->policy),
		"workspace", path_json(rep, s->workspace), "command", command_json(s), "reason",
		literal(s->ended ? s->end.reason : NULL), "started_ms", (double)s->started / 1e6,
		"ended_ms", s->ended ? json_real((double)s->end.ended / 1e6) : json_null(),
		"exit_code", s->ended ? s->end.exit_code : 0, "signal",
		s->ended ? (int)s->end.signal : 0, "verify", verdict);
}

static json_t *totals_json(const struct kb_digest *d)
{
	return json_pack("{sI sI sI sI sI sI sI}", "records", (json_int_t)d->records, "denials",
		(json_int_t)d->denied, "lost", (json_int_t)d->lost, "commands",
		(json_int_t)d->commands, "changed", (json_int_t)d->changed, "deleted",
		(json_int_t)d->deleted, "hosts", (json_int_t)d->hosts);
}

static json_t *rules_json(const struct kb_session *s)
{
	json_t *list = json_array();

	for (size_t i = 0; i < s->n_rules && list; i++)
		json_array_append_new(list,
			json_pack("{so so si so so}", "id", literal(s->rules[i].id), "file",
				literal(s->rules[i].file), "line", (int)s->rules[i].line, "text",
				literal(s->rules[i].text), "reason", literal(s->rules[i].reason)));
	return list;
}

static json_t *events_json(void)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < KB_EVENT_MAX_ && list; i++)
		json_array_append_new(list, json_string(i ? kb_event_name(i) : "none"));
	return list;
}

static int put_named(struct report *rep, const char *name, json_t *value, struct kb_err *err)
{
	int r = fprintf(rep->view->out, ",\n\"%s\":", name) < 0 ? closed(err) : 0;

	if (r < 0)
		json_decref(value);
	return r < 0 ? r : put(rep, value, err);
}

static int put_head(struct report *rep, const char *verdict, struct kb_err *err)
{
	int r = put_named(rep, "version", json_string(KB_VERSION), err);

	if (r == 0)
		r = put_named(rep, "made_ms", json_real((double)kb_now_real() / 1e6), err);
	if (r == 0)
		r = put_named(rep, "cut", json_boolean(rep->cut), err);
	if (r == 0)
		r = put_named(rep, "session", session_json(rep, verdict), err);
	if (r == 0)
		r = put_named(rep, "totals", totals_json(rep->d), err);
	if (r == 0)
		r = put_named(rep, "rules", rules_json(rep->session), err);
	return r == 0 ? put_named(rep, "events", events_json(), err) : r;
}

static int put_data(
	struct report *rep, struct kb_reader *reader, const char *verdict, struct kb_err *err)
{
	int r = put_records(rep, reader, err);

	if (r == 0)
		r = put_processes(rep, err);
	if (r == 0)
		r = put_files(rep, err);
	if (r == 0)
		r = put_net(rep, err);
	if (r == 0)
		r = put_head(rep, verdict, err);
	if (r == 0)
		r = put_strings(rep, err);
	return r == 0 ? puts_plain(rep, "}", err) : r;
}

static int put_part(struct report *rep, const unsigned char *data, size_t len, struct kb_err *err)
{
	return fwrite(data, 1, len, rep->view->out) == len ? 0 : closed(err);
}

static int put_page(
	struct report *rep, struct kb_reader *reader, const char *verdict, struct kb_err *err)
{
	int r = put_part(rep, kb_page_before, kb_page_before_len, err);

	if (r == 0)
		r = put_data(rep, reader, verdict, err);
	return r == 0 ? put_part(rep, kb_page_after, kb_page_after_len, err) : r;
}

static int html(struct kb_reader *reader, const struct kb_session *session,
	const struct kb_view *view, const char *verdict, struct kb_err *err)
{
	struct report rep = {.view = view, .session = session};
	int r = kb_digest_begin(&rep.d, err);

	kb_buf_init(&rep.text, KB_TEXT_MAX);
	if (r == 0)
		r = put_page(&rep, reader, verdict, err);
	for (size_t i = 0; i < rep.n_strings; i++)
		free((void *)rep.strings[i].data);
	free(rep.strings);
	kb_index_finish(&rep.strings_index);
	kb_buf_finish(&rep.text);
	kb_digest_destroy(rep.d);
	return r;
}

static const struct {
	const char *name;
	int (*write)(struct kb_reader *reader, const struct kb_session *session,
		const struct kb_view *view, const char *verdict, struct kb_err *err);
} formats[] = {{"html", html}, {"md", kb_report_markdown}};

int kb_reader_report(struct kb_reader *reader, const char *name, const char *format,
	const struct kb_view *view, struct kb_err *err)
{
	struct kb_session *session;
	int r = kb_reader_one(reader, name, &session, err);

	if (r < 0)
		return r;
	r = kb_err_set(err, KB_ERR_USAGE, "there is no report format '%s'", format ? format : "");
	for (size_t i = 0; i < KB_ARRAY_LEN(formats); i++)
		if (strcmp(format ? format : "html", formats[i].name) == 0)
			r = formats[i].write(reader, session, view,
				kb_verify_word(kb_verify_session(reader, session->id)), err);
	if (r == -KB_ERR_USAGE)
		kb_err_hint(err, "formats: html md");
	if (r == 0 && fflush(view->out) != 0)
		r = closed(err);
	kb_session_destroy(session);
	return r;
}
