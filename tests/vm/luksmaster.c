/* The master key of a LUKS1 volume, in hex: luksmaster VOLUME <KEY. For the tests that search for
 * it where it must not be. Written after the LUKS On-Disk Format Specification, version 1.2.3;
 * knows what kbsup makes: aes-xts-plain64, sha256, the first slot. */
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define SECTOR	     512
#define KEY_MAX	     64
#define STRIPES	     4000
#define MATERIAL     (KEY_MAX * STRIPES)
#define DIGEST_SIZE  20
#define HASH_SIZE    32
#define KEY_BYTES_AT 108
#define DIGEST_AT    112
#define SLOT_AT	     208

static uint32_t be32(const uint8_t *b)
{
	return (uint32_t)b[0] << 24 | b[1] << 16 | b[2] << 8 | b[3];
}

/* Each sector is its own XTS unit, whose tweak is its number. */
static bool decrypt(uint8_t *data, size_t len, const uint8_t key[KEY_MAX])
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	bool good = true;

	for (size_t i = 0; good && i < len / SECTOR; i++) {
		uint8_t tweak[16] = {(uint8_t)i, (uint8_t)(i >> 8)};
		int n;

		good = EVP_DecryptInit_ex(ctx, EVP_aes_256_xts(), NULL, key, tweak) == 1 &&
		       EVP_DecryptUpdate(ctx, data + i * SECTOR, &n, data + i * SECTOR, SECTOR) ==
			       1;
	}
	EVP_CIPHER_CTX_free(ctx);
	return good;
}

/* The anti-forensic splitter's diffusion: each piece of a hash's size by its hash with its number.
 */
static void diffuse(uint8_t block[KEY_MAX])
{
	for (uint32_t i = 0; i < KEY_MAX / HASH_SIZE; i++) {
		uint8_t in[4 + HASH_SIZE] = {
			(uint8_t)(i >> 24), (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i};

		memcpy(in + 4, block + i * HASH_SIZE, HASH_SIZE);
		EVP_Digest(in, sizeof(in), block + i * HASH_SIZE, NULL, EVP_sha256(), NULL);
	}
}

static void merge(const uint8_t *stripes, uint8_t ret[KEY_MAX])
{
	memset(ret, 0, KEY_MAX);
	for (size_t s = 0; s < STRIPES; s++) {
		for (size_t i = 0; i < KEY_MAX; i++)
			ret[i] ^= stripes[s * KEY_MAX + i];
		if (s + 1 < STRIPES)
			diffuse(ret);
	}
}

static bool derive(const char *pass, const uint8_t *salt, uint32_t rounds, uint8_t *ret, size_t len)
{
	return PKCS5_PBKDF2_HMAC(pass, (int)strlen(pass), salt, 32, (int)rounds, EVP_sha256(),
		       (int)len, ret) == 1;
}

static bool right(const uint8_t *header, const uint8_t master[KEY_MAX])
{
	uint8_t digest[DIGEST_SIZE];

	return PKCS5_PBKDF2_HMAC((const char *)master, KEY_MAX, header + DIGEST_AT + DIGEST_SIZE,
		       32, (int)be32(header + DIGEST_AT + DIGEST_SIZE + 32), EVP_sha256(),
		       DIGEST_SIZE, digest) == 1 &&
	       memcmp(digest, header + DIGEST_AT, DIGEST_SIZE) == 0;
}

int main(int argc, char **argv)
{
	static uint8_t stripes[MATERIAL];
	uint8_t header[1024], key[KEY_MAX], master[KEY_MAX];
	const uint8_t *slot = header + SLOT_AT;
	char pass[256];
	FILE *file = argc == 2 ? fopen(argv[1], "re") : NULL;

	if (!file || !fgets(pass, sizeof(pass), stdin) ||
		fread(header, sizeof(header), 1, file) != 1 ||
		be32(header + KEY_BYTES_AT) != KEY_MAX) {
		fprintf(stderr, "usage: luksmaster VOLUME <KEY\n");
		return 2;
	}
	pass[strcspn(pass, "\n")] = '\0';
	if (!derive(pass, slot + 8, be32(slot + 4), key, KEY_MAX) ||
		fseek(file, (long)be32(slot + 40) * SECTOR, SEEK_SET) < 0 ||
		fread(stripes, sizeof(stripes), 1, file) != 1 ||
		!decrypt(stripes, sizeof(stripes), key))
		return 1;
	fclose(file);
	merge(stripes, master);
	if (!right(header, master)) {
		fprintf(stderr, "luksmaster: the key is wrong\n");
		return 1;
	}
	for (size_t i = 0; i < KEY_MAX; i++)
		printf("%02x", master[i]);
	printf("\n");
	return 0;
}
