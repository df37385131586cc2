#include "secrets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli.h"
#include "proto/role.pb-c.h"
#include "secret_source.h"
#include "session_authority.h"
#include "supervisor/base/egress.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/guarded.h"

#define TOGETHER_MAX (64u << 10) /* fits a socket, so that writing it never waits */
#define MEMORY	     (2u << 20)

struct taking {
	const struct kb_secret *secrets;
	size_t n;
	struct kb_guarded memory;
	Kb__Role__SecretValue values[KB_SECRETS_MAX], *refs[KB_SECRETS_MAX];
	Kb__Role__Secrets message;
};

void kb_secrets_finish(struct kb_secrets *secrets)
{
	if (secrets->fd > 0)
		close(secrets->fd);
	free(secrets->trust);
	free(secrets->names);
	*secrets = (struct kb_secrets){0};
}

/* ---- The session's environment --------------------------------------------------------------- */

static void set_placeholder(struct kb_environment *env, const struct kb_secret *secret)
{
	char *var KB_FREE = kb_xprintf("%s=%s", secret->name, secret->placeholder);

	kb_environment_set(env, var);
}

/* The proxy would take one request for each connection: straight to the relay, then. */
static void set_no_proxy(struct kb_environment *env, const char *host)
{
	static const char *const names[] = {"no_proxy", "NO_PROXY"};

	for (size_t i = 0; i < KB_ARRAY_LEN(names); i++) {
		const char *old = kb_environment_get(env, names[i]);
		char *var KB_FREE =
			kb_xprintf("%s=%s,%s", names[i], old ? old : KB_EGRESS_NO_PROXY, host);

		kb_environment_set(env, var);
	}
}

static void set_url(struct kb_environment *env, const struct kb_secret *secret)
{
	const struct kb_endpoint *e = &secret->endpoints[0];
	const char *open = strchr(e->host, ':') ? "[" : "", *close = open[0] ? "]" : "";
	char *var KB_FREE = NULL;

	if (!secret->url)
		return;
	var = kb_xprintf("%s=http://%s%s%s:%u%s", secret->url, open, e->host, close, e->port,
		secret->url_path ? secret->url_path : "");
	kb_environment_set(env, var);
	set_no_proxy(env, e->host);
}

/* ---- Taking ---------------------------------------------------------------------------------- */

static int take_one(struct taking *t, const struct kb_secret *secret, const char *home,
	struct kb_environment *env, struct kb_secrets *ret, struct kb_err *err)
{
	Kb__Role__SecretValue *value = &t->values[t->message.n_values];
	char *data = kb_guarded_alloc(&t->memory, KB_SECRET_VALUE_MAX);
	size_t len;
	int r;

	if (!data)
		return kb_err_set(err, KB_ERR_LIMIT, "the policy has too many secrets");
	r = kb_secret_read(secret, home, data, &len, err);
	if (r == -KB_ERR_NOTFOUND && secret->optional)
		return 0;
	if (r < 0)
		return r;
	kb__role__secret_value__init(value);
	value->name = (char *)secret->name;
	value->value = (ProtobufCBinaryData){.data = (uint8_t *)data, .len = len};
	t->refs[t->message.n_values++] = value;
	ret->names[ret->n++] = secret->name;
	set_placeholder(env, secret);
	set_url(env, secret);
	return 0;
}

static int make_authority(struct taking *t, struct kb_secrets *ret, struct kb_err *err)
{
	struct kb_session_authority authority;
	int r = kb_session_authority_make(&t->memory, &authority, err);

	ret->trust = authority.pem;
	t->message.has_authority_key = t->message.has_authority_cert = 1;
	t->message.authority_key =
		(ProtobufCBinaryData){.data = authority.key, .len = authority.key_len};
	t->message.authority_cert =
		(ProtobufCBinaryData){.data = authority.cert, .len = authority.cert_len};
	return r;
}

/* ---- Handing over ---------------------------------------------------------------------------- */

static int hand_over(struct taking *t, int *ret, struct kb_err *err)
{
	size_t len = kb__role__secrets__get_packed_size(&t->message);
	uint8_t *blob = len <= TOGETHER_MAX ? kb_guarded_alloc(&t->memory, len + 1) : NULL;
	KB_CLOSE int ours = -1;
	KB_CLOSE int theirs = -1;
	int pair[2], r;

	if (!blob)
		return kb_err_set(err, KB_ERR_LIMIT,
			"the secrets have %zu bytes together, more than %u", len, TOGETHER_MAX);
	kb__role__secrets__pack(&t->message, blob);
	r = kb_fd_socketpair(false, pair, err);
	if (r < 0)
		return r;
	ours = pair[0];
	theirs = pair[1];
	if (send(ours, blob, len, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)len)
		return kb_err_sys(err, errno, "the secrets cannot be handed over");
	r = kb_fd_nonblock(theirs, err);
	if (r == 0)
		*ret = kb_steal_fd(&theirs);
	return r;
}

static int take_all(struct taking *t, const struct kb_bundle *bundle, const char *home,
	struct kb_environment *env, struct kb_secrets *ret, struct kb_err *err)
{
	int r = 0;

	kb__role__secrets__init(&t->message);
	t->message.values = t->refs;
	for (size_t i = 0; i < t->n && r == 0; i++)
		r = take_one(t, &t->secrets[i], home, env, ret, err);
	if (r == 0 && kb_bundle_intercepts(bundle))
		r = make_authority(t, ret, err);
	if (r == 0)
		r = hand_over(t, &ret->fd, err);
	return r;
}

int kb_secrets_take(const struct kb_bundle *bundle, const char *home,
	struct kb_environment *environment, struct kb_secrets *ret, struct kb_err *err)
{
	struct taking t = {0};
	int r;

	t.n = kb_bundle_secrets(bundle, &t.secrets);
	*ret = (struct kb_secrets){0};
	if (t.n == 0 && !kb_bundle_intercepts(bundle))
		return 0;
	ret->names = kb_xcalloc(t.n + 1, sizeof(*ret->names));
	r = kb_guarded_init(&t.memory, MEMORY, err);
	if (r == 0)
		r = take_all(&t, bundle, home, environment, ret, err);
	kb_guarded_finish(&t.memory);
	for (size_t i = 0; i < t.n && r == 0; i++)
		kb_secret_forget(&t.secrets[i]);
	if (r < 0)
		kb_secrets_finish(ret);
	return r;
}

int kb_secrets_check_env(
	const struct kb_bundle *bundle, const struct kb_args *args, struct kb_err *err)
{
	const struct kb_secret *secrets;
	size_t n = kb_bundle_secrets(bundle, &secrets);
	const char *given;

	for (size_t i = 0; (given = kb_args_value_at(args, "env", i)); i++)
		for (size_t j = 0; j < n; j++) {
			if (strcmp(given, secrets[j].name) != 0)
				continue;
			kb_err_set(err, KB_ERR_USAGE,
				"--env %s: it is a secret of the policy, and stays on the host",
				given);
			return kb_err_hint(err,
				"leave it out: the session has a placeholder; or write --env "
				"%s=VALUE to give it a value of its own",
				given);
		}
	return 0;
}
