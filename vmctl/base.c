#include "base.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "files.h"
#include "machine.h"
#include "pool.h"
#include "supervisor/base/fd.h"

#define DEFAULT_NAME "default"
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

unsigned kb_base_generation(struct kb_vmctl *vm, const char *name)
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

	if (!kb_base_generation(vm, name))
		return 0;
	only->n++;
	snprintf(only->name, sizeof(only->name), "%s", name);
	return 0;
}

int kb_base_current(struct kb_vmctl *vm, const char *name, struct kb_base *ret, struct kb_err *err)
{
	struct only only = {.name = ""};
	unsigned generation;

	if (!name && !kb_base_generation(vm, DEFAULT_NAME)) {
		each_name(vm, "bases", note_only, &only, NULL);
		name = only.n == 1 ? only.name : NULL;
	}
	if (!name)
		name = DEFAULT_NAME;
	generation = kb_name_valid(name) ? kb_base_generation(vm, name) : 0;
	if (generation)
		return kb_base_load(vm, name, generation, ret, err);
	kb_err_set(err, KB_ERR_NOTFOUND, "there is no base %s", name);
	return kb_err_hint(err, "make one: kbsup vm base create --name %s", name);
}

int kb_base_lock(struct kb_vmctl *vm, const char *name, int *ret, struct kb_err *err)
{
	char lock_name[KB_NAME_MAX + 8];

	if (!kb_name_valid(name))
		return kb_err_set(err, KB_ERR_USAGE, "%s is not a name for a base", name);
	snprintf(lock_name, sizeof(lock_name), "base@%s", name);
	return kb_lock_name(vm, lock_name, LOCK_MS, ret, err);
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
	if (generation >= kb_base_generation(vm, name) || users_of(vm, name, generation) > 0)
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
	snprintf(info.arch, sizeof(info.arch), "%s", kb_json_str(base.json, "arch", "x86_64"));
	info.current = generation == kb_base_generation(vm, name);
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

	if ((r = kb_base_lock(vm, name, &lock, err)) < 0 ||
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
