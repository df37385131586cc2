#include "dirs.h"

#include <errno.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "fd.h"
#include "util.h"

static int put_path(char ret[PATH_MAX], struct kb_err *err, const char *fmt, ...) KB_PRINTF(3, 4);

static int put_path(char ret[PATH_MAX], struct kb_err *err, const char *fmt, ...)
{
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(ret, PATH_MAX, fmt, ap);
	va_end(ap);
	if (len < 0 || len >= PATH_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "a directory's path is too long");
	return 0;
}

static const char *absolute_env(const char *name)
{
	const char *value = getenv(name);

	return value && value[0] == '/' ? value : NULL;
}

static int find_home(struct kb_dirs *dirs, struct kb_err *err)
{
	const char *home = absolute_env("HOME");
	const struct passwd *pw = home ? NULL : getpwuid(getuid());

	if (!home && !pw)
		return kb_err_set(
			err, KB_ERR_FAILED, "uid %d has no home directory", (int)getuid());
	return put_path(dirs->home, err, "%s", home ? home : pw->pw_dir);
}

static bool is_dir(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int find_runtime(struct kb_dirs *dirs, struct kb_err *err)
{
	const char *xdg = absolute_env("XDG_RUNTIME_DIR");
	char user[64];

	if (xdg)
		return put_path(dirs->runtime, err, "%s/kbsup", xdg);
	snprintf(user, sizeof(user), "/run/user/%d", (int)getuid());
	if (is_dir(user))
		return put_path(dirs->runtime, err, "%s/kbsup", user);
	if (getuid() == 0)
		return put_path(dirs->runtime, err, "/run/kbsup");
	return put_path(dirs->runtime, err, "/tmp/kbsup-%d", (int)getuid());
}

static int find_xdg(char ret[PATH_MAX], const char *var, const char *home, const char *fallback,
	struct kb_err *err)
{
	const char *xdg = absolute_env(var);

	return xdg ? put_path(ret, err, "%s/kbsup", xdg)
		   : put_path(ret, err, "%s/%s/kbsup", home, fallback);
}

static int check_socket_path(const char *path, struct kb_err *err)
{
	const size_t max = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;

	if (strlen(path) <= max)
		return 0;
	kb_err_set(err, KB_ERR_LIMIT, "the control socket's path %s is longer than %zu bytes", path,
		max);
	return kb_err_hint(err, "set XDG_RUNTIME_DIR to a shorter directory");
}

int kb_dirs_find(struct kb_dirs *ret, struct kb_err *err)
{
	struct kb_dirs *d = ret;
	int r = find_home(d, err);

	if (r == 0)
		r = find_runtime(d, err);
	if (r == 0)
		r = find_xdg(d->state, "XDG_STATE_HOME", d->home, ".local/state", err);
	if (r == 0)
		r = find_xdg(d->config, "XDG_CONFIG_HOME", d->home, ".config", err);
	if (r == 0)
		r = put_path(d->store, err, "%s/store", d->state);
	if (r == 0)
		r = put_path(d->socket, err, "%s/control.sock", d->runtime);
	if (r == 0)
		r = put_path(d->vm, err, "%s/vm", d->state);
	if (r == 0)
		r = put_path(d->vm_run, err, "%s/vm", d->runtime);
	if (r == 0)
		r = check_socket_path(d->socket, err);
	return r;
}

int kb_dirs_make(const char *path, struct kb_err *err)
{
	struct stat st;
	int r = kb_mkdirs(path, 0700, err);

	if (r < 0)
		return r;
	if (lstat(path, &st) < 0)
		return kb_err_sys(err, errno, "directory %s cannot be examined", path);
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid()) {
		kb_err_set(err, KB_ERR_REFUSED, "directory %s is not ours: it %s", path,
			S_ISDIR(st.st_mode) ? "belongs to another user" : "is not a directory");
		return kb_err_hint(err, "remove it, or choose another with the XDG_* variables");
	}
	if ((st.st_mode & 077) != 0 && chmod(path, 0700) < 0)
		return kb_err_sys(err, errno, "directory %s cannot be closed to others", path);
	return 0;
}
