#include "ssh_conn.h"

#include "tests/unit/kbtest.h"

struct sshd conn_server;

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

void conn_run(struct conn *c, const bool *until)
{
	struct kb_err err;

	while (!*until && !c->late)
		assert_ok(kb_loop_run(c->loop, &err));
	if (c->late)
		fail_msg("nothing happened for %d s", CONN_WAIT_MS / 1000);
}

struct kb_ssh_target conn_target(void)
{
	static const char *keys[2];

	keys[0] = conn_server.key;
	return (struct kb_ssh_target){.host = "127.0.0.1",
		.port = conn_server.port,
		.user = conn_server.user,
		.host_key = conn_server.host_key,
		.connect_ms = CONN_WAIT_MS,
		.keys = keys};
}

struct conn *conn_start(const struct kb_ssh_target *t)
{
	struct conn *c = calloc(1, sizeof(*c));
	struct kb_err err;

	kb_buf_init(&c->out, 64u << 20);
	kb_buf_init(&c->err, 1u << 20);
	kb_buf_init(&c->in, 64u << 20);
	assert_ok(kb_loop_create(&c->loop, &err));
	assert_ok(kb_loop_timer(c->loop, on_limit, c, &c->limit, &err));
	assert_ok(kb_source_arm(c->limit, CONN_WAIT_MS, &err));
	assert_ok(kb_ssh_connect(c->loop, t, &ssh_ops, c, &c->ssh, &err));
	return c;
}

struct conn *conn_connected(void)
{
	struct kb_ssh_target t = conn_target();
	struct conn *c = conn_start(&t);

	while (!c->ready && !c->closed)
		conn_run(c, c->closed ? &c->closed : &c->ready);
	if (c->closed)
		fail_msg("%s", c->why.msg);
	return c;
}

void conn_finish(struct conn *c)
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

void conn_feed(struct conn *c)
{
	size_t n = kb_ssh_channel_write(c->ch, kb_buf_data(&c->in), kb_buf_len(&c->in));

	kb_buf_consume(&c->in, n);
	if (kb_buf_len(&c->in) == 0)
		kb_ssh_channel_eof(c->ch);
}

static void ch_writable(struct kb_ssh_channel *ch, void *arg)
{
	conn_feed(arg);
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

void conn_begin(struct conn *c, const struct kb_ssh_exec *exec)
{
	struct kb_err err;

	c->done = c->eof = c->opened = false;
	c->await = NULL;
	kb_buf_consume(&c->out, kb_buf_len(&c->out));
	kb_buf_consume(&c->err, kb_buf_len(&c->err));
	assert_ok(kb_ssh_exec(c->ssh, exec, &ch_ops, c, &c->ch, &err));
}

void conn_command(struct conn *c, const char *text)
{
	struct kb_ssh_exec exec = {.command = text};

	conn_begin(c, &exec);
	kb_ssh_channel_eof(c->ch);
	conn_run(c, &c->done);
	if (!c->done_well)
		fail_msg("%s: %s", text, c->done_why.msg);
}

void conn_await_output(struct conn *c, const char *text)
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

void conn_assert_text(struct kb_buf *buf, const char *text)
{
	assert_int_equal(kb_buf_len(buf), strlen(text));
	assert_memory_equal(kb_buf_data(buf), text, strlen(text));
}
