#include "hostkey.h"

#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdint.h>
#include <string.h>

#include "supervisor/base/buf.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

#define KEY_SIZE   32
#define BLOCK_SIZE 8 /* of cipher "none" */
#define FILE_MAX   4096
#define LINE_WIDTH 70
#define KEY_TYPE   "ssh-ed25519"

/* Appending cannot fail but for memory, and then the file comes out short: ssh refuses it. */
static void put_u32(struct kb_buf *buf, uint32_t v)
{
	uint8_t b[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};

	kb_buf_append(buf, b, sizeof(b), NULL);
}

static void put_string(struct kb_buf *buf, const void *data, size_t len)
{
	put_u32(buf, (uint32_t)len);
	kb_buf_append(buf, data, len, NULL);
}

static void put_public(struct kb_buf *buf, const uint8_t pub[KEY_SIZE])
{
	put_string(buf, KEY_TYPE, strlen(KEY_TYPE));
	put_string(buf, pub, KEY_SIZE);
}

static void put_private(struct kb_buf *buf, const uint8_t pub[KEY_SIZE],
	const uint8_t seed[KEY_SIZE], uint32_t check, const char *comment)
{
	uint8_t both[2 * KEY_SIZE];

	memcpy(both, seed, KEY_SIZE);
	memcpy(both + KEY_SIZE, pub, KEY_SIZE);
	put_u32(buf, check);
	put_u32(buf, check);
	put_public(buf, pub);
	put_string(buf, both, sizeof(both));
	put_string(buf, comment, strlen(comment));
	for (uint8_t pad = 1; kb_buf_len(buf) % BLOCK_SIZE; pad++)
		kb_buf_append(buf, &pad, 1, NULL);
	OPENSSL_cleanse(both, sizeof(both));
}

static char *armour(const struct kb_buf *blob)
{
	struct kb_buf out KB_BUF_CLEANUP;
	KB_FREE char *text = kb_base64(kb_buf_data(blob), kb_buf_len(blob));

	kb_buf_init(&out, FILE_MAX);
	if (!text)
		return NULL;
	kb_buf_puts(&out, "-----BEGIN OPENSSH PRIVATE KEY-----\n", NULL);
	for (const char *p = text; *p; p += strnlen(p, LINE_WIDTH))
		kb_buf_printf(&out, NULL, "%.*s\n", LINE_WIDTH, p);
	kb_buf_puts(&out, "-----END OPENSSH PRIVATE KEY-----\n", NULL);
	return kb_buf_steal_string(&out);
}

static char *private_file(const uint8_t pub[KEY_SIZE], const uint8_t seed[KEY_SIZE], uint32_t check,
	const char *comment)
{
	static const char magic[] = "openssh-key-v1"; /* its NUL counts */
	struct kb_buf secret KB_BUF_CLEANUP, blob KB_BUF_CLEANUP, key KB_BUF_CLEANUP;

	kb_buf_init(&secret, FILE_MAX);
	kb_buf_init(&blob, FILE_MAX);
	kb_buf_init(&key, FILE_MAX);
	put_private(&secret, pub, seed, check, comment);
	put_public(&key, pub);
	kb_buf_append(&blob, magic, sizeof(magic), NULL);
	put_string(&blob, "none", 4);
	put_string(&blob, "none", 4);
	put_string(&blob, "", 0);
	put_u32(&blob, 1);
	put_string(&blob, kb_buf_data(&key), kb_buf_len(&key));
	put_string(&blob, kb_buf_data(&secret), kb_buf_len(&secret));
	return armour(&blob);
}

static char *public_line(const uint8_t pub[KEY_SIZE], const char *comment)
{
	struct kb_buf key KB_BUF_CLEANUP;
	KB_FREE char *text = NULL;

	kb_buf_init(&key, FILE_MAX);
	put_public(&key, pub);
	text = kb_base64(kb_buf_data(&key), kb_buf_len(&key));
	return text ? kb_asprintf(KEY_TYPE " %s %s\n", text, comment) : NULL;
}

int kb_hostkey_new(const char *comment, char **ret_private, char **ret_public, struct kb_err *err)
{
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	uint8_t pub[KEY_SIZE], seed[KEY_SIZE];
	size_t pub_len = KEY_SIZE, seed_len = KEY_SIZE;
	uint32_t check;
	bool good = key && EVP_PKEY_get_raw_public_key(key, pub, &pub_len) &&
		    EVP_PKEY_get_raw_private_key(key, seed, &seed_len) &&
		    RAND_bytes((unsigned char *)&check, sizeof(check)) == 1;

	EVP_PKEY_free(key);
	if (!good)
		return kb_err_set(err, KB_ERR_FAILED, "an Ed25519 key cannot be made");
	KB_FREE char *private = private_file(pub, seed, check, comment);
	KB_FREE char *public = public_line(pub, comment);
	OPENSSL_cleanse(seed, sizeof(seed));
	if (!private || !public)
		return kb_err_nomem(err);
	*ret_private = KB_STEAL(private);
	*ret_public = KB_STEAL(public);
	return 0;
}

/* The bytes that the base64 text at *text (up to a space, or the armour's last line) stands for. */
static int decode(const char *text, uint8_t ret[FILE_MAX])
{
	EVP_ENCODE_CTX *ctx = EVP_ENCODE_CTX_new();
	int len = 0, rest = 0;
	size_t size = strcspn(text, " -");
	bool good = ctx && size < FILE_MAX;

	if (good) {
		EVP_DecodeInit(ctx);
		good = EVP_DecodeUpdate(ctx, ret, &len, (const unsigned char *)text, (int)size) >=
			       0 &&
		       EVP_DecodeFinal(ctx, ret + len, &rest) >= 0;
	}
	EVP_ENCODE_CTX_free(ctx);
	return good ? len + rest : -1;
}

static bool makes(const uint8_t seed[KEY_SIZE], const uint8_t pub[KEY_SIZE])
{
	EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, KEY_SIZE);
	uint8_t made[KEY_SIZE];
	size_t len = sizeof(made);
	bool good = key && EVP_PKEY_get_raw_public_key(key, made, &len) &&
		    memcmp(made, pub, KEY_SIZE) == 0;

	EVP_PKEY_free(key);
	return good;
}

bool kb_hostkey_match(const char *private, const char *public)
{
	static const char type[] = KEY_TYPE " ", begin[] = "KEY-----\n";
	uint8_t blob[FILE_MAX], line[FILE_MAX];
	const char *body = strstr(private, begin);
	const uint8_t *pub;
	bool good = false;
	int n, m;

	if (!body || strncmp(public, type, strlen(type)) != 0)
		return false;
	n = decode(body + strlen(begin), blob);
	m = decode(public + strlen(type), line);
	pub = line + m - KEY_SIZE;
	/* The seed stands before the last copy of the public key: put_private(). */
	for (int at = n - KEY_SIZE; m > KEY_SIZE && at >= KEY_SIZE && !good; at--)
		if (memcmp(blob + at, pub, KEY_SIZE) == 0)
			good = makes(blob + at - KEY_SIZE, pub);
	OPENSSL_cleanse(blob, sizeof(blob));
	return good;
}
