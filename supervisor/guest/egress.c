/* Connections: theory of operation.
 *
 * A connection is accepted, gets a stream number and is told to the host before anything is known
 * of it; its bytes then go both ways with the stream's credit. Its number is free again when the
 * host's EOF and the host's `done` have come (see Egress in proto/link.proto); numbers are used in
 * turn. DNS over UDP is one stream: a query's id is replaced by the number of a slot that remembers
 * who asked.
 */
#include "supervisor/guest/egress.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter_ipv4.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/link.pb-c.h"
#include "supervisor/base/buf.h"
#include "supervisor/base/egress.h"
#include "supervisor/base/log.h"
#include "supervisor/base/sock_splice.h"
#include "supervisor/base/util.h"
#include "supervisor/guest/dropped.h"
#include "supervisor/guest/netns.h"

#define ACCEPTS_PER_WAKE 16
#define DROPPED_PER_WAKE 64
#define DNS_SLOTS	 256
#define DNS_MAX		 4096
#define FINISH_MS	 3000
#define ORIGINAL_DST_6	 80 /* IP6T_SO_ORIGINAL_DST: its header does not go with netinet/in.h */

struct flow {
	struct kb_egress *egress;
	struct flow *next;
	uint32_t id;
	struct kb_sock_splice
		*splice; /* a connection's; NULL: DNS over UDP, which has the next two */
	struct kb_stream *stream;
	struct kb_buf pending; /* an answer in part */
	bool ended;	       /* its stream, by us */
	bool over;	       /* nothing comes or goes any more */
	bool done;	       /* the host has said its last of it */
};

struct dns_slot {
	struct sockaddr_in from;
	uint16_t id;
	bool used;
};

struct listener {
	struct kb_egress *egress;
	enum kb_egress_kind kind;
	struct kb_source *io;
};

struct kb_egress {
	struct kb_loop *loop;
	struct kb_channel *channel;
	struct kb_egress_options options;
	struct kb_netns_sockets sockets;
	struct listener listeners[4];
	struct kb_source *udp_io, *dropped_io, *deadline, *sweep;
	struct flow *flows, *dns;
	size_t n_flows;
	uint32_t next;
	struct dns_slot slots[DNS_SLOTS];
	unsigned next_slot;
	bool full; /* no connection is accepted until one has ended */
	bool finishing, over;
	void (*finished)(void *arg);
	void *arg;
};

/* ---- Saying ---------------------------------------------------------------------------------- */

static int say(struct kb_egress *e, enum kb_egress_kind kind, uint32_t stream,
	const struct kb_dropped *peer, struct kb_err *err)
{
	Kb__Egress egress = KB__EGRESS__INIT;
	Kb__FromGuest msg = KB__FROM_GUEST__INIT;

	egress.session = (ProtobufCBinaryData){KB_ULID_SIZE, e->options.session};
	egress.kind = kind;
	egress.has_stream = stream != 0;
	egress.stream = stream;
	if (peer) {
		egress.has_address = egress.has_port = egress.has_protocol = 1;
		egress.address = (ProtobufCBinaryData){peer->len, (uint8_t *)peer->address};
		egress.port = peer->port;
		egress.protocol = peer->protocol;
	}
	msg.body_case = KB__FROM_GUEST__BODY_EGRESS;
	msg.egress = &egress;
	return kb_channel_send(e->channel, 0, &msg.base, -1, err);
}

/* ---- Connections ----------------------------------------------------------------------------- */

/* The program's end broke: the host's need not wait for it. */
static void on_broken(struct kb_sock_splice *splice, void *arg)
{
	const struct flow *f = arg;

	(void)say(f->egress, KB_EGRESS_CANCEL, f->id, NULL, NULL);
}

static void on_over(struct kb_sock_splice *splice, void *arg)
{
	struct flow *f = arg;

	f->over = true;
	(void)kb_source_arm(f->egress->sweep, 0, NULL);
}

static const struct kb_sock_splice_ops splice_ops = {.broken = on_broken, .over = on_over};

static void flow_destroy(struct flow *f)
{
	kb_sock_splice_destroy(f->splice);
	kb_stream_close(f->stream);
	kb_buf_finish(&f->pending);
	f->egress->n_flows--;
	free(f);
}

static struct flow *flow_find(struct kb_egress *e, uint32_t id)
{
	for (struct flow *f = e->flows; f; f = f->next)
		if (f->id == id)
			return f;
	return NULL;
}

static uint32_t free_number(struct kb_egress *e)
{
	uint32_t id;

	do
		id = e->options.base + e->next++ % KB_EGRESS_STREAMS;
	while (flow_find(e, id));
	return id;
}

/* Takes fd; -1: DNS over UDP. */
static struct flow *flow_create(struct kb_egress *e, int fd, enum kb_egress_kind kind,
	const struct kb_dropped *peer, const struct kb_stream_ops *dns)
{
	struct flow *f = e->n_flows < KB_EGRESS_FLOWS ? calloc(1, sizeof(*f)) : NULL;
	struct kb_err err = {0};
	int r = 0;

	if (!f) {
		kb_close(&fd);
		return NULL;
	}
	*f = (struct flow){.egress = e, .next = e->flows, .id = free_number(e)};
	e->flows = f;
	e->n_flows++;
	kb_buf_init(&f->pending, KB_STREAM_CREDIT);
	if (dns)
		r = kb_stream_open(e->channel, f->id, dns, f, &f->stream, &err);
	else
		r = kb_sock_splice_create(
			e->loop, e->channel, f->id, fd, &splice_ops, f, &f->splice, &err);
	if (r == 0)
		r = say(e, kind, f->id, peer, &err);
	if (r < 0) {
		kb_log_warn("a connection is refused: %s", err.msg);
		e->flows = f->next;
		flow_destroy(f);
		return NULL;
	}
	return f;
}

static void listen_again(struct kb_egress *e)
{
	e->full = false;
	for (size_t i = 0; i < KB_ARRAY_LEN(e->listeners); i++)
		if (e->listeners[i].io)
			(void)kb_source_set_events(e->listeners[i].io, KB_IO_READ, NULL);
}

/* Programs wait, as at a busy server; one place is for DNS. */
static bool is_full(struct kb_egress *e)
{
	if (e->n_flows < KB_EGRESS_FLOWS - 1)
		return false;
	e->full = true;
	for (size_t i = 0; i < KB_ARRAY_LEN(e->listeners); i++)
		if (e->listeners[i].io)
			(void)kb_source_set_events(e->listeners[i].io, 0, NULL);
	(void)say(e, KB_EGRESS_FULL, 0, NULL, NULL);
	return true;
}

/* Connections that are over, between events. */
static void on_sweep(void *arg)
{
	struct kb_egress *e = arg;
	struct flow **at = &e->flows;

	while (*at) {
		struct flow *f = *at;

		if (!f->done || !f->over) {
			at = &f->next;
			continue;
		}
		*at = f->next;
		if (e->dns == f)
			e->dns = NULL;
		flow_destroy(f);
	}
	if (e->full && e->n_flows < KB_EGRESS_FLOWS - 1)
		listen_again(e);
}

/* ---- Listening ------------------------------------------------------------------------------- */

static void read_peer(const struct sockaddr_storage *from, struct kb_dropped *ret)
{
	*ret = (struct kb_dropped){.protocol = IPPROTO_TCP};
	if (from->ss_family == AF_INET6) {
		struct sockaddr_in6 in6;

		memcpy(&in6, from, sizeof(in6));
		memcpy(ret->address, &in6.sin6_addr, 16);
		ret->len = 16;
		ret->port = ntohs(in6.sin6_port);
	} else {
		struct sockaddr_in in;

		memcpy(&in, from, sizeof(in));
		memcpy(ret->address, &in.sin_addr, 4);
		ret->len = 4;
		ret->port = ntohs(in.sin_port);
	}
}

static bool original_peer(int fd, struct kb_dropped *ret)
{
	struct sockaddr_storage from = {0};
	socklen_t len = sizeof(from);

	if (getsockopt(fd, SOL_IP, SO_ORIGINAL_DST, &from, &len) < 0) {
		len = sizeof(from);
		if (getsockopt(fd, SOL_IPV6, ORIGINAL_DST_6, &from, &len) < 0)
			return false;
	}
	read_peer(&from, ret);
	return true;
}

static void on_accept(int fd, unsigned events, void *arg)
{
	struct listener *l = arg;
	const int on = 1;

	for (int i = 0; i < ACCEPTS_PER_WAKE && !is_full(l->egress); i++) {
		int conn = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		struct kb_dropped peer;
		bool led = l->kind == KB_EGRESS_TCP;

		if (conn < 0)
			return;
		/* Whoever connects to the listener itself has no destination. */
		if (led && !original_peer(conn, &peer)) {
			kb_close(&conn);
			continue;
		}
		(void)setsockopt(conn, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		(void)flow_create(l->egress, conn, l->kind, led ? &peer : NULL, NULL);
	}
}

/* ---- DNS over UDP ---------------------------------------------------------------------------- */

static void send_answer(struct kb_egress *e, uint8_t *msg, size_t len)
{
	struct dns_slot *slot;

	if (len < 2 || msg[0] != 0)
		return;
	slot = &e->slots[msg[1]];
	if (!slot->used)
		return;
	slot->used = false;
	msg[0] = (uint8_t)(slot->id >> 8);
	msg[1] = (uint8_t)slot->id;
	(void)sendto(e->sockets.dns_udp, msg, len, MSG_DONTWAIT,
		(const struct sockaddr *)&slot->from, sizeof(slot->from));
}

static void on_dns_data(struct kb_stream *st, const uint8_t *data, size_t len, void *arg)
{
	struct flow *f = arg;
	uint8_t *p;
	size_t have, need;

	kb_stream_consumed(st, len);
	if (kb_buf_append(&f->pending, data, len, NULL) < 0)
		return;
	while ((have = kb_buf_len(&f->pending)) >= 2) {
		p = kb_buf_data(&f->pending);
		need = (size_t)p[0] << 8 | p[1];
		if (have < need + 2)
			return;
		send_answer(f->egress, p + 2, need);
		kb_buf_consume(&f->pending, need + 2);
	}
}

static void on_dns_writable(struct kb_stream *st, void *arg)
{
}

static void dns_end(struct flow *f)
{
	if (!f->ended)
		(void)kb_stream_eof(f->stream, NULL);
	f->ended = true;
}

static void on_dns_eof(struct kb_stream *st, void *arg)
{
	dns_end(arg);
	on_over(NULL, arg);
}

static const struct kb_stream_ops dns_ops = {
	.data = on_dns_data, .writable = on_dns_writable, .eof = on_dns_eof};

static void ask(struct kb_egress *e, uint8_t *msg, size_t len, const struct sockaddr_in *from)
{
	unsigned n = e->next_slot++ % DNS_SLOTS;
	uint8_t head[2] = {(uint8_t)(len >> 8), (uint8_t)len};

	if (!e->dns)
		e->dns = flow_create(e, -1, KB_EGRESS_DNS, NULL, &dns_ops);
	/* No room: the program asks again. */
	if (!e->dns || e->dns->ended || kb_stream_writable(e->dns->stream, len + 2) == 0)
		return;
	e->slots[n] = (struct dns_slot){
		.from = *from, .id = (uint16_t)(msg[0] << 8 | msg[1]), .used = true};
	msg[0] = 0;
	msg[1] = (uint8_t)n;
	(void)kb_stream_write(e->dns->stream, head, 2, NULL);
	(void)kb_stream_write(e->dns->stream, msg, len, NULL);
}

static void on_dns_udp(int fd, unsigned events, void *arg)
{
	uint8_t msg[DNS_MAX];
	struct sockaddr_in from;

	for (int i = 0; i < ACCEPTS_PER_WAKE; i++) {
		socklen_t size = sizeof(from);
		ssize_t n = recvfrom(fd, msg, sizeof(msg), 0, (struct sockaddr *)&from, &size);

		if (n < 0)
			return;
		if (n >= 12)
			ask(arg, msg, (size_t)n, &from);
	}
}

/* ---- Dropped packets ------------------------------------------------------------------------- */

static void on_dropped_packet(const struct kb_dropped *packet, void *arg)
{
	(void)say(arg, KB_EGRESS_DROPPED, 0, packet, NULL);
}

static void on_dropped(int fd, unsigned events, void *arg)
{
	uint8_t bytes[8192];
	ssize_t n;

	for (int i = 0; i < DROPPED_PER_WAKE; i++) {
		n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
		if (n <= 0)
			return;
		kb_dropped_parse(bytes, (size_t)n, on_dropped_packet, arg);
	}
}

/* ---- The object ------------------------------------------------------------------------------ */

static int watch(struct kb_egress *e, struct kb_err *err)
{
	const int fds[] = {e->sockets.tcp, e->sockets.tcp6, e->sockets.proxy, e->sockets.dns_tcp};
	const enum kb_egress_kind kinds[] = {
		KB_EGRESS_TCP, KB_EGRESS_TCP, KB_EGRESS_PROXY, KB_EGRESS_DNS};
	int r = 0;

	for (size_t i = 0; i < KB_ARRAY_LEN(fds) && r == 0; i++) {
		e->listeners[i] = (struct listener){.egress = e, .kind = kinds[i]};
		if (fds[i] >= 0)
			r = kb_loop_io(e->loop, fds[i], KB_IO_READ, on_accept, &e->listeners[i],
				&e->listeners[i].io, err);
	}
	if (r == 0)
		r = kb_loop_io(
			e->loop, e->sockets.dns_udp, KB_IO_READ, on_dns_udp, e, &e->udp_io, err);
	if (r == 0)
		r = kb_loop_io(e->loop, e->sockets.dropped, KB_IO_READ, on_dropped, e,
			&e->dropped_io, err);
	return r;
}

static void unwatch(struct kb_egress *e)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(e->listeners); i++) {
		kb_source_destroy(e->listeners[i].io);
		e->listeners[i].io = NULL;
	}
	kb_source_destroy(e->udp_io);
	kb_source_destroy(e->dropped_io);
	e->udp_io = e->dropped_io = NULL;
}

static void conclude(void *arg)
{
	struct kb_egress *e = arg;

	if (e->over)
		return;
	e->over = true;
	e->finished(e->arg);
}

int kb_egress_create(struct kb_loop *loop, struct kb_channel *channel,
	const struct kb_egress_options *options, void (*finished)(void *arg), void *arg,
	struct kb_egress **ret, struct kb_err *err)
{
	struct kb_egress *e = calloc(1, sizeof(*e));
	int r;

	if (!e)
		return kb_err_nomem(err);
	*e = (struct kb_egress){.loop = loop,
		.channel = channel,
		.options = *options,
		.sockets = {-1, -1, -1, -1, -1, -1},
		.finished = finished,
		.arg = arg};
	r = kb_loop_timer(loop, conclude, e, &e->deadline, err);
	if (r == 0)
		r = kb_loop_timer(loop, on_sweep, e, &e->sweep, err);
	if (r == 0)
		r = kb_netns_enter(options->init, options->bundle, &e->sockets, err);
	if (r == 0)
		r = watch(e, err);
	if (r < 0) {
		kb_egress_destroy(e);
		return r;
	}
	*ret = e;
	return 0;
}

void kb_egress_message(struct kb_egress *e, const Kb__Egress *msg)
{
	struct flow *f = msg->has_stream ? flow_find(e, msg->stream) : NULL;

	if (msg->kind == KB_EGRESS_FINISHED && e->finishing) {
		conclude(e);
	} else if (msg->kind == KB_EGRESS_CANCEL && f) {
		if (f->splice)
			kb_sock_splice_refuse(f->splice);
		else
			dns_end(f);
	} else if (msg->kind == KB_EGRESS_DONE && f) {
		f->done = true;
		(void)kb_source_arm(e->sweep, 0, NULL);
	}
}

void kb_egress_finish(struct kb_egress *e)
{
	struct kb_err err = {0};

	if (e->finishing)
		return;
	e->finishing = true;
	on_dropped(e->sockets.dropped, KB_IO_READ, e);
	unwatch(e);
	for (struct flow *f = e->flows; f; f = f->next)
		if (f->splice)
			kb_sock_splice_abort(f->splice);
		else
			dns_end(f);
	if (say(e, KB_EGRESS_FINISH, 0, NULL, &err) < 0)
		kb_log_warn("the host is not told of the end: %s", err.msg);
	(void)kb_source_arm(e->deadline, FINISH_MS, NULL);
}

void kb_egress_destroy(struct kb_egress *e)
{
	if (!e)
		return;
	unwatch(e);
	while (e->flows) {
		struct flow *f = e->flows;

		e->flows = f->next;
		flow_destroy(f);
	}
	kb_source_destroy(e->deadline);
	kb_source_destroy(e->sweep);
	kb_netns_close(&e->sockets);
	free(e);
}
