/* The hosts of a user's package registries, from what npm, pip, cargo, apt and go are configured
 * for: variables, configuration files, and, where those are silent, the program itself. Files of a
 * workspace are never asked: they are the agent's to write.
 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "supervisor/base/err.h"

#define KB_REGISTRY_HOSTS_MAX 32

struct kb_registry_hosts {
	char *hosts[KB_REGISTRY_HOSTS_MAX + 1]; /* "host:port", NULL-terminated, no doubles */
	size_t n;
	bool complete; /* the kind's main setting was among what was read */
};

void kb_registry_hosts_finish(struct kb_registry_hosts *hosts);

/* Add the hosts that a configuration file of this kind ("@npm-registry" …) names. Foreign text. */
void kb_registry_scan(const char *kind, const char *text, struct kb_registry_hosts *ret);

/* The answers for one run of kbsup: each kind is looked for once, when it is asked for. */
struct kb_registries {
	char home[PATH_MAX];
	char config[PATH_MAX]; /* $XDG_CONFIG_HOME or ~/.config */
	char cache[PATH_MAX];  /* remembered answers of programs */
	struct {
		bool asked;
		struct kb_registry_hosts hosts;
		char from[PATH_MAX]; /* where the last of them came from */
	} kinds[8];
};

struct kb_dirs;
void kb_registries_init(struct kb_registries *registries, const struct kb_dirs *dirs);
/* For struct kb_policy_options.find_hosts; arg: struct kb_registries. */
const char *const *kb_registries_find(void *arg, const char *group, const char **ret_why);
/* Where the hosts of this kind came from; "" when they cannot be told. */
const char *kb_registries_from(struct kb_registries *registries, const char *group);
void kb_registries_finish(struct kb_registries *registries);
