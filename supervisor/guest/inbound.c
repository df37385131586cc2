#include "supervisor/guest/inbound.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/link.pb-c.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/inbound.h"
#include "supervisor/base/log.h"
#include "supervisor/base/sock_splice.h"
#include "supervisor/base/util.h"

/* One connection: first it is being made (fd, io), then it is a flow. */
struct visit {
	struct kb_inbound *in;
	struct visit *next;
	uint32_t stream;
	uint16_t port, host_port;
	bool v6;
	int fd;
	struct kb_source *io;
	struct kb_sock_splice *flow;
};

struct kb_inbound {
	struct kb_loop *loop;
	struct kb_channel *channel;
	struct kb_inbound_options options;
	struct visit *visits;
	size_t n_visits;
};

/* ---- Saying and recording -------------------------------------------------------------------- */

static void say(struct kb_inbound *in, enum kb_inbound_kind kind, uint32_t stream)
{
	Kb__Inbound inbound = KB__INBOUND__INIT;
	Kb__FromGuest msg = KB__FROM_GUEST__INIT;
	struct kb_err err;

	inbound.session = (ProtobufCBinaryData){KB_ULID_SIZE, in->options.session};
	inbound.kind = kind;
	inbound.has_stream = 1;
	inbound.stream = stream;
	msg.body_case = KB__FROM_GUEST__BODY_INBOUND;
	msg.inbound = &inbound;
	if (kb_channel_send(in->channel, 0, &msg.base, -1, &err) < 0)
		kb_log_warn("the host is not told of a connection: %s", err.msg);
}

/* fill: what differs from one record to another. */
static void record(struct kb_inbound *in, enum kb_event event, uint16_t port, const char *text,
	struct kb_record *fill)
{
	struct kb_verdict verdict = kb_bundle_decide_port(in->options.bundle, port);

	fill->time = (uint64_t)kb_now_real();
	fill->event = event;
	fill->lane = KB_LANE_NET;
	fill->syscall = -1;
	fill->rule = verdict.rule;
	fill->trust = KB_TRUST_KERNEL;
	fill->port = port;
	fill->decision = verdict.action == KB_ALLOW ? KB_DECISION_ALLOWED : KB_DECISION_DENIED;
	fill->text = (struct kb_bytes){(const uint8_t *)text, strlen(text)};
	kb_recorder_add(in->options.recorder, fill);
}

static void record_visit(const struct visit *v, int errnum)
{
	struct kb_record fill = {.outcome = errnum ? KB_OUTCOME_FAILED : KB_OUTCOME_OK,
		.errnum = errnum,
		.has_result = !errnum};
	uint64_t from_server = 0, to_server = 0;
	char text[64];

	if (v->flow)
		kb_sock_splice_count(v->flow, &from_server, &to_server);
	fill.bytes = from_server;
	fill.result = (int64_t)to_server;
	snprintf(text, sizeof(text), "from the host, by its port %u", v->host_port);
	record(v->in, KB_EVENT_CONNECT, v->port, text, &fill);
}

static void record_port(struct kb_inbound *in, const Kb__Inbound *msg)
{
	static const uint8_t loopback[4] = {127, 0, 0, 1};
	struct kb_record fill = {.outcome = KB_OUTCOME_OK,
		.family = AF_INET,
		.address = {loopback, sizeof(loopback)}};
	char text[64];

	snprintf(text, sizeof(text), "%s port %u of the host",
		msg->kind == KB_INBOUND_OPEN ? "published on" : "not published any more on",
		msg->host_port);
	record(in, KB_EVENT_LISTEN, (uint16_t)msg->port, text, &fill);
}

/* ---- Connections ----------------------------------------------------------------------------- */

static void visit_destroy(struct visit *v)
{
	struct visit **at = &v->in->visits;

	while (*at != v)
		at = &(*at)->next;
	*at = v->next;
	v->in->n_visits--;
	kb_source_destroy(v->io);
	kb_close(&v->fd);
	kb_sock_splice_destroy(v->flow);
	free(v);
}

static void on_broken(struct kb_sock_splice *flow, void *arg)
{
	const struct visit *v = arg;

	say(v->in, KB_INBOUND_CANCEL, v->stream);
}

static void on_over(struct kb_sock_splice *flow, void *arg)
{
	record_visit(arg, 0);
	visit_destroy(arg);
}

static const struct kb_sock_splice_ops flow_ops = {.broken = on_broken, .over = on_over};

static void refuse(struct visit *v, int errnum)
{
	say(v->in, KB_INBOUND_REFUSED, v->stream);
	record_visit(v, errnum);
	visit_destroy(v);
}

static void welcome(struct visit *v)
{
	const int on = 1;
	struct kb_err err;

	kb_source_destroy(KB_STEAL(v->io));
	(void)setsockopt(v->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (kb_sock_splice_create(v->in->loop, v->in->channel, v->stream, kb_steal_fd(&v->fd),
		    &flow_ops, v, &v->flow, &err) < 0) {
		kb_log_warn("a connection is refused: %s", err.msg);
		refuse(v, ENOMEM);
		return;
	}
	say(v->in, KB_INBOUND_CONNECTED, v->stream);
}

static int start_connect(struct visit *v)
{
	struct sockaddr_in in4 = {.sin_family = AF_INET,
		.sin_port = htons(v->port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6,
		.sin6_port = htons(v->port),
		.sin6_addr = IN6ADDR_LOOPBACK_INIT};
	int r;

	v->fd = socket(v->v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (v->fd < 0)
		return -errno;
	r = v->v6 ? connect(v->fd, (struct sockaddr *)&in6, sizeof(in6))
		  : connect(v->fd, (struct sockaddr *)&in4, sizeof(in4));
	return r < 0 && errno != EINPROGRESS ? -errno : 0;
}

static void try_connect(struct visit *v);

/* A server that listens on "localhost" may mean ::1 alone. */
static void connect_failed(struct visit *v, int errnum)
{
	kb_source_destroy(KB_STEAL(v->io));
	kb_close(&v->fd);
	if (v->v6) {
		refuse(v, ECONNREFUSED);
	} else if (errnum == ECONNREFUSED) {
		v->v6 = true;
		try_connect(v);
	} else {
		refuse(v, errnum);
	}
}

static void on_connect(int fd, unsigned events, void *arg)
{
	struct visit *v = arg;
	int errnum = 0;
	socklen_t len = sizeof(errnum);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &errnum, &len) < 0)
		errnum = errno;
	if (errnum)
		connect_failed(v, errnum);
	else
		welcome(v);
}

static void try_connect(struct visit *v)
{
	int r = start_connect(v);

	if (r == 0 && kb_loop_io(v->in->loop, v->fd, KB_IO_WRITE, on_connect, v, &v->io, NULL) < 0)
		r = -ENOMEM;
	if (r < 0)
		connect_failed(v, -r);
}

static struct visit *find_visit(struct kb_inbound *in, uint32_t stream)
{
	struct visit *v = in->visits;

	while (v && v->stream != stream)
		v = v->next;
	return v;
}

/* The session's loopback is reached from inside its network namespace. */
static int enter(struct kb_inbound *in)
{
	KB_CLOSE int ns = -1;
	char path[64];

	if (in->options.inside)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)in->options.init);
	ns = open(path, O_RDONLY | O_CLOEXEC);
	if (ns < 0 || setns(ns, CLONE_NEWNET) < 0)
		return -errno;
	in->options.inside = true;
	return 0;
}

/* The link keeps the bounds and asks the policy; so do we. */
static void on_request(struct kb_inbound *in, const Kb__Inbound *msg)
{
	struct visit *v;
	int r = 0;

	if (find_visit(in, msg->stream))
		return;
	v = in->n_visits < KB_INBOUND_FLOWS ? calloc(1, sizeof(*v)) : NULL;
	if (!v) {
		say(in, KB_INBOUND_REFUSED, msg->stream);
		return;
	}
	*v = (struct visit){.in = in,
		.next = in->visits,
		.stream = msg->stream,
		.port = (uint16_t)msg->port,
		.host_port = (uint16_t)msg->host_port,
		.fd = -1};
	in->visits = v;
	in->n_visits++;
	if (kb_bundle_decide_port(in->options.bundle, v->port).action != KB_ALLOW)
		r = -EACCES;
	if (r == 0)
		r = enter(in);
	if (r < 0)
		refuse(v, -r);
	else
		try_connect(v);
}

void kb_inbound_message(struct kb_inbound *in, const Kb__Inbound *msg)
{
	struct visit *v;

	if (msg->port > UINT16_MAX || msg->host_port > UINT16_MAX)
		return;
	if (msg->kind == KB_INBOUND_OPEN || msg->kind == KB_INBOUND_SHUT) {
		record_port(in, msg);
	} else if (msg->kind == KB_INBOUND_CONNECT) {
		on_request(in, msg);
	} else if (msg->kind == KB_INBOUND_CANCEL) {
		v = find_visit(in, msg->stream);
		if (v && v->flow)
			kb_sock_splice_abort(v->flow);
		else if (v)
			refuse(v, ECANCELED);
	}
}

/* ---- The object ------------------------------------------------------------------------------ */

int kb_inbound_create(struct kb_loop *loop, struct kb_channel *channel,
	const struct kb_inbound_options *options, struct kb_inbound **ret, struct kb_err *err)
{
	struct kb_inbound *in = calloc(1, sizeof(*in));

	if (!in)
		return kb_err_nomem(err);
	*in = (struct kb_inbound){.loop = loop, .channel = channel, .options = *options};
	*ret = in;
	return 0;
}

void kb_inbound_destroy(struct kb_inbound *in)
{
	if (!in)
		return;
	while (in->visits) {
		record_visit(in->visits, in->visits->flow ? 0 : ECANCELED);
		visit_destroy(in->visits);
	}
	free(in);
}
