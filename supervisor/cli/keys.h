/* The keys that detach from a session's terminal. Pure: bytes in, bytes out. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "supervisor/base/err.h"

#define KB_KEYS_DEFAULT "ctrl-p,ctrl-q"
#define KB_KEYS_MAX	8

struct kb_keys {
	uint8_t sequence[KB_KEYS_MAX];
	size_t len;	/* 0: there is no way to detach by keys */
	size_t matched; /* how many of them were seen and held back */
};

/* "ctrl-p,ctrl-q", "ctrl-],d", "none". A key is ctrl-X (X a letter or one of @[\]^_) or one
 * printable ASCII character. */
int kb_keys_parse(struct kb_keys *keys, const char *text, struct kb_err *err);

/* Passes in[] on to out[], which must hold len + KB_KEYS_MAX bytes, and returns how many bytes that
 * is. The start of the sequence is held back until the next bytes decide. Once the sequence is
 * complete *ret_detach is true and the rest of in[] is dropped. */
size_t kb_keys_feed(
	struct kb_keys *keys, const uint8_t *in, size_t len, uint8_t *out, bool *ret_detach);
/* Gives up waiting: what was held back goes to out[KB_KEYS_MAX]. */
size_t kb_keys_flush(struct kb_keys *keys, uint8_t *out);
