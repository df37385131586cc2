#include "fake_link.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "policy/policy.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/frame.h"
#include "supervisor/base/loop.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

#define GUEST_LINK_FD 3
#define OUTPUT_MAX    (64u << 20)

struct fl_link {
	struct kb_loop *loop;
	struct kb_channel *channel;
	struct kb_source *timer;
	pid_t pid;
	uid_t uid;
	Kb__FromGuest *hello;
	struct fl_session *sessions;
	uint32_t next_stream;
	uint64_t next_process;
	bool timed_out, closed;
	struct kb_err closed_why;
	bool (*cond)(void *);
	void *cond_arg;
};

static _Noreturn void die(const char *what, const char *why)
{
	fprintf(stderr, "fake_link: %s: %s\n", what, why);
	abort();
}

static void check(int r, const struct kb_err *err, const char *what)
{
	if (r < 0)
		die(what, err->msg);
}

/* ---- The loop -------------------------------------------------------------------------------- */

static void look(struct fl_link *l)
{
	if (l->cond && l->cond(l->cond_arg))
		kb_loop_stop(l->loop);
}

static void on_timer(void *arg)
{
	struct fl_link *l = arg;

	l->timed_out = true;
	kb_loop_stop(l->loop);
}

static void run(struct fl_link *l, bool (*cond)(void *), void *arg, int msec)
{
	struct kb_err err = {0};

	l->timed_out = false;
	if (cond && cond(arg))
		return;
	l->cond = cond;
	l->cond_arg = arg;
	kb_source_arm(l->timer, msec, NULL);
	check(kb_loop_run(l->loop, &err), &err, "loop");
	kb_source_disarm(l->timer);
	l->cond = NULL;
}

void fl_until(struct fl_link *l, bool (*cond)(void *), void *arg, const char *what)
{
	run(l, cond, arg, FL_DEADLINE_MS);
	if (!cond(arg))
		die(what, l->closed ? "the link closed" : "waited in vain");
}

void fl_run_for(struct fl_link *l, int msec)
{
	run(l, NULL, NULL, msec);
}

/* ---- From the guest -------------------------------------------------------------------------- */

static struct fl_session *session_of(struct fl_link *l, ProtobufCBinaryData id)
{
	for (struct fl_session *s = l->sessions; s; s = s->next)
		if (id.len == KB_ULID_SIZE && memcmp(s->id, id.data, KB_ULID_SIZE) == 0)
			return s;
	die("message", "for a session that was not started");
}

static struct fl_process *process_of(struct fl_session *s, uint64_t id)
{
	for (struct fl_process *p = s->processes; p; p = p->next)
		if (p->id == id)
			return p;
	die("message", "for a process that was not started");
}

static void take_started(struct fl_link *l, const Kb__FromGuest *msg)
{
	struct fl_session *s = session_of(l, msg->started->session);
	struct fl_process *p = process_of(s, msg->started->process_id);

	p->started = true;
	for (size_t i = 0; i < msg->started->n_effective && p->id == 0; i++)
		kb_buf_printf(&s->effective, NULL, "%s\n", msg->started->effective[i]);
	for (size_t i = 0; i < msg->started->n_missing && p->id == 0; i++)
		kb_buf_printf(&s->missing, NULL, "%s\n", msg->started->missing[i]);
}

static void take_failed(struct fl_link *l, const Kb__FromGuest *msg)
{
	struct fl_session *s = session_of(l, msg->failed->session);
	struct fl_process *p = process_of(s, msg->failed->process_id);

	p->failed = true;
	p->error_code = msg->failed->error->code;
	p->error = strdup(msg->failed->error->message);
	p->hint = strdup(msg->failed->error->hint ? msg->failed->error->hint : "");
}

static void take_exited(struct fl_link *l, const Kb__FromGuest *msg)
{
	struct fl_session *s = session_of(l, msg->exited->session);
	struct fl_process *p = process_of(s, msg->exited->process_id);

	if (p->exited || (!p->out_eof && !p->stalled) || (!p->tty && !p->err_eof && !p->stalled))
		die("Exited", p->exited ? "came twice" : "came before the output's end");
	p->exited = true;
	p->exit_code = msg->exited->exit_code;
	p->signal = msg->exited->has_signal ? msg->exited->signal : 0;
}

static void take_records(struct fl_link *l, const Kb__FromGuest *msg)
{
	const Kb__Records *r = msg->records;
	struct fl_session *s = session_of(l, r->session);
	uint32_t len = (uint32_t)r->block.len, count;
	struct kb_err err = {0};

	if (r->first_seq != s->next_seq || s->ended)
		die("Records", "out of order");
	check(kb_block_check(r->block.data, r->block.len, &count, &err), &err, "block");
	if (count != r->count)
		die("Records", "count is wrong");
	s->next_seq += r->count;
	s->denials += r->has_denials ? r->denials : 0;
	kb_buf_append(&s->records, &len, sizeof(len), NULL);
	kb_buf_append(&s->records, r->block.data, r->block.len, NULL);
	if (!s->hold_acks)
		fl_ack(s, s->next_seq - 1);
}

static void take_ended(struct fl_link *l, const Kb__FromGuest *msg)
{
	struct fl_session *s = session_of(l, msg->ended->session);

	if (s->ended || msg->ended->last_seq != s->next_seq - 1)
		die("Ended", "twice, or not after the last record");
	s->ended = true;
	s->exit_code = msg->ended->exit_code;
	s->last_seq = msg->ended->last_seq;
	s->reason = msg->ended->reason ? strdup(msg->ended->reason) : NULL;
}

static int on_message(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len,
	int fd, void *arg, struct kb_err *err)
{
	static void (*const take[])(struct fl_link *, const Kb__FromGuest *) = {
		[KB__FROM_GUEST__BODY_STARTED] = take_started,
		[KB__FROM_GUEST__BODY_FAILED] = take_failed,
		[KB__FROM_GUEST__BODY_EXITED] = take_exited,
		[KB__FROM_GUEST__BODY_RECORDS] = take_records,
		[KB__FROM_GUEST__BODY_ENDED] = take_ended,
	};
	struct fl_link *l = arg;
	Kb__FromGuest *msg = kb__from_guest__unpack(NULL, len, data);

	if (!msg)
		die("message", "malformed");
	if (msg->body_case == KB__FROM_GUEST__BODY_HELLO) {
		l->hello = msg;
		look(l);
		return 0;
	}
	if (msg->body_case >= KB_ARRAY_LEN(take) || !take[msg->body_case])
		die("message", "unknown");
	take[msg->body_case](l, msg);
	kb__from_guest__free_unpacked(msg, NULL);
	look(l);
	return 0;
}

static void on_closed(struct kb_channel *ch, const struct kb_err *why, void *arg)
{
	struct fl_link *l = arg;

	l->closed = true;
	if (why)
		l->closed_why = *why;
	kb_loop_stop(l->loop);
}

static const struct kb_channel_ops channel_ops = {.message = on_message, .closed = on_closed};

static void on_data(struct kb_stream *st, const uint8_t *data, size_t len, void *arg)
{
	struct fl_process *p = arg;
	bool err = !p->tty && st == p->streams[2];

	kb_buf_append(err ? &p->err : &p->out, data, len, NULL);
	if (p->stalled)
		p->owed[err ? 2 : st == p->streams[1]] += len;
	else
		kb_stream_consumed(st, len);
	look(p->session->link);
}

static void on_eof(struct kb_stream *st, void *arg)
{
	struct fl_process *p = arg;

	if (!p->tty && st == p->streams[2])
		p->err_eof = true;
	else
		p->out_eof = true;
	look(p->session->link);
}

static void on_writable(struct kb_stream *st, void *arg)
{
	struct fl_process *p = arg;

	look(p->session->link);
}

static const struct kb_stream_ops stream_ops = {
	.data = on_data, .eof = on_eof, .writable = on_writable};

/* ---- Opening and closing --------------------------------------------------------------------- */

static _Noreturn void guest_child(const struct fl_options *o, int sock)
{
	const char *program = o->guest ? o->guest : getenv("KBSUP_GUEST");
	char *state = kb_asprintf("--state=%s", o->state);
	char *runtime = kb_asprintf("--runtime=%s", o->runtime ? o->runtime : "");
	char *argv[] = {(char *)"kbsup-guest", (char *)"--link-fd=3", state,
		o->runtime ? runtime : NULL, NULL};

	if (!program)
		die("guest", "KBSUP_GUEST is not set");
	if (o->uid != 0 && (setgroups(0, NULL) < 0 || setresgid(o->uid, o->uid, o->uid) < 0 ||
				   setresuid(o->uid, o->uid, o->uid) < 0))
		die("guest", "cannot become the user");
	if (sock == GUEST_LINK_FD)
		fcntl(sock, F_SETFD, 0);
	else
		dup2(sock, GUEST_LINK_FD);
	execv(program, argv);
	die(program, strerror(errno));
}

static bool have_hello(void *arg)
{
	return ((struct fl_link *)arg)->hello != NULL;
}

struct fl_link *fl_open(const struct fl_options *options)
{
	struct fl_link *l = calloc(1, sizeof(*l));
	struct kb_err err = {0};
	int pair[2];

	signal(SIGPIPE, SIG_IGN);
	l->next_stream = 1;
	l->uid = options->uid;
	check(kb_fd_socketpair(false, pair, &err), &err, "socket pair");
	l->pid = fork();
	if (l->pid == 0)
		guest_child(options, pair[1]);
	close(pair[1]);
	check(kb_loop_create(&l->loop, &err), &err, "loop");
	check(kb_loop_timer(l->loop, on_timer, l, &l->timer, &err), &err, "timer");
	check(kb_channel_create(l->loop, pair[0], &channel_ops, l, &l->channel, &err), &err,
		"channel");
	fl_until(l, have_hello, l, "hello");
	return l;
}

static void process_free(struct fl_process *p)
{
	free(p->error);
	free(p->hint);
	kb_buf_finish(&p->out);
	kb_buf_finish(&p->err);
	free(p);
}

static void session_free(struct fl_session *s)
{
	while (s->processes) {
		struct fl_process *p = s->processes;

		s->processes = p->next;
		process_free(p);
	}
	kb_buf_finish(&s->effective);
	kb_buf_finish(&s->missing);
	kb_buf_finish(&s->records);
	free(s->reason);
	free(s);
}

int fl_close(struct fl_link *l)
{
	int status = 0;

	kb_channel_destroy(l->channel);
	for (int waited = 0; waitpid(l->pid, &status, WNOHANG) == 0; waited += 5) {
		if (waited > FL_DEADLINE_MS)
			die("guest", "does not end after its link closed");
		usleep(5000);
	}
	while (l->sessions) {
		struct fl_session *s = l->sessions;

		l->sessions = s->next;
		session_free(s);
	}
	kb_source_destroy(l->timer);
	kb_loop_destroy(l->loop);
	kb__from_guest__free_unpacked(l->hello, NULL);
	free(l);
	return status;
}

pid_t fl_guest_pid(const struct fl_link *l)
{
	return l->pid;
}

const struct fl_session *fl_sessions(const struct fl_link *l)
{
	return l->sessions;
}

const Kb__Hello *fl_hello(struct fl_link *l)
{
	return l->hello->hello;
}

static bool is_closed(void *arg)
{
	return ((struct fl_link *)arg)->closed;
}

bool fl_wait_closed(struct fl_link *l)
{
	fl_until(l, is_closed, l, "the guest closing the link");
	return l->closed_why.code != 0;
}

/* ---- To the guest ---------------------------------------------------------------------------- */

static void send_message(struct fl_link *l, const Kb__ToGuest *msg)
{
	struct kb_err err = {0};

	check(kb_channel_send(l->channel, 0, &msg->base, -1, &err), &err, "send");
}

void fl_raw(struct fl_link *l, const void *data, size_t len)
{
	struct kb_err err = {0};

	check(kb_channel_send_bytes(l->channel, 0, data, len, &err), &err, "send");
}

static struct fl_process *add_process(struct fl_session *s, bool tty)
{
	struct fl_process *p = calloc(1, sizeof(*p));
	struct kb_err err = {0};

	p->session = s;
	p->tty = tty;
	kb_buf_init(&p->out, OUTPUT_MAX);
	kb_buf_init(&p->err, OUTPUT_MAX);
	for (unsigned i = 0; i < (tty ? 1u : 3u); i++)
		check(kb_stream_open(s->link->channel, s->link->next_stream + i, &stream_ops, p,
			      &p->streams[i], &err),
			&err, "stream");
	p->next = s->processes;
	s->processes = p;
	return p;
}

static ProtobufCBinaryData bytes(const char *text)
{
	return (ProtobufCBinaryData){.data = (uint8_t *)text, .len = strlen(text)};
}

static ProtobufCBinaryData *byte_list(const char *const *list, size_t *ret_n)
{
	ProtobufCBinaryData *out;
	size_t n = 0;

	while (list && list[n])
		n++;
	out = calloc(n + 1, sizeof(*out));
	for (size_t i = 0; i < n; i++)
		out[i] = bytes(list[i]);
	*ret_n = n;
	return out;
}

static void compile(const struct fl_start *start, struct kb_buf *bundle)
{
	const char *policy = start->policy ? start->policy : "shell";
	struct kb_policy_options options = {
		.home = start->home, .workspace = start->workspace, .user = "tester"};
	struct kb_diags *diags = kb_diags_create();
	struct kb_policy *p = NULL;
	struct kb_err err = {0};
	KB_BUF_CLEANUP struct kb_buf text;
	int r;

	kb_buf_init(&text, 1 << 20);
	if (strchr(policy, '{'))
		r = kb_policy_load_text(
			policy, strlen(policy), "test.policy", &options, &p, diags, &err);
	else
		r = kb_policy_load(policy, &options, &p, diags, &err);
	if (r == 0)
		r = kb_policy_lower(p, &options, bundle, diags, &err);
	if (r < 0) {
		kb_diags_render(diags, false, &text, NULL);
		die("policy", kb_buf_len(&text) ? kb_buf_steal_string(&text) : err.msg);
	}
	kb_policy_destroy(p);
	kb_diags_destroy(diags);
}

static void policy_env(const struct kb_buf *bundle, const char ***ret, struct kb_bundle **ret_b)
{
	struct kb_err err = {0};
	const char *const *env;
	size_t n;

	check(kb_bundle_parse(kb_buf_data(bundle), kb_buf_len(bundle), ret_b, &err), &err,
		"bundle");
	n = kb_bundle_env(*ret_b, &env);
	*ret = calloc(n + 1, sizeof(**ret));
	memcpy(*ret, env, n * sizeof(*env));
}

struct fl_session *fl_start(struct fl_link *l, const struct fl_start *given)
{
	struct fl_start start = *given;
	struct fl_session *s = calloc(1, sizeof(*s));
	Kb__ProcessSpec process = KB__PROCESS_SPEC__INIT;
	Kb__StartSession msg = KB__START_SESSION__INIT;
	Kb__Winsize size = KB__WINSIZE__INIT;
	Kb__ToGuest to = KB__TO_GUEST__INIT;
	struct kb_bundle *bundle = NULL;
	KB_FREE const char **env = NULL;
	struct kb_buf encoded;

	if (!start.home)
		start.home = "/home/tester";
	kb_buf_init(&encoded, 4 << 20);
	compile(&start, &encoded);
	policy_env(&encoded, &env, &bundle);
	s->link = l;
	s->next_seq = 1;
	kb_ulid_new(s->id, NULL);
	kb_name_new(s->name, NULL);
	kb_buf_init(&s->effective, 1 << 20);
	kb_buf_init(&s->missing, 1 << 20);
	kb_buf_init(&s->records, 256u << 20);
	s->next = l->sessions;
	l->sessions = s;
	add_process(s, start.tty);
	process.argv = byte_list(start.argv, &process.n_argv);
	process.env = byte_list(start.env ? start.env : env, &process.n_env);
	process.has_cwd = start.cwd != NULL;
	if (start.cwd)
		process.cwd = bytes(start.cwd);
	process.has_tty = true;
	process.tty = start.tty;
	size.rows = start.rows ? start.rows : 24;
	size.cols = start.cols ? start.cols : 80;
	process.size = start.tty ? &size : NULL;
	process.stdio = l->next_stream;
	l->next_stream += 3;
	msg.session = (ProtobufCBinaryData){.data = s->id, .len = KB_ULID_SIZE};
	msg.name = s->name;
	msg.bundle =
		(ProtobufCBinaryData){.data = kb_buf_data(&encoded), .len = kb_buf_len(&encoded)};
	msg.workspace = bytes(start.workspace);
	msg.process = &process;
	msg.lane = (char *)start.lane;
	msg.has_home = true;
	msg.home = bytes(start.home);
	msg.user = (char *)"tester";
	msg.has_rootfs = start.rootfs != NULL;
	if (start.rootfs)
		msg.rootfs = bytes(start.rootfs);
	to.body_case = KB__TO_GUEST__BODY_START;
	to.start = &msg;
	send_message(l, &to);
	free(process.argv);
	free(process.env);
	kb_bundle_destroy(bundle);
	kb_buf_finish(&encoded);
	return s;
}

struct fl_process *fl_exec(struct fl_session *s, const char *const *argv, bool tty)
{
	static const char *const env[] = {"PATH=/usr/bin:/bin", "TERM=xterm", NULL};
	struct fl_link *l = s->link;
	struct fl_process *p = add_process(s, tty);
	Kb__ProcessSpec process = KB__PROCESS_SPEC__INIT;
	Kb__ExecProcess msg = KB__EXEC_PROCESS__INIT;
	Kb__Winsize size = KB__WINSIZE__INIT;
	Kb__ToGuest to = KB__TO_GUEST__INIT;

	p->id = ++l->next_process;
	process.argv = byte_list(argv, &process.n_argv);
	process.env = byte_list(env, &process.n_env);
	process.has_tty = true;
	process.tty = tty;
	size.rows = 24;
	size.cols = 80;
	process.size = tty ? &size : NULL;
	process.stdio = l->next_stream;
	l->next_stream += 3;
	msg.session = (ProtobufCBinaryData){.data = s->id, .len = KB_ULID_SIZE};
	msg.process = &process;
	msg.process_id = p->id;
	to.body_case = KB__TO_GUEST__BODY_EXEC;
	to.exec = &msg;
	send_message(l, &to);
	free(process.argv);
	free(process.env);
	return p;
}

struct fl_process *fl_first(struct fl_session *s)
{
	return process_of(s, 0);
}

struct pending_write {
	struct fl_process *process;
	const uint8_t *data;
	size_t len;
};

static bool write_more(void *arg)
{
	struct pending_write *w = arg;

	while (w->len > 0) {
		int64_t n = kb_stream_write(w->process->streams[0], w->data, w->len, NULL);

		if (n <= 0)
			break;
		w->data += n;
		w->len -= (size_t)n;
	}
	return w->len == 0;
}

void fl_write(struct fl_process *p, const void *data, size_t len)
{
	struct pending_write w = {.process = p, .data = data, .len = len};

	fl_until(p->session->link, write_more, &w, "writing to a process");
}

void fl_write_eof(struct fl_process *p)
{
	kb_stream_eof(p->streams[0], NULL);
}

void fl_stall(struct fl_process *p, bool stalled)
{
	p->stalled = stalled;
	for (unsigned i = 0; i < 3 && !stalled; i++) {
		if (p->owed[i] > 0)
			kb_stream_consumed(p->streams[i], p->owed[i]);
		p->owed[i] = 0;
	}
}

void fl_resize(struct fl_process *p, unsigned rows, unsigned cols)
{
	Kb__Resize msg = KB__RESIZE__INIT;
	Kb__Winsize size = KB__WINSIZE__INIT;
	Kb__ToGuest to = KB__TO_GUEST__INIT;

	size.rows = rows;
	size.cols = cols;
	msg.session = (ProtobufCBinaryData){.data = p->session->id, .len = KB_ULID_SIZE};
	msg.process_id = p->id;
	msg.size = &size;
	to.body_case = KB__TO_GUEST__BODY_RESIZE;
	to.resize = &msg;
	send_message(p->session->link, &to);
}

void fl_signal(struct fl_process *p, int signo)
{
	Kb__Signal msg = KB__SIGNAL__INIT;
	Kb__ToGuest to = KB__TO_GUEST__INIT;

	msg.session = (ProtobufCBinaryData){.data = p->session->id, .len = KB_ULID_SIZE};
	msg.process_id = p->id;
	msg.signal = (uint32_t)signo;
	to.body_case = KB__TO_GUEST__BODY_SIGNAL;
	to.signal = &msg;
	send_message(p->session->link, &to);
}

void fl_stop(struct fl_session *s, bool now, const char *reason)
{
	Kb__StopSession msg = KB__STOP_SESSION__INIT;
	Kb__ToGuest to = KB__TO_GUEST__INIT;

	msg.session = (ProtobufCBinaryData){.data = s->id, .len = KB_ULID_SIZE};
	msg.has_now = true;
	msg.now = now;
	msg.reason = (char *)reason;
	to.body_case = KB__TO_GUEST__BODY_STOP;
	to.stop = &msg;
	send_message(s->link, &to);
}

void fl_attached(struct fl_session *s, bool attached)
{
	Kb__Attached msg = KB__ATTACHED__INIT;
	Kb__ToGuest to = KB__TO_GUEST__INIT;

	msg.session = (ProtobufCBinaryData){.data = s->id, .len = KB_ULID_SIZE};
	msg.attached = attached;
	msg.who = (char *)"the test";
	to.body_case = KB__TO_GUEST__BODY_ATTACHED;
	to.attached = &msg;
	send_message(s->link, &to);
}

void fl_ack(struct fl_session *s, uint64_t seq)
{
	Kb__AckRecords msg = KB__ACK_RECORDS__INIT;
	Kb__ToGuest to = KB__TO_GUEST__INIT;

	msg.session = (ProtobufCBinaryData){.data = s->id, .len = KB_ULID_SIZE};
	msg.seq = seq;
	to.body_case = KB__TO_GUEST__BODY_ACK;
	to.ack = &msg;
	send_message(s->link, &to);
}

/* ---- Waiting --------------------------------------------------------------------------------- */

static bool is_started(void *arg)
{
	struct fl_process *p = arg;

	return p->started || p->failed;
}

static bool is_exited(void *arg)
{
	struct fl_process *p = arg;

	return p->exited || p->failed;
}

static bool is_ended(void *arg)
{
	struct fl_session *s = arg;

	return s->ended || fl_first(s)->failed;
}

void fl_wait_started(struct fl_process *p)
{
	fl_until(p->session->link, is_started, p, "a process starting");
}

void fl_wait_exited(struct fl_process *p)
{
	fl_until(p->session->link, is_exited, p, "a process exiting");
}

void fl_wait_ended(struct fl_session *s)
{
	fl_until(s->link, is_ended, s, "a session ending");
}

static bool is_ended_or_closed(void *arg)
{
	struct fl_session *s = arg;

	return s->link->closed || is_ended(s);
}

bool fl_wait_ended_or_closed(struct fl_session *s)
{
	fl_until(s->link, is_ended_or_closed, s, "a session or the guest ending");
	return is_ended(s);
}

struct expected {
	struct fl_process *process;
	const char *text;
};

static bool has_output(void *arg)
{
	struct expected *e = arg;

	return kb_buf_contains(&e->process->out, e->text);
}

void fl_wait_output(struct fl_process *p, const char *text)
{
	struct expected e = {.process = p, .text = text};

	run(p->session->link, has_output, &e, FL_DEADLINE_MS);
	if (!has_output(&e)) {
		fprintf(stderr, "so far: %.*s\n", (int)kb_buf_len(&p->out),
			(const char *)kb_buf_data(&p->out));
		die("expected output", text);
	}
}

void fl_run(struct fl_link *l, const struct fl_start *start, struct fl_result *ret)
{
	struct fl_session *s = fl_start(l, start);
	struct fl_process *p = fl_first(s);

	if (!start->tty)
		fl_write_eof(p);
	fl_wait_ended(s);
	*ret = (struct fl_result){
		.out = kb_buf_steal_string(&p->out),
		.err = kb_buf_steal_string(&p->err),
		.exit_code = s->exit_code,
		.error = p->error ? strdup(p->error) : NULL,
		.reason = s->reason ? strdup(s->reason) : NULL,
	};
}

void fl_result_finish(struct fl_result *r)
{
	free(r->out);
	free(r->err);
	free(r->error);
	free(r->reason);
}
