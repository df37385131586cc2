/* store and readers as main knows them: what they say, what their loss means, and how they come
 * back. For links see places.c. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "main.h"
#include "proto/role_error.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/spawn.h"
#include "supervisor/base/util.h"

#define RESPAWN_MS  200 /* after the first failure; doubles */
#define RESPAWN_MAX 5	/* failures in a row, then only a new request tries again */

static const struct kb_process_kind store_kind, reader_kind;

void kb_peers_tell(struct kb_main *m, const struct kb_place *place, bool queued,
	enum kb_live_event event, const struct kb_err *why)
{
	struct kb_live *live, *next;

	for (live = TAILQ_FIRST(&m->lives); live; live = next) {
		next = TAILQ_NEXT(live, entry);
		if ((!place || live->place == place) && (!queued || live->state == KB_LIVE_QUEUED))
			kb_live_event(live, event, why);
	}
}

/* ---- Coming up ------------------------------------------------------------------------------- */

int kb_peers_ensure_store(struct kb_main *m, struct kb_err *err)
{
	int r;

	if (m->stopping != KB_RUNS)
		return kb_err_set(err, KB_ERR_UNREACHABLE, "the supervisor is leaving");
	if (m->store)
		return 0;
	r = kb_process_start(m, &store_kind, NULL, &m->store, err);
	if (r == 0)
		kb_places_use_store(m);
	return r;
}

void kb_peers_ensure(struct kb_main *m)
{
	struct kb_place *place, *next;
	struct kb_err err;

	if (m->stopping != KB_RUNS)
		return;
	if (kb_peers_ensure_store(m, &err) < 0) {
		kb_log_error("%s", err.msg);
		kb_peers_tell(m, NULL, true, KB_EV_FAILED, &err);
		return;
	}
	for (place = TAILQ_FIRST(&m->places); place; place = next) {
		next = TAILQ_NEXT(place, entry);
		if (!kb_place_is_needed(place) || kb_place_ensure(place, &err) == 0)
			continue;
		kb_log_error("%s", err.msg);
		kb_peers_tell(m, place, true, KB_EV_FAILED, &err);
	}
}

void kb_peers_respawn(struct kb_main *m, unsigned failures)
{
	if (m->stopping == KB_RUNS && failures < RESPAWN_MAX)
		(void)kb_source_arm(m->respawn, failures ? RESPAWN_MS << failures : 0, NULL);
}

/* ---- store ----------------------------------------------------------------------------------- */

static void ask_held(struct kb_main *m);

static void store_up(struct kb_role_process *p)
{
	struct kb_main *m = p->main;
	struct kb_place *place;

	p->state = KB_PROCESS_UP;
	m->failures = 0;
	kb_log_info("%s (pid %d) is up after %lld ms", p->kind->role, (int)p->pid,
		(long long)(kb_now_mono() - p->started) / 1000000);
	TAILQ_FOREACH(place, &m->places, entry)
		if (kb_place_ready(place))
			kb_peers_tell(m, place, true, KB_EV_READY, NULL);
	ask_held(m);
}

static int on_store_ready(struct kb_role_process *p, const Kb__Role__StoreReady *msg)
{
	if (msg->error)
		kb_role_error_read(msg->error, &p->last_words);
	else
		store_up(p);
	return 0;
}

static int on_finished(struct kb_role_process *p, const Kb__Role__SessionFinished *msg)
{
	struct kb_live *live = kb_live_by_id(p->main, msg->session);
	struct kb_err err;

	if (!live)
		kb_import_finished(p, msg);
	if (!live || live->store != p)
		return 0;
	live->complete = live->complete && msg->complete;
	if (msg->error) {
		kb_role_error_read(msg->error, &err);
		kb_log_error("session %s: its record is not finished: %s", live->name, err.msg);
		live->complete = false;
	} else {
		live->records = msg->records;
		live->denials = msg->denials;
		live->lost = msg->lost;
		live->commands = msg->commands;
	}
	kb_live_event(live, KB_EV_FINISHED, NULL);
	return 0;
}

static int on_unstorable(struct kb_role_process *p, const Kb__Role__SessionUnstorable *msg)
{
	struct kb_live *live = kb_live_by_id(p->main, msg->session);
	struct kb_err err = {0};

	kb_role_error_read(msg->error, &err);
	kb_err_prefix(&err, "its records cannot be kept");
	if (!live)
		kb_import_unstorable(p, msg->session, &err);
	else if (live->store == p)
		kb_live_event(live, KB_EV_UNSTORABLE, &err);
	return 0;
}

static int on_pruned(struct kb_role_process *p, const Kb__Role__StorePruned *msg)
{
	kb_chore_pruned(p, msg);
	return 0;
}

static int store_message(
	struct kb_role_process *p, const uint8_t *data, size_t len, struct kb_err *err)
{
	Kb__Role__FromStore *msg = kb__role__from_store__unpack(NULL, len, data);
	int r = -KB_ERR_INVALID;

	if (!msg)
		return kb_err_set(err, KB_ERR_INVALID, "a malformed message");
	if (msg->body_case == KB__ROLE__FROM_STORE__BODY_READY)
		r = on_store_ready(p, msg->ready);
	else if (msg->body_case == KB__ROLE__FROM_STORE__BODY_FINISHED)
		r = on_finished(p, msg->finished);
	else if (msg->body_case == KB__ROLE__FROM_STORE__BODY_UNSTORABLE)
		r = on_unstorable(p, msg->unstorable);
	else if (msg->body_case == KB__ROLE__FROM_STORE__BODY_PRUNED)
		r = on_pruned(p, msg->pruned);
	else
		r = kb_err_set(err, KB_ERR_INVALID, "an unknown message");
	kb__role__from_store__free_unpacked(msg, NULL);
	return r;
}

/* Lost before it was up: whoever waits for it hears why. */
static void store_gone(struct kb_role_process *p, const struct kb_err *why)
{
	struct kb_main *m = p->main;
	struct kb_live *live, *next;

	m->store = NULL;
	kb_chores_store_gone(p, why);
	kb_imports_store_gone(p, why);
	for (live = TAILQ_FIRST(&m->lives); live; live = next) {
		next = TAILQ_NEXT(live, entry);
		if (live->store == p)
			kb_live_event(live, KB_EV_STORE_LOST, why);
	}
	if (p->state == KB_PROCESS_STARTING && m->stopping == KB_RUNS) {
		m->failures++;
		kb_peers_tell(m, NULL, true, KB_EV_FAILED, why);
	}
	ask_held(m);
	kb_peers_respawn(m, m->failures);
}

static const struct kb_process_kind store_kind = {"store", 0, store_message, store_gone};

/* ---- reader ---------------------------------------------------------------------------------- */

static void answer_done(struct kb_conn *conn, uint32_t request, int status)
{
	Kb__Control__Done done = KB__CONTROL__DONE__INIT;
	Kb__Control__Reply reply = KB__CONTROL__REPLY__INIT;

	done.has_status = 1;
	done.status = status;
	reply.body_case = KB__CONTROL__REPLY__BODY_DONE;
	reply.done = &done;
	kb_conn_reply(conn, request, &reply);
}

static int reader_message(
	struct kb_role_process *p, const uint8_t *data, size_t len, struct kb_err *err)
{
	Kb__Role__FromReader *msg = kb__role__from_reader__unpack(NULL, len, data);
	struct kb_err why = {0};

	if (!msg)
		return kb_err_set(err, KB_ERR_INVALID, "a malformed message");
	p->expected = true;
	if (msg->error)
		kb_role_error_read(msg->error, &why);
	if (p->conn && msg->error)
		kb_conn_error(p->conn, p->request, &why);
	else if (p->conn)
		answer_done(p->conn, p->request, msg->status);
	if (p->conn)
		p->conn->watches--;
	p->conn = NULL;
	kb__role__from_reader__free_unpacked(msg, NULL);
	return 0;
}

static void reader_gone(struct kb_role_process *p, const struct kb_err *why)
{
	if (!p->conn)
		return;
	p->conn->watches--;
	kb_conn_error(p->conn, p->request, why);
}

static const struct kb_process_kind reader_kind = {
	"reader", KB_SPAWN_PDEATHSIG, reader_message, reader_gone};

/* A reader opens the store read-only: it can only be asked once the store process has made, or
 * mended, what there is to read. When that process failed the reader says what is wrong itself. */
static bool store_is_settled(const struct kb_main *m)
{
	return !m->store || m->store->state == KB_PROCESS_UP;
}

static int ask(struct kb_role_process *p, struct kb_err *err)
{
	Kb__Role__ToReader msg = KB__ROLE__TO_READER__INIT;
	int r;

	msg.request = p->question;
	r = kb_process_send(p, &msg.base, p->out_fd, err);
	kb_close(&p->out_fd);
	free(p->question.data);
	p->question = (ProtobufCBinaryData){0};
	return r;
}

static void ask_held(struct kb_main *m)
{
	struct kb_role_process *p;
	struct kb_err err;

	TAILQ_FOREACH(p, &m->processes, entry)
		if (p->question.data && ask(p, &err) < 0)
			kb_log_error("%s", err.msg); /* it is gone: reader_gone answers */
}

static int keep_question(struct kb_role_process *p, const Kb__Control__AskRequest *question, int fd,
	struct kb_err *err)
{
	size_t len = kb__control__ask_request__get_packed_size(question);

	p->out_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (p->out_fd < 0)
		return kb_err_sys(err, errno, "keeping where the answer goes");
	p->question.data = malloc(len + 1);
	if (!p->question.data)
		return kb_err_nomem(err);
	p->question.len = kb__control__ask_request__pack(question, p->question.data);
	return 0;
}

int kb_peers_ask(struct kb_conn *conn, uint32_t request, const Kb__Control__AskRequest *question,
	int fd, struct kb_err *err)
{
	struct kb_role_process *p = NULL;
	int r;

	if (conn->watches >= KB_WATCHES_MAX)
		return kb_err_set(
			err, KB_ERR_LIMIT, "more than %d requests are waiting", KB_WATCHES_MAX);
	r = kb_process_start(conn->main, &reader_kind, NULL, &p, err);
	if (r < 0)
		return r;
	p->state = KB_PROCESS_UP;
	r = keep_question(p, question, fd, err);
	if (r == 0 && store_is_settled(conn->main))
		r = ask(p, err);
	if (r < 0) {
		kb_process_close(p);
		return r;
	}
	p->conn = conn;
	p->request = request;
	conn->watches++;
	return 0;
}
