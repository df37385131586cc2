/* Records as OpenTelemetry log records, in OTLP's JSON encoding: 64-bit numbers are strings, ids
 * are hex, one ExportLogsServiceRequest a line (the OTLP file exporter's form). Attribute names are
 * those of the semantic conventions where there is one, and kbsup.* else.
 */
#include <string.h>

#include "audit/query/field.h"
#include "export.h"
#include "supervisor/base/util.h"

/* SeverityNumber: INFO and WARN. */
#define SEVERITY_INFO 9
#define SEVERITY_WARN 13

static json_t *any_text(struct kb_bytes bytes)
{
	KB_FREE char *text = NULL;

	if (kb_utf8_valid(bytes.data, bytes.len))
		return json_pack("{s:o}", "stringValue",
			json_stringn_nocheck(bytes.len ? (const char *)bytes.data : "", bytes.len));
	/* Exact bytes travel as bytes: OTLP has a type for them. */
	text = kb_base64(bytes.data, bytes.len);
	return text ? json_pack("{s:s}", "bytesValue", text) : NULL;
}

static bool attr(json_t *list, const char *name, json_t *value)
{
	json_t *one = value ? json_pack("{s:s, s:o}", "key", name, "value", value) : NULL;

	return one && json_array_append_new(list, one) == 0;
}

static bool attr_bytes(json_t *list, const char *name, struct kb_bytes bytes)
{
	return !bytes.data || attr(list, name, any_text(bytes));
}

static bool attr_text(json_t *list, const char *name, const char *text)
{
	return !text || !text[0] ||
	       attr_bytes(list, name, (struct kb_bytes){(const uint8_t *)text, strlen(text)});
}

static bool attr_number(json_t *list, const char *name, int64_t number)
{
	char digits[24];

	snprintf(digits, sizeof(digits), "%lld", (long long)number);
	return attr(list, name, json_pack("{s:s}", "intValue", digits));
}

static bool attr_argv(json_t *list, const struct kb_bytes *argv, size_t argc)
{
	json_t *values = json_array();
	bool ok = values != NULL;

	for (size_t i = 0; i < argc && ok; i++) {
		json_t *one = any_text(argv[i]);

		ok = one && json_array_append_new(values, one) == 0;
	}
	if (!ok) {
		json_decref(values);
		return false;
	}
	return attr(list, "process.command_args",
		json_pack("{s:{s:o}}", "arrayValue", "values", values));
}

json_t *kb_export_otlp_resource(const struct kb_session *session)
{
	json_t *attrs = json_array();

	if (attrs && attr_text(attrs, "service.name", "kbsup") &&
		attr_text(attrs, "service.version", KB_VERSION) &&
		attr_text(attrs, "service.instance.id", session->id_text) &&
		attr_text(attrs, "host.name", session->machine) &&
		attr_text(attrs, "kbsup.session", session->name) &&
		attr_text(attrs, "kbsup.agent", session->agent) &&
		attr_text(attrs, "kbsup.policy", session->policy))
		return json_pack("{s:o}", "attributes", attrs);
	json_decref(attrs);
	return NULL;
}

static bool put_process(json_t *attrs, const struct kb_row *row)
{
	const struct kb_record *r = row->record;
	const struct kb_process *p = row->proc;

	if (!r->pid)
		return true;
	return attr_number(attrs, "process.pid", r->pid) &&
	       (!p || !p->ppid || attr_number(attrs, "process.parent_pid", p->ppid)) &&
	       (!p || !p->image || attr_bytes(attrs, "process.executable.path", p->image->exe)) &&
	       (r->event != KB_EVENT_EXEC || r->argc == 0 || attr_argv(attrs, r->argv, r->argc)) &&
	       (!r->has_exit_code || attr_number(attrs, "process.exit.code", r->exit_code));
}

static bool put_object(json_t *attrs, const struct kb_row *row)
{
	const struct kb_record *r = row->record;
	char ip[KB_IP_TEXT];

	return attr_bytes(attrs, "file.path", r->path) &&
	       attr_bytes(attrs, "kbsup.path2", r->path2) &&
	       (!r->has_flags || attr_number(attrs, "kbsup.flags", r->flags)) &&
	       attr_bytes(attrs, "server.address", r->host) &&
	       (!kb_row_ip(row, ip) || attr_text(attrs, "network.peer.address", ip)) &&
	       (!r->port || attr_number(attrs, "network.peer.port", r->port)) &&
	       attr_bytes(attrs, "kbsup.secret", r->secret) &&
	       attr_bytes(attrs, "kbsup.text", r->text);
}

static bool put_verdict(json_t *attrs, const struct kb_row *row)
{
	const struct kb_record *r = row->record;
	const struct kb_rule_text *rule = kb_session_rule(row->session, r->rule);

	return attr_text(attrs, "kbsup.lane", kb_lane_name(r->lane)) &&
	       attr_text(attrs, "kbsup.decision", kb_decision_name(r->decision)) &&
	       attr_text(attrs, "kbsup.outcome", kb_outcome_name(r->outcome)) &&
	       (!r->errnum || attr_text(attrs, "kbsup.errno", kb_error_name(r->errnum))) &&
	       (!rule || (attr_text(attrs, "kbsup.rule.id", rule->id) &&
				 attr_text(attrs, "kbsup.rule.text", rule->text)));
}

json_t *kb_export_otlp_record(const struct kb_row *row)
{
	const struct kb_record *r = row->record;
	bool denied = r->decision != KB_DECISION_ALLOWED;
	json_t *attrs = json_array();
	char time[24];

	snprintf(time, sizeof(time), "%llu", (unsigned long long)r->time);
	if (attrs && attr_text(attrs, "event.name", kb_event_name(r->event)) &&
		attr_number(attrs, "kbsup.seq", (int64_t)row->seq) && put_process(attrs, row) &&
		put_object(attrs, row) && put_verdict(attrs, row))
		return json_pack("{s:s, s:s, s:i, s:s, s:{s:s}, s:o}", "timeUnixNano", time,
			"observedTimeUnixNano", time, "severityNumber",
			denied ? SEVERITY_WARN : SEVERITY_INFO, "severityText",
			denied ? "WARN" : "INFO", "body", "stringValue", kb_event_name(r->event),
			"attributes", attrs);
	json_decref(attrs);
	return NULL;
}
