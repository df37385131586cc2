/* Private to audit/export/: one record in another system's words. */
#pragma once

#include <jansson.h>

#include "audit/output/json.h"

/* OCSF 1.3 (schema.ocsf.io): one event, or NULL when out of memory. */
json_t *kb_export_ocsf(const struct kb_row *row);

/* OTLP logs (opentelemetry.io/docs/specs/otlp, JSON encoding): the resource of a session, and one
 * log record. NULL when out of memory. */
json_t *kb_export_otlp_resource(const struct kb_session *session);
json_t *kb_export_otlp_record(const struct kb_row *row);
