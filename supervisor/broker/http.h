/* The heads of HTTP/1 requests (RFC 9112), as far as deciding about them needs. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KB_HTTP_HEAD_MAX (64u << 10)
#define KB_HOST_MAX	 254 /* a DNS name, with the NUL */

/* Slices point into the parsed bytes. */
struct kb_slice {
	const char *at;
	size_t len;
};

enum kb_http_body { KB_HTTP_NO_BODY, KB_HTTP_LENGTH, KB_HTTP_CHUNKED };

struct kb_http_head {
	size_t len;	 /* of the head, its empty line included */
	size_t line_len; /* of the request line, its end included */
	struct kb_slice method, target, version;
	struct kb_slice host; /* at NULL: there is none */
	enum kb_http_body body;
	uint64_t body_len;
	bool upgrade;	    /* another protocol may follow */
	bool upgrade_http2; /* that one */
};

/* 1: a whole head; 0: more bytes are needed; -1: not HTTP/1, or two readers could take it for
 * different requests (*why says what is wrong with it). */
int kb_http_parse(const uint8_t *data, size_t len, struct kb_http_head *ret, const char **why);
/* Could these first bytes begin a request? 1 yes, 0 more are needed, -1 no. */
int kb_http_looks(const uint8_t *data, size_t len);
/* "host:port", "[v6]:port", "host" (then default_port). The name in lower case without brackets or
 * a dot at the end. False: malformed. */
bool kb_http_authority(const char *text, size_t len, uint16_t default_port, char host[KB_HOST_MAX],
	uint16_t *port);
/* "http://authority/path": where the path starts, or NULL when it is not such a URL. */
const char *kb_http_absolute(struct kb_slice target, struct kb_slice *ret_authority);
/* The next header from *at (after the request line) on; false at the end. Includes its line end. */
bool kb_http_next(const char **at, const char *end, struct kb_slice *ret_name,
	struct kb_slice *ret_value, struct kb_slice *ret_line);
bool kb_slice_is(struct kb_slice s, const char *word); /* without regard to case */

/* Follows a chunked body. */
struct kb_http_chunks {
	uint8_t state;
	uint8_t digits;
	uint64_t left;
};
/* How many of the bytes belong to it; -1: malformed. *done: its last byte was among them. */
int64_t kb_http_chunks_feed(struct kb_http_chunks *c, const uint8_t *data, size_t len, bool *done);
