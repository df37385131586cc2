/* The key of an encrypted disk, and how a passphrase guards it. Internal to vmctl.
 *
 * A disk's LUKS volume is unlocked by 32 random bytes (as 64 hex digits), never by what a person
 * types. Those bytes lie beside the volume in a file that the passphrase opens: PKCS #8 (RFC 5958)
 * encrypted under scrypt (RFC 7914), which the openssl program reads as well. So a guess at the
 * passphrase costs memory as well as time, changing it rewrites a small file instead of a header
 * that everything depends on, QEMU never learns it, and QEMU's own derivation, during which a
 * machine stands still, takes a millisecond.
 */
#pragma once

#include <stdint.h>

#include "supervisor/base/err.h"
#include "vmctl.h"

#define KB_DISKKEY_SIZE	 32
#define KB_DISKKEY_TEXT	 65
#define KB_DISKKEY_FILE	 "key.pem"
#define KB_DISKKEY_BYTES 4096 /* of such a file, at most */

/* Hex, with a NUL: what unlocks the volume. Wipe it after use. */
struct kb_diskkey {
	char text[KB_DISKKEY_TEXT];
};

int kb_diskkey_new(struct kb_diskkey *ret, struct kb_err *err);
/* The file's text, to be freed. */
int kb_diskkey_seal(const struct kb_diskkey *key, const struct kb_passphrase *passphrase,
	char **ret, struct kb_err *err);
/* KB_ERR_INVALID: it is not the passphrase; KB_ERR_FAILED: the text is damaged. */
int kb_diskkey_unseal(const char *text, const struct kb_passphrase *passphrase,
	struct kb_diskkey *ret, struct kb_err *err);

void kb_diskkey_wipe(struct kb_diskkey *key);
