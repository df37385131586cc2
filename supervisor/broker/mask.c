#include "mask.h"

#include <string.h>

#include "supervisor/base/util.h"

#define FEED_MAX (256u << 10) /* of one call */

void kb_mask_init(struct kb_mask *mask)
{
	*mask = (struct kb_mask){0};
	kb_buf_init(&mask->held, FEED_MAX + KB_MASK_MAX);
}

void kb_mask_finish(struct kb_mask *mask)
{
	kb_buf_wipe(&mask->held);
}

void kb_mask_add(struct kb_mask *mask, const uint8_t *at, size_t len)
{
	if (len < KB_MASK_MIN || len > KB_MASK_MAX || mask->n == KB_MASK_VALUES)
		return;
	mask->values[mask->n++] = (struct kb_mask_value){at, len};
	mask->longest = KB_MAX(mask->longest, len);
}

static void cover(const struct kb_mask_value *value, uint8_t *data, size_t len)
{
	uint8_t *at = data, *end = data + len;

	while ((at = memmem(at, (size_t)(end - at), value->at, value->len))) {
		memset(at, '*', value->len);
		at += value->len;
	}
}

/* How many bytes at the end may be the beginning of a value. */
static size_t open_end(const struct kb_mask *mask, const uint8_t *data, size_t len)
{
	size_t from = len >= mask->longest ? len - mask->longest + 1 : 0;

	for (size_t at = from; at < len; at++)
		for (size_t i = 0; i < mask->n; i++)
			if (len - at < mask->values[i].len &&
				memcmp(data + at, mask->values[i].at, len - at) == 0)
				return len - at;
	return 0;
}

int kb_mask_feed(struct kb_mask *mask, const uint8_t *data, size_t len, struct kb_buf *out,
	struct kb_err *err)
{
	int r = kb_buf_append(&mask->held, data, len, err);
	size_t n;

	if (r < 0)
		return r;
	for (size_t i = 0; i < mask->n; i++)
		cover(&mask->values[i], kb_buf_data(&mask->held), kb_buf_len(&mask->held));
	n = kb_buf_len(&mask->held);
	n -= open_end(mask, kb_buf_data(&mask->held), n);
	r = kb_buf_append(out, kb_buf_data(&mask->held), n, err);
	if (r == 0)
		kb_buf_consume(&mask->held, n);
	return r;
}

int kb_mask_end(struct kb_mask *mask, struct kb_buf *out, struct kb_err *err)
{
	size_t n = kb_buf_len(&mask->held);
	int r = kb_buf_append(out, kb_buf_data(&mask->held), n, err);

	if (r == 0)
		kb_buf_consume(&mask->held, n);
	return r;
}
