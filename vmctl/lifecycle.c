/* Stopping, suspending, resuming and deleting machines, and the small changes to living ones. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent.h"
#include "disk.h"
#include "driver/qemu.h"
#include "files.h"
#include "freeze.h"
#include "machine.h"
#include "supervisor/base/fd.h"

#define OPEN_MS	      10000
#define HELLO_MS      1500
#define SHUTDOWN_MS   30000 /* for the guest to shut down, once it was asked */
#define POWERDOWN_MS  15000
#define QUIT_MS	      5000
#define EXEC_SLACK_MS 5000
#define PORT_MAX      65535
#define KEY_MAX	      4096

static const char *const memory_dirs[] = {"suspended", "memory"};

static int drop_memory(struct kb_machine *m, struct kb_err *err)
{
	int r = 0;

	for (size_t i = 0; i < KB_ARRAY_LEN(memory_dirs) && r == 0; i++) {
		char path[PATH_MAX];

		r = kb_machine_path(m, memory_dirs[i], path, err);
		if (r == 0)
			r = kb_rmtree(path, err);
	}
	return r;
}

/* ---- stop ---- */

static int ask_guest(struct kb_machine *m, struct kb_err *err)
{
	struct kb_agent agent;
	int r = kb_agent_open(m->vm, m->id, &agent, err);

	if (r < 0)
		return r;
	r = kb_agent_sync(&agent, HELLO_MS, err);
	if (r == 0)
		r = kb_agent_call(
			&agent, json_pack("{s:s}", "op", "shutdown"), HELLO_MS * 4, NULL, err);
	kb_agent_close(&agent);
	return r;
}

static int ask_monitor(struct kb_machine *m, const char *command, struct kb_err *err)
{
	struct kb_mon mon = {0};
	int r = kb_mon_open(m->vm, m->id, "qmp", 0, OPEN_MS, &mon, err);

	if (r == 0)
		r = kb_mon_call(&mon, command, NULL, NULL, err);
	kb_mon_close(&mon);
	return r;
}

static int ask_powerdown(struct kb_machine *m, struct kb_err *err)
{
	return ask_monitor(m, "system_powerdown", err);
}

static int ask_quit(struct kb_machine *m, struct kb_err *err)
{
	return ask_monitor(m, "quit", err);
}

static int force(struct kb_machine *m, struct kb_err *err)
{
	return kb_qemu_kill(m->vm, m->id, err);
}

/* From the gentlest to the last; each is given its time, then the next is tried. */
static const struct {
	const char *step, *detail;
	int (*fn)(struct kb_machine *m, struct kb_err *err);
	int64_t wait_ms;
	bool graceful;
} stages[] = {
	{"shutdown", "asking the machine to shut down", ask_guest, SHUTDOWN_MS, true},
	{"powerdown", "pressing its power button", ask_powerdown, POWERDOWN_MS, true},
	{"quit", "telling QEMU to end", ask_quit, QUIT_MS, false},
	{"kill", "killing QEMU", force, QUIT_MS, false},
};

static int stop_process(struct kb_machine *m, bool now, struct kb_err *err)
{
	bool executes = kb_machine_state(m->vm, m->json, m->dir) == KB_VM_RUNNING;

	for (size_t i = 0; i < KB_ARRAY_LEN(stages); i++) {
		struct kb_err why = {0};
		int r;

		if (kb_pid_of(m->vm, m->id) <= 0)
			break;
		/* Who does not execute hears no request. */
		if (stages[i].graceful && (now || !executes))
			continue;
		kb_op_progress(m->vm, stages[i].step, "%s", stages[i].detail);
		r = stages[i].fn(m, &why);
		if (r == 0 || r == -KB_ERR_CLOSED)
			r = kb_qemu_wait_end(m->vm, m->id, stages[i].wait_ms, &why);
		if (r == 0 && stages[i].graceful)
			kb_disks_ended(m);
		if (r < 0)
			kb_op_progress(m->vm, stages[i].step, "%s", why.msg);
		if (m->vm->cancelled)
			return kb_err_set(err, KB_ERR_CLOSED, "stopping %s: cancelled", m->name);
	}
	/* Verified, not assumed; this also clears the sockets away. */
	if (kb_pid_of(m->vm, m->id) > 0)
		return kb_err_set(err, KB_ERR_TIMEOUT, "QEMU of %s (%d) cannot be ended", m->name,
			kb_pid_of(m->vm, m->id));
	return kb_qemu_kill(m->vm, m->id, err);
}

int kb_vm_stop(struct kb_vmctl *vm, const char *name, bool now, struct kb_err *err)
{
	struct kb_machine m KB_CLEANUP(kb_machine_finish) = {.lock = -1};
	int r;

	if ((r = kb_machine_lock(vm, name, &m, err)) < 0)
		return r;
	kb_disks_release(&m, now);
	if ((r = stop_process(&m, now, err)) < 0)
		return r;
	return drop_memory(&m, err);
}

int kb_vm_delete(struct kb_vmctl *vm, const char *name, struct kb_err *err)
{
	struct kb_machine m KB_CLEANUP(kb_machine_finish) = {.lock = -1};
	struct kb_err why = {0};
	int r = kb_machine_claim(vm, name, &m, &why);

	if (r < 0 && !m.damaged) {
		if (err)
			*err = why;
		return r;
	}
	if (!m.json && !m.damaged) {
		kb_machine_finish(&m);
		return kb_machine_lock(vm, name, &m, err); /* says so */
	}
	if (m.json && !kb_machine_is_remote(m.json))
		kb_disks_release(&m, true);
	kb_disks_forget(&m);
	if ((r = kb_machine_remove(&m, err)) < 0)
		return r;
	kb_machine_finish(&m);
	if ((r = kb_vmctl_collect_garbage(vm, err)) < 0)
		return r;
	return kb_base_collect(vm, err);
}

/* ---- suspend and resume ---- */

struct suspend {
	struct kb_machine *m;
	char dir[PATH_MAX];
	const char *id; /* of the twin */
	struct kb_mon from, to;
};

static int start_twin(struct suspend *s, struct kb_err *err)
{
	struct kb_machine_paths paths;
	struct kb_qemu_run run;
	char ram[PATH_MAX], log[PATH_MAX];
	pid_t pid;
	int r;

	if ((r = kb_machine_run(s->m, &paths, &run, err)) < 0 ||
		(r = kb_vm_path(s->m->vm, ram, err, "%s/ram", s->dir)) < 0 ||
		(r = kb_vm_path(s->m->vm, log, err, "%s/qemu.log", s->dir)) < 0)
		return r;
	run.id = s->id;
	run.log = log;
	run.ram = ram;
	run.ram_shared = run.incoming = true;
	run.bridge = NULL;
	r = kb_qemu_start(s->m->vm, json_object_get(s->m->json, "words"), &run, &pid, err);
	return r < 0 ? r : kb_mon_open(s->m->vm, s->id, "qmp", pid, OPEN_MS, &s->to, err);
}

/* The twin holds everything now: save it, and only then let the machine's own process go. */
static int save_twin(struct suspend *s, struct kb_err *err)
{
	char to[PATH_MAX];
	int r;

	kb_op_progress(s->m->vm, "save", "writing its memory to the disk");
	if ((r = kb_freeze(&s->to, json_object_get(s->m->json, "words"), s->dir, err)) < 0 ||
		(r = kb_mon_call(&s->to, "quit", NULL, NULL, err)) < 0 ||
		(r = kb_qemu_wait_end(s->m->vm, s->id, QUIT_MS, err)) < 0 ||
		(r = kb_machine_path(s->m, "suspended", to, err)) < 0)
		return r;
	return kb_dir_publish(s->dir, to, err);
}

static void undo_suspend(struct suspend *s)
{
	s->m->vm->shielded++;
	kb_mon_close(&s->to);
	kb_qemu_kill(s->m->vm, s->id, NULL);
	kb_mon_call(&s->from, "cont", NULL, NULL, NULL);
	s->m->vm->shielded--;
}

static int suspend(struct suspend *s, struct kb_err *err)
{
	int64_t since;
	int r;

	/* Migration writes what is not zero; at most all of it. */
	r = kb_space_check(s->dir, (uint64_t)kb_json_int(s->m->json, "memory_mib", 0) << 20, err);
	if (r < 0 || (r = start_twin(s, err)) < 0)
		return r;
	kb_op_progress(s->m->vm, "move", "copying the memory of %s", s->m->name);
	r = kb_mon_open(s->m->vm, s->m->id, "qmp", 0, OPEN_MS, &s->from, err);
	if (r < 0)
		return r;
	if ((r = kb_migrate(&s->from, &s->to, NULL, NULL, &since, err)) < 0 ||
		(r = save_twin(s, err)) < 0)
		undo_suspend(s);
	return r;
}

int kb_machine_suspend(struct kb_machine *m, struct kb_err *err)
{
	struct suspend s = {.m = m};
	struct kb_disks_parked parked;
	char path[PATH_MAX];
	KB_CLOSE int lock = -1;
	int r;

	if ((r = kb_tmp_create(m->vm, s.dir, &lock, err)) < 0)
		return r;
	s.id = kb_tmp_id(s.dir);
	r = kb_disks_park(m, &parked, err);
	if (r == 0 && (r = suspend(&s, err)) < 0)
		kb_disks_unpark(m, &parked);
	kb_disks_parked_finish(&parked);
	kb_mon_close(&s.from);
	kb_mon_close(&s.to);
	kb_qemu_kill(m->vm, s.id, NULL);
	if (r < 0) {
		kb_rmtree(s.dir, NULL);
		return r;
	}
	/* It is suspended whatever happens now; the old process is only in the way. */
	r = kb_qemu_kill(m->vm, m->id, err);
	if (r == 0 && kb_machine_path(m, "memory", path, NULL) == 0)
		r = kb_rmtree(path, err);
	return r;
}

int kb_vm_suspend(struct kb_vmctl *vm, const char *name, struct kb_err *err)
{
	struct kb_machine m KB_CLEANUP(kb_machine_finish) = {.lock = -1};
	enum kb_vm_state state;
	int r;

	if ((r = kb_vmctl_collect_garbage(vm, err)) < 0 ||
		(r = kb_machine_lock(vm, name, &m, err)) < 0)
		return r;
	state = kb_machine_state(vm, m.json, m.dir);
	if (state == KB_VM_SUSPENDED)
		return 0;
	if (state != KB_VM_RUNNING && state != KB_VM_PAUSED) {
		kb_err_set(err, KB_ERR_FAILED, "machine %s is %s, so it cannot be suspended", name,
			kb_vm_state_name(state));
		return kb_err_hint(err, "kbsup vm status %s", name);
	}
	return kb_machine_suspend(&m, err);
}

int kb_vm_resume(struct kb_vmctl *vm, const char *name, struct kb_vm_info *ret, struct kb_err *err)
{
	struct kb_vm_spec spec = {.name = name};
	KB_JSON json_t *json = NULL;
	char dir[PATH_MAX];
	enum kb_vm_state state;
	int r;

	/* Unlike start, it makes and boots nothing. */
	if ((r = kb_machine_json(vm, name, &json, err)) < 0 ||
		(r = kb_vm_path(vm, dir, err, "%s/machines/%s", vm->state, name)) < 0)
		return r;
	state = kb_machine_state(vm, json, dir);
	if (state == KB_VM_STOPPED || state == KB_VM_CRASHED || state == KB_VM_INCOMPLETE) {
		kb_err_set(err, KB_ERR_FAILED, "machine %s is %s: there is nothing to resume", name,
			kb_vm_state_name(state));
		return kb_err_hint(err, "boot it: kbsup vm start %s", name);
	}
	return kb_vm_start(vm, &spec, ret, err);
}

/* ---- small changes ---- */

int kb_vm_network(struct kb_vmctl *vm, const char *name, bool isolated, const char *bridge,
	struct kb_err *err)
{
	struct kb_machine m KB_CLEANUP(kb_machine_finish) = {.lock = -1};
	int r = kb_machine_lock(vm, name, &m, err);

	if (r < 0)
		return r;
	if (bridge && (strlen(bridge) > 15 || !kb_name_valid(bridge)))
		return kb_err_set(err, KB_ERR_USAGE, "%s is not a bridge's name", bridge);
	if (kb_pid_of(vm, m.id) > 0) {
		kb_err_set(err, KB_ERR_FAILED,
			"machine %s is running: its network is changed while it is stopped", name);
		return kb_err_hint(err, "kbsup vm stop %s", name);
	}
	json_object_set_new(m.json, "isolated", json_boolean(isolated));
	if (bridge)
		json_object_set_new(m.json, "bridge", json_string(bridge));
	else
		json_object_del(m.json, "bridge");
	return kb_machine_save(&m, err);
}

int kb_vm_forward(struct kb_vmctl *vm, const char *name, unsigned host_port, unsigned guest_port,
	unsigned *ret_port, struct kb_err *err)
{
	struct kb_machine m KB_CLEANUP(kb_machine_finish) = {.lock = -1};
	struct kb_mon mon = {0};
	int r = kb_machine_lock(vm, name, &m, err);

	if (r < 0)
		return r;
	if (host_port > PORT_MAX || guest_port == 0 || guest_port > PORT_MAX)
		return kb_err_set(err, KB_ERR_USAGE, "a port is between 1 and %d", PORT_MAX);
	if (kb_pid_of(vm, m.id) <= 0)
		return kb_err_set(err, KB_ERR_FAILED, "machine %s is not running", name);
	*ret_port = host_port;
	kb_run_touch(vm, m.id);
	if ((r = kb_mon_open(vm, m.id, "qmp", 0, OPEN_MS, &mon, err)) == 0)
		r = kb_machine_forward(&mon, ret_port, guest_port, err);
	kb_mon_close(&mon);
	return r;
}

int kb_vm_ssh_files(struct kb_vmctl *vm, const char *name, char ret_key[PATH_MAX],
	char ret_known[PATH_MAX], struct kb_err *err)
{
	struct kb_buf key KB_BUF_CLEANUP, line KB_BUF_CLEANUP;
	KB_JSON json_t *json = NULL;
	char path[PATH_MAX];
	int r;

	kb_buf_init(&key, KEY_MAX);
	kb_buf_init(&line, KEY_MAX + KB_NAME_MAX);
	if ((r = kb_machine_json(vm, name, &json, err)) < 0 ||
		(r = kb_vm_path(vm, path, err, "%s/machines/%s/host_key.pub", vm->state, name)) <
			0 ||
		(r = kb_vm_path(vm, ret_key, err, "%s/client_key", vm->state)) < 0 ||
		(r = kb_vm_path(
			 vm, ret_known, err, "%s/machines/%s/known_hosts", vm->state, name)) < 0 ||
		(r = kb_file_read(path, &key, err)) < 0 ||
		(r = kb_buf_printf(&line, err, "%s.kbsup ", name)) < 0 ||
		(r = kb_buf_append(&line, kb_buf_data(&key), kb_buf_len(&key), err)) < 0)
		return r;
	if (kb_machine_is_remote(json))
		snprintf(ret_key, PATH_MAX, "%s", kb_json_str(json, "key", ""));
	return kb_file_write_atomic(ret_known, kb_buf_data(&line), kb_buf_len(&line), 0600, err);
}

/* ---- commands ---- */

int kb_vm_exec(struct kb_vmctl *vm, const char *name, const char *const *argv, int timeout_ms,
	int *ret_exit, char **ret_out, char **ret_err, struct kb_err *err)
{
	KB_JSON json_t *json = NULL, *reply = NULL;
	json_t *words = json_array();
	struct kb_agent agent;
	int r = kb_machine_json(vm, name, &json, err);

	for (size_t i = 0; argv[i]; i++)
		json_array_append_new(words, json_string(argv[i]));
	if (r == 0) {
		kb_run_touch(vm, kb_json_str(json, "id", ""));
		r = kb_agent_open(vm, kb_json_str(json, "id", ""), &agent, err);
	}
	if (r < 0) {
		json_decref(words);
		return r;
	}
	r = kb_agent_sync(&agent, HELLO_MS, err);
	if (r == 0)
		r = kb_agent_call(&agent,
			json_pack("{s:s, s:o, s:i}", "op", "exec", "argv", json_incref(words),
				"timeout_ms", timeout_ms),
			timeout_ms + EXEC_SLACK_MS, &reply, err);
	json_decref(words);
	kb_agent_close(&agent);
	if (r < 0)
		return r;
	*ret_exit = (int)kb_json_int(reply, "exit", -1);
	*ret_out = kb_agent_bytes(kb_json_str(reply, "out", ""), NULL);
	*ret_err = kb_agent_bytes(kb_json_str(reply, "err", ""), NULL);
	return 0;
}
