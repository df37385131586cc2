/* The reference evaluator: what the rules say, without any mechanism. The emitted program is tested
 * against it, the collector asks it which rule a trapped call met. No allocation, no system call.
 */
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "policy/bundle.h"

bool kb_cond_holds(const struct kb_cond *cond, const uint64_t args[6])
{
	uint64_t value = args[cond->arg] & cond->mask;

	for (size_t i = 0; i < cond->in.len; i++)
		if (value >= cond->in.items[i].lo && value <= cond->in.items[i].hi)
			return true;
	return false;
}

static bool clause_holds(const struct kb_clause *clause, const uint64_t args[6])
{
	for (size_t i = 0; i < clause->conds.len; i++)
		if (!kb_cond_holds(&clause->conds.items[i], args))
			return false;
	return true;
}

static struct kb_verdict verdict(const struct kb_clause *clause)
{
	return (struct kb_verdict){.action = clause->action,
		.errnum = clause->errnum,
		.record = clause->record,
		.rule = clause->rule};
}

struct kb_verdict kb_bundle_decide(
	const struct kb_bundle *bundle, uint32_t arch, int nr, const uint64_t args[6])
{
	const struct kb_table *table = kb_bundle_table(bundle, arch);
	const struct kb_table_call *call;
	struct kb_verdict ret;

	/* A foreign ABI ends the process; the line it is put down to is the default's. */
	if (!table)
		return (struct kb_verdict){.action = KB_KILL,
			.record = KB_RECORD_FULL,
			.rule = bundle->tables.len ? bundle->tables.items[0].other.rule
						   : KB_RULE_NONE,
			.by_default = true};
	call = kb_table_find(table, nr);
	for (size_t i = 0; call && i < call->clauses.len; i++)
		if (clause_holds(&call->clauses.items[i], args)) {
			ret = verdict(&call->clauses.items[i]);
			ret.by_default = ret.rule == table->other.rule;
			return ret;
		}
	ret = verdict(&table->other);
	ret.by_default = true;
	return ret;
}

static unsigned watch(const struct kb_clause *clause)
{
	if (clause->record == KB_RECORD_NONE)
		return 0;
	return clause->action == KB_ALLOW ? KB_WATCH_ALLOWED : KB_WATCH_DENIED;
}

unsigned kb_bundle_watch(const struct kb_bundle *bundle, uint32_t arch, int nr)
{
	const struct kb_table *table = kb_bundle_table(bundle, arch);
	const struct kb_table_call *call = table ? kb_table_find(table, nr) : NULL;
	unsigned ret = 0;

	if (!call)
		return table ? watch(&table->other) : 0;
	for (size_t i = 0; i < call->clauses.len; i++)
		ret |= watch(&call->clauses.items[i]);
	return ret;
}

/* ---- Paths ----------------------------------------------------------------------------------- */

static struct kb_verdict given(const struct kb_path_rule *rule)
{
	return (struct kb_verdict){.action = rule->action,
		.errnum = rule->errnum,
		.record = rule->record,
		.rule = rule->rule,
		.private_tree = rule->private_tree,
		.at_start = rule->at_start};
}

/* A directory that leads to something given holds nothing but the way there: it may be listed. */
static const struct kb_path_rule *leads_to(const struct kb_bundle *bundle, const char *path)
{
	for (size_t i = 0; i < bundle->paths.len; i++) {
		const struct kb_path_rule *rule = &bundle->paths.items[i];

		if (rule->action == KB_ALLOW && kb_path_beneath(path, rule->pattern))
			return rule;
	}
	return NULL;
}

static struct kb_verdict decide_one(
	const struct kb_bundle *bundle, unsigned access, const char *path, size_t len)
{
	const struct kb_path_rule *beyond;

	for (size_t i = 0; i < bundle->paths.len; i++) {
		const struct kb_path_rule *rule = &bundle->paths.items[i];

		if ((rule->access & access) &&
			kb_len_beneath(rule->pattern, bundle->path_lens[i], path, len))
			return given(rule);
	}
	beyond = access == KB_FS_READ ? leads_to(bundle, path) : NULL;
	return beyond ? given(beyond) : bundle->path_default;
}

struct kb_verdict kb_bundle_decide_path(
	const struct kb_bundle *bundle, unsigned access, const char *path)
{
	static const unsigned kinds[] = {KB_FS_READ, KB_FS_WRITE, KB_FS_EXEC};
	struct kb_verdict ret = bundle->path_default;
	size_t len = strlen(path);
	bool first = true;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		struct kb_verdict one;

		if (!(access & kinds[i]))
			continue;
		one = decide_one(bundle, kinds[i], path, len);
		/* The hardest wins; an explicit deny says more than the default. */
		if (first || one.action > ret.action ||
			(one.action == ret.action && ret.by_default && !one.by_default) ||
			(one.action == ret.action && one.record > ret.record &&
				one.by_default == ret.by_default))
			ret = one;
		first = false;
	}
	return ret;
}

/* ---- Addresses ------------------------------------------------------------------------------- */

struct peer {
	uint8_t address[16];
	unsigned len; /* 4 or 16 */
	uint16_t port;
};

static const uint8_t v4_mapped[12] = {[10] = 0xff, [11] = 0xff};

/* False: not an internet address. Mapped addresses become IPv4, "any" becomes loopback, as the
 * kernel takes them when connecting. */
static bool peer_of(const struct sockaddr *address, size_t len, enum kb_net_direction direction,
	struct peer *ret)
{
	static const uint8_t any[16];

	if (address->sa_family == AF_INET && len >= sizeof(struct sockaddr_in)) {
		struct sockaddr_in in;

		memcpy(&in, address, sizeof(in));
		memcpy(ret->address, &in.sin_addr, 4);
		ret->len = 4;
		ret->port = ntohs(in.sin_port);
	} else if (address->sa_family == AF_INET6 &&
		   len >= offsetof(struct sockaddr_in6, sin6_scope_id)) {
		struct sockaddr_in6 in = {0};

		memcpy(&in, address, len < sizeof(in) ? len : sizeof(in));
		memcpy(ret->address, &in.sin6_addr, 16);
		ret->len = 16;
		ret->port = ntohs(in.sin6_port);
		if (!memcmp(ret->address, v4_mapped, sizeof(v4_mapped))) {
			memmove(ret->address, ret->address + 12, 4);
			ret->len = 4;
		}
	} else {
		return false;
	}
	if (direction == KB_NET_CONNECT && !memcmp(ret->address, any, ret->len)) {
		if (ret->len == 4)
			ret->address[0] = 127;
		ret->address[ret->len - 1] = 1;
	}
	return true;
}

static bool prefix_equal(const uint8_t *a, const uint8_t *b, unsigned bits)
{
	unsigned whole = bits / 8, rest = bits % 8;

	return !memcmp(a, b, whole) &&
	       (!rest || !((a[whole] ^ b[whole]) & (uint8_t)(0xff << (8 - rest))));
}

static bool net_matches(const struct kb_net_rule *rule, enum kb_net_direction direction,
	int protocol, const struct peer *peer)
{
	return rule->direction == direction && rule->address_len == peer->len &&
	       (!rule->protocol || !protocol || rule->protocol == protocol) &&
	       peer->port >= rule->port_lo && peer->port <= rule->port_hi &&
	       prefix_equal(rule->address, peer->address, rule->prefix);
}

struct kb_verdict kb_bundle_decide_net(const struct kb_bundle *bundle,
	enum kb_net_direction direction, int protocol, const struct sockaddr *address, size_t len)
{
	struct peer peer;

	/* Other families are decided where the socket is made. */
	if (len < sizeof(address->sa_family) ||
		(address->sa_family != AF_INET && address->sa_family != AF_INET6))
		return (struct kb_verdict){.action = KB_ALLOW, .rule = KB_RULE_NONE};
	if (!peer_of(address, len, direction, &peer)) /* too short: the kernel refuses it */
		return (struct kb_verdict){.action = KB_ALLOW, .rule = KB_RULE_NONE};
	for (size_t i = 0; i < bundle->net.len; i++) {
		const struct kb_net_rule *rule = &bundle->net.items[i];

		if (net_matches(rule, direction, protocol, &peer))
			return (struct kb_verdict){.action = rule->action,
				.errnum = rule->errnum,
				.record = rule->record,
				.rule = rule->rule};
	}
	return bundle->net_default;
}

struct kb_verdict kb_bundle_decide_port(const struct kb_bundle *bundle, uint16_t port)
{
	const struct sockaddr_in in = {.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	return kb_bundle_decide_net(
		bundle, KB_NET_LISTEN, IPPROTO_TCP, (const struct sockaddr *)&in, sizeof(in));
}

static bool host_matches(const char *pattern, const char *host)
{
	size_t len = strlen(host), tail = strlen(pattern);

	if (strncmp(pattern, "*.", 2) != 0)
		return !strcmp(pattern, host);
	/* "*.example.com": any name below example.com */
	return len > tail - 1 && !strcmp(host + len - (tail - 1), pattern + 1);
}

const struct kb_net_rule *kb_bundle_find_host(const struct kb_bundle *bundle,
	enum kb_net_direction direction, int protocol, const char *host, uint16_t port)
{
	for (size_t i = 0; i < bundle->net.len; i++) {
		const struct kb_net_rule *rule = &bundle->net.items[i];
		/* Who may be reached may be asked for. */
		bool way = rule->direction == direction ||
			   (direction == KB_NET_RESOLVE && rule->direction == KB_NET_CONNECT);

		if (way && rule->host && host_matches(rule->host, host) &&
			(!rule->protocol || !protocol || rule->protocol == protocol) &&
			(direction == KB_NET_RESOLVE ||
				(port >= rule->port_lo && port <= rule->port_hi)))
			return rule;
	}
	return NULL;
}

struct kb_verdict kb_bundle_net_default(const struct kb_bundle *bundle)
{
	return bundle->net_default;
}

struct kb_verdict kb_bundle_decide_host(const struct kb_bundle *bundle,
	enum kb_net_direction direction, int protocol, const char *host, uint16_t port)
{
	const struct kb_net_rule *rule =
		kb_bundle_find_host(bundle, direction, protocol, host, port);

	if (!rule)
		return bundle->net_default;
	return (struct kb_verdict){.action = rule->action,
		.errnum = rule->errnum,
		.record = rule->record,
		.rule = rule->rule};
}
