/* Private to audit/: the parts of a report. */
#pragma once

#include "digest.h"

const char *kb_fate_name(enum kb_file_fate fate);
int kb_report_markdown(struct kb_reader *reader, const struct kb_session *session,
	const struct kb_view *view, const char *verdict, struct kb_err *err);
