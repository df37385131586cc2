/* The sessions' state × event table, with main's real code and the far ends of its channels held
 * here: what the store, the link and a client are told. */
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
#include <sys/wait.h>
#include <unistd.h>

#include "policy/policy.h"
#include "proto/link.pb-c.h"
#include "proto/record.pb-c.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/util.h"
#include "supervisor/daemon/main.h"

#define KEPT 64

/* The far end of a channel of main's: keeps what comes, in order. */
struct far {
	struct kb_channel *ch;
	size_t n;
	uint8_t *data[KEPT];
	size_t len[KEPT];
};

struct world {
	struct kb_main m;
	struct kb_role_process store, link;
	struct kb_conn *conn;
	struct far store_far, link_far, client;
	struct kb_source *tick;
	struct kb_buf bundle;
};

static int keep(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len, int fd,
	void *arg, struct kb_err *err)
{
	struct far *far = arg;

	kb_close(&fd);
	assert_true(far->n < KEPT);
	far->data[far->n] = malloc(len + 1);
	memcpy(far->data[far->n], data, len);
	far->len[far->n++] = len;
	return 0;
}

static void ignore_closed(struct kb_channel *ch, const struct kb_err *why, void *arg)
{
	struct far *far = arg;

	kb_channel_destroy(far->ch);
	far->ch = NULL;
}

static const struct kb_channel_ops far_ops = {keep, ignore_closed};

static int ignore_message(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len,
	int fd, void *arg, struct kb_err *err)
{
	kb_close(&fd);
	return 0;
}

static void main_closed(struct kb_channel *ch, const struct kb_err *why, void *arg)
{
}

static const struct kb_channel_ops main_ops = {ignore_message, main_closed};

static void far_forget(struct far *far)
{
	for (size_t i = 0; i < far->n; i++)
		free(far->data[i]);
	far->n = 0;
}

static void on_tick(void *arg)
{
	kb_loop_stop(arg);
}

/* Let everything that was sent arrive. */
static void settle(struct world *w)
{
	assert_int_equal(kb_source_arm(w->tick, 1, NULL), 0);
	assert_int_equal(kb_loop_run(w->m.loop, NULL), 0);
}

static void make_process(
	struct world *w, struct kb_role_process *p, uint32_t number, struct far *far)
{
	int pair[2];

	*p = (struct kb_role_process){
		.main = &w->m, .state = KB_PROCESS_UP, .number = number, .pid = -1, .reaped = true};
	assert_int_equal(kb_fd_socketpair(false, pair, NULL), 0);
	assert_int_equal(kb_channel_create(w->m.loop, pair[0], &main_ops, p, &p->ch, NULL), 0);
	assert_int_equal(kb_channel_create(w->m.loop, pair[1], &far_ops, far, &far->ch, NULL), 0);
}

static void make_bundle(struct kb_buf *out)
{
	struct kb_policy_options options = {
		.home = "/home/u", .workspace = "/home/u/ws", .user = "u"};
	struct kb_diags *diags = kb_diags_create();
	struct kb_policy *policy;

	kb_buf_init(out, 1 << 20);
	assert_int_equal(kb_policy_load("shell", &options, &policy, diags, NULL), 0);
	assert_int_equal(kb_policy_lower(policy, &options, out, diags, NULL), 0);
	kb_policy_destroy(policy);
	kb_diags_destroy(diags);
}

static void on_idle_never(void *arg)
{
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	int pair[2];

	kb_log_set_level(KB_LOG_ERROR);
	TAILQ_INIT(&w->m.conns);
	TAILQ_INIT(&w->m.lives);
	TAILQ_INIT(&w->m.processes);
	TAILQ_INIT(&w->m.places);
	w->m.lock = w->m.listener = -1;
	assert_int_equal(kb_loop_create(&w->m.loop, NULL), 0);
	assert_int_equal(kb_loop_timer(w->m.loop, on_tick, w->m.loop, &w->tick, NULL), 0);
	assert_int_equal(kb_loop_timer(w->m.loop, on_idle_never, NULL, &w->m.idle, NULL), 0);
	make_process(w, &w->store, 1, &w->store_far);
	make_process(w, &w->link, 2, &w->link_far);
	w->m.store = &w->store;
	assert_int_equal(kb_places_init(&w->m, NULL), 0);
	kb_place_local(&w->m)->link = &w->link;
	w->link.place = kb_place_local(&w->m);
	assert_int_equal(kb_fd_socketpair(false, pair, NULL), 0);
	assert_int_equal(kb_conn_accept(&w->m, pair[0], NULL), 0);
	w->conn = TAILQ_FIRST(&w->m.conns);
	assert_int_equal(
		kb_channel_create(w->m.loop, pair[1], &far_ops, &w->client, &w->client.ch, NULL),
		0);
	make_bundle(&w->bundle);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	while (!TAILQ_EMPTY(&w->m.lives))
		kb_live_destroy(TAILQ_FIRST(&w->m.lives));
	while (!TAILQ_EMPTY(&w->m.conns))
		kb_conn_destroy(TAILQ_FIRST(&w->m.conns));
	kb_channel_destroy(w->store.ch);
	kb_channel_destroy(w->link.ch);
	struct far *fars[] = {&w->store_far, &w->link_far, &w->client};

	for (size_t i = 0; i < 3; i++) {
		far_forget(fars[i]);
		kb_channel_destroy(fars[i]->ch);
	}
	kb_places_finish(&w->m);
	kb_source_destroy(w->tick);
	kb_source_destroy(w->m.idle);
	kb_loop_destroy(w->m.loop);
	kb_buf_finish(&w->bundle);
	free(w);
	return 0;
}

/* A run request that is good; the caller may spoil it. */
struct request {
	Kb__Control__RunRequest run;
	Kb__Control__Process process;
	ProtobufCBinaryData argv[1], env[2];
};

static ProtobufCBinaryData bytes(const char *text)
{
	return (ProtobufCBinaryData){.data = (uint8_t *)text, .len = strlen(text)};
}

static void fill_request(struct world *w, struct request *r)
{
	kb__control__run_request__init(&r->run);
	kb__control__process__init(&r->process);
	r->argv[0] = bytes("true");
	r->env[0] = bytes("TERM=dumb");
	r->env[1] = bytes("KBSUP_SESSION=forged");
	r->process.argv = r->argv;
	r->process.n_argv = 1;
	r->process.env = r->env;
	r->process.n_env = 2;
	r->run.agent = (char *)"shell";
	r->run.machine = (char *)"local";
	r->run.workspace = bytes("/home/u/ws");
	r->run.home = bytes("/home/u");
	r->run.user = (char *)"u";
	r->run.policy = (char *)"shell";
	r->run.process = &r->process;
	r->run.bundle = (ProtobufCBinaryData){
		.data = kb_buf_data(&w->bundle), .len = kb_buf_len(&w->bundle)};
}

static struct kb_live *start(struct world *w, const char *name, uint32_t request)
{
	struct request r;
	struct kb_live *live;
	struct kb_err err;

	fill_request(w, &r);
	r.run.name = (char *)name;
	if (kb_live_create(&w->m, &r.run, -1, &live, &err) < 0)
		fail_msg("%s", err.msg);
	live->detached_start = false;
	assert_int_equal(kb_live_watch(live, w->conn, request, NULL), 0);
	return live;
}

static struct kb_live *start_running(struct world *w, const char *name, uint32_t request)
{
	struct kb_live *live = start(w, name, request);

	kb_live_event(live, KB_EV_READY, NULL);
	kb_live_event(live, KB_EV_STARTED, NULL);
	assert_int_equal(live->state, KB_LIVE_RUNNING);
	return live;
}

static Kb__Role__ToLink *link_message(struct world *w, size_t i)
{
	Kb__Role__ToLink *msg;

	settle(w);
	assert_true(i < w->link_far.n);
	msg = kb__role__to_link__unpack(NULL, w->link_far.len[i], w->link_far.data[i]);
	assert_non_null(msg);
	return msg;
}

static Kb__Role__ToStore *store_message(struct world *w, size_t i)
{
	Kb__Role__ToStore *msg;

	settle(w);
	assert_true(i < w->store_far.n);
	msg = kb__role__to_store__unpack(NULL, w->store_far.len[i], w->store_far.data[i]);
	assert_non_null(msg);
	return msg;
}

static Kb__Control__Reply *reply(struct world *w, size_t i)
{
	Kb__Control__Reply *msg;

	settle(w);
	assert_true(i < w->client.n);
	msg = kb__control__reply__unpack(NULL, w->client.len[i], w->client.data[i]);
	assert_non_null(msg);
	return msg;
}

static void expect_finish(struct world *w, size_t i, bool complete, uint64_t last_seq)
{
	Kb__Role__ToStore *msg = store_message(w, i);

	assert_int_equal(msg->body_case, KB__ROLE__TO_STORE__BODY_FINISH);
	assert_int_equal(msg->finish->complete, complete);
	assert_int_equal(msg->finish->last_seq, last_seq);
	kb__role__to_store__free_unpacked(msg, NULL);
}

static void expect_stop(struct world *w, size_t i, bool now, const char *reason)
{
	Kb__Role__ToLink *msg = link_message(w, i);

	assert_int_equal(msg->body_case, KB__ROLE__TO_LINK__BODY_STOP);
	assert_int_equal(msg->stop->now, now);
	assert_string_equal(msg->stop->reason, reason);
	kb__role__to_link__free_unpacked(msg, NULL);
}

static void expect_ended(struct world *w, size_t i, uint32_t request, int exit_code, bool complete,
	const char *reason)
{
	Kb__Control__Reply *msg = reply(w, i);

	assert_int_equal(msg->id, request);
	assert_int_equal(msg->body_case, KB__CONTROL__REPLY__BODY_ENDED);
	assert_int_equal(msg->ended->exit_code, exit_code);
	assert_int_equal(msg->ended->complete, complete);
	assert_string_equal(msg->ended->reason, reason);
	assert_string_equal(msg->ended->state, "ended");
	kb__control__reply__free_unpacked(msg, NULL);
}

static struct kb_err reason(const char *text)
{
	struct kb_err err;

	kb_err_set(&err, KB_ERR_FAILED, "%s", text);
	return err;
}

/* ---- What is told at the launch -------------------------------------------------------------- */

static void test_launch_tells_store_and_link(void **state)
{
	struct world *w = *state;
	struct kb_live *live = start(w, "otter", 5);
	Kb__Role__ToStore *begin;
	Kb__Role__ToLink *to_link;
	Kb__StartSession *s;
	Kb__SessionMeta *meta;
	size_t own = 0;

	assert_int_equal(live->state, KB_LIVE_QUEUED);
	kb_live_event(live, KB_EV_READY, NULL);
	assert_int_equal(live->state, KB_LIVE_STARTING);
	begin = store_message(w, 0);
	assert_int_equal(begin->body_case, KB__ROLE__TO_STORE__BODY_BEGIN);
	assert_int_equal(begin->begin->link, 2);
	meta = kb__session_meta__unpack(NULL, begin->begin->meta.len, begin->begin->meta.data);
	assert_non_null(meta);
	assert_string_equal(meta->name, "otter");
	assert_true(meta->n_rules > 10);
	assert_memory_equal(meta->id.data, live->id, KB_ULID_SIZE);
	kb__session_meta__free_unpacked(meta, NULL);
	kb__role__to_store__free_unpacked(begin, NULL);

	to_link = link_message(w, 0);
	assert_int_equal(to_link->body_case, KB__ROLE__TO_LINK__BODY_START);
	s = kb__start_session__unpack(NULL, to_link->start->start.len, to_link->start->start.data);
	assert_non_null(s);
	for (size_t i = 0; i < s->process->n_env; i++)
		own += s->process->env[i].len == strlen("KBSUP_SESSION=otter") &&
		       memcmp(s->process->env[i].data, "KBSUP_SESSION=otter",
			       s->process->env[i].len) == 0;
	assert_int_equal(own, 1); /* ours, and the forged one is gone */
	assert_int_equal(s->process->n_env, 2);
	kb__start_session__free_unpacked(s, NULL);
	kb__role__to_link__free_unpacked(to_link, NULL);
}

/* ---- Paths through the table ----------------------------------------------------------------- */

static void test_ends_by_itself(void **state)
{
	struct world *w = *state;
	struct kb_live *live = start_running(w, "a", 5);

	live->exit_code = 3;
	live->last_seq = 17;
	kb_live_event(live, KB_EV_ENDED, NULL);
	assert_int_equal(live->state, KB_LIVE_FINISHING);
	expect_finish(w, 1, true, 17);
	assert_int_equal(w->client.n, 0); /* not before it is durable */
	kb_live_event(live, KB_EV_FINISHED, NULL);
	expect_ended(w, 0, 5, 3, true, "");
	assert_int_equal(w->m.n_lives, 0);
	assert_int_equal(w->conn->watches, 0);
}

static void test_cannot_start(void **state)
{
	struct world *w = *state;
	struct kb_live *live = start(w, "a", 5);
	struct kb_err why;
	Kb__Control__Reply *msg;

	kb_live_event(live, KB_EV_READY, NULL);
	kb_err_set(&why, KB_ERR_REFUSED, "no user namespaces");
	kb_err_hint(&why, "allow them");
	live->last_seq = 2;
	kb_live_event(live, KB_EV_FAILED, &why);
	expect_finish(w, 1, true, 2);
	kb_live_event(live, KB_EV_FINISHED, NULL);
	msg = reply(w, 0);
	assert_int_equal(msg->body_case, KB__CONTROL__REPLY__BODY_ERROR);
	assert_int_equal(msg->error->code, KB_ERR_REFUSED);
	assert_string_equal(msg->error->hint, "allow them");
	kb__control__reply__free_unpacked(msg, NULL);
}

static void test_stop_is_passed_on(void **state)
{
	struct world *w = *state;
	struct kb_live *live = start_running(w, "a", 5);
	struct kb_err why = reason("stopped");

	kb_live_event(live, KB_EV_STOP, &why);
	expect_stop(w, 1, false, "stopped");
	live->now = true;
	why = reason("stopped again");
	kb_live_event(live, KB_EV_STOP, &why);
	expect_stop(w, 2, true, "stopped"); /* the first reason stays */
	live->exit_code = 143;
	kb_live_event(live, KB_EV_ENDED, NULL);
	kb_live_event(live, KB_EV_FINISHED, NULL);
	expect_ended(w, 0, 5, 143, true, "stopped");
}

static void test_link_lost(void **state)
{
	struct world *w = *state;
	struct kb_live *live = start_running(w, "a", 5);
	struct kb_err why = reason("the link was killed");

	kb_live_event(live, KB_EV_LINK_LOST, &why);
	expect_finish(w, 1, false, UINT64_MAX); /* whatever came of it */
	kb_live_event(live, KB_EV_FINISHED, NULL);
	expect_ended(w, 0, 5, 137, false, "the link was killed");
}

static void test_store_lost(void **state)
{
	struct world *w = *state;
	struct kb_live *live = start_running(w, "a", 5);
	struct kb_err why = reason("the store was killed");

	kb_live_event(live, KB_EV_STORE_LOST, &why);
	assert_int_equal(live->state, KB_LIVE_STOPPING);
	expect_stop(w, 1, true, "the store was killed");
	live->exit_code = 137;
	kb_live_event(live, KB_EV_ENDED, NULL);
	/* Its record was closed by the store that followed: there is nothing to wait for. */
	expect_ended(w, 0, 5, 137, false, "the store was killed");
	assert_int_equal(w->store_far.n, 1);
}

static void test_unstorable_ends_it(void **state)
{
	struct world *w = *state;
	struct kb_live *live = start_running(w, "a", 5);
	struct kb_err why = reason("no space left");

	kb_live_event(live, KB_EV_UNSTORABLE, &why);
	expect_stop(w, 1, true, "no space left");
	kb_live_event(live, KB_EV_ENDED, NULL);
	expect_finish(w, 1, false, 0);
}

static void test_queued_can_be_refused(void **state)
{
	struct world *w = *state;
	struct kb_err why = reason("the store cannot be opened");
	static const enum kb_live_event events[] = {KB_EV_FAILED, KB_EV_STOP, KB_EV_DEADLINE};

	for (size_t i = 0; i < KB_ARRAY_LEN(events); i++) {
		struct kb_live *live = start(w, NULL, (uint32_t)i + 1);
		Kb__Control__Reply *msg;

		kb_live_event(live, events[i], events[i] == KB_EV_DEADLINE ? NULL : &why);
		msg = reply(w, i);
		assert_int_equal(msg->body_case, KB__CONTROL__REPLY__BODY_ERROR);
		kb__control__reply__free_unpacked(msg, NULL);
	}
	assert_int_equal(w->m.n_lives, 0);
	assert_int_equal(w->store_far.n + w->link_far.n, 0);
}

/* A machine that does not end a session: at once, then its link is killed. */
static void test_escalation(void **state)
{
	struct world *w = *state;
	struct kb_live *live = start_running(w, "a", 5);
	struct kb_err why = reason("stopped");
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		pause();
		_exit(0);
	}
	w->link.pid = pid;
	w->link.reaped = false;
	kb_live_event(live, KB_EV_STOP, &why);
	kb_live_event(live, KB_EV_DEADLINE, NULL);
	expect_stop(w, 2, true, "stopped");
	assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
	kb_live_event(live, KB_EV_DEADLINE, NULL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	w->link.reaped = true;
	assert_int_equal(live->state, KB_LIVE_STOPPING);
}

static void test_store_that_does_not_answer(void **state)
{
	struct world *w = *state;
	struct kb_live *live = start_running(w, "a", 5);

	kb_live_event(live, KB_EV_ENDED, NULL);
	kb_live_event(live, KB_EV_DEADLINE, NULL);
	expect_ended(w, 0, 5, 0, false, "");
}

/* ---- Names, requests ------------------------------------------------------------------------- */

static int create(struct world *w, struct request *r, struct kb_err *err)
{
	struct kb_live *live;

	return kb_live_create(&w->m, &r->run, -1, &live, err);
}

static void test_bad_requests_leave_nothing(void **state)
{
	struct world *w = *state;
	struct request r;
	struct kb_err err;

	fill_request(w, &r);
	r.run.name = (char *)"../x";
	assert_int_equal(create(w, &r, &err), -KB_ERR_USAGE);
	fill_request(w, &r);
	r.run.machine = (char *)"mars";
	assert_int_equal(create(w, &r, &err), -KB_ERR_NOTFOUND);
	fill_request(w, &r);
	r.run.workspace = bytes("relative");
	assert_int_equal(create(w, &r, &err), -KB_ERR_INVALID);
	fill_request(w, &r);
	r.process.n_argv = 0;
	assert_int_equal(create(w, &r, &err), -KB_ERR_INVALID);
	fill_request(w, &r);
	r.argv[0] = (ProtobufCBinaryData){.data = (uint8_t *)"a\0b", .len = 3};
	assert_int_equal(create(w, &r, &err), -KB_ERR_INVALID);
	fill_request(w, &r);
	r.env[0] = bytes("NOVALUE");
	assert_int_equal(create(w, &r, &err), -KB_ERR_INVALID);
	fill_request(w, &r);
	r.run.bundle.len /= 2;
	assert_true(create(w, &r, &err) < 0);
	assert_int_equal(w->m.n_lives, 0);
}

/* Each machine has its place, as long as somebody needs it. */
static void test_places(void **state)
{
	struct world *w = *state;
	struct kb_live *local = start_running(w, "at-home", 1), *far, *further;
	struct request r;
	struct kb_err err;

	fill_request(w, &r);
	r.run.machine = (char *)"mars";
	r.run.transport = (char *)"serial";
	assert_int_equal(create(w, &r, &err), -KB_ERR_NOTFOUND);
	r.run.has_address = 1;
	r.run.address = bytes("/run/mars");
	assert_int_equal(kb_live_create(&w->m, &r.run, -1, &far, &err), 0);
	assert_int_equal(kb_live_create(&w->m, &r.run, -1, &further, &err), 0);
	assert_ptr_equal(far->place, further->place);
	assert_ptr_not_equal(far->place, local->place);
	assert_true(kb_place_is_needed(far->place));
	assert_false(kb_place_ready(far->place));
	r.run.address = bytes("/run/venus");
	assert_int_equal(create(w, &r, &err), -KB_ERR_EXISTS);
	/* What happens to one machine's link concerns nobody else. */
	far->place->link = &w->link;
	kb_peers_tell(&w->m, far->place, true, KB_EV_READY, NULL);
	assert_int_equal(far->state, KB_LIVE_STARTING);
	assert_int_equal(further->state, KB_LIVE_STARTING);
	assert_int_equal(local->state, KB_LIVE_RUNNING);
	assert_false(kb_place_is_needed(far->place));
	far->place->link = NULL;
	kb_live_destroy(far);
	kb_live_destroy(further);
	settle(w);
	assert_ptr_equal(TAILQ_FIRST(&w->m.places), TAILQ_LAST(&w->m.places, kb_places));
}

static void test_names(void **state)
{
	struct world *w = *state;
	struct kb_live *a = start(w, "brave-otter", 1), *b = start(w, NULL, 2);
	struct request r;
	struct kb_err err;

	fill_request(w, &r);
	r.run.name = (char *)"brave-otter";
	assert_int_equal(create(w, &r, &err), -KB_ERR_EXISTS);
	assert_true(strchr(b->name, '-') != NULL);
	assert_ptr_equal(kb_live_find(&w->m, "brave-otter", NULL), a);
	assert_ptr_equal(kb_live_find(&w->m, a->id_text, NULL), a);
	assert_null(kb_live_find(&w->m, "brave-oter", &err));
	assert_int_equal(err.code, KB_ERR_NOTFOUND);
	assert_non_null(strstr(err.hint, "brave-otter"));
}

static void test_a_client_that_leaves_is_forgotten(void **state)
{
	struct world *w = *state;
	struct kb_live *live = start_running(w, "a", 5);

	kb_conn_destroy(w->conn);
	assert_true(TAILQ_EMPTY(&live->watches));
	kb_live_event(live, KB_EV_ENDED, NULL);
	kb_live_event(live, KB_EV_FINISHED, NULL);
	assert_int_equal(w->m.n_lives, 0);
}

static void test_requests_of_a_client_are_bounded(void **state)
{
	struct world *w = *state;
	struct kb_live *live = start(w, "a", 1);
	struct kb_err err;
	int r = 0;

	for (uint32_t i = 2; r == 0; i++)
		r = kb_live_watch(live, w->conn, i, &err);
	assert_int_equal(r, -KB_ERR_LIMIT);
	assert_int_equal(w->conn->watches, KB_WATCHES_MAX);
}

/* Any event in any state, in any order: every session that ends answers its client exactly once,
 * and no state is left but forwards. */
static void test_any_order(void **state)
{
	struct world *w = *state;
	static const int rank[KB_LIVE_STATES_] = {0, 1, 2, 3, 4, 5};
	struct kb_err why = reason("because");
	size_t ended = 0;
	int log = dup(STDERR_FILENO), null = open("/dev/null", O_WRONLY);

	/* Thousands of sessions end badly here: the log need not hear of it. */
	assert_true(dup2(null, STDERR_FILENO) >= 0);
	close(null);
	srandom(42);
	for (int i = 0; i < 1000; i++) {
		struct kb_live *live = start(w, NULL, 1);
		bool over;

		for (int step = 0; step < 12; step++) {
			enum kb_live_event event =
				(enum kb_live_event)(1 + random() % (KB_EVENTS_ - 1));
			enum kb_live_state before = live->state;

			kb_live_event(live, event, random() % 2 ? &why : NULL);
			if (w->m.n_lives == 0)
				break;
			assert_true(rank[live->state] >= rank[before]);
			assert_int_not_equal(live->state, KB_LIVE_ENDED);
		}
		over = w->m.n_lives == 0;
		ended += over;
		if (!over)
			kb_live_destroy(live);
		settle(w);
		assert_int_equal(w->client.n, over);
		far_forget(&w->client);
		far_forget(&w->store_far);
		far_forget(&w->link_far);
		assert_int_equal(w->conn->watches, 0);
	}
	assert_true(dup2(log, STDERR_FILENO) >= 0);
	close(log);
	assert_true(ended > 200);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_launch_tells_store_and_link),
		T(test_ends_by_itself),
		T(test_cannot_start),
		T(test_stop_is_passed_on),
		T(test_link_lost),
		T(test_store_lost),
		T(test_unstorable_ends_it),
		T(test_queued_can_be_refused),
		T(test_escalation),
		T(test_store_that_does_not_answer),
		T(test_bad_requests_leave_nothing),
		T(test_places),
		T(test_names),
		T(test_a_client_that_leaves_is_forgotten),
		T(test_requests_of_a_client_are_bounded),
		T(test_any_order),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
