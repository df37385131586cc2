/* What a connection's own bytes say of whom they are for must agree with whom the policy let it
 * reach: the server name of a TLS handshake, and the Host of every HTTP/1 request. Where a rule
 * lists requests, anything but them is refused, and so is what cannot be looked into. Bytes of
 * other protocols pass unseen. */
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
		return refuse(
			why, "the rule allows certain HTTP requests, and this is not plain HTTP");
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
	if (host[0] && i->target->name[0] && strcmp(host, i->target->name) != 0) {
		snprintf(why, KB_WHY_MAX, "its TLS handshake names another server, %.180s", host);
		return KB_INSPECT_REFUSE;
	}
	return opaque(i, len, ret_len, why);
}

/* A line that is no request of HTTP after all. */
static bool is_other(const uint8_t *data, size_t len)
{
	const uint8_t *end = memchr(data, '\n', len);

	if (!end)
		return len > KB_HTTP_HEAD_MAX;
	for (const uint8_t *p = data; p + 5 < end; p++)
		if (kb_slice_is((struct kb_slice){(const char *)p, 6}, " HTTP/"))
			return false;
	return true;
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
	i->left = h->body_len;
	i->state = h->upgrade			? KB_INSPECT_UPGRADE
		   : h->body == KB_HTTP_LENGTH	? KB_INSPECT_LENGTH
		   : h->body == KB_HTTP_CHUNKED ? KB_INSPECT_CHUNKS
		   : i->single			? KB_INSPECT_LAST
						: KB_INSPECT_HEAD;
	if (h->upgrade && h->body != KB_HTTP_NO_BODY)
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

static enum kb_inspect_word first(struct kb_inspect *i, const uint8_t *data, size_t len,
	size_t *ret_len, char why[KB_WHY_MAX])
{
	int looks = kb_http_looks(data, len);

	if (data[0] == TLS_HANDSHAKE)
		return tls(i, data, len, ret_len, why);
	if (looks == 0)
		return KB_INSPECT_MORE;
	if (looks < 0 || is_other(data, len))
		return opaque(i, len, ret_len, why);
	if (!memchr(data, '\n', len))
		return KB_INSPECT_MORE;
	i->state = KB_INSPECT_HEAD;
	return head(i, data, len, ret_len, why);
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

	if (i->state != KB_INSPECT_UPGRADE)
		return;
	if (len >= sizeof(switching) - 1 && memcmp(data, switching, sizeof(switching) - 1) == 0)
		i->state = i->http ? KB_INSPECT_LAST : KB_INSPECT_OPAQUE;
	else
		i->state = i->single ? KB_INSPECT_LAST : KB_INSPECT_HEAD;
}
