#include "closing.h"

#include <string.h>

#include "denials.h"
#include "workspace.h"

/* ---- Opening --------------------------------------------------------------------------------- */

static bool is_whole_loopback(const struct kb_net_rule *rule)
{
	static const uint8_t v6[16] = {[15] = 1};
	bool v4 = rule->address_len == 4 && rule->address[0] == 127;
	bool one = rule->prefix == rule->address_len * 8 && rule->port_lo == rule->port_hi;

	return !rule->host && !one &&
	       (v4 || (rule->address_len == 16 && !memcmp(rule->address, v6, sizeof(v6))));
}

static bool same_place(const struct kb_net_rule *a, const struct kb_net_rule *b)
{
	if (a->host || b->host)
		return a->host && b->host && !strcmp(a->host, b->host);
	return a->address_len == b->address_len && a->prefix == b->prefix &&
	       !memcmp(a->address, b->address, a->address_len);
}

/* "none", "1 host", "4 hosts", "any host": whom the policy lets the session reach. */
static const char *network(const struct kb_bundle *bundle, char ret[KB_WORDS_MAX])
{
	const struct kb_net_rule *rules;
	size_t n = kb_bundle_net(bundle, &rules), hosts = 0;

	for (size_t i = 0; i < n; i++) {
		size_t before = 0;

		if (rules[i].direction != KB_NET_CONNECT || rules[i].action == KB_DENY ||
			rules[i].action == KB_KILL || is_whole_loopback(&rules[i]))
			continue;
		if (!rules[i].host && rules[i].prefix == 0)
			return "any host";
		while (before < i && (rules[before].direction != KB_NET_CONNECT ||
					     !same_place(&rules[before], &rules[i])))
			before++;
		hosts += before == i;
	}
	snprintf(ret, KB_WORDS_MAX, "%zu host%s", hosts, hosts == 1 ? "" : "s");
	return hosts ? ret : "none";
}

static void print_ports(const struct kb_publish_list *ports)
{
	for (size_t i = 0; i < ports->n; i++)
		fprintf(stderr, "%s127.0.0.1:%u%s%u",
			i ? ", " : "       published: ", ports->list[i].host_port, " → ",
			ports->list[i].port);
	if (ports->n)
		fputc('\n', stderr);
}

void kb_opening_print(const struct kb_cli *cli, const struct kb_opening *opening,
	const struct kb_started *started)
{
	char *workspace KB_FREE = NULL, *files KB_FREE = NULL;
	char hosts[KB_WORDS_MAX];

	if (!cli->err_tty)
		return;
	workspace = kb_format_path(cli, opening->workspace);
	files = kb_xprintf(" (%zu files)", opening->policy_files);
	fprintf(stderr,
		"kbsup: session %s%s%s on %s · policy %s%s%s · recording %s · %s writable · "
		"network: %s\n",
		kb_tone(cli->err_colour, KB_TONE_BOLD), opening->name,
		kb_tone_end(cli->err_colour, KB_TONE_BOLD), opening->machine,
		kb_bundle_name(opening->bundle), opening->policy_files > 1 ? files : "",
		opening->tightened ? " tightened by " KB_WORKSPACE_POLICY : "",
		started->lane && *started->lane ? started->lane : "nothing", workspace,
		network(opening->bundle, hosts));
	print_ports(opening->ports);
	for (size_t i = 0; i < started->n_missing; i++)
		fprintf(stderr, "       %snot enforced here:%s %s\n",
			kb_tone(cli->err_colour, KB_TONE_WARN),
			kb_tone_end(cli->err_colour, KB_TONE_WARN), started->missing[i]);
}

/* ---- Closing --------------------------------------------------------------------------------- */

static void print_how(const struct kb_cli *cli, const struct kb_session *s)
{
	char ran[KB_WORDS_MAX], records[KB_WORDS_MAX], lost[KB_WORDS_MAX];
	enum kb_tone tone = s->lost || !s->complete ? KB_TONE_BAD : KB_TONE_NONE;

	kb_format_duration(ran, (int64_t)(s->ended - s->started));
	kb_format_count(records, s->records);
	kb_format_count(lost, s->lost);
	fprintf(stderr,
		"kbsup: session %s%s%s ended after %s, exit %d · %s records, %s%s lost%s%s\n",
		kb_tone(cli->err_colour, KB_TONE_BOLD), s->name,
		kb_tone_end(cli->err_colour, KB_TONE_BOLD), ran, s->exit_code, records,
		kb_tone(cli->err_colour, tone), lost,
		s->complete ? "" : ", the record is incomplete",
		kb_tone_end(cli->err_colour, tone));
	if (*s->reason)
		fprintf(stderr, "       %s\n", s->reason);
}

/* "37 commands", "1 command"; nothing when there are none. */
static void print_number(uint64_t n, const char *one, const char *many, const char **separator)
{
	char text[KB_WORDS_MAX];

	if (!n)
		return;
	kb_format_count(text, n);
	fprintf(stderr, "%s%s %s", *separator, text, n == 1 ? one : many);
	*separator = " · ";
}

static void print_what(const struct kb_session *s)
{
	const char *separator = "       ";

	print_number(s->commands, "command", "commands", &separator);
	print_number(s->changed, "file changed", "files changed", &separator);
	print_number(s->deleted, "deleted", "deleted", &separator);
	print_number(s->hosts, "host", "hosts", &separator);
	print_number(s->secrets, "secret used", "secrets used", &separator);
	print_number(s->denials, "denial", "denials", &separator);
	if (s->denials)
		fprintf(stderr, " (kbsup audit query %s 'decision = denied')", s->name);
	if (strcmp(separator, "       "))
		fputc('\n', stderr);
}

void kb_closing_print(const struct kb_cli *cli, struct kb_connection *connection,
	const struct kb_session *session, const char *policy)
{
	struct kb_denials_view view = {
		.cli = cli,
		.colour = cli->err_colour,
		.columns = cli->err_columns,
		.session = session->id,
		.policy = policy ? policy : session->agent,
		.config = kb_client_dirs(connection->client)->config,
	};

	struct kb_session counted = *session; /* its strings stay the caller's */

	/* Silence is for sessions that ended by themselves: what cut one short is always said. */
	if (!cli->err_tty && *session->reason)
		fprintf(stderr, "kbsup: session %s was ended: %s\n", session->name,
			session->reason);
	if (!cli->err_tty)
		return;
	(void)kb_client_summary(connection->client, &counted, NULL);
	print_how(cli, session);
	print_what(&counted);
	/* The session went as it went, also when its denials cannot be asked for now. */
	if (session->denials)
		(void)kb_denials_print(&view, connection, stderr, NULL);
}

void kb_leaving_print(const struct kb_cli *cli, const struct kb_pump_end *end)
{
	if (!cli->err_tty)
		return;
	fprintf(stderr,
		"\nkbsup: session %s runs on%s%s · back: kbsup attach %s · end: kbsup stop %s\n",
		end->name, *end->detach_reason ? ", " : "", end->detach_reason, end->name,
		end->name);
}
