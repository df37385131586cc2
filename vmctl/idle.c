/* Suspending machines that nobody uses.
 *
 * A machine is in use while its service does not answer (who knows), while it has a TCP connection
 * with anybody but itself (ssh, a forwarded port, what it does on the network), while somebody
 * holds its console or its kbsup-guest, while the caller knows of a session in it, and while its
 * processors are busy. Operations on it count as well. When it was last in use is the time of the
 * file RUN/ID/used, so that it outlives whoever looks, and ends with the machine's process.
 *
 * What was seen a while ago may be over: before a machine is suspended, it is looked at once more
 * under its lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "files.h"
#include "look.h"
#include "machine.h"
#include "pool.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/os.h"

#define KEEPER_LOCK   "keeper@"
#define OPEN_MS	      2000
#define BUSY_PERMILLE 100 /* of one processor: a Debian that waits takes a tenth of it */
#define JUMP_NS	      (5 * 1000000000ll) /* the clock was set, or this host slept */

struct kb_vm_idle {
	struct kb_vmctl *vm;
	json_t *samples;    /* by id: [nanoseconds its processors were busy, when that was] */
	int64_t mono, real; /* of the last round; 0: none yet */
};

/* ---- when it was last in use ---- */

void kb_run_touch(struct kb_vmctl *vm, const char *id)
{
	char path[PATH_MAX];
	KB_CLOSE int fd = -1;

	if (kb_vm_path(vm, path, NULL, "%s/%s/used", vm->run, id) < 0)
		return;
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0)
		(void)futimens(fd, NULL);
}

/* Milliseconds since then. A machine nobody touched is in use since its process began. */
static int64_t unused_ms(struct kb_vmctl *vm, const char *id)
{
	static const char *const files[] = {"used", "pid"};
	char path[PATH_MAX];
	struct stat st;

	for (size_t i = 0; i < KB_ARRAY_LEN(files); i++)
		if (kb_vm_path(vm, path, NULL, "%s/%s/%s", vm->run, id, files[i]) == 0 &&
			stat(path, &st) == 0)
			return (kb_now_real() - kb_os_mtime(&st)) / 1000000;
	return 0;
}

/* ---- whether it is in use now ---- */

/* Somebody holds its console, or speaks to its kbsup-guest. */
static bool is_held(struct kb_vmctl *vm, const char *id)
{
	static const char gone[] = "disconnected:";
	KB_JSON json_t *list = NULL;
	struct kb_mon mon = {0};
	const json_t *one;
	bool held = false;
	size_t i;

	if (kb_mon_open(vm, id, "spare", 0, OPEN_MS, &mon, NULL) < 0 ||
		kb_mon_call(&mon, "query-chardev", NULL, &list, NULL) < 0)
		held = true;
	kb_mon_close(&mon);
	json_array_foreach(list, i, one)
	{
		const char *label = kb_json_str(one, "label", "");

		if ((strcmp(label, "guest") == 0 || strcmp(label, "ser") == 0) &&
			strncmp(kb_json_str(one, "filename", gone), gone, strlen(gone)) != 0)
			held = true;
	}
	return held;
}

/* Busy since the last round. One that was not seen before is. */
static bool is_working(struct kb_vm_idle *idle, const struct kb_vm_info *info)
{
	const json_t *before = json_object_get(idle->samples, info->id);
	int64_t now = kb_now_mono(), was = info->cpu_busy_ns, since = 0;
	json_t *sample;

	if (before) {
		was = json_integer_value(json_array_get(before, 0));
		since = json_integer_value(json_array_get(before, 1));
	}
	sample = json_pack("[I, I]", (json_int_t)info->cpu_busy_ns, (json_int_t)now);
	json_object_set_new(idle->samples, info->id, sample);
	return !since || (info->cpu_busy_ns - was) * 1000 > (now - since) * BUSY_PERMILLE;
}

/* The clock was set or the host slept since the last round: how long anything was unused says
 * nothing then. */
static bool clock_jumped(struct kb_vm_idle *idle)
{
	int64_t mono = kb_now_mono(), real = kb_now_real();
	int64_t jump = idle->mono ? real - idle->real - (mono - idle->mono) : 0;

	idle->mono = mono;
	idle->real = real;
	return jump > JUMP_NS || jump < -JUMP_NS;
}

/* ---- suspending it ---- */

/* The last look, under its lock. */
static bool is_still_idle(struct kb_machine *m, int64_t after_ms)
{
	struct kb_look look = {.id = m->id, .pid = kb_pid_of(m->vm, m->id), .figures = true};
	bool idle;

	if (look.pid <= 0)
		return false;
	kb_look(m->vm, &look, 1, KB_LOOK_CAREFUL_MS);
	idle = look.state == KB_VM_RUNNING && look.stats &&
	       kb_json_int(look.stats, "connections", 1) == 0 && !is_held(m->vm, m->id) &&
	       unused_ms(m->vm, m->id) >= after_ms;
	json_decref(look.stats);
	return idle;
}

static int suspend_idle(
	struct kb_vmctl *vm, const char *name, int64_t after_ms, bool *ret_done, struct kb_err *err)
{
	struct kb_machine m KB_CLEANUP(kb_machine_finish) = {.lock = -1};
	int r;

	*ret_done = false;
	if ((r = kb_vmctl_collect_garbage(vm, err)) < 0 ||
		(r = kb_machine_lock(vm, name, &m, err)) < 0 || !is_still_idle(&m, after_ms))
		return r;
	json_object_set_new(m.json, "idle_ms", json_integer(after_ms));
	if ((r = kb_machine_save(&m, err)) == 0)
		r = kb_machine_suspend(&m, err);
	*ret_done = r == 0;
	if (r == 0)
		return 0;
	json_object_del(m.json, "idle_ms");
	kb_machine_save(&m, NULL);
	kb_run_touch(vm, m.id); /* tried again when it has been idle as long again */
	return r;
}

/* ---- rounds ---- */

struct round {
	struct kb_vm_idle *idle;
	const struct kb_vm_idle_ops *ops;
	void *arg;
	int64_t after_ms;
	bool jumped;
	unsigned watched;
};

static bool is_used(struct round *round, const struct kb_vm_info *info)
{
	return !info->live || is_working(round->idle, info) || info->connections || round->jumped ||
	       round->ops->has_session(info->name, round->arg) ||
	       is_held(round->idle->vm, info->id);
}

static void look_after(const struct kb_vm_info *info, void *arg)
{
	struct round *round = arg;
	struct kb_vmctl *vm = round->idle->vm;
	struct kb_err err = {0};
	bool done;

	if (info->state != KB_VM_RUNNING)
		return;
	round->watched++;
	if (is_used(round, info)) {
		kb_run_touch(vm, info->id);
		return;
	}
	if (vm->cancelled || unused_ms(vm, info->id) < round->after_ms)
		return;
	if (suspend_idle(vm, info->name, round->after_ms, &done, &err) < 0)
		round->ops->suspended(info->name, &err, round->arg);
	else if (done)
		round->ops->suspended(info->name, NULL, round->arg);
	round->watched -= done;
}

int kb_vm_idle_create(struct kb_vmctl *vm, struct kb_vm_idle **ret, struct kb_err *err)
{
	struct kb_vm_idle *idle = calloc(1, sizeof(*idle));

	if (!idle || !(idle->samples = json_object())) {
		free(idle);
		return kb_err_nomem(err);
	}
	idle->vm = vm;
	*ret = idle;
	return 0;
}

void kb_vm_idle_destroy(struct kb_vm_idle *idle)
{
	if (!idle)
		return;
	json_decref(idle->samples);
	free(idle);
}

int kb_vm_idle_round(struct kb_vm_idle *idle, int64_t after_ms, const struct kb_vm_idle_ops *ops,
	void *arg, unsigned *ret_watched, struct kb_err *err)
{
	struct round round = {.idle = idle,
		.ops = ops,
		.arg = arg,
		.after_ms = after_ms,
		.jumped = clock_jumped(idle)};
	int r = kb_vm_list(idle->vm, true, look_after, &round, err);

	*ret_watched = round.watched;
	return r;
}

/* ---- who looks ---- */

int kb_vmctl_keeper_lock(struct kb_vmctl *vm, int64_t wait_ms, int *ret, struct kb_err *err)
{
	return kb_lock_name(vm, KEEPER_LOCK, wait_ms, ret, err);
}

bool kb_vmctl_keeper_missing(struct kb_vmctl *vm)
{
	KB_JSON json_t *running = kb_dir_entries(vm->run), *pool = kb_pool_ids(vm);
	const char *id;
	json_t *unused;

	if (kb_lock_name_held(vm, KEEPER_LOCK))
		return false;
	json_object_foreach(running, id,
		unused) if (kb_pid_of(vm, id) > 0 && !json_object_get(pool, id)) return true;
	return false;
}
