/* The session's proxy: HTTP CONNECT, HTTP requests for URLs, SOCKS 5. A request for a URL becomes
 * one for a path and the connection's only one (a client that has more opens another): the next may
 * be for another server. Refusals are answered in the client's protocol, with the reason. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "broker_private.h"
#include "socks.h"
#include "supervisor/base/util.h"

#define BODY_MAX 1024

void kb_proxy_answer(struct kb_flow *f, const char *status, const char *text, const char *remedy)
{
	char body[BODY_MAX], target[KB_TARGET_TEXT], out[BODY_MAX + 256];
	int len;

	kb_target_text(&f->target, target);
	len = snprintf(body, sizeof(body), "kbsup: %s: %s\n%s%s%s", target, text,
		remedy ? "       to allow it, add to the policy: " : "", remedy ? remedy : "",
		remedy ? "\n" : "");
	len = KB_MIN(len, BODY_MAX - 1);
	len = snprintf(out, sizeof(out),
		"HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n"
		"Connection: close\r\n\r\n%s",
		status, len, body);
	kb_flow_reply(f, out, (size_t)KB_MIN(len, (int)sizeof(out) - 1));
}

static void socks_answer(struct kb_flow *f, enum kb_socks_reply reply)
{
	uint8_t bytes[KB_SOCKS_REPLY];

	kb_socks_answer(reply, bytes);
	kb_flow_reply(f, bytes, sizeof(bytes));
}

void kb_proxy_failed(struct kb_flow *f, bool refused, const char *text, const char *remedy)
{
	if (f->proxy == KB_PROXY_SOCKS)
		socks_answer(f, refused ? KB_SOCKS_REFUSED : KB_SOCKS_UNREACHABLE);
	else
		kb_proxy_answer(f, refused ? "403 Forbidden" : "502 Bad Gateway", text, remedy);
}

void kb_proxy_connected(struct kb_flow *f)
{
	static const char established[] = "HTTP/1.1 200 Connection established\r\n\r\n";

	if (f->proxy == KB_PROXY_SOCKS)
		socks_answer(f, KB_SOCKS_OK);
	else if (f->proxy == KB_PROXY_CONNECT)
		kb_flow_reply(f, established, sizeof(established) - 1);
}

static void malformed(struct kb_flow *f, const char *why)
{
	kb_proxy_answer(f, "400 Bad Request", why, NULL);
	kb_flow_stop(f);
}

/* A name that is an address is an address. */
static void set_target(struct kb_flow *f, const char *host, uint16_t port)
{
	struct kb_target *t = &f->target;

	t->port = port;
	if (inet_pton(AF_INET, host, t->address.bytes) == 1)
		t->address.len = 4;
	else if (inet_pton(AF_INET6, host, t->address.bytes) == 1)
		t->address.len = 16;
	else
		snprintf(t->name, sizeof(t->name), "%s", host);
	if (t->address.len) {
		const char *name =
			kb_names_find(&f->broker->names, t->address.bytes, t->address.len);

		if (name)
			snprintf(t->name, sizeof(t->name), "%s", name);
		if (name)
			t->address.len = 0;
	}
}

/* ---- SOCKS ----------------------------------------------------------------------------------- */

static void feed_socks(struct kb_flow *f)
{
	const uint8_t no_method[] = {5, 0xff}, method[] = {5, 0};
	char host[KB_HOST_MAX];
	uint8_t command;
	uint16_t port;
	bool ok = false;
	int n;

	f->proxy = KB_PROXY_SOCKS;
	if (!f->socks_greeted) {
		n = kb_socks_greeting(kb_buf_data(&f->in), kb_buf_len(&f->in), &ok);
		if (n == 0)
			return;
		kb_flow_reply(f, ok ? method : no_method, 2);
		if (n < 0 || !ok) {
			kb_flow_stop(f);
			return;
		}
		f->socks_greeted = true;
		kb_flow_take(f, (size_t)n);
	}
	n = kb_socks_request(kb_buf_data(&f->in), kb_buf_len(&f->in), &command, host, &port);
	if (n == 0)
		return;
	if (n < 0 || command != 1) {
		socks_answer(f, KB_SOCKS_COMMAND);
		kb_flow_stop(f);
		return;
	}
	kb_flow_take(f, (size_t)n);
	set_target(f, host, port);
	kb_flow_connect(f);
}

/* ---- HTTP ------------------------------------------------------------------------------------ */

/* Headers that are between the client and us, and those that would keep the connection. */
static bool is_dropped(struct kb_slice name)
{
	static const char *const names[] = {
		"proxy-connection", "proxy-authorization", "connection", "keep-alive", "te"};

	for (size_t i = 0; i < KB_ARRAY_LEN(names); i++)
		if (kb_slice_is(name, names[i]))
			return true;
	return false;
}

/* The request as the server is to see it, in place of the one that came. */
static int rewrite(struct kb_flow *f, const struct kb_http_head *h, const char *path)
{
	KB_BUF_CLEANUP struct kb_buf made;
	const char *data = (const char *)kb_buf_data(&f->in);
	const char *at = data + h->line_len, *end = data + h->len;
	size_t path_len = (size_t)(h->target.at + h->target.len - path), rest;
	struct kb_slice name, value, line;
	int r;

	kb_buf_init(&made, KB_STREAM_CREDIT + KB_HTTP_HEAD_MAX + KB_WHY_MAX);
	r = kb_buf_printf(&made, NULL, "%.*s %s%.*s %.*s\r\n", (int)h->method.len, h->method.at,
		path_len && path[0] == '/' ? "" : "/", (int)path_len, path, (int)h->version.len,
		h->version.at);
	while (r == 0 && kb_http_next(&at, end, &name, &value, &line))
		if (!is_dropped(name))
			r = kb_buf_append(&made, line.at, line.len, NULL);
	if (r == 0)
		r = kb_buf_puts(&made,
			h->upgrade ? "Connection: upgrade\r\n\r\n" : "Connection: close\r\n\r\n",
			NULL);
	if (r < 0)
		return r;
	rest = kb_buf_len(&f->in) - h->len;
	f->ours = kb_buf_len(&made);
	r = kb_buf_append(&made, end, rest, NULL);
	if (r < 0)
		return r;
	kb_stream_consumed(f->stream, h->len);
	kb_buf_finish(&f->in);
	return kb_buf_append(&f->in, kb_buf_data(&made), kb_buf_len(&made), NULL);
}

static void connect_request(struct kb_flow *f, const struct kb_http_head *h)
{
	char host[KB_HOST_MAX];
	uint16_t port;

	f->proxy = KB_PROXY_CONNECT;
	if (!kb_http_authority(h->target.at, h->target.len, 443, host, &port)) {
		malformed(f, "CONNECT needs host:port");
		return;
	}
	kb_flow_take(f, h->len);
	set_target(f, host, port);
	kb_flow_connect(f);
}

static void feed_http(struct kb_flow *f)
{
	struct kb_http_head h;
	struct kb_slice authority;
	const char *why, *path;
	char host[KB_HOST_MAX];
	uint16_t port;
	int r = kb_http_parse(kb_buf_data(&f->in), kb_buf_len(&f->in), &h, &why);

	if (r == 0)
		return;
	f->proxy = KB_PROXY_URL;
	if (r < 0) {
		malformed(f, why);
		return;
	}
	if (kb_slice_is(h.method, "CONNECT")) {
		connect_request(f, &h);
		return;
	}
	path = kb_http_absolute(h.target, &authority);
	if (!path || !kb_http_authority(authority.at, authority.len, 80, host, &port)) {
		malformed(f, "this is a proxy: ask it for http://host/path, or CONNECT");
		return;
	}
	set_target(f, host, port);
	if (rewrite(f, &h, path) < 0)
		malformed(f, "the request is too large");
	else
		kb_flow_connect(f);
}

void kb_proxy_feed(struct kb_flow *f)
{
	if (kb_buf_len(&f->in) == 0)
		return;
	if (kb_buf_data(&f->in)[0] == 5)
		feed_socks(f);
	else
		feed_http(f);
}
