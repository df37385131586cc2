/* Items of the store as a damaged disk could hold them: the state and the finish of a session, the
 * item around a block, the index of a block with its processes. */
#include <stdlib.h>

#include "audit/filter.h"
#include "audit/store.h"
#include "supervisor/base/util.h"

static void try_filter(const uint8_t *data, size_t size)
{
	struct kb_processes *procs = kb_processes_create();
	struct kb_filter filter;

	if (procs && kb_filter_parse(data, size, &filter)) {
		(void)kb_filter_may(&filter, KB_FILTER_PATH, data, size);
		if (kb_processes_seed(procs, &filter, NULL) == 0)
			for (uint32_t pid = 1; pid < 200; pid++)
				(void)kb_processes_find(procs, pid);
	}
	kb_processes_destroy(procs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const MDB_val value = {size, (void *)data};
	KB_FREE char *reason = NULL;
	struct kb_session_end end;
	struct kb_state state;
	struct kb_item item;

	if (kb_state_parse(data, size, &state, NULL) == 0) {
		struct kb_buf again;

		kb_buf_init(&again, 1u << 20);
		if (kb_state_pack(&state, &again, NULL) < 0 && size < 1000)
			abort();
		kb_buf_finish(&again);
		kb_state_finish(&state);
	}
	try_filter(data, size);
	(void)kb_end_parse(data, size, &end, &reason, NULL);
	if (kb_item_parse(&value, &item) && (item.count == 0 || item.len > size))
		abort();
	return 0;
}
