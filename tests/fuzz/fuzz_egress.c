/* What the broker and the relay read of a session's network: DNS questions, heads of HTTP requests
 * and chunked bodies, SOCKS requests, TLS handshakes, and the kernel's word on dropped packets. The
 * first byte says which. Besides not crashing, what comes out is in its bounds. */
#include <stdlib.h>
#include <string.h>

#include "supervisor/broker/dns.h"
#include "supervisor/broker/http.h"
#include "supervisor/broker/socks.h"
#include "supervisor/broker/tls.h"
#include "supervisor/guest/dropped.h"

static void check(bool promise)
{
	if (!promise)
		abort();
}

static void try_dns(const uint8_t *data, size_t len)
{
	static const uint8_t address[16];
	uint8_t reply[KB_DNS_REPLY];
	struct kb_dns_query q, again;

	if (!kb_dns_parse(data, len, &q))
		return;
	check(strlen(q.name) < KB_HOST_MAX && q.question_len <= sizeof(q.question));
	check(kb_dns_answer(&q, KB_DNS_OK, address, sizeof(address), reply) <= sizeof(reply));
	check(!kb_dns_parse(reply, sizeof(reply), &again)); /* an answer is no question */
}

static void try_http(const uint8_t *data, size_t len)
{
	struct kb_http_head head;
	struct kb_http_chunks chunks = {0};
	struct kb_slice authority;
	char host[KB_HOST_MAX];
	const char *why, *path;
	uint16_t port;
	bool done;

	(void)kb_http_looks(data, len);
	check(kb_http_chunks_feed(&chunks, data, len, &done) <= (int64_t)len);
	(void)kb_http_authority((const char *)data, len, 80, host, &port);
	if (kb_http_parse(data, len, &head, &why) <= 0)
		return;
	check(head.len <= len && head.line_len <= head.len);
	path = kb_http_absolute(head.target, &authority);
	if (path)
		check(path >= head.target.at && path <= head.target.at + head.target.len);
}

static void try_socks(const uint8_t *data, size_t len)
{
	char host[KB_HOST_MAX];
	uint8_t command;
	uint16_t port;
	bool ok;

	check(kb_socks_greeting(data, len, &ok) <= (int)len);
	check(kb_socks_request(data, len, &command, host, &port) <= (int)len);
}

static void try_tls(const uint8_t *data, size_t len)
{
	char host[KB_HOST_MAX];

	if (kb_tls_hello(data, len, host) > 0)
		check(strlen(host) < sizeof(host));
}

static void on_packet(const struct kb_dropped *packet, void *arg)
{
	check(packet->len == 4 || packet->len == 16);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy;

	if (size == 0)
		return 0;
	copy = malloc(size > 1 ? size - 1 : 1); /* a byte read too much shows */
	if (!copy)
		return 0;
	memcpy(copy, data + 1, size - 1);
	switch (data[0]) {
	case 'd':
		try_dns(copy, size - 1);
		break;
	case 'h':
		try_http(copy, size - 1);
		break;
	case 's':
		try_socks(copy, size - 1);
		break;
	case 't':
		try_tls(copy, size - 1);
		break;
	default:
		kb_dropped_parse(copy, size - 1, on_packet, NULL);
	}
	free(copy);
	return 0;
}
