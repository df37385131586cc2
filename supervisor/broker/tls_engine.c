/* OpenSSL reads from and writes into two buffers, through a BIO of our own. */
#include "tls_engine.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "supervisor/base/util.h"

#define BUFFER_MAX (1u << 20) /* the users keep far below */

struct kb_tls {
	SSL *ssl;
	struct kb_buf in, out;
	bool ended;
};

/* ---- The BIO --------------------------------------------------------------------------------- */

static int bio_write(BIO *bio, const char *data, int len)
{
	struct kb_tls *tls = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	return kb_buf_append(&tls->out, data, (size_t)len, NULL) < 0 ? -1 : len;
}

static int bio_read(BIO *bio, char *data, int len)
{
	struct kb_tls *tls = BIO_get_data(bio);
	size_t n = KB_MIN((size_t)len, kb_buf_len(&tls->in));

	BIO_clear_retry_flags(bio);
	if (n == 0) {
		BIO_set_retry_read(bio);
		return -1;
	}
	memcpy(data, kb_buf_data(&tls->in), n);
	kb_buf_consume(&tls->in, n);
	return (int)n;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
	return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static int bio_create(BIO *bio)
{
	BIO_set_init(bio, 1);
	return 1;
}

static const BIO_METHOD *bio_method(void)
{
	static BIO_METHOD *method;

	if (method)
		return method;
	method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "kbsup buffers");
	if (method) {
		BIO_meth_set_write(method, bio_write);
		BIO_meth_set_read(method, bio_read);
		BIO_meth_set_ctrl(method, bio_ctrl);
		BIO_meth_set_create(method, bio_create);
	}
	return method;
}

/* ---- The object ------------------------------------------------------------------------------ */

static int create(SSL_CTX *context, struct kb_tls **ret, struct kb_err *err)
{
	struct kb_tls *tls = calloc(1, sizeof(*tls));
	const BIO_METHOD *method = bio_method();
	BIO *bio = method ? BIO_new(method) : NULL;

	if (tls && bio)
		tls->ssl = SSL_new(context);
	if (!tls || !bio || !tls->ssl) {
		BIO_free(bio);
		free(tls);
		return kb_err_nomem(err);
	}
	kb_buf_init(&tls->in, BUFFER_MAX);
	kb_buf_init(&tls->out, BUFFER_MAX);
	BIO_set_data(bio, tls);
	SSL_set_bio(tls->ssl, bio, bio);
	*ret = tls;
	return 0;
}

int kb_tls_serve(SSL_CTX *context, struct kb_tls **ret, struct kb_err *err)
{
	int r = create(context, ret, err);

	if (r == 0)
		SSL_set_accept_state((*ret)->ssl);
	return r;
}

int kb_tls_connect(SSL_CTX *context, const char *host, struct kb_tls **ret, struct kb_err *err)
{
	uint8_t address[16];
	bool is_address =
		inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
	struct kb_tls *tls;
	int ok, r = create(context, &tls, err);

	if (r < 0)
		return r;
	SSL_set_connect_state(tls->ssl);
	SSL_set_hostflags(tls->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	ok = is_address ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls->ssl), host)
			: SSL_set1_host(tls->ssl, host) && SSL_set_tlsext_host_name(tls->ssl, host);
	if (!ok) {
		kb_tls_destroy(tls);
		return kb_err_nomem(err);
	}
	*ret = tls;
	return 0;
}

void kb_tls_destroy(struct kb_tls *tls)
{
	if (!tls)
		return;
	SSL_free(tls->ssl);
	kb_buf_wipe(&tls->in);
	kb_buf_wipe(&tls->out);
	free(tls);
}

/* ---- Errors ---------------------------------------------------------------------------------- */

static int broken(struct kb_tls *tls, struct kb_err *err)
{
	long verdict = SSL_get_verify_result(tls->ssl);
	unsigned long code = ERR_peek_error();
	const char *reason = code ? ERR_reason_error_string(code) : NULL;

	ERR_clear_error();
	if (verdict != X509_V_OK)
		return kb_err_set(err, KB_ERR_REFUSED, "its certificate is not accepted: %s",
			X509_verify_cert_error_string(verdict));
	return kb_err_set(
		err, KB_ERR_INVALID, "TLS failed: %s", reason ? reason : "the connection broke");
}

/* What an operation that did not succeed means: 0 to wait, else negative. */
static int outcome(struct kb_tls *tls, int result, struct kb_err *err)
{
	switch (SSL_get_error(tls->ssl, result)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return 0;
	case SSL_ERROR_ZERO_RETURN:
		tls->ended = true;
		return 0;
	default:
		return broken(tls, err);
	}
}

/* ---- Bytes ----------------------------------------------------------------------------------- */

int kb_tls_handshake(struct kb_tls *tls, struct kb_err *err)
{
	int r;

	ERR_clear_error();
	r = SSL_do_handshake(tls->ssl);
	return r == 1 ? 1 : outcome(tls, r, err);
}

int kb_tls_feed(struct kb_tls *tls, const uint8_t *data, size_t len, struct kb_err *err)
{
	return kb_buf_append(&tls->in, data, len, err);
}

size_t kb_tls_unread(const struct kb_tls *tls)
{
	return kb_buf_len(&tls->in);
}

ssize_t kb_tls_read(struct kb_tls *tls, uint8_t *data, size_t len, struct kb_err *err)
{
	int n;

	ERR_clear_error();
	n = SSL_read(tls->ssl, data, (int)KB_MIN(len, (size_t)INT32_MAX));
	return n > 0 ? n : outcome(tls, n, err);
}

bool kb_tls_ended(const struct kb_tls *tls)
{
	return tls->ended;
}

ssize_t kb_tls_write(struct kb_tls *tls, const uint8_t *data, size_t len, struct kb_err *err)
{
	int n;

	if (len == 0)
		return 0;
	ERR_clear_error();
	n = SSL_write(tls->ssl, data, (int)KB_MIN(len, (size_t)INT32_MAX));
	return n > 0 ? n : outcome(tls, n, err);
}

void kb_tls_end(struct kb_tls *tls)
{
	ERR_clear_error();
	if (SSL_is_init_finished(tls->ssl))
		(void)SSL_shutdown(tls->ssl);
	ERR_clear_error();
}

struct kb_buf *kb_tls_output(struct kb_tls *tls)
{
	return &tls->out;
}
