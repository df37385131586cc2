#include <stdint.h>
#include <stdio.h>

#include "audit/audit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int drop(const struct kb_record *r, void *arg, struct kb_err *err)
{
	(void)r, (void)arg, (void)err;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kb_strace_stats stats;
	FILE *in = size ? fmemopen((void *)data, size, "r") : NULL;

	if (!in)
		return 0;
	(void)kb_strace_read(in, 0, drop, NULL, &stats, NULL);
	fclose(in);
	return 0;
}
