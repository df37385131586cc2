#include "socks.h"

#include <arpa/inet.h>
#include <string.h>

#define VERSION 5

int kb_socks_greeting(const uint8_t *data, size_t len, bool *ret_ok)
{
	if (len > 0 && data[0] != VERSION)
		return -1;
	if (len < 2 || len < 2u + data[1])
		return 0;
	*ret_ok = memchr(data + 2, 0, data[1]) != NULL;
	return 2 + data[1];
}

int kb_socks_request(const uint8_t *data, size_t len, uint8_t *ret_command, char host[KB_HOST_MAX],
	uint16_t *ret_port)
{
	size_t name, need;

	if (len < 5)
		return 0;
	if (data[0] != VERSION || data[2] != 0)
		return -1;
	name = data[3] == 1 ? 4 : data[3] == 4 ? 16 : data[3] == 3 ? 1u + data[4] : 0;
	if (name < 2)
		return -1;
	need = 4 + name + 2;
	if (len < need)
		return 0;
	*ret_command = data[1];
	*ret_port = (uint16_t)(data[need - 2] << 8 | data[need - 1]);
	if (data[3] == 1)
		inet_ntop(AF_INET, data + 4, host, KB_HOST_MAX);
	else if (data[3] == 4)
		inet_ntop(AF_INET6, data + 4, host, KB_HOST_MAX);
	else if (!kb_http_authority((const char *)data + 5, name - 1, 1, host, &(uint16_t){0}))
		return -1;
	return (int)need;
}

void kb_socks_answer(enum kb_socks_reply reply, uint8_t ret[KB_SOCKS_REPLY])
{
	const uint8_t bytes[KB_SOCKS_REPLY] = {VERSION, (uint8_t)reply, 0, 1};

	memcpy(ret, bytes, sizeof(bytes));
}
