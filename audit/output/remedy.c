#include "remedy.h"

#include <string.h>

#include "supervisor/base/util.h"

static bool changes_files(const struct kb_record *r)
{
	switch (r->event) {
	case KB_EVENT_OPEN:
		return kb_open_writes(r);
	case KB_EVENT_UNLINK:
	case KB_EVENT_RMDIR:
	case KB_EVENT_RENAME:
	case KB_EVENT_LINK:
	case KB_EVENT_SYMLINK:
	case KB_EVENT_MKDIR:
	case KB_EVENT_MKNOD:
	case KB_EVENT_CHMOD:
	case KB_EVENT_CHOWN:
	case KB_EVENT_TRUNCATE:
	case KB_EVENT_XATTR:
		return true;
	default:
		return false;
	}
}

/* Does the rule take away, so that giving it back needs the word? One that gives something else, or
 * a default, does not. */
static bool takes(const struct kb_rule_text *rule)
{
	const char *text = rule && rule->text ? rule->text : "", *deny = strstr(text, " deny");
	const char *quoted = strchr(text, '"');

	return (deny && (!quoted || deny < quoted) && !strstr(text, "default ")) ||
	       !strncmp(text, "workspace ", strlen("workspace "));
}

static int put_override(struct kb_buf *out, const struct kb_row *row, struct kb_err *err)
{
	return takes(kb_session_rule(row->session, row->record->rule))
		       ? kb_buf_puts(out, " override reason \"…\"", err)
		       : 0;
}

static int quoted_path(struct kb_buf *out, const struct kb_view *view, const struct kb_row *row,
	const char *intent, struct kb_bytes path, struct kb_err *err)
{
	int r = kb_buf_printf(out, err, "%s \"", intent);

	if (r == 0)
		r = kb_text_path(out, view, path, err);
	if (r == 0)
		r = kb_buf_puts(out, "\"", err);
	return r == 0 ? put_override(out, row, err) : r;
}

/* Events whose call was decided by its name. */
static bool is_call(const struct kb_record *r)
{
	return r->event == KB_EVENT_SYSCALL || r->event == KB_EVENT_MOUNT ||
	       r->event == KB_EVENT_SETNS || r->event == KB_EVENT_PTRACE ||
	       r->event == KB_EVENT_MEMORY;
}

/* A rule with conditions is not overruled by one without: there is no line to offer then. */
static int call(struct kb_buf *out, const struct kb_row *row, struct kb_err *err)
{
	const struct kb_record *r = row->record;
	const struct kb_rule_text *rule = kb_session_rule(row->session, r->rule);
	const char *name = r->syscall >= 0 ? kb_syscall_name(kb_row_arch(row), r->syscall) : NULL;
	int result;

	if (!name || !rule || strchr(rule->text, '{'))
		return 0;
	result = kb_buf_printf(out, err, "syscall %s allow", name);
	return result == 0 ? put_override(out, row, err) : result;
}

static int destination(struct kb_buf *out, const struct kb_row *row, struct kb_err *err)
{
	const struct kb_record *record = row->record;
	char ip[KB_IP_TEXT];
	int r;

	if (!record->host.data && !kb_row_ip(row, ip))
		return 0;
	r = kb_buf_puts(out, "net connect tcp \"", err);
	if (r == 0 && record->host.data)
		r = kb_text_bytes(out, record->host, err);
	else if (r == 0)
		r = kb_buf_printf(out, err, strchr(ip, ':') ? "[%s]" : "%s", ip);
	return r == 0 ? kb_buf_printf(out, err, ":%u\"", record->port) : r;
}

int kb_remedy(struct kb_buf *out, const struct kb_view *view, const struct kb_row *row,
	struct kb_err *err)
{
	const struct kb_record *r = row->record;
	struct kb_bytes path;

	if (r->decision == KB_DECISION_ALLOWED)
		return 0;
	if (r->event == KB_EVENT_CONNECT)
		return destination(out, row, err);
	if (is_call(r))
		return call(out, row, err);
	if (!kb_row_path(row, &path) || path.len == 0 || path.data[0] != '/')
		return 0;
	if (r->event == KB_EVENT_EXEC)
		return quoted_path(out, view, row, "exec allow", path, err);
	return quoted_path(out, view, row, changes_files(r) ? "fs write" : "fs read", path, err);
}
