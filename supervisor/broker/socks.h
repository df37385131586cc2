/* SOCKS 5 requests (RFC 1928), without authentication. Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "http.h"

enum kb_socks_reply {
	KB_SOCKS_OK = 0,
	KB_SOCKS_REFUSED = 2,
	KB_SOCKS_UNREACHABLE = 4,
	KB_SOCKS_COMMAND = 7,
};

/* The greeting: its length, 0 when more bytes are needed, -1 when it is none. *ret_ok: it offers to
 * go without authentication. */
int kb_socks_greeting(const uint8_t *data, size_t len, bool *ret_ok);
/* The request: its length, 0, or -1. *ret_command is 1 for CONNECT. */
int kb_socks_request(const uint8_t *data, size_t len, uint8_t *ret_command, char host[KB_HOST_MAX],
	uint16_t *ret_port);
#define KB_SOCKS_REPLY 10
void kb_socks_answer(enum kb_socks_reply reply, uint8_t ret[KB_SOCKS_REPLY]);
