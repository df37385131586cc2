/* The secrets of a session, from where the policy says they are to what only its broker reads.
 *
 * Values are read here, as the user, before the session starts. They are in memory that is locked
 * and left out of core files, go into a socket whose other end the supervisor passes on to the
 * broker, and are wiped. The session gets placeholders. */
#pragma once

#include "environment.h"
#include "policy/policy.h"

struct kb_secrets {
	int fd;		    /* to be handed to kb_client_run(); 0: there is nothing for a broker */
	char *trust;	    /* PEM of the session's own authority; NULL: it needs none */
	size_t n;	    /* secrets it has */
	const char **names; /* of them; the bundle's */
};

void kb_secrets_finish(struct kb_secrets *secrets);
/* The values that bundle asks for, and what the session's environment has in their place. A secret
 * that is not to be had is an error, unless the policy says if-available. */
int kb_secrets_take(const struct kb_bundle *bundle, const char *home,
	struct kb_environment *environment, struct kb_secrets *ret, struct kb_err *err);
/* Refuses --env NAME for what is a secret: it would copy the value into the session. */
int kb_secrets_check_env(
	const struct kb_bundle *bundle, const struct kb_args *args, struct kb_err *err);
