/* Which secrets may go where. Their values are in the vault; here are the texts that stand in
 * requests, made once and kept in the vault too. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "broker_private.h"
#include "supervisor/base/util.h"

/* prefix and value, in the vault. */
static bool join(
	struct kb_broker *b, const char *prefix, struct kb_slice value, struct kb_slice *ret)
{
	size_t len = strlen(prefix);
	char *text = kb_vault_alloc(b->vault, len + value.len + 1);

	if (!text)
		return false;
	memcpy(text, prefix, len);
	memcpy(text + len, value.at, value.len);
	*ret = (struct kb_slice){text, len + value.len};
	return true;
}

static bool make_basic(
	struct kb_broker *b, const char *user, struct kb_slice value, struct kb_slice *ret)
{
	static const char scheme[] = "Basic ";
	char prefix[KB_HOST_MAX];
	struct kb_slice pair;
	char *text;

	if (snprintf(prefix, sizeof(prefix), "%s:", user) >= (int)sizeof(prefix) ||
		!join(b, prefix, value, &pair))
		return false;
	text = kb_vault_alloc(b->vault, sizeof(scheme) + 4 * ((pair.len + 2) / 3));
	if (!text)
		return false;
	memcpy(text, scheme, sizeof(scheme) - 1);
	*ret = (struct kb_slice){text, sizeof(scheme) - 1 +
					       kb_base64_encode((const uint8_t *)pair.at, pair.len,
						       text + sizeof(scheme) - 1)};
	return true;
}

/* As the policy says that it is sent. */
static bool make_header(
	struct kb_broker *b, const struct kb_secret *secret, struct kb_edit_secret *edit)
{
	edit->header = "Authorization";
	switch (secret->as) {
	case KB_SECRET_HEADER:
		edit->header = secret->as_name;
		edit->header_value = edit->value;
		return true;
	case KB_SECRET_BEARER:
		return join(b, "Bearer ", edit->value, &edit->header_value);
	case KB_SECRET_BASIC:
		return make_basic(b, secret->as_name, edit->value, &edit->header_value);
	default:
		edit->header = NULL;
		return true;
	}
}

int kb_grants_prepare(struct kb_broker *b, struct kb_err *err)
{
	const struct kb_secret *secrets;
	size_t n = kb_bundle_secrets(b->bundle, &secrets);

	for (size_t i = 0; i < n; i++) {
		struct kb_edit_secret *edit = &b->secrets[b->n_secrets++];

		*edit = (struct kb_edit_secret){.placeholder = secrets[i].placeholder,
			.value = kb_vault_find(b->vault, secrets[i].name)};
		if (edit->value.at && !make_header(b, &secrets[i], edit))
			return kb_err_set(
				err, KB_ERR_LIMIT, "the session's secrets are too large together");
	}
	return 0;
}

void kb_grants_find(
	const struct kb_broker *b, const struct kb_target *target, struct kb_grants *ret)
{
	char address[INET6_ADDRSTRLEN];
	const char *host = target->name;
	const struct kb_secret *secrets;
	size_t n = kb_bundle_secrets(b->bundle, &secrets);

	*ret = (struct kb_grants){0};
	if (!host[0]) {
		inet_ntop(target->address.len == 4 ? AF_INET : AF_INET6, target->address.bytes,
			address, sizeof(address));
		host = address;
	}
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < secrets[i].n_endpoints; j++) {
			const struct kb_endpoint *e = &secrets[i].endpoints[j];

			if (!kb_endpoint_matches(e, host, target->port) || !b->secrets[i].value.at)
				continue;
			*(e->tls ? &ret->over_tls : &ret->in_clear) |= 1ull << i;
			ret->intercept |= e->tls && secrets[i].intercept;
		}
}

void kb_grants_names(const struct kb_broker *b, uint64_t which, char *ret, size_t size)
{
	const struct kb_secret *secrets;
	size_t n = kb_bundle_secrets(b->bundle, &secrets), at = 0;

	ret[0] = '\0';
	for (size_t i = 0; i < n && at < size; i++)
		if (which >> i & 1)
			at += (size_t)snprintf(
				ret + at, size - at, "%s%s", at ? "," : "", secrets[i].name);
}

void kb_grants_mask(const struct kb_broker *b, uint64_t which, struct kb_mask *mask)
{
	for (size_t i = 0; i < b->n_secrets; i++) {
		const struct kb_edit_secret *s = &b->secrets[i];
		const char *space;

		if (!(which >> i & 1))
			continue;
		kb_mask_add(mask, (const uint8_t *)s->value.at, s->value.len);
		/* Basic is another spelling of it. */
		space = s->header ? memchr(s->header_value.at, ' ', s->header_value.len) : NULL;
		if (space && strncmp(s->header_value.at, "Basic ", 6) == 0)
			kb_mask_add(mask, (const uint8_t *)space + 1,
				s->header_value.len - (size_t)(space + 1 - s->header_value.at));
	}
}
