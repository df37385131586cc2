#include "authority.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/base/util.h"

#define CACHE_MAX 64 /* names we have been; then from the start */
#define VALID_S	  (30L * 24 * 3600)
#define EARLIER_S 3600L /* clocks differ */

struct kb_authority {
	EVP_PKEY *key, *leaf_key;
	X509 *cert;
	SSL_CTX *client;
	struct {
		char host[KB_HOST_MAX];
		SSL_CTX *context;
	} cache[CACHE_MAX];
	size_t n_cache;
};

static const uint8_t http1[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};

static int openssl_error(struct kb_err *err, const char *what)
{
	unsigned long code = ERR_peek_last_error();
	const char *reason = code ? ERR_reason_error_string(code) : NULL;

	ERR_clear_error();
	return kb_err_set(
		err, KB_ERR_FAILED, "%s: %s", what, reason ? reason : "OpenSSL does not say why");
}

static void set_common(SSL_CTX *context)
{
	SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
	SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
					  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					  SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
}

/* ---- To servers ------------------------------------------------------------------------------ */

int kb_authority_client(struct kb_authority *a, SSL_CTX **ret, struct kb_err *err)
{
	if (!a->client) {
		SSL_CTX *context = SSL_CTX_new(TLS_client_method());

		if (!context)
			return openssl_error(err, "TLS cannot be spoken");
		set_common(context);
		SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
		/* 0 is success, here alone. */
		if (SSL_CTX_set_default_verify_paths(context) != 1 ||
			SSL_CTX_set_alpn_protos(context, http1, sizeof(http1)) != 0) {
			SSL_CTX_free(context);
			return openssl_error(err, "the host's certificates cannot be read");
		}
		a->client = context;
	}
	*ret = a->client;
	return 0;
}

/* ---- To the session -------------------------------------------------------------------------- */

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len,
	const unsigned char *in, unsigned in_len, void *arg)
{
	unsigned char *chosen;

	if (SSL_select_next_proto(&chosen, out_len, http1, sizeof(http1), in, in_len) !=
		OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

static bool add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX context;
	X509_EXTENSION *extension;
	bool ok;

	X509V3_set_ctx(&context, issuer, cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	ok = extension && X509_add_ext(cert, extension, -1);
	X509_EXTENSION_free(extension);
	return ok;
}

static bool set_serial(X509 *cert)
{
	uint8_t bytes[16];
	BIGNUM *number;
	bool ok;

	if (RAND_bytes(bytes, sizeof(bytes)) != 1)
		return false;
	bytes[0] &= 0x7f;
	number = BN_bin2bn(bytes, sizeof(bytes), NULL);
	ok = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert));
	BN_free(number);
	return ok;
}

static bool fill_leaf(const struct kb_authority *a, X509 *cert, const char *host)
{
	uint8_t address[16];
	bool is_address =
		inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
	X509_NAME *subject = X509_get_subject_name(cert);
	char name[KB_HOST_MAX + 8];

	snprintf(name, sizeof(name), "%s:%s", is_address ? "IP" : "DNS", host);
	return X509_set_version(cert, X509_VERSION_3) && set_serial(cert) &&
	       X509_gmtime_adj(X509_getm_notBefore(cert), -EARLIER_S) &&
	       X509_gmtime_adj(X509_getm_notAfter(cert), VALID_S) &&
	       X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_ASC,
		       (const unsigned char *)"opened by kbsup", -1, -1, 0) &&
	       X509_set_issuer_name(cert, X509_get_subject_name(a->cert)) &&
	       X509_set_pubkey(cert, a->leaf_key) &&
	       add_extension(cert, a->cert, NID_basic_constraints, "critical,CA:FALSE") &&
	       add_extension(cert, a->cert, NID_key_usage, "critical,digitalSignature") &&
	       add_extension(cert, a->cert, NID_ext_key_usage, "serverAuth") &&
	       add_extension(cert, a->cert, NID_authority_key_identifier, "keyid") &&
	       add_extension(cert, a->cert, NID_subject_alt_name, name) &&
	       X509_sign(cert, a->key, EVP_sha256());
}

static SSL_CTX *make_server(const struct kb_authority *a, const char *host)
{
	SSL_CTX *context = SSL_CTX_new(TLS_server_method());
	X509 *cert = X509_new();
	bool ok = context && cert && fill_leaf(a, cert, host) &&
		  SSL_CTX_use_certificate(context, cert) == 1 &&
		  SSL_CTX_use_PrivateKey(context, a->leaf_key) == 1;

	X509_free(cert);
	if (!ok) {
		SSL_CTX_free(context);
		return NULL;
	}
	set_common(context);
	SSL_CTX_set_options(context, SSL_OP_NO_TICKET);
	SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
	return context;
}

static void forget_servers(struct kb_authority *a)
{
	for (size_t i = 0; i < a->n_cache; i++)
		SSL_CTX_free(a->cache[i].context);
	a->n_cache = 0;
}

int kb_authority_server(struct kb_authority *a, const char *host, SSL_CTX **ret, struct kb_err *err)
{
	SSL_CTX *made;

	for (size_t i = 0; i < a->n_cache; i++)
		if (strcmp(a->cache[i].host, host) == 0) {
			*ret = a->cache[i].context;
			return 0;
		}
	made = make_server(a, host);
	if (!made)
		return openssl_error(err, "a certificate cannot be made");
	if (a->n_cache == CACHE_MAX)
		forget_servers(a);
	snprintf(a->cache[a->n_cache].host, KB_HOST_MAX, "%s", host);
	a->cache[a->n_cache++].context = made;
	*ret = made;
	return 0;
}

/* ---- The object ------------------------------------------------------------------------------ */

bool kb_authority_can_vouch(const struct kb_authority *a)
{
	return a && a->key;
}

static int read_own(
	struct kb_authority *a, struct kb_slice key, struct kb_slice cert, struct kb_err *err)
{
	const unsigned char *key_at = (const unsigned char *)key.at;
	const unsigned char *cert_at = (const unsigned char *)cert.at;

	a->key = d2i_AutoPrivateKey(NULL, &key_at, (long)key.len);
	a->cert = d2i_X509(NULL, &cert_at, (long)cert.len);
	a->leaf_key = EVP_EC_gen("P-256");
	if (!a->key || !a->cert || !a->leaf_key || X509_check_private_key(a->cert, a->key) != 1)
		return openssl_error(err, "the session's certificate authority cannot be used");
	return 0;
}

int kb_authority_create(
	struct kb_slice key, struct kb_slice cert, struct kb_authority **ret, struct kb_err *err)
{
	struct kb_authority *a = calloc(1, sizeof(*a));
	int r = a ? 0 : kb_err_nomem(err);

	if (r == 0 && key.at && cert.at)
		r = read_own(a, key, cert, err);
	if (r < 0)
		kb_authority_destroy(a);
	else
		*ret = a;
	return r;
}

void kb_authority_destroy(struct kb_authority *a)
{
	if (!a)
		return;
	forget_servers(a);
	SSL_CTX_free(a->client);
	EVP_PKEY_free(a->key);
	EVP_PKEY_free(a->leaf_key);
	X509_free(a->cert);
	free(a);
}
