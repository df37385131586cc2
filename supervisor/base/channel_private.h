/* What channel.c and stream.c share: a channel's insides. */
#pragma once

#include <sys/queue.h>

#include "buf.h"
#include "frame.h"

#define KB_CHANNEL_FDS_MAX   64		  /* fds waiting to be sent, or come and not yet claimed */
#define KB_CHANNEL_READ	     (64u << 10)  /* read at once; also what an idle channel may keep */
#define KB_CHANNEL_DATA_MAX  (512u << 10) /* streams queue up to here: messages stay quick */
#define KB_CHANNEL_DATA_LOW  (128u << 10) /* and are asked for more from here on */
#define KB_CHANNEL_FLUSH_MAX (1u << 20)	  /* written at most per wake-up */
#define KB_CHANNEL_STREAMS   4096	  /* open at once */
#define KB_CHANNEL_BUCKETS   64

struct kb_stream {
	struct kb_channel *ch;
	struct kb_stream *next; /* in its bucket */
	TAILQ_ENTRY(kb_stream) waiting;
	uint32_t id;
	const struct kb_stream_ops *ops;
	void *arg;
	uint32_t credit;  /* what we may still send */
	uint32_t window;  /* what the peer may still send */
	uint32_t unacked; /* consumed here and not yet credited to the peer */
	bool starved;	  /* the user wants to write and there is no credit */
	bool queued;	  /* on the channel's waiting list: there was no room in its queue */
	bool eof_sent, eof_seen;
};

struct kb_channel {
	struct kb_loop *loop;
	const struct kb_channel_ops *ops;
	void *arg;
	int fd;
	bool is_socket;
	struct kb_source *io;
	struct kb_source *kick; /* does on the loop what must not happen inside a call */

	struct kb_buf in;
	int in_fds[KB_CHANNEL_FDS_MAX]; /* come and not yet claimed by a frame, oldest first */
	size_t n_in_fds;

	struct kb_buf out;
	uint64_t written; /* bytes ever written: position of out's first byte */
	struct {
		uint64_t at; /* position of the frame it travels with */
		int fd;
	} out_fds[KB_CHANNEL_FDS_MAX];
	size_t n_out_fds;

	struct kb_stream *buckets[KB_CHANNEL_BUCKETS];
	size_t n_streams;
	TAILQ_HEAD(, kb_stream) waiting; /* streams that found the queue full, in turn */

	unsigned depth;	 /* callbacks running; memory stays until it is 0 */
	bool dead;	 /* destroyed */
	bool closed;	 /* the closed callback has been called */
	bool paused;	 /* no reading wanted */
	bool finishing;	 /* close when out is empty */
	bool read_eof;	 /* the peer sends no more */
	bool write_dead; /* the peer reads no more; it may still have sent something */
	bool failed;	 /* close with `why` at the next kick */
	struct kb_err why;
};

/* Queue one frame; header and payload go together or not at all. */
int kb_channel_queue_frame(struct kb_channel *ch, const struct kb_frame *frame, const void *payload,
	struct kb_err *err);
/* Recompute what the fd is watched for. */
void kb_channel_watch(struct kb_channel *ch);
/* Handle a DATA, CREDIT or EOF frame. A negative return closes the channel. */
int kb_stream_frame(struct kb_channel *ch, const struct kb_frame *frame, const uint8_t *payload,
	struct kb_err *err);
/* The queue has room again: let waiting streams write, in turn. */
void kb_stream_serve(struct kb_channel *ch);
/* Free all streams, without callbacks. */
void kb_stream_finish_all(struct kb_channel *ch);
