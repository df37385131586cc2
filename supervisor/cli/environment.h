/* The environment a session's process gets. */
#pragma once

#include <stddef.h>

#include "args.h"

/* "K=V" strings, a later one replacing an earlier one of the same name. */
struct kb_environment {
	char **vars; /* NULL-terminated once something was set */
	size_t len;
};

void kb_environment_finish(struct kb_environment *env);
/* "K=V" */
void kb_environment_set(struct kb_environment *env, const char *var);
/* Only when the name is not there yet. */
void kb_environment_default(struct kb_environment *env, const char *name, const char *value);
/* The value of a variable; NULL: it is not there. */
const char *kb_environment_get(const struct kb_environment *env, const char *name);
/* Directories (NULL-terminated) that come first in PATH. */
void kb_environment_path(struct kb_environment *env, const char *const *dirs);
/* What --env says: K=V as it is, K from our own environment. */
int kb_environment_options(
	struct kb_environment *env, const struct kb_args *args, struct kb_err *err);
#define KB_ENVIRONMENT_CLEANUP KB_CLEANUP(kb_environment_finish)
