/* The ssh client against a real OpenSSH server on loopback. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "sshd_fixture.h"
#include "supervisor/base/loop.h"
#include "supervisor/base/spawn.h"
#include "supervisor/link/ssh.h"
#include "tests/unit/kbtest.h"

#define WAIT_MS 120000
#define BIG	(9u << 20) /* more than the server's limit on one set of keys */

static struct sshd server;

/* One connection and what came of it. */
struct conn {
	struct kb_loop *loop;
	struct kb_source *limit;
	struct kb_ssh *ssh;
	bool ready, closed, late;
	struct kb_err why;
	/* of a command */
	struct kb_ssh_channel *ch;
	struct kb_buf out, err, in;
	bool opened, eof, done, done_well;
	struct kb_ssh_exit exit;
	struct kb_err done_why;
	const char *await; /* stop when the output has it */
};

static void on_ready(struct kb_ssh *ssh, void *arg)
{
	struct conn *c = arg;

	c->ready = true;
	kb_loop_stop(c->loop);
}

static void on_closed(struct kb_ssh *ssh, const struct kb_err *why, void *arg)
{
	struct conn *c = arg;

	c->closed = true;
	c->why = *why;
	kb_loop_stop(c->loop);
}

static const struct kb_ssh_ops ssh_ops = {on_ready, on_closed};

static void on_limit(void *arg)
{
	struct conn *c = arg;

	c->late = true;
	kb_loop_stop(c->loop);
}

static void run(struct conn *c, const bool *until)
{
	struct kb_err err;

	while (!*until && !c->late)
		assert_ok(kb_loop_run(c->loop, &err));
	if (c->late)
		fail_msg("nothing happened for %d s", WAIT_MS / 1000);
}

static struct kb_ssh_target target(void)
{
	static const char *keys[2];

	keys[0] = server.key;
	return (struct kb_ssh_target){.host = "127.0.0.1",
		.port = server.port,
		.user = server.user,
		.host_key = server.host_key,
		.connect_ms = WAIT_MS,
		.keys = keys};
}

static struct conn *start(const struct kb_ssh_target *t)
{
	struct conn *c = calloc(1, sizeof(*c));
	struct kb_err err;

	kb_buf_init(&c->out, 64u << 20);
	kb_buf_init(&c->err, 1u << 20);
	kb_buf_init(&c->in, 64u << 20);
	assert_ok(kb_loop_create(&c->loop, &err));
	assert_ok(kb_loop_timer(c->loop, on_limit, c, &c->limit, &err));
	assert_ok(kb_source_arm(c->limit, WAIT_MS, &err));
	assert_ok(kb_ssh_connect(c->loop, t, &ssh_ops, c, &c->ssh, &err));
	return c;
}

static struct conn *connected(void)
{
	struct kb_ssh_target t = target();
	struct conn *c = start(&t);

	while (!c->ready && !c->closed)
		run(c, c->closed ? &c->closed : &c->ready);
	if (c->closed)
		fail_msg("%s", c->why.msg);
	return c;
}

static void finish(struct conn *c)
{
	kb_ssh_destroy(c->ssh);
	kb_source_destroy(c->limit);
	kb_loop_destroy(c->loop);
	kb_buf_finish(&c->out);
	kb_buf_finish(&c->err);
	kb_buf_finish(&c->in);
	free(c);
}

/* ---- Commands -------------------------------------------------------------------------------- */

static void ch_opened(struct kb_ssh_channel *ch, void *arg)
{
	struct conn *c = arg;

	c->opened = true;
	kb_loop_stop(c->loop);
}

static void ch_data(
	struct kb_ssh_channel *ch, bool is_err, const uint8_t *data, size_t len, void *arg)
{
	struct conn *c = arg;
	struct kb_err err;

	assert_true(len > 0 && len <= KB_SSH_CHUNK);
	assert_ok(kb_buf_append(is_err ? &c->err : &c->out, data, len, &err));
	if (c->await && kb_buf_contains(&c->out, c->await))
		kb_loop_stop(c->loop);
}

static void feed(struct conn *c)
{
	size_t n = kb_ssh_channel_write(c->ch, kb_buf_data(&c->in), kb_buf_len(&c->in));

	kb_buf_consume(&c->in, n);
	if (kb_buf_len(&c->in) == 0)
		kb_ssh_channel_eof(c->ch);
}

static void ch_writable(struct kb_ssh_channel *ch, void *arg)
{
	feed(arg);
}

static void ch_eof(struct kb_ssh_channel *ch, void *arg)
{
	struct conn *c = arg;

	assert_false(c->eof);
	c->eof = true;
}

static void ch_closed(struct kb_ssh_channel *ch, const struct kb_ssh_exit *exit,
	const struct kb_err *why, void *arg)
{
	struct conn *c = arg;

	assert_false(c->done);
	c->done = true;
	c->done_well = exit != NULL;
	if (exit)
		c->exit = *exit;
	else
		c->done_why = *why;
	c->ch = NULL;
	kb_loop_stop(c->loop);
}

static const struct kb_ssh_channel_ops ch_ops = {
	ch_opened, ch_data, ch_writable, ch_eof, ch_closed};

static void begin(struct conn *c, const struct kb_ssh_exec *exec)
{
	struct kb_err err;

	c->done = c->eof = c->opened = false;
	c->await = NULL;
	kb_buf_consume(&c->out, kb_buf_len(&c->out));
	kb_buf_consume(&c->err, kb_buf_len(&c->err));
	assert_ok(kb_ssh_exec(c->ssh, exec, &ch_ops, c, &c->ch, &err));
}

static void command(struct conn *c, const char *text)
{
	struct kb_ssh_exec exec = {.command = text};

	begin(c, &exec);
	kb_ssh_channel_eof(c->ch);
	run(c, &c->done);
	if (!c->done_well)
		fail_msg("%s: %s", text, c->done_why.msg);
}

static void await_output(struct conn *c, const char *text)
{
	struct kb_err err;

	c->await = text;
	while (!kb_buf_contains(&c->out, text)) {
		if (c->done || c->late)
			fail_msg("'%s' did not come, but: %.*s", text, (int)kb_buf_len(&c->out),
				(char *)kb_buf_data(&c->out));
		assert_ok(kb_loop_run(c->loop, &err));
	}
	c->await = NULL;
}

static void assert_text(struct kb_buf *buf, const char *text)
{
	assert_int_equal(kb_buf_len(buf), strlen(text));
	assert_memory_equal(kb_buf_data(buf), text, strlen(text));
}

static void a_command_has_output_error_and_status(void **state)
{
	struct conn *c = connected();

	command(c, "echo out; echo err >&2; exit 3");
	assert_text(&c->out, "out\n");
	assert_text(&c->err, "err\n");
	assert_int_equal(c->exit.code, 3);
	assert_string_equal(c->exit.signal, "");
	assert_true(c->eof);
	command(c, "kill -KILL $$");
	assert_string_equal(c->exit.signal, "KILL");
	command(c, "cat");
	assert_int_equal(c->exit.code, 0);
	finish(c);
}

static void much_goes_both_ways_exactly(void **state)
{
	struct conn *c = connected();
	KB_FREE uint8_t *data = malloc(BIG);
	struct kb_ssh_exec exec = {.command = "cat"};
	struct kb_err err;

	sshd_random(data, BIG);
	assert_ok(kb_buf_append(&c->in, data, BIG, &err));
	begin(c, &exec);
	feed(c);
	run(c, &c->done);
	assert_true(c->done_well);
	assert_int_equal(kb_buf_len(&c->out), BIG);
	assert_memory_equal(kb_buf_data(&c->out), data, BIG);
	finish(c);
}

static void on_unpause(void *arg)
{
	struct conn *c = arg;

	kb_ssh_channel_pause(c->ch, false);
}

static void a_paused_channel_holds_up_nobody_else(void **state)
{
	struct conn *c = connected();
	struct kb_ssh_exec exec = {.command = "head -c 8000000 /dev/zero"};
	struct kb_ssh_channel *slow;
	struct kb_source *timer;
	struct kb_err err;

	begin(c, &exec);
	slow = c->ch;
	kb_ssh_channel_pause(slow, true);
	run(c, &c->opened);
	struct conn other = {.loop = c->loop, .ssh = c->ssh, .limit = c->limit};

	kb_buf_init(&other.out, 1u << 20);
	kb_buf_init(&other.err, 1u << 20);
	command(&other, "echo here");
	assert_text(&other.out, "here\n");
	assert_int_equal(kb_buf_len(&c->out), 0);
	kb_buf_finish(&other.out);
	kb_buf_finish(&other.err);
	assert_ok(kb_loop_timer(c->loop, on_unpause, c, &timer, &err));
	assert_ok(kb_source_arm(timer, 1, &err));
	run(c, &c->done);
	assert_int_equal(kb_buf_len(&c->out), 8000000);
	kb_source_destroy(timer);
	finish(c);
}

static void a_terminal_has_its_size_and_gets_a_new_one(void **state)
{
	struct conn *c = connected();
	struct kb_err err;
	struct kb_ssh_exec exec = {.command = "stty size; trap 'stty size' WINCH; echo rea''dy; "
					      "while :; do sleep 0.1; done",
		.tty = true,
		.rows = 20,
		.cols = 60};

	begin(c, &exec);
	while (!c->opened && !c->done && !c->late)
		assert_ok(kb_loop_run(c->loop, &err));
	if (geteuid() != 0 && c->done && !c->done_well) {
		/* It may not give the terminal the owner it wants. */
		print_message("sshd of an ordinary user makes no terminals here\n");
		finish(c);
		skip();
	}
	await_output(c, "20 60");
	await_output(c, "ready");
	kb_ssh_channel_resize(c->ch, 33, 101);
	await_output(c, "33 101");
	kb_ssh_channel_close(c->ch);
	exec.command = "echo rea''dy; exec sleep 1000";
	begin(c, &exec);
	await_output(c, "ready");
	kb_ssh_channel_write(c->ch, "\3", 1); /* ^C */
	run(c, &c->done);
	assert_true(c->done_well);
	assert_string_equal(c->exit.signal, "INT");
	finish(c);
}

static void closing_in_the_middle_leaves_the_rest_alone(void **state)
{
	struct conn *c = connected();
	struct kb_ssh_exec exec = {.command = "cat /dev/zero"};

	for (int i = 0; i < 5; i++) {
		begin(c, &exec);
		if (i % 2)
			run(c, &c->opened);
		kb_ssh_channel_close(c->ch);
		kb_buf_consume(&c->out, kb_buf_len(&c->out));
	}
	command(c, "echo fine");
	assert_int_equal(c->exit.code, 0);
	begin(c, &exec);
	run(c, &c->opened);
	finish(c); /* with a channel that pours */
}

/* ---- Refusals and deadlines ------------------------------------------------------------------ */

static struct kb_err refused(const struct kb_ssh_target *t)
{
	struct conn *c = start(t);
	struct kb_ssh_exec exec = {.command = "echo never"};
	struct kb_err why;

	begin(c, &exec); /* what was asked for at once is told, too */
	run(c, &c->closed);
	assert_false(c->ready);
	assert_true(c->done);
	assert_false(c->done_well);
	why = c->why;
	assert_true(why.msg[0] && why.hint[0]);
	finish(c);
	return why;
}

static void another_host_key_is_refused(void **state)
{
	struct kb_ssh_target t = target();
	char shown[KB_SSH_PRINT_TEXT], pinned[KB_SSH_PRINT_TEXT];
	struct kb_err err, why;

	t.host_key = server.other_host_key;
	why = refused(&t);
	assert_int_equal(why.code, KB_ERR_REFUSED);
	assert_ok(kb_ssh_fingerprint(server.host_key, shown, &err));
	assert_ok(kb_ssh_fingerprint(server.other_host_key, pinned, &err));
	assert_non_null(strstr(why.msg, shown));
	assert_non_null(strstr(why.msg, pinned));
	t.host_key = NULL;
	struct kb_ssh *ssh;
	assert_int_equal(kb_ssh_connect(NULL, &t, &ssh_ops, NULL, &ssh, &err), -KB_ERR_REFUSED);
}

static void another_key_is_refused(void **state)
{
	struct kb_ssh_target t = target();
	const char *const keys[] = {server.other_key, NULL};
	struct kb_err why;

	t.keys = keys;
	why = refused(&t);
	assert_non_null(strstr(why.msg, "none of the keys"));
	assert_non_null(strstr(why.msg, server.other_key));
	t.keys = NULL;
	assert_non_null(strstr(refused(&t).msg, "there were none"));
}

static void a_dead_server_has_a_deadline(void **state)
{
	struct kb_ssh_target t = target();
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
	t.connect_ms = WAIT_MS;
	why = refused(&t);
	assert_non_null(strstr(why.msg, "not known"));
}

static void a_frozen_server_is_noticed(void **state)
{
	struct kb_ssh_target t = target();
	struct kb_ssh_exec exec = {.command = "echo $PPID.; read x; kill -STOP $PPID"};
	struct conn *c;
	pid_t pid;

	t.keepalive_ms = 2000;
	t.dead_ms = 4000;
	c = start(&t);
	run(c, &c->ready);
	begin(c, &exec);
	await_output(c, ".\n");
	pid = atoi((char *)kb_buf_data(&c->out));
	assert_true(pid > 1);
	kb_ssh_channel_write(c->ch, "\n", 1);
	run(c, &c->closed);
	kill(pid, SIGKILL);
	assert_int_equal(c->why.code, KB_ERR_TIMEOUT);
	assert_non_null(strstr(c->why.msg, "silent"));
	assert_true(c->done && !c->done_well);
	finish(c);
}

static void a_silent_but_living_server_stays(void **state)
{
	struct kb_ssh_target t = target();
	struct kb_ssh_exec exec = {.command = "sleep 7; echo still"};
	struct conn *c;

	t.keepalive_ms = 2000;
	t.dead_ms = 6000;
	c = start(&t);
	run(c, &c->ready);
	begin(c, &exec);
	run(c, &c->done);
	assert_true(c->done_well);
	assert_text(&c->out, "still\n");
	finish(c);
}

static void a_lost_server_is_told(void **state)
{
	struct conn *c = connected();
	struct kb_ssh_exec exec = {.command = "kill -KILL $PPID"};

	begin(c, &exec);
	run(c, &c->closed);
	assert_int_equal(c->why.code, KB_ERR_CLOSED);
	assert_true(c->done && !c->done_well);
	finish(c);
}

/* ---- The agent, host keys -------------------------------------------------------------------- */

static void an_agents_keys_open(void **state)
{
	KB_FREE char *sock = kb_asprintf("%s/agent", server.dir);
	const char *const argv[] = {"/usr/bin/ssh-agent", "-D", "-a", sock, NULL};
	const char *const add[] = {"/usr/bin/ssh-add", "-q", server.other_key, server.key, NULL};
	struct kb_spawn spawn = {.path = argv[0], .argv = argv, .flags = KB_SPAWN_PDEATHSIG};
	struct kb_ssh_target t = target();
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
	c = start(&t);
	run(c, &c->ready);
	command(c, "echo in");
	assert_text(&c->out, "in\n");
	finish(c);
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
	struct kb_ssh_target t = {.host = "127.0.0.1", .port = port, .connect_ms = WAIT_MS};
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

	scan(server.port, &s);
	assert_string_equal(s.line, server.host_key);
	assert_ok(kb_ssh_fingerprint(server.host_key, print, &err));
	assert_string_equal(s.print, print);
	/* The same as OpenSSH says. */
	KB_FREE char *check =
		kb_asprintf("ssh-keygen -l -f %s/host.pub | grep -qF '%s '", server.dir, print);
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

/* ---- Files ----------------------------------------------------------------------------------- */

struct copying {
	struct conn *c;
	bool done, well;
	struct kb_err why;
	uint64_t told, total;
};

static void on_progress(uint64_t done, uint64_t total, void *arg)
{
	struct copying *k = arg;

	assert_true(done > k->told);
	k->told = done;
	k->total = total;
}

static void on_copied(const struct kb_err *why, void *arg)
{
	struct copying *k = arg;

	k->done = true;
	k->well = !why;
	if (why)
		k->why = *why;
	kb_loop_stop(k->c->loop);
}

static void copy(struct copying *k, struct conn *c, bool put, int fd, const char *path)
{
	struct kb_ssh_copy copy = {.fd = fd,
		.path = path,
		.mode = 0751,
		.progress = on_progress,
		.done = on_copied,
		.arg = k};
	struct kb_err err;

	*k = (struct copying){.c = c};
	assert_ok((put ? kb_ssh_put : kb_ssh_get)(c->ssh, &copy, &err));
	run(c, &k->done);
}

static int make_file(const char *path, const void *data, size_t len)
{
	struct kb_err err;
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_ok(kb_fd_write_all(fd, data, len, &err));
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

static void assert_file(const char *path, const uint8_t *data, size_t len)
{
	struct kb_buf buf KB_BUF_CLEANUP;
	struct kb_err err;

	kb_buf_init(&buf, 64u << 20);
	assert_ok(kb_file_read(path, &buf, &err));
	assert_int_equal(kb_buf_len(&buf), len);
	assert_memory_equal(kb_buf_data(&buf), data, len);
}

static void files_arrive_exactly(void **state)
{
	struct conn *c = connected();
	KB_FREE uint8_t *data = malloc(BIG);
	PATH_IN(from, server.dir, "from");
	PATH_IN(there, server.dir, "there");
	PATH_IN(back, server.dir, "back");
	PATH_IN(part, server.dir, "there.kbsup-part");
	struct copying k;
	struct stat st;
	int fd;

	sshd_random(data, BIG);
	fd = make_file(from, data, BIG);
	for (int i = 0; i < 2; i++) { /* the second time over the first */
		lseek(fd, 0, SEEK_SET);
		copy(&k, c, true, fd, there);
		if (!k.well)
			fail_msg("%s", k.why.msg);
		assert_int_equal(k.told, BIG);
		assert_int_equal(k.total, BIG);
	}
	close(fd);
	assert_file(there, data, BIG);
	assert_int_equal(stat(there, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0751);
	assert_int_equal(access(part, F_OK), -1);
	fd = make_file(back, "", 0);
	copy(&k, c, false, fd, there);
	if (!k.well)
		fail_msg("%s", k.why.msg);
	close(fd);
	assert_file(back, data, BIG);
	finish(c);
}

static void a_file_that_cannot_be_says_why(void **state)
{
	struct conn *c = connected();
	PATH_IN(from, server.dir, "small");
	PATH_IN(dir, server.dir, "a-dir");
	PATH_IN(nowhere, server.dir, "no/such/dir");
	struct copying k;
	int fd = make_file(from, "small", 5);

	copy(&k, c, true, fd, nowhere);
	assert_false(k.well);
	assert_non_null(strstr(k.why.msg, "there is no such file"));
	assert_int_equal(mkdir(dir, 0700), 0);
	copy(&k, c, true, fd, dir); /* renamed onto a directory */
	assert_false(k.well);
	copy(&k, c, false, fd, nowhere);
	assert_false(k.well);
	PATH_IN(part, server.dir, "a-dir.kbsup-part");
	assert_int_equal(access(part, F_OK), -1);
	command(c, "echo fine");
	assert_text(&c->out, "fine\n");
	close(fd);
	finish(c);
}

/* What came of a small request. */
struct asked {
	struct conn *c;
	bool done, well;
	struct kb_err why;
	struct kb_ssh_attrs attrs;
	char text[256];
	unsigned files, dirs, links;
};

static void answered(struct asked *q, const struct kb_err *why)
{
	assert_false(q->done);
	q->done = true;
	q->well = !why;
	if (why)
		q->why = *why;
	kb_loop_stop(q->c->loop);
}

static void on_done(const struct kb_err *why, void *arg)
{
	answered(arg, why);
}

static void on_attrs(const struct kb_ssh_attrs *attrs, const struct kb_err *why, void *arg)
{
	struct asked *q = arg;

	assert_true(!attrs == !!why);
	if (attrs)
		q->attrs = *attrs;
	answered(q, why);
}

static void on_text(const char *text, const struct kb_err *why, void *arg)
{
	struct asked *q = arg;

	snprintf(q->text, sizeof(q->text), "%s", text ? text : "");
	answered(q, why);
}

static void on_entry(const char *name, const struct kb_ssh_attrs *attrs, void *arg)
{
	struct asked *q = arg;

	assert_string_not_equal(name, ".");
	assert_string_not_equal(name, "..");
	q->files += S_ISREG(attrs->mode);
	q->dirs += S_ISDIR(attrs->mode);
	q->links += S_ISLNK(attrs->mode);
}

#define ASK(q, conn, call)                                                                         \
	do {                                                                                       \
		*(q) = (struct asked){.c = (conn)};                                                \
		assert_ok(call);                                                                   \
		run((conn), &(q)->done);                                                           \
	} while (0)

static void directories_links_and_modes(void **state)
{
	struct conn *c = connected();
	struct asked q = {0};
	struct kb_ssh_lister lister = {.entry = on_entry, .done = on_done, .arg = &q};
	struct kb_err err;
	PATH_IN(dir, server.dir, "tree");
	PATH_IN(link, server.dir, "tree/link");
	PATH_IN(sub, server.dir, "tree/sub");
	PATH_IN(nowhere, server.dir, "tree/nowhere");

	ASK(&q, c, kb_ssh_stat(c->ssh, dir, false, on_attrs, &q, &err));
	assert_false(q.well);
	assert_int_equal(q.why.code, KB_ERR_NOTFOUND);
	ASK(&q, c, kb_ssh_mkdir(c->ssh, dir, 0700, on_done, &q, &err));
	assert_true(q.well);
	ASK(&q, c, kb_ssh_mkdir(c->ssh, dir, 0700, on_done, &q, &err));
	assert_false(q.well);
	ASK(&q, c, kb_ssh_mkdir(c->ssh, sub, 0755, on_done, &q, &err));
	for (int i = 0; i < 2; i++) { /* the second time over the first */
		ASK(&q, c, kb_ssh_symlink(c->ssh, link, "sub", on_done, &q, &err));
		if (!q.well)
			fail_msg("%s", q.why.msg);
	}
	ASK(&q, c, kb_ssh_readlink(c->ssh, link, on_text, &q, &err));
	assert_string_equal(q.text, "sub");
	ASK(&q, c, kb_ssh_readlink(c->ssh, dir, on_text, &q, &err));
	assert_false(q.well);
	ASK(&q, c, kb_ssh_stat(c->ssh, link, false, on_attrs, &q, &err));
	assert_true(S_ISLNK(q.attrs.mode));
	ASK(&q, c, kb_ssh_stat(c->ssh, link, true, on_attrs, &q, &err));
	assert_true(S_ISDIR(q.attrs.mode));
	for (int i = 0; i < 300; i++) { /* more than one answer holds */
		KB_FREE char *path = kb_asprintf("%s/file-%d-with-a-name-of-some-length", dir, i);

		close(make_file(path, "x", 1));
	}
	ASK(&q, c, kb_ssh_list(c->ssh, dir, &lister, &err));
	assert_true(q.well);
	assert_int_equal(q.files, 300);
	assert_int_equal(q.dirs, 1);
	assert_int_equal(q.links, 1);
	ASK(&q, c, kb_ssh_list(c->ssh, nowhere, &lister, &err));
	assert_int_equal(q.why.code, KB_ERR_NOTFOUND);
	ASK(&q, c, kb_ssh_chmod(c->ssh, dir, 0511, on_done, &q, &err));
	ASK(&q, c, kb_ssh_stat(c->ssh, dir, false, on_attrs, &q, &err));
	assert_int_equal(q.attrs.mode & 07777, 0511);
	ASK(&q, c, kb_ssh_chmod(c->ssh, dir, 0700, on_done, &q, &err));
	finish(c);
}

static void on_some_progress(uint64_t done, uint64_t total, void *arg)
{
	struct copying *k = arg;

	k->told = done;
	kb_ssh_copy_cancel(k->c->ssh);
}

static void a_cancelled_copy_leaves_nothing(void **state)
{
	struct conn *c = connected();
	KB_FREE uint8_t *data = malloc(BIG);
	PATH_IN(from, server.dir, "from-2");
	PATH_IN(there, server.dir, "there-2");
	PATH_IN(part, server.dir, "there-2.kbsup-part");
	struct copying k = {.c = c};
	struct kb_ssh_copy copy = {.path = there,
		.mode = 0600,
		.progress = on_some_progress,
		.done = on_copied,
		.arg = &k};
	struct kb_err err;

	sshd_random(data, BIG);
	copy.fd = make_file(from, data, BIG);
	assert_ok(kb_ssh_put(c->ssh, &copy, &err));
	run(c, &k.done);
	assert_false(k.well);
	assert_int_equal(k.why.code, KB_ERR_CLOSED);
	assert_true(k.told > 0 && k.told < BIG);
	assert_int_equal(access(there, F_OK), -1);
	assert_int_equal(access(part, F_OK), -1);
	/* And the connection is fine. */
	copy.progress = NULL;
	k = (struct copying){.c = c};
	assert_int_equal(lseek(copy.fd, 0, SEEK_SET), 0);
	assert_ok(kb_ssh_put(c->ssh, &copy, &err));
	run(c, &k.done);
	assert_true(k.well);
	assert_file(there, data, BIG);
	close(copy.fd);
	finish(c);
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
	run(c, &w.done);
	kb_source_destroy(w.timer);
	return w.status;
}

static void ports_are_forwarded(void **state)
{
	struct conn *c = connected();
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
	finish(c);
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
		cmocka_unit_test(files_arrive_exactly),
		cmocka_unit_test(a_file_that_cannot_be_says_why),
		cmocka_unit_test(directories_links_and_modes),
		cmocka_unit_test(a_cancelled_copy_leaves_nothing),
		cmocka_unit_test(ports_are_forwarded),
	};
	int failed;

	signal(SIGPIPE, SIG_IGN);
	if (!sshd_select(argc, argv))
		return 77;
	sshd_start(&server);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	sshd_stop(&server);
	return failed;
}
