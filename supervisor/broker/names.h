/* Made-up addresses: what a session is told a name's address is, so that a connection to it says
 * which name was meant. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "supervisor/base/err.h"

struct kb_names {
	char **list;
	size_t n;
};

void kb_names_finish(struct kb_names *names);
/* The address of a name, made up when it is new. len: 4 or 16. */
int kb_names_address(
	struct kb_names *names, const char *name, size_t len, uint8_t ret[16], struct kb_err *err);
/* The name behind an address, or NULL. */
const char *kb_names_find(const struct kb_names *names, const uint8_t *address, size_t len);
