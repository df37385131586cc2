/* Net rules: targets to addresses, host names and ports; the default. */
#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "policy/lower.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

#define HOST_MAX 253

static bool parse_port(const char *text, uint16_t *ret)
{
	uint64_t value;

	if (!kb_parse_u64(text, &value) || value > 65535)
		return false;
	*ret = (uint16_t)value;
	return true;
}

/* "443", "3000..3999" or "*". */
static bool parse_ports(const char *text, struct kb_net_rule *rule)
{
	const char *dots = strstr(text, "..");
	char low[8];

	if (!strcmp(text, "*"))
		return true;
	if (!dots)
		return parse_port(text, &rule->port_lo) && (rule->port_hi = rule->port_lo, true);
	if ((size_t)(dots - text) >= sizeof(low))
		return false;
	memcpy(low, text, (size_t)(dots - text));
	low[dots - text] = '\0';
	return parse_port(low, &rule->port_lo) && parse_port(dots + 2, &rule->port_hi) &&
	       rule->port_lo <= rule->port_hi;
}

/* "10.0.0.0/8", "::1" */
static bool parse_address(const char *text, struct kb_net_rule *rule)
{
	char buf[64];
	const char *slash = strchr(text, '/');
	size_t len = slash ? (size_t)(slash - text) : strlen(text);
	uint64_t prefix;

	if (len >= sizeof(buf))
		return false;
	memcpy(buf, text, len);
	buf[len] = '\0';
	if (inet_pton(AF_INET, buf, rule->address) == 1)
		rule->address_len = 4;
	else if (inet_pton(AF_INET6, buf, rule->address) == 1)
		rule->address_len = 16;
	else
		return false;
	rule->prefix = rule->address_len * 8;
	if (!slash)
		return true;
	if (!kb_parse_u64(slash + 1, &prefix) || prefix > rule->prefix) {
		rule->address_len = 0;
		return false;
	}
	rule->prefix = (unsigned)prefix;
	return true;
}

static bool host_valid(const char *text)
{
	const char *p = !strncmp(text, "*.", 2) ? text + 2 : text;
	size_t len = strlen(p), label = 0;

	if (!len || len > HOST_MAX || !isalnum((unsigned char)p[len - 1]))
		return false;
	for (; *p; p++) {
		if (*p == '.' ? !label : !isalnum((unsigned char)*p) && *p != '-' && *p != '_')
			return false;
		label = *p == '.' ? 0 : label + 1;
		if (label > 63)
			return false;
	}
	return strpbrk(text, "abcdefghijklmnopqrstuvwxyz") != NULL;
}

/* Splits "host:port", "[v6]:port"; *port is NULL when there is none. */
static void split(char *text, char **host, char **port)
{
	char *colon = strrchr(text, ':');

	*host = text;
	*port = NULL;
	if (text[0] == '[' && strchr(text, ']')) {
		char *end = strchr(text, ']');

		*host = text + 1;
		*end = '\0';
		if (end[1] == ':')
			*port = end + 2;
	} else if (colon && strchr(text, ':') == colon) {
		*colon = '\0';
		*port = colon + 1;
	}
}

static int special(const char *text, struct kb_net_rule ret[KB_NET_PER_TARGET])
{
	bool loopback = !strcmp(text, "loopback");

	if (!loopback && strcmp(text, "any") != 0)
		return 0;
	ret[1] = ret[0];
	ret[0].address_len = 4;
	ret[1].address_len = 16;
	if (loopback) {
		ret[0].address[0] = 127;
		ret[0].prefix = 8;
		ret[1].address[15] = 1;
		ret[1].prefix = 128;
	}
	return 2;
}

int kb_net_parse(const struct kb_stmt *stmt, const struct kb_operand *target,
	struct kb_net_rule ret[KB_NET_PER_TARGET], struct kb_arena *arena, struct kb_diags *diags)
{
	char *text = kb_arena_strndup(arena, target->text, strlen(target->text)), *host, *port;
	struct kb_net_rule *rule = ret;
	int n;

	*rule = (struct kb_net_rule){.direction = stmt->verb == KB_VERB_LISTEN	  ? KB_NET_LISTEN
						  : stmt->verb == KB_VERB_RESOLVE ? KB_NET_RESOLVE
										  : KB_NET_CONNECT,
		.protocol = !stmt->proto		  ? 0
			    : !strcmp(stmt->proto, "tcp") ? IPPROTO_TCP
							  : IPPROTO_UDP,
		.port_hi = 65535,
		.action = stmt->action,
		.errnum = stmt->errnum,
		.record = stmt->record,
		.rule = stmt->rule};
	if (!text)
		return -1;
	for (char *p = text; *p; p++)
		*p = (char)tolower((unsigned char)*p);
	/* A bare port of a listen rule: on any address. */
	if (stmt->verb == KB_VERB_LISTEN && isdigit((unsigned char)text[0]) &&
		parse_ports(text, rule))
		return special("any", ret);
	split(text, &host, &port);
	if (port && !parse_ports(port, rule)) {
		kb_diag_error(diags, target->pos, "'%s' is not a port", port);
		kb_diag_hint(diags, "443, 3000..3999 or *");
		return -1;
	}
	n = special(host, ret);
	if (n)
		return n;
	if (parse_address(host, rule))
		return 1;
	if (!host_valid(host)) {
		kb_diag_error(diags, target->pos, "'%s' is not a host, an address or `loopback`",
			target->text);
		kb_diag_hint(diags, "for example \"api.example.com:443\" or \"10.0.0.0/8\"");
		return -1;
	}
	rule->host = host;
	return 1;
}

static unsigned weight(const struct kb_net_rule *rule)
{
	unsigned w = rule->host ? (rule->host[0] == '*' ? 130 : 400) + (unsigned)strlen(rule->host)
				: rule->prefix + (rule->address_len == 4 && rule->prefix ? 96 : 0);

	return w * 4 +
	       (rule->port_lo == rule->port_hi ? 2 : rule->port_hi - rule->port_lo < 65535) +
	       (rule->protocol != 0);
}

static int compare_net(const void *pa, const void *pb)
{
	const struct kb_net_rule *a = pa, *b = pb;
	unsigned wa = weight(a), wb = weight(b);

	if (wa != wb)
		return wa > wb ? -1 : 1;
	if (a->action != b->action)
		return a->action == KB_DENY ? -1 : 1;
	return a->rule < b->rule ? -1 : a->rule > b->rule;
}

static const char *const *http_requests(struct kb_lower *lo, const struct kb_stmt *stmt)
{
	struct kb_arena *arena = &lo->bundle->arena;
	const char **list = kb_arena_alloc(arena, (stmt->http.len + 1) * sizeof(*list));

	for (size_t i = 0; list && i < stmt->http.len; i++) {
		const char *text = stmt->http.items[i].text;

		list[i] = kb_arena_strndup(arena, text, strlen(text));
		if (!list[i])
			return NULL;
	}
	return list;
}

static int push_target(struct kb_lower *lo, const struct kb_stmt *stmt, const struct kb_operand *op)
{
	struct kb_net_rule rules[KB_NET_PER_TARGET];
	int n = kb_net_parse(stmt, op, rules, &lo->bundle->arena, lo->diags);

	for (int i = 0; i < n; i++) {
		struct kb_net_rule *slot = KB_ARENA_PUSH(&lo->bundle->arena, &lo->bundle->net);

		if (!slot)
			return -1;
		*slot = rules[i];
		if (stmt->http.len && !(slot->http = http_requests(lo, stmt)))
			return -1;
	}
	return 0;
}

int kb_lower_net(struct kb_lower *lo)
{
	const struct kb_stmt *best = NULL;

	for (size_t i = 0; i < lo->policy->stmts.len; i++) {
		const struct kb_stmt *stmt = lo->policy->stmts.items[i];

		if (stmt->kind != KB_STMT_NET)
			continue;
		if (stmt->verb == KB_VERB_DEFAULT) {
			if (!best || stmt->level < best->level)
				best = stmt;
			continue;
		}
		for (size_t j = 0; j < stmt->ops.len; j++)
			if (push_target(lo, stmt, &stmt->ops.items[j]) < 0)
				return -1;
	}
	if (lo->bundle->net.len)
		qsort(lo->bundle->net.items, lo->bundle->net.len, sizeof(*lo->bundle->net.items),
			compare_net);
	lo->bundle->net_default = (struct kb_verdict){.action = KB_DENY,
		.errnum = best ? best->errnum : kb_errno_parse("ENETUNREACH"),
		.record = best ? best->record : KB_RECORD_SUMMARY,
		.rule = best ? best->rule : KB_RULE_NONE,
		.by_default = true};
	return 0;
}
