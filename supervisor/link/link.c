/* Role link: theory of operation.
 *
 * Four kinds of channels meet here: main (requests and what became of them), the store (blocks one
 * way, acknowledgements the other), the guest, and the attachments of clients. Only guest.c and
 * check.c look at what the guest says; nothing it sends reaches main, store or a client unchecked.
 *
 * The link ends in one of three ways. main asks it to leave, or is lost: the guest is told to end
 * its sessions and go, blocks go on to the store until it has, then the link exits. Or the guest is
 * lost or says what it may not: main is told why, the guest's channel is closed (which ends what it
 * runs), and the link exits when the guest is gone, so that a session that is reported lost does
 * not go on in secret.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "link_private.h"
#include "proto/role_error.h"
#include "supervisor/base/build.h"
#include "supervisor/base/egress.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/spawn.h"
#include "supervisor/base/util.h"

#define LEAVING_MS    20000 /* for the guest to end its sessions when it was asked to */
#define GUEST_EXIT_MS 5000  /* for the guest to exit once its channel is closed */
#define GUEST_POLL_MS 10
#define FIRST_STREAM  16

/* ---- Telling --------------------------------------------------------------------------------- */

ProtobufCBinaryData kb_link_id(struct kb_link_session *s)
{
	return (ProtobufCBinaryData){.data = s->id, .len = sizeof(s->id)};
}

void kb_link_tell_main(struct kb_link *link, Kb__Role__FromLink *msg)
{
	struct kb_err err;

	if (link->main && kb_channel_send(link->main, 0, &msg->base, -1, &err) < 0)
		kb_log_error("main was not told: %s", err.msg);
}

void kb_link_carried(struct kb_link *link, bool carried, const struct kb_err *why)
{
	Kb__Role__LinkCarried told = KB__ROLE__LINK_CARRIED__INIT;
	Kb__Role__FromLink msg = KB__ROLE__FROM_LINK__INIT;

	told.carried = carried;
	told.reason = why ? (char *)why->msg : NULL;
	msg.body_case = KB__ROLE__FROM_LINK__BODY_CARRIED;
	msg.carried = &told;
	kb_link_tell_main(link, &msg);
}

int kb_link_tell_guest(struct kb_link *link, Kb__ToGuest *msg, struct kb_err *err)
{
	if (!link->guest)
		return kb_err_set(err, KB_ERR_CLOSED, "the machine is gone");
	return kb_channel_send(link->guest, 0, &msg->base, -1, err);
}

void kb_link_ack(struct kb_link *link, const uint8_t id[KB_ULID_SIZE], uint64_t seq)
{
	Kb__AckRecords ack = KB__ACK_RECORDS__INIT;
	Kb__ToGuest msg = KB__TO_GUEST__INIT;
	struct kb_err err;

	ack.session = (ProtobufCBinaryData){.data = (uint8_t *)id, .len = KB_ULID_SIZE};
	ack.seq = seq;
	msg.body_case = KB__TO_GUEST__BODY_ACK;
	msg.ack = &ack;
	if (kb_link_tell_guest(link, &msg, &err) < 0)
		kb_log_debug("an acknowledgement was not sent: %s", err.msg);
}

struct kb_link_session *kb_link_find(struct kb_link *link, ProtobufCBinaryData id)
{
	struct kb_link_session *s;

	TAILQ_FOREACH(s, &link->sessions, entry)
		if (id.len == sizeof(s->id) && memcmp(s->id, id.data, id.len) == 0)
			return s;
	return NULL;
}

void kb_link_session_reap(struct kb_link_session *s)
{
	if (!s->over || !TAILQ_EMPTY(&s->processes))
		return;
	TAILQ_REMOVE(&s->link->sessions, s, entry);
	kb_link_egress_destroy(s);
	kb_link_inbound_destroy(s);
	free(s);
}

/* Processes that are done, and sessions without any left. */
static void reap_done(struct kb_link *link)
{
	struct kb_link_session *s, *next_s;
	struct kb_process *p, *next_p;

	for (s = TAILQ_FIRST(&link->sessions); s; s = next_s) {
		next_s = TAILQ_NEXT(s, entry);
		for (p = TAILQ_FIRST(&s->processes); p; p = next_p) {
			next_p = TAILQ_NEXT(p, entry);
			if (p->done && (p->id != 0 || s->over))
				kb_process_destroy(p);
		}
		kb_link_session_reap(s);
	}
}

/* ---- Ends ------------------------------------------------------------------------------------ */

static bool delivering(const struct kb_link *link)
{
	return !TAILQ_EMPTY(&link->attachments) && link->main;
}

static void stop_if_over(struct kb_link *link)
{
	if (link->guest || link->fault.code || (!link->leaving && link->main) || delivering(link))
		return;
	link->finished = true;
	kb_loop_stop(link->loop);
}

void kb_link_leave(struct kb_link *link, const char *reason)
{
	Kb__Shutdown shutdown = KB__SHUTDOWN__INIT;
	Kb__ToGuest msg = KB__TO_GUEST__INIT;

	if (link->leaving)
		return;
	link->leaving = true;
	shutdown.reason = (char *)reason;
	msg.body_case = KB__TO_GUEST__BODY_SHUTDOWN;
	msg.shutdown = &shutdown;
	if (kb_link_tell_guest(link, &msg, NULL) < 0)
		(void)kb_source_arm(link->kick, 0, NULL);
	(void)kb_source_arm(link->deadline, LEAVING_MS, NULL);
}

/* The guest's streams are gone with its channel: what came before may still be handed on. */
static void forget_guest(struct kb_link *link)
{
	struct kb_link_session *s;
	struct kb_process *p;

	TAILQ_FOREACH(s, &link->sessions, entry) {
		kb_link_egress_forget_guest(s);
		kb_link_inbound_destroy(s);
	}
	kb_channel_destroy(link->guest);
	link->guest = NULL;
	TAILQ_FOREACH(s, &link->sessions, entry)
		TAILQ_FOREACH(p, &s->processes, entry) {
			p->in.dst = NULL;
			for (int i = 0; i < 3; i++) {
				p->streams[i] = NULL;
				p->out[i].src = NULL;
			}
		}
}

void kb_link_fail(struct kb_link *link, const struct kb_err *why)
{
	bool asked = link->leaving && !why;

	forget_guest(link);
	if (why)
		link->fault = *why;
	else if (!asked)
		kb_err_set(&link->fault, KB_ERR_CLOSED, "the machine's guest was lost");
	(void)kb_source_arm(link->kick, 0, NULL);
}

/* Wait, bounded, until the guest has exited; how it did goes into text. */
static void await_guest(struct kb_link *link, char text[KB_EXIT_TEXT])
{
	int64_t deadline = kb_now_mono() + (int64_t)GUEST_EXIT_MS * 1000000;
	int status = 0;
	pid_t r;

	while ((r = waitpid(link->guest_pid, &status, WNOHANG)) == 0 && kb_now_mono() < deadline)
		usleep(GUEST_POLL_MS * 1000);
	if (r == 0) {
		kb_log_error("the guest (pid %d) does not exit: killed", (int)link->guest_pid);
		kill(link->guest_pid, SIGKILL);
		r = waitpid(link->guest_pid, &status, 0);
	}
	kb_exit_describe(status, text);
}

/* After the loop: nothing is heard any more. */
static void say_lost(struct kb_link *link)
{
	Kb__Role__LinkLost lost = KB__ROLE__LINK_LOST__INIT;
	Kb__Role__LinkReady ready = KB__ROLE__LINK_READY__INIT;
	Kb__Role__FromLink msg = KB__ROLE__FROM_LINK__INIT;
	Kb__Role__RoleError error;
	char how[KB_EXIT_TEXT] = "";

	if (link->guest_pid > 0)
		await_guest(link, how);
	if (link->fault.code == KB_ERR_CLOSED && how[0])
		kb_err_set(&link->fault, KB_ERR_CLOSED, "the machine's guest was lost (%s)", how);
	kb_role_error_fill(&error, &link->fault);
	if (link->greeted) {
		lost.error = &error;
		msg.body_case = KB__ROLE__FROM_LINK__BODY_LOST;
		msg.lost = &lost;
	} else {
		ready.error = &error;
		msg.body_case = KB__ROLE__FROM_LINK__BODY_READY;
		msg.ready = &ready;
	}
	kb_link_tell_main(link, &msg);
	link->status = 1;
}

static void on_kick(void *arg)
{
	struct kb_link *link = arg;

	reap_done(link);
	if (link->fault.code != 0) {
		link->finished = true;
		kb_loop_stop(link->loop);
	}
	stop_if_over(link);
}

static void on_deadline(void *arg)
{
	struct kb_link *link = arg;

	kb_err_set(&link->fault, KB_ERR_TIMEOUT,
		link->leaving ? "the machine's guest did not leave within %d s"
			      : "the machine's guest did not greet within %d s",
		(link->leaving ? LEAVING_MS : link->transport->greeting_ms) / 1000);
	on_kick(link);
}

/* ---- From main ------------------------------------------------------------------------------- */

static void on_store_message_ack(struct kb_link *link, const Kb__Role__AckBlock *ack)
{
	struct kb_link_session *s = kb_link_find(link, ack->session);
	uint64_t seq;

	if (!s)
		return;
	s->discard = s->discard || ack->discarded;
	if (s->over || ack->seq > s->stored)
		return;
	seq = kb_link_egress_acked(s, ack->seq);
	if (seq > 0)
		kb_link_ack(link, s->id, seq);
}

static int on_store_message(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len,
	int fd, void *arg, struct kb_err *err)
{
	struct kb_link *link = arg;
	Kb__Role__StoreToLink *msg = kb__role__store_to_link__unpack(NULL, len, data);

	kb_close(&fd);
	if (!msg)
		return kb_err_set(err, KB_ERR_INVALID, "the store sent a malformed message");
	if (msg->body_case == KB__ROLE__STORE_TO_LINK__BODY_ACK)
		on_store_message_ack(link, msg->ack);
	kb__role__store_to_link__free_unpacked(msg, NULL);
	return 0;
}

/* Whatever its sessions still send has no place to go; main ends them. */
static void drop_store(struct kb_link *link)
{
	struct kb_link_session *s;

	kb_channel_destroy(link->store);
	link->store = NULL;
	TAILQ_FOREACH(s, &link->sessions, entry) {
		s->discard = true;
		if (s->received > 0 && !s->over)
			kb_link_ack(link, s->id, s->received);
	}
	if (link->guest)
		kb_channel_pause(link->guest, false);
}

static void on_store_closed(struct kb_channel *ch, const struct kb_err *why, void *arg)
{
	kb_log_warn("the store is gone%s%s", why ? ": " : "", why ? why->msg : "");
	drop_store(arg);
}

static const struct kb_channel_ops store_ops = {on_store_message, on_store_closed};

static int on_use_store(
	struct kb_link *link, const Kb__Role__ToLink *msg, int fd, struct kb_err *err)
{
	if (fd < 0)
		return kb_err_set(err, KB_ERR_INVALID, "a store without its channel");
	if (link->store)
		drop_store(link);
	return kb_channel_create(link->loop, fd, &store_ops, link, &link->store, err);
}

static void fail_start(
	struct kb_link *link, ProtobufCBinaryData id, uint64_t process, const struct kb_err *why)
{
	Kb__Role__LinkFailed failed = KB__ROLE__LINK_FAILED__INIT;
	Kb__Role__FromLink out = KB__ROLE__FROM_LINK__INIT;
	Kb__Role__RoleError error;

	kb_role_error_fill(&error, why);
	failed.session = id;
	failed.process_id = process;
	failed.error = &error;
	out.body_case = KB__ROLE__FROM_LINK__BODY_FAILED;
	out.failed = &failed;
	kb_link_tell_main(link, &out);
}

/* Attach fd (taken; -1: detached) to a fresh process. */
static int connect_process(struct kb_process *p, int fd, struct kb_err *err)
{
	if (fd >= 0)
		return kb_process_attach(p, fd, err);
	kb_process_no_input(p);
	return 0;
}

/* The broker that was announced for it, if one was. */
static int give_broker(struct kb_link_session *s, Kb__StartSession *start, struct kb_err *err)
{
	struct kb_link *link = s->link;
	uint32_t base = KB_EGRESS_BASE + link->next_egress * KB_EGRESS_STREAMS;

	start->has_egress = link->next_broker >= 0;
	if (!start->has_egress)
		return 0;
	link->next_egress = (link->next_egress + 1) % (KB_EGRESS_BASE / KB_EGRESS_STREAMS);
	start->egress = base;
	return kb_link_egress_create(s, kb_steal_fd(&link->next_broker), base, err);
}

static int on_broker(struct kb_link *link, const Kb__Role__ToLink *msg, int fd, struct kb_err *err)
{
	kb_close(&link->next_broker);
	link->next_broker = fd;
	return fd >= 0 ? 0 : kb_err_set(err, KB_ERR_INVALID, "a broker without its channel");
}

static int start_session(struct kb_link *link, Kb__StartSession *start, int fd, struct kb_err *err)
{
	KB_CLOSE int guard = fd;
	struct kb_link_session *s = calloc(1, sizeof(*s));
	Kb__ToGuest out = KB__TO_GUEST__INIT;
	struct kb_process *p;
	int r;

	if (!s)
		return kb_err_nomem(err);
	s->link = link;
	memcpy(s->id, start->session.data, KB_ULID_SIZE);
	TAILQ_INIT(&s->processes);
	TAILQ_INSERT_TAIL(&link->sessions, s, entry);
	r = give_broker(s, start, err);
	if (r == 0)
		r = kb_process_create(s, 0, start->process->tty, &p, err);
	if (r == 0)
		r = connect_process(p, kb_steal_fd(&guard), err);
	if (r == 0) {
		start->process->stdio = p->stdio;
		out.body_case = KB__TO_GUEST__BODY_START;
		out.start = start;
		r = kb_link_tell_guest(link, &out, err);
	}
	if (r < 0) {
		s->over = true;
		while (!TAILQ_EMPTY(&s->processes))
			kb_process_destroy(TAILQ_FIRST(&s->processes));
		kb_link_session_reap(s);
	}
	return r;
}

static int on_start(struct kb_link *link, const Kb__Role__ToLink *msg, int fd, struct kb_err *err)
{
	KB_CLOSE int guard = fd;
	Kb__StartSession *start =
		kb__start_session__unpack(NULL, msg->start->start.len, msg->start->start.data);
	struct kb_err why;
	int r;

	if (!start || start->session.len != KB_ULID_SIZE || kb_link_find(link, start->session)) {
		if (start)
			kb__start_session__free_unpacked(start, NULL);
		return kb_err_set(err, KB_ERR_INVALID, "main sent a malformed start");
	}
	if (link->leaving)
		r = kb_err_set(&why, KB_ERR_CLOSED, "the machine is being left");
	else
		r = start_session(link, start, kb_steal_fd(&guard), &why);
	if (r < 0)
		fail_start(link, start->session, 0, &why);
	kb__start_session__free_unpacked(start, NULL);
	return 0;
}

static int on_attach(struct kb_link *link, const Kb__Role__ToLink *msg, int fd, struct kb_err *err)
{
	KB_CLOSE int guard = fd;
	struct kb_link_session *s = kb_link_find(link, msg->attach->session);
	struct kb_process *p = s && !s->over ? kb_process_find(s, 0) : NULL;
	Kb__Resize resize = KB__RESIZE__INIT;
	Kb__Winsize size = KB__WINSIZE__INIT;
	Kb__ToGuest out = KB__TO_GUEST__INIT;
	struct kb_err why;

	if (!p || guard < 0)
		return 0; /* it ended meanwhile: main tells the client */
	if (kb_process_attach(p, kb_steal_fd(&guard), &why) < 0) {
		kb_log_error("a client could not be attached: %s", why.msg);
		return 0;
	}
	if (!p->tty || !msg->attach->has_rows)
		return 0;
	size.rows = KB_MIN(msg->attach->rows, UINT16_MAX);
	size.cols = KB_MIN(msg->attach->cols, UINT16_MAX);
	resize.session = kb_link_id(s);
	resize.size = &size;
	out.body_case = KB__TO_GUEST__BODY_RESIZE;
	out.resize = &resize;
	(void)kb_link_tell_guest(link, &out, NULL);
	return 0;
}

static int start_process(
	struct kb_link_session *s, uint64_t id, Kb__ProcessSpec *spec, int fd, struct kb_err *err)
{
	KB_CLOSE int guard = fd;
	Kb__ExecProcess exec = KB__EXEC_PROCESS__INIT;
	Kb__ToGuest out = KB__TO_GUEST__INIT;
	struct kb_process *p;
	int r = kb_process_create(s, id, spec->tty, &p, err);

	if (r < 0)
		return r;
	r = connect_process(p, kb_steal_fd(&guard), err);
	if (r == 0) {
		spec->stdio = p->stdio;
		exec.session = kb_link_id(s);
		exec.process_id = id;
		exec.process = spec;
		out.body_case = KB__TO_GUEST__BODY_EXEC;
		out.exec = &exec;
		r = kb_link_tell_guest(s->link, &out, err);
	}
	if (r < 0)
		kb_process_destroy(p);
	return r;
}

static int on_exec(struct kb_link *link, const Kb__Role__ToLink *msg, int fd, struct kb_err *err)
{
	KB_CLOSE int guard = fd;
	const Kb__Role__LinkExec *exec = msg->exec;
	struct kb_link_session *s = kb_link_find(link, exec->session);
	Kb__ProcessSpec *spec =
		kb__process_spec__unpack(NULL, exec->process.len, exec->process.data);
	struct kb_err why;
	int r;

	if (!spec || exec->process_id == 0 || (s && kb_process_find(s, exec->process_id)))
		r = kb_err_set(err, KB_ERR_INVALID, "main sent a malformed exec");
	else if (!s || s->over)
		r = 0, kb_err_set(&why, KB_ERR_CLOSED, "the session has ended");
	else if (start_process(s, exec->process_id, spec, kb_steal_fd(&guard), &why) == 0)
		r = 1;
	else
		r = 0;
	if (r == 0)
		fail_start(link, exec->session, exec->process_id, &why);
	if (spec)
		kb__process_spec__free_unpacked(spec, NULL);
	return r < 0 ? r : 0;
}

static int on_stop(struct kb_link *link, const Kb__Role__ToLink *msg, int fd, struct kb_err *err)
{
	struct kb_link_session *s = kb_link_find(link, msg->stop->session);
	Kb__StopSession stop = KB__STOP_SESSION__INIT;
	Kb__ToGuest out = KB__TO_GUEST__INIT;
	struct kb_err why;

	kb_close(&fd);
	if (!s || s->over)
		return 0;
	stop.session = kb_link_id(s);
	stop.has_now = 1;
	stop.now = msg->stop->now;
	stop.reason = msg->stop->reason;
	out.body_case = KB__TO_GUEST__BODY_STOP;
	out.stop = &stop;
	if (kb_link_tell_guest(link, &out, &why) < 0)
		kb_log_error("a stop was not sent: %s", why.msg);
	return 0;
}

static int on_answer(struct kb_link *link, const Kb__Role__ToLink *msg, int fd, struct kb_err *err)
{
	struct kb_link_session *s = kb_link_find(link, msg->answer->session);
	Kb__Answer answer = KB__ANSWER__INIT;
	Kb__ToGuest out = KB__TO_GUEST__INIT;
	struct kb_err why;

	kb_close(&fd);
	if (!s || s->over)
		return 0;
	answer.session = kb_link_id(s);
	answer.number = msg->answer->number;
	answer.verdict = msg->answer->verdict;
	answer.note = msg->answer->note;
	out.body_case = KB__TO_GUEST__BODY_ANSWER;
	out.answer = &answer;
	if (kb_link_tell_guest(link, &out, &why) < 0)
		kb_log_error("an answer was not sent: %s", why.msg);
	return 0;
}

static int on_publish(struct kb_link *link, const Kb__Role__ToLink *msg, int fd, struct kb_err *err)
{
	return kb_link_inbound_publish(link, msg->publish, fd, err);
}

static int on_shutdown(
	struct kb_link *link, const Kb__Role__ToLink *msg, int fd, struct kb_err *err)
{
	kb_close(&fd);
	kb_link_leave(link, msg->shutdown->reason);
	return 0;
}

static int on_main_message(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len,
	int fd, void *arg, struct kb_err *err)
{
	/* Each takes fd. */
	static int (*const handlers[])(
		struct kb_link *, const Kb__Role__ToLink *, int, struct kb_err *) = {
		[KB__ROLE__TO_LINK__BODY_STORE] = on_use_store,
		[KB__ROLE__TO_LINK__BODY_START] = on_start,
		[KB__ROLE__TO_LINK__BODY_ATTACH] = on_attach,
		[KB__ROLE__TO_LINK__BODY_EXEC] = on_exec,
		[KB__ROLE__TO_LINK__BODY_STOP] = on_stop,
		[KB__ROLE__TO_LINK__BODY_SHUTDOWN] = on_shutdown,
		[KB__ROLE__TO_LINK__BODY_BROKER] = on_broker,
		[KB__ROLE__TO_LINK__BODY_ANSWER] = on_answer,
		[KB__ROLE__TO_LINK__BODY_PUBLISH] = on_publish,
	};
	Kb__Role__ToLink *msg = kb__role__to_link__unpack(NULL, len, data);
	size_t kind = msg ? (size_t)msg->body_case : 0;
	int r;

	if (kind < KB_ARRAY_LEN(handlers) && handlers[kind]) {
		r = handlers[kind](arg, msg, fd, err);
	} else {
		kb_close(&fd);
		r = kb_err_set(err, KB_ERR_INVALID, "main sent a malformed message");
	}
	if (msg)
		kb__role__to_link__free_unpacked(msg, NULL);
	return r;
}

static void on_main_closed(struct kb_channel *ch, const struct kb_err *why, void *arg)
{
	struct kb_link *link = arg;

	kb_log_warn("main is gone%s%s", why ? ": " : "", why ? why->msg : "");
	kb_channel_destroy(link->main);
	link->main = NULL;
	kb_link_leave(link, "the supervisor's main process was lost");
}

static const struct kb_channel_ops main_ops = {on_main_message, on_main_closed};

/* ---- Timers ---------------------------------------------------------------------------------- */

static void on_progress(void *arg)
{
	struct kb_link *link = arg;
	struct kb_link_session *s;

	TAILQ_FOREACH(s, &link->sessions, entry) {
		Kb__Role__LinkProgress told = KB__ROLE__LINK_PROGRESS__INIT;
		Kb__Role__FromLink out = KB__ROLE__FROM_LINK__INIT;

		if (s->told_records == s->stored)
			continue;
		s->told_records = s->stored;
		told.session = kb_link_id(s);
		told.records = s->stored;
		told.denials = s->denials;
		out.body_case = KB__ROLE__FROM_LINK__BODY_PROGRESS;
		out.progress = &told;
		kb_link_tell_main(link, &out);
	}
}

/* The store was slower than the guest: read the guest again once the queue is short. */
static void on_drain(void *arg)
{
	struct kb_link *link = arg;

	if (!link->guest)
		return;
	if (link->store && kb_channel_queued(link->store) > KB_LINK_QUEUE_LOW)
		(void)kb_source_arm(link->drain, 5, NULL);
	else
		kb_channel_pause(link->guest, false);
}

/* ---- Life ------------------------------------------------------------------------------------ */

static int greet_guest(struct kb_link *link, struct kb_err *err)
{
	Kb__Hello hello = KB__HELLO__INIT;
	Kb__ToGuest msg = KB__TO_GUEST__INIT;

	hello.protocol = KB_LINK_PROTOCOL;
	hello.build = (char *)kb_build_id();
	msg.body_case = KB__TO_GUEST__BODY_HELLO;
	msg.hello = &hello;
	return kb_link_tell_guest(link, &msg, err);
}

static const struct kb_transport *const transports[] = {
	&kb_transport_pipe, &kb_transport_serial, &kb_transport_ssh};

static int find_transport(struct kb_link *link, struct kb_err *err)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(transports); i++)
		if (strcmp(transports[i]->name, link->options->transport) == 0)
			link->transport = transports[i];
	return link->transport
		       ? 0
		       : kb_err_set(err, KB_ERR_INVALID, "machine %s: no transport is named %s",
				 link->options->machine, link->options->transport);
}

static int open_guest(struct kb_link *link, struct kb_err *err)
{
	int fd = -1, r = find_transport(link, err);

	if (r == 0)
		r = link->transport->open(link, &fd, err);
	if (r == 0)
		r = kb_channel_create(link->loop, fd, &kb_guest_ops, link, &link->guest, err);
	if (r == 0)
		r = greet_guest(link, err);
	if (r == 0)
		r = kb_source_arm(link->deadline, link->transport->greeting_ms, err);
	return r;
}

static int set_up(struct kb_link *link, int fd, struct kb_err *err)
{
	int r = kb_loop_create(&link->loop, err);

	if (r == 0)
		r = kb_loop_timer(link->loop, on_kick, link, &link->kick, err);
	if (r == 0)
		r = kb_loop_timer(link->loop, on_deadline, link, &link->deadline, err);
	if (r == 0)
		r = kb_loop_timer(link->loop, on_progress, link, &link->progress, err);
	if (r == 0)
		r = kb_loop_timer(link->loop, on_drain, link, &link->drain, err);
	if (r == 0)
		r = kb_channel_create(link->loop, fd, &main_ops, link, &link->main, err);
	return r;
}

static void tear_down(struct kb_link *link)
{
	struct kb_link_session *s;

	while ((s = TAILQ_FIRST(&link->sessions))) {
		while (!TAILQ_EMPTY(&s->processes))
			kb_process_destroy(TAILQ_FIRST(&s->processes));
		s->over = true;
		kb_link_session_reap(s);
	}
	while (!TAILQ_EMPTY(&link->attachments))
		kb_attachment_destroy(TAILQ_FIRST(&link->attachments));
	kb_channel_destroy(link->guest);
	if (link->transport && link->transport->close)
		link->transport->close(link);
	kb_channel_destroy(link->store);
	kb_channel_destroy(link->main);
	kb_close(&link->next_broker);
	kb_source_destroy(link->kick);
	kb_source_destroy(link->deadline);
	kb_source_destroy(link->progress);
	kb_source_destroy(link->drain);
	kb_loop_destroy(link->loop);
}

int kb_link_role(int fd, const struct kb_link_options *options)
{
	struct kb_link link = {.options = options, .next_stream = FIRST_STREAM, .next_broker = -1};
	struct kb_err err;

	signal(SIGPIPE, SIG_IGN);
	TAILQ_INIT(&link.sessions);
	TAILQ_INIT(&link.attachments);
	if (set_up(&link, fd, &err) < 0) {
		kb_log_error("%s", err.msg);
		return 1;
	}
	if (open_guest(&link, &link.fault) == 0)
		link.fault.code = 0;
	while (link.fault.code == 0 && !link.finished && kb_loop_run(link.loop, &err) == 0)
		;
	if (link.fault.code != 0) {
		forget_guest(&link);
		say_lost(&link);
	}
	tear_down(&link);
	return link.status;
}
