#include "workspace.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "supervisor/base/util.h"

/* Is path the same as, or beneath, top? Both resolved. */
static bool beneath(const char *path, const char *top)
{
	size_t len = strlen(top);

	if (!strcmp(top, "/"))
		return true;
	return !strncmp(path, top, len) && (path[len] == '/' || !path[len]);
}

static int check_directory(const char *shown, const char *path, struct kb_err *err)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return kb_err_sys(err, errno, "the workspace %s cannot be read", shown);
	if (S_ISDIR(st.st_mode))
		return 0;
	kb_err_set(err, KB_ERR_FAILED, "the workspace %s is not a directory", shown);
	return kb_err_hint(err, "name the project's directory with --workspace DIR");
}

/* As realpath(3), for a path whose last parts may not be there yet. */
static bool resolve(const char *path, char ret[PATH_MAX])
{
	char parent[PATH_MAX], *slash;
	size_t len;

	if (realpath(path, ret))
		return true;
	if (errno != ENOENT || snprintf(parent, sizeof(parent), "%s", path) >= (int)sizeof(parent))
		return false;
	slash = strrchr(parent, '/');
	if (!slash || slash == parent)
		return false;
	*slash = '\0';
	if (!resolve(parent, ret))
		return false;
	len = strlen(ret);
	return snprintf(ret + len, PATH_MAX - len, "/%s", slash + 1) < (int)(PATH_MAX - len);
}

static int check_home(const char *path, const char *home, struct kb_err *err)
{
	char resolved[PATH_MAX];

	if (!strcmp(path, "/")) {
		kb_err_set(err, KB_ERR_REFUSED,
			"the root directory cannot be a workspace: the agent "
			"could write everything");
		return kb_err_hint(err, "go to a project's directory, or name it with --workspace");
	}
	if (!resolve(home, resolved) || !beneath(resolved, path))
		return 0;
	if (!strcmp(resolved, path))
		kb_err_set(err, KB_ERR_REFUSED,
			"your home directory cannot be a workspace: the agent "
			"could read and write all of it");
	else
		kb_err_set(err, KB_ERR_REFUSED,
			"%s cannot be a workspace: it holds your home directory", path);
	return kb_err_hint(err, "go to a project's directory, or name it with --workspace");
}

/* The agent must reach neither the record of what it does, nor its own policy, nor the supervisor.
 * Where a workspace merely contains one of them, the machine hides it from the session. */
static int check_own_files(const char *path, const struct kb_dirs *dirs, struct kb_err *err)
{
	const struct {
		const char *dir, *what;
	} own[] = {
		{dirs->state, "the audit store"},
		{dirs->config, "your policies"},
		{dirs->runtime, "the supervisor's socket"},
	};
	char resolved[PATH_MAX];

	for (size_t i = 0; i < KB_ARRAY_LEN(own); i++) {
		if (!resolve(own[i].dir, resolved) || !beneath(path, resolved))
			continue;
		kb_err_set(err, KB_ERR_REFUSED,
			"%s cannot be a workspace: %s is in %s, out of the agent's reach", path,
			own[i].what, resolved);
		return kb_err_hint(err, "go to a project's directory, or name it with --workspace");
	}
	return 0;
}

int kb_workspace_find(
	const char *named, const struct kb_dirs *dirs, char ret[PATH_MAX], struct kb_err *err)
{
	int r;

	if (named && !*named) {
		kb_err_set(err, KB_ERR_USAGE, "the workspace has an empty name");
		return kb_err_hint(err, "name a directory, or leave --workspace out");
	}
	if (!realpath(named ? named : ".", ret)) {
		kb_err_sys(err, errno, "the workspace %s cannot be used", named ? named : ".");
		return kb_err_hint(err, "name an existing directory with --workspace DIR");
	}
	r = check_directory(named ? named : ret, ret, err);
	if (r == 0)
		r = check_home(ret, dirs->home, err);
	return r < 0 ? r : check_own_files(ret, dirs, err);
}

int kb_workspace_policy(const char *workspace, char ret[PATH_MAX], struct kb_err *err)
{
	struct stat st;
	int n = snprintf(ret, PATH_MAX, "%s/" KB_WORKSPACE_POLICY, workspace);

	if (n < 0 || n >= PATH_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "the workspace's path is too long");
	if (lstat(ret, &st) < 0) {
		if (errno != ENOENT)
			return kb_err_sys(err, errno, "%s cannot be examined", ret);
		ret[0] = '\0';
		return 0;
	}
	if (S_ISREG(st.st_mode))
		return 0;
	kb_err_set(err, KB_ERR_REFUSED, "the workspace's policy %s is not a plain file", ret);
	return kb_err_hint(err, "look at what it is, then remove it");
}
