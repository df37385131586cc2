/* Theory of operation.
 *
 * libssh2 is a state machine that reads and writes through two functions of ours, which go to two
 * buffers, never to the socket. The write function takes everything: so libssh2 never stops
 * half-way through a packet (after which it would accept no other call than the same again), and
 * work on one channel never gets in the way of another. What is sent is bounded by its users
 * instead: they wait while the buffer is above its mark. The read function hands out what has come.
 *
 * The loop moves bytes between socket and buffers, then serve() lets everyone take a step, until
 * nobody gets any further. Silence is judged by what the socket brings, whether libssh2 looks at it
 * or not: after a while the server is asked for an answer, after a longer while it is gone.
 *
 * What a server can make libssh2 keep is bounded by the memory it may have.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ssh_private.h"

#define ROUNDS_MAX	 64 /* then others on the loop have their turn */
#define FREE_ROUNDS	 1000
#define KEEPALIVE_MIN_MS 2000 /* what libssh2 has, in whole seconds */

static void serve(struct kb_ssh *ssh);

/* ---- What libssh2 stands on ------------------------------------------------------------------ */

/* In front of every piece, so that what libssh2 forgets to free goes with the connection. */
struct kb_ssh_piece {
	LIST_ENTRY(kb_ssh_piece) entry;
	size_t size;
	max_align_t data[];
};

void *kb_ssh_alloc(size_t size, void **abstract)
{
	struct kb_ssh *ssh = *abstract;
	struct kb_ssh_piece *p;

	if (size > KB_SSH_MEMORY_MAX || ssh->memory + size > KB_SSH_MEMORY_MAX)
		return NULL;
	p = malloc(sizeof(*p) + size);
	if (!p)
		return NULL;
	p->size = size;
	ssh->memory += size;
	LIST_INSERT_HEAD(&ssh->pieces, p, entry);
	return p->data;
}

static void release(void *data, void **abstract)
{
	struct kb_ssh *ssh = *abstract;
	struct kb_ssh_piece *p;

	if (!data)
		return;
	p = kb_container_of(data, struct kb_ssh_piece, data);
	ssh->memory -= p->size;
	LIST_REMOVE(p, entry);
	free(p);
}

static void *resize(void *data, size_t size, void **abstract)
{
	void *moved = kb_ssh_alloc(size, abstract);

	if (moved && data) {
		size_t old = kb_container_of(data, struct kb_ssh_piece, data)->size;

		memcpy(moved, data, KB_MIN(size, old));
		release(data, abstract);
	}
	return moved;
}

static ssize_t take_bytes(
	libssh2_socket_t fd, const void *data, size_t len, int flags, void **abstract)
{
	struct kb_ssh *ssh = *abstract;

	if (ssh->phase == KB_SSH_OVER || ssh->errnum)
		return -EPIPE;
	if (kb_buf_append(&ssh->out, data, len, NULL) < 0) {
		ssh->errnum = ENOBUFS;
		return -ENOBUFS;
	}
	return (ssize_t)len;
}

static ssize_t give_bytes(libssh2_socket_t fd, void *data, size_t len, int flags, void **abstract)
{
	struct kb_ssh *ssh = *abstract;
	size_t n = KB_MIN(len, kb_buf_len(&ssh->in));

	if (ssh->phase == KB_SSH_OVER)
		return -EPIPE;
	if (n == 0)
		return -EAGAIN;
	memcpy(data, kb_buf_data(&ssh->in), n);
	kb_buf_consume(&ssh->in, n);
	return (ssize_t)n;
}

int kb_ssh_error(struct kb_ssh *ssh, struct kb_err *err, const char *what)
{
	char *text = NULL, line[256];
	int len = 0;

	libssh2_session_last_error(ssh->session, &text, &len, 0);
	kb_escape(line, sizeof(line), text ? text : "", text ? strlen(text) : 0);
	return kb_err_set(
		err, KB_ERR_FAILED, "%s: %s%s%s", ssh->where, what, *line ? ": " : "", line);
}

bool kb_ssh_is_fatal(int rc)
{
	switch (rc) {
	case LIBSSH2_ERROR_SOCKET_NONE:
	case LIBSSH2_ERROR_SOCKET_SEND:
	case LIBSSH2_ERROR_SOCKET_RECV:
	case LIBSSH2_ERROR_SOCKET_DISCONNECT:
	case LIBSSH2_ERROR_PROTO:
	case LIBSSH2_ERROR_ALLOC:
	case LIBSSH2_ERROR_DECRYPT:
	case LIBSSH2_ERROR_ENCRYPT:
	case LIBSSH2_ERROR_INVALID_MAC:
	case LIBSSH2_ERROR_KEY_EXCHANGE_FAILURE:
	case LIBSSH2_ERROR_KEX_FAILURE:
	case LIBSSH2_ERROR_OUT_OF_BOUNDARY:
	case LIBSSH2_ERROR_BAD_SOCKET:
		return true;
	default:
		return false;
	}
}

/* ---- The socket ------------------------------------------------------------------------------ */

static void fill(struct kb_ssh *ssh)
{
	size_t room = KB_SSH_IN_MAX - kb_buf_len(&ssh->in);
	uint8_t *at;
	ssize_t n;

	if (room == 0 || ssh->eof || kb_buf_reserve(&ssh->in, room, &at, NULL) < 0)
		return;
	n = recv(ssh->fd, at, room, 0);
	if (n > 0) {
		kb_buf_commit(&ssh->in, (size_t)n);
		ssh->heard = kb_now_mono();
	} else if (n == 0) {
		ssh->eof = true;
	} else if (errno != EAGAIN && errno != EINTR) {
		ssh->errnum = errno;
	}
}

static void flush(struct kb_ssh *ssh)
{
	while (ssh->fd >= 0 && kb_buf_len(&ssh->out) > 0) {
		ssize_t n = send(ssh->fd, kb_buf_data(&ssh->out), kb_buf_len(&ssh->out),
			MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno != EAGAIN && errno != EINTR)
			ssh->errnum = errno;
		if (n <= 0)
			break;
		kb_buf_consume(&ssh->out, (size_t)n);
	}
}

static void watch(struct kb_ssh *ssh)
{
	unsigned events = 0;

	if (!ssh->io)
		return;
	if (!ssh->eof && kb_buf_len(&ssh->in) < KB_SSH_IN_MAX)
		events |= KB_IO_READ;
	if (kb_buf_len(&ssh->out) > 0)
		events |= KB_IO_WRITE;
	(void)kb_source_set_events(ssh->io, events, NULL);
}

static void on_socket(int fd, unsigned events, void *arg)
{
	struct kb_ssh *ssh = arg;

	if (events & KB_IO_READ)
		fill(ssh);
	serve(ssh);
}

/* ---- Connecting ------------------------------------------------------------------------------ */

static int start_session(struct kb_ssh *ssh, struct kb_err *err)
{
	ssh->session = libssh2_session_init_ex(kb_ssh_alloc, release, resize, ssh);
	if (!ssh->session)
		return kb_err_nomem(err);
	/* Its prototypes hide behind void *. */
	libssh2_session_callback_set(ssh->session, LIBSSH2_CALLBACK_SEND, (void *)take_bytes);
	libssh2_session_callback_set(ssh->session, LIBSSH2_CALLBACK_RECV, (void *)give_bytes);
	libssh2_session_set_blocking(ssh->session, 0);
	libssh2_keepalive_config(ssh->session, 1, 1);
	return kb_ssh_want_host_key(ssh, err);
}

static void on_connected(int fd, void *arg)
{
	struct kb_ssh *ssh = arg;
	struct kb_err err;
	int r;

	kb_ssh_dial_destroy(ssh->dial);
	ssh->dial = NULL;
	ssh->fd = fd;
	ssh->phase = KB_SSH_HANDSHAKE;
	ssh->heard = kb_now_mono();
	r = kb_loop_io(ssh->loop, fd, KB_IO_READ, on_socket, ssh, &ssh->io, &err);
	if (r == 0)
		r = start_session(ssh, &err);
	if (r < 0)
		kb_ssh_fail(ssh, &err);
	else
		serve(ssh);
}

static void on_unreachable(const struct kb_err *why, void *arg)
{
	kb_ssh_fail(arg, why);
}

static const struct kb_ssh_dial_ops dial_ops = {on_connected, on_unreachable};

static int handshake_failed(struct kb_ssh *ssh, int rc, struct kb_err *err)
{
	kb_ssh_error(ssh, err, "ssh cannot be spoken with it");
	if (rc != LIBSSH2_ERROR_KEX_FAILURE && rc != LIBSSH2_ERROR_KEY_EXCHANGE_FAILURE)
		return kb_err_hint(err, "is this the port of an OpenSSH server?");
	if (ssh->scan)
		return kb_err_hint(err, "its sshd needs an Ed25519 or ECDSA host key");
	return kb_err_hint(err,
		"it has no host key of the pinned kind, %.*s, or no method that is "
		"known here",
		(int)strcspn(ssh->host_key, " "), ssh->host_key);
}

static void end_scan(
	struct kb_ssh *ssh, const char *line, const char *print, const struct kb_err *why)
{
	kb_ssh_scan_fn fn = ssh->scan;

	ssh->phase = KB_SSH_OVER;
	ssh->scan = NULL;
	ssh->doomed = true;
	if (fn)
		fn(line, print, why, ssh->arg);
}

/* 1 when it went on, 0 to wait. */
static int handshake_step(struct kb_ssh *ssh, struct kb_err *err)
{
	char line[KB_SSH_KEY_TEXT], print[KB_SSH_PRINT_TEXT];
	int rc = libssh2_session_handshake(ssh->session, ssh->fd);

	if (rc == LIBSSH2_ERROR_EAGAIN)
		return 0;
	if (rc < 0)
		return handshake_failed(ssh, rc, err);
	if (ssh->scan) {
		rc = kb_ssh_shown_key(ssh, line, print, err);
		if (rc == 0)
			end_scan(ssh, line, print, NULL);
		return rc < 0 ? rc : 1;
	}
	rc = kb_ssh_check_host_key(ssh, err);
	if (rc < 0)
		return rc;
	ssh->phase = KB_SSH_AUTH;
	return 1;
}

static int auth_step(struct kb_ssh *ssh, struct kb_err *err)
{
	int r = kb_ssh_auth_step(ssh, err);

	if (r <= 0)
		return r;
	kb_ssh_auth_finish(ssh);
	ssh->phase = KB_SSH_READY;
	kb_source_disarm(ssh->deadline);
	r = kb_source_arm(ssh->alive, ssh->keepalive_ms / 2, err);
	if (r == 0 && ssh->ops->ready)
		ssh->ops->ready(ssh, ssh->arg);
	return r < 0 ? r : 1;
}

/* ---- Serving --------------------------------------------------------------------------------- */

static bool step(struct kb_ssh *ssh)
{
	struct kb_err err;
	bool moved;
	int r;

	switch (ssh->phase) {
	case KB_SSH_HANDSHAKE:
		r = handshake_step(ssh, &err);
		break;
	case KB_SSH_AUTH:
		r = auth_step(ssh, &err);
		break;
	case KB_SSH_READY:
		moved = kb_ssh_channels_step(ssh);
		return (!ssh->doomed && kb_ssh_jobs_step(ssh)) || moved;
	default:
		return false;
	}
	if (r < 0)
		kb_ssh_fail(ssh, &err);
	return r > 0;
}

static void free_now(struct kb_ssh *ssh);

static void fail_if_broken(struct kb_ssh *ssh)
{
	static const char *const doing[] = {
		[KB_SSH_HANDSHAKE] = " before anything was agreed",
		[KB_SSH_AUTH] = " before the user was in",
	};
	struct kb_err err;

	if (ssh->phase == KB_SSH_OVER)
		return;
	if (ssh->errnum) {
		kb_err_sys(&err, ssh->errnum, "%s: the connection broke", ssh->where);
		err.code = KB_ERR_CLOSED;
		kb_ssh_fail(ssh, &err);
	} else if (ssh->eof) {
		kb_err_set(&err, KB_ERR_CLOSED, "%s closed the connection%s", ssh->where,
			ssh->phase < KB_SSH_READY ? doing[ssh->phase] : "");
		kb_ssh_fail(ssh, &err);
	}
}

static void serve(struct kb_ssh *ssh)
{
	bool moved = true;
	int rounds = 0;

	if (ssh->serving)
		return;
	ssh->serving = true;
	while (moved && !ssh->doomed && ssh->phase != KB_SSH_OVER && rounds++ < ROUNDS_MAX)
		moved = step(ssh);
	if (!ssh->doomed && ssh->phase != KB_SSH_OVER) {
		flush(ssh);
		if (moved)
			kb_ssh_kick(ssh);
		else
			fail_if_broken(ssh);
	}
	ssh->serving = false;
	if (ssh->doomed)
		free_now(ssh);
	else
		watch(ssh);
}

static void on_kick(void *arg)
{
	serve(arg);
}

void kb_ssh_kick(struct kb_ssh *ssh)
{
	if (ssh->phase != KB_SSH_OVER)
		(void)kb_source_arm(ssh->kick, 0, NULL);
}

/* ---- Time ------------------------------------------------------------------------------------ */

static void on_deadline(void *arg)
{
	static const char *const doing[] = {
		[KB_SSH_DIALLING] = "connecting",
		[KB_SSH_HANDSHAKE] = "agreeing on keys",
		[KB_SSH_AUTH] = "proving who the user is",
	};
	struct kb_ssh *ssh = arg;
	struct kb_err err;

	kb_err_set(&err, KB_ERR_TIMEOUT, "%s does not answer: %s took more than %lld s", ssh->where,
		doing[ssh->phase], (long long)(ssh->connect_ms + 999) / 1000);
	kb_err_hint(&err, "is the machine up, and does its sshd listen there?");
	kb_ssh_fail(ssh, &err);
}

static void on_alive(void *arg)
{
	struct kb_ssh *ssh = arg;
	int64_t silent = (kb_now_mono() - ssh->heard) / 1000000;
	struct kb_err err;

	/* What we did not read, it could not say. */
	if (kb_buf_len(&ssh->in) >= KB_SSH_IN_MAX)
		ssh->heard = kb_now_mono();
	else if (silent >= ssh->dead_ms) {
		kb_err_set(&err, KB_ERR_TIMEOUT, "%s is silent: nothing came for %lld s",
			ssh->where, (long long)silent / 1000);
		kb_err_hint(&err, "the machine or its network is frozen");
		kb_ssh_fail(ssh, &err);
		return;
	} else if (silent >= ssh->keepalive_ms) {
		(void)libssh2_keepalive_send(ssh->session, NULL);
		flush(ssh);
		watch(ssh);
	}
	(void)kb_source_arm(ssh->alive, ssh->keepalive_ms / 2, NULL);
}

/* ---- Life ------------------------------------------------------------------------------------ */

void kb_ssh_fail(struct kb_ssh *ssh, const struct kb_err *why)
{
	struct kb_err copy = *why;
	bool outer = ssh->serving;

	if (ssh->phase == KB_SSH_OVER || ssh->doomed)
		return;
	ssh->phase = KB_SSH_OVER;
	ssh->serving = true;
	kb_source_disarm(ssh->deadline);
	kb_source_disarm(ssh->alive);
	kb_source_destroy(ssh->io);
	ssh->io = NULL;
	kb_ssh_channels_end(ssh, &copy);
	kb_ssh_jobs_end(ssh, &copy);
	if (ssh->scan)
		end_scan(ssh, NULL, NULL, &copy);
	else if (!ssh->doomed && ssh->ops->closed)
		ssh->ops->closed(ssh, &copy, ssh->arg);
	ssh->serving = outer;
	if (!outer && ssh->doomed)
		free_now(ssh);
}

static void free_session(struct kb_ssh *ssh)
{
	void *owner = ssh;
	struct kb_ssh_piece *p;
	int rounds = 0;

	while (ssh->session && rounds++ < FREE_ROUNDS &&
		libssh2_session_free(ssh->session) == LIBSSH2_ERROR_EAGAIN)
		;
	while ((p = LIST_FIRST(&ssh->pieces)))
		release(p->data, &owner);
}

static void free_now(struct kb_ssh *ssh)
{
	if (ssh->session && ssh->phase > KB_SSH_HANDSHAKE && ssh->phase < KB_SSH_OVER) {
		libssh2_session_disconnect(ssh->session, "done");
		flush(ssh);
	}
	ssh->phase = KB_SSH_OVER;
	kb_ssh_channels_end(ssh, NULL);
	kb_ssh_jobs_end(ssh, NULL);
	kb_ssh_auth_finish(ssh);
	kb_ssh_dial_destroy(ssh->dial);
	free_session(ssh);
	kb_source_destroy(ssh->io);
	kb_source_destroy(ssh->kick);
	kb_source_destroy(ssh->deadline);
	kb_source_destroy(ssh->alive);
	kb_close(&ssh->fd);
	kb_buf_finish(&ssh->in);
	kb_buf_finish(&ssh->out);
	for (size_t i = 0; ssh->keys[i]; i++)
		free(ssh->keys[i]);
	free(ssh->host);
	free(ssh->user);
	free(ssh->host_key);
	free(ssh->agent_path);
	free(ssh);
}

void kb_ssh_destroy(struct kb_ssh *ssh)
{
	if (!ssh)
		return;
	ssh->doomed = true;
	if (!ssh->serving)
		free_now(ssh);
}

static bool copy_text(char **ret, const char *text)
{
	*ret = text ? strdup(text) : NULL;
	return !text || *ret;
}

static int copy_target(struct kb_ssh *ssh, const struct kb_ssh_target *t, struct kb_err *err)
{
	bool good = copy_text(&ssh->host, t->host) && copy_text(&ssh->user, t->user) &&
		    copy_text(&ssh->host_key, t->host_key) && copy_text(&ssh->agent_path, t->agent);

	for (size_t i = 0; good && t->keys && t->keys[i] && i < KB_SSH_KEYS_MAX; i++)
		good = copy_text(&ssh->keys[i], t->keys[i]);
	if (!good)
		return kb_err_nomem(err);
	ssh->port = t->port;
	ssh->connect_ms = t->connect_ms ? t->connect_ms : KB_SSH_CONNECT_MS;
	ssh->keepalive_ms = t->keepalive_ms ? t->keepalive_ms : KB_SSH_KEEPALIVE_MS;
	ssh->keepalive_ms = KB_MAX(ssh->keepalive_ms, KEEPALIVE_MIN_MS);
	ssh->dead_ms = t->dead_ms ? t->dead_ms : KB_SSH_DEAD_MS;
	kb_escape(ssh->where, sizeof(ssh->where) - 8, t->host, strlen(t->host));
	snprintf(ssh->where + strlen(ssh->where), 8, ":%u", t->port);
	return 0;
}

static int start(struct kb_ssh *ssh, struct kb_err *err)
{
	int r = kb_loop_timer(ssh->loop, on_kick, ssh, &ssh->kick, err);

	if (r == 0)
		r = kb_loop_timer(ssh->loop, on_deadline, ssh, &ssh->deadline, err);
	if (r == 0)
		r = kb_loop_timer(ssh->loop, on_alive, ssh, &ssh->alive, err);
	if (r == 0)
		r = kb_source_arm(ssh->deadline, ssh->connect_ms, err);
	if (r == 0)
		r = kb_ssh_dial_start(
			ssh->loop, ssh->host, ssh->port, &dial_ops, ssh, &ssh->dial, err);
	return r;
}

static int create(struct kb_loop *loop, const struct kb_ssh_target *target,
	const struct kb_ssh_ops *ops, kb_ssh_scan_fn scan, void *arg, struct kb_ssh **ret,
	struct kb_err *err)
{
	struct kb_ssh *ssh = calloc(1, sizeof(*ssh));
	int r;

	if (!ssh)
		return kb_err_nomem(err);
	ssh->loop = loop;
	ssh->ops = ops;
	ssh->scan = scan;
	ssh->arg = arg;
	ssh->fd = -1;
	TAILQ_INIT(&ssh->channels);
	TAILQ_INIT(&ssh->jobs);
	kb_buf_init(&ssh->in, KB_SSH_IN_MAX);
	kb_buf_init(&ssh->out, KB_SSH_OUT_MAX);
	r = copy_target(ssh, target, err);
	if (r == 0)
		r = start(ssh, err);
	if (r < 0)
		free_now(ssh);
	else
		*ret = ssh;
	return r;
}

int kb_ssh_connect(struct kb_loop *loop, const struct kb_ssh_target *target,
	const struct kb_ssh_ops *ops, void *arg, struct kb_ssh **ret, struct kb_err *err)
{
	if (!target->host_key)
		return kb_err_set(err, KB_ERR_REFUSED, "%s has no pinned host key", target->host);
	return create(loop, target, ops, NULL, arg, ret, err);
}

int kb_ssh_scan(struct kb_loop *loop, const struct kb_ssh_target *target, kb_ssh_scan_fn fn,
	void *arg, struct kb_ssh **ret, struct kb_err *err)
{
	return create(loop, target, NULL, fn, arg, ret, err);
}
