#include "machine.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "driver/qemu.h"
#include "files.h"
#include "look.h"
#include "supervisor/base/dirs.h"
#include "supervisor/base/fd.h"

#define GC_LOCK	 "gc@"
#define GC_MS	 30000
#define LIST_MAX 4096

static const char *const state_names[KB_VM_STATE_MAX_] = {
	[KB_VM_STOPPED] = "stopped",
	[KB_VM_STARTING] = "starting",
	[KB_VM_INCOMPLETE] = "incomplete",
	[KB_VM_RUNNING] = "running",
	[KB_VM_PAUSED] = "paused",
	[KB_VM_SUSPENDED] = "suspended",
	[KB_VM_NO_SPACE] = "no-space",
	[KB_VM_PANICKED] = "panicked",
	[KB_VM_CRASHED] = "crashed",
	[KB_VM_HUNG] = "hung",
	[KB_VM_REMOTE] = "remote",
};

const char *kb_vm_state_name(enum kb_vm_state state)
{
	return state_names[state];
}

/* ---- the context ---- */

static void on_cancel(int fd, unsigned events, void *arg)
{
	struct kb_vmctl *vm = arg;

	vm->cancelled = true;
	kb_source_set_events(vm->cancel, 0, NULL);
	kb_loop_stop(vm->loop);
}

static void on_timer(void *arg)
{
	struct kb_vmctl *vm = arg;

	vm->expired = true;
	kb_loop_stop(vm->loop);
}

static void copy_path(char ret[PATH_MAX], const char *path)
{
	snprintf(ret, PATH_MAX, "%s", path ? path : "");
}

static int make_dirs(struct kb_vmctl *vm, struct kb_err *err)
{
	static const char *const subs[] = {"", "/bases", "/machines", "/disks", "/locks", "/tmp"};
	char path[PATH_MAX];

	for (size_t i = 0; i < KB_ARRAY_LEN(subs); i++) {
		int r = kb_vm_path(vm, path, err, "%s%s", vm->state, subs[i]);

		if (r < 0 || (r = kb_dirs_make(path, err)) < 0)
			return r;
	}
	return kb_dirs_make(vm->run, err);
}

int kb_vmctl_open(const struct kb_vmctl_config *config, struct kb_vmctl **ret, struct kb_err *err)
{
	struct kb_vmctl *vm = calloc(1, sizeof(*vm));
	int r;

	if (!vm)
		return kb_err_nomem(err);
	vm->progress = config->progress;
	vm->arg = config->arg;
	copy_path(vm->state, config->state_dir);
	copy_path(vm->run, config->run_dir);
	copy_path(vm->machine_program, config->machine_program);
	copy_path(vm->guest_program, config->guest_program);
	copy_path(vm->init_program, config->init_program);
	snprintf(vm->accel, sizeof(vm->accel), "%s", config->accel ? config->accel : "");
	if ((r = make_dirs(vm, err)) < 0 || (r = kb_loop_create(&vm->loop, err)) < 0 ||
		(r = kb_loop_timer(vm->loop, on_timer, vm, &vm->timer, err)) < 0 ||
		(config->cancel_fd >= 0 && (r = kb_loop_io(vm->loop, config->cancel_fd, KB_IO_READ,
						    on_cancel, vm, &vm->cancel, err)) < 0)) {
		kb_vmctl_close(vm);
		return r;
	}
	*ret = vm;
	return 0;
}

void kb_vmctl_close(struct kb_vmctl *vm)
{
	if (!vm)
		return;
	kb_source_destroy(vm->cancel);
	kb_source_destroy(vm->timer);
	kb_loop_destroy(vm->loop);
	free(vm);
}

bool kb_vm_known(const char *state_dir, const char *name)
{
	KB_FREE char *path = kb_name_valid(name)
				     ? kb_asprintf("%s/machines/%s/machine.json", state_dir, name)
				     : NULL;

	return path && access(path, F_OK) == 0;
}

/* ---- one machine ---- */

/* The entries of a directory, as the keys of an object. */
static json_t *entries_of(const char *path)
{
	json_t *list = json_object();
	struct dirent *entry;
	DIR *d = opendir(path);

	while (d && (entry = readdir(d)))
		if (entry->d_name[0] != '.')
			json_object_set_new(list, entry->d_name, json_true());
	if (d)
		closedir(d);
	return list;
}

#define CLOSEST_OF 256 /* machines that a wrong name is compared with */

/* Says so, and which one could have been meant. */
static int no_such(struct kb_vmctl *vm, const char *name, struct kb_err *err)
{
	char dir[PATH_MAX];
	KB_JSON json_t *all = NULL;
	const char *names[CLOSEST_OF], *near, *one;
	json_t *unused;
	size_t n = 0;

	kb_err_set(err, KB_ERR_NOTFOUND, "there is no machine %s", name);
	if (kb_vm_path(vm, dir, NULL, "%s/machines", vm->state) < 0)
		return -KB_ERR_NOTFOUND;
	all = entries_of(dir);
	json_object_foreach(all, one, unused) if (n < CLOSEST_OF) names[n++] = one;
	near = kb_closest(name, names, n);
	if (near)
		return kb_err_hint(err, "did you mean: %s", near);
	return kb_err_hint(err, "kbsup vm list shows them; kbsup vm start %s makes it", name);
}

int kb_machine_json(struct kb_vmctl *vm, const char *name, json_t **ret, struct kb_err *err)
{
	char path[PATH_MAX];
	int r;

	if (!kb_name_valid(name))
		return kb_err_set(err, KB_ERR_USAGE, "%s is not a name for a machine", name);
	r = kb_vm_path(vm, path, err, "%s/machines/%s/machine.json", vm->state, name);
	if (r < 0)
		return r;
	if (access(path, F_OK) < 0)
		return no_such(vm, name, err);
	return kb_json_load(path, ret, err);
}

int kb_machine_path(
	const struct kb_machine *m, const char *file, char ret[PATH_MAX], struct kb_err *err)
{
	return kb_vm_path(m->vm, ret, err, "%s/%s", m->dir, file);
}

bool kb_machine_has(const struct kb_machine *m, const char *file)
{
	char path[PATH_MAX];

	return kb_machine_path(m, file, path, NULL) == 0 && access(path, F_OK) == 0;
}

int kb_machine_save(struct kb_machine *m, struct kb_err *err)
{
	char path[PATH_MAX];
	int r = kb_machine_path(m, "machine.json", path, err);

	return r < 0 ? r : kb_json_save(path, m->json, err);
}

void kb_machine_finish(struct kb_machine *m)
{
	json_decref(m->json);
	m->json = NULL;
	kb_base_finish(&m->base);
	kb_close(&m->lock);
}

int kb_machine_claim(
	struct kb_vmctl *vm, const char *name, struct kb_machine *ret, struct kb_err *err)
{
	struct kb_err why = {0};
	int r;

	*ret = (struct kb_machine){.vm = vm, .lock = -1};
	if (!kb_name_valid(name))
		return kb_err_set(err, KB_ERR_USAGE, "%s is not a name for a machine", name);
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	if ((r = kb_vm_path(vm, ret->dir, err, "%s/machines/%s", vm->state, name)) < 0 ||
		(r = kb_lock_name(vm, name, KB_MACHINE_LOCK_MS, &ret->lock, err)) < 0)
		return r;
	r = kb_machine_json(vm, name, &ret->json, &why);
	if (r == -KB_ERR_NOTFOUND)
		return 0;
	if (r < 0) {
		if (err)
			*err = why;
		return r;
	}
	ret->id = kb_json_str(ret->json, "id", "");
	if (kb_machine_is_remote(ret->json))
		return 0;
	return kb_base_load(vm, kb_json_str(ret->json, "base", ""),
		(unsigned)kb_json_int(ret->json, "generation", 0), &ret->base, err);
}

int kb_machine_lock(
	struct kb_vmctl *vm, const char *name, struct kb_machine *ret, struct kb_err *err)
{
	int r = kb_machine_claim(vm, name, ret, err);

	if (r == 0)
		r = kb_machine_refuse_remote(ret, err);
	if (r < 0 || ret->json)
		return r;
	kb_lock_name_forget(vm, name);
	return no_such(vm, name, err);
}

/* ---- what it is doing ---- */

enum kb_vm_state kb_machine_resting(
	struct kb_vmctl *vm, const json_t *json, const char *dir, bool *ret_runs)
{
	const char *id = kb_json_str(json, "id", "");
	char path[PATH_MAX];

	*ret_runs = false;
	if (!json_is_true(json_object_get(json, "ready")))
		return kb_lock_name_held(vm, kb_json_str(json, "name", "")) ? KB_VM_STARTING
									    : KB_VM_INCOMPLETE;
	*ret_runs = kb_pid_of(vm, id) > 0;
	if (*ret_runs)
		return KB_VM_HUNG;
	if (kb_vm_path(vm, path, NULL, "%s/suspended", dir) == 0 && access(path, F_OK) == 0)
		return KB_VM_SUSPENDED;
	/* QEMU removes its pid file when it ends in order. */
	if (kb_vm_path(vm, path, NULL, "%s/%s/pid", vm->run, id) == 0 && access(path, F_OK) == 0)
		return KB_VM_CRASHED;
	return KB_VM_STOPPED;
}

enum kb_vm_state kb_machine_state(struct kb_vmctl *vm, const json_t *json, const char *dir)
{
	struct kb_look look = {.id = kb_json_str(json, "id", "")};
	bool runs;
	enum kb_vm_state state = kb_machine_resting(vm, json, dir, &runs);

	if (!runs)
		return state;
	look.pid = kb_pid_of(vm, look.id);
	kb_look(vm, &look, 1, KB_LOOK_CAREFUL_MS);
	return look.ended ? kb_machine_resting(vm, json, dir, &runs) : look.state;
}

static uint64_t process_pss(pid_t pid)
{
	char path[64], line[128];
	unsigned long long kib = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "Pss: %llu", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return (uint64_t)kib << 10;
}

/* All but what only its process knows: state and live figures. */
static int facts(struct kb_vmctl *vm, const json_t *json, const char *dir, struct kb_vm_info *ret,
	struct kb_err *err)
{
	char path[PATH_MAX];
	int r = kb_vm_path(vm, path, err, "%s/disks/%s", vm->state, kb_json_str(json, "disk", ""));

	if (r < 0)
		return r;
	if (kb_machine_is_remote(json)) {
		kb_machine_remote_info(json, ret);
		return 0;
	}
	*ret = (struct kb_vm_info){.state = KB_VM_STOPPED};
	snprintf(ret->name, sizeof(ret->name), "%s", kb_json_str(json, "name", ""));
	snprintf(ret->id, sizeof(ret->id), "%s", kb_json_str(json, "id", ""));
	snprintf(ret->base, sizeof(ret->base), "%s", kb_json_str(json, "base", ""));
	snprintf(ret->user, sizeof(ret->user), "%s", kb_json_str(json, "user", ""));
	snprintf(ret->mac, sizeof(ret->mac), "%s", kb_json_str(json, "mac", ""));
	snprintf(ret->bridge, sizeof(ret->bridge), "%s", kb_json_str(json, "bridge", ""));
	ret->generation = (unsigned)kb_json_int(json, "generation", 0);
	ret->isolated = json_is_true(json_object_get(json, "isolated"));
	ret->forked = json_is_true(json_object_get(json, "forked"));
	ret->memory_mib = (unsigned)kb_json_int(json, "memory_mib", 0);
	ret->cpus = (unsigned)kb_json_int(json, "cpus", 0);
	ret->created_ns = kb_json_int(json, "created_ns", 0);
	ret->pid = kb_pid_of(vm, ret->id);
	ret->ssh_port = ret->pid > 0 ? (unsigned)kb_json_int(json, "port", 0) : 0;
	snprintf(ret->host, sizeof(ret->host), "127.0.0.1");
	ret->host_memory = ret->pid > 0 ? process_pss(ret->pid) : 0;
	ret->disk_bytes = kb_tree_blocks(dir) + kb_tree_blocks(path);
	ret->disk_virtual = kb_qemu_disk_size(path);
	return 0;
}

int kb_machine_info(struct kb_vmctl *vm, const json_t *json, const char *dir,
	struct kb_vm_info *ret, struct kb_err *err)
{
	int r = facts(vm, json, dir, ret, err);

	if (r == 0 && ret->state != KB_VM_REMOTE)
		ret->state = kb_machine_state(vm, json, dir);
	return r;
}

static void take_figures(struct kb_vm_info *info, const json_t *stats)
{
	info->live = true;
	info->memory_total = (uint64_t)kb_json_int(stats, "mem_total_kib", 0) << 10;
	info->memory_available = (uint64_t)kb_json_int(stats, "mem_available_kib", 0) << 10;
	info->root_total = (uint64_t)kb_json_int(stats, "disk_total", 0);
	info->root_free = (uint64_t)kb_json_int(stats, "disk_free", 0);
	info->load1 = json_real_value(json_object_get(stats, "load1"));
	info->guest_cpus = (unsigned)kb_json_int(stats, "cpus", 0);
	info->cpu_permille = (unsigned)kb_json_int(stats, "cpu_permille", 0);
	info->cpu_busy_ns = kb_json_int(stats, "cpu_busy_ms", 0) * 1000000;
	info->connections = (unsigned)kb_json_int(stats, "connections", 0);
}

/* Of the machine by this name, everything that asks nobody. *ret_runs: its process is to be asked
 * what it is doing. */
static int look_up(struct kb_vmctl *vm, const char *name, struct kb_vm_info *ret, bool *ret_runs,
	struct kb_err *err)
{
	KB_JSON json_t *json = NULL;
	char dir[PATH_MAX];
	int r;

	*ret_runs = false;
	if ((r = kb_machine_json(vm, name, &json, err)) < 0 ||
		(r = kb_vm_path(vm, dir, err, "%s/machines/%s", vm->state, name)) < 0 ||
		(r = facts(vm, json, dir, ret, err)) < 0 || ret->state == KB_VM_REMOTE)
		return r;
	ret->state = kb_machine_resting(vm, json, dir, ret_runs);
	return 0;
}

/* Ask the processes of those that have one, all at once. */
static int ask_all(
	struct kb_vmctl *vm, bool live, struct kb_vm_info *list, size_t n, struct kb_err *err)
{
	KB_FREE struct kb_look *looks = calloc(n + 1, sizeof(*looks));
	bool runs;

	if (!looks)
		return kb_err_nomem(err);
	for (size_t i = 0; i < n; i++)
		looks[i] = (struct kb_look){.id = list[i].id, .pid = list[i].pid, .figures = live};
	kb_look(vm, looks, n, KB_LOOK_QUICK_MS);
	for (size_t i = 0; i < n; i++) {
		list[i].state = looks[i].state;
		if (looks[i].stats)
			take_figures(&list[i], looks[i].stats);
		if (looks[i].ended)
			look_up(vm, list[i].name, &list[i], &runs, NULL);
		json_decref(looks[i].stats);
	}
	return 0;
}

int kb_vm_query(struct kb_vmctl *vm, const char *name, bool live, struct kb_vm_info *ret,
	struct kb_err *err)
{
	bool runs;
	int r = look_up(vm, name, ret, &runs, err);

	return r < 0 || !runs ? r : ask_all(vm, live, ret, 1, err);
}

static int by_age(const void *a, const void *b)
{
	const struct kb_vm_info *x = a, *y = b;

	return (x->created_ns > y->created_ns) - (x->created_ns < y->created_ns);
}

/* Those that run first, for they are asked together. */
static int runs_first(const void *a, const void *b)
{
	const struct kb_vm_info *x = a, *y = b;

	return (y->state == KB_VM_HUNG) - (x->state == KB_VM_HUNG);
}

static int look_up_all(struct kb_vmctl *vm, struct kb_vm_info **ret, size_t *ret_n,
	size_t *ret_running, struct kb_err *err)
{
	KB_FREE struct kb_vm_info *list = NULL;
	char dir[PATH_MAX];
	struct dirent *entry;
	bool runs;
	DIR *d;
	int r = kb_vm_path(vm, dir, err, "%s/machines", vm->state);

	if (r < 0 || !(d = opendir(dir)))
		return r;
	while (r == 0 && *ret_n < LIST_MAX && (entry = readdir(d))) {
		struct kb_vm_info *more;

		if (!kb_name_valid(entry->d_name))
			continue;
		more = realloc(list, (*ret_n + 1) * sizeof(*list));
		if (!more) {
			r = kb_err_nomem(err);
			break;
		}
		list = more;
		if (look_up(vm, entry->d_name, &list[*ret_n], &runs, NULL) < 0)
			continue; /* it went away meanwhile */
		*ret_running += runs;
		++*ret_n;
	}
	closedir(d);
	*ret = KB_STEAL(list);
	return r;
}

int kb_vm_list(struct kb_vmctl *vm, bool live, kb_vm_fn fn, void *arg, struct kb_err *err)
{
	KB_FREE struct kb_vm_info *list = NULL;
	size_t n = 0, running = 0;
	int r = look_up_all(vm, &list, &n, &running, err);

	if (n)
		qsort(list, n, sizeof(*list), runs_first);
	if (r == 0 && running)
		r = ask_all(vm, live, list, running, err);
	if (n)
		qsort(list, n, sizeof(*list), by_age);
	for (size_t i = 0; r == 0 && i < n; i++)
		fn(&list[i], arg);
	return r;
}

int kb_vm_console_path(struct kb_vmctl *vm, const char *name, char ret[108], struct kb_err *err)
{
	KB_JSON json_t *json = NULL;
	int r = kb_machine_json(vm, name, &json, err);
	const char *id = kb_json_str(json, "id", "");

	if (r < 0)
		return r;
	if (kb_machine_is_remote(json) || kb_pid_of(vm, id) <= 0)
		return kb_err_set(err, KB_ERR_FAILED, "machine %s is not running here", name);
	if (snprintf(ret, 108, "%s/%s/console.sock", vm->run, id) >= 108)
		return kb_err_set(err, KB_ERR_LIMIT, "a socket's path is too long");
	return 0;
}

/* ---- removal and garbage ---- */

int kb_machine_gc_lock(struct kb_vmctl *vm, int *ret, struct kb_err *err)
{
	return kb_lock_name(vm, GC_LOCK, GC_MS, ret, err);
}

int kb_machine_remove(struct kb_machine *m, struct kb_err *err)
{
	char tmp[PATH_MAX], gone[PATH_MAX];
	KB_CLOSE int lock = -1;
	int r;

	if ((!kb_machine_is_remote(m->json) && (r = kb_qemu_kill(m->vm, m->id, err)) < 0) ||
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
};

static void note_machine(struct kb_vmctl *vm, const char *name, struct known *known)
{
	KB_JSON json_t *json = NULL;
	const json_t *layer;
	size_t i;

	if (kb_machine_json(vm, name, &json, NULL) < 0 || kb_machine_is_remote(json))
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
	KB_JSON json_t *ids = json_object(), *disks = json_object(), *machines = NULL;
	KB_JSON json_t *running = entries_of(vm->run), *files = NULL;
	struct known known = {ids, disks};
	char path[PATH_MAX];
	const char *name;
	json_t *unused;
	int r;

	if ((r = kb_vm_path(vm, path, err, "%s/disks", vm->state)) < 0)
		return r;
	files = entries_of(path);
	if ((r = kb_vm_path(vm, path, err, "%s/machines", vm->state)) < 0)
		return r;
	machines = entries_of(path);
	json_object_foreach(machines, name, unused) note_machine(vm, name, &known);
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

	if (r < 0 || (r = kb_tmp_collect(vm, err)) < 0)
		return r;
	return collect_unknown(vm, err);
}
