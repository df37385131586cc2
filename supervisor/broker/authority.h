/* Certificates: the host's trust for the servers we speak to, and the session's own authority,
 * which vouches for us to the session's programs where the policy lets us open TLS. */
#pragma once

#include <openssl/ssl.h>

#include "http.h"
#include "supervisor/base/err.h"

struct kb_authority;

/* key and cert: DER, PKCS #8 and X.509; at NULL: the session has no authority. */
int kb_authority_create(
	struct kb_slice key, struct kb_slice cert, struct kb_authority **ret, struct kb_err *err);
void kb_authority_destroy(struct kb_authority *authority); /* NULL is fine */
bool kb_authority_can_vouch(const struct kb_authority *authority);
/* To be a server named host (a name or an address). The authority's; good until the next call. */
int kb_authority_server(
	struct kb_authority *authority, const char *host, SSL_CTX **ret, struct kb_err *err);
/* To be a client; the authority's. */
int kb_authority_client(struct kb_authority *authority, SSL_CTX **ret, struct kb_err *err);
