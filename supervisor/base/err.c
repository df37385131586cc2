#include "err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "str.h"

static const char *const code_names[KB_ERR_MAX_] = {
	[KB_ERR_FAILED] = "failed",
	[KB_ERR_USAGE] = "usage",
	[KB_ERR_UNREACHABLE] = "unreachable",
	[KB_ERR_REFUSED] = "refused",
	[KB_ERR_SYSTEM] = "system",
	[KB_ERR_NOMEM] = "nomem",
	[KB_ERR_INVALID] = "invalid",
	[KB_ERR_LIMIT] = "limit",
	[KB_ERR_NOTFOUND] = "notfound",
	[KB_ERR_EXISTS] = "exists",
	[KB_ERR_TIMEOUT] = "timeout",
	[KB_ERR_CLOSED] = "closed",
	[KB_ERR_NOCOMMAND] = "nocommand",
};

/* Foreign bytes reach messages (paths, names): escape here, once, so no caller can forget. */
static void set_text(char *dst, size_t size, const char *text)
{
	kb_escape(dst, size, text, strlen(text));
}

static void KB_PRINTF(4, 0)
	fill(struct kb_err *err, enum kb_errcode code, int errnum, const char *fmt, va_list ap)
{
	char text[KB_ERR_MSG_MAX];

	vsnprintf(text, sizeof(text), fmt, ap);
	err->code = code;
	err->errnum = errnum;
	err->hint[0] = '\0';
	set_text(err->msg, sizeof(err->msg), text);
}

int kb_err_set(struct kb_err *err, enum kb_errcode code, const char *fmt, ...)
{
	va_list ap;

	if (err) {
		va_start(ap, fmt);
		fill(err, code, 0, fmt, ap);
		va_end(ap);
	}
	return -(int)code;
}

int kb_err_sys(struct kb_err *err, int errnum, const char *fmt, ...)
{
	enum kb_errcode code = errnum == ENOMEM ? KB_ERR_NOMEM : KB_ERR_SYSTEM;
	size_t len;
	va_list ap;

	if (err) {
		va_start(ap, fmt);
		fill(err, code, errnum, fmt, ap);
		va_end(ap);
		len = strlen(err->msg);
		snprintf(err->msg + len, sizeof(err->msg) - len, ": %s", strerror(errnum));
	}
	return -(int)code;
}

int kb_err_nomem(struct kb_err *err)
{
	return kb_err_set(err, KB_ERR_NOMEM, "out of memory");
}

int kb_err_hint(struct kb_err *err, const char *fmt, ...)
{
	char text[KB_ERR_HINT_MAX];
	va_list ap;

	if (!err)
		return -KB_ERR_FAILED;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	set_text(err->hint, sizeof(err->hint), text);
	return -(int)err->code;
}

int kb_err_prefix(struct kb_err *err, const char *fmt, ...)
{
	char text[KB_ERR_MSG_MAX], old[KB_ERR_MSG_MAX];
	size_t len;
	va_list ap;

	if (!err)
		return -KB_ERR_FAILED;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	memcpy(old, err->msg, sizeof(old));
	set_text(err->msg, sizeof(err->msg), text);
	len = strlen(err->msg);
	snprintf(err->msg + len, sizeof(err->msg) - len, ": %s", old);
	return -(int)err->code;
}

const char *kb_errcode_name(enum kb_errcode code)
{
	if (code <= 0 || code >= KB_ERR_MAX_)
		return "unknown";
	return code_names[code];
}

int kb_err_exit_status(const struct kb_err *err)
{
	switch (err->code) {
	case KB_ERR_USAGE:
		return 2;
	case KB_ERR_UNREACHABLE:
		return 3;
	case KB_ERR_REFUSED:
		return 4;
	case KB_ERR_NOCOMMAND:
		return 127;
	default:
		return 1;
	}
}
