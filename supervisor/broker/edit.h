/* A request's head on its way to the server: secrets put in, and what is between the session and us
 * taken out. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "http.h"
#include "policy/policy.h"
#include "supervisor/base/buf.h"

/* One secret of the session. */
struct kb_edit_secret {
	const char *placeholder;
	struct kb_slice value; /* at NULL: not to be had */
	const char *header;    /* this header is set to `line_value`; NULL: none */
	struct kb_slice header_value;
};

struct kb_edit {
	const struct kb_edit_secret *secrets; /* of the session, KB_SECRETS_MAX at most */
	size_t n;
	uint64_t granted;  /* bit i: secrets[i] may go to this server */
	const char *host;  /* instead of the Host that came; NULL: as it came */
	bool drop_upgrade; /* no other protocol may follow */
};

struct kb_edited {
	uint64_t used; /* bit i: secrets[i] was put in */
	int foreign; /* a secret whose placeholder came and that is not for this server; -1: none */
};

/* Appends the head to out. KB_ERR_LIMIT: it has become too long. */
int kb_edit_head(const struct kb_edit *edit, const uint8_t *head, const struct kb_http_head *parsed,
	struct kb_buf *out, struct kb_edited *ret, struct kb_err *err);

/* Base64 (RFC 4648) as HTTP's Basic scheme has it. encode: needs 4 * ((len + 2) / 3) bytes;
 * decode: at most len bytes, -1 when it is malformed. */
size_t kb_base64_encode(const uint8_t *data, size_t len, char *ret);
ssize_t kb_base64_decode(const char *text, size_t len, uint8_t *ret);
