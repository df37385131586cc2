#include "environment.h"

#include <stdlib.h>
#include <string.h>

#include "cli.h"

void kb_environment_finish(struct kb_environment *env)
{
	for (size_t i = 0; i < env->len; i++)
		free(env->vars[i]);
	free(env->vars);
	*env = (struct kb_environment){0};
}

static char **find(const struct kb_environment *env, const char *name, size_t len)
{
	for (size_t i = 0; i < env->len; i++)
		if (!strncmp(env->vars[i], name, len) && env->vars[i][len] == '=')
			return &env->vars[i];
	return NULL;
}

void kb_environment_set(struct kb_environment *env, const char *var)
{
	char **old = find(env, var, strcspn(var, "=")), **grown;

	if (old) {
		free(*old);
		*old = kb_xstrdup(var);
		return;
	}
	grown = kb_xcalloc(env->len + 2, sizeof(*grown));
	if (env->len)
		memcpy(grown, env->vars, env->len * sizeof(*grown));
	free(env->vars);
	env->vars = grown;
	env->vars[env->len++] = kb_xstrdup(var);
}

void kb_environment_default(struct kb_environment *env, const char *name, const char *value)
{
	char *var KB_FREE = NULL;

	if (!value || find(env, name, strlen(name)))
		return;
	var = kb_xprintf("%s=%s", name, value);
	kb_environment_set(env, var);
}

const char *kb_environment_get(const struct kb_environment *env, const char *name)
{
	char **var = find(env, name, strlen(name));

	return var ? *var + strlen(name) + 1 : NULL;
}

void kb_environment_path(struct kb_environment *env, const char *const *dirs)
{
	char **old = find(env, "PATH", 4), *joined KB_FREE = kb_xstrdup("PATH=");

	if (!*dirs)
		return;
	for (; *dirs; dirs++) {
		char *longer = kb_xprintf("%s%s%s", joined, *dirs, dirs[1] || old ? ":" : "");

		free(joined);
		joined = longer;
	}
	if (old) {
		char *longer = kb_xprintf("%s%s", joined, *old + strlen("PATH="));

		free(joined);
		joined = longer;
	}
	kb_environment_set(env, joined);
}

int kb_environment_options(
	struct kb_environment *env, const struct kb_args *args, struct kb_err *err)
{
	const char *given, *value;

	for (size_t i = 0; (given = kb_args_value_at(args, "env", i)); i++) {
		char *var KB_FREE = NULL;

		if (strchr(given, '=')) {
			kb_environment_set(env, given);
			continue;
		}
		value = getenv(given);
		if (!value) {
			kb_err_set(
				err, KB_ERR_USAGE, "--env %s: the variable is not set here", given);
			return kb_err_hint(err, "set it, or write --env %s=VALUE", given);
		}
		var = kb_xprintf("%s=%s", given, value);
		kb_environment_set(env, var);
	}
	return 0;
}
