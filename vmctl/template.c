/* The template of a base: a machine of it that was booted once and frozen. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base.h"
#include "builder.h"
#include "driver/qemu.h"
#include "files.h"
#include "freeze.h"
#include "supervisor/base/fd.h"

#define PREPARE_MS 180000

static int prepare_and_freeze(struct kb_builder *b, struct kb_err *err)
{
	int r = kb_builder_boot(b, "booting the base once", KB_BASE_BOOT_MS, err);

	if (r < 0)
		return r;
	kb_op_progress(b->vm, "prepare", "removing what tells machines apart");
	r = kb_agent_call(&b->agent, json_pack("{s:s}", "op", "prepare"), PREPARE_MS, NULL, err);
	if (r < 0)
		return r;
	kb_op_progress(b->vm, "freeze", "saving the running machine");
	/* The service's port stays open meanwhile: forks start with a host that listens. */
	r = kb_freeze(&b->mon, b->words, b->dir, err);
	return r < 0 ? r : kb_builder_quit(b, err);
}

/* Put the template in place, and beside it the empty overlay that every fork gets a copy of. */
static int publish_template(
	struct kb_vmctl *vm, const struct kb_base *base, const char *dir, struct kb_err *err)
{
	KB_FREE char *to = kb_asprintf("%s/template", base->dir);
	KB_FREE char *disk = kb_asprintf("%s/template/root.qcow2", base->dir);
	KB_FREE char *made = kb_asprintf("%s/template/clone.tmp", base->dir);
	KB_FREE char *clone = kb_asprintf("%s/template/clone.qcow2", base->dir);
	int r;

	if (!to || !disk || !made || !clone)
		return kb_err_nomem(err);
	if ((r = kb_rmtree(to, err)) < 0 || (r = kb_dir_publish(dir, to, err)) < 0 ||
		(r = kb_qemu_overlay(vm, disk, "qcow2", made, err)) < 0 ||
		(r = kb_fsync_path(made, err)) < 0)
		return r;
	if (rename(made, clone) < 0)
		return kb_err_sys(err, errno, "%s", clone);
	return 0;
}

int kb_base_freeze_generation(struct kb_vmctl *vm, struct kb_base *base, struct kb_err *err)
{
	char dir[PATH_MAX];
	struct kb_builder b = {.vm = vm,
		.arch = kb_json_str(base->json, "arch", NULL),
		.words = base->words,
		.base = base->dir,
		.dir = dir,
		.ram = true,
		.isolated = true};
	KB_CLOSE int lock = -1;
	int r = kb_tmp_create(vm, dir, &lock, err);

	if (r < 0)
		return r;
	r = prepare_and_freeze(&b, err);
	kb_builder_stop(&b);
	if (r == 0)
		r = publish_template(vm, base, dir, err);
	if (r < 0)
		kb_rmtree(dir, NULL);
	return r;
}

int kb_base_freeze(struct kb_vmctl *vm, const char *name, struct kb_err *err)
{
	struct kb_base base KB_CLEANUP(kb_base_finish) = {0};
	KB_CLOSE int lock = -1;
	int r;

	if ((r = kb_base_current(vm, name, &base, err)) < 0 ||
		(r = kb_base_lock(vm, base.name, &lock, err)) < 0)
		return r;
	if (base.frozen)
		return kb_err_set(err, KB_ERR_EXISTS, "base %s is frozen already", base.name);
	return kb_base_freeze_generation(vm, &base, err);
}
