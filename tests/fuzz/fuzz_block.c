/* Blocks of records, as a compromised machine could send them: refused, or read to the end; and
 * what was read can be written again and reads the same. */
#include <stdlib.h>
#include <string.h>

#include "audit/block.h"
#include "supervisor/base/util.h"

static void check(bool promise)
{
	if (!promise)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kb_block_iter iter = {0}, again = {0};
	struct kb_block copy;
	struct kb_record a, b;
	uint32_t count = 0;
	bool ok = kb_block_check(data, size, &count, NULL) == 0;
	int r = kb_block_iter_begin(&iter, data, size, NULL);
	bool copied = true;

	kb_block_init(&copy);
	while (r == 0 && (r = kb_block_iter_next(&iter, &a, NULL)) > 0) {
		copied = copied && kb_block_add(&copy, &a, NULL) == 0;
		r = 0;
		if (iter.wire.p == iter.wire.end)
			break;
	}
	check(!ok || iter.count == count);
	if (ok && copied && kb_block_iter_begin(&iter, data, size, NULL) == 0 &&
		kb_block_iter_begin(&again, kb_buf_data(&copy.buf), kb_buf_len(&copy.buf), NULL) ==
			0)
		while (kb_block_iter_next(&iter, &a, NULL) > 0) {
			check(kb_block_iter_next(&again, &b, NULL) > 0);
			check(a.event == b.event && a.time == b.time && a.pid == b.pid);
			check(a.path.len == b.path.len && a.argc == b.argc);
			check(a.path.len == 0 || memcmp(a.path.data, b.path.data, a.path.len) == 0);
		}
	kb_block_finish(&copy);
	kb_block_iter_finish(&iter);
	kb_block_iter_finish(&again);
	return 0;
}
