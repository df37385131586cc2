/* Published ports: what a server in a session listens on becomes reachable on this host's loopback.
 *
 * The client makes the listening socket, so that a port that is taken is its user's to hear of
 * before anything starts. Here the policy is asked; the link accepts (link/inbound.c).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "main.h"
#include "policy/policy.h"
#include "supervisor/base/util.h"

/* The socket must be what the client says it is: bound to loopback, and listening. */
static int check_socket(int fd, uint16_t *ret_port, struct kb_err *err)
{
	struct sockaddr_in in = {0};
	socklen_t len = sizeof(in);
	int listens = 0;
	socklen_t size = sizeof(listens);

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0 ||
		getsockname(fd, (struct sockaddr *)&in, &len) < 0)
		return kb_err_sys(err, errno, "the published socket cannot be looked at");
	if (!listens || in.sin_family != AF_INET || in.sin_addr.s_addr != htonl(INADDR_LOOPBACK))
		return kb_err_set(err, KB_ERR_INVALID,
			"a port is published on loopback, by a socket that listens");
	*ret_port = ntohs(in.sin_port);
	return 0;
}

/* `net connect tcp "127.0.0.1:PORT"` leads that port of the session to the host's own: what would
 * be published is not in the session. */
static bool leads_to_host(const struct kb_bundle *bundle, uint16_t port)
{
	const struct kb_net_rule *rules;
	size_t n = kb_bundle_net(bundle, &rules);

	for (size_t i = 0; i < n; i++)
		if (rules[i].direction == KB_NET_CONNECT && rules[i].action == KB_ALLOW &&
			rules[i].address_len == 4 && rules[i].address[0] == 127 &&
			rules[i].prefix == 32 && rules[i].port_lo == port &&
			rules[i].port_hi == port)
			return true;
	return false;
}

static int check_policy(const struct kb_live *live, uint16_t port, struct kb_err *err)
{
	const struct kb_rule *rules;
	size_t n = kb_bundle_rules(live->policy, &rules);
	struct kb_verdict verdict = kb_bundle_decide_port(live->policy, port);
	const char *id = verdict.rule < n ? rules[verdict.rule].id : "its policy";

	if (verdict.action != KB_ALLOW) {
		kb_err_set(err, KB_ERR_REFUSED,
			"port %u of session %s cannot be published: %.*s does not let it listen "
			"there",
			port, live->name, (int)strcspn(id, "#"), id);
		return kb_err_hint(err, "a line that would allow it:  net listen tcp %u", port);
	}
	if (!leads_to_host(live->policy, port))
		return 0;
	return kb_err_set(err, KB_ERR_REFUSED,
		"port %u of session %s cannot be published: its policy leads 127.0.0.1:%u to this "
		"host's own",
		port, live->name, port);
}

static int add(
	struct kb_ports *ports, uint16_t port, uint16_t host_port, int fd, struct kb_err *err)
{
	int copy;

	if (ports->n == KB_INBOUND_PORTS)
		return kb_err_set(err, KB_ERR_LIMIT, "a session has %d published ports at most",
			KB_INBOUND_PORTS);
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (copy < 0)
		return kb_err_sys(err, errno, "the published socket cannot be kept");
	ports->list[ports->n++] =
		(struct kb_port){.port = port, .host_port = host_port, .fd = copy};
	return 0;
}

static void drop(struct kb_ports *ports, size_t i)
{
	kb_close(&ports->list[i].fd);
	memmove(&ports->list[i], &ports->list[i + 1], (--ports->n - i) * sizeof(ports->list[0]));
}

void kb_ports_forget(struct kb_ports *ports)
{
	while (ports->n > 0)
		drop(ports, ports->n - 1);
}

static int tell_link(
	struct kb_live *live, const struct kb_port *port, bool shut, struct kb_err *err)
{
	Kb__Role__LinkPublish publish = KB__ROLE__LINK_PUBLISH__INIT;
	Kb__Role__ToLink msg = KB__ROLE__TO_LINK__INIT;

	publish.session = (ProtobufCBinaryData){.data = live->id, .len = sizeof(live->id)};
	publish.port = port->port;
	publish.host_port = port->host_port;
	publish.has_shut = 1;
	publish.shut = shut;
	msg.body_case = KB__ROLE__TO_LINK__BODY_PUBLISH;
	msg.publish = &publish;
	return kb_process_send(live->link, &msg.base, shut ? -1 : port->fd, err);
}

int kb_ports_hand_over(struct kb_live *live, struct kb_err *err)
{
	int r = 0;

	for (size_t i = 0; i < live->ports.n && r == 0; i++) {
		if (live->ports.list[i].fd < 0)
			continue;
		r = tell_link(live, &live->ports.list[i], false, err);
		kb_close(&live->ports.list[i].fd);
	}
	return r;
}

int kb_ports_take(struct kb_live *live, struct kb_conn *conn, struct kb_err *err)
{
	int r = 0;

	for (size_t i = 0; i < conn->ports.n && r == 0; i++)
		r = check_policy(live, conn->ports.list[i].port, err);
	if (r == 0) {
		live->ports = conn->ports;
		conn->ports.n = 0;
	}
	kb_ports_forget(&conn->ports);
	return r;
}

static int shut_port(struct kb_live *live, uint16_t host_port, struct kb_err *err)
{
	for (size_t i = 0; i < live->ports.n; i++) {
		if (live->ports.list[i].host_port != host_port)
			continue;
		(void)tell_link(live, &live->ports.list[i], true, NULL);
		drop(&live->ports, i);
		return 0;
	}
	kb_err_set(err, KB_ERR_NOTFOUND, "nothing of session %s is published on port %u",
		live->name, host_port);
	return kb_err_hint(err, "`kbsup publish %s` lists what is", live->name);
}

int kb_ports_request(struct kb_conn *conn, const Kb__Control__PublishRequest *request, int fd,
	struct kb_err *err)
{
	struct kb_live *live = NULL;
	uint16_t host_port = 0;
	int r = 0;

	if (request->port == 0 || request->port > UINT16_MAX || request->shut != (fd < 0))
		return kb_err_set(err, KB_ERR_INVALID, "a port is not published like that");
	if (request->session || request->shut)
		r = kb_live_find_running(
			conn->main, request->session ? request->session : "", &live, err);
	if (r < 0)
		return r;
	if (request->shut)
		return shut_port(live, (uint16_t)request->port, err);
	r = check_socket(fd, &host_port, err);
	if (r == 0 && live)
		r = check_policy(live, (uint16_t)request->port, err);
	if (r == 0)
		r = add(live ? &live->ports : &conn->ports, (uint16_t)request->port, host_port, fd,
			err);
	if (r < 0 || !live)
		return r;
	r = kb_ports_hand_over(live, err);
	if (r < 0)
		drop(&live->ports, live->ports.n - 1);
	return r;
}
