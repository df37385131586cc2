#include "supervisor/guest/recorder.h"

#include <stdlib.h>
#include <string.h>

#include "proto/link.pb-c.h"
#include "supervisor/base/log.h"
#include "supervisor/base/util.h"

struct kb_recorder {
	struct kb_channel *channel;
	const struct kb_recorder_ops *ops;
	void *arg;
	uint8_t session[KB_ULID_SIZE];
	struct kb_block block;
	uint64_t lost;
	bool armed, paused;
	struct kb_source *age, *retry;
};

static void check_pressure(struct kb_recorder *rec)
{
	size_t queued = kb_channel_queued(rec->channel);
	bool pause = queued > (rec->paused ? KB_RECORDER_RESUME : KB_RECORDER_PAUSE);

	if (pause != rec->paused) {
		rec->paused = pause;
		rec->ops->pause(pause, rec->arg);
	}
	if (pause)
		kb_source_arm(rec->retry, KB_RECORDER_RETRY_MS, NULL);
}

static void on_retry(void *arg)
{
	struct kb_recorder *rec = arg;

	check_pressure(rec);
}

static void on_age(void *arg)
{
	kb_recorder_flush(arg);
}

int kb_recorder_create(struct kb_loop *loop, struct kb_channel *channel,
	const uint8_t session[KB_ULID_SIZE], const struct kb_recorder_ops *ops, void *arg,
	struct kb_recorder **ret, struct kb_err *err)
{
	struct kb_recorder *rec = calloc(1, sizeof(*rec));
	int r;

	if (!rec)
		return kb_err_nomem(err);
	*rec = (struct kb_recorder){.channel = channel, .ops = ops, .arg = arg};
	memcpy(rec->session, session, KB_ULID_SIZE);
	kb_block_init(&rec->block);
	r = kb_loop_timer(loop, on_age, rec, &rec->age, err);
	if (r == 0)
		r = kb_loop_timer(loop, on_retry, rec, &rec->retry, err);
	if (r < 0) {
		kb_recorder_destroy(rec);
		return r;
	}
	*ret = rec;
	return 0;
}

static int send_block(struct kb_recorder *rec, struct kb_err *err)
{
	Kb__Records records = KB__RECORDS__INIT;
	Kb__FromGuest msg = KB__FROM_GUEST__INIT;

	records.session = (ProtobufCBinaryData){.data = rec->session, .len = KB_ULID_SIZE};
	records.count = rec->block.count;
	records.has_denials = rec->block.denials > 0;
	records.denials = rec->block.denials;
	records.block.data = kb_buf_data(&rec->block.buf);
	records.block.len = kb_buf_len(&rec->block.buf);
	msg.body_case = KB__FROM_GUEST__BODY_RECORDS;
	msg.records = &records;
	return kb_channel_send(rec->channel, 0, &msg.base, -1, err);
}

void kb_recorder_flush(struct kb_recorder *rec)
{
	struct kb_err err = {0};

	kb_source_disarm(rec->age);
	rec->armed = false;
	if (rec->block.count == 0)
		return;
	if (send_block(rec, &err) < 0) {
		/* No room: keep counting, and say so when there is. */
		kb_log(err.code == KB_ERR_CLOSED ? KB_LOG_INFO : KB_LOG_WARN,
			"%u records were lost: %s", rec->block.count, err.msg);
		rec->lost += rec->block.count;
	}
	kb_block_reset(&rec->block);
	check_pressure(rec);
}

static void add(struct kb_recorder *rec, const struct kb_record *record)
{
	int r = kb_block_add(&rec->block, record, NULL);

	if (r == -KB_ERR_LIMIT && rec->block.count > 0) {
		kb_recorder_flush(rec);
		r = kb_block_add(&rec->block, record, NULL);
	}
	if (r < 0)
		rec->lost++;
}

static void add_loss(struct kb_recorder *rec)
{
	static const char text[] = "records found no room on their way to the host";
	struct kb_record record = {
		.time = (uint64_t)kb_now_real(),
		.event = KB_EVENT_LOSS,
		.lane = KB_LANE_RUNTIME,
		.syscall = -1,
		.rule = KB_RULE_NONE,
		.count = rec->lost,
		.text = {(const uint8_t *)text, sizeof(text) - 1},
	};

	rec->lost = 0;
	add(rec, &record);
}

void kb_recorder_add(struct kb_recorder *rec, const struct kb_record *record)
{
	if (rec->lost > 0 && kb_channel_queued(rec->channel) < KB_RECORDER_PAUSE)
		add_loss(rec);
	add(rec, record);
	if (kb_buf_len(&rec->block.buf) >= KB_RECORDER_BLOCK)
		kb_recorder_flush(rec);
	if (!rec->armed && rec->block.count > 0) {
		rec->armed = true;
		kb_source_arm(rec->age, KB_RECORDER_AGE_MS, NULL);
	}
}

void kb_recorder_say(struct kb_recorder *rec, enum kb_event event, const char *text)
{
	struct kb_record record = {
		.time = (uint64_t)kb_now_real(),
		.event = event,
		.lane = KB_LANE_RUNTIME,
		.syscall = -1,
		.rule = KB_RULE_NONE,
		.outcome = KB_OUTCOME_OK,
		.text = {(const uint8_t *)text, strlen(text)},
	};

	kb_recorder_add(rec, &record);
}

void kb_recorder_destroy(struct kb_recorder *rec)
{
	if (!rec)
		return;
	kb_source_destroy(rec->age);
	kb_source_destroy(rec->retry);
	kb_block_finish(&rec->block);
	free(rec);
}
