#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "supervisor/base/log.h"
#include "supervisor/base/util.h"
#include "supervisor/guest/session_private.h"

/* ---- Sending --------------------------------------------------------------------------------- */

static ProtobufCBinaryData id_field(struct kb_session *s)
{
	return (ProtobufCBinaryData){.data = s->id, .len = KB_ULID_SIZE};
}

static void send_message(struct kb_session *s, Kb__FromGuest *msg)
{
	struct kb_err err = {0};

	if (kb_channel_send(s->channel, 0, &msg->base, -1, &err) < 0)
		kb_log_error("a message to the host is lost: %s", err.msg);
}

void kb_session_send_failed(struct kb_session *s, uint64_t process, struct kb_err *why)
{
	Kb__LinkError error = KB__LINK_ERROR__INIT;
	Kb__StartFailed failed = KB__START_FAILED__INIT;
	Kb__FromGuest msg = KB__FROM_GUEST__INIT;

	error.code = why->code;
	error.message = why->msg;
	error.hint = why->hint[0] ? why->hint : NULL;
	failed.session = id_field(s);
	failed.process_id = process;
	failed.error = &error;
	msg.body_case = KB__FROM_GUEST__BODY_FAILED;
	msg.failed = &failed;
	send_message(s, &msg);
}

void kb_session_send_started(struct kb_session *s, uint64_t process)
{
	Kb__Started started = KB__STARTED__INIT;
	Kb__FromGuest msg = KB__FROM_GUEST__INIT;

	started.session = id_field(s);
	started.process_id = process;
	started.n_effective = s->effective.n;
	started.effective = s->effective.line;
	started.n_missing = s->setup.missing.n;
	started.missing = s->setup.missing.line;
	started.lane = (char *)kb_setup_lane(&s->setup);
	msg.body_case = KB__FROM_GUEST__BODY_STARTED;
	msg.started = &started;
	send_message(s, &msg);
}

static int exit_code(int status)
{
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

void kb_session_send_exited(struct kb_session *s, const struct kb_member *m)
{
	Kb__Exited exited = KB__EXITED__INIT;
	Kb__FromGuest msg = KB__FROM_GUEST__INIT;

	exited.session = id_field(s);
	exited.process_id = m->id;
	exited.exit_code = exit_code(m->status);
	exited.has_signal = WIFSIGNALED(m->status);
	exited.signal = exited.has_signal ? (uint32_t)WTERMSIG(m->status) : 0;
	msg.body_case = KB__FROM_GUEST__BODY_EXITED;
	msg.exited = &exited;
	send_message(s, &msg);
}

void kb_session_send_ended(struct kb_session *s, int status)
{
	Kb__Ended ended = KB__ENDED__INIT;
	Kb__FromGuest msg = KB__FROM_GUEST__INIT;

	ended.session = id_field(s);
	ended.exit_code = exit_code(status);
	ended.has_signal = WIFSIGNALED(status);
	ended.signal = ended.has_signal ? (uint32_t)WTERMSIG(status) : 0;
	ended.reason = s->reason[0] ? s->reason : NULL;
	msg.body_case = KB__FROM_GUEST__BODY_ENDED;
	msg.ended = &ended;
	send_message(s, &msg);
}

/* "mount(0x7ffd01, 0x0, …)": what a rule can look at, and no more. */
static void describe_call(const struct kb_asked *q, char *text, size_t size)
{
	const char *name = kb_syscall_name(q->arch, q->syscall);
	size_t at = (size_t)(name ? snprintf(text, size, "%s(", name)
				  : snprintf(text, size, "syscall_%d(", q->syscall));

	for (size_t i = 0; i < KB_ARRAY_LEN(q->args) && at < size; i++)
		at += (size_t)snprintf(text + at, size - at, "%s0x%llx", i ? ", " : "",
			(unsigned long long)q->args[i]);
	if (at < size)
		snprintf(text + at, size - at, ")");
}

#define TEXT_MAX 512 /* of one line of a question; the link takes no more */

void kb_session_send_question(const struct kb_asked *q, void *arg)
{
	struct kb_session *s = arg;
	Kb__Question question = KB__QUESTION__INIT;
	Kb__FromGuest msg = KB__FROM_GUEST__INIT;
	char process[TEXT_MAX], call[TEXT_MAX];

	describe_call(q, call, sizeof(call));
	snprintf(process, sizeof(process), "%s(%u)", q->comm, q->pid);
	question.session = id_field(s);
	question.number = q->number;
	question.process = process;
	question.call = call;
	question.rule = q->rule;
	question.wait_ms = q->wait_ms;
	msg.body_case = KB__FROM_GUEST__BODY_QUESTION;
	msg.question = &question;
	send_message(s, &msg);
}

void kb_session_send_question_over(uint64_t number, const char *how, void *arg)
{
	struct kb_session *s = arg;
	Kb__QuestionOver over = KB__QUESTION_OVER__INIT;
	Kb__FromGuest msg = KB__FROM_GUEST__INIT;

	if (s->state == OVER)
		return;
	over.session = id_field(s);
	over.number = number;
	over.how = (char *)how;
	msg.body_case = KB__FROM_GUEST__BODY_QUESTION_OVER;
	msg.question_over = &over;
	send_message(s, &msg);
}

/* ---- Records of our own ---------------------------------------------------------------------- */

void kb_session_record_start(struct kb_session *s)
{
	KB_BUF_CLEANUP struct kb_buf text;
	KB_FREE char *line = NULL;

	kb_buf_init(&text, 64u << 10);
	for (size_t i = 0; i < s->effective.n; i++)
		(void)kb_buf_printf(&text, NULL, "%s%s", i ? "\n" : "", s->effective.line[i]);
	for (size_t i = 0; i < s->setup.missing.n; i++)
		(void)kb_buf_printf(&text, NULL, "\nmissing: %s", s->setup.missing.line[i]);
	line = kb_buf_steal_string(&text);
	kb_recorder_say(s->recorder, KB_EVENT_START, line ? line : "");
}

void kb_session_record_limit(struct kb_session *s, const char *text, uint64_t count)
{
	struct kb_record record = {
		.time = (uint64_t)kb_now_real(),
		.event = KB_EVENT_LIMIT,
		.lane = KB_LANE_RUNTIME,
		.syscall = -1,
		.rule = KB_RULE_NONE,
		.count = count,
		.text = {(const uint8_t *)text, strlen(text)},
	};

	kb_recorder_add(s->recorder, &record);
}

void kb_session_record_end(struct kb_session *s, int status)
{
	struct kb_record record = {
		.time = (uint64_t)kb_now_real(),
		.event = KB_EVENT_END,
		.lane = KB_LANE_RUNTIME,
		.syscall = -1,
		.rule = KB_RULE_NONE,
		.outcome = KB_OUTCOME_OK,
		.has_exit_code = true,
		.exit_code = exit_code(status),
		.signal = WIFSIGNALED(status) ? (uint32_t)WTERMSIG(status) : 0,
	};

	if (s->reason[0])
		record.text = (struct kb_bytes){(const uint8_t *)s->reason, strlen(s->reason)};
	kb_recorder_add(s->recorder, &record);
}

void kb_session_check_counters(struct kb_session *s)
{
	const struct kb_cgroups *groups = kb_container_cgroups(s->container);
	uint64_t oom = s->setup.oci.memory ? kb_cgroups_oom_kills(groups) : 0;
	uint64_t pids = s->setup.oci.pids ? kb_cgroups_pids_refused(groups) : 0;

	if (oom > s->oom_kills)
		kb_session_record_limit(s,
			"the memory limit was reached: the kernel killed processes",
			oom - s->oom_kills);
	if (pids > s->pids_refused)
		kb_session_record_limit(s, "the limit of processes was reached: forks were refused",
			pids - s->pids_refused);
	s->oom_kills = KB_MAX(oom, s->oom_kills);
	s->pids_refused = KB_MAX(pids, s->pids_refused);
}
