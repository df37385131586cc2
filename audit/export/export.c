#include "export.h"

#include <string.h>

#include "supervisor/base/util.h"

#define OTLP_BATCH 256 /* log records in one request */

KB_DEFINE_CLEANUP(scan_destroyp, struct kb_scan, kb_scan_destroy);
KB_DEFINE_CLEANUP(session_destroyp, struct kb_session, kb_session_destroy);

/* One format: what becomes of a row, and of the end of a session. */
struct exporter {
	const char *name;
	int (*row)(struct exporter *e, const struct kb_row *row, FILE *out, struct kb_err *err);
	int (*end)(struct exporter *e, const struct kb_session *session, FILE *out,
		struct kb_err *err);
	const struct kb_view *view;
	json_t *batch; /* otlp: log records not yet written */
};

static int jsonl_row(struct exporter *e, const struct kb_row *row, FILE *out, struct kb_err *err)
{
	return kb_json_put(kb_json_record(row, e->view), true, out, err);
}

static int ocsf_row(struct exporter *e, const struct kb_row *row, FILE *out, struct kb_err *err)
{
	return kb_json_put(kb_export_ocsf(row), true, out, err);
}

static int otlp_end(
	struct exporter *e, const struct kb_session *session, FILE *out, struct kb_err *err)
{
	json_t *resource, *records = e->batch;

	e->batch = NULL;
	if (!records)
		return 0;
	resource = kb_export_otlp_resource(session);
	if (!resource) {
		json_decref(records);
		return kb_err_nomem(err);
	}
	return kb_json_put(json_pack("{s:[{s:o, s:[{s:{s:s, s:s}, s:o}]}]}", "resourceLogs",
				   "resource", resource, "scopeLogs", "scope", "name",
				   "kbsup.audit", "version", KB_VERSION, "logRecords", records),
		true, out, err);
}

static int otlp_row(struct exporter *e, const struct kb_row *row, FILE *out, struct kb_err *err)
{
	json_t *record = kb_export_otlp_record(row);

	if (!e->batch)
		e->batch = json_array();
	if (!record || json_array_append_new(e->batch, record) < 0)
		return kb_err_nomem(err);
	return json_array_size(e->batch) == OTLP_BATCH ? otlp_end(e, row->session, out, err) : 0;
}

static const struct exporter exporters[] = {
	{.name = "jsonl", .row = jsonl_row},
	{.name = "ocsf", .row = ocsf_row},
	{.name = "otlp", .row = otlp_row, .end = otlp_end},
};

static int export_session(struct exporter *e, struct kb_reader *reader, const uint8_t *id,
	FILE *out, struct kb_err *err)
{
	KB_CLEANUP(session_destroyp) struct kb_session *session = NULL;
	KB_CLEANUP(scan_destroyp) struct kb_scan *scan = NULL;
	struct kb_row row;
	int r = kb_reader_session(reader, id, &session, err);

	if (r == 0)
		r = kb_scan_create(reader, session, &scan, err);
	while (r == 0 && (r = kb_scan_next(scan, &row, err)) > 0)
		r = e->row(e, &row, out, err);
	if (r == 0 && e->end)
		r = e->end(e, session, out, err);
	json_decref(e->batch);
	e->batch = NULL;
	return r;
}

int kb_reader_export(struct kb_reader *reader, const char *sessions, const char *format,
	const struct kb_view *view, struct kb_err *err)
{
	const char *names[KB_ARRAY_LEN(exporters)], *near;
	struct kb_session_list list = {0};
	struct exporter e = {0};
	int r;

	for (size_t i = 0; i < KB_ARRAY_LEN(exporters); i++) {
		names[i] = exporters[i].name;
		if (strcmp(format ? format : "jsonl", exporters[i].name) == 0)
			e = exporters[i];
	}
	if (!e.name) {
		near = kb_closest(format, names, KB_ARRAY_LEN(names));
		kb_err_set(err, KB_ERR_USAGE, "there is no export format '%s'", format);
		return kb_err_hint(err,
			near ? "did you mean %s?" : "the formats are jsonl, ocsf and otlp", near);
	}
	e.view = view;
	r = kb_reader_resolve(reader, sessions, &list, err);
	for (size_t i = 0; r == 0 && i < list.n; i++)
		r = export_session(&e, reader, list.ids[i], view->out, err);
	kb_session_list_finish(&list);
	return r;
}
