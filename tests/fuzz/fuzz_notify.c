/* What the collector reads out of its callers: paths, socket addresses, the text of /proc. The
 * first byte says which. */
#include <stdlib.h>
#include <string.h>

#include "audit/collect/proc.h"
#include "audit/collect/resolve.h"
#include "audit/collect/sockaddr.h"
#include "supervisor/base/util.h"

static void check(bool promise)
{
	if (!promise)
		abort();
}

static void check_sockaddr(const uint8_t *data, size_t size)
{
	struct kb_sockaddr got;
	bool whole = kb_sockaddr_parse(data, size, &got);

	check(!whole || size >= 2);
	check(!got.address.data || (got.address.data >= data + 2 &&
					   got.address.data + got.address.len <= data + size));
}

/* Joining gives an absolute path without empty, "." and ".." components, and cleaning it once more
 * changes nothing. */
static void check_join(const char *base, const char *path)
{
	char once[KB_RESOLVED_MAX], again[KB_RESOLVED_MAX], wrapped[KB_RESOLVED_MAX + 2];
	size_t len = kb_path_join(once, sizeof(once), base, path);

	if (len == 0)
		return;
	check(once[0] == '/' && strlen(once) == len);
	snprintf(wrapped, sizeof(wrapped), "%s%s", once, len > 1 ? "/" : "");
	check(!strstr(wrapped, "//") && !strstr(wrapped, "/./") && !strstr(wrapped, "/../"));
	check(kb_path_join(again, sizeof(again), "/", once) == len && strcmp(once, again) == 0);
}

static void check_status(const char *text, size_t len)
{
	struct kb_status status;

	for (unsigned depth = 0; depth < 3; depth++) {
		if (!kb_status_parse(text, len, depth, &status))
			continue;
		check(status.tgid > 0 && status.pid > 0);
		check(strlen(status.comm) < KB_COMM_MAX);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	KB_FREE char *text = NULL;
	char *second;

	if (size < 1)
		return 0;
	/* A copy of the exact size, so that reading past it is seen. */
	text = malloc(size);
	check(text != NULL);
	memcpy(text, data + 1, size - 1);
	text[size - 1] = '\0';
	switch (data[0]) {
	case 's':
		check_sockaddr((uint8_t *)text, size - 1);
		break;
	case 'p':
		second = strchr(text, '\n');
		if (second)
			*second++ = '\0';
		check_join(text, second ? second : "");
		break;
	case 't':
		check_status(text, size - 1);
		break;
	}
	return 0;
}
