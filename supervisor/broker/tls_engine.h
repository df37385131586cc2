/* One TLS connection as bytes in and bytes out: what came from the peer is fed, what goes to it is
 * fetched; no socket is known here. TLS 1.2 and 1.3. */
#pragma once

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "supervisor/base/buf.h"
#include "supervisor/base/err.h"

struct kb_tls;

/* We are the server; context has the certificate. */
int kb_tls_serve(SSL_CTX *context, struct kb_tls **ret, struct kb_err *err);
/* We are the client of host (a name or an address), whose certificate must be good for it. */
int kb_tls_connect(SSL_CTX *context, const char *host, struct kb_tls **ret, struct kb_err *err);
void kb_tls_destroy(struct kb_tls *tls); /* wipes its buffers; NULL is fine */

/* 1: the connection stands; 0: more must come or go; negative: it cannot be, and err says why. */
int kb_tls_handshake(struct kb_tls *tls, struct kb_err *err);
/* Bytes that came from the peer. */
int kb_tls_feed(struct kb_tls *tls, const uint8_t *data, size_t len, struct kb_err *err);
/* How many of those were not looked at yet. */
size_t kb_tls_unread(const struct kb_tls *tls);
/* Plain bytes of the peer's; 0: none now; negative: the connection is broken. */
ssize_t kb_tls_read(struct kb_tls *tls, uint8_t *data, size_t len, struct kb_err *err);
/* The peer said that no more comes. */
bool kb_tls_ended(const struct kb_tls *tls);
/* Plain bytes for the peer; how many were taken. Only once the connection stands. */
ssize_t kb_tls_write(struct kb_tls *tls, const uint8_t *data, size_t len, struct kb_err *err);
/* No more goes. */
void kb_tls_end(struct kb_tls *tls);
/* What is to go to the peer: consume it as it goes. */
struct kb_buf *kb_tls_output(struct kb_tls *tls);
