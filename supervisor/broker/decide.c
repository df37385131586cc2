/* The policy's word. Names are judged by the rules by host; the addresses behind them, and bare
 * addresses, by the rules by address. Addresses that are nobody's on the internet (private ones,
 * loopback, link-local, metadata services) are reached only where a rule names them: `any` does
 * not, and `loopback` means the session's own. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "broker_private.h"
#include "supervisor/base/util.h"

struct range {
	uint8_t len, bits, bytes[16];
};

/* IANA's special-purpose registries, and multicast. */
static const struct range special[] = {
	{4, 8, {0}},
	{4, 8, {10}},
	{4, 10, {100, 64}},
	{4, 8, {127}},
	{4, 16, {169, 254}},
	{4, 12, {172, 16}},
	{4, 24, {192, 0, 0}},
	{4, 24, {192, 0, 2}},
	{4, 24, {192, 88, 99}},
	{4, 16, {192, 168}},
	{4, 15, {198, 18}},
	{4, 24, {198, 51, 100}},
	{4, 24, {203, 0, 113}},
	{4, 3, {224}},
	{16, 96, {0}},
	{16, 96, {[10] = 0xff, [11] = 0xff}},
	{16, 32, {0x00, 0x64, 0xff, 0x9b}},
	{16, 64, {0x01}},
	{16, 23, {0x20, 0x01}},
	{16, 32, {0x20, 0x01, 0x0d, 0xb8}},
	{16, 16, {0x20, 0x02}},
	{16, 20, {0x3f, 0xff}},
	{16, 16, {0x5f}},
	{16, 7, {0xfc}},
	{16, 9, {0xfe, 0x80}},
	{16, 8, {0xff}},
};

static bool beneath(const uint8_t *address, const uint8_t *prefix, unsigned bits)
{
	unsigned whole = bits / 8, rest = bits % 8;

	return memcmp(address, prefix, whole) == 0 &&
	       (!rest || !((address[whole] ^ prefix[whole]) & (uint8_t)(0xff << (8 - rest))));
}

static bool is_special(const struct kb_address *a)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(special); i++)
		if (special[i].len == a->len &&
			beneath(a->bytes, special[i].bytes, special[i].bits))
			return true;
	return false;
}

static bool is_loopback(const struct kb_address *a)
{
	static const uint8_t v6[16] = {[15] = 1};

	return a->len == 4 ? a->bytes[0] == 127 : memcmp(a->bytes, v6, 16) == 0;
}

static bool concerns(const struct kb_net_rule *rule, const struct kb_address *a, uint16_t port)
{
	return rule->direction == KB_NET_CONNECT && !rule->host && rule->address_len == a->len &&
	       (!rule->protocol || rule->protocol == IPPROTO_TCP) && port >= rule->port_lo &&
	       port <= rule->port_hi && beneath(a->bytes, rule->address, rule->prefix);
}

/* Does an allowing rule name this address, where it must? */
static bool names(const struct kb_net_rule *rule, const struct kb_address *a)
{
	if (is_loopback(a))
		return rule->prefix == rule->address_len * 8 && rule->port_lo == rule->port_hi;
	return !is_special(a) || rule->prefix > 0;
}

static const struct kb_net_rule *find_address(
	const struct kb_broker *b, const struct kb_address *a, uint16_t port)
{
	const struct kb_net_rule *rules;
	size_t n = kb_bundle_net(b->bundle, &rules);

	for (size_t i = 0; i < n; i++)
		if (concerns(&rules[i], a, port) &&
			(rules[i].action != KB_ALLOW || names(&rules[i], a)))
			return &rules[i];
	return NULL;
}

static void by_rule(const struct kb_net_rule *rule, struct kb_ruling *ret)
{
	ret->allowed = rule->action == KB_ALLOW;
	ret->errnum = rule->errnum ? rule->errnum : EACCES;
	ret->rule = rule->rule;
	ret->record = rule->record;
	ret->http = rule->http;
	if (!ret->allowed)
		snprintf(ret->why, sizeof(ret->why), "a rule of the policy denies it");
}

static void by_default(const struct kb_broker *b, const char *why, struct kb_ruling *ret)
{
	struct kb_verdict verdict = kb_bundle_net_default(b->bundle);

	*ret = (struct kb_ruling){.errnum = verdict.errnum ? verdict.errnum : ENETUNREACH,
		.rule = verdict.rule,
		.record = verdict.record};
	snprintf(ret->why, sizeof(ret->why), "%s", why);
}

void kb_decide_name(const struct kb_broker *b, const char *name, struct kb_ruling *ret)
{
	const struct kb_net_rule *rule = kb_bundle_find_host(b->bundle, KB_NET_RESOLVE, 0, name, 0);

	*ret = (struct kb_ruling){0};
	if (rule)
		by_rule(rule, ret);
	else
		by_default(b, "no rule of the policy names it", ret);
}

void kb_decide_target(
	const struct kb_broker *b, const struct kb_target *target, struct kb_ruling *ret)
{
	const struct kb_net_rule *rule = target->name[0]
						 ? kb_bundle_find_host(b->bundle, KB_NET_CONNECT,
							   IPPROTO_TCP, target->name, target->port)
						 : find_address(b, &target->address, target->port);

	*ret = (struct kb_ruling){0};
	if (b->limit_hit) {
		*ret = (struct kb_ruling){
			.errnum = EDQUOT, .rule = b->limit_rule, .record = KB_RECORD_SUMMARY};
		snprintf(ret->why, sizeof(ret->why), "the limit of bytes sent was reached");
	} else if (rule) {
		by_rule(rule, ret);
	} else {
		by_default(b,
			target->name[0] ? "no rule of the policy names it"
			: is_special(&target->address)
				? "no rule of the policy names this private or local address"
				: "no rule of the policy names this address",
			ret);
	}
}

bool kb_decide_address(const struct kb_broker *b, const struct kb_address *address, uint16_t port,
	struct kb_ruling *ruling)
{
	const struct kb_net_rule *rule = find_address(b, address, port);
	char text[INET6_ADDRSTRLEN];

	inet_ntop(address->len == 4 ? AF_INET : AF_INET6, address->bytes, text, sizeof(text));
	if (rule && rule->action != KB_ALLOW) {
		by_rule(rule, ruling);
		return false;
	}
	if (rule || !is_special(address))
		return true;
	by_default(b, "", ruling);
	snprintf(ruling->why, sizeof(ruling->why),
		"its address is %s, a private or local one that no rule of the policy names", text);
	return false;
}

/* ---- Requests -------------------------------------------------------------------------------- */

bool kb_decide_request(const char *const *http, struct kb_slice method, struct kb_slice path)
{
	return kb_http_allows(http, method.at, method.len, path.at, path.len);
}
