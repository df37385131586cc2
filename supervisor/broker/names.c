#include "names.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/base/egress.h"

#define V4_BASE 0xc6120000u /* 198.18.0.0 */

void kb_names_finish(struct kb_names *names)
{
	for (size_t i = 0; i < names->n; i++)
		free(names->list[i]);
	free(names->list);
	*names = (struct kb_names){0};
}

static void write_address(uint32_t number, size_t len, uint8_t ret[16])
{
	uint32_t v4 = htonl(V4_BASE + number), low = htonl(number);

	if (len == 4) {
		memcpy(ret, &v4, 4);
		return;
	}
	inet_pton(AF_INET6, KB_EGRESS_ADDRESS6, ret);
	memcpy(ret + 12, &low, 4);
}

int kb_names_address(
	struct kb_names *names, const char *name, size_t len, uint8_t ret[16], struct kb_err *err)
{
	size_t i = 0;

	while (i < names->n && strcmp(names->list[i], name) != 0)
		i++;
	if (i == KB_EGRESS_NAMES_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "more than %u names", KB_EGRESS_NAMES_MAX);
	if (!names->list)
		names->list = calloc(KB_EGRESS_NAMES_MAX, sizeof(char *));
	if (!names->list)
		return kb_err_nomem(err);
	if (i == names->n) {
		names->list[i] = strdup(name);
		if (!names->list[i])
			return kb_err_nomem(err);
		names->n++;
	}
	write_address(KB_EGRESS_NAMES_FIRST + (uint32_t)i, len, ret);
	return 0;
}

const char *kb_names_find(const struct kb_names *names, const uint8_t *address, size_t len)
{
	uint8_t expected[16];
	uint32_t low;
	size_t i;

	memcpy(&low, address + len - 4, 4);
	low = ntohl(low) - (len == 4 ? V4_BASE : 0);
	i = (size_t)(low - KB_EGRESS_NAMES_FIRST);
	if (low < KB_EGRESS_NAMES_FIRST || i >= names->n)
		return NULL;
	write_address(low, len, expected);
	return memcmp(expected, address, len) == 0 ? names->list[i] : NULL;
}
