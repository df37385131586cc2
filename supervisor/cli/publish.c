/* kbsup publish, and what `run --publish` shares with it */
#include "publish.h"

#include <errno.h>
#include <string.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/str.h"
#include "verbs.h"

static bool parse_port(const char *text, size_t len, uint64_t least, uint64_t *ret)
{
	char word[8];

	if (len == 0 || len >= sizeof(word))
		return false;
	memcpy(word, text, len);
	word[len] = '\0';
	return kb_parse_u64(word, ret) && *ret >= least && *ret <= UINT16_MAX;
}

int kb_publish_add(struct kb_publish_list *ports, const char *text, struct kb_err *err)
{
	const char *colon = strchr(text, ':'), *inside = colon ? colon + 1 : text;
	uint64_t port, host;

	if (!parse_port(inside, strlen(inside), 1, &port) ||
		(colon && !parse_port(text, (size_t)(colon - text), 0, &host))) {
		kb_err_set(err, KB_ERR_USAGE, "'%s' is not [HOST:]PORT, one port or two", text);
		return kb_err_hint(err,
			"3000 publishes port 3000 of the session on port 3000 here, 8080:3000 on "
			"8080, 0:3000 on any that is free");
	}
	if (ports->n == KB_PUBLISHED_MAX)
		return kb_err_set(err, KB_ERR_USAGE, "a session has %d published ports at most",
			KB_PUBLISHED_MAX);
	ports->list[ports->n++] = (struct kb_publish){
		.port = (uint16_t)port, .host_port = (unsigned)(colon ? host : port), .fd = -1};
	return 0;
}

int kb_publish_listen(struct kb_publish_list *ports, struct kb_err *err)
{
	for (size_t i = 0; i < ports->n; i++) {
		struct kb_publish *p = &ports->list[i];
		unsigned wanted = p->host_port;
		int r = kb_fd_listen_loopback(&p->host_port, &p->fd, err);

		if (r == 0)
			continue;
		kb_err_prefix(err, "port %u cannot be published", p->port);
		return err && err->errnum == EACCES && wanted
			       ? kb_err_hint(err,
					 "ports below 1024 are root's; take another: %u:%u",
					 8000 + wanted, p->port)
			       : kb_err_hint(err,
					 "take another port here: OTHER:%u, or 0:%u for any "
					 "that is free",
					 p->port, p->port);
	}
	return 0;
}

int kb_publish_send(struct kb_publish_list *ports, struct kb_client *client, const char *session,
	struct kb_err *err)
{
	int r = 0;

	for (size_t i = 0; i < ports->n && r == 0; i++) {
		r = kb_client_publish(client, session, ports->list[i].port, ports->list[i].fd, err);
		kb_close(&ports->list[i].fd);
	}
	return r;
}

json_t *kb_publish_json(const struct kb_published *ports, size_t n)
{
	json_t *array = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(
			array, json_pack("{s:i, s:i, s:s}", "port", (int)ports[i].port, "host_port",
				       (int)ports[i].host_port, "host", "127.0.0.1"));
	return array;
}

void kb_publish_finish(struct kb_publish_list *ports)
{
	for (size_t i = 0; i < ports->n; i++)
		kb_close(&ports->list[i].fd);
	ports->n = 0;
}

/* ---- The verb -------------------------------------------------------------------------------- */

static int show(struct kb_cli *cli, const struct kb_published *ports, size_t n, struct kb_err *err)
{
	if (cli->json)
		return kb_json_print(cli, kb_publish_json(ports, n), err);
	for (size_t i = 0; i < n; i++)
		printf("127.0.0.1:%u → %u\n", ports[i].host_port, ports[i].port);
	if (!n && cli->columns)
		puts("nothing is published");
	return KB_EXIT_OK;
}

static int list(struct kb_cli *cli, struct kb_connection *connection, const char *session,
	struct kb_err *err)
{
	struct kb_sessions sessions KB_SESSIONS_CLEANUP = {0};
	const struct kb_session *one;
	int r = kb_sessions_read(&sessions, connection, err);

	if (r < 0)
		return r;
	one = kb_session_find(sessions.list, sessions.len, session);
	return show(cli, one ? one->ports : NULL, one ? one->n_ports : 0, err);
}

static int add(struct kb_cli *cli, struct kb_connection *connection, const char *session,
	struct kb_publish_list *ports, struct kb_err *err)
{
	struct kb_published told[KB_PUBLISHED_MAX];
	int r = kb_publish_listen(ports, err);

	if (r == 0)
		r = kb_publish_send(ports, connection->client, session, err);
	for (size_t i = 0; i < ports->n; i++)
		told[i] = (struct kb_published){
			ports->list[i].port, (uint16_t)ports->list[i].host_port};
	return r < 0 ? r : show(cli, told, ports->n, err);
}

static int take_away(struct kb_connection *connection, const char *session,
	const struct kb_args *args, struct kb_err *err)
{
	uint64_t port;
	int r = 0;

	for (size_t i = 1; i < args->n_operands && r == 0; i++) {
		const char *text = args->operands[i];

		if (!parse_port(text, strlen(text), 1, &port))
			return kb_err_set(
				err, KB_ERR_USAGE, "'%s' is not a port of this host", text);
		r = kb_client_unpublish(connection->client, session, (uint16_t)port, err);
	}
	return r;
}

static int run_publish(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_connection connection KB_CONNECTION_CLEANUP = {0};
	struct kb_publish_list ports KB_PUBLISH_CLEANUP = {0};
	bool remove = kb_args_has(args, "remove"), running = true;
	char id[KB_ULID_TEXT];
	int r = 0;

	if (remove && args->n_operands < 2) {
		kb_err_set(err, KB_ERR_USAGE, "--remove needs the port of this host to take away");
		return kb_err_hint(err, "`kbsup publish %s` lists them", args->operands[0]);
	}
	for (size_t i = 1; !remove && i < args->n_operands && r == 0; i++)
		r = kb_publish_add(&ports, args->operands[i], err);
	if (r == 0)
		r = kb_connect_running(&connection, &running, err);
	if (r == 0 && !running)
		r = kb_err_set(err, KB_ERR_UNREACHABLE, "no supervisor is running");
	if (r == 0)
		r = kb_session_resolve(&connection, args->operands[0], id, err);
	if (r < 0)
		return r;
	if (remove)
		return take_away(&connection, id, args, err);
	return ports.n ? add(cli, &connection, id, &ports, err) : list(cli, &connection, id, err);
}

static const struct kb_option options[] = {
	{.name = "remove", .help = "Publish these ports of this host no more"},
	{0},
};

const struct kb_command kb_cmd_publish = {
	.name = "publish",
	.group = KB_GROUP_SESSIONS,
	.summary = "Make a port of a session reachable on this host",
	.about = "Connects a port of 127.0.0.1 here to a port that a server in the session listens "
		 "on, until the session ends: a development server, or the port a sign-in in the "
		 "browser comes back to. HOST is the port here, the same one unless told "
		 "otherwise, 0 for any that is free. Without a port, lists what is published. The "
		 "policy must let the session listen there; each connection is recorded.",
	.options = options,
	.operands = {{.name = "S", .min = 1, .max = 1, .kind = KB_KIND_SESSION},
		{.name = "[HOST:]PORT", .min = 0, .max = KB_PUBLISHED_MAX}},
	.json = true,
	.man = "kbsup-session",
	.run = run_publish,
};
