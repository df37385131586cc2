/* What the broker and the relay read of a session's network: DNS questions, heads of HTTP requests
 * and chunked bodies, SOCKS requests, TLS handshakes, whole connections as they are looked into,
 * heads that secrets are put into, answers that values are taken out of, and the kernel's word on
 * dropped packets. The first byte says which. Besides not crashing, what comes out is in its
 * bounds: no request passes for a host that is not the connection's, and no value comes back. */
#include <stdlib.h>
#include <string.h>

#include "supervisor/broker/broker_private.h"
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

/* Every head that passes is for the connection's host; the pieces are as long as their data says.
 */
static void try_connection(const uint8_t *data, size_t len)
{
	static const struct kb_target target = {.name = "ok.test", .port = 80};
	struct kb_inspect inspect = {.target = &target, .open = len % 2};
	size_t at = 0, end = 0;

	while (at < len) {
		char why[KB_WHY_MAX], host[KB_HOST_MAX];
		size_t n = 0;
		uint16_t port;

		end = KB_MIN(KB_MAX(end, at + 1) + data[at] % 64, len);
		switch (kb_inspect_client(&inspect, data + at, end - at, &n, why)) {
		case KB_INSPECT_MORE:
			if (end == len)
				return;
			if (data[at] % 16 == 0)
				kb_inspect_idle(&inspect, data + at, end - at);
			kb_inspect_server(&inspect, data + at, 1);
			continue;
		case KB_INSPECT_REQUEST:
			check(n == inspect.head.len && n <= end - at);
			if (inspect.head.host.at)
				check(kb_http_authority(inspect.head.host.at, inspect.head.host.len,
					      80, host, &port) &&
					strcmp(host, "ok.test") == 0);
			inspect.asked = true;
			break;
		case KB_INSPECT_FORWARD:
			check(n > 0 && n <= end - at);
			break;
		default:
			return;
		}
		at += n;
	}
}

static const struct kb_edit_secret secrets[] = {
	{.placeholder = "kbsup-secret-A",
		.value = {"the value of A", 14},
		.header = "X-Key",
		.header_value = {"the value of A", 14}},
	{.placeholder = "kbsup-secret-AB", .value = {"the value of AB", 15}},
	{.placeholder = "kbsup-secret-C", .value = {"never granted C", 15}},
};

/* What comes out is a head again, and has no value that was not granted. */
static void try_edit(const uint8_t *data, size_t len)
{
	struct kb_edit edit = {
		.secrets = secrets, .n = KB_ARRAY_LEN(secrets), .granted = 3, .host = "ok.test"};
	struct kb_http_head head;
	struct kb_edited edited;
	KB_BUF_CLEANUP struct kb_buf out;
	const char *why;

	kb_buf_init(&out, 4 * KB_HTTP_HEAD_MAX);
	if (kb_http_parse(data, len, &head, &why) <= 0 ||
		kb_edit_head(&edit, data, &head, &out, &edited, NULL) < 0)
		return;
	check(memmem(data, len, "never granted C", 15) ||
		!memmem(kb_buf_data(&out), kb_buf_len(&out), "never granted C", 15));
	check(edited.used & 1);
	if (kb_buf_len(&out) < KB_HTTP_HEAD_MAX)
		check(kb_http_parse(kb_buf_data(&out), kb_buf_len(&out), &head, &why) == 1);
}

/* As long as it was, and without the value, however it was cut. */
static void try_mask(const uint8_t *data, size_t len)
{
	static const uint8_t value[] = "abababac";
	struct kb_mask mask;
	KB_BUF_CLEANUP struct kb_buf out;

	kb_buf_init(&out, 2 << 20);
	kb_mask_init(&mask);
	kb_mask_add(&mask, value, 8);
	kb_mask_add(&mask, value, 7); /* too short: left out */
	for (size_t at = 0; at < len;) {
		size_t n = KB_MIN((size_t)data[at] % 16 + 1, len - at);

		check(kb_mask_feed(&mask, data + at, n, &out, NULL) == 0);
		at += n;
	}
	check(kb_mask_end(&mask, &out, NULL) == 0 && kb_buf_len(&out) == len);
	check(!len || !memmem(kb_buf_data(&out), len, value, 8));
	kb_mask_finish(&mask);
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
	case 'c':
		try_connection(copy, size - 1);
		break;
	case 'e':
		try_edit(copy, size - 1);
		break;
	case 'm':
		try_mask(copy, size - 1);
		break;
	default:
		kb_dropped_parse(copy, size - 1, on_packet, NULL);
	}
	free(copy);
	return 0;
}
