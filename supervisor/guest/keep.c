/* Each kept tree is a directory of its own beside the others, named after its path. What sessions
 * left in one tree therefore never decides where another one is looked for. */
#include "supervisor/guest/keep.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/base/dirs.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

/* '/' and '%' as %2f and %25; false when the name is too long. */
static bool encode(const char *path, char ret[NAME_MAX + 1])
{
	size_t len = 0;

	for (; *path; path++) {
		const char *code = *path == '/' ? "%2f" : *path == '%' ? "%25" : NULL;
		size_t n = code ? 3 : 1;

		if (len + n > NAME_MAX)
			return false;
		memcpy(ret + len, code ? code : path, n);
		len += n;
	}
	ret[len] = '\0';
	return len > 0;
}

static bool make_name(const char *home, const char *path, char ret[NAME_MAX + 1])
{
	size_t len = strlen(home);
	KB_FREE char *in_home = NULL;

	if (strncmp(path, home, len) != 0 || path[len] != '/')
		return encode(path, ret);
	in_home = kb_asprintf("~%s", path + len);
	return in_home && encode(in_home, ret);
}

int kb_keep_open(
	const char *profile, const char *home, const char *path, int *ret_fd, struct kb_err *err)
{
	char name[NAME_MAX + 1];
	KB_CLOSE int dir = -1;
	int fd, r;

	if (!make_name(home, path, name))
		return kb_err_set(err, KB_ERR_LIMIT, "%s is too long a path to be kept", path);
	r = kb_dirs_make(profile, err);
	if (r < 0)
		return r;
	dir = open(profile, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0)
		return kb_err_sys(err, errno, "the agent's profile cannot be opened");
	if (mkdirat(dir, name, 0700) < 0 && errno != EEXIST)
		return kb_err_sys(err, errno, "%s cannot be kept", path);
	fd = openat(dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return kb_err_sys(err, errno, "what is kept of %s cannot be opened", path);
	*ret_fd = fd;
	return 0;
}
