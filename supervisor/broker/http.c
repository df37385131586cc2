#include "http.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "supervisor/base/util.h"

#define METHOD_MAX 24

static bool is_token(int c)
{
	return isalnum(c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

bool kb_slice_is(struct kb_slice s, const char *word)
{
	return s.len == strlen(word) && strncasecmp(s.at, word, s.len) == 0;
}

int kb_http_looks(const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len && i <= METHOD_MAX; i++) {
		if (data[i] == ' ')
			return i > 0 ? 1 : -1;
		if (!isupper(data[i]) && data[i] != '-' && data[i] != '_')
			return -1;
	}
	return len > METHOD_MAX ? -1 : 0;
}

/* The length of the head, 0: not whole yet. Lines end in LF, a CR before it is dropped. */
static size_t head_length(const char *data, size_t len)
{
	for (size_t i = 0; i + 1 < len; i++) {
		if (data[i] != '\n')
			continue;
		if (data[i + 1] == '\n')
			return i + 2;
		if (data[i + 1] == '\r' && i + 2 < len && data[i + 2] == '\n')
			return i + 3;
	}
	return 0;
}

static struct kb_slice line_at(const char *at, const char *end, const char **next)
{
	const char *nl = memchr(at, '\n', (size_t)(end - at));
	size_t len = nl ? (size_t)(nl - at) : (size_t)(end - at);

	*next = nl ? nl + 1 : end;
	if (len > 0 && at[len - 1] == '\r')
		len--;
	return (struct kb_slice){at, len};
}

static bool parse_request_line(struct kb_slice line, struct kb_http_head *h)
{
	const char *end = line.at + line.len;
	const char *first = memchr(line.at, ' ', line.len);
	const char *second = first ? memchr(first + 1, ' ', (size_t)(end - first - 1)) : NULL;

	if (!second || second == first + 1)
		return false;
	h->method = (struct kb_slice){line.at, (size_t)(first - line.at)};
	h->target = (struct kb_slice){first + 1, (size_t)(second - first - 1)};
	h->version = (struct kb_slice){second + 1, (size_t)(end - second - 1)};
	if (h->method.len == 0 || h->method.len > METHOD_MAX)
		return false;
	for (size_t i = 0; i < h->method.len; i++)
		if (!is_token((unsigned char)h->method.at[i]))
			return false;
	for (size_t i = 0; i < h->target.len; i++)
		if ((unsigned char)h->target.at[i] <= ' ' || h->target.at[i] == 0x7f)
			return false;
	return kb_slice_is(h->version, "HTTP/1.1") || kb_slice_is(h->version, "HTTP/1.0");
}

static struct kb_slice trim(struct kb_slice s)
{
	while (s.len > 0 && (s.at[0] == ' ' || s.at[0] == '\t'))
		s.at++, s.len--;
	while (s.len > 0 && (s.at[s.len - 1] == ' ' || s.at[s.len - 1] == '\t'))
		s.len--;
	return s;
}

bool kb_http_next(const char **at, const char *end, struct kb_slice *name, struct kb_slice *value,
	struct kb_slice *whole)
{
	const char *start = *at, *colon;
	struct kb_slice line = line_at(start, end, at);

	*whole = (struct kb_slice){start, (size_t)(*at - start)};
	if (line.len == 0)
		return false;
	colon = memchr(line.at, ':', line.len);
	*name = (struct kb_slice){line.at, colon ? (size_t)(colon - line.at) : 0};
	*value = (struct kb_slice){
		colon ? colon + 1 : line.at, colon ? line.len - (size_t)(colon - line.at) - 1 : 0};
	*value = trim(*value);
	return true;
}

static bool parse_length(struct kb_slice value, uint64_t *ret)
{
	uint64_t n = 0;

	if (value.len == 0 || value.len > 18)
		return false;
	for (size_t i = 0; i < value.len; i++) {
		if (!isdigit((unsigned char)value.at[i]))
			return false;
		n = n * 10 + (uint64_t)(value.at[i] - '0');
	}
	*ret = n;
	return true;
}

static bool name_valid(struct kb_slice name)
{
	for (size_t i = 0; i < name.len; i++)
		if (!is_token((unsigned char)name.at[i]))
			return false;
	return name.len > 0;
}

/* What is wrong with a header, or NULL. */
static const char *take_header(
	struct kb_http_head *h, struct kb_slice name, struct kb_slice value, bool *length)
{
	if (!name_valid(name))
		return "a header is malformed";
	if (kb_slice_is(name, "host")) {
		if (h->host.at)
			return "it has two Host headers";
		h->host = value;
	} else if (kb_slice_is(name, "content-length")) {
		if (*length || !parse_length(value, &h->body_len))
			return "its Content-Length is not one number";
		*length = true;
	} else if (kb_slice_is(name, "transfer-encoding")) {
		if (h->body == KB_HTTP_CHUNKED || !kb_slice_is(value, "chunked"))
			return "its Transfer-Encoding is not just chunked";
		h->body = KB_HTTP_CHUNKED;
	} else if (kb_slice_is(name, "upgrade")) {
		h->upgrade = true;
		h->upgrade_http2 |= value.len >= 2 && strncasecmp(value.at, "h2", 2) == 0;
	}
	return NULL;
}

/* Some take a single LF for the end of a line, or a single CR; others do not. */
static bool lines_end_well(const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (data[i] == '\n' && (i == 0 || data[i - 1] != '\r'))
			return false;
		if (data[i] == '\r' && (i + 1 == len || data[i + 1] != '\n'))
			return false;
	}
	return true;
}

int kb_http_parse(const uint8_t *data, size_t len, struct kb_http_head *ret, const char **why)
{
	const char *at = (const char *)data, *end;
	struct kb_slice name, value, whole;
	bool length = false;
	size_t head = head_length(at, KB_MIN(len, KB_HTTP_HEAD_MAX));

	*why = "its head is longer than 64 KiB";
	if (head == 0)
		return len >= KB_HTTP_HEAD_MAX ? -1 : 0;
	end = at + head;
	*ret = (struct kb_http_head){.len = head};
	*why = "its lines do not end in CR LF";
	if (!lines_end_well(at, head))
		return -1;
	*why = "it is not HTTP/1";
	if (memchr(at, '\0', head) || !parse_request_line(line_at(at, end, &at), ret))
		return -1;
	ret->line_len = (size_t)(at - (const char *)data);
	while (kb_http_next(&at, end, &name, &value, &whole)) {
		*why = take_header(ret, name, value, &length);
		if (*why)
			return -1;
	}
	*why = "it has both Content-Length and Transfer-Encoding";
	if (length && ret->body == KB_HTTP_CHUNKED)
		return -1;
	if (length && ret->body_len > 0)
		ret->body = KB_HTTP_LENGTH;
	*why = NULL;
	return 1;
}

bool kb_http_authority(
	const char *text, size_t len, uint16_t default_port, char host[KB_HOST_MAX], uint16_t *port)
{
	const char *end = text + len, *colon = NULL, *stop;
	unsigned value = 0;

	if (len > 0 && text[0] == '[') {
		stop = memchr(text, ']', len);
		if (!stop)
			return false;
		text++;
		colon = stop + 1 < end ? stop + 1 : NULL;
	} else {
		colon = memchr(text, ':', len);
		stop = colon ? colon : end;
	}
	*port = default_port;
	if (colon) {
		if (*colon != ':' || colon + 1 == end || end - colon > 6)
			return false;
		for (const char *p = colon + 1; p < end; p++) {
			if (!isdigit((unsigned char)*p))
				return false;
			value = value * 10 + (unsigned)(*p - '0');
		}
		if (value == 0 || value > UINT16_MAX)
			return false;
		*port = (uint16_t)value;
	}
	if (stop > text && stop[-1] == '.')
		stop--;
	if (stop <= text || stop - text >= KB_HOST_MAX)
		return false;
	for (size_t i = 0; i < (size_t)(stop - text); i++) {
		unsigned char c = (unsigned char)text[i];

		if (!isalnum(c) && c != '-' && c != '.' && c != '_' && c != ':')
			return false;
		host[i] = (char)tolower(c);
	}
	host[stop - text] = '\0';
	return *port != 0;
}

const char *kb_http_absolute(struct kb_slice target, struct kb_slice *authority)
{
	static const char scheme[] = "http://";
	const size_t skip = sizeof(scheme) - 1;
	const char *end = target.at + target.len, *path;

	if (target.len <= skip || strncasecmp(target.at, scheme, skip) != 0)
		return NULL;
	path = target.at + skip;
	while (path < end && *path != '/' && *path != '?' && *path != '#')
		path++;
	*authority = (struct kb_slice){target.at + skip, (size_t)(path - target.at) - skip};
	return path;
}

/* ---- Chunks ---------------------------------------------------------------------------------- */

/* Lines end in CR LF here too. *_LF: the LF is due. */
enum {
	SIZE,
	EXTENSION,
	SIZE_LF,
	DATA,
	DATA_CR,
	DATA_LF,
	TRAILER, /* at the beginning of a line */
	TRAILER_LINE,
	TRAILER_LF,
	LAST_LF,
	DONE
};

static int hex(uint8_t c)
{
	return isdigit(c) ? c - '0' : isxdigit(c) ? tolower(c) - 'a' + 10 : -1;
}

static bool size_byte(struct kb_http_chunks *c, uint8_t byte)
{
	int digit = hex(byte);

	if (digit >= 0 && c->digits < 15) {
		c->left = c->left << 4 | (unsigned)digit;
		c->digits++;
		return true;
	}
	c->state = byte == '\r' ? SIZE_LF : EXTENSION;
	return c->digits > 0 && (byte == ';' || byte == '\r' || byte == ' ' || byte == '\t');
}

/* Within a line, or at its CR, which leads to `end`. */
static bool line_byte(struct kb_http_chunks *c, uint8_t byte, uint8_t within, uint8_t end)
{
	c->state = byte == '\r' ? end : within;
	return byte == '\r' || byte == '\t' || byte >= ' ';
}

static bool expect(struct kb_http_chunks *c, uint8_t byte, uint8_t wanted, uint8_t then)
{
	c->state = then;
	return byte == wanted;
}

static bool framing_byte(struct kb_http_chunks *c, uint8_t byte)
{
	switch (c->state) {
	case SIZE:
		return size_byte(c, byte);
	case EXTENSION:
		return line_byte(c, byte, EXTENSION, SIZE_LF);
	case SIZE_LF:
		c->digits = 0;
		return expect(c, byte, '\n', c->left ? DATA : TRAILER);
	case DATA_CR:
		return expect(c, byte, '\r', DATA_LF);
	case DATA_LF:
		return expect(c, byte, '\n', SIZE);
	case TRAILER:
		return line_byte(c, byte, TRAILER_LINE, LAST_LF);
	case TRAILER_LINE:
		return line_byte(c, byte, TRAILER_LINE, TRAILER_LF);
	case TRAILER_LF:
		return expect(c, byte, '\n', TRAILER);
	default:
		return expect(c, byte, '\n', DONE);
	}
}

int64_t kb_http_chunks_feed(struct kb_http_chunks *c, const uint8_t *data, size_t len, bool *done)
{
	size_t i = 0;

	*done = false;
	while (i < len && c->state != DONE) {
		if (c->state == DATA) {
			size_t n = (size_t)KB_MIN((uint64_t)(len - i), c->left);

			i += n;
			c->left -= n;
			if (c->left == 0)
				c->state = DATA_CR;
			continue;
		}
		if (!framing_byte(c, data[i]))
			return -1;
		i++;
	}
	if (c->state == DONE) {
		*done = true;
		*c = (struct kb_http_chunks){0};
	}
	return (int64_t)i;
}
