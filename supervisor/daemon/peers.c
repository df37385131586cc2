/* store, link and readers as main knows them: what they say, what their loss means, and how they
 * come back. */
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

static const struct kb_process_kind store_kind, link_kind, reader_kind;

static void all_lives(struct kb_main *m, enum kb_live_event event, const struct kb_err *why,
	bool (*concerns)(const struct kb_live *live, const void *arg), const void *arg)
{
	struct kb_live *live, *next;

	for (live = TAILQ_FIRST(&m->lives); live; live = next) {
		next = TAILQ_NEXT(live, entry);
		if (concerns(live, arg))
			kb_live_event(live, event, why);
	}
}

static bool is_queued(const struct kb_live *live, const void *arg)
{
	return live->state == KB_LIVE_QUEUED;
}

static bool on_store(const struct kb_live *live, const void *store)
{
	return live->store == store;
}

static bool on_link(const struct kb_live *live, const void *link)
{
	return live->link == link;
}

/* ---- Coming up ------------------------------------------------------------------------------- */

/* A channel of their own: what records say never passes through main. */
static int connect_store_and_link(struct kb_main *m, struct kb_err *err)
{
	Kb__Role__AddLink add = KB__ROLE__ADD_LINK__INIT;
	Kb__Role__UseStore use = KB__ROLE__USE_STORE__INIT;
	Kb__Role__ToStore to_store = KB__ROLE__TO_STORE__INIT;
	Kb__Role__ToLink to_link = KB__ROLE__TO_LINK__INIT;
	int pair[2], r = kb_fd_socketpair(false, pair, err);

	if (r < 0)
		return r;
	add.link = m->link->number;
	to_store.body_case = KB__ROLE__TO_STORE__BODY_LINK;
	to_store.link = &add;
	to_link.body_case = KB__ROLE__TO_LINK__BODY_STORE;
	to_link.store = &use;
	r = kb_process_send(m->store, &to_store.base, pair[0], err);
	if (r == 0)
		r = kb_process_send(m->link, &to_link.base, pair[1], err);
	kb_close(&pair[0]);
	kb_close(&pair[1]);
	return r;
}

static int start_missing(struct kb_main *m, struct kb_err *err)
{
	bool fresh = !m->store || !m->link;
	int r = 0;

	if (!m->store)
		r = kb_process_start(m, &store_kind, &m->store, err);
	if (r == 0 && !m->link)
		r = kb_process_start(m, &link_kind, &m->link, err);
	return r == 0 && fresh ? connect_store_and_link(m, err) : r;
}

void kb_peers_ensure(struct kb_main *m)
{
	struct kb_err err;

	if (m->stopping != KB_RUNS || start_missing(m, &err) == 0)
		return;
	kb_log_error("%s", err.msg);
	all_lives(m, KB_EV_FAILED, &err, is_queued, NULL);
}

bool kb_peers_ready(const struct kb_main *m)
{
	return m->store && m->link && m->store->state == KB_PROCESS_UP &&
	       m->link->state == KB_PROCESS_UP;
}

static void came_up(struct kb_role_process *p)
{
	struct kb_main *m = p->main;

	p->state = KB_PROCESS_UP;
	kb_log_info("%s (pid %d) is up after %lld ms", p->kind->role, (int)p->pid,
		(long long)(kb_now_mono() - p->started) / 1000000);
	if (!kb_peers_ready(m))
		return;
	m->failures = 0;
	all_lives(m, KB_EV_READY, NULL, is_queued, NULL);
}

/* Lost before it was up: whoever waits for it hears why. Then it is tried again, not too often. */
static void respawn(struct kb_role_process *p, const struct kb_err *why)
{
	struct kb_main *m = p->main;

	if (m->stopping != KB_RUNS)
		return;
	if (p->state == KB_PROCESS_STARTING) {
		m->failures++;
		all_lives(m, KB_EV_FAILED, why, is_queued, NULL);
	}
	if (m->failures < RESPAWN_MAX)
		(void)kb_source_arm(m->respawn, m->failures ? RESPAWN_MS << m->failures : 0, NULL);
}

/* ---- store ----------------------------------------------------------------------------------- */

static int on_store_ready(struct kb_role_process *p, const Kb__Role__StoreReady *msg)
{
	if (msg->error)
		kb_role_error_read(msg->error, &p->last_words);
	else
		came_up(p);
	return 0;
}

static int on_finished(struct kb_role_process *p, const Kb__Role__SessionFinished *msg)
{
	struct kb_live *live = kb_live_by_id(p->main, msg->session);
	struct kb_err err;

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
	if (live && live->store == p)
		kb_live_event(live, KB_EV_UNSTORABLE, &err);
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
	else
		r = kb_err_set(err, KB_ERR_INVALID, "an unknown message");
	kb__role__from_store__free_unpacked(msg, NULL);
	return r;
}

static void store_gone(struct kb_role_process *p, const struct kb_err *why)
{
	struct kb_main *m = p->main;

	m->store = NULL;
	all_lives(m, KB_EV_STORE_LOST, why, on_store, p);
	respawn(p, why);
}

static const struct kb_process_kind store_kind = {"store", 0, store_message, store_gone};

/* ---- link ------------------------------------------------------------------------------------ */

void kb_machine_facts_finish(struct kb_machine_facts *facts)
{
	free(facts->runtime);
	free(facts->runtime_why);
	free(facts->kernel);
	for (size_t i = 0; i < facts->n_limits_missing; i++)
		free(facts->limits_missing[i]);
	free(facts->limits_missing);
	*facts = (struct kb_machine_facts){0};
}

static char *copy_text(const char *text)
{
	return text ? strdup(text) : NULL;
}

static void keep_facts(struct kb_machine_facts *facts, const Kb__Role__LinkReady *msg)
{
	kb_machine_facts_finish(facts);
	facts->runtime = copy_text(msg->runtime);
	facts->runtime_why = copy_text(msg->runtime_why);
	facts->kernel = copy_text(msg->kernel);
	facts->landlock_abi = msg->landlock_abi;
	facts->arch = msg->arch;
	facts->rootless = msg->rootless;
	facts->guest_pid = (pid_t)msg->guest_pid;
	facts->limits_missing = calloc(msg->n_limits_missing + 1, sizeof(char *));
	for (size_t i = 0; facts->limits_missing && i < msg->n_limits_missing; i++) {
		char *line = strdup(msg->limits_missing[i]);

		if (line)
			facts->limits_missing[facts->n_limits_missing++] = line;
	}
}

static void on_link_ready(struct kb_role_process *p, const Kb__Role__FromLink *msg)
{
	if (msg->ready->error) {
		kb_role_error_read(msg->ready->error, &p->last_words);
		return;
	}
	keep_facts(&p->main->facts, msg->ready);
	came_up(p);
}

static void on_link_lost(struct kb_role_process *p, const Kb__Role__FromLink *msg)
{
	kb_role_error_read(msg->lost->error, &p->last_words);
}

/* The session of a message, if it is this link's. */
static struct kb_live *live_of(struct kb_role_process *p, ProtobufCBinaryData id)
{
	struct kb_live *live = kb_live_by_id(p->main, id);

	return live && live->link == p ? live : NULL;
}

static void on_started(struct kb_role_process *p, const Kb__Role__FromLink *msg)
{
	struct kb_live *live = live_of(p, msg->started->session);

	if (live && msg->started->process_id == 0)
		kb_live_event(live, KB_EV_STARTED, NULL);
}

static void on_failed(struct kb_role_process *p, const Kb__Role__FromLink *msg)
{
	struct kb_live *live = live_of(p, msg->failed->session);
	struct kb_err err = {0};

	kb_role_error_read(msg->failed->error, &err);
	if (live && msg->failed->process_id == 0) {
		live->last_seq = msg->failed->last_seq;
		kb_live_event(live, KB_EV_FAILED, &err);
	} else if (live) {
		kb_live_exec_over(live, msg->failed->process_id, &err);
	}
}

static void on_exited(struct kb_role_process *p, const Kb__Role__FromLink *msg)
{
	struct kb_live *live = live_of(p, msg->exited->session);

	if (live && msg->exited->process_id != 0)
		kb_live_exec_over(live, msg->exited->process_id, NULL);
}

static void on_ended(struct kb_role_process *p, const Kb__Role__FromLink *msg)
{
	struct kb_live *live = live_of(p, msg->ended->session);
	struct kb_err why;

	if (!live)
		return;
	live->exit_code = msg->ended->exit_code;
	live->signal = msg->ended->signal;
	live->last_seq = msg->ended->last_seq;
	if (msg->ended->reason)
		kb_err_set(&why, KB_ERR_FAILED, "%s", msg->ended->reason);
	kb_live_event(live, KB_EV_ENDED, msg->ended->reason ? &why : NULL);
}

static void on_attached(struct kb_role_process *p, const Kb__Role__FromLink *msg)
{
	struct kb_live *live = live_of(p, msg->attached->session);
	struct kb_err why;

	if (!live)
		return;
	live->attached = msg->attached->attached;
	kb_err_set(&why, KB_ERR_CLOSED, "its client went away");
	if (msg->attached->hangup && live->stop_on_hangup)
		kb_live_event(live, KB_EV_STOP, &why);
}

static void on_progress(struct kb_role_process *p, const Kb__Role__FromLink *msg)
{
	struct kb_live *live = live_of(p, msg->progress->session);

	if (!live)
		return;
	live->records = msg->progress->records;
	live->denials = msg->progress->denials;
}

static int link_message(
	struct kb_role_process *p, const uint8_t *data, size_t len, struct kb_err *err)
{
	static void (*const handlers[])(struct kb_role_process *, const Kb__Role__FromLink *) = {
		[KB__ROLE__FROM_LINK__BODY_READY] = on_link_ready,
		[KB__ROLE__FROM_LINK__BODY_STARTED] = on_started,
		[KB__ROLE__FROM_LINK__BODY_FAILED] = on_failed,
		[KB__ROLE__FROM_LINK__BODY_EXITED] = on_exited,
		[KB__ROLE__FROM_LINK__BODY_ENDED] = on_ended,
		[KB__ROLE__FROM_LINK__BODY_ATTACHED] = on_attached,
		[KB__ROLE__FROM_LINK__BODY_PROGRESS] = on_progress,
		[KB__ROLE__FROM_LINK__BODY_LOST] = on_link_lost,
	};
	Kb__Role__FromLink *msg = kb__role__from_link__unpack(NULL, len, data);
	size_t kind = msg ? (size_t)msg->body_case : 0;
	bool known = kind < KB_ARRAY_LEN(handlers) && handlers[kind];

	if (known)
		handlers[kind](p, msg);
	if (msg)
		kb__role__from_link__free_unpacked(msg, NULL);
	return known ? 0 : kb_err_set(err, KB_ERR_INVALID, "a malformed or unknown message");
}

static void link_gone(struct kb_role_process *p, const struct kb_err *why)
{
	struct kb_main *m = p->main;

	m->link = NULL;
	kb_machine_facts_finish(&m->facts);
	all_lives(m, KB_EV_LINK_LOST, why, on_link, p);
	respawn(p, why);
}

static const struct kb_process_kind link_kind = {"link", 0, link_message, link_gone};

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

int kb_peers_ask(struct kb_conn *conn, uint32_t request, const Kb__Control__AskRequest *ask, int fd,
	struct kb_err *err)
{
	Kb__Role__ToReader msg = KB__ROLE__TO_READER__INIT;
	struct kb_role_process *p = NULL;
	int r;

	if (conn->watches >= KB_WATCHES_MAX)
		return kb_err_set(
			err, KB_ERR_LIMIT, "more than %d requests are waiting", KB_WATCHES_MAX);
	msg.request.len = kb__control__ask_request__get_packed_size(ask);
	msg.request.data = malloc(msg.request.len + 1);
	if (!msg.request.data)
		return kb_err_nomem(err);
	kb__control__ask_request__pack(ask, msg.request.data);
	r = kb_process_start(conn->main, &reader_kind, &p, err);
	if (r == 0) {
		p->state = KB_PROCESS_UP;
		p->conn = conn;
		p->request = request;
		conn->watches++;
		r = kb_process_send(p, &msg.base, fd, err);
	}
	if (r < 0 && p) {
		p->conn = NULL;
		conn->watches--;
	}
	free(msg.request.data);
	return r;
}
