/* Building a base: its image, its template, and which generation is the current one. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base.h"
#include "driver/qemu.h"
#include "files.h"
#include "image/image.h"
#include "machine.h"
#include "programs.h"
#include "supervisor/base/fd.h"

static int write_manifest(const struct kb_image *image, unsigned generation, struct kb_err *err)
{
	const struct kb_base_spec *spec = image->spec;
	KB_JSON json_t *words = NULL, *json = NULL;
	char path[PATH_MAX];
	int r;

	if ((r = kb_image_words(image, &words, err)) < 0 ||
		(r = kb_vm_path(image->vm, path, err, "%s/base.json", image->dir)) < 0)
		return r;
	json = json_pack("{s:s, s:I, s:I, s:s, s:s, s:b, s:I, s:I, s:s, s:O}", "name", spec->name,
		"generation", (json_int_t)generation, "created_ns", (json_int_t)kb_now_real(),
		"user", image->user, "arch", image->arch->name, "firmware", image->firmware,
		"memory_mib", (json_int_t)(spec->memory_mib ? spec->memory_mib : KB_VM_MEMORY_MIB),
		"cpus", (json_int_t)(spec->cpus ? spec->cpus : KB_VM_CPUS), "accel",
		kb_qemu_accel(image->vm, image->arch->name), "words", words);
	if (!json)
		return kb_err_nomem(err);
	json_object_set_new(json, spec->from ? "from" : "suite",
		json_string(spec->from ? spec->from : image->suite));
	if (*image->vm->guest_program && *image->vm->init_program &&
		(r = kb_programs_note(image->vm, image->arch, json, err)) < 0)
		return r;
	return kb_json_save(path, json, err);
}

static unsigned next_generation(struct kb_vmctl *vm, const char *name)
{
	char path[PATH_MAX];
	unsigned n = kb_base_generation(vm, name);

	do
		n++;
	while (kb_vm_path(vm, path, NULL, "%s/bases/%s/%u", vm->state, name, n) == 0 &&
		access(path, F_OK) == 0);
	return n;
}

static int make_current(struct kb_vmctl *vm, const struct kb_base *base, struct kb_err *err)
{
	char target[16], made[PATH_MAX], path[PATH_MAX];
	int r;

	snprintf(target, sizeof(target), "%u", base->generation);
	if ((r = kb_vm_path(vm, made, err, "%s/bases/%s/.current", vm->state, base->name)) < 0 ||
		(r = kb_vm_path(vm, path, err, "%s/bases/%s/current", vm->state, base->name)) < 0)
		return r;
	unlink(made);
	if (symlink(target, made) < 0 || rename(made, path) < 0)
		return kb_err_sys(err, errno, "%s cannot be set", path);
	return 0;
}

/* Generation N in place, whole but for its template. */
static int make_generation(struct kb_vmctl *vm, const struct kb_base_spec *spec,
	unsigned generation, char ret_dir[PATH_MAX], struct kb_err *err)
{
	char dir[PATH_MAX], parent[PATH_MAX];
	struct kb_image image;
	KB_CLOSE int lock = -1;
	int r = kb_tmp_create(vm, dir, &lock, err);

	if (r < 0)
		return r;
	if ((r = kb_image_init(&image, vm, spec, dir, err)) == 0 &&
		(r = kb_image_make(&image, err)) == 0 &&
		(r = write_manifest(&image, generation, err)) == 0 &&
		(r = kb_vm_path(vm, parent, err, "%s/bases/%s", vm->state, spec->name)) == 0 &&
		(r = kb_mkdirs(parent, 0700, err)) == 0 &&
		(r = kb_vm_path(vm, ret_dir, err, "%s/%u", parent, generation)) == 0)
		r = kb_dir_publish(dir, ret_dir, err);
	if (r < 0)
		kb_tree_drop(vm, dir);
	return r;
}

int kb_base_create(struct kb_vmctl *vm, const struct kb_base_spec *spec, struct kb_err *err)
{
	struct kb_base base KB_CLEANUP(kb_base_finish) = {0};
	char dir[PATH_MAX] = "", parent[PATH_MAX];
	KB_CLOSE int lock = -1;
	unsigned generation;
	int r;

	if ((r = kb_base_lock(vm, spec->name, &lock, err)) < 0 ||
		(r = kb_vm_path(vm, parent, err, "%s/bases/%s", vm->state, spec->name)) < 0 ||
		(r = kb_vmctl_collect_garbage(vm, err)) < 0)
		return r;
	kb_packages_collect(vm);
	generation = next_generation(vm, spec->name);
	if ((r = make_generation(vm, spec, generation, dir, err)) == 0 &&
		(r = kb_base_load(vm, spec->name, generation, &base, err)) == 0 &&
		!spec->no_template)
		r = kb_base_freeze_generation(vm, &base, err);
	if (r == 0)
		r = make_current(vm, &base, err);
	if (r == 0)
		return kb_base_collect(vm, err);
	if (*dir)
		kb_tree_drop(vm, dir);
	rmdir(parent);
	return r;
}
