/* A session's records on their way out: collected into blocks, sent when a block is full, old, or
 * the session ends. The receiver numbers them. When more than the channel can take are waiting, the
 * producer is told to pause; a record that finds no room after all is counted, and the count
 * becomes a `loss` record as soon as there is room.
 */
#pragma once

#include <stdbool.h>

#include "audit/audit.h"
#include "supervisor/base/frame.h"
#include "supervisor/base/loop.h"
#include "supervisor/base/str.h"

#define KB_RECORDER_BLOCK    (64u << 10) /* bytes that make a block full */
#define KB_RECORDER_AGE_MS   20		 /* the oldest a waiting record gets */
#define KB_RECORDER_PAUSE    (2u << 20)	 /* bytes waiting in the channel: pause */
#define KB_RECORDER_RESUME   (1u << 20)
#define KB_RECORDER_RETRY_MS 2 /* between looks while paused */

struct kb_recorder;

struct kb_recorder_ops {
	/* Stop producing, or go on. */
	void (*pause)(bool paused, void *arg);
};

int kb_recorder_create(struct kb_loop *loop, struct kb_channel *channel,
	const uint8_t session[KB_ULID_SIZE], const struct kb_recorder_ops *ops, void *arg,
	struct kb_recorder **ret, struct kb_err *err);
void kb_recorder_add(struct kb_recorder *rec, const struct kb_record *record);
/* A record of lane runtime, now, with text. */
void kb_recorder_say(struct kb_recorder *rec, enum kb_event event, const char *text);
void kb_recorder_flush(struct kb_recorder *rec);
void kb_recorder_destroy(struct kb_recorder *rec);
