/* A base's root image from Debian's packages, without root where user namespaces allow. */
#include "image.h"
#include "supervisor/base/fd.h"
#include "vmctl/driver/qemu.h"
#include "vmctl/files.h"

#define NEEDED_BYTES (4ull << 30) /* while building; what stays is sparse */
#define PROBE_MS     20000

static const struct {
	const char *program, *package;
	bool for_user; /* who is not root */
} needed[] = {
	{"mmdebstrap", "mmdebstrap", false},
	{"mke2fs", "e2fsprogs", false},
	{"debugfs", "e2fsprogs", false},
	{"zstd", "zstd", false},
	{"tar", "tar", false},
	{"unshare", "util-linux", false},
	{"newuidmap", "uidmap", true},
	{"qemu-img", "qemu-utils", false},
};

/* Whether it can be built here, found before minutes are spent. */
static int check(const struct kb_image *image, struct kb_err *err)
{
	static const char *const nothing[] = {"true", NULL};
	char path[PATH_MAX];
	int r = 0;

	for (size_t i = 0; r == 0 && i < KB_ARRAY_LEN(needed); i++)
		if (!needed[i].for_user || geteuid() != 0)
			r = kb_op_program(needed[i].program, path, needed[i].package, err);
	if (r < 0 || (r = kb_qemu_program(image->arch->name, path, err)) < 0 ||
		(r = kb_image_probe_root(image->vm, err)) < 0)
		return r;
	if (!kb_arch_is_native(image->arch))
		r = kb_image_run(image, NULL, nothing, PROBE_MS, err);
	return r < 0 ? r : kb_space_check(image->dir, NEEDED_BYTES, err);
}

int kb_image_build(struct kb_image *image, struct kb_err *err)
{
	char tar[PATH_MAX];
	KB_CLOSE int lock = -1;
	int r = check(image, err);

	if (r == 0)
		r = kb_packages_get(image, tar, &lock, err);
	return r < 0 ? r : kb_image_pack(image, tar, err);
}
