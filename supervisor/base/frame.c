#include "frame.h"

#include "util.h"

static void put32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static uint32_t get32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

void kb_frame_encode(const struct kb_frame *frame, uint8_t ret[KB_FRAME_HEADER])
{
	put32(ret, frame->length);
	put32(ret + 4, frame->stream);
	ret[8] = frame->kind;
	ret[9] = frame->flags;
	ret[10] = ret[11] = 0;
}

/* What each kind may look like. Stream 0 is for messages alone. */
static const struct {
	uint32_t min, max;
	uint8_t flags;
	bool on_zero;
} shapes[] = {
	[KB_FRAME_MSG] = {0, KB_FRAME_MAX, KB_FRAME_FD, true},
	[KB_FRAME_DATA] = {1, KB_STREAM_CHUNK, 0, false},
	[KB_FRAME_CREDIT] = {4, 4, 0, false},
	[KB_FRAME_EOF] = {0, 0, 0, false},
};

int kb_frame_decode(const uint8_t *data, size_t len, struct kb_frame *ret, struct kb_err *err)
{
	struct kb_frame f;

	if (len < KB_FRAME_HEADER)
		return 0;
	f = (struct kb_frame){.length = get32(data),
		.stream = get32(data + 4),
		.kind = data[8],
		.flags = data[9]};
	if (f.kind == 0 || f.kind >= KB_ARRAY_LEN(shapes))
		return kb_err_set(err, KB_ERR_INVALID, "frame of unknown kind %u", f.kind);
	if (f.length < shapes[f.kind].min || f.length > shapes[f.kind].max)
		return kb_err_set(err, KB_ERR_INVALID,
			"frame of kind %u with %u bytes (%u to %u allowed)", f.kind, f.length,
			shapes[f.kind].min, shapes[f.kind].max);
	if ((f.flags & ~shapes[f.kind].flags) != 0 || data[10] != 0 || data[11] != 0)
		return kb_err_set(err, KB_ERR_INVALID, "frame with unknown flags");
	if (f.stream == 0 && !shapes[f.kind].on_zero)
		return kb_err_set(err, KB_ERR_INVALID, "frame of kind %u outside a stream", f.kind);
	*ret = f;
	return 1;
}
