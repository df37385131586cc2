/* TLS on a connection's two ends, where the policy has the broker speak it: towards the server for
 * requests that came in plain HTTP or were opened, and towards the session for those that are
 * opened.
 *
 * The server comes first: only when it has shown a certificate that is good for its name does the
 * session's program get one from us. */
#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>

#include "broker_private.h"

#define HANDSHAKE_MS 15000

static const char *host_of(const struct kb_target *t, char address[INET6_ADDRSTRLEN])
{
	if (t->name[0])
		return t->name;
	inet_ntop(t->address.len == 4 ? AF_INET : AF_INET6, t->address.bytes, address,
		INET6_ADDRSTRLEN);
	return address;
}

void kb_secure_begin(struct kb_flow *f, bool open)
{
	char address[INET6_ADDRSTRLEN];
	struct kb_err err = {0};
	SSL_CTX *context;
	int r = kb_authority_client(f->broker->authority, &context, &err);

	if (r == 0)
		r = kb_tls_connect(context, host_of(&f->target, address), &f->outer, &err);
	if (r < 0) {
		kb_flow_fail_tls(f, &err);
		return;
	}
	f->securing = true;
	f->opening = open;
	(void)kb_source_arm(f->patience, HANDSHAKE_MS, NULL);
	kb_secure_advance(f);
}

/* The session's program is greeted in the server's name; what it said so far is read again. */
static int open_inner(struct kb_flow *f, struct kb_err *err)
{
	char address[INET6_ADDRSTRLEN];
	size_t n = kb_buf_len(&f->in);
	SSL_CTX *context;
	int r = kb_authority_server(
		f->broker->authority, host_of(&f->target, address), &context, err);

	if (r == 0)
		r = kb_tls_serve(context, &f->inner, err);
	if (r == 0)
		r = kb_tls_feed(f->inner, kb_buf_data(&f->in), n, err);
	if (r < 0)
		return r;
	kb_buf_consume(&f->in, n);
	f->uncredited = n;
	f->inspect.opened = true;
	return 0;
}

void kb_secure_advance(struct kb_flow *f)
{
	struct kb_err err = {0};
	int r;

	if (!f->securing)
		return;
	r = kb_tls_handshake(f->outer, &err);
	kb_flow_send_tls(f);
	if (f->state != KB_FLOW_OPEN)
		return;
	if (r == 0 && f->server_eof)
		r = kb_err_set(&err, KB_ERR_CLOSED, "TLS failed: the server closed the connection");
	if (r > 0 && f->opening)
		r = open_inner(f, &err) < 0 ? -1 : 1;
	if (r < 0) {
		kb_flow_fail_tls(f, &err);
		return;
	}
	if (r == 0)
		return;
	f->securing = f->opening = false;
	kb_source_disarm(f->patience);
}

void kb_secure_late(struct kb_flow *f)
{
	struct kb_err err;

	kb_err_set(&err, KB_ERR_TIMEOUT, "TLS failed: the server did not answer within %d s",
		HANDSHAKE_MS / 1000);
	kb_flow_fail_tls(f, &err);
}

int kb_secure_decrypt(struct kb_flow *f, struct kb_err *err)
{
	uint8_t bytes[16u << 10];
	ssize_t n;
	int r = 0;

	while (r == 0 && kb_buf_len(&f->in) < KB_HTTP_HEAD_MAX + sizeof(bytes)) {
		n = kb_tls_read(f->inner, bytes, sizeof(bytes), err);
		if (n < 0)
			return kb_err_prefix(err, "the session's program");
		if (n == 0)
			break;
		r = kb_buf_append(&f->in, bytes, (size_t)n, err);
	}
	f->input_over |= kb_tls_ended(f->inner);
	if (kb_tls_unread(f->inner) == 0) {
		kb_stream_consumed(f->stream, f->uncredited);
		f->uncredited = 0;
	}
	return r;
}
