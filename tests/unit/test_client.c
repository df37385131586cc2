/* The client library against a scripted supervisor on the same loop: what a real one would say, and
 * what it never should. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/control.pb-c.h"
#include "supervisor/base/build.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/frame.h"
#include "supervisor/base/util.h"
#include "supervisor/daemon/client.h"

enum script { GOOD, OTHER_BUILD, TURN_AWAY, GARBAGE, HANG_UP, WRONG_REPLY, ERROR_REPLY };

struct world {
	struct kb_loop *loop;
	char dir[64];
	int listener;
	struct kb_source *accept, *deadline;
	enum script script;
	/* The server's side of the connection, and of an attachment. */
	struct kb_channel *conn, *attachment;
	struct kb_stream *streams[4];
	uint32_t request; /* number of the last run, attach or exec */
	char asked[64];
	/* What the ops were called with, in order. */
	char story[512];
	bool over;
	struct kb_attach *at;
	size_t input;
};

/* ---- The scripted supervisor ----------------------------------------------------------------- */

static void send_reply(struct world *w, uint32_t id, Kb__Control__Reply *reply)
{
	reply->id = id;
	assert_int_equal(kb_channel_send(w->conn, 0, &reply->base, -1, NULL), 0);
}

static void send_error(struct world *w, uint32_t id, enum kb_errcode code, const char *text)
{
	Kb__Control__Error error = KB__CONTROL__ERROR__INIT;
	Kb__Control__Reply reply = KB__CONTROL__REPLY__INIT;

	error.code = code;
	error.message = (char *)text;
	error.hint = (char *)"do this";
	reply.body_case = KB__CONTROL__REPLY__BODY_ERROR;
	reply.error = &error;
	send_reply(w, id, &reply);
}

static void answer_hello(struct world *w, const Kb__Control__Request *request)
{
	Kb__Control__Welcome welcome = KB__CONTROL__WELCOME__INIT;
	Kb__Control__Reply reply = KB__CONTROL__REPLY__INIT;

	assert_string_equal(request->hello->build, kb_build_id());
	welcome.protocol = KB_CONTROL_PROTOCOL;
	welcome.build = (char *)kb_build_id();
	welcome.pid = 4711;
	reply.body_case = KB__CONTROL__REPLY__BODY_WELCOME;
	reply.welcome = &welcome;
	if (w->script == OTHER_BUILD)
		send_error(w, request->id, KB_ERR_FAILED, "of another build");
	else if (w->script == GARBAGE)
		kb_channel_send_bytes(w->conn, 0, (const uint8_t *)"\xff\xff\xff", 3, NULL);
	else if (w->script == HANG_UP)
		kb_channel_finish(w->conn);
	else
		send_reply(w, request->id, &reply);
}

static void answer_sessions(struct world *w, uint32_t id)
{
	Kb__Control__Session one = KB__CONTROL__SESSION__INIT, *list[] = {&one};
	Kb__Control__Sessions sessions = KB__CONTROL__SESSIONS__INIT;
	Kb__Control__Reply reply = KB__CONTROL__REPLY__INIT;

	one.id = (char *)"01ARZ3NDEKTSV4RRFFQ69G5FAV";
	one.name = (char *)"otter";
	one.agent = one.machine = one.state = (char *)"x";
	one.started = 5;
	one.records = 6;
	sessions.sessions = list;
	sessions.n_sessions = 1;
	reply.body_case = KB__CONTROL__REPLY__BODY_SESSIONS;
	reply.sessions = &sessions;
	send_reply(w, id, &reply);
}

static int on_attachment(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len,
	int fd, void *arg, struct kb_err *err)
{
	struct world *w = arg;
	Kb__Control__ToProcess *msg = kb__control__to_process__unpack(NULL, len, data);

	assert_non_null(msg);
	snprintf(w->asked, sizeof(w->asked), "message %d", (int)msg->body_case);
	kb__control__to_process__free_unpacked(msg, NULL);
	kb_loop_stop(w->loop);
	return 0;
}

static void on_attachment_closed(struct kb_channel *ch, const struct kb_err *why, void *arg)
{
	struct world *w = arg;

	kb_channel_destroy(w->attachment);
	w->attachment = NULL;
}

static const struct kb_channel_ops attachment_ops = {on_attachment, on_attachment_closed};

static void on_input(struct kb_stream *st, const uint8_t *data, size_t len, void *arg)
{
	struct world *w = arg;

	w->input += len;
	kb_stream_consumed(st, len);
	kb_loop_stop(w->loop);
}

static void on_input_eof(struct kb_stream *st, void *arg)
{
	struct world *w = arg;

	strcat(w->story, "stdin-eof ");
	kb_loop_stop(w->loop);
}

static const struct kb_stream_ops stream_ops = {on_input, NULL, on_input_eof};

static void take_attachment(struct world *w, int fd)
{
	assert_int_equal(
		kb_channel_create(w->loop, fd, &attachment_ops, w, &w->attachment, NULL), 0);
	for (uint32_t i = 1; i <= 3; i++)
		assert_int_equal(
			kb_stream_open(w->attachment, i, &stream_ops, w, &w->streams[i], NULL), 0);
}

static int on_request(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len,
	int fd, void *arg, struct kb_err *err)
{
	struct world *w = arg;
	Kb__Control__Request *request = kb__control__request__unpack(NULL, len, data);

	assert_non_null(request);
	if (request->body_case == KB__CONTROL__REQUEST__BODY_HELLO) {
		answer_hello(w, request);
	} else if (w->script == ERROR_REPLY) {
		send_error(w, request->id, KB_ERR_REFUSED, "policy says no");
	} else if (request->body_case == KB__CONTROL__REQUEST__BODY_SESSIONS &&
		   w->script != WRONG_REPLY) {
		answer_sessions(w, request->id);
	} else if (w->script == WRONG_REPLY) {
		answer_sessions(w, request->id);
	} else {
		w->request = request->id;
		if (fd >= 0)
			take_attachment(w, kb_steal_fd(&fd));
		kb_loop_stop(w->loop);
	}
	kb_close(&fd);
	kb__control__request__free_unpacked(request, NULL);
	return 0;
}

static void on_conn_closed(struct kb_channel *ch, const struct kb_err *why, void *arg)
{
	struct world *w = arg;

	kb_channel_destroy(w->conn);
	w->conn = NULL;
}

static const struct kb_channel_ops conn_ops = {on_request, on_conn_closed};

static void on_accept(int fd, unsigned events, void *arg)
{
	struct world *w = arg;
	int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

	assert_true(client >= 0);
	kb_channel_destroy(w->conn);
	assert_int_equal(kb_channel_create(w->loop, client, &conn_ops, w, &w->conn, NULL), 0);
	if (w->script == TURN_AWAY) {
		send_error(w, 0, KB_ERR_REFUSED, "uid 7 is not served");
		kb_channel_finish(w->conn);
	}
}

static void listen_at(struct world *w, const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	assert_true(strlen(path) < sizeof(addr.sun_path));
	memcpy(addr.sun_path, path, strlen(path) + 1);
	w->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(w->listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(w->listener, 8), 0);
	assert_int_equal(
		kb_loop_io(w->loop, w->listener, KB_IO_READ, on_accept, w, &w->accept, NULL), 0);
}

static void on_deadline(void *arg)
{
	fail_msg("the test takes too long");
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct kb_dirs dirs;

	signal(SIGPIPE, SIG_IGN);
	strcpy(w->dir, "/tmp/kbsup-test-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	setenv("HOME", w->dir, 1);
	setenv("XDG_RUNTIME_DIR", w->dir, 1);
	setenv("XDG_STATE_HOME", w->dir, 1);
	setenv("KBSUP_LIBEXEC", "/nonexistent", 1);
	assert_int_equal(kb_dirs_find(&dirs, NULL), 0);
	assert_int_equal(kb_dirs_make(dirs.runtime, NULL), 0);
	assert_int_equal(kb_loop_create(&w->loop, NULL), 0);
	assert_int_equal(kb_loop_timer(w->loop, on_deadline, NULL, &w->deadline, NULL), 0);
	assert_int_equal(kb_source_arm(w->deadline, 20000, NULL), 0);
	w->listener = -1;
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	kb_channel_destroy(w->attachment);
	kb_channel_destroy(w->conn);
	kb_source_destroy(w->accept);
	kb_source_destroy(w->deadline);
	kb_close(&w->listener);
	kb_loop_destroy(w->loop);
	kb_rmtree(w->dir, NULL);
	free(w);
	return 0;
}

static int open_client(
	struct world *w, enum script script, struct kb_client **ret, struct kb_err *err)
{
	struct kb_dirs dirs;

	w->script = script;
	assert_int_equal(kb_dirs_find(&dirs, NULL), 0);
	listen_at(w, dirs.socket);
	return kb_client_open(w->loop, 0, ret, err);
}

/* ---- Connecting ------------------------------------------------------------------------------ */

static void test_nobody_there(void **state)
{
	struct world *w = *state;
	struct kb_client *client;
	struct kb_err err;

	assert_int_equal(kb_client_open(w->loop, 0, &client, &err), -KB_ERR_UNREACHABLE);
	assert_true(err.hint[0] != '\0');
	assert_int_equal(kb_err_exit_status(&err), 3);
}

static void test_greets(void **state)
{
	struct world *w = *state;
	struct kb_client *client;

	assert_int_equal(open_client(w, GOOD, &client, NULL), 0);
	assert_int_equal(kb_client_pid(client), 4711);
	kb_client_close(client);
}

static void expect_refusal(
	struct world *w, enum script script, enum kb_errcode code, const char *text)
{
	struct kb_client *client;
	struct kb_err err;

	assert_int_equal(open_client(w, script, &client, &err), -(int)code);
	assert_non_null(strstr(err.msg, text));
}

static void test_other_build(void **state)
{
	expect_refusal(*state, OTHER_BUILD, KB_ERR_FAILED, "another build");
}

static void test_turned_away(void **state)
{
	expect_refusal(*state, TURN_AWAY, KB_ERR_REFUSED, "not served");
}

static void test_garbage(void **state)
{
	expect_refusal(*state, GARBAGE, KB_ERR_UNREACHABLE, "malformed");
}

static void test_hangs_up(void **state)
{
	expect_refusal(*state, HANG_UP, KB_ERR_UNREACHABLE, "went away");
}

/* ---- Calls ----------------------------------------------------------------------------------- */

static void test_sessions(void **state)
{
	struct world *w = *state;
	struct kb_client *client;
	struct kb_session *list;
	size_t n;

	assert_int_equal(open_client(w, GOOD, &client, NULL), 0);
	assert_int_equal(kb_client_sessions(client, &list, &n, NULL), 0);
	assert_int_equal(n, 1);
	assert_string_equal(list[0].name, "otter");
	assert_string_equal(list[0].reason, "");
	assert_int_equal(list[0].exit_code, -1);
	assert_int_equal(list[0].records, 6);
	kb_session_finish(&list[0]);
	free(list);
	kb_client_close(client);
}

static void test_errors_arrive_whole(void **state)
{
	struct world *w = *state;
	struct kb_client *client;
	struct kb_status status;
	struct kb_err err;

	assert_int_equal(open_client(w, ERROR_REPLY, &client, NULL), 0);
	assert_int_equal(kb_client_status(client, &status, &err), -KB_ERR_REFUSED);
	assert_string_equal(err.msg, "policy says no");
	assert_string_equal(err.hint, "do this");
	assert_int_equal(kb_err_exit_status(&err), 4);
	kb_client_close(client);
}

static void test_wrong_kind_of_reply(void **state)
{
	struct world *w = *state;
	struct kb_client *client;
	struct kb_status status;
	struct kb_err err;

	assert_int_equal(open_client(w, WRONG_REPLY, &client, NULL), 0);
	assert_int_equal(kb_client_status(client, &status, &err), -KB_ERR_INVALID);
	kb_client_close(client);
}

/* ---- run: the order of what is told ---------------------------------------------------------- */

static void tell(struct world *w, const char *fmt, ...) KB_PRINTF(2, 3);

static void tell(struct world *w, const char *fmt, ...)
{
	size_t len = strlen(w->story);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(w->story + len, sizeof(w->story) - len, fmt, ap);
	va_end(ap);
	kb_loop_stop(w->loop);
}

static void op_accepted(struct kb_attach *at, const char *id, const char *name, void *arg)
{
	tell(arg, "accepted:%s ", name);
}

static void op_started(struct kb_attach *at, const struct kb_started *started, void *arg)
{
	tell(arg, "started:%zu ", started->n_effective);
}

static void op_output(struct kb_attach *at, int fd, const uint8_t *data, size_t len, void *arg)
{
	tell(arg, "%d:%.*s ", fd, (int)len, (const char *)data);
	kb_attach_consumed(at, fd, len);
}

static void op_writable(struct kb_attach *at, void *arg)
{
}

static void op_exited(struct kb_attach *at, int exit_code, unsigned signal, void *arg)
{
	tell(arg, "exited:%d ", exit_code);
}

static void op_detached(struct kb_attach *at, const char *reason, void *arg)
{
	tell(arg, "detached:%s ", reason ? reason : "asked");
	((struct world *)arg)->over = true;
}

static void op_ended(struct kb_attach *at, const struct kb_session *session, void *arg)
{
	tell(arg, "ended:%d ", session->exit_code);
	((struct world *)arg)->over = true;
}

static void op_failed(struct kb_attach *at, const struct kb_err *why, void *arg)
{
	struct world *w = arg;

	tell(w, "failed:%s ", kb_errcode_name(why->code));
	w->over = true;
	/* The op may destroy its attachment. */
	kb_attach_destroy(at);
	w->at = NULL;
}

static const struct kb_attach_ops ops = {op_accepted, op_started, op_output, op_writable, op_exited,
	op_detached, op_ended, op_failed};

static void run_some(struct world *w, struct kb_client *client)
{
	static const char *const argv[] = {"true", NULL};
	struct kb_run run = {.agent = "shell",
		.machine = "local",
		.workspace = "/w",
		.home = "/h",
		.user = "u",
		.process = {.argv = argv},
		.bundle = (const uint8_t *)"b",
		.bundle_len = 1,
		.policy = "shell"};

	assert_int_equal(kb_client_run(client, &run, &ops, w, &w->at, NULL), 0);
	while (!w->request)
		kb_loop_run(w->loop, NULL);
	assert_non_null(w->attachment);
}

static void say_accepted(struct world *w)
{
	Kb__Control__Accepted accepted = KB__CONTROL__ACCEPTED__INIT;
	Kb__Control__Reply reply = KB__CONTROL__REPLY__INIT;

	accepted.id = (char *)"01ARZ3NDEKTSV4RRFFQ69G5FAV";
	accepted.name = (char *)"otter";
	reply.body_case = KB__CONTROL__REPLY__BODY_ACCEPTED;
	reply.accepted = &accepted;
	send_reply(w, w->request, &reply);
}

static void say_ended(struct world *w, int exit_code)
{
	Kb__Control__Session session = KB__CONTROL__SESSION__INIT;
	Kb__Control__Reply reply = KB__CONTROL__REPLY__INIT;

	session.id = session.name = session.agent = session.machine = session.state = (char *)"x";
	session.has_exit_code = 1;
	session.exit_code = exit_code;
	reply.body_case = KB__CONTROL__REPLY__BODY_ENDED;
	reply.ended = &session;
	send_reply(w, w->request, &reply);
}

static void say_from_process(struct world *w, Kb__Control__FromProcess *msg)
{
	assert_int_equal(kb_channel_send(w->attachment, 0, &msg->base, -1, NULL), 0);
}

static void say_started(struct world *w)
{
	char *lines[] = {(char *)"seccomp", (char *)"landlock"};
	Kb__Control__Started started = KB__CONTROL__STARTED__INIT;
	Kb__Control__FromProcess msg = KB__CONTROL__FROM_PROCESS__INIT;

	started.effective = lines;
	started.n_effective = 2;
	msg.body_case = KB__CONTROL__FROM_PROCESS__BODY_STARTED;
	msg.started = &started;
	say_from_process(w, &msg);
}

static void say_exited(struct world *w, int exit_code)
{
	Kb__Control__Exited exited = KB__CONTROL__EXITED__INIT;
	Kb__Control__FromProcess msg = KB__CONTROL__FROM_PROCESS__INIT;

	exited.exit_code = exit_code;
	msg.body_case = KB__CONTROL__FROM_PROCESS__BODY_EXITED;
	msg.exited = &exited;
	say_from_process(w, &msg);
}

static void until_over(struct world *w)
{
	while (!w->over)
		kb_loop_run(w->loop, NULL);
}

/* main may be quicker than the link: `ended` waits for the output and `exited`. */
static void test_ended_comes_last(void **state)
{
	struct world *w = *state;
	struct kb_client *client;

	assert_int_equal(open_client(w, GOOD, &client, NULL), 0);
	run_some(w, client);
	say_accepted(w);
	say_ended(w, 7);
	while (!strstr(w->story, "accepted"))
		kb_loop_run(w->loop, NULL);
	say_started(w);
	kb_stream_write(w->streams[3], "err", 3, NULL);
	kb_stream_write(w->streams[2], "out", 3, NULL);
	say_exited(w, 7);
	until_over(w);
	assert_string_equal(w->story, "accepted:otter started:2 2:err 1:out exited:7 ended:7 ");
	kb_client_close(client);
}

/* The link died: `exited` never comes, and nobody waits for it. */
static void test_a_lost_attachment_does_not_hold_up_the_end(void **state)
{
	struct world *w = *state;
	struct kb_client *client;

	assert_int_equal(open_client(w, GOOD, &client, NULL), 0);
	run_some(w, client);
	say_accepted(w);
	kb_channel_destroy(w->attachment);
	w->attachment = NULL;
	say_ended(w, 137);
	until_over(w);
	assert_string_equal(w->story, "accepted:otter ended:137 ");
	kb_client_close(client);
}

static void test_a_lost_supervisor_fails_it(void **state)
{
	struct world *w = *state;
	struct kb_client *client;

	assert_int_equal(open_client(w, GOOD, &client, NULL), 0);
	run_some(w, client);
	say_accepted(w);
	kb_channel_finish(w->conn);
	until_over(w);
	assert_string_equal(w->story, "accepted:otter failed:unreachable ");
	assert_int_equal(kb_client_sessions(client, NULL, NULL, NULL), -KB_ERR_UNREACHABLE);
	kb_client_close(client);
}

static void test_refused(void **state)
{
	struct world *w = *state;
	struct kb_client *client;

	assert_int_equal(open_client(w, GOOD, &client, NULL), 0);
	run_some(w, client);
	send_error(w, w->request, KB_ERR_REFUSED, "no");
	until_over(w);
	assert_string_equal(w->story, "failed:refused ");
	kb_client_close(client);
}

static void test_input_and_requests(void **state)
{
	struct world *w = *state;
	struct kb_client *client;
	static const char data[100000];
	size_t sent = 0;

	assert_int_equal(open_client(w, GOOD, &client, NULL), 0);
	run_some(w, client);
	while (sent < 1000000) {
		int64_t n = kb_attach_write(w->at, data, sizeof(data), NULL);

		assert_true(n >= 0);
		sent += (size_t)n;
		if (n < (int64_t)sizeof(data))
			kb_loop_run(w->loop, NULL);
	}
	assert_int_equal(kb_attach_eof(w->at, NULL), 0);
	while (!strstr(w->story, "stdin-eof"))
		kb_loop_run(w->loop, NULL);
	assert_int_equal(w->input, sent);
	assert_int_equal(kb_attach_resize(w->at, 24, 80, NULL), 0);
	while (strcmp(w->asked, "message 1") != 0)
		kb_loop_run(w->loop, NULL);
	assert_int_equal(kb_attach_signal(w->at, SIGINT, NULL), 0);
	while (strcmp(w->asked, "message 2") != 0)
		kb_loop_run(w->loop, NULL);
	assert_int_equal(kb_attach_detach(w->at, NULL), 0);
	while (strcmp(w->asked, "message 3") != 0)
		kb_loop_run(w->loop, NULL);
	kb_client_close(client);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_nobody_there),
		T(test_greets),
		T(test_other_build),
		T(test_turned_away),
		T(test_garbage),
		T(test_hangs_up),
		T(test_sessions),
		T(test_errors_arrive_whole),
		T(test_wrong_kind_of_reply),
		T(test_ended_comes_last),
		T(test_a_lost_attachment_does_not_hold_up_the_end),
		T(test_a_lost_supervisor_fails_it),
		T(test_refused),
		T(test_input_and_requests),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
