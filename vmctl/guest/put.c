/* Files the host brings along: programs of its own build. */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/util.h"

static int write_part(const char *part, const json_t *request, struct kb_err *err)
{
	const char *hex = json_string_value(json_object_get(request, "data"));
	KB_FREE uint8_t *bytes = malloc(KBM_PUT_MAX);
	bool first = json_is_true(json_object_get(request, "first"));
	KB_CLOSE int fd = -1;
	int n;

	if (!hex || !bytes)
		return kb_err_set(err, KB_ERR_INVALID, "data is missing");
	n = kbm_unhex(hex, bytes, KBM_PUT_MAX, err);
	if (n < 0)
		return n;
	fd = open(part, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | (first ? O_TRUNC : O_APPEND),
		0700);
	if (fd < 0)
		return kb_err_sys(err, errno, "%s cannot be written", part);
	return kb_fd_write_all(fd, bytes, (size_t)n, err);
}

/* {"op":"put","path":…,"first":true,"data":"<hex>","last":true,"mode":493}: appears whole, with its
 * last part. */
int kbm_put(const json_t *request, json_t *reply, struct kb_err *err)
{
	mode_t mode = (mode_t)json_integer_value(json_object_get(request, "mode")) & 0777;
	const char *path;
	char part[PATH_MAX];
	int r = kbm_string(request, "path", &path, err);

	if (r < 0)
		return r;
	if (path[0] != '/' || snprintf(part, sizeof(part), "%s.part", path) >= (int)sizeof(part))
		return kb_err_set(err, KB_ERR_INVALID, "path must be absolute");
	r = write_part(part, request, err);
	if (r < 0) {
		unlink(part);
		return r;
	}
	if (json_is_true(json_object_get(request, "last")) &&
		(chmod(part, mode) < 0 || rename(part, path) < 0))
		return kb_err_sys(err, errno, "%s cannot be put in place", path);
	return 0;
}
