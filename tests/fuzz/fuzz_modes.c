/* What a session writes to the terminal, watched for modes: any bytes, cut anywhere. */
#include <stdlib.h>
#include <string.h>

#include "supervisor/cli/modes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char one[KB_MODES_RESET_MAX], two[KB_MODES_RESET_MAX];
	size_t cut = size ? data[0] % size : 0, n;
	struct kb_modes whole, parts;

	kb_modes_init(&whole);
	kb_modes_feed(&whole, data, size);
	kb_modes_init(&parts);
	kb_modes_feed(&parts, data, cut);
	kb_modes_feed(&parts, data + cut, size - cut);
	n = kb_modes_reset(&whole, one);
	if (n >= sizeof(one) || n != kb_modes_reset(&parts, two) || memcmp(one, two, n))
		abort();
	/* What undoes the modes leaves nothing to undo. */
	kb_modes_feed(&whole, (const uint8_t *)one, n);
	if (kb_modes_reset(&whole, two))
		abort();
	return 0;
}
