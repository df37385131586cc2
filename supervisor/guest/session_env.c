/* What a session's processes are told in their environment, besides what they were given. */
#include <stdio.h>
#include <string.h>

#include "supervisor/base/egress.h"
#include "supervisor/base/util.h"
#include "supervisor/guest/rootfs.h"
#include "supervisor/guest/session_private.h"
#include "supervisor/guest/trust.h"

/* What a session needs for a variable to be set. */
enum needs { NEEDS_NOTHING, NEEDS_NETWORK, NEEDS_TRUST };

static const struct {
	const char *name;
	const char *value; /* NULL: the session's name */
	enum needs needs;
} variables[] = {
	{"KBSUP_SESSION", NULL, NEEDS_NOTHING},
	{"KBSUP_FACTS", KB_ROOTFS_FACTS, NEEDS_NOTHING},
	{"http_proxy", KB_EGRESS_PROXY_URL, NEEDS_NETWORK},
	{"https_proxy", KB_EGRESS_PROXY_URL, NEEDS_NETWORK},
	{"HTTP_PROXY", KB_EGRESS_PROXY_URL, NEEDS_NETWORK},
	{"HTTPS_PROXY", KB_EGRESS_PROXY_URL, NEEDS_NETWORK},
	{"no_proxy", KB_EGRESS_NO_PROXY, NEEDS_NETWORK},
	{"NO_PROXY", KB_EGRESS_NO_PROXY, NEEDS_NETWORK},
	{"SSL_CERT_FILE", KB_TRUST_BUNDLE, NEEDS_TRUST},
	{"CURL_CA_BUNDLE", KB_TRUST_BUNDLE, NEEDS_TRUST},
	{"REQUESTS_CA_BUNDLE", KB_TRUST_BUNDLE, NEEDS_TRUST},
	{"PIP_CERT", KB_TRUST_BUNDLE, NEEDS_TRUST},
	{"GIT_SSL_CAINFO", KB_TRUST_BUNDLE, NEEDS_TRUST},
	{"CARGO_HTTP_CAINFO", KB_TRUST_BUNDLE, NEEDS_TRUST},
	{"AWS_CA_BUNDLE", KB_TRUST_BUNDLE, NEEDS_TRUST},
	{"DENO_CERT", KB_TRUST_BUNDLE, NEEDS_TRUST},
	{"NODE_EXTRA_CA_CERTS", KB_TRUST_OWN, NEEDS_TRUST},
};

_Static_assert(KB_ARRAY_LEN(variables) <= KB_OWN_VARIABLES, "room for all of them");

static bool has_variable(const Kb__ProcessSpec *spec, const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < spec->n_env; i++)
		if (spec->env[i].len > len && memcmp(spec->env[i].data, name, len) == 0 &&
			spec->env[i].data[len] == '=')
			return true;
	return false;
}

static bool applies(const struct kb_session *s, enum needs needs)
{
	return needs == NEEDS_NOTHING || (needs == NEEDS_NETWORK && s->egress) ||
	       (needs == NEEDS_TRUST && s->setup.trust);
}

size_t kb_session_own_env(const struct kb_session *s, const Kb__ProcessSpec *spec,
	struct kb_byte_string *env, char text[KB_OWN_VARIABLES][KB_OWN_VARIABLE_MAX])
{
	size_t n = spec->n_env;

	for (size_t i = 0; i < KB_ARRAY_LEN(variables); i++) {
		const char *value = variables[i].value ? variables[i].value : s->setup.name;

		if (!applies(s, variables[i].needs) || has_variable(spec, variables[i].name))
			continue;
		snprintf(text[i], KB_OWN_VARIABLE_MAX, "%s=%s", variables[i].name, value);
		env[n++] = (struct kb_byte_string){(const uint8_t *)text[i], strlen(text[i])};
	}
	return n;
}
