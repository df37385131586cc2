#include "diskkey.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/x509.h>
#include <string.h>

#include "supervisor/base/os.h"
#include "supervisor/base/util.h"

/* Half a second and 16 MiB a guess; the least that OWASP's Password Storage Cheat Sheet asks for
 * with this N is a p of 5. More memory OpenSSL refuses here. */
#define SCRYPT_N  (1u << 14)
#define SCRYPT_R  8
#define SCRYPT_P  10
#define SALT_SIZE 16

KB_DEFINE_CLEANUP(free_bio, BIO, BIO_free);
KB_DEFINE_CLEANUP(free_pkey, EVP_PKEY, EVP_PKEY_free);
KB_DEFINE_CLEANUP(free_info, PKCS8_PRIV_KEY_INFO, PKCS8_PRIV_KEY_INFO_free);
KB_DEFINE_CLEANUP(free_sig, X509_SIG, X509_SIG_free);

static int failed(const char *what, struct kb_err *err)
{
	char why[160] = "";

	ERR_error_string_n(ERR_get_error(), why, sizeof(why));
	ERR_clear_error();
	return kb_err_set(err, KB_ERR_FAILED, "%s: %s", what, why);
}

void kb_diskkey_wipe(struct kb_diskkey *key)
{
	kb_os_wipe(key, sizeof(*key));
}

static void to_text(const uint8_t raw[KB_DISKKEY_SIZE], struct kb_diskkey *ret)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < KB_DISKKEY_SIZE; i++) {
		ret->text[2 * i] = digits[raw[i] >> 4];
		ret->text[2 * i + 1] = digits[raw[i] & 15];
	}
	ret->text[2 * KB_DISKKEY_SIZE] = '\0';
}

static void to_raw(const struct kb_diskkey *key, uint8_t ret[KB_DISKKEY_SIZE])
{
	for (size_t i = 0; i < KB_DISKKEY_SIZE; i++) {
		const char pair[3] = {key->text[2 * i], key->text[2 * i + 1]};

		ret[i] = (uint8_t)strtoul(pair, NULL, 16);
	}
}

int kb_diskkey_new(struct kb_diskkey *ret, struct kb_err *err)
{
	uint8_t raw[KB_DISKKEY_SIZE];

	if (kb_os_random(raw, sizeof(raw)) < 0)
		return kb_err_sys(err, errno, "no random bytes");
	to_text(raw, ret);
	kb_os_wipe(raw, sizeof(raw));
	return 0;
}

/* PKCS #8 holds private keys; one of Ed25519 is 32 bytes of any value, so ours goes as that. */
static PKCS8_PRIV_KEY_INFO *to_info(const struct kb_diskkey *key)
{
	KB_CLEANUP(free_pkey) EVP_PKEY *pkey = NULL;
	uint8_t raw[KB_DISKKEY_SIZE];

	to_raw(key, raw);
	pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, raw, sizeof(raw));
	kb_os_wipe(raw, sizeof(raw));
	return pkey ? EVP_PKEY2PKCS8(pkey) : NULL;
}

static char *to_pem(const X509_SIG *sig)
{
	KB_CLEANUP(free_bio) BIO *bio = BIO_new(BIO_s_mem());
	char *text;
	long len;

	if (!bio || !PEM_write_bio_PKCS8(bio, sig))
		return NULL;
	len = BIO_get_mem_data(bio, &text);
	return len > 0 ? strndup(text, (size_t)len) : NULL;
}

int kb_diskkey_seal(const struct kb_diskkey *key, const struct kb_passphrase *passphrase,
	char **ret, struct kb_err *err)
{
	KB_CLEANUP(free_info) PKCS8_PRIV_KEY_INFO *info = to_info(key);
	KB_CLEANUP(free_sig) X509_SIG *sig = NULL;
	uint8_t salt[SALT_SIZE];
	X509_ALGOR *method;

	if (kb_os_random(salt, sizeof(salt)) < 0)
		return kb_err_sys(err, errno, "no random bytes");
	method = PKCS5_pbe2_set_scrypt(
		EVP_aes_256_cbc(), salt, sizeof(salt), NULL, SCRYPT_N, SCRYPT_R, SCRYPT_P);
	if (info && method)
		sig = PKCS8_set0_pbe(passphrase->bytes, (int)passphrase->len, info, method);
	if (!sig)
		X509_ALGOR_free(method);
	*ret = sig ? to_pem(sig) : NULL;
	return *ret ? 0 : failed("the disk's key cannot be encrypted", err);
}

int kb_diskkey_unseal(const char *text, const struct kb_passphrase *passphrase,
	struct kb_diskkey *ret, struct kb_err *err)
{
	KB_CLEANUP(free_bio) BIO *bio = BIO_new_mem_buf(text, -1);
	KB_CLEANUP(free_sig) X509_SIG *sig = NULL;
	KB_CLEANUP(free_info) PKCS8_PRIV_KEY_INFO *info = NULL;
	KB_CLEANUP(free_pkey) EVP_PKEY *pkey = NULL;
	uint8_t raw[KB_DISKKEY_SIZE];
	size_t size = sizeof(raw);

	sig = bio ? PEM_read_bio_PKCS8(bio, NULL, NULL, NULL) : NULL;
	if (!sig) {
		ERR_clear_error();
		return kb_err_set(err, KB_ERR_FAILED, "the file with its key is damaged");
	}
	info = PKCS8_decrypt(sig, passphrase->bytes, (int)passphrase->len);
	pkey = info ? EVP_PKCS82PKEY(info) : NULL;
	if (!pkey || !EVP_PKEY_get_raw_private_key(pkey, raw, &size) || size != sizeof(raw)) {
		ERR_clear_error();
		return kb_err_set(err, KB_ERR_INVALID, "wrong passphrase");
	}
	to_text(raw, ret);
	kb_os_wipe(raw, sizeof(raw));
	return 0;
}
