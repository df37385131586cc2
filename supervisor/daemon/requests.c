/* The requests of the control protocol, one handler each. A handler that fails returns its error,
 * which becomes the reply. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client.h"
#include "main.h"
#include "supervisor/base/build.h"
#include "supervisor/base/log.h"
#include "supervisor/base/util.h"

struct call {
	struct kb_conn *conn;
	struct kb_main *main;
	const Kb__Control__Request *request;
	int fd; /* borrowed; -1: none */
};

static int on_hello(const struct call *c, struct kb_err *err)
{
	const Kb__Control__Hello *hello = c->request->hello;
	Kb__Control__Welcome welcome = KB__CONTROL__WELCOME__INIT;
	Kb__Control__Reply reply = KB__CONTROL__REPLY__INIT;

	if (hello->protocol != KB_CONTROL_PROTOCOL || strcmp(hello->build, kb_build_id()) != 0) {
		kb_err_set(err, KB_ERR_FAILED,
			"the running supervisor (pid %d) is of another build: %s, this kbsup is %s",
			(int)getpid(), kb_build_id(), hello->build);
		return kb_err_hint(err, "end it with `kill %d` (its sessions end), then try again",
			(int)getpid());
	}
	c->conn->greeted = true;
	welcome.protocol = KB_CONTROL_PROTOCOL;
	welcome.build = (char *)kb_build_id();
	welcome.pid = (uint32_t)getpid();
	reply.body_case = KB__CONTROL__REPLY__BODY_WELCOME;
	reply.welcome = &welcome;
	kb_conn_reply(c->conn, c->request->id, &reply);
	return 0;
}

/* ---- status ---------------------------------------------------------------------------------- */

#define STATUS_ROLES 16

static size_t list_roles(struct kb_main *m, Kb__Control__Role *roles, Kb__Control__Role **refs)
{
	struct kb_role_process *p;
	size_t n = 0;

	kb__control__role__init(&roles[0]);
	roles[0].name = (char *)"main";
	roles[0].pid = (uint32_t)getpid();
	roles[0].state = (char *)"up";
	refs[n++] = &roles[0];
	TAILQ_FOREACH(p, &m->processes, entry) {
		if (n == STATUS_ROLES)
			break;
		kb__control__role__init(&roles[n]);
		roles[n].name = (char *)p->kind->role;
		roles[n].pid = (uint32_t)p->pid;
		roles[n].state = (char *)(p->state == KB_PROCESS_UP ? "up" : "starting");
		roles[n].machine = p->place ? p->place->name : NULL;
		refs[n] = &roles[n];
		n++;
	}
	return n;
}

static ProtobufCBinaryData bytes_of(const char *text)
{
	return (ProtobufCBinaryData){.data = (uint8_t *)text, .len = strlen(text)};
}

static void fill_facts(const struct kb_machine_facts *facts, Kb__Control__Status *status)
{
	status->runtime = facts->runtime;
	status->runtime_why = facts->runtime_why;
	status->kernel = facts->kernel;
	status->has_landlock_abi = status->has_rootless = status->has_guest_pid = 1;
	status->landlock_abi = facts->landlock_abi;
	status->rootless = facts->rootless;
	status->guest_pid = (uint32_t)facts->guest_pid;
	status->limits_missing = facts->limits_missing;
	status->n_limits_missing = facts->n_limits_missing;
}

static int on_status(const struct call *c, struct kb_err *err)
{
	struct kb_main *m = c->main;
	Kb__Control__Role roles[STATUS_ROLES], *refs[STATUS_ROLES];
	Kb__Control__Status status = KB__CONTROL__STATUS__INIT;
	Kb__Control__Reply reply = KB__CONTROL__REPLY__INIT;

	status.pid = (uint32_t)getpid();
	status.version = (char *)KB_VERSION;
	status.build = (char *)kb_build_id();
	status.started = m->started;
	status.n_roles = list_roles(m, roles, refs);
	status.roles = refs;
	status.socket = bytes_of(m->dirs.socket);
	status.store = bytes_of(m->dirs.store);
	status.log = bytes_of(m->log);
	status.sessions = (uint32_t)m->n_lives;
	fill_facts(&kb_place_local(m)->facts, &status);
	reply.body_case = KB__CONTROL__REPLY__BODY_STATUS;
	reply.status = &status;
	kb_conn_reply(c->conn, c->request->id, &reply);
	return 0;
}

/* ---- sessions -------------------------------------------------------------------------------- */

static int on_sessions(const struct call *c, struct kb_err *err)
{
	Kb__Control__Session *list = calloc(c->main->n_lives + 1, sizeof(*list));
	Kb__Control__Session **refs = calloc(c->main->n_lives + 1, sizeof(*refs));
	Kb__Control__Sessions sessions = KB__CONTROL__SESSIONS__INIT;
	Kb__Control__Reply reply = KB__CONTROL__REPLY__INIT;
	struct kb_live *live;

	if (list && refs) {
		TAILQ_FOREACH(live, &c->main->lives, entry) {
			kb_live_describe(live, &list[sessions.n_sessions]);
			refs[sessions.n_sessions] = &list[sessions.n_sessions];
			sessions.n_sessions++;
		}
		sessions.sessions = refs;
		reply.body_case = KB__CONTROL__REPLY__BODY_SESSIONS;
		reply.sessions = &sessions;
		kb_conn_reply(c->conn, c->request->id, &reply);
	}
	free(refs);
	free(list);
	return list && refs ? 0 : kb_err_nomem(err);
}

static void reply_accepted(const struct call *c, struct kb_live *live)
{
	Kb__Control__Accepted accepted = KB__CONTROL__ACCEPTED__INIT;
	Kb__Control__Reply reply = KB__CONTROL__REPLY__INIT;

	accepted.id = live->id_text;
	accepted.name = live->name;
	reply.body_case = KB__CONTROL__REPLY__BODY_ACCEPTED;
	reply.accepted = &accepted;
	kb_conn_reply(c->conn, c->request->id, &reply);
}

static int on_run(const struct call *c, struct kb_err *err)
{
	struct kb_place *place;
	struct kb_live *live;
	int r;

	if (c->main->stopping != KB_RUNS)
		return kb_err_set(err, KB_ERR_UNREACHABLE, "the supervisor is leaving");
	r = kb_live_create(c->main, c->request->run, c->fd, &live, err);
	if (r < 0)
		return r;
	live->secrets = kb_steal_fd(&c->conn->secrets); /* nobody but its broker reads them */
	r = kb_ports_take(live, c->conn, err);
	if (r == 0)
		r = kb_live_watch_connected(live, c->conn, c->request->id, err);
	if (r < 0) {
		kb_live_destroy(live);
		return r;
	}
	/* A detached start is answered when it has started, or not (session.c). */
	if (c->fd >= 0)
		reply_accepted(c, live);
	place = live->place;
	kb_peers_ensure(c->main); /* if that fails, the session is gone */
	if (kb_place_ready(place))
		kb_live_event(live, KB_EV_READY, NULL);
	return 0;
}

static int on_secrets(const struct call *c, struct kb_err *err)
{
	int copy = c->fd >= 0 ? fcntl(c->fd, F_DUPFD_CLOEXEC, 3) : -1;

	if (c->fd < 0)
		return kb_err_set(err, KB_ERR_INVALID, "the request came without its fd");
	if (copy < 0)
		return kb_err_sys(err, errno, "the session's secrets cannot be kept");
	kb_close(&c->conn->secrets);
	c->conn->secrets = copy;
	return 0;
}

static int find_running(
	const struct call *c, const char *name, struct kb_live **ret, struct kb_err *err)
{
	int r = kb_live_find_running(c->main, name, ret, err);

	if (r == 0 && c->fd < 0)
		r = kb_err_set(err, KB_ERR_INVALID, "the request came without its fd");
	return r;
}

static int on_attach(const struct call *c, struct kb_err *err)
{
	const Kb__Control__AttachRequest *request = c->request->attach;
	Kb__Role__LinkAttach attach = KB__ROLE__LINK_ATTACH__INIT;
	Kb__Role__ToLink msg = KB__ROLE__TO_LINK__INIT;
	struct kb_live *live;
	int r = find_running(c, request->session, &live, err);

	if (r == 0)
		r = kb_live_watch_connected(live, c->conn, c->request->id, err);
	if (r < 0)
		return r;
	attach.session = (ProtobufCBinaryData){.data = live->id, .len = sizeof(live->id)};
	if (request->size) {
		attach.has_rows = attach.has_cols = 1;
		attach.rows = request->size->rows;
		attach.cols = request->size->cols;
	}
	msg.body_case = KB__ROLE__TO_LINK__BODY_ATTACH;
	msg.attach = &attach;
	reply_accepted(c, live);
	r = kb_process_send(live->link, &msg.base, c->fd, err);
	if (r == 0)
		kb_live_show_questions(live, c->conn, c->request->id);
	return r;
}

static int on_exec(const struct call *c, struct kb_err *err)
{
	Kb__Role__LinkExec exec = KB__ROLE__LINK_EXEC__INIT;
	Kb__Role__ToLink msg = KB__ROLE__TO_LINK__INIT;
	struct kb_live *live;
	uint8_t *process;
	int r = find_running(c, c->request->exec->session, &live, err);

	if (r == 0)
		r = kb_live_make_process(
			live, c->request->exec->process, &process, &exec.process.len, err);
	if (r < 0)
		return r;
	exec.session = (ProtobufCBinaryData){.data = live->id, .len = sizeof(live->id)};
	exec.process_id = ++live->last_process;
	exec.process.data = process;
	msg.body_case = KB__ROLE__TO_LINK__BODY_EXEC;
	msg.exec = &exec;
	r = kb_process_send(live->link, &msg.base, c->fd, err);
	free(process);
	if (r < 0)
		return r;
	r = kb_live_watch_exec(live, exec.process_id, c->conn, c->request->id, err);
	if (r == 0)
		reply_accepted(c, live);
	return r;
}

static int on_stop(const struct call *c, struct kb_err *err)
{
	struct kb_live *live = kb_live_find(c->main, c->request->stop->session, err);
	struct kb_err why;
	int r;

	if (!live)
		return -KB_ERR_NOTFOUND;
	r = kb_live_watch(live, c->conn, c->request->id, err);
	if (r < 0)
		return r;
	live->now |= c->request->stop->now;
	kb_err_set(&why, KB_ERR_FAILED, "stopped%s", c->request->stop->now ? " at once" : "");
	kb_live_event(live, KB_EV_STOP, &why);
	return 0;
}

static int on_ask(const struct call *c, struct kb_err *err)
{
	if (c->fd < 0)
		return kb_err_set(err, KB_ERR_INVALID, "the request came without its fd");
	return kb_peers_ask(c->conn, c->request->id, c->request->ask, c->fd, err);
}

static int on_prune(const struct call *c, struct kb_err *err)
{
	return kb_chore_prune(c->conn, c->request->id, c->request->prune, err);
}

static int on_import(const struct call *c, struct kb_err *err)
{
	if (c->fd < 0)
		return kb_err_set(err, KB_ERR_INVALID, "the request came without its fd");
	return kb_import_start(c->conn, c->request->id, c->request->import, c->fd, err);
}

static int on_questions(const struct call *c, struct kb_err *err)
{
	const char *name = c->request->questions->session;
	struct kb_live *live = name ? kb_live_find(c->main, name, err) : NULL;

	if (name && !live)
		return -KB_ERR_NOTFOUND;
	return kb_live_list_questions(c->main, live, c->conn, c->request->id, err);
}

static void reply_done(const struct call *c)
{
	Kb__Control__Done done = KB__CONTROL__DONE__INIT;
	Kb__Control__Reply reply = KB__CONTROL__REPLY__INIT;

	reply.body_case = KB__CONTROL__REPLY__BODY_DONE;
	reply.done = &done;
	kb_conn_reply(c->conn, c->request->id, &reply);
}

static int on_answer(const struct call *c, struct kb_err *err)
{
	const Kb__Control__AnswerRequest *answer = c->request->answer;
	struct kb_live *live = kb_live_find(c->main, answer->session, err);
	int r = live ? kb_live_answer(live, answer->number, answer->verdict, err)
		     : -KB_ERR_NOTFOUND;

	if (r == 0)
		reply_done(c);
	return r;
}

static int on_publish(const struct call *c, struct kb_err *err)
{
	int r = kb_ports_request(c->conn, c->request->publish, c->fd, err);

	if (r == 0)
		reply_done(c);
	return r;
}

static int on_shutdown(const struct call *c, struct kb_err *err)
{
	reply_done(c);
	kb_main_stop(c->main, "the supervisor was asked to leave");
	return 0;
}

/* ---- Dispatch -------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	int (*handle)(const struct call *c, struct kb_err *err);
} handlers[] = {
	[KB__CONTROL__REQUEST__BODY_HELLO] = {"hello", on_hello},
	[KB__CONTROL__REQUEST__BODY_STATUS] = {"status", on_status},
	[KB__CONTROL__REQUEST__BODY_RUN] = {"run", on_run},
	[KB__CONTROL__REQUEST__BODY_SESSIONS] = {"sessions", on_sessions},
	[KB__CONTROL__REQUEST__BODY_ATTACH] = {"attach", on_attach},
	[KB__CONTROL__REQUEST__BODY_EXEC] = {"exec", on_exec},
	[KB__CONTROL__REQUEST__BODY_STOP] = {"stop", on_stop},
	[KB__CONTROL__REQUEST__BODY_ASK] = {"ask", on_ask},
	[KB__CONTROL__REQUEST__BODY_SHUTDOWN] = {"shutdown", on_shutdown},
	[KB__CONTROL__REQUEST__BODY_PRUNE] = {"prune", on_prune},
	[KB__CONTROL__REQUEST__BODY_IMPORT] = {"import", on_import},
	[KB__CONTROL__REQUEST__BODY_QUESTIONS] = {"questions", on_questions},
	[KB__CONTROL__REQUEST__BODY_ANSWER] = {"answer", on_answer},
	[KB__CONTROL__REQUEST__BODY_PUBLISH] = {"publish", on_publish},
	[KB__CONTROL__REQUEST__BODY_SECRETS] = {"secrets", on_secrets},
};

int kb_request_handle(
	struct kb_conn *conn, const Kb__Control__Request *request, int fd, struct kb_err *err)
{
	struct call c = {.conn = conn, .main = conn->main, .request = request, .fd = fd};
	size_t kind = (size_t)request->body_case;

	if (kind >= KB_ARRAY_LEN(handlers) || !handlers[kind].handle)
		return kb_err_set(err, KB_ERR_INVALID, "an unknown request");
	if (!conn->greeted && handlers[kind].handle != on_hello)
		return kb_err_set(err, KB_ERR_INVALID, "the first request must be hello");
	kb_log_debug("request %s", handlers[kind].name);
	return handlers[kind].handle(&c, err);
}
