/* Socket addresses as the kernel reads them from a caller. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "audit/audit.h"

#define KB_SOCKADDR_MAX 128 /* sizeof(struct sockaddr_storage): the kernel takes no more */

struct kb_sockaddr {
	uint32_t family;
	uint32_t port;		 /* AF_INET, AF_INET6 */
	struct kb_bytes address; /* 4 or 16 bytes, or the unix path (leading NUL: abstract); points
				    into the bytes that were parsed */
};
/* False when the bytes are too few for their family; the family is set where it could be read. */
bool kb_sockaddr_parse(const uint8_t *data, size_t len, struct kb_sockaddr *ret);
