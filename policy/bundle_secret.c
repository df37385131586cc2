/* Secrets in an encoded bundle. */
#include <string.h>

#include "policy/bundle_code.h"

static void write_endpoint(
	struct kb_bundle_writer *wr, Kb__BundleEndpoint *msg, const struct kb_endpoint *endpoint)
{
	(void)wr;
	msg->host = (char *)endpoint->host;
	msg->port = endpoint->port;
	msg->tls = endpoint->tls;
}

void kb_write_secret(
	struct kb_bundle_writer *wr, Kb__BundleSecret *msg, const struct kb_secret *secret)
{
	const struct {
		const struct kb_endpoint *items;
		size_t len;
	} endpoints = {secret->endpoints, secret->n_endpoints};

	msg->name = (char *)secret->name;
	msg->from = secret->from;
	msg->source = (char *)secret->source;
	WRITE_LIST(wr, msg, n_endpoints, endpoints, Kb__BundleEndpoint, kb__bundle_endpoint__init,
		&endpoints, write_endpoint);
	msg->as = secret->as;
	msg->as_name = (char *)secret->as_name;
	msg->placeholder = (char *)secret->placeholder;
	msg->url = (char *)secret->url;
	msg->url_path = (char *)secret->url_path;
	msg->has_intercept = secret->intercept;
	msg->intercept = secret->intercept;
	msg->has_optional = secret->optional;
	msg->optional = secret->optional;
	WRITE_RULE(msg, secret->rule);
}

static bool read_endpoint(
	struct kb_bundle_reader *rd, const Kb__BundleEndpoint *msg, struct kb_endpoint *ret)
{
	*ret = (struct kb_endpoint){
		.host = kb_rd_text(rd, msg->host), .port = (uint16_t)msg->port, .tls = msg->tls};
	if (msg->port == 0 || msg->port > UINT16_MAX || (ret->host && !ret->host[0]))
		return kb_rd_bad(rd, "an endpoint that makes no sense");
	return ret->host != NULL;
}

/* "" where there is none. */
static const char *rd_maybe(struct kb_bundle_reader *rd, const char *text)
{
	return kb_rd_text(rd, text ? text : "");
}

/* It goes into requests as it is. */
static bool is_plain(const char *text)
{
	for (; text && *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			return false;
	return true;
}

bool kb_read_secret(struct kb_bundle_reader *rd, const Kb__BundleSecret *msg, struct kb_secret *ret)
{
	struct {
		struct kb_endpoint *items;
		size_t len, cap;
	} endpoints = {0};

	*ret = (struct kb_secret){.name = kb_rd_text(rd, msg->name),
		.from = msg->from,
		.source = kb_rd_text(rd, msg->source),
		.as = msg->as,
		.as_name = rd_maybe(rd, msg->as_name),
		.placeholder = kb_rd_text(rd, msg->placeholder),
		.url = rd_maybe(rd, msg->url),
		.url_path = rd_maybe(rd, msg->url_path),
		.intercept = msg->intercept,
		.optional = msg->optional};
	if (rd->why || rd->nomem)
		return false;
	ret->as_name = msg->as_name ? ret->as_name : NULL;
	ret->url = msg->url ? ret->url : NULL;
	ret->url_path = msg->url_path ? ret->url_path : NULL;
	if (msg->from > KB_SECRET_KEYRING || msg->as > KB_SECRET_PLACEHOLDER ||
		(msg->as <= KB_SECRET_BASIC && msg->as != KB_SECRET_BEARER && !msg->as_name) ||
		msg->n_endpoints == 0 || !ret->placeholder[0] || !ret->name[0] ||
		!is_plain(ret->as_name) || !is_plain(ret->placeholder) || !is_plain(ret->name))
		return kb_rd_bad(rd, "a secret that makes no sense");
	if (!READ_LIST(rd, &endpoints, msg->n_endpoints, msg->endpoints, KB_BUNDLE_ITEMS_MAX,
		    read_endpoint))
		return false;
	ret->endpoints = endpoints.items;
	ret->n_endpoints = endpoints.len;
	return kb_rd_index(rd, msg->has_rule, msg->rule, &ret->rule);
}
