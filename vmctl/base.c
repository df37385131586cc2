#include "base.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent.h"
#include "files.h"
#include "freeze.h"
#include "image/bundle.h"
#include "machine.h"
#include "pool.h"
#include "programs.h"
#include "supervisor/base/fd.h"

#define DEFAULT_NAME "default"
#define BOOT_MS	     240000 /* a whole Debian under TCG, on a busy machine */
#define PREPARE_MS   180000
#define OPEN_MS	     10000
#define QUIT_MS	     20000
#define LOCK_MS	     1800000

void kb_base_finish(struct kb_base *base)
{
	json_decref(base->json);
	base->json = NULL;
}

int kb_base_load(struct kb_vmctl *vm, const char *name, unsigned generation, struct kb_base *ret,
	struct kb_err *err)
{
	char path[PATH_MAX];
	int r;

	*ret = (struct kb_base){.generation = generation};
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	if ((r = kb_vm_path(vm, ret->dir, err, "%s/bases/%s/%u", vm->state, name, generation)) <
			0 ||
		(r = kb_vm_path(vm, path, err, "%s/base.json", ret->dir)) < 0 ||
		(r = kb_json_load(path, &ret->json, err)) < 0)
		return r;
	ret->words = json_object_get(ret->json, "words");
	if (kb_vm_path(vm, path, NULL, "%s/template/clone.qcow2", ret->dir) == 0)
		ret->frozen = access(path, R_OK) == 0;
	return 0;
}

/* The number behind bases/NAME/current; 0 when there is none. */
static unsigned current_generation(struct kb_vmctl *vm, const char *name)
{
	char path[PATH_MAX], target[16];
	uint64_t n = 0;
	ssize_t len;

	if (kb_vm_path(vm, path, NULL, "%s/bases/%s/current", vm->state, name) < 0)
		return 0;
	len = readlink(path, target, sizeof(target) - 1);
	if (len <= 0)
		return 0;
	target[len] = '\0';
	return kb_parse_u64(target, &n) && n <= UINT_MAX ? (unsigned)n : 0;
}

typedef int (*name_fn)(struct kb_vmctl *vm, const char *name, void *arg, struct kb_err *err);

/* Call fn for every valid name in STATE/sub. */
static int each_name(
	struct kb_vmctl *vm, const char *sub, name_fn fn, void *arg, struct kb_err *err)
{
	char dir[PATH_MAX];
	struct dirent *entry;
	int r = kb_vm_path(vm, dir, err, "%s/%s", vm->state, sub);
	DIR *d = r < 0 ? NULL : opendir(dir);

	while (d && r == 0 && (entry = readdir(d)))
		if (kb_name_valid(entry->d_name))
			r = fn(vm, entry->d_name, arg, err);
	if (d)
		closedir(d);
	return r;
}

struct only {
	char name[KB_NAME_MAX];
	int n;
};

static int note_only(struct kb_vmctl *vm, const char *name, void *arg, struct kb_err *err)
{
	struct only *only = arg;

	if (!current_generation(vm, name))
		return 0;
	only->n++;
	snprintf(only->name, sizeof(only->name), "%s", name);
	return 0;
}

int kb_base_current(struct kb_vmctl *vm, const char *name, struct kb_base *ret, struct kb_err *err)
{
	struct only only = {.name = ""};
	unsigned generation;

	if (!name && !current_generation(vm, DEFAULT_NAME)) {
		each_name(vm, "bases", note_only, &only, NULL);
		name = only.n == 1 ? only.name : NULL;
	}
	if (!name)
		name = DEFAULT_NAME;
	generation = kb_name_valid(name) ? current_generation(vm, name) : 0;
	if (generation)
		return kb_base_load(vm, name, generation, ret, err);
	kb_err_set(err, KB_ERR_NOTFOUND, "there is no base %s", name);
	return kb_err_hint(err, "make one: kbsup vm base create --name %s", name);
}

/* ---- freezing a template ---- */

struct build {
	struct kb_vmctl *vm;
	struct kb_base *base;
	char dir[PATH_MAX]; /* in tmp */
	const char *id;
};

static int boot_template(struct build *b, struct kb_mon *mon, struct kb_err *err)
{
	KB_FREE char *disk = kb_asprintf("%s/root.qcow2", b->dir);
	KB_FREE char *ram = kb_asprintf("%s/ram", b->dir);
	KB_FREE char *log = kb_asprintf("%s/qemu.log", b->dir);
	KB_FREE char *kernel = kb_asprintf("%s/vmlinuz", b->base->dir);
	KB_FREE char *initrd = kb_asprintf("%s/initrd", b->base->dir);
	KB_FREE char *root = kb_asprintf("%s/root.img", b->base->dir);
	struct kb_qemu_run run = {.id = b->id,
		.log = log,
		.kernel = kernel,
		.initrd = initrd,
		.disk = disk,
		.ram = ram,
		.ram_shared = true,
		.mac = KB_TEMPLATE_MAC,
		.isolated = true};
	pid_t pid;
	int r;

	if (!disk || !ram || !log || !kernel || !initrd || !root)
		return kb_err_nomem(err);
	if ((r = kb_qemu_overlay(b->vm, root, "raw", disk, err)) < 0 ||
		(r = kb_qemu_start(b->vm, b->base->words, &run, &pid, err)) < 0)
		return r;
	return kb_mon_open(b->vm, b->id, "qmp", pid, OPEN_MS, mon, err);
}

static int prepare_and_freeze(struct build *b, struct kb_mon *mon, struct kb_err *err)
{
	struct kb_agent agent;
	int r = kb_agent_open(b->vm, b->id, &agent, err);

	if (r < 0)
		return r;
	kb_op_progress(b->vm, "boot", "booting the base once");
	r = kb_agent_sync(&agent, BOOT_MS, err);
	if (r == 0) {
		kb_op_progress(b->vm, "prepare", "removing what tells machines apart");
		r = kb_agent_call(
			&agent, json_pack("{s:s}", "op", "prepare"), PREPARE_MS, NULL, err);
	}
	if (r == 0) {
		kb_op_progress(b->vm, "freeze", "saving the running machine");
		/* The service's port stays open meanwhile: forks start with a host that listens. */
		r = kb_freeze(mon, b->base->words, b->dir, err);
	}
	kb_agent_close(&agent);
	if (r == 0)
		r = kb_mon_call(mon, "quit", NULL, NULL, err);
	return r < 0 ? r : kb_qemu_wait_end(b->vm, b->id, QUIT_MS, err);
}

/* Put the template in place, and beside it the empty overlay that every fork gets a copy of. */
static int publish_template(struct build *b, struct kb_err *err)
{
	KB_FREE char *to = kb_asprintf("%s/template", b->base->dir);
	KB_FREE char *disk = kb_asprintf("%s/template/root.qcow2", b->base->dir);
	KB_FREE char *made = kb_asprintf("%s/template/clone.tmp", b->base->dir);
	KB_FREE char *clone = kb_asprintf("%s/template/clone.qcow2", b->base->dir);
	int r;

	if (!to || !disk || !made || !clone)
		return kb_err_nomem(err);
	if ((r = kb_rmtree(to, err)) < 0 || (r = kb_dir_publish(b->dir, to, err)) < 0 ||
		(r = kb_qemu_overlay(b->vm, disk, "qcow2", made, err)) < 0 ||
		(r = kb_fsync_path(made, err)) < 0)
		return r;
	if (rename(made, clone) < 0)
		return kb_err_sys(err, errno, "%s", clone);
	return 0;
}

static int freeze_generation(struct kb_vmctl *vm, struct kb_base *base, struct kb_err *err)
{
	struct build b = {.vm = vm, .base = base};
	struct kb_mon mon = {0};
	KB_CLOSE int lock = -1;
	int r;

	if ((r = kb_tmp_create(vm, b.dir, &lock, err)) < 0)
		return r;
	b.id = kb_tmp_id(b.dir);
	r = boot_template(&b, &mon, err);
	if (r == 0)
		r = prepare_and_freeze(&b, &mon, err);
	kb_mon_close(&mon);
	kb_qemu_kill(vm, b.id, NULL);
	if (r == 0)
		r = publish_template(&b, err);
	if (r < 0)
		kb_rmtree(b.dir, NULL);
	return r;
}

static int lock_base(struct kb_vmctl *vm, const char *name, int *ret, struct kb_err *err)
{
	char lock_name[KB_NAME_MAX + 8];

	if (!kb_name_valid(name))
		return kb_err_set(err, KB_ERR_USAGE, "%s is not a name for a base", name);
	snprintf(lock_name, sizeof(lock_name), "base@%s", name);
	return kb_lock_name(vm, lock_name, LOCK_MS, ret, err);
}

int kb_base_freeze(struct kb_vmctl *vm, const char *name, struct kb_err *err)
{
	struct kb_base base KB_CLEANUP(kb_base_finish) = {0};
	KB_CLOSE int lock = -1;
	int r;

	if ((r = kb_base_current(vm, name, &base, err)) < 0 ||
		(r = lock_base(vm, base.name, &lock, err)) < 0)
		return r;
	if (base.frozen)
		return kb_err_set(err, KB_ERR_EXISTS, "base %s is frozen already", base.name);
	return freeze_generation(vm, &base, err);
}

/* ---- building ---- */

static int write_manifest(struct kb_vmctl *vm, const struct kb_base_spec *spec, const char *dir,
	unsigned generation, struct kb_err *err)
{
	struct kb_qemu_shape shape = {.accel = kb_qemu_accel(vm, NULL),
		.memory_mib = spec->memory_mib ? spec->memory_mib : KB_VM_MEMORY_MIB,
		.cpus = spec->cpus ? spec->cpus : KB_VM_CPUS};
	KB_JSON json_t *words = NULL, *json = NULL;
	char path[PATH_MAX], programs[KB_PROGRAMS_ID];
	int r = kb_qemu_shape_words(&shape, &words, err);

	if (r < 0 || (r = kb_vm_path(vm, path, err, "%s/base.json", dir)) < 0)
		return r;
	json = json_pack("{s:s, s:I, s:I, s:s, s:s, s:I, s:I, s:s, s:O}", "name", spec->name,
		"generation", (json_int_t)generation, "created_ns", (json_int_t)kb_now_real(),
		"user", spec->user ? spec->user : "dev", "suite",
		spec->suite ? spec->suite : "bookworm", "memory_mib", (json_int_t)shape.memory_mib,
		"cpus", (json_int_t)shape.cpus, "accel", shape.accel, "words", words);
	if (json && *vm->guest_program && *vm->init_program) {
		if ((r = kb_programs_id(vm, programs, err)) < 0)
			return r;
		json_object_set_new(json, "programs", json_string(programs));
	}
	return json ? kb_json_save(path, json, err) : kb_err_nomem(err);
}

static unsigned next_generation(struct kb_vmctl *vm, const char *name)
{
	char path[PATH_MAX];
	unsigned n = current_generation(vm, name);

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

int kb_base_create(struct kb_vmctl *vm, const struct kb_base_spec *spec, struct kb_err *err)
{
	struct kb_base base KB_CLEANUP(kb_base_finish) = {0};
	char dir[PATH_MAX], parent[PATH_MAX], to[PATH_MAX];
	KB_CLOSE int lock = -1, tmp_lock = -1;
	unsigned generation;
	int r;

	if ((r = lock_base(vm, spec->name, &lock, err)) < 0 ||
		(r = kb_vmctl_collect_garbage(vm, err)) < 0 ||
		(r = kb_tmp_create(vm, dir, &tmp_lock, err)) < 0)
		return r;
	generation = next_generation(vm, spec->name);
	if ((r = kb_image_build(vm, spec, dir, err)) == 0 &&
		(r = write_manifest(vm, spec, dir, generation, err)) == 0 &&
		(r = kb_vm_path(vm, parent, err, "%s/bases/%s", vm->state, spec->name)) == 0 &&
		(r = kb_mkdirs(parent, 0700, err)) == 0 &&
		(r = kb_vm_path(vm, to, err, "%s/%u", parent, generation)) == 0)
		r = kb_dir_publish(dir, to, err);
	if (r < 0) {
		kb_rmtree(dir, NULL);
		rmdir(parent);
		return r;
	}
	kb_close(&tmp_lock);
	if ((r = kb_base_load(vm, spec->name, generation, &base, err)) == 0 && !spec->no_template)
		r = freeze_generation(vm, &base, err);
	if (r == 0)
		r = make_current(vm, &base, err);
	if (r < 0) {
		kb_rmtree(to, NULL);
		rmdir(parent);
		return r;
	}
	return kb_base_collect(vm, err);
}

/* ---- listing and removal ---- */

struct each_generation {
	const char *base;
	int (*fn)(struct kb_vmctl *vm, const char *base, unsigned generation, void *arg,
		struct kb_err *err);
	void *arg;
};

static int one_generation(struct kb_vmctl *vm, const char *name, void *arg, struct kb_err *err)
{
	struct each_generation *each = arg;
	uint64_t n;

	if (!kb_parse_u64(name, &n) || n == 0 || n > UINT_MAX)
		return 0;
	return each->fn(vm, each->base, (unsigned)n, each->arg, err);
}

static int one_base(struct kb_vmctl *vm, const char *name, void *arg, struct kb_err *err)
{
	struct each_generation *each = arg;
	char sub[KB_NAME_MAX + 8];

	each->base = name;
	snprintf(sub, sizeof(sub), "bases/%s", name);
	return each_name(vm, sub, one_generation, each, err);
}

struct user_count {
	const char *base;
	unsigned generation, n;
};

static int count_user(struct kb_vmctl *vm, const char *name, void *arg, struct kb_err *err)
{
	struct user_count *count = arg;
	KB_JSON json_t *json = NULL;
	int r = kb_machine_json(vm, name, &json, NULL);

	if (r == -KB_ERR_INVALID)
		count->n++; /* damaged: it may be this one's */
	if (r == 0 && strcmp(kb_json_str(json, "base", ""), count->base) == 0 &&
		kb_json_int(json, "generation", 0) == count->generation)
		count->n++;
	return 0;
}

static unsigned users_of(struct kb_vmctl *vm, const char *base, unsigned generation)
{
	struct user_count count = {base, generation, 0};

	each_name(vm, "machines", count_user, &count, NULL);
	return count.n;
}

static int collect_one(
	struct kb_vmctl *vm, const char *name, unsigned generation, void *arg, struct kb_err *err)
{
	char dir[PATH_MAX];

	/* While a base is being built, its newest generation is not current yet. */
	if (generation >= current_generation(vm, name) || users_of(vm, name, generation) > 0)
		return 0;
	if (kb_vm_path(vm, dir, err, "%s/bases/%s/%u", vm->state, name, generation) < 0)
		return -KB_ERR_LIMIT;
	return kb_rmtree(dir, err);
}

int kb_base_collect(struct kb_vmctl *vm, struct kb_err *err)
{
	struct each_generation each = {.fn = collect_one};
	KB_CLOSE int lock = -1;
	int r = kb_machine_gc_lock(vm, &lock, err);

	if (r < 0 || (r = kb_pool_prune(vm, err)) < 0)
		return r;
	return each_name(vm, "bases", one_base, &each, err);
}

struct base_list {
	kb_base_fn fn;
	void *arg;
};

static int list_one(
	struct kb_vmctl *vm, const char *name, unsigned generation, void *arg, struct kb_err *err)
{
	struct base_list *list = arg;
	struct kb_base base KB_CLEANUP(kb_base_finish) = {0};
	struct kb_base_info info = {.generation = generation};

	if (kb_base_load(vm, name, generation, &base, NULL) < 0)
		return 0;
	snprintf(info.name, sizeof(info.name), "%s", name);
	snprintf(info.user, sizeof(info.user), "%s", kb_json_str(base.json, "user", ""));
	info.current = generation == current_generation(vm, name);
	info.frozen = base.frozen;
	info.users = users_of(vm, name, generation);
	info.created_ns = kb_json_int(base.json, "created_ns", 0);
	info.memory_mib = (unsigned)kb_json_int(base.json, "memory_mib", 0);
	info.cpus = (unsigned)kb_json_int(base.json, "cpus", 0);
	info.disk_bytes = kb_tree_blocks(base.dir);
	list->fn(&info, list->arg);
	return 0;
}

int kb_base_list(struct kb_vmctl *vm, kb_base_fn fn, void *arg, struct kb_err *err)
{
	struct base_list list = {fn, arg};
	struct each_generation each = {.fn = list_one, .arg = &list};

	return each_name(vm, "bases", one_base, &each, err);
}

static int refuse_used(
	struct kb_vmctl *vm, const char *name, unsigned generation, void *arg, struct kb_err *err)
{
	unsigned n = users_of(vm, name, generation);

	if (n == 0)
		return 0;
	kb_err_set(err, KB_ERR_EXISTS, "base %s is needed by %u machine%s", name, n,
		n == 1 ? "" : "s");
	return kb_err_hint(err, "delete those first: kbsup vm list");
}

int kb_base_delete(struct kb_vmctl *vm, const char *name, struct kb_err *err)
{
	struct each_generation each = {.fn = refuse_used};
	char dir[PATH_MAX], lock_name[KB_NAME_MAX + 8];
	KB_CLOSE int lock = -1, gc = -1;
	int r;

	if ((r = lock_base(vm, name, &lock, err)) < 0 ||
		(r = kb_machine_gc_lock(vm, &gc, err)) < 0 ||
		(r = kb_vm_path(vm, dir, err, "%s/bases/%s", vm->state, name)) < 0)
		return r;
	snprintf(lock_name, sizeof(lock_name), "base@%s", name);
	if (access(dir, F_OK) < 0)
		r = kb_err_set(err, KB_ERR_NOTFOUND, "there is no base %s", name);
	else if ((r = one_base(vm, name, &each, err)) == 0 &&
		 (r = kb_pool_drop(vm, name, err)) == 0)
		r = kb_rmtree(dir, err);
	kb_lock_name_forget(vm, lock_name);
	return r;
}
