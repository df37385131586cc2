#include "tls.h"

#include <ctype.h>
#include <string.h>

#include "supervisor/base/util.h"

#define RECORD_HEADER	5
#define HANDSHAKE	22
#define CLIENT_HELLO	1
#define EXT_SERVER_NAME 0
#define NAME_IS_HOST	0

/* What is left to read. A read past the end sets `bad`. */
struct reader {
	const uint8_t *at;
	size_t left;
	bool bad;
};

static struct reader take(struct reader *r, size_t n)
{
	struct reader part = {r->at, n, false};

	if (r->bad || n > r->left) {
		r->bad = true;
		return (struct reader){r->at, 0, true};
	}
	r->at += n;
	r->left -= n;
	return part;
}

static size_t number(struct reader *r, unsigned bytes)
{
	struct reader part = take(r, bytes);
	size_t n = 0;

	for (size_t i = 0; i < part.left; i++)
		n = n << 8 | part.at[i];
	return n;
}

static struct reader vector(struct reader *r, unsigned length_bytes)
{
	return take(r, number(r, length_bytes));
}

/* Joins the handshake bytes of the records. 0: more are needed. */
static int join(const uint8_t *data, size_t len, uint8_t *hello, size_t *ret_len)
{
	size_t at = 0, n = 0, need = 4;

	while (n < need) {
		size_t record;

		if (len - at < RECORD_HEADER)
			return 0;
		record = (size_t)data[at + 3] << 8 | data[at + 4];
		if (data[at] != HANDSHAKE || data[at + 1] != 3 || record == 0 ||
			n + record > KB_TLS_HELLO_MAX)
			return -1;
		if (len - at - RECORD_HEADER < record)
			return 0;
		memcpy(hello + n, data + at + RECORD_HEADER, record);
		n += record;
		at += RECORD_HEADER + record;
		if (n >= 4) {
			if (hello[0] != CLIENT_HELLO)
				return -1;
			need = 4 + ((size_t)hello[1] << 16 | (size_t)hello[2] << 8 | hello[3]);
			if (need > KB_TLS_HELLO_MAX)
				return -1;
		}
	}
	*ret_len = need;
	return 1;
}

static bool read_name(struct reader list, char host[KB_HOST_MAX])
{
	struct reader names = vector(&list, 2), name;

	if (number(&names, 1) != NAME_IS_HOST)
		return false;
	name = vector(&names, 2);
	if (names.bad || names.left > 0 || list.left > 0 || name.left == 0 ||
		name.left >= KB_HOST_MAX)
		return false;
	for (size_t i = 0; i < name.left; i++) {
		if (!isalnum(name.at[i]) && !strchr("-._", name.at[i]))
			return false;
		host[i] = (char)tolower(name.at[i]);
	}
	host[name.left] = '\0';
	return name.at[0] != '\0';
}

static int read_hello(struct reader r, char host[KB_HOST_MAX])
{
	struct reader extensions;
	bool seen = false;

	(void)take(&r, 4 + 2 + 32); /* header, version, random */
	(void)vector(&r, 1);	    /* session */
	(void)vector(&r, 2);	    /* cipher suites */
	(void)vector(&r, 1);	    /* compression */
	if (r.bad)
		return -1;
	if (r.left == 0)
		return 1;
	extensions = vector(&r, 2);
	while (!extensions.bad && extensions.left > 0) {
		size_t type = number(&extensions, 2);
		struct reader body = vector(&extensions, 2);

		if (extensions.bad || type != EXT_SERVER_NAME)
			continue;
		if (seen || !read_name(body, host))
			return -1;
		seen = true;
	}
	return r.bad || extensions.bad ? -1 : 1;
}

int kb_tls_hello(const uint8_t *data, size_t len, char host[KB_HOST_MAX])
{
	uint8_t hello[KB_TLS_HELLO_MAX];
	size_t n = 0;
	int r = join(data, len, hello, &n);

	host[0] = '\0';
	return r <= 0 ? r : read_hello((struct reader){hello, n, false}, host);
}
