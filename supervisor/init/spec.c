#include "supervisor/init/spec.h"

#include <stdlib.h>
#include <string.h>

static bool counts_valid(const struct kb_init_spec *h, size_t len)
{
	return h->magic == KB_INIT_SPEC_MAGIC && h->version == KB_INIT_PROTOCOL && h->size == len &&
	       h->n_rlimits <= KB_INIT_RLIMITS_MAX && h->n_landlock <= KB_INIT_LANDLOCK_MAX &&
	       h->n_filters >= 1 && h->n_filters <= KB_INIT_FILTERS_MAX && h->n_argv >= 1 &&
	       h->n_argv <= KB_INIT_STRINGS_MAX && h->n_env <= KB_INIT_STRINGS_MAX - h->n_argv &&
	       h->strings <= KB_INIT_SPEC_MAX &&
	       (h->flags & ~(KB_SPEC_TTY | KB_SPEC_LISTENER)) == 0;
}

/* With every count bounded, none of these products can overflow. */
static bool sizes_match(const struct kb_init_spec *h, size_t len)
{
	return sizeof(*h) + h->n_rlimits * sizeof(struct kb_init_rlimit) +
		       h->n_landlock * sizeof(struct kb_init_landlock) +
		       h->n_filters * sizeof(struct sock_filter) + h->strings ==
	       len;
}

/* The next NUL-terminated string, or NULL when there is none. */
static const char *take_string(const char **at, const char *end)
{
	const char *s = *at;
	const char *nul = memchr(s, '\0', (size_t)(end - s));

	if (!nul)
		return NULL;
	*at = nul + 1;
	return s;
}

static bool take_strings(const char **at, const char *end, size_t n, const char **ret)
{
	for (size_t i = 0; i < n; i++) {
		ret[i] = take_string(at, end);
		if (!ret[i])
			return false;
	}
	return true;
}

static bool parse_strings(struct kb_spec *spec, const char *at, const char *end)
{
	const struct kb_init_spec *h = spec->header;
	char **argv = calloc(h->n_argv + 2, sizeof(*argv));

	spec->argv = argv ? argv + 1 : NULL;
	spec->env = calloc(h->n_env + 1, sizeof(*spec->env));
	spec->landlock_paths = calloc(h->n_landlock + 1, sizeof(*spec->landlock_paths));
	if (!spec->argv || !spec->env || !spec->landlock_paths)
		return false;
	spec->cwd = take_string(&at, end);
	return spec->cwd && take_strings(&at, end, h->n_argv, (const char **)spec->argv) &&
	       take_strings(&at, end, h->n_env, (const char **)spec->env) &&
	       take_strings(&at, end, h->n_landlock, spec->landlock_paths) && at == end &&
	       spec->argv[0][0] != '\0' && spec->cwd[0] == '/';
}

bool kb_spec_parse(const void *data, size_t len, struct kb_spec *ret)
{
	const struct kb_init_spec *h = data;
	struct kb_spec spec = {.header = h};
	const char *strings;

	if (len < sizeof(*h) || len > KB_INIT_SPEC_MAX || !counts_valid(h, len) ||
		!sizes_match(h, len))
		return false;
	spec.rlimits = (const struct kb_init_rlimit *)(h + 1);
	spec.landlock = (const struct kb_init_landlock *)(spec.rlimits + h->n_rlimits);
	spec.filters = (const struct sock_filter *)(spec.landlock + h->n_landlock);
	strings = (const char *)(spec.filters + h->n_filters);
	if (!parse_strings(&spec, strings, strings + h->strings)) {
		kb_spec_finish(&spec);
		return false;
	}
	*ret = spec;
	return true;
}

void kb_spec_finish(struct kb_spec *spec)
{
	if (spec->argv)
		free(spec->argv - 1);
	free(spec->env);
	free(spec->landlock_paths);
	*spec = (struct kb_spec){0};
}
