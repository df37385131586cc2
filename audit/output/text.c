#include "text.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "supervisor/base/util.h"

const char *kb_colour(const struct kb_view *view, enum kb_colour colour)
{
	static const char *const codes[] = {
		[KB_PLAIN] = "\033[0m",
		[KB_BOLD] = "\033[1m",
		[KB_SOFT] = "\033[2m",
		[KB_RED] = "\033[31m",
		[KB_GREEN] = "\033[32m",
		[KB_YELLOW] = "\033[33m",
	};

	return view->tty ? codes[colour] : "";
}

int kb_text_bytes(struct kb_buf *out, struct kb_bytes bytes, struct kb_err *err)
{
	size_t need = kb_escape(NULL, 0, bytes.data, bytes.len);
	uint8_t *room;
	int r = kb_buf_reserve(out, need + 1, &room, err);

	if (r < 0)
		return r;
	kb_escape((char *)room, need + 1, bytes.data, bytes.len);
	kb_buf_commit(out, need);
	return 0;
}

int kb_text_path(
	struct kb_buf *out, const struct kb_view *view, struct kb_bytes path, struct kb_err *err)
{
	size_t home = view->home ? strlen(view->home) : 0;
	int r;

	if (home > 1 && path.len >= home && memcmp(path.data, view->home, home) == 0 &&
		(path.len == home || path.data[home] == '/')) {
		r = kb_buf_puts(out, "~", err);
		if (r < 0)
			return r;
		path.data += home;
		path.len -= home;
	}
	/* A leading NUL is an abstract unix address, which people write with an @. */
	if (path.len && path.data[0] == '\0') {
		r = kb_buf_puts(out, "@", err);
		if (r < 0)
			return r;
		path.data++;
		path.len--;
	}
	return kb_text_bytes(out, path, err);
}

static bool needs_quotes(struct kb_bytes arg)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				    "_-./=:,@%+^";

	if (arg.len == 0)
		return true;
	for (size_t i = 0; i < arg.len; i++)
		if (arg.data[i] < 0x80 && (!arg.data[i] || !strchr(plain, arg.data[i])))
			return true;
	return false;
}

int kb_text_argv(struct kb_buf *out, const struct kb_bytes *argv, size_t argc, struct kb_err *err)
{
	int r = 0;

	for (size_t i = 0; i < argc && r == 0; i++) {
		bool has_quote = argv[i].len > 0 && memchr(argv[i].data, '"', argv[i].len);
		const char *quote = !needs_quotes(argv[i]) ? "" : has_quote ? "'" : "\"";

		r = kb_buf_printf(out, err, "%s%s", i ? " " : "", quote);
		if (r == 0)
			r = kb_text_bytes(out, argv[i], err);
		if (r == 0)
			r = kb_buf_puts(out, quote, err);
	}
	return r;
}

int kb_text_proc(
	struct kb_buf *out, const struct kb_process *proc, unsigned generations, struct kb_err *err)
{
	int r = kb_text_bytes(out, kb_process_comm(proc), err);

	if (r == 0)
		r = kb_buf_printf(out, err, "(%u)", proc->pid);
	for (proc = proc->parent; proc && generations-- && r == 0; proc = proc->parent) {
		if (!proc->comm_len)
			continue;
		r = kb_buf_puts(out, " ← ", err);
		if (r == 0)
			r = kb_text_bytes(out, kb_process_comm(proc), err);
	}
	return r;
}

/* ---- What a record is about ------------------------------------------------------------------ */

static int what_path(struct kb_buf *out, const struct kb_view *view, const struct kb_row *row,
	struct kb_err *err)
{
	struct kb_bytes path;

	return kb_row_path(row, &path) ? kb_text_path(out, view, path, err) : 0;
}

static int what_open(struct kb_buf *out, const struct kb_view *view, const struct kb_row *row,
	struct kb_err *err)
{
	int r = what_path(out, view, row, err);

	if (r == 0 && row->record->has_flags)
		r = kb_buf_puts(out, kb_open_writes(row->record) ? " (write)" : " (read)", err);
	return r;
}

static int what_two(struct kb_buf *out, const struct kb_view *view, const struct kb_row *row,
	struct kb_err *err)
{
	int r = what_path(out, view, row, err);

	if (r == 0 && row->record->path2.data)
		r = kb_buf_puts(out, " → ", err);
	return r == 0 ? kb_text_path(out, view, row->record->path2, err) : r;
}

static int what_exec(struct kb_buf *out, const struct kb_view *view, const struct kb_row *row,
	struct kb_err *err)
{
	const struct kb_record *r = row->record;

	return r->argc ? kb_text_argv(out, r->argv, r->argc, err) : what_path(out, view, row, err);
}

static int what_exit(struct kb_buf *out, const struct kb_view *view, const struct kb_row *row,
	struct kb_err *err)
{
	if (row->record->signal)
		return kb_buf_printf(out, err, "killed by signal %u", row->record->signal);
	return kb_buf_printf(out, err, "exit %d", row->record->exit_code);
}

static int what_net(struct kb_buf *out, const struct kb_view *view, const struct kb_row *row,
	struct kb_err *err)
{
	const struct kb_record *record = row->record;
	char ip[KB_IP_TEXT];
	int r = 0;

	if (!kb_row_ip(row, ip))
		ip[0] = '\0';
	if (record->host.data)
		r = kb_text_bytes(out, record->host, err);
	else if (ip[0])
		r = kb_buf_printf(out, err, strchr(ip, ':') ? "[%s]" : "%s", ip);
	else if (record->text.data)
		return kb_text_bytes(out, record->text, err); /* a visit to a published port */
	else
		return what_path(out, view, row, err);
	if (r == 0 && record->port)
		r = kb_buf_printf(out, err, ":%u", record->port);
	if (r == 0 && record->host.data && ip[0])
		r = kb_buf_printf(out, err, " (%s)", ip);
	if (r == 0 && record->secret.data) {
		r = kb_buf_puts(out, ", with ", err);
		if (r == 0)
			r = kb_text_bytes(out, record->secret, err);
	}
	if (r == 0 && record->event == KB_EVENT_LISTEN && record->text.data) {
		r = kb_buf_puts(out, ", ", err); /* published, or no more */
		if (r == 0)
			r = kb_text_bytes(out, record->text, err);
	}
	return r;
}

static int what_syscall(struct kb_buf *out, const struct kb_view *view, const struct kb_row *row,
	struct kb_err *err)
{
	const struct kb_record *record = row->record;
	const char *name = kb_syscall_name(kb_row_arch(row), record->syscall);
	int r = name ? kb_buf_puts(out, name, err)
		     : kb_buf_printf(out, err, "system call %d", record->syscall);

	if (r < 0 || !record->has_args)
		return r;
	for (size_t i = 0; i < KB_ARRAY_LEN(record->args) && r == 0; i++)
		r = kb_buf_printf(out, err, "%s0x%" PRIx64, i ? ", " : "(", record->args[i]);
	return r == 0 ? kb_buf_puts(out, ")", err) : r;
}

static int what_words(struct kb_buf *out, const struct kb_view *view, const struct kb_row *row,
	struct kb_err *err)
{
	const struct kb_record *record = row->record;
	int r = 0;

	if (record->count)
		r = kb_buf_printf(out, err, "%" PRIu64 " records", record->count);
	if (r == 0 && record->count && record->text.data)
		r = kb_buf_puts(out, ": ", err);
	return r == 0 ? kb_text_bytes(out, record->text, err) : r;
}

typedef int (*what_fn)(struct kb_buf *out, const struct kb_view *view, const struct kb_row *row,
	struct kb_err *err);

static const what_fn whats[KB_EVENT_MAX_] = {
	[KB_EVENT_START] = what_words,
	[KB_EVENT_EXEC] = what_exec,
	[KB_EVENT_EXIT] = what_exit,
	[KB_EVENT_OPEN] = what_open,
	[KB_EVENT_CONNECT] = what_net,
	[KB_EVENT_BIND] = what_net,
	[KB_EVENT_LISTEN] = what_net,
	[KB_EVENT_SEND] = what_net,
	[KB_EVENT_RENAME] = what_two,
	[KB_EVENT_LINK] = what_two,
	[KB_EVENT_SYMLINK] = what_two,
	[KB_EVENT_SYSCALL] = what_syscall,
	[KB_EVENT_RESOLVE] = what_net,
	[KB_EVENT_REQUEST] = what_net,
	[KB_EVENT_LIMIT] = what_words,
	[KB_EVENT_LOSS] = what_words,
	[KB_EVENT_THROTTLE] = what_words,
	[KB_EVENT_ATTACH] = what_words,
	[KB_EVENT_END] = what_words,
};

int kb_text_what(struct kb_buf *out, const struct kb_view *view, const struct kb_row *row,
	struct kb_err *err)
{
	const struct kb_record *record = row->record;
	what_fn fn = whats[record->event];
	size_t before = kb_buf_len(out);
	int r = fn ? fn(out, view, row, err) : what_path(out, view, row, err);

	/* What has no better word still has its call, or the words that came with it. */
	if (r == 0 && kb_buf_len(out) == before && record->text.data)
		r = kb_text_bytes(out, record->text, err);
	if (r == 0 && kb_buf_len(out) == before && record->syscall >= 0 && fn != what_syscall)
		r = what_syscall(out, view, row, err);
	return r;
}

int kb_text_decision(struct kb_buf *out, const struct kb_record *record, struct kb_err *err)
{
	const char *error = kb_error_name(record->errnum);
	const char *separator = record->decision == KB_DECISION_ALLOWED ? ", " : " ";
	int r = kb_buf_puts(out, kb_decision_name(record->decision), err);

	if (r == 0 && error)
		r = kb_buf_printf(out, err, "%s%s", separator, error);
	else if (r == 0 && record->outcome >= KB_OUTCOME_FAILED &&
		 record->decision == KB_DECISION_ALLOWED)
		r = kb_buf_printf(out, err, ", %s", kb_outcome_name(record->outcome));
	return r;
}

int kb_text_rule(struct kb_buf *out, const struct kb_rule_text *rule, struct kb_err *err)
{
	const char *hash;

	if (!rule)
		return 0;
	hash = strrchr(rule->id, '#');
	return kb_text_bytes(out,
		(struct kb_bytes){(const uint8_t *)rule->id,
			hash ? (size_t)(hash - rule->id) : strlen(rule->id)},
		err);
}

/* ---- Width ----------------------------------------------------------------------------------- */

static bool starts_character(char c)
{
	return ((unsigned char)c & 0xc0) != 0x80;
}

size_t kb_text_columns(const char *text, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++)
		n += starts_character(text[i]);
	return n;
}

/* Bytes of the first n characters. */
static size_t head_bytes(const char *text, size_t len, size_t n)
{
	size_t i = 0;

	for (; i < len; i++)
		if (starts_character(text[i]) && n-- == 0)
			break;
	return i;
}

int kb_text_fit(
	struct kb_buf *out, const char *text, size_t len, size_t columns, struct kb_err *err)
{
	size_t have = kb_text_columns(text, len), keep, tail;
	int r;

	if (have <= columns || columns < 3)
		return kb_buf_append(out, text, len, err);
	keep = (columns - 1) / 3;
	tail = head_bytes(text, len, have - (columns - 1 - keep));
	r = kb_buf_append(out, text, head_bytes(text, len, keep), err);
	if (r == 0)
		r = kb_buf_puts(out, "…", err);
	return r == 0 ? kb_buf_append(out, text + tail, len - tail, err) : r;
}

const char *kb_text_size(uint64_t bytes, char ret[KB_COUNT_MAX])
{
	static const char *const units[] = {"B", "KB", "MB", "GB", "TB"};
	double v = (double)bytes;
	size_t u = 0;

	for (; v >= 1000 && u + 1 < KB_ARRAY_LEN(units); u++)
		v /= 1000;
	snprintf(ret, KB_COUNT_MAX, u && v < 100 ? "%.1f %s" : "%.0f %s", v, units[u]);
	return ret;
}

int kb_text_flush(struct kb_buf *buf, const struct kb_view *view, struct kb_err *err)
{
	size_t len = kb_buf_len(buf);

	if (len && fwrite(kb_buf_data(buf), 1, len, view->out) != len)
		return kb_err_set(err, KB_ERR_CLOSED, "the output is closed");
	kb_buf_consume(buf, len);
	return 0;
}
