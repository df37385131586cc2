/* The first bytes of an image to import: it was made elsewhere. */
#include <stdlib.h>

#include "vmctl/image/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kb_image_head head;
	struct kb_err err = {0};
	int r = kb_image_head_read(data, size, &head, &err);

	/* Whole and of a possible size, or refused with a reason. */
	if ((r < 0) != (err.code != 0) || (r == 0 && head.qcow2 && head.size % 512))
		abort();
	return 0;
}
