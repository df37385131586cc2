/* Connecting, starting a supervisor on demand, and the blocking calls. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client_private.h"
#include "own_env.h"
#include "ready.h"
#include "supervisor/base/build.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/os.h"
#include "supervisor/base/programs.h"
#include "supervisor/base/spawn.h"
#include "supervisor/base/util.h"

#define READY_FD 3
#define RETRY_MS 20
#define ENV_MAX	 64

/* ---- Messages -------------------------------------------------------------------------------- */

static struct kb_attach *find_attach(struct kb_client *client, uint32_t id)
{
	struct kb_attach *at;

	TAILQ_FOREACH(at, &client->attaches, entry)
		if (at->id == id)
			return at;
	return NULL;
}

static int on_message(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len,
	int fd, void *arg, struct kb_err *err)
{
	struct kb_client *client = arg;
	Kb__Control__Reply *reply = kb__control__reply__unpack(NULL, len, data);
	struct kb_attach *at;

	kb_close(&fd); /* replies carry none */
	if (!reply)
		return kb_err_set(err, KB_ERR_INVALID, "the supervisor's reply is malformed");
	at = find_attach(client, reply->id);
	if (reply->id == 0 && reply->body_case == KB__CONTROL__REPLY__BODY_ERROR) {
		/* Turned away: it closes the connection next. */
		kb_client_error(reply->error, &client->lost);
		kb__control__reply__free_unpacked(reply, NULL);
	} else if (reply->id == client->call_id && !client->reply) {
		client->reply = reply;
		kb_loop_stop(client->loop);
	} else if (at) {
		kb_attach_reply(at, reply);
	} else {
		kb__control__reply__free_unpacked(reply, NULL);
	}
	return 0;
}

static struct kb_attach *first_alive(struct kb_client *client)
{
	struct kb_attach *at;

	TAILQ_FOREACH(at, &client->attaches, entry)
		if (!at->over)
			return at;
	return NULL;
}

static void on_closed(struct kb_channel *ch, const struct kb_err *why, void *arg)
{
	struct kb_client *client = arg;
	struct kb_attach *at;

	if (client->lost.code == 0)
		kb_err_set(&client->lost, KB_ERR_UNREACHABLE, "the supervisor went away%s%s",
			why ? ": " : "", why ? why->msg : "");
	kb_channel_destroy(client->ch);
	client->ch = NULL;
	kb_loop_stop(client->loop);
	while ((at = first_alive(client))) /* each call makes one fewer, and may destroy any */
		kb_attach_lost(at, &client->lost);
}

static const struct kb_channel_ops channel_ops = {on_message, on_closed};

int kb_client_send(struct kb_client *client, Kb__Control__Request *request, int fd,
	uint32_t *ret_id, struct kb_err *err)
{
	int r;

	if (!client->ch) {
		if (err)
			*err = client->lost;
		return -(int)client->lost.code;
	}
	request->id = ++client->last_id;
	r = kb_channel_send(client->ch, 0, &request->base, fd, err);
	if (r == 0)
		*ret_id = request->id;
	return r;
}

static void on_timer(void *arg)
{
	struct kb_client *client = arg;

	client->late = true;
	kb_loop_stop(client->loop);
}

/* Turn the loop until the reply, the end of the connection or the deadline. */
static int wait_reply(struct kb_client *client, int64_t timeout_ms, struct kb_err *err)
{
	int r = 0;

	client->late = false;
	if (client->hurry)
		timeout_ms = KB_CLIENT_HURRY_MS;
	if (timeout_ms > 0)
		r = kb_source_arm(client->timer, timeout_ms, err);
	while (r == 0 && !client->reply && client->ch && !client->late)
		r = kb_loop_run(client->loop, err);
	kb_source_disarm(client->timer);
	if (r < 0 || client->reply)
		return r;
	if (!client->ch) {
		if (err)
			*err = client->lost;
		return -(int)client->lost.code;
	}
	kb_err_set(err, KB_ERR_TIMEOUT, "the supervisor (pid %d) did not answer within %lld s",
		(int)client->pid, (long long)(timeout_ms / 1000));
	return kb_err_hint(
		err, "try again; if it stays so, end it with `kill %d`", (int)client->pid);
}

int kb_client_call(struct kb_client *client, Kb__Control__Request *request, int fd,
	int64_t timeout_ms, Kb__Control__Reply__BodyCase want, Kb__Control__Reply **ret,
	struct kb_err *err)
{
	Kb__Control__Reply *reply;
	int r = kb_client_send(client, request, fd, &client->call_id, err);

	if (r < 0)
		return r;
	r = wait_reply(client, timeout_ms, err);
	reply = client->reply;
	client->reply = NULL;
	client->call_id = 0;
	if (r < 0)
		return r;
	if (reply->body_case == want) {
		*ret = reply;
		return 0;
	}
	if (reply->body_case == KB__CONTROL__REPLY__BODY_ERROR)
		r = kb_client_error(reply->error, err);
	else
		r = kb_err_set(err, KB_ERR_INVALID, "the supervisor answered something else");
	kb__control__reply__free_unpacked(reply, NULL);
	return r;
}

/* ---- Connecting ------------------------------------------------------------------------------ */

static int connect_socket(const char *path, int *ret, struct kb_err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	KB_CLOSE int fd = kb_os_socket(AF_UNIX, SOCK_STREAM, 0, false);

	if (fd < 0)
		return kb_err_sys(err, errno, "a socket cannot be made");
	memcpy(addr.sun_path, path, strlen(path) + 1); /* kb_dirs_find() checked its length */
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		int errnum = errno;

		kb_err_set(err, KB_ERR_UNREACHABLE, "no supervisor is running (%s: %s)", path,
			strerror(errnum));
		if (err)
			err->errnum = errnum;
		return kb_err_hint(err, "`kbsup run` starts one; or start `kbsupd --foreground`");
	}
	*ret = kb_steal_fd(&fd);
	return 0;
}

static int greet(struct kb_client *client, struct kb_err *err)
{
	Kb__Control__Hello hello = KB__CONTROL__HELLO__INIT;
	Kb__Control__Request request = KB__CONTROL__REQUEST__INIT;
	Kb__Control__Reply *reply;
	int r;

	hello.protocol = KB_CONTROL_PROTOCOL;
	hello.build = (char *)kb_build_id();
	request.body_case = KB__CONTROL__REQUEST__BODY_HELLO;
	request.hello = &hello;
	r = kb_client_call(client, &request, -1, KB_CLIENT_CALL_MS,
		KB__CONTROL__REPLY__BODY_WELCOME, &reply, err);
	if (r < 0)
		return r;
	client->pid = (pid_t)reply->welcome->pid;
	kb__control__reply__free_unpacked(reply, NULL);
	return 0;
}

static int connect_once(struct kb_client *client, struct kb_err *err)
{
	int fd = -1, r = connect_socket(client->dirs.socket, &fd, err);

	client->lost.code = 0;
	if (r == 0)
		r = kb_channel_create(client->loop, fd, &channel_ops, client, &client->ch, err);
	if (r == 0)
		r = greet(client, err);
	if (r < 0) {
		kb_channel_destroy(client->ch);
		client->ch = NULL;
	}
	return r;
}

/* ---- Starting -------------------------------------------------------------------------------- */

static int spawn_supervisor(int ready_fd, struct kb_err *err)
{
	static const char *const argv[] = {"kbsupd", "--daemon", "--ready-fd=3", NULL};
	struct kb_spawn_fd fds[] = {{ready_fd, READY_FD}};
	const char *env[ENV_MAX + 1];
	char path[PATH_MAX];
	struct kb_spawn spawn = {.path = path,
		.argv = argv,
		.env = env,
		.cwd = "/",
		.fds = fds,
		.n_fds = 1,
		.flags = KB_SPAWN_SETSID};
	size_t n = 0;
	pid_t pid;
	int r = kb_program_path("kbsupd", path, err);

	for (char **e = environ; *e && n < ENV_MAX; e++)
		if (kb_own_env_passes(*e))
			env[n++] = *e;
	env[n] = NULL;
	if (r == 0)
		r = kb_spawn(&spawn, &pid, err);
	if (r < 0)
		return r;
	/* It leaves at once; its child is the supervisor. */
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return 0;
}

static int start_supervisor(struct kb_err *err)
{
	KB_CLOSE int ready_r = -1;
	int ready[2], r;

	if (kb_os_pipe(ready, false) < 0)
		return kb_err_sys(err, errno, "a pipe cannot be made");
	ready_r = ready[0];
	r = spawn_supervisor(ready[1], err);
	close(ready[1]);
	if (r == 0)
		r = kb_ready_wait(ready_r, KB_CLIENT_START_MS, err);
	if (r == -KB_ERR_EXISTS)
		return 0; /* another one was quicker: connect to it */
	return r < 0 ? kb_err_prefix(err, "the supervisor cannot be started") : 0;
}

/* None there, or one that is just leaving or arriving: worth another try. */
static bool may_retry(int r)
{
	return r == -KB_ERR_UNREACHABLE;
}

static int connect_or_start(struct kb_client *client, struct kb_err *err)
{
	int64_t deadline = kb_now_mono() + (int64_t)KB_CLIENT_START_MS * 1000000;
	int r;

	for (;;) {
		r = connect_once(client, err);
		if (!may_retry(r) || kb_now_mono() > deadline)
			return r;
		r = start_supervisor(err);
		if (r < 0)
			return r;
		r = connect_once(client, err);
		if (!may_retry(r) || kb_now_mono() > deadline)
			return r;
		usleep(RETRY_MS * 1000);
	}
}

int kb_client_open(struct kb_loop *loop, unsigned flags, struct kb_client **ret, struct kb_err *err)
{
	struct kb_client *client = calloc(1, sizeof(*client));
	int r;

	if (!client)
		return kb_err_nomem(err);
	client->loop = loop;
	client->hurry = flags & KB_CLIENT_HURRY;
	TAILQ_INIT(&client->attaches);
	r = kb_dirs_find(&client->dirs, err);
	if (r == 0)
		r = kb_loop_timer(loop, on_timer, client, &client->timer, err);
	if (r == 0)
		r = flags & KB_CLIENT_START ? connect_or_start(client, err)
					    : connect_once(client, err);
	if (r < 0) {
		kb_client_close(client);
		return r;
	}
	*ret = client;
	return 0;
}

void kb_client_close(struct kb_client *client)
{
	if (!client)
		return;
	while (!TAILQ_EMPTY(&client->attaches))
		kb_attach_destroy(TAILQ_FIRST(&client->attaches));
	kb_source_destroy(client->timer);
	kb_channel_destroy(client->ch);
	if (client->reply)
		kb__control__reply__free_unpacked(client->reply, NULL);
	free(client);
}

const struct kb_dirs *kb_client_dirs(const struct kb_client *client)
{
	return &client->dirs;
}

pid_t kb_client_pid(const struct kb_client *client)
{
	return client->pid;
}

/* ---- Calls ----------------------------------------------------------------------------------- */

int kb_client_status(struct kb_client *client, struct kb_status *ret, struct kb_err *err)
{
	Kb__Control__StatusRequest status = KB__CONTROL__STATUS_REQUEST__INIT;
	Kb__Control__Request request = KB__CONTROL__REQUEST__INIT;
	Kb__Control__Reply *reply;
	int r;

	request.body_case = KB__CONTROL__REQUEST__BODY_STATUS;
	request.status = &status;
	r = kb_client_call(client, &request, -1, KB_CLIENT_CALL_MS, KB__CONTROL__REPLY__BODY_STATUS,
		&reply, err);
	if (r < 0)
		return r;
	r = kb_status_from_proto(reply->status, ret, err);
	kb__control__reply__free_unpacked(reply, NULL);
	return r;
}

static int convert_sessions(const Kb__Control__Sessions *from, struct kb_session **ret,
	size_t *ret_n, struct kb_err *err)
{
	struct kb_session *list = calloc(from->n_sessions + 1, sizeof(*list));
	int r = list ? 0 : kb_err_nomem(err);
	size_t n = 0;

	for (; r == 0 && n < from->n_sessions; n++)
		r = kb_session_from_proto(from->sessions[n], &list[n], err);
	if (r < 0) {
		for (size_t i = 0; i < n; i++)
			kb_session_finish(&list[i]);
		free(list);
		return r;
	}
	*ret = list;
	*ret_n = n;
	return 0;
}

int kb_client_sessions(
	struct kb_client *client, struct kb_session **ret, size_t *ret_n, struct kb_err *err)
{
	Kb__Control__SessionsRequest sessions = KB__CONTROL__SESSIONS_REQUEST__INIT;
	Kb__Control__Request request = KB__CONTROL__REQUEST__INIT;
	Kb__Control__Reply *reply;
	int r;

	request.body_case = KB__CONTROL__REQUEST__BODY_SESSIONS;
	request.sessions = &sessions;
	r = kb_client_call(client, &request, -1, KB_CLIENT_CALL_MS,
		KB__CONTROL__REPLY__BODY_SESSIONS, &reply, err);
	if (r < 0)
		return r;
	r = convert_sessions(reply->sessions, ret, ret_n, err);
	kb__control__reply__free_unpacked(reply, NULL);
	return r;
}

int kb_client_stop(struct kb_client *client, const char *session, bool now, struct kb_session *ret,
	struct kb_err *err)
{
	Kb__Control__StopRequest stop = KB__CONTROL__STOP_REQUEST__INIT;
	Kb__Control__Request request = KB__CONTROL__REQUEST__INIT;
	Kb__Control__Reply *reply;
	int r;

	stop.session = (char *)session;
	stop.has_now = 1;
	stop.now = now;
	request.body_case = KB__CONTROL__REQUEST__BODY_STOP;
	request.stop = &stop;
	r = kb_client_call(client, &request, -1, KB_CLIENT_STOP_MS, KB__CONTROL__REPLY__BODY_ENDED,
		&reply, err);
	if (r < 0)
		return r;
	r = kb_session_from_proto(reply->ended, ret, err);
	kb__control__reply__free_unpacked(reply, NULL);
	return r;
}

int kb_client_shutdown(struct kb_client *client, struct kb_err *err)
{
	Kb__Control__ShutdownRequest shutdown = KB__CONTROL__SHUTDOWN_REQUEST__INIT;
	Kb__Control__Request request = KB__CONTROL__REQUEST__INIT;
	Kb__Control__Reply *reply;
	int r;

	request.body_case = KB__CONTROL__REQUEST__BODY_SHUTDOWN;
	request.shutdown = &shutdown;
	r = kb_client_call(client, &request, -1, KB_CLIENT_CALL_MS, KB__CONTROL__REPLY__BODY_DONE,
		&reply, err);
	if (r < 0)
		return r;
	kb__control__reply__free_unpacked(reply, NULL);
	/* It keeps the connection until it is about to exit. */
	r = wait_reply(client, KB_CLIENT_STOP_MS, err);
	return client->ch ? r : 0;
}

static int convert_questions(const Kb__Control__Questions *from, struct kb_question **ret,
	size_t *ret_n, struct kb_err *err)
{
	struct kb_question *list = calloc(from->n_questions + 1, sizeof(*list));
	int r = list ? 0 : kb_err_nomem(err);
	size_t n = 0;

	for (; r == 0 && n < from->n_questions; n++)
		r = kb_question_from_proto(from->questions[n], &list[n], err);
	if (r < 0) {
		for (size_t i = 0; i < n; i++)
			kb_question_finish(&list[i]);
		free(list);
		return r;
	}
	*ret = list;
	*ret_n = n;
	return 0;
}

int kb_client_questions(struct kb_client *client, const char *session, struct kb_question **ret,
	size_t *ret_n, struct kb_err *err)
{
	Kb__Control__QuestionsRequest questions = KB__CONTROL__QUESTIONS_REQUEST__INIT;
	Kb__Control__Request request = KB__CONTROL__REQUEST__INIT;
	Kb__Control__Reply *reply;
	int r;

	questions.session = (char *)session;
	request.body_case = KB__CONTROL__REQUEST__BODY_QUESTIONS;
	request.questions = &questions;
	r = kb_client_call(client, &request, -1, KB_CLIENT_CALL_MS,
		KB__CONTROL__REPLY__BODY_QUESTIONS, &reply, err);
	if (r < 0)
		return r;
	r = convert_questions(reply->questions, ret, ret_n, err);
	kb__control__reply__free_unpacked(reply, NULL);
	return r;
}

int kb_client_answer(struct kb_client *client, const char *session, uint64_t number,
	unsigned verdict, struct kb_err *err)
{
	Kb__Control__AnswerRequest answer = KB__CONTROL__ANSWER_REQUEST__INIT;
	Kb__Control__Request request = KB__CONTROL__REQUEST__INIT;
	Kb__Control__Reply *reply;
	int r;

	answer.session = (char *)session;
	answer.number = number;
	answer.verdict = verdict;
	request.body_case = KB__CONTROL__REQUEST__BODY_ANSWER;
	request.answer = &answer;
	r = kb_client_call(client, &request, -1, KB_CLIENT_CALL_MS, KB__CONTROL__REPLY__BODY_DONE,
		&reply, err);
	if (r == 0)
		kb__control__reply__free_unpacked(reply, NULL);
	return r;
}

static int call_publish(struct kb_client *client, Kb__Control__PublishRequest *publish,
	int listener, struct kb_err *err)
{
	Kb__Control__Request request = KB__CONTROL__REQUEST__INIT;
	Kb__Control__Reply *reply;
	int r;

	request.body_case = KB__CONTROL__REQUEST__BODY_PUBLISH;
	request.publish = publish;
	r = kb_client_call(client, &request, listener, KB_CLIENT_CALL_MS,
		KB__CONTROL__REPLY__BODY_DONE, &reply, err);
	if (r == 0)
		kb__control__reply__free_unpacked(reply, NULL);
	return r;
}

int kb_client_publish(struct kb_client *client, const char *session, uint16_t port, int listener,
	struct kb_err *err)
{
	Kb__Control__PublishRequest publish = KB__CONTROL__PUBLISH_REQUEST__INIT;

	publish.session = (char *)session;
	publish.port = port;
	return call_publish(client, &publish, listener, err);
}

int kb_client_unpublish(
	struct kb_client *client, const char *session, uint16_t host_port, struct kb_err *err)
{
	Kb__Control__PublishRequest publish = KB__CONTROL__PUBLISH_REQUEST__INIT;

	publish.session = (char *)session;
	publish.port = host_port;
	publish.has_shut = 1;
	publish.shut = 1;
	return call_publish(client, &publish, -1, err);
}

int kb_client_prune(struct kb_client *client, uint64_t keep_ns, uint64_t max_bytes,
	struct kb_dropped *ret, struct kb_err *err)
{
	Kb__Control__PruneRequest prune = KB__CONTROL__PRUNE_REQUEST__INIT;
	Kb__Control__Request request = KB__CONTROL__REQUEST__INIT;
	Kb__Control__Reply *reply;
	int r;

	prune.keep_ns = keep_ns;
	prune.max_bytes = max_bytes;
	request.body_case = KB__CONTROL__REQUEST__BODY_PRUNE;
	request.prune = &prune;
	r = kb_client_call(client, &request, -1, 0, KB__CONTROL__REPLY__BODY_PRUNED, &reply, err);
	if (r < 0)
		return r;
	*ret = (struct kb_dropped){.sessions = reply->pruned->sessions,
		.records = reply->pruned->records,
		.bytes = reply->pruned->bytes,
		.left_bytes = reply->pruned->left_bytes};
	kb__control__reply__free_unpacked(reply, NULL);
	return 0;
}

int kb_client_import(struct kb_client *client, const char *name, uint64_t start, int log_fd,
	struct kb_imported *ret, struct kb_err *err)
{
	Kb__Control__ImportRequest import = KB__CONTROL__IMPORT_REQUEST__INIT;
	Kb__Control__Request request = KB__CONTROL__REQUEST__INIT;
	Kb__Control__Reply *reply;
	const Kb__Control__Imported *done;
	const char *user = getenv("USER");
	int r;

	import.name = (char *)name;
	import.user = (char *)(user ? user : "");
	import.start = start;
	request.body_case = KB__CONTROL__REQUEST__BODY_IMPORT;
	request.import = &import;
	r = kb_client_call(
		client, &request, log_fd, 0, KB__CONTROL__REPLY__BODY_IMPORTED, &reply, err);
	if (r < 0)
		return r;
	done = reply->imported;
	*ret = (struct kb_imported){.records = done->records,
		.lines = done->lines,
		.foreign = done->foreign,
		.cut = done->cut};
	snprintf(ret->id, sizeof(ret->id), "%s", done->id);
	snprintf(ret->name, sizeof(ret->name), "%s", done->name);
	kb__control__reply__free_unpacked(reply, NULL);
	return 0;
}

#define SUMMARY_MAX 512

/* The reader's line, which it has written whole before it is done. */
static int read_summary(int fd, struct kb_session *s, struct kb_err *err)
{
	json_int_t commands, changed, deleted, hosts, secrets;
	char text[SUMMARY_MAX];
	ssize_t n = read(fd, text, sizeof(text));
	json_t *summary = json_loadb(text, n > 0 ? (size_t)n : 0, 0, NULL);
	int bad = json_unpack(summary, "{s:I, s:I, s:I, s:I, s:I}", "commands", &commands,
		"changed", &changed, "deleted", &deleted, "hosts", &hosts, "secrets", &secrets);

	json_decref(summary);
	if (bad)
		return kb_err_set(err, KB_ERR_INVALID, "the reader answered something else");
	s->commands = (uint64_t)commands;
	s->changed = (uint64_t)changed;
	s->deleted = (uint64_t)deleted;
	s->hosts = (uint64_t)hosts;
	s->secrets = (uint64_t)secrets;
	return 0;
}

int kb_client_summary(struct kb_client *client, struct kb_session *session, struct kb_err *err)
{
	struct kb_ask ask = {.verb = "summary", .sessions = session->id};
	KB_CLOSE int out = -1;
	KB_CLOSE int in = -1;
	int ends[2], status, r;

	if (kb_os_pipe(ends, false) < 0)
		return kb_err_sys(err, errno, "a pipe cannot be made");
	in = ends[0];
	out = ends[1];
	r = kb_client_ask(client, &ask, out, &status, err);
	kb_close(&out);
	return r < 0 ? r : read_summary(in, session, err);
}
