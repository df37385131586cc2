/* What is known of machines: one of them, or all. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "disk.h"
#include "driver/qemu.h"
#include "files.h"
#include "look.h"
#include "machine.h"

#define LIST_MAX 4096

/* What is known of how a machine came to a bad state: a line of a log, where there is one. */
static void say_why(struct kb_vmctl *vm, struct kb_vm_info *info)
{
	static const char *const texts[KB_VM_STATE_MAX_] = {
		[KB_VM_INCOMPLETE] = "its start was interrupted",
		[KB_VM_NO_SPACE] = "this host's disk is full",
		[KB_VM_PANICKED] = "its kernel panicked",
		[KB_VM_CRASHED] = "QEMU was killed, or this host lost power",
		[KB_VM_HUNG] = "QEMU does not answer",
		[KB_VM_DAMAGED] = "its machine.json cannot be read",
	};
	bool panicked = info->state == KB_VM_PANICKED;
	char path[PATH_MAX];
	int r = -1;

	if (info->state == KB_VM_SUSPENDED && info->idle_ms)
		snprintf(info->why, sizeof(info->why), "nobody used it for %lld s",
			(long long)info->idle_ms / 1000);
	if (texts[info->state])
		snprintf(info->why, sizeof(info->why), "%s", texts[info->state]);
	if (panicked)
		r = kb_vm_path(vm, path, NULL, "%s/%s/console.log", vm->run, info->id);
	else if (info->state == KB_VM_CRASHED)
		r = kb_vm_path(vm, path, NULL, "%s/machines/%s/qemu.log", vm->state, info->name);
	if (r == 0)
		kb_file_last_line(
			path, panicked ? "Kernel panic" : NULL, info->why, sizeof(info->why));
}

uint64_t kb_process_memory(pid_t pid)
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
	ret->idle_ms = kb_json_int(json, "idle_ms", 0);
	ret->pid = kb_pid_of(vm, ret->id);
	ret->ssh_port = ret->pid > 0 ? (unsigned)kb_json_int(json, "port", 0) : 0;
	snprintf(ret->host, sizeof(ret->host), "127.0.0.1");
	ret->host_memory = ret->pid > 0 ? kb_process_memory(ret->pid) : 0;
	if (ret->pid > 0 && kb_qemu_has_screen(json_object_get(json, "words")) &&
		snprintf(ret->screen, sizeof(ret->screen), "%s/%s/" KB_QEMU_SCREEN_SOCK, vm->run,
			ret->id) >= (int)sizeof(ret->screen))
		*ret->screen = '\0'; /* no socket has so long a path */
	if (ret->pid > 0)
		kb_disks_of(vm, ret->id, ret);
	ret->disk_bytes = kb_tree_blocks(dir) + kb_tree_blocks(path);
	ret->disk_virtual = kb_qemu_disk_size(path);
	return 0;
}

int kb_machine_info(struct kb_vmctl *vm, const json_t *json, const char *dir,
	struct kb_vm_info *ret, struct kb_err *err)
{
	int r = facts(vm, json, dir, ret, err);

	if (r == 0)
		ret->state = KB_VM_RUNNING;
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
	r = kb_machine_json(vm, name, &json, err);
	if (r == -KB_ERR_INVALID) {
		*ret = (struct kb_vm_info){.state = KB_VM_DAMAGED};
		snprintf(ret->name, sizeof(ret->name), "%s", name);
		return 0;
	}
	if (r < 0 || (r = kb_vm_path(vm, dir, err, "%s/machines/%s", vm->state, name)) < 0 ||
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

	if (r == 0 && runs)
		r = ask_all(vm, live, ret, 1, err);
	if (r == 0)
		say_why(vm, ret);
	return r;
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
	for (size_t i = 0; r == 0 && i < n; i++) {
		say_why(vm, &list[i]);
		fn(&list[i], arg);
	}
	return r;
}
