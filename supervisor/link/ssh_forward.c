/* Local ports: whoever connects is connected on from the other machine. */
#include <string.h>
#include <unistd.h>

#include "ssh_private.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"

#define CONNECTIONS_MAX 64 /* more wait to be accepted */

struct connection {
	TAILQ_ENTRY(connection) entry;
	struct kb_ssh_forward *forward;
	struct kb_ssh_splice *splice;
};

struct kb_ssh_forward {
	struct kb_loop *loop;
	struct kb_ssh *ssh;
	char *host;
	unsigned port;
	int fd;
	struct kb_source *io;
	TAILQ_HEAD(, connection) connections;
	size_t n;
};

static void watch(struct kb_ssh_forward *f)
{
	(void)kb_source_set_events(f->io, f->n < CONNECTIONS_MAX ? KB_IO_READ : 0, NULL);
}

static void drop(struct connection *c)
{
	struct kb_ssh_forward *f = c->forward;

	TAILQ_REMOVE(&f->connections, c, entry);
	f->n--;
	kb_ssh_splice_destroy(c->splice);
	free(c);
	watch(f);
}

static void on_over(struct kb_ssh_splice *splice, const struct kb_ssh_exit *exit,
	const struct kb_err *why, void *arg)
{
	if (why)
		kb_log_warn("a forwarded connection ended: %s", why->msg);
	drop(arg);
}

static void on_connection(int fd, unsigned events, void *arg)
{
	struct kb_ssh_forward *f = arg;
	int sock = kb_fd_accept(fd);
	struct connection *c = sock >= 0 ? calloc(1, sizeof(*c)) : NULL;
	struct kb_ssh_channel *ch;
	struct kb_err err;

	if (!c) {
		kb_close(&sock);
		return;
	}
	c->forward = f;
	TAILQ_INSERT_TAIL(&f->connections, c, entry);
	f->n++;
	if (kb_ssh_splice_create(f->loop, sock, on_over, c, &c->splice, &err) < 0 ||
		kb_ssh_dial(f->ssh, f->host, f->port, &kb_ssh_splice_ops, c->splice, &ch, &err) <
			0) {
		kb_log_warn("a connection is not forwarded: %s", err.msg);
		drop(c);
		return;
	}
	kb_ssh_splice_start(c->splice, ch);
	watch(f);
}

static int listen_on(struct kb_ssh_forward *f, unsigned *port, struct kb_err *err)
{
	int r = kb_fd_listen_loopback(port, &f->fd, err);

	return r < 0 ? kb_err_hint(err, "take another port, or 0 for a free one") : 0;
}

int kb_ssh_forward(struct kb_loop *loop, struct kb_ssh *ssh, unsigned *port, const char *to_host,
	unsigned to_port, struct kb_ssh_forward **ret, struct kb_err *err)
{
	struct kb_ssh_forward *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return kb_err_nomem(err);
	f->loop = loop;
	f->ssh = ssh;
	f->fd = -1;
	f->port = to_port;
	TAILQ_INIT(&f->connections);
	f->host = strdup(to_host);
	r = f->host ? listen_on(f, port, err) : kb_err_nomem(err);
	if (r == 0)
		r = kb_loop_io(loop, f->fd, KB_IO_READ, on_connection, f, &f->io, err);
	if (r < 0)
		kb_ssh_forward_destroy(f);
	else
		*ret = f;
	return r;
}

void kb_ssh_forward_destroy(struct kb_ssh_forward *f)
{
	struct connection *c;

	if (!f)
		return;
	while ((c = TAILQ_FIRST(&f->connections))) {
		TAILQ_REMOVE(&f->connections, c, entry);
		kb_ssh_splice_destroy(c->splice);
		free(c);
	}
	kb_source_destroy(f->io);
	kb_close(&f->fd);
	free(f->host);
	free(f);
}
