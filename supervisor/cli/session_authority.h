/* A certificate authority for one session: its key goes to the broker alone, its certificate into
 * the session. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "supervisor/base/err.h"
#include "supervisor/base/guarded.h"

struct kb_session_authority {
	uint8_t *key, *cert; /* DER; in the memory given */
	size_t key_len, cert_len;
	char *pem; /* of the certificate; free() it */
};

int kb_session_authority_make(
	struct kb_guarded *memory, struct kb_session_authority *ret, struct kb_err *err);
