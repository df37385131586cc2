/* What a connection's own bytes say of whom they are for must agree with whom the policy let it
 * reach: the server name of a TLS handshake, and the Host of every HTTP/1 request. Where a rule
 * lists requests, anything but them is refused, and so is what cannot be looked into. Bytes of
 * other protocols pass unseen.
 *
 * A connection speaks HTTP if its first line has the word HTTP/ in it: servers differ in what they
 * forgive, and a request must not be taken for another protocol here and for a request there. A
 * line that does not end for a while is passed piece by piece; if it turns out to be one after all,
 * the connection ends. */
#include <stdio.h>
#include <string.h>

#include "broker_private.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"
#include "tls.h"

#define TLS_HANDSHAKE 0x16

static enum kb_inspect_word refuse(char why[KB_WHY_MAX], const char *text)
{
	snprintf(why, KB_WHY_MAX, "%s", text);
	return KB_INSPECT_REFUSE;
}

static enum kb_inspect_word opaque(
	struct kb_inspect *i, size_t len, size_t *ret_len, char why[KB_WHY_MAX])
{
	if (i->http)
		return refuse(why, "the rule allows certain HTTP requests, and this is not HTTP");
	i->state = KB_INSPECT_OPAQUE;
	*ret_len = len;
	return KB_INSPECT_FORWARD;
}

static enum kb_inspect_word tls(struct kb_inspect *i, const uint8_t *data, size_t len,
	size_t *ret_len, char why[KB_WHY_MAX])
{
	char host[KB_HOST_MAX];
	int r = kb_tls_hello(data, len, host);

	if (r < 0)
		return refuse(why, "its TLS handshake is malformed");
	if (r == 0)
		return KB_INSPECT_MORE;
	if (!host[0] && i->target->name[0])
		return refuse(why, "its TLS handshake names no server");
	if (host[0] && i->target->name[0] && strcmp(host, i->target->name) != 0) {
		snprintf(why, KB_WHY_MAX, "its TLS handshake names another server, %.180s", host);
		return KB_INSPECT_REFUSE;
	}
	return i->open ? KB_INSPECT_OPEN : opaque(i, len, ret_len, why);
}

static bool host_agrees(const struct kb_inspect *i, struct kb_slice host, char why[KB_WHY_MAX])
{
	char name[KB_HOST_MAX], shown[160];
	uint16_t port;

	if (!i->target->name[0])
		return true;
	if (kb_http_authority(host.at, host.len, i->target->port, name, &port) &&
		strcmp(name, i->target->name) == 0 && port == i->target->port)
		return true;
	kb_escape(shown, sizeof(shown), host.at, host.len);
	snprintf(why, KB_WHY_MAX, "its request is for another host, %s", shown);
	return false;
}

static enum kb_inspect_word request(struct kb_inspect *i, size_t *ret_len, char why[KB_WHY_MAX])
{
	const struct kb_http_head *h = &i->head;
	struct kb_slice authority, path = h->target;
	const char *at = kb_http_absolute(h->target, &authority);
	char shown[160];
	bool upgrade;

	if (kb_slice_is(h->method, "CONNECT"))
		return refuse(why, "it asks for a tunnel through the server");
	if (at) {
		path = (struct kb_slice){at, (size_t)(h->target.at + h->target.len - at)};
		if (!host_agrees(i, authority, why))
			return KB_INSPECT_REFUSE;
	}
	if (!h->host.at && i->target->name[0] && kb_slice_is(h->version, "HTTP/1.1"))
		return refuse(why, "its request has no Host");
	if (h->host.at && !host_agrees(i, h->host, why))
		return KB_INSPECT_REFUSE;
	if (i->http && !kb_decide_request(i->http, h->method, path)) {
		kb_escape(shown, sizeof(shown), path.at, path.len);
		snprintf(why, KB_WHY_MAX, "the rule does not allow %.*s %s", (int)h->method.len,
			h->method.at, shown);
		return KB_INSPECT_REFUSE;
	}
	/* Only the first can: of a later one it would not be known which answer is its. HTTP/2
	 * could not be looked into. */
	upgrade = h->upgrade && !h->upgrade_http2 && !i->asked;
	i->drop_upgrade = h->upgrade && !upgrade;
	i->left = h->body_len;
	i->state = upgrade			? KB_INSPECT_UPGRADE
		   : h->body == KB_HTTP_LENGTH	? KB_INSPECT_LENGTH
		   : h->body == KB_HTTP_CHUNKED ? KB_INSPECT_CHUNKS
		   : i->single			? KB_INSPECT_LAST
						: KB_INSPECT_HEAD;
	if (upgrade && h->body != KB_HTTP_NO_BODY)
		return refuse(why, "its request has a body and asks for another protocol");
	*ret_len = h->len;
	return KB_INSPECT_REQUEST;
}

static enum kb_inspect_word head(struct kb_inspect *i, const uint8_t *data, size_t len,
	size_t *ret_len, char why[KB_WHY_MAX])
{
	const char *what;
	int r = kb_http_parse(data, len, &i->head, &what);

	if (r > 0)
		return request(i, ret_len, why);
	if (r == 0)
		return KB_INSPECT_MORE;
	snprintf(why, KB_WHY_MAX, "its request cannot be read: %s", what);
	return KB_INSPECT_REFUSE;
}

/* Empty lines before a request, which servers skip. */
static size_t empty_lines(const uint8_t *data, size_t len)
{
	size_t n = 0;

	while (n < len && (data[n] == '\r' || data[n] == '\n'))
		n++;
	return n;
}

static const char word[] = "HTTP/";

/* Letters that tell a protocol of text: no other has to wait for its line. */
static bool is_text(const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((data[i] < ' ' && data[i] != '\t' && data[i] != '\r') || data[i] == 0x7f)
			return false;
	return true;
}

static bool has_word(const uint8_t *data, size_t len)
{
	for (size_t i = 0; i + sizeof(word) - 1 <= len; i++)
		if (kb_slice_is((struct kb_slice){(const char *)data + i, sizeof(word) - 1}, word))
			return true;
	return false;
}

static enum kb_inspect_word first(struct kb_inspect *i, const uint8_t *data, size_t len,
	size_t *ret_len, char why[KB_WHY_MAX])
{
	const uint8_t *end = memchr(data, '\n', len);
	size_t empty = empty_lines(data, len), line = end ? (size_t)(end - data) : len;

	if (data[0] == TLS_HANDSHAKE && !i->opened)
		return tls(i, data, len, ret_len, why);
	if (empty > 0) {
		*ret_len = empty;
		return KB_INSPECT_FORWARD;
	}
	if (has_word(data, line)) {
		if (!end)
			return len > KB_HTTP_HEAD_MAX ? refuse(why, "its first line does not end")
						      : KB_INSPECT_MORE;
		i->state = KB_INSPECT_HEAD;
		return head(i, data, len, ret_len, why);
	}
	if (end || len > KB_HTTP_HEAD_MAX || !is_text(data, line))
		return opaque(i, len, ret_len, why);
	return KB_INSPECT_MORE;
}

void kb_inspect_idle(struct kb_inspect *i, const uint8_t *data, size_t len)
{
	if (i->state == KB_INSPECT_FIRST && !i->http && len > 0 && data[0] != TLS_HANDSHAKE &&
		!has_word(data, len))
		i->state = KB_INSPECT_TEXT;
}

/* The rest of a first line of which part was passed. */
static enum kb_inspect_word text(struct kb_inspect *i, const uint8_t *data, size_t len,
	size_t *ret_len, char why[KB_WHY_MAX])
{
	size_t at = 0;

	while (at < len && data[at] != '\n' && word[i->matched]) {
		bool next = (data[at] & ~0x20) == (word[i->matched] & ~0x20);

		i->matched = next ? i->matched + 1 : (data[at] & ~0x20) == word[0];
		at++;
	}
	if (!word[i->matched])
		return refuse(why, "its first line comes in pieces, and is a request");
	*ret_len = len;
	if (at < len)
		i->state = KB_INSPECT_OPAQUE;
	return KB_INSPECT_FORWARD;
}

static enum kb_inspect_word body(struct kb_inspect *i, size_t len, size_t *ret_len)
{
	*ret_len = (size_t)KB_MIN((uint64_t)len, i->left);
	i->left -= *ret_len;
	if (i->left == 0)
		i->state = i->single ? KB_INSPECT_LAST : KB_INSPECT_HEAD;
	return KB_INSPECT_FORWARD;
}

static enum kb_inspect_word chunks(struct kb_inspect *i, const uint8_t *data, size_t len,
	size_t *ret_len, char why[KB_WHY_MAX])
{
	bool done;
	int64_t n = kb_http_chunks_feed(&i->chunks, data, len, &done);

	if (n < 0)
		return refuse(why, "the body of its request is malformed");
	if (done)
		i->state = i->single ? KB_INSPECT_LAST : KB_INSPECT_HEAD;
	*ret_len = (size_t)n;
	return KB_INSPECT_FORWARD;
}

enum kb_inspect_word kb_inspect_client(struct kb_inspect *i, const uint8_t *data, size_t len,
	size_t *ret_len, char why[KB_WHY_MAX])
{
	if (len == 0)
		return KB_INSPECT_MORE;
	switch (i->state) {
	case KB_INSPECT_FIRST:
		return first(i, data, len, ret_len, why);
	case KB_INSPECT_TEXT:
		return text(i, data, len, ret_len, why);
	case KB_INSPECT_HEAD:
		return head(i, data, len, ret_len, why);
	case KB_INSPECT_LENGTH:
		return body(i, len, ret_len);
	case KB_INSPECT_CHUNKS:
		return chunks(i, data, len, ret_len, why);
	case KB_INSPECT_OPAQUE:
		*ret_len = len;
		return KB_INSPECT_FORWARD;
	default:
		return KB_INSPECT_MORE;
	}
}

void kb_inspect_server(struct kb_inspect *i, const uint8_t *data, size_t len)
{
	static const char switching[] = "HTTP/1.1 101";

	_Static_assert(sizeof(i->answer) == sizeof(switching) - 1, "room for the answer");
	if (i->state != KB_INSPECT_UPGRADE)
		return;
	while (len > 0 && i->n_answer < sizeof(i->answer)) {
		i->answer[i->n_answer++] = *data++;
		len--;
	}
	if (i->n_answer < sizeof(i->answer))
		return;
	if (memcmp(i->answer, switching, sizeof(i->answer)) == 0)
		i->state = i->http ? KB_INSPECT_LAST : KB_INSPECT_OPAQUE;
	else
		i->state = i->single ? KB_INSPECT_LAST : KB_INSPECT_HEAD;
}
