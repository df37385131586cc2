/* The QMP client against a scripted peer on the same loop: order, deadlines, fds, broken peers. */
#include "kbtest.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "supervisor/base/fd.h"
#include "vmctl/qmp.h"

#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n"

struct fixture {
	struct kb_loop *loop;
	struct kb_qmp *qmp;
	int peer;
	struct kb_source *peer_io;
	const char *const *answers; /* one per line received; "" answers nothing */
	char seen[8][256];
	size_t n_seen;
	int got_fd;
	size_t n_replies;
	enum kb_errcode codes[8];
	char texts[8][KB_ERR_MSG_MAX];
	size_t stop_after; /* replies */
	size_t stop_seen;  /* lines received */
	size_t n_events;
	char event[64];
	size_t n_closed;
	struct kb_err why;
	bool destroy_in_reply;
};

static void say(struct fixture *f, const char *text)
{
	assert_int_equal(write(f->peer, text, strlen(text)), (ssize_t)strlen(text));
}

static void on_peer(int fd, unsigned events, void *arg)
{
	struct fixture *f = arg;
	char line[512] = "";
	int fds[KB_FD_PASS_MAX];
	ssize_t n = kb_fd_recv(fd, line, sizeof(line) - 1, fds, 1, NULL);

	if (n <= 0) {
		kb_source_set_events(f->peer_io, 0, NULL);
		return;
	}
	if (fds[0] >= 0)
		f->got_fd = fds[0];
	assert_true(f->n_seen < KB_ARRAY_LEN(f->seen));
	snprintf(f->seen[f->n_seen], sizeof(f->seen[0]), "%s", line);
	if (f->answers && f->answers[f->n_seen] && *f->answers[f->n_seen])
		say(f, f->answers[f->n_seen]);
	if (++f->n_seen == f->stop_seen)
		kb_loop_stop(f->loop);
}

static void on_reply(const json_t *ret, const struct kb_err *err, void *arg)
{
	struct fixture *f = arg;
	size_t i = f->n_replies++;

	assert_true((ret != NULL) != (err != NULL));
	f->codes[i] = err ? err->code : 0;
	snprintf(f->texts[i], sizeof(f->texts[0]), "%s", err ? err->msg : "");
	if (f->destroy_in_reply) {
		kb_qmp_destroy(f->qmp);
		f->qmp = NULL;
	}
	if (f->n_replies == f->stop_after)
		kb_loop_stop(f->loop);
}

static void on_event(struct kb_qmp *q, const char *name, const json_t *data, void *arg)
{
	struct fixture *f = arg;

	assert_true(json_is_object(data));
	f->n_events++;
	snprintf(f->event, sizeof(f->event), "%s", name);
}

static void on_closed(struct kb_qmp *q, const struct kb_err *why, void *arg)
{
	struct fixture *f = arg;

	f->n_closed++;
	f->why = *why;
	kb_qmp_destroy(f->qmp);
	f->qmp = NULL;
	kb_loop_stop(f->loop);
}

static const struct kb_qmp_ops ops = {.event = on_event, .closed = on_closed};

static void open_client(struct fixture *f, const char *const *answers)
{
	struct kb_err err;
	int pair[2];

	*f = (struct fixture){.answers = answers, .got_fd = -1};
	assert_ok(kb_loop_create(&f->loop, &err));
	assert_ok(kb_fd_socketpair(false, pair, &err));
	f->peer = pair[1];
	assert_ok(kb_loop_io(f->loop, f->peer, KB_IO_READ, on_peer, f, &f->peer_io, &err));
	assert_ok(kb_qmp_create(f->loop, pair[0], &ops, f, &f->qmp, &err));
}

static void start(struct fixture *f, const char *greeting, const char *const *answers)
{
	open_client(f, answers);
	kb_qmp_count_from(f->qmp, 0);
	if (greeting)
		say(f, greeting);
}

static void finish(struct fixture *f)
{
	kb_qmp_destroy(f->qmp);
	kb_source_destroy(f->peer_io);
	kb_close(&f->peer);
	kb_close(&f->got_fd);
	kb_loop_destroy(f->loop);
}

static void command(struct fixture *f, const char *name, int fd, int timeout_ms)
{
	struct kb_err err;

	assert_ok(kb_qmp_execute(f->qmp, name, json_pack("{s:s}", "key", "value"), fd, timeout_ms,
		on_reply, f, &err));
}

static void test_commands_go_one_by_one_in_order(void **state)
{
	static const char *const answers[] = {"{\"return\": {}, \"id\": 0}\r\n",
		"{\"event\": \"STOP\"}\r\n{\"return\": {\"a\": 1}, \"id\": 1}\r\n",
		"{\"error\": {\"class\": \"X\", \"desc\": \"no \\u001b[2J such\"}, \"id\": 2}\n"};
	struct kb_err err;
	struct fixture f;

	start(&f, GREETING, answers);
	command(&f, "stop", -1, 1000);
	command(&f, "bogus", -1, 1000);
	f.stop_after = 2;
	assert_ok(kb_loop_run(f.loop, &err));
	assert_int_equal(f.n_replies, 2);
	assert_string_equal(f.texts[0], "");
	assert_int_equal(f.codes[0], 0);
	assert_int_equal(f.codes[1], KB_ERR_FAILED);
	/* QEMU's own words, made harmless. */
	assert_non_null(strstr(f.texts[1], "bogus"));
	assert_non_null(strstr(f.texts[1], "\\x1b[2J such"));
	assert_int_equal(f.n_events, 1);
	assert_string_equal(f.event, "STOP");
	assert_int_equal(f.n_seen, 3);
	assert_non_null(strstr(f.seen[0], "qmp_capabilities"));
	assert_non_null(strstr(f.seen[1], "\"execute\":\"stop\""));
	assert_non_null(strstr(f.seen[1], "{\"key\":\"value\"}"));
	finish(&f);
}

static void test_an_fd_travels_with_its_command(void **state)
{
	static const char *const answers[] = {
		"{\"return\": {}, \"id\": 0}\n", "{\"return\": {}, \"id\": 1}\n"};
	struct kb_err err;
	struct fixture f;
	int fd = memfd_create("state", MFD_CLOEXEC);
	char byte;

	start(&f, GREETING, answers);
	command(&f, "getfd", fd, 1000);
	f.stop_after = 1;
	assert_ok(kb_loop_run(f.loop, &err));
	assert_true(f.got_fd >= 0);
	assert_int_equal(write(f.got_fd, "x", 1), 1);
	assert_int_equal(pread(fd, &byte, 1, 0), 1);
	close(fd);
	finish(&f);
}

static void test_a_silent_peer_meets_the_deadline(void **state)
{
	static const char *const answers[] = {"{\"return\": {}, \"id\": 0}\n", "", ""};
	struct kb_err err;
	struct fixture f;
	int64_t before = kb_now_mono();

	start(&f, GREETING, answers);
	command(&f, "query-status", -1, 50);
	command(&f, "cont", -1, 50);
	assert_ok(kb_loop_run(f.loop, &err));
	/* Both are answered, once, and the client is over: a late answer could not be told apart.
	 */
	assert_int_equal(f.n_replies, 2);
	assert_int_equal(f.codes[0], KB_ERR_TIMEOUT);
	assert_int_equal(f.codes[1], KB_ERR_TIMEOUT);
	assert_int_equal(f.n_closed, 1);
	assert_non_null(strstr(f.why.msg, "query-status"));
	assert_true(kb_now_mono() - before < 3000000000);
	finish(&f);
}

static void test_no_greeting_is_a_timeout(void **state)
{
	struct kb_err err;
	struct fixture f;

	start(&f, NULL, NULL);
	command(&f, "query-status", -1, 50);
	assert_ok(kb_loop_run(f.loop, &err));
	assert_int_equal(f.codes[0], KB_ERR_TIMEOUT);
	assert_int_equal(f.n_closed, 1);
	finish(&f);
}

/* QEMU gives the next client what it still owed the one before: before its greeting, before the
 * negotiation's answer, and before a command's. */
static void test_answers_to_a_client_before_pass_by(void **state)
{
	static const char *const answers[] = {
		"{\"return\": {}, \"id\": 70}\n{\"return\": {}, \"id\": 0}\n",
		"{\"error\": {\"class\": \"X\", \"desc\": \"not yours\"}, \"id\": 71}\n"
		"{\"return\": {}, \"id\": 1}\n"};
	struct kb_err err;
	struct fixture f;

	start(&f, "{\"return\": {}, \"id\": 69}\n" GREETING, answers);
	command(&f, "query-status", -1, 1000);
	f.stop_after = 1;
	assert_ok(kb_loop_run(f.loop, &err));
	assert_int_equal(f.n_replies, 1);
	assert_int_equal(f.codes[0], 0);
	assert_int_equal(f.n_closed, 0);
	finish(&f);
}

/* Which is known by the number, so no two clients count from the same one. */
static void test_clients_count_from_different_numbers(void **state)
{
	char lines[2][256] = {""};

	for (int i = 0; i < 2; i++) {
		struct kb_err err;
		struct fixture f;

		open_client(&f, NULL);
		f.stop_seen = 1;
		say(&f, GREETING);
		assert_ok(kb_loop_run(f.loop, &err));
		memcpy(lines[i], f.seen[0], sizeof(lines[i]));
		finish(&f);
	}
	assert_non_null(strstr(lines[0], "\"id\":"));
	assert_string_not_equal(lines[0], lines[1]);
}

static void test_broken_peers_end_the_client(void **state)
{
	static const struct {
		const char *greeting, *answer;
		enum kb_errcode code;
	} cases[] = {
		{"hello\n", NULL, KB_ERR_INVALID},
		{"{\"QMP\": {}}\n{\"QMP\": {}}\n", NULL, KB_ERR_INVALID},
		{"{\"return\": {}}\n", NULL, KB_ERR_INVALID},
		{GREETING, "{\"return\": {}}\n", KB_ERR_INVALID},
		{GREETING, "{\"error\": {\"class\": \"X\", \"desc\": \"no\"}, \"id\": 0}\n",
			KB_ERR_INVALID},
		{GREETING, "{\"error\": {\"class\": 5}, \"id\": 0}\n", KB_ERR_INVALID},
		{GREETING, "[]\n", KB_ERR_INVALID},
	};

	for (size_t i = 0; i < KB_ARRAY_LEN(cases); i++) {
		const char *const answers[] = {cases[i].answer, NULL};
		struct kb_err err;
		struct fixture f;

		start(&f, cases[i].greeting, answers);
		command(&f, "stop", -1, 1000);
		assert_ok(kb_loop_run(f.loop, &err));
		assert_int_equal(f.n_closed, 1);
		assert_int_equal(f.why.code, cases[i].code);
		assert_int_equal(f.n_replies, 1);
		finish(&f);
	}
}

static void test_a_vanished_peer_closes(void **state)
{
	struct kb_err err;
	struct fixture f;

	start(&f, GREETING, NULL);
	shutdown(f.peer, SHUT_RDWR);
	assert_ok(kb_loop_run(f.loop, &err));
	assert_int_equal(f.why.code, KB_ERR_CLOSED);
	finish(&f);
}

static void test_destroying_inside_a_reply(void **state)
{
	static const char *const answers[] = {"{\"return\": {}, \"id\": 0}\n",
		"{\"return\": {}, \"id\": 1}\n{\"timestamp\": {}, \"event\": \"STOP\"}\n"};
	struct kb_err err;
	struct fixture f;

	start(&f, GREETING, answers);
	command(&f, "stop", -1, 1000);
	command(&f, "cont", -1, 1000);
	f.destroy_in_reply = true;
	f.stop_after = 1;
	assert_ok(kb_loop_run(f.loop, &err));
	assert_int_equal(f.n_replies, 1);
	assert_int_equal(f.n_events, 0);
	assert_null(f.qmp);
	finish(&f);
}

static void test_the_queue_is_bounded(void **state)
{
	struct kb_err err;
	struct fixture f;

	start(&f, NULL, NULL);
	for (int i = 0; i < KB_QMP_QUEUE_MAX; i++)
		assert_ok(kb_qmp_execute(f.qmp, "stop", NULL, -1, 10, NULL, NULL, &err));
	assert_int_equal(
		kb_qmp_execute(f.qmp, "stop", NULL, -1, 10, NULL, NULL, &err), -KB_ERR_LIMIT);
	finish(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_commands_go_one_by_one_in_order),
		cmocka_unit_test(test_an_fd_travels_with_its_command),
		cmocka_unit_test(test_a_silent_peer_meets_the_deadline),
		cmocka_unit_test(test_no_greeting_is_a_timeout),
		cmocka_unit_test(test_answers_to_a_client_before_pass_by),
		cmocka_unit_test(test_clients_count_from_different_numbers),
		cmocka_unit_test(test_broken_peers_end_the_client),
		cmocka_unit_test(test_a_vanished_peer_closes),
		cmocka_unit_test(test_destroying_inside_a_reply),
		cmocka_unit_test(test_the_queue_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
