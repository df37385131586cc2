#include "edit.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "supervisor/base/os.h"
#include "supervisor/base/util.h"

#define BASIC_MAX 4096 /* bytes of user and password together; longer ones are left alone */

/* ---- Base64 ---------------------------------------------------------------------------------- */

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t kb_base64_encode(const uint8_t *data, size_t len, char *ret)
{
	char *p = ret;

	for (size_t i = 0; i < len; i += 3) {
		uint32_t v = (uint32_t)data[i] << 16;

		v |= i + 1 < len ? (uint32_t)data[i + 1] << 8 : 0;
		v |= i + 2 < len ? data[i + 2] : 0;
		*p++ = alphabet[v >> 18];
		*p++ = alphabet[v >> 12 & 63];
		*p++ = i + 1 < len ? alphabet[v >> 6 & 63] : '=';
		*p++ = i + 2 < len ? alphabet[v & 63] : '=';
	}
	return (size_t)(p - ret);
}

ssize_t kb_base64_decode(const char *text, size_t len, uint8_t *ret)
{
	uint32_t v = 0;
	unsigned bits = 0;
	size_t n = 0;

	while (len > 0 && text[len - 1] == '=')
		len--;
	for (size_t i = 0; i < len; i++) {
		const char *at = text[i] ? strchr(alphabet, text[i]) : NULL;

		if (!at)
			return -1;
		v = v << 6 | (uint32_t)(at - alphabet);
		bits += 6;
		if (bits < 8)
			continue;
		bits -= 8;
		ret[n++] = (uint8_t)(v >> bits);
	}
	return (ssize_t)n;
}

/* ---- Placeholders ---------------------------------------------------------------------------- */

struct work {
	const struct kb_edit *edit;
	struct kb_edited *result;
	struct kb_buf *out;
	struct kb_err *err;
	bool in_url;
};

/* The longest placeholder that stands here: one may begin as another does. */
static int placeholder_at(const struct kb_edit *e, const char *at, size_t left, size_t *ret_len)
{
	int found = -1;

	*ret_len = 0;
	for (size_t i = 0; i < e->n; i++) {
		size_t len = strlen(e->secrets[i].placeholder);

		if (len > *ret_len && len <= left &&
			memcmp(e->secrets[i].placeholder, at, len) == 0) {
			found = (int)i;
			*ret_len = len;
		}
	}
	return found;
}

static bool holds_any(const struct kb_edit *e, struct kb_slice text)
{
	for (size_t i = 0; i < e->n; i++)
		if (memmem(text.at, text.len, e->secrets[i].placeholder,
			    strlen(e->secrets[i].placeholder)))
			return true;
	return false;
}

/* As a URL spells it (RFC 3986, 2.1). */
static int put_encoded(struct work *w, struct kb_slice value)
{
	int r = 0;

	for (size_t i = 0; i < value.len && r == 0; i++) {
		unsigned char c = (unsigned char)value.at[i];

		r = isalnum(c) || strchr("-._~", c) ? kb_buf_append(w->out, &c, 1, w->err)
						    : kb_buf_printf(w->out, w->err, "%%%02X", c);
	}
	return r;
}

/* text with values in place of placeholders. */
static int put_text(struct work *w, struct kb_slice text)
{
	size_t at = 0, from = 0, len;
	int r = 0;

	if (!holds_any(w->edit, text))
		return kb_buf_append(w->out, text.at, text.len, w->err);
	while (at < text.len && r == 0) {
		int i = placeholder_at(w->edit, text.at + at, text.len - at, &len);
		bool granted = i >= 0 && (w->edit->granted >> i & 1);

		if (i >= 0 && !granted)
			w->result->foreign = i;
		if (!granted || !w->edit->secrets[i].value.at) {
			at += i >= 0 ? len : 1;
			continue;
		}
		r = kb_buf_append(w->out, text.at + from, at - from, w->err);
		if (r == 0)
			r = w->in_url ? put_encoded(w, w->edit->secrets[i].value)
				      : kb_buf_append(w->out, w->edit->secrets[i].value.at,
						w->edit->secrets[i].value.len, w->err);
		w->result->used |= 1ull << i;
		at += len;
		from = at;
	}
	return r < 0 ? r : kb_buf_append(w->out, text.at + from, text.len - from, w->err);
}

/* "Basic dXNlcjpwYXNz": what it stands for is looked at. 1: it was put out. */
static int put_basic(struct work *w, struct kb_slice value)
{
	static const char scheme[] = "basic ";
	const size_t skip = sizeof(scheme) - 1;
	uint8_t plain[BASIC_MAX];
	struct kb_buf *out = w->out, made;
	char *text;
	ssize_t n;
	int r;

	if (value.len <= skip || value.len - skip > BASIC_MAX ||
		strncasecmp(value.at, scheme, skip) != 0)
		return 0;
	n = kb_base64_decode(value.at + skip, value.len - skip, plain);
	if (n <= 0 || !holds_any(w->edit, (struct kb_slice){(const char *)plain, (size_t)n}))
		return 0;
	kb_buf_init(&made, KB_HTTP_HEAD_MAX);
	w->out = &made;
	r = put_text(w, (struct kb_slice){(const char *)plain, (size_t)n});
	w->out = out;
	text = r == 0 ? malloc(4 * ((kb_buf_len(&made) + 2) / 3) + 1) : NULL;
	if (r == 0 && !text)
		r = kb_err_nomem(w->err);
	if (r == 0)
		r = kb_buf_append(out, value.at, skip, w->err);
	if (r == 0) {
		size_t len = kb_base64_encode(kb_buf_data(&made), kb_buf_len(&made), text);

		r = kb_buf_append(out, text, len, w->err);
		kb_os_wipe(text, len);
	}
	free(text);
	kb_buf_wipe(&made);
	return r < 0 ? r : 1;
}

/* ---- Headers --------------------------------------------------------------------------------- */

static bool is_set_by_us(const struct kb_edit *e, struct kb_slice name)
{
	for (size_t i = 0; i < e->n; i++)
		if ((e->granted >> i & 1) && e->secrets[i].header &&
			kb_slice_is(name, e->secrets[i].header))
			return true;
	return false;
}

/* A server must not answer in a form in which a value could not be seen. */
static bool is_dropped(const struct kb_edit *e, struct kb_slice name)
{
	static const char *const upgrade[] = {"upgrade", "http2-settings"};

	if (e->granted && (is_set_by_us(e, name) || kb_slice_is(name, "accept-encoding")))
		return true;
	for (size_t i = 0; e->drop_upgrade && i < KB_ARRAY_LEN(upgrade); i++)
		if (kb_slice_is(name, upgrade[i]))
			return true;
	return e->host && kb_slice_is(name, "host");
}

static int put_header(struct work *w, struct kb_slice name, struct kb_slice value)
{
	int r = kb_buf_append(w->out, name.at, name.len, w->err);

	if (r == 0)
		r = kb_buf_puts(w->out, ": ", w->err);
	if (r == 0)
		r = put_basic(w, value);
	if (r == 0)
		r = put_text(w, value);
	return r < 0 ? r : kb_buf_puts(w->out, "\r\n", w->err);
}

static int put_line(struct work *w, const struct kb_http_head *h)
{
	int r = kb_buf_printf(w->out, w->err, "%.*s ", (int)h->method.len, h->method.at);

	w->in_url = true;
	if (r == 0)
		r = put_text(w, h->target);
	w->in_url = false;
	if (r == 0)
		r = kb_buf_printf(w->out, w->err, " %.*s\r\n", (int)h->version.len, h->version.at);
	if (r == 0 && w->edit->host)
		r = kb_buf_printf(w->out, w->err, "Host: %s\r\n", w->edit->host);
	return r;
}

static int put_secrets(struct work *w)
{
	const struct kb_edit *e = w->edit;
	int r = e->granted ? kb_buf_puts(w->out, "Accept-Encoding: identity\r\n", w->err) : 0;

	for (size_t i = 0; i < e->n && r == 0; i++) {
		if (!(e->granted >> i & 1) || !e->secrets[i].header)
			continue;
		r = kb_buf_printf(w->out, w->err, "%s: ", e->secrets[i].header);
		if (r == 0)
			r = kb_buf_append(w->out, e->secrets[i].header_value.at,
				e->secrets[i].header_value.len, w->err);
		if (r == 0)
			r = kb_buf_puts(w->out, "\r\n", w->err);
		w->result->used |= 1ull << i;
	}
	return r;
}

int kb_edit_head(const struct kb_edit *edit, const uint8_t *head, const struct kb_http_head *parsed,
	struct kb_buf *out, struct kb_edited *ret, struct kb_err *err)
{
	struct work w = {.edit = edit, .result = ret, .out = out, .err = err};
	const char *at = (const char *)head + parsed->line_len;
	const char *end = (const char *)head + parsed->len;
	struct kb_slice name, value, line;
	int r;

	*ret = (struct kb_edited){.foreign = -1};
	r = put_line(&w, parsed);
	while (r == 0 && kb_http_next(&at, end, &name, &value, &line))
		if (!is_dropped(edit, name))
			r = put_header(&w, name, value);
	if (r == 0)
		r = put_secrets(&w);
	return r < 0 ? r : kb_buf_puts(out, "\r\n", err);
}
