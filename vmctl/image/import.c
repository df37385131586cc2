/* An image made elsewhere: the disk of a cloud image, whole and raw. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "image.h"
#include "supervisor/base/fd.h"
#include "vmctl/files.h"

#define CONVERT_MS   1800000
#define NEEDED_BYTES (3ull << 30) /* of what it holds, and what its set-up adds */
#define SIZE_STEP    (1ull << 20)

static int read_head(const char *path, struct kb_image_head *ret, struct kb_err *err)
{
	KB_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t bytes[KB_IMAGE_HEAD];
	struct stat st;
	ssize_t n;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return kb_err_sys(err, errno, "%s cannot be read", path);
	if (!S_ISREG(st.st_mode))
		return kb_err_set(err, KB_ERR_USAGE, "%s is no file with an image", path);
	n = pread(fd, bytes, sizeof(bytes), 0);
	if (n < 0)
		return kb_err_sys(err, errno, "%s cannot be read", path);
	r = kb_image_head_read(bytes, (size_t)n, ret, err);
	if (r < 0)
		return kb_err_prefix(err, "%s is no image to make a base from", path);
	if (!ret->qcow2)
		ret->size = (uint64_t)st.st_size;
	return 0;
}

/* What is asked for, but never less than the image is: the rest is for its root to grow into. */
static int disk_size(const struct kb_image *image, const struct kb_image_head *head, uint64_t *ret,
	struct kb_err *err)
{
	uint64_t wanted = image->spec->disk_bytes;

	if (wanted && wanted < head->size)
		return kb_err_set(err, KB_ERR_USAGE,
			"the image is %llu MiB large, which is more than --size",
			(unsigned long long)(head->size >> 20));
	*ret = KB_MAX(wanted ? wanted : KB_VM_DISK_BYTES, head->size);
	*ret = (*ret + SIZE_STEP - 1) / SIZE_STEP * SIZE_STEP;
	return 0;
}

int kb_image_import(const struct kb_image *image, struct kb_err *err)
{
	KB_FREE char *root = kb_asprintf("%s/root.img", image->dir);
	struct kb_image_head head;
	char from[PATH_MAX];
	uint64_t size = 0;
	int r;

	if (!root)
		return kb_err_nomem(err);
	/* An absolute path is never taken for one of QEMU's "protocol:" names. */
	if (!realpath(image->spec->from, from))
		return kb_err_sys(err, errno, "%s", image->spec->from);
	if ((r = read_head(from, &head, err)) < 0 ||
		(r = disk_size(image, &head, &size, err)) < 0 ||
		(r = kb_space_check(image->dir, NEEDED_BYTES, err)) < 0)
		return r;
	kb_op_progress(image->vm, "image", "copying the image");
	const char *const argv[] = {"qemu-img", "convert", "-f", head.qcow2 ? "qcow2" : "raw", "-O",
		"raw", from, root, NULL};
	if ((r = kb_op_run(image->vm, "image", argv, CONVERT_MS, err)) < 0)
		return r;
	if (chmod(root, 0600) < 0 || truncate(root, (off_t)size) < 0)
		return kb_err_sys(err, errno, "%s", root);
	return 0;
}
