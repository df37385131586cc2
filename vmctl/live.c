/* Forking a machine that runs. Its memory moves into a second QEMU while it goes on; at the moment
 * it stands still, its disk so far becomes a layer that both build on:
 *
 *	before	source → disks/A
 *	after	source → disks/B ─┐
 *		fork   → disks/C ─┴→ disks/A
 *
 * No disk ever changes its name: QEMU reopens them by name when its rights on them change. The
 * source's manifest names B before QEMU is told. An interruption at any point then leaves a machine
 * whose manifest describes what its process writes: until the switch, that is A, over which B lies
 * empty.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "disk.h"
#include "files.h"
#include "freeze.h"
#include "machine.h"
#include "supervisor/base/fd.h"

#define OPEN_MS	  10000
#define ANSWER_MS 20000

struct live {
	struct kb_machine *from, *to;
	char dir[PATH_MAX]; /* of the fork, in tmp */
	const char *id;	    /* of the fork and its disk */
	char fresh_id[KB_VM_ID_SIZE];
	char fresh[PATH_MAX], child[PATH_MAX]; /* disks B and C */
	char before[KB_VM_ID_SIZE * 2];	       /* A */
	struct kb_mon mon_from, mon_to;
	bool named, switched; /* the manifest names B; QEMU writes it */
	struct kb_disks_parked
		parked; /* the source's encrypted ones, which the fork must not have */
};

static int name_disk(struct kb_machine *m, const char *disk, const char *layer, struct kb_err *err)
{
	json_t *layers = json_object_get(m->json, "layers");

	if (!json_is_array(layers)) {
		layers = json_array();
		json_object_set_new(m->json, "layers", layers);
	}
	if (layer)
		json_array_append_new(layers, json_string(layer));
	else
		json_array_remove(layers, json_array_size(layers) - 1);
	json_object_set_new(m->json, "disk", json_string(disk));
	return kb_machine_save(m, err);
}

/* Both overlays are made, and named, while the source still runs. */
static int prepare_disks(struct live *l, struct kb_err *err)
{
	struct kb_vmctl *vm = l->from->vm;
	const char *disks = vm->state;
	char layer[PATH_MAX];
	int r;

	snprintf(l->before, sizeof(l->before), "%s", kb_json_str(l->from->json, "disk", ""));
	if ((r = kb_vm_id_new(l->fresh_id, err)) < 0 ||
		(r = kb_vm_path(vm, layer, err, "%s/disks/%s", disks, l->before)) < 0 ||
		(r = kb_vm_path(vm, l->fresh, err, "%s/disks/%s", disks, l->fresh_id)) < 0 ||
		(r = kb_vm_path(vm, l->child, err, "%s/disks/%s", disks, l->id)) < 0 ||
		(r = kb_qemu_overlay_on(vm, layer, l->fresh, err)) < 0 ||
		(r = kb_qemu_overlay_on(vm, layer, l->child, err)) < 0)
		return r;
	l->named = true;
	return name_disk(l->from, l->fresh_id, l->before, err);
}

static int start_child(struct live *l, struct kb_err *err)
{
	struct kb_machine_paths paths;
	struct kb_qemu_run run;
	char log[PATH_MAX];
	pid_t pid;
	int r;

	if ((r = kb_machine_run(l->from, &paths, &run, err)) < 0 ||
		(r = kb_vm_path(l->from->vm, log, err, "%s/qemu.log", l->dir)) < 0)
		return r;
	run.id = l->id;
	run.disk = l->child;
	run.log = log;
	run.incoming = true;
	r = kb_qemu_start(l->from->vm, json_object_get(l->from->json, "words"), &run, &pid, err);
	if (r < 0)
		return r;
	return kb_mon_open(l->from->vm, l->id, "qmp", pid, OPEN_MS, &l->mon_to, err);
}

/* The name of the node the machine's disk is now: "root" at first, then that of its last overlay.
 */
static int top_node(struct kb_mon *mon, char ret[64], struct kb_err *err)
{
	KB_JSON json_t *list = NULL;
	const json_t *item;
	size_t i;
	int r = kb_mon_call(mon, "query-block", NULL, &list, err);

	if (r < 0)
		return r;
	json_array_foreach(list, i, item) if (strstr(kb_json_str(item, "qdev", ""), "rootd"))
	{
		snprintf(ret, 64, "%s",
			kb_json_str(json_object_get(item, "inserted"), "node-name", ""));
		return 0;
	}
	return kb_err_set(err, KB_ERR_NOTFOUND, "QEMU does not know the machine's disk");
}

static int switch_disks(void *arg, struct kb_err *err)
{
	struct live *l = arg;
	char node[64], overlay[32];
	int r = top_node(&l->mon_from, node, err);

	if (r < 0)
		return r;
	snprintf(overlay, sizeof(overlay), "o-%s", l->fresh_id);
	r = kb_mon_call(&l->mon_from, "blockdev-add",
		json_pack("{s:s, s:s, s:s, s:{s:s, s:s}, s:n}", "driver", "qcow2", "node-name",
			overlay, "discard", "unmap", "file", "driver", "file", "filename", l->fresh,
			"backing"),
		NULL, err);
	if (r == 0)
		r = kb_mon_call(&l->mon_from, "blockdev-snapshot",
			json_pack("{s:s, s:s}", "node", node, "overlay", overlay), NULL, err);
	l->switched = r == 0;
	return r;
}

/* The child is whole: give it a directory and a name of its own, then an identity. */
static int publish_child(struct live *l, struct kb_err *err)
{
	const json_t *json = l->from->json;
	struct kb_machine_new made = {.id = l->id,
		.isolated = json_is_true(json_object_get(json, "isolated")),
		.bridge = json_string_value(json_object_get(json, "bridge")),
		.memory_mib = (unsigned)kb_json_int(json, "memory_mib", 0),
		.cpus = (unsigned)kb_json_int(json, "cpus", 0),
		.words = json_object_get(json, "words"),
		.layers = json_object_get(json, "layers")};
	int r;

	/* Its own list from here on. */
	made.layers = json_deep_copy(made.layers);
	r = kb_base_load(
		l->from->vm, l->from->base.name, l->from->base.generation, &l->to->base, err);
	if (r == 0)
		r = kb_machine_publish(l->to, &made, l->dir, err);
	json_decref(made.layers);
	return r;
}

static int fork_running(struct live *l, int64_t *ret_pause_ns, struct kb_err *err)
{
	int64_t since = 0;
	int r;

	if ((r = kb_disks_park(l->from, &l->parked, err)) < 0)
		return r;
	kb_op_progress(l->from->vm, "move", "copying the memory of %s", l->from->name);
	if ((r = prepare_disks(l, err)) < 0 || (r = start_child(l, err)) < 0 ||
		(r = kb_mon_open(l->from->vm, l->from->id, "qmp", 0, OPEN_MS, &l->mon_from, err)) <
			0)
		return r;
	r = kb_migrate(&l->mon_from, &l->mon_to, switch_disks, l, &since, err);
	l->from->vm->shielded++;
	if (r == 0)
		r = kb_mon_call(&l->mon_from, "cont", NULL, NULL, err);
	l->from->vm->shielded--;
	kb_mon_close(&l->mon_from);
	if (r < 0)
		return r;
	*ret_pause_ns = kb_now_mono() - since;
	kb_disks_unpark(l->from, &l->parked);
	kb_op_progress(l->from->vm, "identity", "parting %s from %s", l->to->name, l->from->name);
	if ((r = publish_child(l, err)) < 0)
		return r;
	return kb_machine_go(l->to, &l->mon_to, ANSWER_MS, false, err);
}

static void undo(struct live *l)
{
	struct kb_vmctl *vm = l->from->vm;

	vm->shielded++;
	kb_mon_close(&l->mon_from);
	kb_mon_close(&l->mon_to);
	kb_qemu_kill(vm, l->id, NULL);
	kb_rmtree(l->dir, NULL);
	if (l->named && !l->switched)
		name_disk(l->from, l->before, NULL, NULL);
	if (l->to->json)
		kb_machine_remove(l->to, NULL);
	vm->shielded--;
}

int kb_vm_fork(struct kb_vmctl *vm, const char *name, const char *new_name, int64_t *ret_pause_ns,
	struct kb_vm_info *ret, struct kb_err *err)
{
	struct kb_machine from KB_CLEANUP(kb_machine_finish) = {.lock = -1};
	struct kb_machine to KB_CLEANUP(kb_machine_finish) = {.lock = -1};
	struct live l = {.from = &from, .to = &to};
	KB_CLOSE int lock = -1, gc = -1;
	int64_t start = kb_now_mono();
	int r;

	if ((r = kb_vmctl_collect_garbage(vm, err)) < 0 ||
		(r = kb_machine_claim(vm, new_name, &to, err)) < 0)
		return r;
	if (to.json)
		return kb_err_set(err, KB_ERR_EXISTS, "there is a machine %s already", new_name);
	if ((r = kb_machine_lock(vm, name, &from, err)) < 0) {
		kb_lock_name_forget(vm, new_name);
		return r;
	}
	if (kb_machine_state(vm, from.json, from.dir) != KB_VM_RUNNING) {
		kb_lock_name_forget(vm, new_name);
		kb_err_set(err, KB_ERR_FAILED, "machine %s is not running", name);
		return kb_err_hint(err, "start it first: kbsup vm start %s", name);
	}
	if ((r = kb_machine_gc_lock(vm, &gc, err)) < 0 ||
		(r = kb_tmp_create(vm, l.dir, &lock, err)) < 0) {
		kb_lock_name_forget(vm, new_name);
		return r;
	}
	l.id = kb_tmp_id(l.dir);
	r = fork_running(&l, ret_pause_ns, err);
	kb_mon_close(&l.mon_to);
	if (r < 0) {
		undo(&l);
		kb_disks_unpark(&from, &l.parked);
		kb_lock_name_forget(vm, new_name);
		return r;
	}
	r = kb_machine_info(vm, to.json, to.dir, ret, err);
	ret->took_ns = kb_now_mono() - start;
	return r;
}
