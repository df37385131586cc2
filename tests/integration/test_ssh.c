/* The ssh client against a real OpenSSH server on loopback. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "ssh_conn.h"
#include "supervisor/base/loop.h"
#include "supervisor/base/spawn.h"
#include "supervisor/link/ssh.h"
#include "tests/unit/kbtest.h"

#define BIG (9u << 20) /* more than the server's limit on one set of keys */

static void a_command_has_output_error_and_status(void **state)
{
	struct conn *c = conn_connected();

	conn_command(c, "echo out; echo err >&2; exit 3");
	conn_assert_text(&c->out, "out\n");
	conn_assert_text(&c->err, "err\n");
	assert_int_equal(c->exit.code, 3);
	assert_string_equal(c->exit.signal, "");
	assert_true(c->eof);
	conn_command(c, "kill -KILL $$");
	assert_string_equal(c->exit.signal, "KILL");
	conn_command(c, "cat");
	assert_int_equal(c->exit.code, 0);
	conn_finish(c);
}

static void much_goes_both_ways_exactly(void **state)
{
	struct conn *c = conn_connected();
	KB_FREE uint8_t *data = malloc(BIG);
	struct kb_ssh_exec exec = {.command = "cat"};
	struct kb_err err;

	sshd_random(data, BIG);
	assert_ok(kb_buf_append(&c->in, data, BIG, &err));
	conn_begin(c, &exec);
	conn_feed(c);
	conn_run(c, &c->done);
	assert_true(c->done_well);
	assert_int_equal(kb_buf_len(&c->out), BIG);
	assert_memory_equal(kb_buf_data(&c->out), data, BIG);
	conn_finish(c);
}

static void on_unpause(void *arg)
{
	struct conn *c = arg;

	kb_ssh_channel_pause(c->ch, false);
}

static void a_paused_channel_holds_up_nobody_else(void **state)
{
	struct conn *c = conn_connected();
	struct kb_ssh_exec exec = {.command = "head -c 8000000 /dev/zero"};
	struct kb_ssh_channel *slow;
	struct kb_source *timer;
	struct kb_err err;

	conn_begin(c, &exec);
	slow = c->ch;
	kb_ssh_channel_pause(slow, true);
	conn_run(c, &c->opened);
	struct conn other = {.loop = c->loop, .ssh = c->ssh, .limit = c->limit};

	kb_buf_init(&other.out, 1u << 20);
	kb_buf_init(&other.err, 1u << 20);
	conn_command(&other, "echo here");
	conn_assert_text(&other.out, "here\n");
	assert_int_equal(kb_buf_len(&c->out), 0);
	kb_buf_finish(&other.out);
	kb_buf_finish(&other.err);
	assert_ok(kb_loop_timer(c->loop, on_unpause, c, &timer, &err));
	assert_ok(kb_source_arm(timer, 1, &err));
	conn_run(c, &c->done);
	assert_int_equal(kb_buf_len(&c->out), 8000000);
	kb_source_destroy(timer);
	conn_finish(c);
}

static void a_terminal_has_its_size_and_gets_a_new_one(void **state)
{
	struct conn *c = conn_connected();
	struct kb_err err;
	struct kb_ssh_exec exec = {.command = "stty size; trap 'stty size' WINCH; echo rea''dy; "
					      "while :; do sleep 0.1; done",
		.tty = true,
		.rows = 20,
		.cols = 60};

	conn_begin(c, &exec);
	while (!c->opened && !c->done && !c->late)
		assert_ok(kb_loop_run(c->loop, &err));
	if (geteuid() != 0 && c->done && !c->done_well) {
		/* It may not give the terminal the owner it wants. */
		print_message("sshd of an ordinary user makes no terminals here\n");
		conn_finish(c);
		skip();
	}
	conn_await_output(c, "20 60");
	conn_await_output(c, "ready");
	kb_ssh_channel_resize(c->ch, 33, 101);
	conn_await_output(c, "33 101");
	kb_ssh_channel_close(c->ch);
	exec.command = "echo rea''dy; exec sleep 1000";
	conn_begin(c, &exec);
	conn_await_output(c, "ready");
	kb_ssh_channel_write(c->ch, "\3", 1); /* ^C */
	conn_run(c, &c->done);
	assert_true(c->done_well);
	assert_string_equal(c->exit.signal, "INT");
	conn_finish(c);
}

static void closing_in_the_middle_leaves_the_rest_alone(void **state)
{
	struct conn *c = conn_connected();
	struct kb_ssh_exec exec = {.command = "cat /dev/zero"};

	for (int i = 0; i < 5; i++) {
		conn_begin(c, &exec);
		if (i % 2)
			conn_run(c, &c->opened);
		kb_ssh_channel_close(c->ch);
		kb_buf_consume(&c->out, kb_buf_len(&c->out));
	}
	conn_command(c, "echo fine");
	assert_int_equal(c->exit.code, 0);
	conn_begin(c, &exec);
	conn_run(c, &c->opened);
	conn_finish(c); /* with a channel that pours */
}

/* ---- Refusals and deadlines ------------------------------------------------------------------ */

static struct kb_err refused(const struct kb_ssh_target *t)
{
	struct conn *c = conn_start(t);
	struct kb_ssh_exec exec = {.command = "echo never"};
	struct kb_err why;

	conn_begin(c, &exec); /* what was asked for at once is told, too */
	conn_run(c, &c->closed);
	assert_false(c->ready);
	assert_true(c->done);
	assert_false(c->done_well);
	why = c->why;
	assert_true(why.msg[0] && why.hint[0]);
	conn_finish(c);
	return why;
}

static void another_host_key_is_refused(void **state)
{
	struct kb_ssh_target t = conn_target();
	char shown[KB_SSH_PRINT_TEXT], pinned[KB_SSH_PRINT_TEXT];
	struct kb_err err, why;

	t.host_key = conn_server.other_host_key;
	why = refused(&t);
	assert_int_equal(why.code, KB_ERR_REFUSED);
	assert_ok(kb_ssh_fingerprint(conn_server.host_key, shown, &err));
	assert_ok(kb_ssh_fingerprint(conn_server.other_host_key, pinned, &err));
	assert_non_null(strstr(why.msg, shown));
	assert_non_null(strstr(why.msg, pinned));
	t.host_key = NULL;
	struct kb_ssh *ssh;
	assert_int_equal(kb_ssh_connect(NULL, &t, NULL, NULL, &ssh, &err), -KB_ERR_REFUSED);
}

static void another_key_is_refused(void **state)
{
	struct kb_ssh_target t = conn_target();
	const char *const keys[] = {conn_server.other_key, NULL};
	struct kb_err why;

	t.keys = keys;
	why = refused(&t);
	assert_non_null(strstr(why.msg, "none of the keys"));
	assert_non_null(strstr(why.msg, conn_server.other_key));
	t.keys = NULL;
	assert_non_null(strstr(refused(&t).msg, "there were none"));
}

static void a_dead_server_has_a_deadline(void **state)
{
	struct kb_ssh_target t = conn_target();
	int fd = sshd_listener(&t.port); /* connects, and says nothing */
	struct kb_err why;

	t.connect_ms = 300;
	why = refused(&t);
	assert_int_equal(why.code, KB_ERR_TIMEOUT);
	assert_non_null(strstr(why.msg, "agreeing on keys"));
	close(fd);
	why = refused(&t);
	assert_non_null(strstr(why.msg, "cannot be reached"));
	t.host = "no-such-host.invalid";
	t.connect_ms = CONN_WAIT_MS;
	why = refused(&t);
	assert_non_null(strstr(why.msg, "not known"));
}

static void a_frozen_server_is_noticed(void **state)
{
	struct kb_ssh_target t = conn_target();
	struct kb_ssh_exec exec = {.command = "echo $PPID.; read x; kill -STOP $PPID"};
	struct conn *c;
	pid_t pid;

	t.keepalive_ms = 2000;
	t.dead_ms = 4000;
	c = conn_start(&t);
	conn_run(c, &c->ready);
	conn_begin(c, &exec);
	conn_await_output(c, ".\n");
	pid = atoi((char *)kb_buf_data(&c->out));
	assert_true(pid > 1);
	kb_ssh_channel_write(c->ch, "\n", 1);
	conn_run(c, &c->closed);
	kill(pid, SIGKILL);
	assert_int_equal(c->why.code, KB_ERR_TIMEOUT);
	assert_non_null(strstr(c->why.msg, "silent"));
	assert_true(c->done && !c->done_well);
	conn_finish(c);
}

static void a_silent_but_living_server_stays(void **state)
{
	struct kb_ssh_target t = conn_target();
	struct kb_ssh_exec exec = {.command = "sleep 7; echo still"};
	struct conn *c;

	t.keepalive_ms = 2000;
	t.dead_ms = 6000;
	c = conn_start(&t);
	conn_run(c, &c->ready);
	conn_begin(c, &exec);
	conn_run(c, &c->done);
	assert_true(c->done_well);
	conn_assert_text(&c->out, "still\n");
	conn_finish(c);
}

static void a_lost_server_is_told(void **state)
{
	struct conn *c = conn_connected();
	struct kb_ssh_exec exec = {.command = "kill -KILL $PPID"};

	conn_begin(c, &exec);
	conn_run(c, &c->closed);
	assert_int_equal(c->why.code, KB_ERR_CLOSED);
	assert_true(c->done && !c->done_well);
	conn_finish(c);
}

/* ---- The agent, host keys -------------------------------------------------------------------- */

static void an_agents_keys_open(void **state)
{
	KB_FREE char *sock = kb_asprintf("%s/agent", conn_server.dir);
	const char *const argv[] = {"/usr/bin/ssh-agent", "-D", "-a", sock, NULL};
	const char *const add[] = {
		"/usr/bin/ssh-add", "-q", conn_server.other_key, conn_server.key, NULL};
	struct kb_spawn spawn = {.path = argv[0], .argv = argv, .flags = KB_SPAWN_PDEATHSIG};
	struct kb_ssh_target t = conn_target();
	struct kb_err err;
	struct conn *c;
	pid_t pid;

	t.keys = NULL;
	t.agent = sock;
	assert_non_null(strstr(refused(&t).msg, "agent (cannot be reached)"));
	assert_ok(kb_spawn(&spawn, &pid, &err));
	while (access(sock, F_OK) < 0)
		usleep(10000);
	setenv("SSH_AUTH_SOCK", sock, 1);
	assert_int_equal(sshd_run(add), 0);
	c = conn_start(&t);
	conn_run(c, &c->ready);
	conn_command(c, "echo in");
	conn_assert_text(&c->out, "in\n");
	conn_finish(c);
	kill(pid, SIGTERM);
	waitpid(pid, NULL, 0);
}

struct scanned {
	struct kb_loop *loop;
	char line[KB_SSH_KEY_TEXT], print[KB_SSH_PRINT_TEXT];
	struct kb_err why;
	bool done;
};

static void on_scanned(const char *line, const char *print, const struct kb_err *why, void *arg)
{
	struct scanned *s = arg;

	s->done = true;
	if (line) {
		snprintf(s->line, sizeof(s->line), "%s", line);
		snprintf(s->print, sizeof(s->print), "%s", print);
	} else {
		s->why = *why;
	}
	kb_loop_stop(s->loop);
}

static void scan(unsigned port, struct scanned *ret)
{
	struct kb_ssh_target t = {.host = "127.0.0.1", .port = port, .connect_ms = CONN_WAIT_MS};
	struct kb_ssh *ssh;
	struct kb_err err;

	*ret = (struct scanned){0};
	assert_ok(kb_loop_create(&ret->loop, &err));
	assert_ok(kb_ssh_scan(ret->loop, &t, on_scanned, ret, &ssh, &err));
	while (!ret->done)
		assert_ok(kb_loop_run(ret->loop, &err));
	kb_loop_destroy(ret->loop);
}

static void a_scan_shows_the_host_key(void **state)
{
	struct scanned s;
	char print[KB_SSH_PRINT_TEXT];
	struct kb_err err;
	unsigned port;
	int fd;

	scan(conn_server.port, &s);
	assert_string_equal(s.line, conn_server.host_key);
	assert_ok(kb_ssh_fingerprint(conn_server.host_key, print, &err));
	assert_string_equal(s.print, print);
	/* The same as OpenSSH says. */
	KB_FREE char *check = kb_asprintf(
		"ssh-keygen -l -f %s/host.pub | grep -qF '%s '", conn_server.dir, print);
	const char *const argv[] = {"/bin/sh", "-c", check, NULL};
	assert_int_equal(sshd_run(argv), 0);
	fd = sshd_listener(&port);
	close(fd);
	scan(port, &s);
	assert_string_equal(s.line, "");
	assert_int_equal(kb_ssh_fingerprint("ssh-ed25519", print, &err), -KB_ERR_INVALID);
	assert_int_equal(kb_ssh_fingerprint("ssh-rsa AAAA", print, &err), -KB_ERR_INVALID);
	assert_int_equal(kb_ssh_fingerprint("ssh-ed25519 ====", print, &err), -KB_ERR_INVALID);
}

/* ---- Ports ----------------------------------------------------------------------------------- */

struct waiting {
	struct conn *c;
	pid_t pid;
	struct kb_source *timer;
	int status;
	bool done;
};

static void on_look(void *arg)
{
	struct waiting *w = arg;

	if (waitpid(w->pid, &w->status, WNOHANG) == w->pid) {
		w->done = true;
		kb_loop_stop(w->c->loop);
	} else {
		(void)kb_source_arm(w->timer, 20, NULL);
	}
}

static int talk_through(struct conn *c, unsigned port, size_t len)
{
	struct waiting w = {.c = c};
	struct kb_err err;

	assert_ok(kb_loop_timer(c->loop, on_look, &w, &w.timer, &err));
	assert_ok(kb_source_arm(w.timer, 20, &err));
	w.pid = fork();
	if (w.pid == 0)
		_exit(sshd_talk(port, len));
	conn_run(c, &w.done);
	kb_source_destroy(w.timer);
	return w.status;
}

static void ports_are_forwarded(void **state)
{
	struct conn *c = conn_connected();
	unsigned port, local = 0, dead;
	int fd = sshd_listener(&port);
	pid_t echo = sshd_echo(fd);
	struct kb_ssh_forward *f, *g;
	struct kb_err err;

	close(fd);
	close(sshd_listener(&dead));
	assert_ok(kb_ssh_forward(c->loop, c->ssh, &local, "127.0.0.1", port, &f, &err));
	assert_true(local > 0);
	assert_int_equal(talk_through(c, local, 3u << 20), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(talk_through(c, local, 1000), 0);
	/* The same port twice; a port where nobody listens. */
	assert_int_equal(kb_ssh_forward(c->loop, c->ssh, &local, "127.0.0.1", port, &g, &err),
		-KB_ERR_SYSTEM);
	local = 0;
	assert_ok(kb_ssh_forward(c->loop, c->ssh, &local, "127.0.0.1", dead, &g, &err));
	assert_int_not_equal(talk_through(c, local, 1000), 0);
	kb_ssh_forward_destroy(g);
	kb_ssh_forward_destroy(f);
	conn_finish(c);
	kill(echo, SIGKILL);
	waitpid(echo, NULL, 0);
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_command_has_output_error_and_status),
		cmocka_unit_test(much_goes_both_ways_exactly),
		cmocka_unit_test(a_paused_channel_holds_up_nobody_else),
		cmocka_unit_test(a_terminal_has_its_size_and_gets_a_new_one),
		cmocka_unit_test(closing_in_the_middle_leaves_the_rest_alone),
		cmocka_unit_test(another_host_key_is_refused),
		cmocka_unit_test(another_key_is_refused),
		cmocka_unit_test(a_dead_server_has_a_deadline),
		cmocka_unit_test(a_frozen_server_is_noticed),
		cmocka_unit_test(a_silent_but_living_server_stays),
		cmocka_unit_test(a_lost_server_is_told),
		cmocka_unit_test(an_agents_keys_open),
		cmocka_unit_test(a_scan_shows_the_host_key),
		cmocka_unit_test(ports_are_forwarded),
	};
	int failed;

	signal(SIGPIPE, SIG_IGN);
	if (!sshd_select(argc, argv))
		return 77;
	sshd_start(&conn_server);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	sshd_stop(&conn_server);
	return failed;
}
