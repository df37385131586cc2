#include "sockaddr.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

static bool parse_in(const uint8_t *data, size_t len, struct kb_sockaddr *ret)
{
	const size_t at = offsetof(struct sockaddr_in, sin_addr);

	if (len < sizeof(struct sockaddr_in))
		return false;
	ret->port = (uint32_t)data[2] << 8 | data[3];
	ret->address = (struct kb_bytes){.data = data + at, .len = 4};
	return true;
}

/* The kernel also takes the address without its scope (RFC 2133's 24 bytes). */
static bool parse_in6(const uint8_t *data, size_t len, struct kb_sockaddr *ret)
{
	const size_t at = offsetof(struct sockaddr_in6, sin6_addr);

	if (len < at + 16)
		return false;
	ret->port = (uint32_t)data[2] << 8 | data[3];
	ret->address = (struct kb_bytes){.data = data + at, .len = 16};
	return true;
}

/* A path ends at its NUL or with the address; an abstract name is all of it, NULs included. */
static bool parse_unix(const uint8_t *data, size_t len, struct kb_sockaddr *ret)
{
	const size_t at = offsetof(struct sockaddr_un, sun_path);
	size_t n = KB_MIN(len, sizeof(struct sockaddr_un)) - at;

	if (n > 0 && data[at] != 0)
		n = strnlen((const char *)data + at, n);
	ret->address = (struct kb_bytes){.data = n > 0 ? data + at : NULL, .len = n};
	return len <= sizeof(struct sockaddr_un);
}

bool kb_sockaddr_parse(const uint8_t *data, size_t len, struct kb_sockaddr *ret)
{
	sa_family_t family;

	*ret = (struct kb_sockaddr){0};
	if (len < sizeof(family) || len > KB_SOCKADDR_MAX)
		return false;
	memcpy(&family, data, sizeof(family));
	ret->family = family;
	switch (family) {
	case AF_INET:
		return parse_in(data, len, ret);
	case AF_INET6:
		return parse_in6(data, len, ret);
	case AF_UNIX:
		return parse_unix(data, len, ret);
	default:
		return true;
	}
}
