/* Secrets: checked, and lowered to what the broker needs to know of them. Values are never here. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "policy/lower.h"
#include "supervisor/base/util.h"

#define PLACEHOLDER_PREFIX "kbsup-secret-"
#define PLACEHOLDER_MIN	   12
#define TEXT_MAX	   200

/* ---- Endpoints ------------------------------------------------------------------------------- */

/* *text goes past the scheme. The port that it stands for, or 0. */
static uint16_t scheme(const char **text, bool *ret_tls)
{
	static const struct {
		const char *prefix;
		uint16_t port;
		bool tls;
	} schemes[] = {{"https://", 443, true}, {"http://", 80, false}};

	*ret_tls = true;
	for (size_t i = 0; i < KB_ARRAY_LEN(schemes); i++) {
		size_t len = strlen(schemes[i].prefix);

		if (strncasecmp(*text, schemes[i].prefix, len) != 0)
			continue;
		*text += len;
		*ret_tls = schemes[i].tls;
		return schemes[i].port;
	}
	return 0;
}

static const char *host_text(const struct kb_net_rule *rule, struct kb_arena *arena)
{
	char text[INET6_ADDRSTRLEN];

	if (rule->host)
		return kb_arena_strndup(arena, rule->host, strlen(rule->host));
	inet_ntop(rule->address_len == 4 ? AF_INET : AF_INET6, rule->address, text, sizeof(text));
	return kb_arena_strndup(arena, text, strlen(text));
}

int kb_endpoint_parse(const struct kb_stmt *stmt, const struct kb_operand *op,
	struct kb_endpoint *ret, struct kb_arena *arena, struct kb_diags *diags)
{
	const struct kb_stmt as_net = {
		.kind = KB_STMT_NET, .verb = KB_VERB_CONNECT, .proto = "tcp"};
	struct kb_net_rule rules[KB_NET_PER_TARGET];
	struct kb_operand target = *op;
	uint16_t port = scheme(&target.text, &ret->tls);
	bool one;
	int n = kb_net_parse(&as_net, &target, rules, arena, diags);

	(void)stmt;
	if (n < 0)
		return -1;
	if (port && rules[0].port_lo == 0 && rules[0].port_hi == UINT16_MAX)
		rules[0].port_lo = rules[0].port_hi = port;
	one = rules[0].host || rules[0].prefix == rules[0].address_len * 8;
	if (n != 1 || !one || rules[0].port_lo != rules[0].port_hi || !rules[0].port_lo) {
		kb_diag_error(diags, op->pos, "'%s' is not one endpoint", op->text);
		kb_diag_hint(diags, "for example \"api.example.com:443\", or with http:// what "
				    "speaks no TLS");
		return -1;
	}
	ret->host = host_text(&rules[0], arena);
	ret->port = rules[0].port_lo;
	return ret->host ? 0 : -1;
}

bool kb_endpoint_matches(const struct kb_endpoint *endpoint, const char *host, uint16_t port)
{
	size_t len = strlen(host), tail = strlen(endpoint->host);

	if (endpoint->port != port)
		return false;
	if (strncmp(endpoint->host, "*.", 2) != 0)
		return strcmp(endpoint->host, host) == 0;
	return len > tail - 1 && strcmp(host + len - (tail - 1), endpoint->host + 1) == 0;
}

/* ---- Check ----------------------------------------------------------------------------------- */

static bool is_variable(const char *text)
{
	if (!isalpha((unsigned char)text[0]) && text[0] != '_')
		return false;
	for (const char *p = text; *p; p++)
		if (!isalnum((unsigned char)*p) && *p != '_')
			return false;
	return strlen(text) <= TEXT_MAX;
}

/* All of text is from one of isalnum() and more, and its length is right. */
static bool made_of(const char *text, const char *more, size_t min)
{
	size_t len = strlen(text);

	for (const char *p = text; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr(more, *p))
			return false;
	return len >= min && len <= TEXT_MAX;
}

/* Headers that say where a request ends, or whom it is for. */
static bool is_framing(const char *header)
{
	static const char *const names[] = {"host", "connection", "content-length",
		"transfer-encoding", "upgrade", "te", "trailer", "keep-alive", "expect"};

	for (size_t i = 0; i < KB_ARRAY_LEN(names); i++)
		if (!strcasecmp(names[i], header))
			return true;
	return false;
}

static const char *header_of(const struct kb_stmt *stmt)
{
	static const char *const authorization = "authorization";

	switch (stmt->secret.as) {
	case KB_SECRET_HEADER:
		return stmt->secret.as_name;
	case KB_SECRET_PLACEHOLDER:
		return NULL;
	default:
		return authorization;
	}
}

static void check_words(const struct kb_stmt *stmt, struct kb_diags *diags)
{
	const char *name = stmt->ops.items[0].text, *as = stmt->secret.as_name;

	if (!is_variable(name))
		kb_diag_error(diags, stmt->ops.items[0].pos,
			"'%s' cannot be a secret's name: it is also a variable of the session",
			name);
	if (stmt->secret.as == KB_SECRET_HEADER &&
		(!made_of(as, "!#$%&'*+-.^_`|~", 1) || is_framing(as)))
		kb_diag_error(diags, stmt->pos, "'%s' cannot be the header of a secret", as);
	if (stmt->secret.as == KB_SECRET_BASIC && (!as[0] || strpbrk(as, ":\r\n")))
		kb_diag_error(diags, stmt->pos, "'%s' cannot be a user's name", as);
	if (stmt->secret.placeholder &&
		!made_of(stmt->secret.placeholder, "-._~+/=", PLACEHOLDER_MIN)) {
		kb_diag_error(
			diags, stmt->pos, "'%s' cannot be a placeholder", stmt->secret.placeholder);
		kb_diag_hint(
			diags, "%d to %d letters, digits, or -._~+/=", PLACEHOLDER_MIN, TEXT_MAX);
	}
	if (stmt->secret.url && !is_variable(stmt->secret.url))
		kb_diag_error(
			diags, stmt->pos, "'%s' cannot be a variable's name", stmt->secret.url);
	if (stmt->secret.url && stmt->secret.url_path[0] && stmt->secret.url_path[0] != '/')
		kb_diag_error(diags, stmt->pos, "the path of a URL begins with '/'");
}

static bool same_endpoint(const struct kb_stmt *a, const struct kb_stmt *b)
{
	for (size_t i = 0; i < a->except.len; i++)
		for (size_t j = 0; j < b->except.len; j++)
			if (!strcasecmp(a->except.items[i].text, b->except.items[j].text))
				return true;
	return false;
}

/* Only one value can stand in a header. */
static void check_others(
	const struct kb_policy *policy, const struct kb_stmt *stmt, struct kb_diags *diags)
{
	const char *header = header_of(stmt), *other_header;

	for (size_t i = 0; policy->stmts.items[i] != stmt; i++) {
		const struct kb_stmt *other = policy->stmts.items[i];

		if (other->kind != KB_STMT_SECRET || other->level != stmt->level)
			continue;
		other_header = header_of(other);
		if (!strcmp(other->ops.items[0].text, stmt->ops.items[0].text))
			kb_diag_error(diags, stmt->pos, "a second secret of this name");
		else if (header && other_header && !strcasecmp(header, other_header) &&
			 same_endpoint(stmt, other))
			kb_diag_error(diags, stmt->pos,
				"two secrets for the same header of the same endpoint");
		else
			continue;
		kb_diag_also(diags, other->pos);
	}
}

static bool covers(const struct kb_net_rule *rule, const struct kb_endpoint *endpoint)
{
	uint8_t address[16];

	if (endpoint->port < rule->port_lo || endpoint->port > rule->port_hi)
		return false;
	if (rule->host)
		return kb_endpoint_matches(
			       &(struct kb_endpoint){.host = rule->host, .port = endpoint->port},
			       endpoint->host[0] == '*' ? endpoint->host + 2 : endpoint->host,
			       endpoint->port) ||
		       !strcmp(rule->host, endpoint->host);
	return inet_pton(rule->address_len == 4 ? AF_INET : AF_INET6, endpoint->host, address) == 1;
}

/* Does a rule let the session connect there? By address it is a guess: then yes. */
static bool is_reached(const struct kb_policy *policy, const struct kb_endpoint *endpoint,
	struct kb_arena *scratch)
{
	struct kb_diags *quiet = kb_diags_create(); /* check_net() says what is wrong with them */
	struct kb_net_rule rules[KB_NET_PER_TARGET];
	bool found = !quiet;

	for (size_t i = 0; i < policy->stmts.len && !found; i++) {
		const struct kb_stmt *stmt = policy->stmts.items[i];
		bool connects = stmt->kind == KB_STMT_NET && stmt->verb == KB_VERB_CONNECT;

		for (size_t j = 0; connects && j < stmt->ops.len && !found; j++) {
			int n = kb_net_parse(stmt, &stmt->ops.items[j], rules, scratch, quiet);

			for (int k = 0; k < n; k++)
				found = found || covers(&rules[k], endpoint);
		}
	}
	kb_diags_destroy(quiet);
	return found;
}

void kb_secret_check(const struct kb_policy *policy, const struct kb_stmt *stmt,
	struct kb_arena *scratch, struct kb_diags *diags)
{
	struct kb_endpoint endpoint;

	check_words(stmt, diags);
	check_others(policy, stmt, diags);
	for (size_t i = 0; i < stmt->except.len; i++) {
		if (kb_endpoint_parse(stmt, &stmt->except.items[i], &endpoint, scratch, diags) < 0)
			continue;
		if (i == 0 && stmt->secret.url && endpoint.host[0] == '*')
			kb_diag_error(diags, stmt->except.items[i].pos,
				"a URL needs one host, not a pattern");
		if (is_reached(policy, &endpoint, scratch))
			continue;
		kb_diag_warn(diags, stmt->except.items[i].pos,
			"no rule lets the session connect to %s:%u: the secret is not used there",
			endpoint.host, endpoint.port);
		kb_diag_help(diags, "add: net connect tcp \"%s:%u\"", endpoint.host, endpoint.port);
	}
}

/* ---- Lower ----------------------------------------------------------------------------------- */

static const char *dup_or_null(struct kb_lower *lo, const char *text, bool *ok)
{
	const char *copy = text ? kb_arena_strndup(&lo->bundle->arena, text, strlen(text)) : NULL;

	*ok = *ok && (!text || copy);
	return copy;
}

static bool lower_endpoints(
	struct kb_lower *lo, const struct kb_stmt *stmt, struct kb_secret *secret)
{
	struct kb_arena *arena = &lo->bundle->arena;
	struct kb_endpoint *list = kb_arena_alloc(arena, stmt->except.len * sizeof(*list));

	for (size_t i = 0; list && i < stmt->except.len; i++)
		if (kb_endpoint_parse(stmt, &stmt->except.items[i], &list[i], arena, lo->diags) < 0)
			return kb_diags_errors(lo->diags) > 0;
	secret->endpoints = list;
	secret->n_endpoints = stmt->except.len;
	return list != NULL;
}

static int lower_secret(struct kb_lower *lo, const struct kb_stmt *stmt)
{
	struct kb_secret *slot = KB_ARENA_PUSH(&lo->bundle->arena, &lo->bundle->secrets);
	const char *name = stmt->ops.items[0].text, *made;
	bool ok = slot != NULL;

	if (!ok)
		return -1;
	made = stmt->secret.placeholder
		       ? stmt->secret.placeholder
		       : kb_arena_printf(&lo->scratch, PLACEHOLDER_PREFIX "%s", name);
	*slot = (struct kb_secret){.name = dup_or_null(lo, name, &ok),
		.from = stmt->secret.from,
		.source = dup_or_null(lo, stmt->ops.items[1].text, &ok),
		.as = stmt->secret.as,
		.as_name = dup_or_null(lo, stmt->secret.as_name, &ok),
		.placeholder = dup_or_null(lo, made, &ok),
		.url = dup_or_null(lo, stmt->secret.url, &ok),
		.url_path = dup_or_null(lo, stmt->secret.url_path, &ok),
		.intercept = stmt->secret.intercept,
		.optional = stmt->optional,
		.rule = stmt->rule};
	return ok && made && lower_endpoints(lo, stmt, slot) ? 0 : -1;
}

/* The nearest file's word on a name. */
static bool is_nearest(const struct kb_policy *policy, const struct kb_stmt *stmt)
{
	for (size_t i = 0; i < policy->stmts.len; i++) {
		const struct kb_stmt *other = policy->stmts.items[i];

		if (other->kind == KB_STMT_SECRET && other->level < stmt->level &&
			!strcmp(other->ops.items[0].text, stmt->ops.items[0].text))
			return false;
	}
	return true;
}

int kb_lower_secrets(struct kb_lower *lo)
{
	for (size_t i = 0; i < lo->policy->stmts.len; i++) {
		const struct kb_stmt *stmt = lo->policy->stmts.items[i];

		if (stmt->kind != KB_STMT_SECRET || !is_nearest(lo->policy, stmt))
			continue;
		if (lo->bundle->secrets.len == KB_SECRETS_MAX) {
			kb_diag_error(lo->diags, stmt->pos, "more than %d secrets", KB_SECRETS_MAX);
			return 0;
		}
		if (lower_secret(lo, stmt) < 0)
			return -1;
	}
	return 0;
}

bool kb_bundle_intercepts(const struct kb_bundle *bundle)
{
	for (size_t i = 0; i < bundle->secrets.len; i++)
		if (bundle->secrets.items[i].intercept)
			return true;
	for (size_t i = 0; i < bundle->net.len; i++)
		if (bundle->net.items[i].http && bundle->net.items[i].http[0])
			return true;
	return false;
}
