/* Ports of sessions that are published on the host. main hands over sockets that listen; whoever
 * connects is accepted here, and the guest asked for a connection to the session's port. Its answer
 * decides: a flow, or a reset. Ports stay closed to the world until the session's process runs. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "link_private.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/inbound.h"
#include "supervisor/base/log.h"
#include "supervisor/base/sock_splice.h"
#include "supervisor/base/util.h"

#define ACCEPTS_PER_WAKE 16

struct port {
	struct port *next;
	struct kb_link_inbound *in;
	int fd;
	struct kb_source *io;
	uint16_t port, host_port;
};

/* A client: first it waits (fd), then it is a flow. */
struct client {
	struct client *next;
	struct kb_link_inbound *in;
	uint32_t stream;
	int fd;
	struct kb_sock_splice *flow;
};

struct kb_link_inbound {
	struct kb_link_session *session;
	struct port *ports;
	struct client *clients;
	size_t n_clients;
	bool open; /* the session's process runs */
};

/* ---- To the guest ---------------------------------------------------------------------------- */

static int tell(struct kb_link_inbound *in, enum kb_inbound_kind kind, uint32_t stream,
	const struct port *p, struct kb_err *err)
{
	Kb__Inbound inbound = KB__INBOUND__INIT;
	Kb__ToGuest msg = KB__TO_GUEST__INIT;

	inbound.session = kb_link_id(in->session);
	inbound.kind = kind;
	inbound.has_stream = stream != 0;
	inbound.stream = stream;
	inbound.has_port = inbound.has_host_port = p != NULL;
	inbound.port = p ? p->port : 0;
	inbound.host_port = p ? p->host_port : 0;
	msg.body_case = KB__TO_GUEST__BODY_INBOUND;
	msg.inbound = &inbound;
	return kb_link_tell_guest(in->session->link, &msg, err);
}

/* ---- Clients --------------------------------------------------------------------------------- */

/* Where there is no room, clients wait in the sockets' own queues. */
static void watch_ports(struct kb_link_inbound *in)
{
	bool room = in->open && in->n_clients < KB_INBOUND_FLOWS;

	for (struct port *p = in->ports; p; p = p->next)
		(void)kb_source_set_events(p->io, room ? KB_IO_READ : 0, NULL);
}

/* Closed with a reset, unless it had its say. */
static void client_destroy(struct client *c)
{
	const struct linger now = {.l_onoff = 1};
	struct client **at = &c->in->clients;

	while (*at != c)
		at = &(*at)->next;
	*at = c->next;
	c->in->n_clients--;
	if (c->fd >= 0)
		(void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	kb_close(&c->fd);
	kb_sock_splice_destroy(c->flow);
	free(c);
}

static void client_over(struct client *c)
{
	struct kb_link_inbound *in = c->in;

	client_destroy(c);
	watch_ports(in);
}

static void on_broken(struct kb_sock_splice *flow, void *arg)
{
	struct client *c = arg;

	(void)tell(c->in, KB_INBOUND_CANCEL, c->stream, NULL, NULL);
}

static void on_over(struct kb_sock_splice *flow, void *arg)
{
	client_over(arg);
}

static const struct kb_sock_splice_ops flow_ops = {.broken = on_broken, .over = on_over};

static int admit(struct port *p, int fd, struct kb_err *err)
{
	struct kb_link *link = p->in->session->link;
	struct client *c = calloc(1, sizeof(*c));
	const int on = 1;
	int r;

	if (!c) {
		close(fd);
		return kb_err_nomem(err);
	}
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	*c = (struct client){
		.next = p->in->clients, .in = p->in, .stream = link->next_stream, .fd = fd};
	link->next_stream += KB_LINK_STREAMS;
	p->in->clients = c;
	p->in->n_clients++;
	r = tell(p->in, KB_INBOUND_CONNECT, c->stream, p, err);
	if (r < 0)
		client_destroy(c);
	return r;
}

static void on_accept(int fd, unsigned events, void *arg)
{
	struct port *p = arg;
	struct kb_err err;

	for (int i = 0; i < ACCEPTS_PER_WAKE && p->in->n_clients < KB_INBOUND_FLOWS; i++) {
		int conn = kb_fd_accept(fd);

		if (conn < 0)
			break;
		if (admit(p, conn, &err) < 0)
			kb_log_warn(
				"a client of port %u is turned away: %s", p->host_port, err.msg);
	}
	watch_ports(p->in);
}

static void welcome(struct client *c)
{
	struct kb_link *link = c->in->session->link;
	struct kb_err err;

	if (kb_sock_splice_create(link->loop, link->guest, c->stream, kb_steal_fd(&c->fd),
		    &flow_ops, c, &c->flow, &err) == 0)
		return;
	kb_log_warn("a client is turned away: %s", err.msg);
	(void)tell(c->in, KB_INBOUND_CANCEL, c->stream, NULL, NULL);
	client_over(c);
}

/* ---- From the guest -------------------------------------------------------------------------- */

int kb_link_inbound_message(struct kb_link_session *s, const Kb__Inbound *msg, struct kb_err *err)
{
	struct client *c = s->inbound ? s->inbound->clients : NULL;
	int r = kb_check_inbound(msg, err);

	while (c && c->stream != msg->stream)
		c = c->next;
	if (r < 0 || !c)
		return r; /* it went meanwhile */
	if (msg->kind == KB_INBOUND_CANCEL && c->flow) {
		kb_sock_splice_abort(c->flow);
	} else if (c->flow) {
		return kb_err_set(err, KB_ERR_INVALID, "the guest answered a connection twice");
	} else if (msg->kind == KB_INBOUND_CONNECTED) {
		welcome(c);
	} else {
		client_over(c);
	}
	return 0;
}

/* ---- From main ------------------------------------------------------------------------------- */

static void port_destroy(struct port *p)
{
	struct port **at = &p->in->ports;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	kb_source_destroy(p->io);
	kb_close(&p->fd);
	free(p);
}

static void shut_port(struct kb_link_inbound *in, uint16_t host_port)
{
	struct port *p = in ? in->ports : NULL;

	while (p && p->host_port != host_port)
		p = p->next;
	if (!p)
		return;
	if (in->open)
		(void)tell(in, KB_INBOUND_SHUT, 0, p, NULL);
	port_destroy(p);
}

static struct kb_link_inbound *inbound_of(struct kb_link_session *s)
{
	if (!s->inbound)
		s->inbound = calloc(1, sizeof(*s->inbound));
	if (s->inbound)
		s->inbound->session = s;
	return s->inbound;
}

static int open_port(
	struct kb_link_session *s, const Kb__Role__LinkPublish *msg, int fd, struct kb_err *err)
{
	KB_CLOSE int guard = fd;
	struct kb_link_inbound *in = inbound_of(s);
	struct port *p = in ? calloc(1, sizeof(*p)) : NULL;
	int r;

	if (!p)
		return kb_err_nomem(err);
	*p = (struct port){.next = in->ports,
		.in = in,
		.fd = kb_steal_fd(&guard),
		.port = (uint16_t)msg->port,
		.host_port = (uint16_t)msg->host_port};
	in->ports = p;
	r = kb_fd_nonblock(p->fd, err);
	if (r == 0)
		r = kb_loop_io(s->link->loop, p->fd, 0, on_accept, p, &p->io, err);
	if (r < 0) {
		port_destroy(p);
		return r;
	}
	if (in->open)
		(void)tell(in, KB_INBOUND_OPEN, 0, p, NULL);
	watch_ports(in);
	return 0;
}

int kb_link_inbound_publish(
	struct kb_link *link, const Kb__Role__LinkPublish *msg, int fd, struct kb_err *err)
{
	KB_CLOSE int guard = fd;
	struct kb_link_session *s = kb_link_find(link, msg->session);
	struct kb_err why;

	if (msg->port > UINT16_MAX || msg->host_port > UINT16_MAX || msg->shut != (guard < 0))
		return kb_err_set(err, KB_ERR_INVALID, "main published a port wrongly");
	if (!s || s->over)
		return 0;
	if (msg->shut)
		shut_port(s->inbound, (uint16_t)msg->host_port);
	else if (open_port(s, msg, kb_steal_fd(&guard), &why) < 0)
		kb_log_error("port %u is not published: %s", msg->port, why.msg);
	return 0;
}

/* ---- Life ------------------------------------------------------------------------------------ */

void kb_link_inbound_started(struct kb_link_session *s)
{
	if (!inbound_of(s))
		return;
	s->inbound->open = true;
	for (const struct port *p = s->inbound->ports; p; p = p->next)
		(void)tell(s->inbound, KB_INBOUND_OPEN, 0, p, NULL);
	watch_ports(s->inbound);
}

void kb_link_inbound_destroy(struct kb_link_session *s)
{
	struct kb_link_inbound *in = s->inbound;

	if (!in)
		return;
	while (in->clients)
		client_destroy(in->clients);
	while (in->ports)
		port_destroy(in->ports);
	free(in);
	s->inbound = NULL;
}
