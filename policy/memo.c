#include "policy/memo.h"

#include <stdlib.h>
#include <string.h>

#define SLOTS	 32768u /* a power of two */
#define PATH_LEN 200u	/* longer ones are worked out each time */

struct slot {
	const struct kb_bundle *bundle; /* NULL: empty */
	struct kb_verdict verdict;
	uint8_t access, len;
	bool allowed;
	char path[PATH_LEN];
};

struct kb_memo {
	struct slot slots[SLOTS];
};

struct kb_memo *kb_memo_create(void)
{
	return calloc(1, sizeof(struct kb_memo));
}

void kb_memo_destroy(struct kb_memo *memo)
{
	free(memo);
}

static struct kb_verdict work_out(
	const struct kb_bundle *bundle, unsigned access, const char *path, bool *ret_allowed)
{
	struct kb_verdict ret = kb_bundle_decide_path(bundle, access, path);
	struct kb_mech_path mech;

	*ret_allowed = ret.action == KB_ALLOW;
	if (!*ret_allowed)
		return ret;
	/* The mechanism has the last word. */
	mech = kb_mech_path(bundle, access, path);
	*ret_allowed = mech.allowed;
	if (!mech.allowed) {
		ret = bundle->path_default;
		ret.errnum = mech.errnum;
	}
	return ret;
}

static uint64_t hash(const struct kb_bundle *bundle, const char *path, size_t len, unsigned access)
{
	uint64_t h = 0x9e3779b97f4a7c15ull ^ access ^ (uint64_t)len << 32 ^ (uintptr_t)bundle >> 4;
	uint64_t word;

	for (; len >= sizeof(word); path += sizeof(word), len -= sizeof(word)) {
		memcpy(&word, path, sizeof(word));
		h = (h ^ word) * 0xff51afd7ed558ccdull;
		h ^= h >> 32;
	}
	word = 0;
	memcpy(&word, path, len);
	h = (h ^ word) * 0xff51afd7ed558ccdull;
	return h ^ h >> 32;
}

struct kb_verdict kb_memo_path(struct kb_memo *memo, const struct kb_bundle *bundle,
	unsigned access, const char *path, bool *ret_allowed)
{
	size_t len = strlen(path);
	struct slot *slot;

	if (!memo || len > PATH_LEN)
		return work_out(bundle, access, path, ret_allowed);
	slot = &memo->slots[hash(bundle, path, len, access) & (SLOTS - 1)];
	if (slot->bundle != bundle || slot->access != access || slot->len != len ||
		memcmp(slot->path, path, len) != 0) {
		slot->verdict = work_out(bundle, access, path, &slot->allowed);
		slot->bundle = bundle;
		slot->access = (uint8_t)access;
		slot->len = (uint8_t)len;
		memcpy(slot->path, path, len);
	}
	*ret_allowed = slot->allowed;
	return slot->verdict;
}
