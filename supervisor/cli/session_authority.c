#include "session_authority.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <string.h>

#include "supervisor/base/util.h"

#define VALID_S	  (366L * 24 * 3600) /* longer than any session */
#define EARLIER_S 3600L

static bool add_extension(X509 *cert, int nid, const char *value)
{
	X509V3_CTX context;
	X509_EXTENSION *extension;
	bool ok;

	X509V3_set_ctx(&context, cert, cert, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	ok = extension && X509_add_ext(cert, extension, -1);
	X509_EXTENSION_free(extension);
	return ok;
}

/* Two sessions' authorities are never the same one to a program that remembers names. */
static bool name_it(X509 *cert)
{
	X509_NAME *name = X509_get_subject_name(cert);
	uint32_t number[2];
	char text[64];

	if (RAND_bytes((uint8_t *)number, sizeof(number)) != 1)
		return false;
	snprintf(text, sizeof(text), "kbsup session %08x%08x", number[0], number[1]);
	return ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert), number[0] | 1u) &&
	       X509_NAME_add_entry_by_txt(
		       name, "O", MBSTRING_ASC, (const unsigned char *)"kbsup", -1, -1, 0) &&
	       X509_NAME_add_entry_by_txt(
		       name, "CN", MBSTRING_ASC, (const unsigned char *)text, -1, -1, 0) &&
	       X509_set_issuer_name(cert, name);
}

static bool fill(X509 *cert, EVP_PKEY *key)
{
	return X509_set_version(cert, X509_VERSION_3) &&
	       X509_gmtime_adj(X509_getm_notBefore(cert), -EARLIER_S) &&
	       X509_gmtime_adj(X509_getm_notAfter(cert), VALID_S) && name_it(cert) &&
	       X509_set_pubkey(cert, key) &&
	       add_extension(cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
	       add_extension(cert, NID_key_usage, "critical,keyCertSign") &&
	       add_extension(cert, NID_subject_key_identifier, "hash") &&
	       X509_sign(cert, key, EVP_sha256());
}

static bool encode_key(EVP_PKEY *key, struct kb_guarded *memory, struct kb_session_authority *ret)
{
	PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key);
	int len = info ? i2d_PKCS8_PRIV_KEY_INFO(info, NULL) : -1;
	unsigned char *at;

	ret->key = len > 0 ? kb_guarded_alloc(memory, (size_t)len) : NULL;
	at = ret->key;
	if (at)
		ret->key_len = (size_t)i2d_PKCS8_PRIV_KEY_INFO(info, &at);
	PKCS8_PRIV_KEY_INFO_free(info);
	return ret->key != NULL;
}

static bool encode_cert(X509 *cert, struct kb_guarded *memory, struct kb_session_authority *ret)
{
	BIO *bio = BIO_new(BIO_s_mem());
	int len = i2d_X509(cert, NULL);
	unsigned char *at;
	char *text;
	long n;

	ret->cert = len > 0 ? kb_guarded_alloc(memory, (size_t)len) : NULL;
	at = ret->cert;
	if (at)
		ret->cert_len = (size_t)i2d_X509(cert, &at);
	if (bio && PEM_write_bio_X509(bio, cert) == 1 && (n = BIO_get_mem_data(bio, &text)) > 0)
		ret->pem = strndup(text, (size_t)n);
	BIO_free(bio);
	return ret->cert && ret->pem;
}

int kb_session_authority_make(
	struct kb_guarded *memory, struct kb_session_authority *ret, struct kb_err *err)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert = X509_new();
	bool ok;

	*ret = (struct kb_session_authority){0};
	ok = key && cert && fill(cert, key) && encode_key(key, memory, ret) &&
	     encode_cert(cert, memory, ret);
	X509_free(cert);
	EVP_PKEY_free(key);
	return ok ? 0
		  : kb_err_set(err, KB_ERR_FAILED,
			    "a certificate authority for the session cannot be made");
}
