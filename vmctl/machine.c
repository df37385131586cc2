#include "machine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "files.h"
#include "look.h"
#include "supervisor/base/dirs.h"
#include "supervisor/base/fd.h"

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
	[KB_VM_DAMAGED] = "damaged",
	[KB_VM_REMOTE] = "remote",
	[KB_VM_READY] = "ready",
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
	static const char *const subs[] = {
		"", "/bases", "/machines", "/disks", "/luks", "/locks", "/pool", "/tmp"};
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
	vm->output = config->output;
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
	all = kb_dir_entries(dir);
	json_object_foreach(all, one, unused) if (n < CLOSEST_OF) names[n++] = one;
	near = kb_closest(name, names, n);
	if (near)
		return kb_err_hint(err, "did you mean: %s", near);
	return kb_err_hint(err, "kbsup vm list shows them; kbsup vm start %s makes it", name);
}

int kb_machine_json(struct kb_vmctl *vm, const char *name, json_t **ret, struct kb_err *err)
{
	char dir[PATH_MAX], path[PATH_MAX];
	int r;

	if (!kb_name_valid(name))
		return kb_err_set(err, KB_ERR_USAGE, "%s is not a name for a machine", name);
	if ((r = kb_vm_path(vm, dir, err, "%s/machines/%s", vm->state, name)) < 0 ||
		(r = kb_vm_path(vm, path, err, "%s/machine.json", dir)) < 0)
		return r;
	if (access(path, F_OK) == 0)
		return kb_json_load(path, ret, err);
	if (access(dir, F_OK) < 0)
		return no_such(vm, name, err);
	return kb_err_set(err, KB_ERR_INVALID, "%s is missing", path);
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
		ret->damaged = r == -KB_ERR_INVALID;
		if (err)
			*err = why;
		return ret->damaged ? kb_err_hint(err,
					      "nothing can be done with machine %s but to remove "
					      "it: kbsup vm delete %s",
					      name, name)
				    : r;
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

static int socket_path(
	struct kb_vmctl *vm, const char *name, const char *file, char ret[108], struct kb_err *err)
{
	KB_JSON json_t *json = NULL;
	int r = kb_machine_json(vm, name, &json, err);
	const char *id = kb_json_str(json, "id", "");

	if (r < 0)
		return r;
	if (kb_machine_is_remote(json) || kb_pid_of(vm, id) <= 0)
		return kb_err_set(err, KB_ERR_FAILED, "machine %s is not running here", name);
	kb_run_touch(vm, id);
	if (snprintf(ret, 108, "%s/%s/%s", vm->run, id, file) >= 108)
		return kb_err_set(err, KB_ERR_LIMIT, "a socket's path is too long");
	return 0;
}

int kb_vm_console_path(struct kb_vmctl *vm, const char *name, char ret[108], struct kb_err *err)
{
	return socket_path(vm, name, "console.sock", ret, err);
}

int kb_vm_guest_path(struct kb_vmctl *vm, const char *name, char ret[108], struct kb_err *err)
{
	return socket_path(vm, name, "guest.sock", ret, err);
}
