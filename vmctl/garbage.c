/* Removing machines, and what interrupted operations left. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "driver/qemu.h"
#include "files.h"
#include "machine.h"
#include "pool.h"
#include "supervisor/base/fd.h"

#define GC_LOCK "gc@"
#define GC_MS	30000

int kb_machine_gc_lock(struct kb_vmctl *vm, int *ret, struct kb_err *err)
{
	return kb_lock_name(vm, GC_LOCK, GC_MS, ret, err);
}

int kb_machine_remove(struct kb_machine *m, struct kb_err *err)
{
	char tmp[PATH_MAX], gone[PATH_MAX];
	KB_CLOSE int lock = -1;
	int r;

	/* Without an id, its process is found as one that belongs to nothing. */
	if ((m->id && *m->id && (r = kb_qemu_kill(m->vm, m->id, err)) < 0) ||
		(r = kb_tmp_create(m->vm, tmp, &lock, err)) < 0 ||
		(r = kb_vm_path(m->vm, gone, err, "%s/machine", tmp)) < 0)
		return r;
	/* The name is free in one step; the files follow, now or at the next collection. */
	if (rename(m->dir, gone) < 0 && errno != ENOENT)
		return kb_err_sys(err, errno, "%s cannot be removed", m->dir);
	kb_lock_name_forget(m->vm, m->name);
	return kb_rmtree(tmp, err);
}

/* What machines name as theirs. */
struct known {
	json_t *ids, *disks;
	bool unsure; /* a machine cannot be read: what is unknown may be its */
};

static void note_machine(struct kb_vmctl *vm, const char *name, struct known *known)
{
	KB_JSON json_t *json = NULL;
	const json_t *layer;
	size_t i;

	int r = kb_machine_json(vm, name, &json, NULL);

	known->unsure |= r == -KB_ERR_INVALID;
	if (r < 0 || kb_machine_is_remote(json))
		return;
	json_object_set_new(known->ids, kb_json_str(json, "id", ""), json_true());
	json_object_set_new(known->disks, kb_json_str(json, "disk", ""), json_true());
	json_array_foreach(json_object_get(json, "layers"), i, layer) if (json_is_string(layer))
		json_object_set_new(known->disks, json_string_value(layer), json_true());
}

static bool in_tmp(struct kb_vmctl *vm, const char *id)
{
	char path[PATH_MAX];

	return kb_vm_path(vm, path, NULL, "%s/tmp/%s", vm->state, id) == 0 &&
	       access(path, F_OK) == 0;
}

/* A machine is in place before its QEMU starts, and a process for something in the making has the
 * name of its tmp directory. So what ran before the machines were read and is neither is left over;
 * the same holds for disks, which are made under the lock we hold. */
static int collect_unknown(struct kb_vmctl *vm, struct kb_err *err)
{
	KB_JSON json_t *ids = kb_pool_ids(vm), *disks = kb_pool_ids(vm), *machines = NULL;
	KB_JSON json_t *running = kb_dir_entries(vm->run), *files = NULL;
	struct known known = {.ids = ids, .disks = disks};
	char path[PATH_MAX];
	const char *name;
	json_t *unused;
	int r;

	if ((r = kb_vm_path(vm, path, err, "%s/disks", vm->state)) < 0)
		return r;
	files = kb_dir_entries(path);
	if ((r = kb_vm_path(vm, path, err, "%s/machines", vm->state)) < 0)
		return r;
	machines = kb_dir_entries(path);
	json_object_foreach(machines, name, unused) note_machine(vm, name, &known);
	if (known.unsure)
		return 0;
	json_object_foreach(running, name,
		unused) if (r == 0 && !json_object_get(ids, name) && !in_tmp(vm, name)) r =
		kb_qemu_kill(vm, name, err);
	json_object_foreach(files, name, unused) if (!json_object_get(disks, name) &&
						     kb_vm_path(vm, path, NULL, "%s/disks/%s",
							     vm->state, name) == 0) unlink(path);
	return r;
}

int kb_vmctl_collect_garbage(struct kb_vmctl *vm, struct kb_err *err)
{
	KB_CLOSE int lock = -1;
	int r = kb_machine_gc_lock(vm, &lock, err);

	if (r < 0 || (r = kb_tmp_collect(vm, err)) < 0 || (r = kb_pool_prune(vm, err)) < 0)
		return r;
	return collect_unknown(vm, err);
}
