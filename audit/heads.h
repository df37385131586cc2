/* Private to audit/: signed heads, outside the database.
 *
 * Beside the store directory DIR stand
 *	DIR.key		the store's Ed25519 private key (PKCS #8 PEM, 0600), made with the store
 *	DIR.pub		its public key (PEM)
 *	DIR.heads	one line a signed head, only ever appended to:
 *			head 1 SESSION RECORDS KIND TIME HASH SIGNATURE
 *			(ULID, decimal, "begin" "mark" "end" or "pruned", ns, hex, hex;
 *			the signature is over the line up to the blank before it)
 *
 * A head is signed after its records are durable: at a session's begin, every KB_HEAD_EVERY
 * records, and at its end. So whoever changes the database cannot make the chain fit again
 * without the key; and whoever has the key and both files is still held by an anchor: the
 * newest heads, exported and kept elsewhere, in the same lines after a first line
 * `kbsup-anchor 1 PUBLIC-KEY-HEX`.
 */
#pragma once

#include "audit/audit.h"
#include "audit/chain.h"

#define KB_HEAD_EVERY	  65536u
#define KB_SIGNATURE_SIZE 64
#define KB_PUBLIC_SIZE	  32
#define KB_HEADS_MAX	  (512u << 20) /* bytes of a heads file that are read */

enum kb_head_kind { KB_HEAD_BEGIN, KB_HEAD_MARK, KB_HEAD_END, KB_HEAD_PRUNED };

struct kb_head {
	uint8_t session[KB_ULID_SIZE];
	uint64_t records;
	enum kb_head_kind kind;
	uint64_t time;
	uint8_t hash[KB_HASH_SIZE];
	char signature[2 * KB_SIGNATURE_SIZE + 1]; /* as it was read */
	bool genuine;				   /* its signature is right */
	bool anchored;				   /* it came from an anchor */
};

/* ---- Writing --------------------------------------------------------------------------------- */

struct kb_signer;
/* Makes the key when there is none yet. */
int kb_signer_open(const char *dir, struct kb_signer **ret, struct kb_err *err);
void kb_signer_close(struct kb_signer *signer); /* NULL is fine */
/* Durable on return. */
int kb_signer_append(struct kb_signer *signer, const struct kb_head *head, struct kb_err *err);

/* ---- Reading --------------------------------------------------------------------------------- */

struct kb_heads {
	struct kb_head *list; /* by session, then as they were written */
	size_t n;
	uint8_t key[KB_PUBLIC_SIZE];
	bool has_key;
	bool other_key; /* an anchor was made with another key */
};
/* A store without heads gives an empty list. */
int kb_heads_read(const char *dir, struct kb_heads *ret, struct kb_err *err);
/* Add the lines of an anchor. */
int kb_heads_add_anchor(struct kb_heads *heads, const char *text, size_t len, struct kb_err *err);
/* The newest genuine head of each session, as an anchor. */
int kb_heads_write_anchor(const struct kb_heads *heads, FILE *out, struct kb_err *err);
void kb_heads_finish(struct kb_heads *heads);
/* The heads of one session: *ret_n of them from the returned one on. */
const struct kb_head *kb_heads_of(
	const struct kb_heads *heads, const uint8_t session[KB_ULID_SIZE], size_t *ret_n);
/* A heads line, without signature or newline. */
#define KB_HEAD_LINE_MAX 256
void kb_head_format(const struct kb_head *head, char ret[KB_HEAD_LINE_MAX]);
