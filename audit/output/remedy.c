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

static int quoted_path(struct kb_buf *out, const struct kb_view *view, const char *intent,
	struct kb_bytes path, struct kb_err *err)
{
	int r = kb_buf_printf(out, err, "%s \"", intent);

	if (r == 0)
		r = kb_text_path(out, view, path, err);
	/* Files, programs and calls widen what the parents of a policy grant: that needs the word.
	 */
	return r == 0 ? kb_buf_puts(out, "\" override", err) : r;
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
	const char *name = r->syscall >= 0 ? kb_syscall_name(kb_row_arch(row), r->syscall) : NULL;
	struct kb_bytes path;

	if (r->decision == KB_DECISION_ALLOWED)
		return 0;
	if (r->event == KB_EVENT_CONNECT)
		return destination(out, row, err);
	if (!kb_row_path(row, &path) || path.len == 0 || path.data[0] != '/')
		return r->event == KB_EVENT_SYSCALL && name
			       ? kb_buf_printf(out, err, "syscall %s allow override", name)
			       : 0;
	if (r->event == KB_EVENT_EXEC)
		return quoted_path(out, view, "exec allow", path, err);
	return quoted_path(out, view, changes_files(r) ? "fs write" : "fs read", path, err);
}
