#include "pool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#include "driver/qemu.h"
#include "freeze.h"
#include "machine.h"
#include "supervisor/base/fd.h"

#define POOL_LOCK "pool@"
#define FILL_MS	  60000 /* another one fills it */

/* ---- what is there ---- */

struct member {
	char id[KB_VM_ID_SIZE * 2];
	char dir[PATH_MAX];
	json_t *json;
	pid_t pid;
};

static void member_finish(struct member *p)
{
	json_decref(p->json);
}

#define MEMBER_CLEANUP KB_CLEANUP(member_finish)

static int pool_path(struct kb_vmctl *vm, const char *id, char ret[PATH_MAX], struct kb_err *err)
{
	return kb_vm_path(vm, ret, err, "%s/pool/%s", vm->state, id);
}

/* Without pool.json it is a member all the same, and of no use. */
static int member_load(struct kb_vmctl *vm, const char *id, struct member *ret, struct kb_err *err)
{
	char path[PATH_MAX];
	int r;

	*ret = (struct member){.pid = kb_pid_of(vm, id)};
	snprintf(ret->id, sizeof(ret->id), "%s", id);
	if ((r = pool_path(vm, id, ret->dir, err)) < 0 ||
		(r = kb_vm_path(vm, path, err, "%s/pool.json", ret->dir)) < 0)
		return r;
	kb_json_load(path, &ret->json, NULL);
	return 0;
}

static bool is_of(const struct member *p, const struct kb_base *base)
{
	return strcmp(kb_json_str(p->json, "base", ""), base->name) == 0 &&
	       kb_json_int(p->json, "generation", 0) == base->generation;
}

static bool is_ready(const struct member *p)
{
	return p->pid > 0 && json_is_true(json_object_get(p->json, "ready"));
}

static bool is_current(struct kb_vmctl *vm, const struct member *p)
{
	struct kb_base base KB_CLEANUP(kb_base_finish) = {0};

	return kb_base_current(vm, kb_json_str(p->json, "base", "?"), &base, NULL) == 0 &&
	       is_of(p, &base);
}

static int member_remove(struct kb_vmctl *vm, const struct member *p, struct kb_err *err)
{
	char disk[PATH_MAX];
	int r;

	if ((r = kb_qemu_kill(vm, p->id, err)) < 0 ||
		(r = kb_vm_path(vm, disk, err, "%s/disks/%s", vm->state, p->id)) < 0)
		return r;
	unlink(disk);
	return kb_rmtree(p->dir, err);
}

json_t *kb_pool_ids(struct kb_vmctl *vm)
{
	char path[PATH_MAX];

	if (kb_vm_path(vm, path, NULL, "%s/pool", vm->state) < 0)
		return json_object();
	return kb_dir_entries(path);
}

/* Remove those that fn says are of no use. */
static int remove_if(struct kb_vmctl *vm,
	bool (*fn)(struct kb_vmctl *vm, const struct member *p, const void *arg), const void *arg,
	struct kb_err *err)
{
	KB_JSON json_t *ids = kb_pool_ids(vm);
	const char *id;
	json_t *unused;
	int r = 0;

	json_object_foreach(ids, id, unused)
	{
		struct member p MEMBER_CLEANUP = {0};

		if (r == 0 && (r = member_load(vm, id, &p, err)) == 0 && fn(vm, &p, arg))
			r = member_remove(vm, &p, err);
	}
	return r;
}

static bool is_useless(struct kb_vmctl *vm, const struct member *p, const void *arg)
{
	if (json_is_false(json_object_get(p->json, "ready")) && kb_lock_name_held(vm, POOL_LOCK))
		return false;
	return !is_ready(p) || !is_current(vm, p);
}

int kb_pool_prune(struct kb_vmctl *vm, struct kb_err *err)
{
	return remove_if(vm, is_useless, NULL, err);
}

static bool is_of_name(struct kb_vmctl *vm, const struct member *p, const void *arg)
{
	return strcmp(kb_json_str(p->json, "base", ""), arg) == 0;
}

int kb_pool_drop(struct kb_vmctl *vm, const char *base, struct kb_err *err)
{
	return remove_if(vm, is_of_name, base, err);
}

/* ---- taking ---- */

static bool take(struct kb_vmctl *vm, const struct member *p, char ret_dir[PATH_MAX], int *ret_lock)
{
	char path[PATH_MAX];

	if (kb_vm_path(vm, ret_dir, NULL, "%s/tmp/%s", vm->state, p->id) < 0 ||
		rename(p->dir, ret_dir) < 0)
		return false;
	if (kb_vm_path(vm, path, NULL, "%s/pool.json", ret_dir) == 0)
		unlink(path);
	/* Unlocked it would only be collected earlier, should we die. */
	*ret_lock = open(ret_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*ret_lock >= 0)
		(void)flock(*ret_lock, LOCK_EX | LOCK_NB);
	return true;
}

bool kb_pool_take(
	struct kb_vmctl *vm, const struct kb_base *base, char ret_dir[PATH_MAX], int *ret_lock)
{
	KB_JSON json_t *ids = kb_pool_ids(vm);
	const char *id;
	json_t *unused;

	json_object_foreach(ids, id, unused)
	{
		struct member p MEMBER_CLEANUP = {0};

		if (member_load(vm, id, &p, NULL) == 0 && is_ready(&p) && is_of(&p, base) &&
			take(vm, &p, ret_dir, ret_lock))
			return true;
	}
	return false;
}

/* ---- filling ---- */

static int save(const char *dir, const struct kb_base *base, bool ready, struct kb_err *err)
{
	KB_FREE char *path = kb_asprintf("%s/pool.json", dir);
	KB_JSON json_t *json = json_pack("{s:s, s:I, s:I, s:b}", "base", base->name, "generation",
		(json_int_t)base->generation, "created_ns", (json_int_t)kb_now_real(), "ready",
		ready);

	return path && json ? kb_json_save(path, json, err) : kb_err_nomem(err);
}

/* Its directory and its disk, which is nobody's to collect from then on. */
static int place(
	struct kb_vmctl *vm, const struct kb_base *base, struct member *p, struct kb_err *err)
{
	KB_CLOSE int gc = -1, lock = -1;
	char tmp[PATH_MAX], disk[PATH_MAX], clone[PATH_MAX];
	int r;

	if ((r = kb_machine_gc_lock(vm, &gc, err)) < 0 ||
		(r = kb_tmp_create(vm, tmp, &lock, err)) < 0)
		return r;
	snprintf(p->id, sizeof(p->id), "%s", kb_tmp_id(tmp));
	if ((r = pool_path(vm, p->id, p->dir, err)) == 0 &&
		(r = kb_vm_path(vm, disk, err, "%s/disks/%s", vm->state, p->id)) == 0 &&
		(r = kb_vm_path(vm, clone, err, "%s/template/clone.qcow2", base->dir)) == 0 &&
		(r = save(tmp, base, false, err)) == 0 &&
		(r = kb_file_copy(clone, disk, 0600, err)) == 0)
		r = kb_dir_publish(tmp, p->dir, err);
	if (r < 0)
		kb_rmtree(tmp, NULL);
	return r;
}

static int thaw(
	struct kb_vmctl *vm, const struct kb_base *base, const struct member *p, struct kb_err *err)
{
	KB_FREE char *disk = kb_asprintf("%s/disks/%s", vm->state, p->id);
	KB_FREE char *log = kb_asprintf("%s/qemu.log", p->dir);
	KB_FREE char *kernel = kb_asprintf("%s/vmlinuz", base->dir);
	KB_FREE char *initrd = kb_asprintf("%s/initrd", base->dir);
	KB_FREE char *template = kb_asprintf("%s/template", base->dir);
	struct kb_qemu_run run = {.arch = kb_json_str(base->json, "arch", NULL),
		.id = p->id,
		.log = log,
		.kernel = kernel,
		.initrd = initrd,
		.disk = disk,
		.mac = KB_TEMPLATE_MAC};
	struct kb_mon mon = {0};
	pid_t pid;
	int r;

	if (!disk || !log || !kernel || !initrd || !template)
		return kb_err_nomem(err);
	r = kb_thaw(vm, base->words, template, &run, &pid, &mon, err);
	kb_mon_close(&mon);
	return r;
}

static int add_one(struct kb_vmctl *vm, const struct kb_base *base, struct kb_err *err)
{
	struct member p = {0};
	int r = place(vm, base, &p, err);

	if (r < 0)
		return r;
	r = thaw(vm, base, &p, err);
	if (r == 0)
		r = save(p.dir, base, true, err);
	if (r < 0) {
		vm->shielded++;
		member_remove(vm, &p, NULL);
		vm->shielded--;
	}
	return r;
}

/* Those beyond want. Nobody else adds any meanwhile. */
struct surplus {
	const struct kb_base *base; /* NULL: all are */
	unsigned *kept, want;
};

static bool is_surplus(struct kb_vmctl *vm, const struct member *p, const void *arg)
{
	const struct surplus *s = arg;

	if (!s->base || !is_ready(p) || !is_of(p, s->base) || *s->kept == s->want)
		return true;
	++*s->kept;
	return false;
}

static int trim(struct kb_vmctl *vm, const struct kb_base *base, unsigned want, unsigned *ret_kept,
	struct kb_err *err)
{
	struct surplus surplus = {.base = base, .kept = ret_kept, .want = want};
	KB_CLOSE int gc = -1;
	int r = kb_machine_gc_lock(vm, &gc, err);

	return r < 0 ? r : remove_if(vm, is_surplus, &surplus, err);
}

int kb_vm_pool_fill(struct kb_vmctl *vm, unsigned want, struct kb_err *err)
{
	struct kb_base base KB_CLEANUP(kb_base_finish) = {0};
	KB_CLOSE int lock = -1;
	unsigned kept = 0;
	int r;

	if ((r = kb_lock_name(vm, POOL_LOCK, FILL_MS, &lock, err)) < 0)
		return r;
	if (want == 0)
		return trim(vm, NULL, 0, &kept, err);
	if ((r = kb_vmctl_collect_garbage(vm, err)) < 0 ||
		(r = kb_base_current(vm, NULL, &base, err)) < 0)
		return r;
	if (!base.frozen) {
		kb_err_set(err, KB_ERR_FAILED, "%s has no template to fork", base.name);
		return kb_err_hint(err, "kbsup vm base freeze %s", base.name);
	}
	r = trim(vm, &base, want, &kept, err);
	for (; r == 0 && kept < want; kept++)
		r = add_one(vm, &base, err);
	return r;
}

bool kb_vm_pool_differs(struct kb_vmctl *vm, unsigned want)
{
	struct kb_base base KB_CLEANUP(kb_base_finish) = {0};
	KB_JSON json_t *ids = kb_pool_ids(vm);
	const char *id;
	json_t *unused;
	unsigned ready = 0;

	if (want == 0)
		return json_object_size(ids) > 0;
	if (kb_base_current(vm, NULL, &base, NULL) < 0 || !base.frozen)
		return false;
	json_object_foreach(ids, id, unused)
	{
		struct member p MEMBER_CLEANUP = {0};

		ready += member_load(vm, id, &p, NULL) == 0 && is_ready(&p) && is_of(&p, &base);
	}
	return ready != want;
}

/* ---- showing ---- */

static int show(struct kb_vmctl *vm, const char *id, kb_vm_fn fn, void *arg, struct kb_err *err)
{
	struct member p MEMBER_CLEANUP = {0};
	struct kb_base base KB_CLEANUP(kb_base_finish) = {0};
	struct kb_vm_info info = {0};
	char disk[PATH_MAX];
	int r;

	if ((r = member_load(vm, id, &p, err)) < 0 ||
		(r = kb_vm_path(vm, disk, err, "%s/disks/%s", vm->state, id)) < 0)
		return r;
	snprintf(info.name, sizeof(info.name), KB_POOL_PREFIX "%s", id);
	snprintf(info.id, sizeof(info.id), "%s", id);
	snprintf(info.base, sizeof(info.base), "%s", kb_json_str(p.json, "base", ""));
	info.generation = (unsigned)kb_json_int(p.json, "generation", 0);
	info.created_ns = kb_json_int(p.json, "created_ns", kb_now_real());
	info.pid = p.pid;
	info.state = is_ready(&p) ? KB_VM_READY : KB_VM_STARTING;
	info.disk_bytes = kb_tree_blocks(p.dir) + kb_tree_blocks(disk);
	info.disk_virtual = kb_qemu_disk_size(disk);
	info.host_memory = p.pid > 0 ? kb_process_memory(p.pid) : 0;
	if (kb_base_load(vm, info.base, info.generation, &base, NULL) == 0) {
		info.memory_mib = (unsigned)kb_json_int(base.json, "memory_mib", 0);
		info.cpus = (unsigned)kb_json_int(base.json, "cpus", 0);
	}
	fn(&info, arg);
	return 0;
}

int kb_vm_pool_list(struct kb_vmctl *vm, kb_vm_fn fn, void *arg, struct kb_err *err)
{
	KB_JSON json_t *ids = kb_pool_ids(vm);
	const char *id;
	json_t *unused;
	int r = 0;

	json_object_foreach(ids, id, unused) if (r == 0) r = show(vm, id, fn, arg, err);
	return r;
}
