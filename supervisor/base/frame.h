/* The frame protocol: every pair of kbsup processes speaks it, over any byte stream. FRAMES.md
 * beside this file is its one page of documentation.
 *
 * On the wire, a frame is a 12-byte header and a payload:
 *
 *	u32 length   of the payload, little-endian, at most KB_FRAME_MAX
 *	u32 stream   0 for messages about the link itself
 *	u8  kind     enum kb_frame_kind
 *	u8  flags    KB_FRAME_FD: one fd travels with this frame (unix sockets only)
 *	u16 zero
 *
 * MSG carries one protobuf message of the protocol the two ends speak. DATA carries raw bytes of a
 * stream and spends the stream's credit; CREDIT (payload u32) gives credit back as the receiver
 * consumes; EOF says that no more DATA will come. A malformed or oversized frame closes the channel
 * with a reason; it never ends the process.
 *
 * A channel owns its fd. All functions run on the loop's thread. Writing never blocks: bytes are
 * queued up to KB_CHANNEL_QUEUE_MAX, and the fd is watched for writing only while some are.
 */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "loop.h"

#define KB_FRAME_HEADER	     12
#define KB_FRAME_MAX	     (4u << 20)	  /* one message; holds a 2 MiB argv with room to spare */
#define KB_CHANNEL_QUEUE_MAX (16u << 20)  /* unsent bytes; past it sends fail with KB_ERR_LIMIT */
#define KB_STREAM_CREDIT     (256u << 10) /* what a stream may have in flight from the start */
#define KB_STREAM_CHUNK	     (32u << 10)  /* the most DATA in one frame, for fairness */

enum kb_frame_kind { KB_FRAME_MSG = 1, KB_FRAME_DATA, KB_FRAME_CREDIT, KB_FRAME_EOF };
#define KB_FRAME_FD 1u

struct kb_frame {
	uint32_t length;
	uint32_t stream;
	uint8_t kind;
	uint8_t flags;
};

/* The pure codec, for tests and fuzzing. decode returns 1 when a whole, valid header is there, 0
 * when more bytes are needed, or a negative error. */
void kb_frame_encode(const struct kb_frame *frame, uint8_t ret[KB_FRAME_HEADER]);
int kb_frame_decode(const uint8_t *data, size_t len, struct kb_frame *ret, struct kb_err *err);

struct kb_channel;
struct kb_stream;

struct kb_channel_ops {
	/* A whole message on `stream`. data lives for the call. fd is -1, or one that the callee
	 * now owns. A negative return closes the channel with *err as the reason. */
	int (*message)(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len,
		int fd, void *arg, struct kb_err *err);
	/* The channel is over: why is NULL for an orderly end. Called once, never from within send
	 * or destroy; the callee usually destroys the channel here. */
	void (*closed)(struct kb_channel *ch, const struct kb_err *why, void *arg);
};

/* Takes fd, also on failure. */
int kb_channel_create(struct kb_loop *loop, int fd, const struct kb_channel_ops *ops, void *arg,
	struct kb_channel **ret, struct kb_err *err);
/* Drops what is unsent, closes the fd, frees its streams without callbacks (do not close them
 * after). Allowed in any of its callbacks. NULL is fine. */
void kb_channel_destroy(struct kb_channel *ch);
/* Queue one message. With fd >= 0 a duplicate of it travels along; the caller keeps its own. */
int kb_channel_send(struct kb_channel *ch, uint32_t stream, const ProtobufCMessage *msg, int fd,
	struct kb_err *err);
/* The same for an already encoded message. */
int kb_channel_send_bytes(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len,
	struct kb_err *err);
/* Bytes queued and not yet written. */
size_t kb_channel_queued(const struct kb_channel *ch);
/* Close (with the closed callback, why = NULL) once everything queued is written. */
void kb_channel_finish(struct kb_channel *ch);
/* Stop and restart reading, for back-pressure towards the peer. */
void kb_channel_pause(struct kb_channel *ch, bool paused);

struct kb_stream_ops {
	/* len bytes came. The callee must report them with kb_stream_consumed(), now or later: that
	 * is what lets the peer send more. */
	void (*data)(struct kb_stream *st, const uint8_t *data, size_t len, void *arg);
	/* kb_stream_write() can take more again. May be NULL. */
	void (*writable)(struct kb_stream *st, void *arg);
	/* The peer sends no more on this stream. */
	void (*eof)(struct kb_stream *st, void *arg);
};

/* Both ends open a stream under the same id, agreed in a message beforehand. Frames for ids that
 * are not open are dropped (they may cross a close); their DATA is credited back. */
int kb_stream_open(struct kb_channel *ch, uint32_t id, const struct kb_stream_ops *ops, void *arg,
	struct kb_stream **ret, struct kb_err *err);
uint32_t kb_stream_id(const struct kb_stream *st);
/* How many bytes a write would take now (credit and queue), or 0 if that is less than `need` (1 to
 * KB_STREAM_CHUNK). After 0, as after a write that took less than offered, `writable` is called
 * when there may be enough. */
size_t kb_stream_writable(struct kb_stream *st, size_t need);
/* Returns how many bytes were taken (0 when there is no credit), or a negative error. */
int64_t kb_stream_write(struct kb_stream *st, const void *data, size_t len, struct kb_err *err);
int kb_stream_eof(struct kb_stream *st, struct kb_err *err);
void kb_stream_consumed(struct kb_stream *st, size_t len);
/* Forget the stream on this side. NULL is fine. */
void kb_stream_close(struct kb_stream *st);
