#include "programs.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "os.h"
#include "util.h"

/* In the build tree each program is in the folder of its source. */
static const struct {
	const char *name, *folder;
} built_in[] = {
	{"kbsupd", "daemon"},
	{"kbsup-guest", "guest"},
	{"kbsup-init", "init"},
	{"kbsup-machine", "../vmctl/guest"},
};

static bool try_path(char ret[PATH_MAX], const char *dir, const char *sub, const char *name)
{
	int len = snprintf(ret, PATH_MAX, "%s/%s%s", dir, sub, name);

	return len > 0 && len < PATH_MAX && access(ret, X_OK) == 0;
}

static bool try_build_tree(char ret[PATH_MAX], const char *dir, const char *up, const char *name)
{
	char sub[96];

	for (size_t i = 0; i < KB_ARRAY_LEN(built_in); i++) {
		if (strcmp(built_in[i].name, name) != 0)
			continue;
		snprintf(sub, sizeof(sub), "%s%s/", up, built_in[i].folder);
		return try_path(ret, dir, sub, name);
	}
	return false;
}

int kb_program_path(const char *name, char ret[PATH_MAX], struct kb_err *err)
{
	const char *override = getenv("KBSUP_LIBEXEC");
	char self[PATH_MAX];
	char *slash;

	if (override && override[0] == '/' && try_path(ret, override, "", name))
		return 0;
	if (kb_os_self_path(self, sizeof(self)) == 0 && (slash = strrchr(self, '/'))) {
		*slash = '\0';
		if (try_path(ret, self, "", name) || try_build_tree(ret, self, "../", name) ||
			try_path(ret, self, "../libexec/kbsup/", name))
			return 0;
	}
	if (try_path(ret, KB_LIBEXECDIR, "", name))
		return 0;
	kb_err_set(err, KB_ERR_NOTFOUND, "%s is not installed beside kbsup nor in %s", name,
		KB_LIBEXECDIR);
	return kb_err_hint(err, "install kbsup completely, or set KBSUP_LIBEXEC to the directory");
}

int kb_program_path_arch(const char *name, const char *arch, char ret[PATH_MAX], struct kb_err *err)
{
	const char *override = getenv("KBSUP_LIBEXEC");
	char self[PATH_MAX], sub[96], up[96];
	char *slash;

	snprintf(sub, sizeof(sub), "%.32s/", arch);
	if (override && override[0] == '/' && try_path(ret, override, sub, name))
		return 0;
	if (kb_os_self_path(self, sizeof(self)) == 0 && (slash = strrchr(self, '/'))) {
		*slash = '\0';
		snprintf(up, sizeof(up), "../../../%.32s/supervisor/", arch);
		if (try_build_tree(ret, self, up, name))
			return 0;
		snprintf(sub, sizeof(sub), "../libexec/kbsup/%.32s/", arch);
		if (try_path(ret, self, sub, name))
			return 0;
	}
	snprintf(sub, sizeof(sub), "%.32s/", arch);
	if (try_path(ret, KB_LIBEXECDIR, sub, name))
		return 0;
	kb_err_set(err, KB_ERR_NOTFOUND, "%s for %s is neither built nor installed", name, arch);
	return kb_err_hint(err, "build it: ./bootstrap guest %s", arch);
}
