/* Records of lane net: they go to the store by way of the link, never through the machine. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "broker_private.h"
#include "proto/role.pb-c.h"
#include "supervisor/base/log.h"
#include "supervisor/base/util.h"

#define AGE_MS	   20
#define BLOCK_FULL (64u << 10)

void kb_target_text(const struct kb_target *t, char ret[KB_TARGET_TEXT])
{
	char address[INET6_ADDRSTRLEN] = "?";

	if (t->address.len)
		inet_ntop(t->address.len == 4 ? AF_INET : AF_INET6, t->address.bytes, address,
			sizeof(address));
	snprintf(ret, KB_TARGET_TEXT, !t->name[0] && t->address.len == 16 ? "[%s]:%u" : "%s:%u",
		t->name[0] ? t->name : address, t->port);
}

void kb_report_flush(struct kb_broker *b)
{
	Kb__Role__BrokerRecords records = KB__ROLE__BROKER_RECORDS__INIT;
	Kb__Role__BrokerToLink msg = KB__ROLE__BROKER_TO_LINK__INIT;
	struct kb_err err;

	kb_source_disarm(b->age);
	if (b->block.count == 0)
		return;
	records.count = b->block.count;
	records.denials = b->block.denials;
	records.block.data = kb_buf_data(&b->block.buf);
	records.block.len = kb_buf_len(&b->block.buf);
	msg.body_case = KB__ROLE__BROKER_TO_LINK__BODY_RECORDS;
	msg.records = &records;
	if (b->link && kb_channel_send(b->link, 0, &msg.base, -1, &err) < 0) {
		/* What cannot be recorded must not go on. */
		kb_log_error("records are lost: %s", err.msg);
		kb_loop_stop(b->loop);
	}
	kb_block_reset(&b->block);
}

static void add(struct kb_broker *b, const struct kb_record *record)
{
	int r = kb_block_add(&b->block, record, NULL);

	if (r == -KB_ERR_LIMIT) {
		kb_report_flush(b);
		r = kb_block_add(&b->block, record, NULL);
	}
	if (r < 0) {
		kb_log_error("a record is lost: out of memory");
		kb_loop_stop(b->loop);
	}
	if (kb_buf_len(&b->block.buf) > BLOCK_FULL)
		kb_report_flush(b);
	else
		(void)kb_source_arm(b->age, AGE_MS, NULL);
}

static struct kb_bytes bytes_of(const char *text)
{
	return (struct kb_bytes){(const uint8_t *)text, text ? strlen(text) : 0};
}

void kb_report(struct kb_broker *b, const struct kb_report *r)
{
	const struct kb_target *t = r->target;
	bool failed = !r->ruling->allowed || r->errnum;
	struct kb_record record = {
		.time = (uint64_t)kb_now_real(),
		.event = r->event,
		.lane = KB_LANE_NET,
		.syscall = -1,
		.decision = r->ruling->allowed ? KB_DECISION_ALLOWED : KB_DECISION_DENIED,
		.outcome = failed ? KB_OUTCOME_FAILED : KB_OUTCOME_OK,
		.errnum = r->ruling->allowed ? r->errnum : r->ruling->errnum,
		.rule = r->ruling->rule,
		.trust = KB_TRUST_KERNEL,
		.port = t ? t->port : 0,
		.bytes = r->up,
		.has_result = r->has_bytes,
		.result = (int64_t)r->down,
		.text = bytes_of(r->ruling->allowed || r->text ? r->text : r->ruling->why),
	};

	record.secret = bytes_of(r->secrets);
	if (t && t->name[0])
		record.host = bytes_of(t->name);
	if (t && t->address.len) {
		record.address = (struct kb_bytes){t->address.bytes, t->address.len};
		record.family = t->address.len == 4 ? AF_INET : AF_INET6;
	}
	add(b, &record);
}
