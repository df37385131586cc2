/* The server name in a TLS ClientHello (RFC 8446, 4.1.2; RFC 6066, 3). Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "http.h"

#define KB_TLS_HELLO_MAX (16u << 10) /* larger ones are refused */

/* 1: a whole ClientHello; host is its server name, or empty. 0: more bytes are needed. -1: it is
 * none, or malformed. */
int kb_tls_hello(const uint8_t *data, size_t len, char host[KB_HOST_MAX]);
