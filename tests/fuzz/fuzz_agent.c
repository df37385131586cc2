/* Answers of a machine's service: the machine is not trusted. */
#include <stdlib.h>

#include "vmctl/agent.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	json_t *answer = NULL;
	struct kb_err err = {0};
	int r = kb_agent_parse((const char *)data, size, 7, &answer, &err);

	/* An answer, or none; and an error exactly when the result says so. */
	if ((r == 1) != (answer != NULL) || (r < 0) != (err.code != 0))
		abort();
	for (const char *p = err.msg; *p; p++)
		if ((unsigned char)*p < 0x20)
			abort();
	json_decref(answer);
	return 0;
}
