#include "chain.h"

#include <openssl/evp.h>
#include <string.h>

#include "supervisor/base/util.h"

struct kb_chain {
	EVP_MD *md;
	EVP_MD_CTX *ctx;
};

struct part {
	const void *data;
	size_t len;
};

int kb_chain_create(struct kb_chain **ret, struct kb_err *err)
{
	struct kb_chain *chain = calloc(1, sizeof(*chain));

	if (!chain)
		return kb_err_nomem(err);
	chain->md = EVP_MD_fetch(NULL, "SHA256", NULL);
	chain->ctx = EVP_MD_CTX_new();
	if (!chain->md || !chain->ctx) {
		kb_chain_destroy(chain);
		return kb_err_set(err, KB_ERR_FAILED, "the crypto library has no SHA-256");
	}
	*ret = chain;
	return 0;
}

void kb_chain_destroy(struct kb_chain *chain)
{
	if (!chain)
		return;
	EVP_MD_CTX_free(chain->ctx);
	EVP_MD_free(chain->md);
	free(chain);
}

static void put_u64(uint8_t out[8], uint64_t v)
{
	for (int i = 0; i < 8; i++)
		out[i] = (uint8_t)(v >> (8 * i));
}

static int digest(struct kb_chain *chain, const struct part *parts, size_t n,
	uint8_t ret[KB_HASH_SIZE], struct kb_err *err)
{
	uint8_t len[8];
	int ok = EVP_DigestInit_ex2(chain->ctx, chain->md, NULL);

	for (size_t i = 0; i < n && ok; i++) {
		put_u64(len, parts[i].len);
		ok = EVP_DigestUpdate(chain->ctx, len, sizeof(len)) &&
		     EVP_DigestUpdate(chain->ctx, parts[i].data, parts[i].len);
	}
	if (!ok || !EVP_DigestFinal_ex(chain->ctx, ret, NULL))
		return kb_err_set(err, KB_ERR_FAILED, "the crypto library could not hash");
	return 0;
}

#define LITERAL(text)                                                                              \
	{                                                                                          \
		(text), sizeof(text) - 1                                                           \
	}

int kb_chain_start(struct kb_chain *chain, const uint8_t *meta, size_t len,
	uint8_t ret_head[KB_HASH_SIZE], struct kb_err *err)
{
	const struct part parts[] = {LITERAL("kbsup chain 1 session"), {meta, len}};

	return digest(chain, parts, KB_ARRAY_LEN(parts), ret_head, err);
}

int kb_chain_block(struct kb_chain *chain, uint8_t head[KB_HASH_SIZE], uint64_t first_seq,
	const uint8_t *block, size_t len, struct kb_err *err)
{
	uint8_t seq[8];
	const struct part parts[] = {LITERAL("kbsup chain 1 block"), {head, KB_HASH_SIZE},
		{seq, sizeof(seq)}, {block, len}};

	put_u64(seq, first_seq);
	return digest(chain, parts, KB_ARRAY_LEN(parts), head, err);
}

int kb_chain_end(struct kb_chain *chain, uint8_t head[KB_HASH_SIZE], const uint8_t *end, size_t len,
	struct kb_err *err)
{
	const struct part parts[] = {
		LITERAL("kbsup chain 1 end"), {head, KB_HASH_SIZE}, {end, len}};

	return digest(chain, parts, KB_ARRAY_LEN(parts), head, err);
}
