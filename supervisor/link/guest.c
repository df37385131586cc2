/* What the guest says, and whether it may: known sessions and processes, each thing once and in
 * order. The first thing it may not say ends the link. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "link_private.h"
#include "supervisor/base/build.h"
#include "supervisor/base/log.h"
#include "supervisor/base/util.h"

static int unknown_session(struct kb_err *err)
{
	return kb_err_set(err, KB_ERR_INVALID, "the guest spoke of a session that is not there");
}

static struct kb_link_session *session_of(struct kb_link *link, ProtobufCBinaryData id)
{
	struct kb_link_session *s = kb_link_find(link, id);

	return s && !s->over ? s : NULL;
}

static struct kb_process *process_of(struct kb_link *link, ProtobufCBinaryData id, uint64_t process)
{
	struct kb_link_session *s = session_of(link, id);

	return s ? kb_process_find(s, process) : NULL;
}

static int on_hello(struct kb_link *link, const Kb__FromGuest *msg, struct kb_err *err)
{
	const Kb__Hello *hello = msg->hello;
	Kb__Role__LinkReady ready = KB__ROLE__LINK_READY__INIT;
	Kb__Role__FromLink out = KB__ROLE__FROM_LINK__INIT;
	int r;

	if (link->greeted)
		return kb_err_set(err, KB_ERR_INVALID, "the guest greeted twice");
	r = kb_check_hello(hello, kb_build_id(), err);
	if (r < 0)
		return r;
	link->greeted = true;
	kb_source_disarm(link->deadline);
	ready.runtime = hello->runtime;
	ready.runtime_why = hello->runtime_why;
	ready.kernel = hello->kernel;
	ready.has_landlock_abi = ready.has_rootless = ready.has_arch = ready.has_guest_pid = 1;
	ready.landlock_abi = hello->landlock_abi;
	ready.rootless = hello->rootless;
	ready.arch = hello->arch;
	ready.guest_pid = (uint32_t)link->guest_pid;
	ready.limits_missing = hello->limits_missing;
	ready.n_limits_missing = hello->n_limits_missing;
	out.body_case = KB__ROLE__FROM_LINK__BODY_READY;
	out.ready = &ready;
	kb_link_tell_main(link, &out);
	return 0;
}

static int on_started(struct kb_link *link, const Kb__FromGuest *msg, struct kb_err *err)
{
	const Kb__Started *started = msg->started;
	struct kb_process *p = process_of(link, started->session, started->process_id);
	Kb__Role__LinkStarted told = KB__ROLE__LINK_STARTED__INIT;
	Kb__Role__FromLink out = KB__ROLE__FROM_LINK__INIT;
	int r;

	if (!p || p->started)
		return unknown_session(err);
	r = kb_check_lines(started->effective, started->n_effective, err);
	if (r == 0)
		r = kb_check_lines(started->missing, started->n_missing, err);
	if (r < 0)
		return r;
	told.session = kb_link_id(p->session);
	told.process_id = p->id;
	out.body_case = KB__ROLE__FROM_LINK__BODY_STARTED;
	out.started = &told;
	kb_link_tell_main(link, &out);
	kb_process_started(p, started);
	if (p->id == 0)
		kb_link_inbound_started(p->session);
	return 0;
}

static void tell_failed(struct kb_link *link, struct kb_process *p, const Kb__LinkError *why)
{
	Kb__Role__LinkFailed failed = KB__ROLE__LINK_FAILED__INIT;
	Kb__Role__FromLink out = KB__ROLE__FROM_LINK__INIT;
	Kb__Role__RoleError error = KB__ROLE__ROLE_ERROR__INIT;

	error.code = why->code;
	error.message = why->message;
	error.hint = why->hint;
	error.has_errnum = why->has_errnum;
	error.errnum = why->errnum;
	failed.session = kb_link_id(p->session);
	failed.process_id = p->id;
	failed.error = &error;
	failed.has_last_seq = 1;
	failed.last_seq = p->session->stored;
	out.body_case = KB__ROLE__FROM_LINK__BODY_FAILED;
	out.failed = &failed;
	kb_link_tell_main(link, &out);
}

static int on_failed(struct kb_link *link, const Kb__FromGuest *msg, struct kb_err *err)
{
	struct kb_process *p = process_of(link, msg->failed->session, msg->failed->process_id);
	struct kb_link_session *s;

	if (!p || p->started)
		return unknown_session(err);
	s = p->session;
	tell_failed(link, p, msg->failed->error);
	s->over = s->over || p->id == 0;
	if (s->over)
		kb_link_inbound_destroy(s);
	kb_process_destroy(p); /* closes its attachment: main says why */
	kb_link_session_reap(s);
	return 0;
}

static int on_exited(struct kb_link *link, const Kb__FromGuest *msg, struct kb_err *err)
{
	const Kb__Exited *exited = msg->exited;
	struct kb_process *p = process_of(link, exited->session, exited->process_id);
	int r;

	if (!p || !p->started || p->exited)
		return unknown_session(err);
	r = kb_check_exit(exited->exit_code, exited->signal, err);
	if (r == 0)
		kb_process_exited(p, exited->exit_code, exited->signal);
	return r;
}

void kb_link_store_block(
	struct kb_link_session *s, const ProtobufCBinaryData *block, uint32_t count)
{
	struct kb_link *link = s->link;
	Kb__Role__AppendBlock append = KB__ROLE__APPEND_BLOCK__INIT;
	Kb__Role__LinkToStore out = KB__ROLE__LINK_TO_STORE__INIT;
	struct kb_err err;

	append.session = kb_link_id(s);
	append.first_seq = s->stored + 1;
	append.count = count;
	append.block = *block;
	s->stored += count;
	out.body_case = KB__ROLE__LINK_TO_STORE__BODY_APPEND;
	out.append = &append;
	if (!link->store || s->discard) {
		kb_link_ack(link, s->id, s->received);
	} else if (kb_channel_send(link->store, 0, &out.base, -1, &err) < 0) {
		kb_log_error("records could not be handed to the store: %s", err.msg);
		s->discard = true;
		kb_link_ack(link, s->id, s->received);
	} else if (kb_channel_queued(link->store) > KB_LINK_QUEUE_HIGH) {
		kb_channel_pause(link->guest, true);
		(void)kb_source_arm(link->drain, 5, NULL);
	}
}

static int on_records(struct kb_link *link, const Kb__FromGuest *msg, struct kb_err *err)
{
	const Kb__Records *records = msg->records;
	struct kb_link_session *s = session_of(link, records->session);
	int r;

	if (!s)
		return unknown_session(err);
	r = kb_check_records(records, s->received, err);
	if (r < 0)
		return r;
	s->received += records->count;
	r = kb_link_egress_mark(s, s->stored + records->count, err);
	if (r < 0)
		return r;
	s->denials += records->denials;
	(void)kb_source_arm(link->progress, 250, NULL);
	kb_link_store_block(s, &records->block, records->count);
	return 0;
}

/* Whoever did not say how it ended, ended with the session. */
static void end_processes(struct kb_link_session *s, const Kb__Ended *ended)
{
	struct kb_process *p, *next;

	for (p = TAILQ_FIRST(&s->processes); p; p = next) {
		next = TAILQ_NEXT(p, entry);
		if (!p->exited && p->id == 0)
			kb_process_exited(p, ended->exit_code, ended->signal);
		else if (!p->exited)
			kb_process_exited(p, 137, 9);
	}
}

static int on_egress(struct kb_link *link, const Kb__FromGuest *msg, struct kb_err *err)
{
	struct kb_link_session *s = session_of(link, msg->egress->session);

	return s ? kb_link_egress_message(s, msg->egress, err) : unknown_session(err);
}

static int on_inbound(struct kb_link *link, const Kb__FromGuest *msg, struct kb_err *err)
{
	struct kb_link_session *s = session_of(link, msg->inbound->session);

	return s ? kb_link_inbound_message(s, msg->inbound, err) : unknown_session(err);
}

static int on_ended(struct kb_link *link, const Kb__FromGuest *msg, struct kb_err *err)
{
	const Kb__Ended *ended = msg->ended;
	struct kb_link_session *s = session_of(link, ended->session);
	Kb__Role__LinkEnded told = KB__ROLE__LINK_ENDED__INIT;
	Kb__Role__FromLink out = KB__ROLE__FROM_LINK__INIT;
	int r;

	if (!s)
		return unknown_session(err);
	r = kb_check_exit(ended->exit_code, ended->signal, err);
	if (r == 0 && ended->last_seq != s->received)
		r = kb_err_set(err, KB_ERR_INVALID,
			"the guest ended a session at record %llu, %llu came",
			(unsigned long long)ended->last_seq, (unsigned long long)s->received);
	if (r == 0)
		r = kb_check_lines((char **)&ended->reason, ended->reason != NULL, err);
	if (r < 0)
		return r;
	told.session = kb_link_id(s);
	told.exit_code = ended->exit_code;
	told.has_signal = ended->has_signal;
	told.signal = ended->signal;
	told.last_seq = s->stored;
	told.reason = ended->reason;
	out.body_case = KB__ROLE__FROM_LINK__BODY_ENDED;
	out.ended = &told;
	kb_link_tell_main(link, &out);
	s->over = true;
	kb_link_inbound_destroy(s);
	end_processes(s, ended);
	kb_link_session_reap(s);
	return 0;
}

/* The texts end on somebody's screen: escaped here, once. */
static int tell_question(
	struct kb_link *link, struct kb_link_session *s, const Kb__Question *q, struct kb_err *err)
{
	Kb__Role__LinkQuestion told = KB__ROLE__LINK_QUESTION__INIT;
	Kb__Role__FromLink out = KB__ROLE__FROM_LINK__INIT;
	KB_FREE char *process = kb_escape_dup(q->process, strlen(q->process));
	KB_FREE char *call = kb_escape_dup(q->call, strlen(q->call));

	if (!process || !call)
		return kb_err_nomem(err);
	told.process = process;
	told.call = call;
	told.rule = q->rule;
	told.session = kb_link_id(s);
	told.number = q->number;
	told.wait_ms = q->wait_ms;
	out.body_case = KB__ROLE__FROM_LINK__BODY_QUESTION;
	out.question = &told;
	kb_link_tell_main(link, &out);
	return 0;
}

static int on_question(struct kb_link *link, const Kb__FromGuest *msg, struct kb_err *err)
{
	struct kb_link_session *s = session_of(link, msg->question->session);
	int r = s ? kb_check_question(msg->question, s->last_question, err) : unknown_session(err);

	if (r < 0)
		return r;
	s->last_question = msg->question->number;
	return tell_question(link, s, msg->question, err);
}

static int on_question_over(struct kb_link *link, const Kb__FromGuest *msg, struct kb_err *err)
{
	const Kb__QuestionOver *over = msg->question_over;
	struct kb_link_session *s = session_of(link, over->session);
	Kb__Role__LinkQuestionOver told = KB__ROLE__LINK_QUESTION_OVER__INIT;
	Kb__Role__FromLink out = KB__ROLE__FROM_LINK__INIT;
	KB_FREE char *how = NULL;
	int r = s ? kb_check_lines((char **)&over->how, 1, err) : unknown_session(err);

	if (r < 0)
		return r;
	how = kb_escape_dup(over->how, strlen(over->how));
	if (!how)
		return kb_err_nomem(err);
	told.session = kb_link_id(s);
	told.number = over->number;
	told.how = how;
	out.body_case = KB__ROLE__FROM_LINK__BODY_QUESTION_OVER;
	out.question_over = &told;
	kb_link_tell_main(link, &out);
	return 0;
}

static int on_message(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len,
	int fd, void *arg, struct kb_err *err)
{
	static int (*const handlers[])(struct kb_link *, const Kb__FromGuest *, struct kb_err *) = {
		[KB__FROM_GUEST__BODY_HELLO] = on_hello,
		[KB__FROM_GUEST__BODY_STARTED] = on_started,
		[KB__FROM_GUEST__BODY_FAILED] = on_failed,
		[KB__FROM_GUEST__BODY_EXITED] = on_exited,
		[KB__FROM_GUEST__BODY_RECORDS] = on_records,
		[KB__FROM_GUEST__BODY_ENDED] = on_ended,
		[KB__FROM_GUEST__BODY_EGRESS] = on_egress,
		[KB__FROM_GUEST__BODY_QUESTION] = on_question,
		[KB__FROM_GUEST__BODY_QUESTION_OVER] = on_question_over,
		[KB__FROM_GUEST__BODY_INBOUND] = on_inbound,
	};
	struct kb_link *link = arg;
	Kb__FromGuest *msg;
	size_t kind;
	int r;

	kb_close(&fd); /* a machine hands over nothing */
	msg = stream == 0 ? kb__from_guest__unpack(NULL, len, data) : NULL;
	if (!msg)
		return kb_err_set(err, KB_ERR_INVALID, "the guest sent a malformed message");
	kind = (size_t)msg->body_case;
	if (kind >= KB_ARRAY_LEN(handlers) || !handlers[kind])
		r = kb_err_set(err, KB_ERR_INVALID, "the guest sent an unknown message");
	else if (!link->greeted && kind != KB__FROM_GUEST__BODY_HELLO)
		r = kb_err_set(err, KB_ERR_INVALID, "the guest did not greet");
	else
		r = handlers[kind](link, msg, err);
	kb__from_guest__free_unpacked(msg, NULL);
	return r;
}

static void on_closed(struct kb_channel *ch, const struct kb_err *why, void *arg)
{
	kb_link_fail(arg, why);
}

const struct kb_channel_ops kb_guest_ops = {on_message, on_closed};
