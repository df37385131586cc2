/* Commands and connections: one state machine per channel, a step at a time. */
#include <stdio.h>
#include <string.h>

#include "ssh_private.h"

enum state {
	OPENING,
	TERMINAL, /* asking for one */
	STARTING, /* the command */
	OPEN,
	CLOSING, /* freeing it waits for the other side */
};

struct kb_ssh_channel {
	TAILQ_ENTRY(kb_ssh_channel) entry;
	struct kb_ssh *ssh;
	const struct kb_ssh_channel_ops *ops; /* NULL: the user forgot it */
	void *arg;
	enum state state;
	LIBSSH2_CHANNEL *channel;
	char *command, *term, *host; /* host: a connection, not a command */
	unsigned port;
	bool tty, resize;
	uint32_t rows, cols;
	struct kb_buf out;
	bool paused, starved; /* starved: somebody waits for room */
	bool eof_due, eof_sent, eof_told;
	struct kb_ssh_exit exit;
	struct kb_err fault; /* code 0: none */
};

/* ---- Opening --------------------------------------------------------------------------------- */

static bool would_block(struct kb_ssh_channel *ch)
{
	return libssh2_session_last_errno(ch->ssh->session) == LIBSSH2_ERROR_EAGAIN;
}

static void spoil(struct kb_ssh_channel *ch, const char *what)
{
	int rc = libssh2_session_last_errno(ch->ssh->session);
	struct kb_err err;

	kb_ssh_error(ch->ssh, &err, what);
	if (kb_ssh_is_fatal(rc)) {
		kb_ssh_fail(ch->ssh, &err);
		return;
	}
	ch->fault = err;
	ch->state = CLOSING;
}

static bool open_step(struct kb_ssh_channel *ch)
{
	struct kb_ssh *ssh = ch->ssh;

	if (ssh->opening && ssh->opening != ch)
		return false;
	/* Forgotten before it was asked for. */
	if (!ssh->opening && !ch->ops) {
		ch->state = CLOSING;
		return true;
	}
	ssh->opening = ch;
	if (ch->host)
		ch->channel = libssh2_channel_direct_tcpip_ex(
			ssh->session, ch->host, (int)ch->port, "127.0.0.1", 0);
	else
		ch->channel = libssh2_channel_open_session(ssh->session);
	if (!ch->channel && would_block(ch))
		return false;
	ssh->opening = NULL;
	if (!ch->channel)
		spoil(ch,
			ch->host ? "a connection from there was refused" : "a channel was refused");
	else
		ch->state = ch->host ? OPEN : ch->tty ? TERMINAL : STARTING;
	if (ch->channel && ch->host && ch->ops && ch->ops->opened)
		ch->ops->opened(ch, ch->arg);
	return true;
}

static bool terminal_step(struct kb_ssh_channel *ch)
{
	int rc = libssh2_channel_request_pty_ex(ch->channel, ch->term, (unsigned)strlen(ch->term),
		NULL, 0, (int)ch->cols, (int)ch->rows, 0, 0);

	if (rc == LIBSSH2_ERROR_EAGAIN)
		return false;
	ch->state = STARTING;
	if (rc < 0)
		spoil(ch, "a terminal was refused");
	return true;
}

static bool start_step(struct kb_ssh_channel *ch)
{
	const char *what = ch->command ? "exec" : "shell";
	int rc = libssh2_channel_process_startup(ch->channel, what, (unsigned)strlen(what),
		ch->command, ch->command ? (unsigned)strlen(ch->command) : 0);

	if (rc == LIBSSH2_ERROR_EAGAIN)
		return false;
	ch->state = OPEN;
	if (rc < 0)
		spoil(ch, "the command was refused");
	else if (ch->ops && ch->ops->opened)
		ch->ops->opened(ch, ch->arg);
	return true;
}

/* ---- Open ------------------------------------------------------------------------------------ */

static bool write_out(struct kb_ssh_channel *ch)
{
	bool moved = false;

	while (kb_buf_len(&ch->out) > 0 && kb_buf_len(&ch->ssh->out) < KB_SSH_OUT_HIGH) {
		ssize_t n = libssh2_channel_write(
			ch->channel, (const char *)kb_buf_data(&ch->out), kb_buf_len(&ch->out));

		if (n == LIBSSH2_ERROR_EAGAIN || n == 0)
			break;
		if (n < 0 && kb_ssh_is_fatal((int)n)) {
			spoil(ch, "the connection broke");
			return true;
		}
		/* The other side listens no more: what it says is still heard. */
		kb_buf_consume(&ch->out, n < 0 ? kb_buf_len(&ch->out) : (size_t)n);
		moved = true;
	}
	if (ch->eof_due && !ch->eof_sent && kb_buf_len(&ch->out) == 0 &&
		libssh2_channel_send_eof(ch->channel) != LIBSSH2_ERROR_EAGAIN) {
		ch->eof_sent = true;
		moved = true;
	}
	if (ch->starved && !ch->eof_due && kb_ssh_channel_room(ch) >= KB_SSH_ROOM / 2) {
		ch->starved = false;
		if (ch->ops && ch->ops->writable)
			ch->ops->writable(ch, ch->arg);
		moved = true;
	}
	return moved;
}

static bool read_in(struct kb_ssh_channel *ch, int stream)
{
	uint8_t data[KB_SSH_CHUNK];
	ssize_t n;

	if ((ch->paused && ch->ops) || ch->state != OPEN)
		return false;
	n = libssh2_channel_read_ex(ch->channel, stream, (char *)data, sizeof(data));
	if (n == LIBSSH2_ERROR_EAGAIN || n == 0)
		return false;
	if (n < 0) {
		spoil(ch, "the connection broke");
		return true;
	}
	if (ch->ops)
		ch->ops->data(ch, stream != 0, data, (size_t)n, ch->arg);
	return true;
}

static void note_exit(struct kb_ssh_channel *ch)
{
	char *name = NULL;
	size_t len = 0;

	ch->exit.code = libssh2_channel_get_exit_status(ch->channel) & 0xff;
	if (libssh2_channel_get_exit_signal(ch->channel, &name, &len, NULL, NULL, NULL, NULL) ==
			0 &&
		name) {
		kb_escape(ch->exit.signal, sizeof(ch->exit.signal), name, len);
		libssh2_free(ch->ssh->session, name);
	}
}

/* What is left to read was read. */
static bool end_step(struct kb_ssh_channel *ch)
{
	bool moved = false;
	int rc;

	if ((ch->paused && ch->ops) || !libssh2_channel_eof(ch->channel))
		return false;
	if (!ch->eof_told) {
		ch->eof_told = moved = true;
		if (ch->ops && ch->ops->eof)
			ch->ops->eof(ch, ch->arg);
	}
	rc = libssh2_channel_wait_closed(ch->channel);
	if (rc == LIBSSH2_ERROR_EAGAIN && !(ch->host && ch->eof_sent))
		return moved;
	note_exit(ch);
	ch->state = CLOSING;
	return true;
}

static bool flow_step(struct kb_ssh_channel *ch)
{
	bool moved = false;

	if (!ch->ops) {
		ch->state = CLOSING;
		return true;
	}
	if (ch->resize && libssh2_channel_request_pty_size(ch->channel, (int)ch->cols,
				  (int)ch->rows) != LIBSSH2_ERROR_EAGAIN)
		ch->resize = false;
	moved = write_out(ch);
	moved = read_in(ch, 0) || moved;
	if (!ch->host)
		moved = read_in(ch, SSH_EXTENDED_DATA_STDERR) || moved;
	if (ch->state == OPEN)
		moved = end_step(ch) || moved;
	return moved;
}

/* ---- Ends ------------------------------------------------------------------------------------ */

static void drop(struct kb_ssh_channel *ch)
{
	TAILQ_REMOVE(&ch->ssh->channels, ch, entry);
	ch->ssh->n_channels--;
	if (ch->ssh->opening == ch)
		ch->ssh->opening = NULL;
	kb_buf_finish(&ch->out);
	free(ch->command);
	free(ch->term);
	free(ch->host);
	free(ch);
}

static void tell_closed(struct kb_ssh_channel *ch, const struct kb_err *why)
{
	const struct kb_ssh_channel_ops *ops = ch->ops;

	ch->ops = NULL;
	if (ops)
		ops->closed(ch, why ? NULL : &ch->exit, why, ch->arg);
}

/* True: the channel is gone. */
static bool close_step(struct kb_ssh_channel *ch)
{
	tell_closed(ch, ch->fault.code ? &ch->fault : NULL);
	if (ch->channel && libssh2_channel_free(ch->channel) == LIBSSH2_ERROR_EAGAIN)
		return false;
	drop(ch);
	return true;
}

bool kb_ssh_channels_step(struct kb_ssh *ssh)
{
	static bool (*const steps[])(struct kb_ssh_channel *) = {
		[OPENING] = open_step,
		[TERMINAL] = terminal_step,
		[STARTING] = start_step,
		[OPEN] = flow_step,
		[CLOSING] = close_step,
	};
	struct kb_ssh_channel *ch, *next;
	bool moved = false;

	/* Only a step of its own removes a channel, and new ones come to the end. */
	for (ch = TAILQ_FIRST(&ssh->channels); ch; ch = next) {
		bool did;

		next = TAILQ_NEXT(ch, entry);
		did = steps[ch->state](ch);
		moved = moved || did;
		if (ssh->phase == KB_SSH_OVER || ssh->doomed)
			return false;
	}
	return moved;
}

void kb_ssh_channels_end(struct kb_ssh *ssh, const struct kb_err *why)
{
	struct kb_ssh_channel *ch;

	TAILQ_FOREACH(ch, &ssh->channels, entry)
		if (why)
			tell_closed(ch, why);
	/* A step may stand on one of them: they go with the connection. */
	while (!why && (ch = TAILQ_FIRST(&ssh->channels)))
		drop(ch);
}

/* ---- For the user ---------------------------------------------------------------------------- */

static int create(struct kb_ssh *ssh, const struct kb_ssh_channel_ops *ops, void *arg,
	struct kb_ssh_channel **ret, struct kb_err *err)
{
	struct kb_ssh_channel *ch;

	if (ssh->phase == KB_SSH_OVER)
		return kb_err_set(err, KB_ERR_CLOSED, "%s: the connection is over", ssh->where);
	if (ssh->n_channels >= KB_SSH_CHANNELS_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "%s: %d channels are open", ssh->where,
			KB_SSH_CHANNELS_MAX);
	ch = calloc(1, sizeof(*ch));
	if (!ch)
		return kb_err_nomem(err);
	ch->ssh = ssh;
	ch->ops = ops;
	ch->arg = arg;
	kb_buf_init(&ch->out, KB_SSH_ROOM);
	TAILQ_INSERT_TAIL(&ssh->channels, ch, entry);
	ssh->n_channels++;
	*ret = ch;
	return 0;
}

/* Everything it needs is there, or it goes again. */
static int settle(
	struct kb_ssh_channel *ch, bool good, struct kb_ssh_channel **ret, struct kb_err *err)
{
	if (!good) {
		drop(ch);
		return kb_err_nomem(err);
	}
	kb_ssh_kick(ch->ssh);
	*ret = ch;
	return 0;
}

int kb_ssh_exec(struct kb_ssh *ssh, const struct kb_ssh_exec *exec,
	const struct kb_ssh_channel_ops *ops, void *arg, struct kb_ssh_channel **ret,
	struct kb_err *err)
{
	struct kb_ssh_channel *ch;
	int r = create(ssh, ops, arg, &ch, err);

	if (r < 0)
		return r;
	ch->command = exec->command ? strdup(exec->command) : NULL;
	ch->term = strdup(exec->term ? exec->term : "xterm");
	ch->tty = exec->tty;
	ch->rows = exec->rows;
	ch->cols = exec->cols;
	return settle(ch, (ch->command || !exec->command) && ch->term, ret, err);
}

int kb_ssh_dial(struct kb_ssh *ssh, const char *host, unsigned port,
	const struct kb_ssh_channel_ops *ops, void *arg, struct kb_ssh_channel **ret,
	struct kb_err *err)
{
	struct kb_ssh_channel *ch;
	int r = create(ssh, ops, arg, &ch, err);

	if (r < 0)
		return r;
	ch->host = strdup(host);
	ch->port = port;
	return settle(ch, ch->host, ret, err);
}

size_t kb_ssh_channel_room(const struct kb_ssh_channel *ch)
{
	return ch->eof_due ? 0 : KB_SSH_ROOM - kb_buf_len(&ch->out);
}

size_t kb_ssh_channel_write(struct kb_ssh_channel *ch, const void *data, size_t len)
{
	size_t n = KB_MIN(len, kb_ssh_channel_room(ch));

	if (n > 0 && kb_buf_append(&ch->out, data, n, NULL) < 0)
		n = 0;
	if (n < len)
		ch->starved = true;
	if (n > 0)
		kb_ssh_kick(ch->ssh);
	return n;
}

void kb_ssh_channel_eof(struct kb_ssh_channel *ch)
{
	ch->eof_due = true;
	kb_ssh_kick(ch->ssh);
}

void kb_ssh_channel_pause(struct kb_ssh_channel *ch, bool paused)
{
	if (ch->paused && !paused)
		kb_ssh_kick(ch->ssh);
	ch->paused = paused;
}

void kb_ssh_channel_resize(struct kb_ssh_channel *ch, uint32_t rows, uint32_t cols)
{
	ch->rows = rows;
	ch->cols = cols;
	ch->resize = ch->tty && ch->state > TERMINAL;
	kb_ssh_kick(ch->ssh);
}

void kb_ssh_channel_close(struct kb_ssh_channel *ch)
{
	if (!ch)
		return;
	ch->ops = NULL;
	kb_ssh_kick(ch->ssh);
}
