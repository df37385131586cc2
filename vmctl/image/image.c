/* The image of a base, in whichever way it is made. */
#include "image.h"

#include <stdio.h>
#include <string.h>

#include "supervisor/base/fd.h"
#include "vmctl/driver/qemu.h"
#include "vmctl/files.h"
#include "vmctl/programs.h"

#define DEFAULT_SUITE "bookworm"
#define DEFAULT_USER  "dev"

int kb_image_write(
	const struct kb_image *image, const char *name, const char *text, struct kb_err *err)
{
	char path[PATH_MAX];
	int r = kb_vm_path(image->vm, path, err, "%s/%s", image->dir, name);

	return r < 0 ? r : kb_file_write_atomic(path, text, strlen(text), 0644, err);
}

int kb_image_put_program(
	const struct kb_image *image, const char *folder, const char *name, struct kb_err *err)
{
	KB_FREE char *to = kb_asprintf("%s/%s/%s", image->dir, folder, name);
	char from[PATH_MAX];
	int r = kb_program_for(image->vm, image->arch, name, from, err);

	if (r < 0 || !*from)
		return r;
	return to ? kb_file_copy(from, to, 0700, err) : kb_err_nomem(err);
}

/* Debian's rule for package names. */
static bool package_valid(const char *name)
{
	return strlen(name) >= 2 && *name != '-' &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789.+-") == strlen(name);
}

static int check_packages(const char *const *packages, struct kb_err *err)
{
	for (size_t i = 0; packages && packages[i]; i++) {
		if (i == KB_BASE_PACKAGES_MAX)
			return kb_err_set(err, KB_ERR_LIMIT,
				"a base takes at most %d further packages", KB_BASE_PACKAGES_MAX);
		if (!package_valid(packages[i]))
			return kb_err_set(
				err, KB_ERR_USAGE, "%s is not the name of a package", packages[i]);
	}
	return 0;
}

int kb_image_init(struct kb_image *image, struct kb_vmctl *vm, const struct kb_base_spec *spec,
	const char *dir, struct kb_err *err)
{
	int r;

	*image = (struct kb_image){.vm = vm,
		.spec = spec,
		.dir = dir,
		.firmware = spec->from != NULL,
		.user = spec->user ? spec->user : DEFAULT_USER,
		.suite = spec->suite ? spec->suite : DEFAULT_SUITE};
	if (!kb_name_valid(image->user))
		return kb_err_set(
			err, KB_ERR_USAGE, "%s is not a name for an account", image->user);
	if (!kb_name_valid(image->suite))
		return kb_err_set(err, KB_ERR_USAGE, "%s is not a name for a suite", image->suite);
	r = check_packages(spec->packages, err);
	return r < 0 ? r : kb_arch_find(spec->arch, &image->arch, err);
}

int kb_image_words(const struct kb_image *image, json_t **ret, struct kb_err *err)
{
	const struct kb_base_spec *spec = image->spec;
	struct kb_qemu_shape shape = {.arch = image->arch->name,
		.accel = kb_qemu_accel(image->vm, image->arch->name),
		.firmware = image->firmware,
		.memory_mib = spec->memory_mib ? spec->memory_mib : KB_VM_MEMORY_MIB,
		.cpus = spec->cpus ? spec->cpus : KB_VM_CPUS};

	return kb_qemu_shape_words(&shape, ret, err);
}

static void remove_scraps(const struct kb_image *image)
{
	static const char *const scraps[] = {"setup.sh", "finish.sh", "pack.sh", "foreign.sh",
		"authorized-key", "recipe", "programs", "seed", "root.qcow2", "qemu.log"};

	for (size_t i = 0; i < KB_ARRAY_LEN(scraps); i++) {
		KB_FREE char *path = kb_asprintf("%s/%s", image->dir, scraps[i]);

		if (path && unlink(path) < 0)
			kb_rmtree(path, NULL);
	}
}

int kb_image_make(struct kb_image *image, struct kb_err *err)
{
	const struct kb_base_spec *spec = image->spec;
	int r;

	/* First what may be wrong with what is asked for: the rest takes minutes. */
	if ((r = kb_image_dotfiles(image, err)) < 0 ||
		(r = spec->from ? kb_image_import(image, err) : kb_image_build(image, err)) < 0)
		return r;
	if (spec->from || spec->dotfiles)
		r = kb_image_provision(image, err);
	if (r == 0)
		remove_scraps(image);
	return r;
}
