/* Encrypted disks and machines. Attaching is four steps: QEMU opens the volume, plugs it, the
 * machine makes it a file system (the first time), the machine mounts it; detaching is these
 * backwards. disk.json is written before what it tells of begins, so whatever is interrupted, the
 * same command finishes it or `detach` undoes it:
 *
 *	machine     written first, who may have it; QEMU's lock says whether it does
 *	machine_id  the same, until QEMU has closed it again
 *	formatted   written after the file system was made and before anything is put on it
 *	open        true from before it is mounted until after it is unmounted
 */
#include <stdio.h>
#include <string.h>

#include "agent.h"
#include "disk.h"
#include "driver/luks.h"
#include "files.h"
#include "freeze.h"
#include "supervisor/base/fd.h"

#define OPEN_MS	  10000
#define HELLO_MS  5000
#define FORMAT_MS 180000
#define MOUNT_MS  4500000 /* it may be repaired meanwhile */
#define CLOSE_MS  180000  /* what is unwritten has to be written */
#define SPACE_MIN (64ull << 20)
#define USERS_MAX 3 /* named in a message */

/* ---- asking the machine ---------------------------------------------------------------------- */

static bool is_unknown(const struct kb_err *err)
{
	return strstr(err->msg, "unknown operation") != NULL;
}

static int too_old(const struct kb_machine *m, struct kb_err *err)
{
	kb_err_set(err, KB_ERR_FAILED,
		"machine %s is of a base that an older kbsup made, which knows no disks", m->name);
	return kb_err_hint(err, "make the base anew (kbsup vm base create %s), then the machine",
		m->base.name);
}

/* request (consumed) gets the disk's serial number. */
static int ask(struct kb_machine *m, const struct kb_disk *d, json_t *request, int64_t timeout_ms,
	json_t **ret, struct kb_err *err)
{
	char serial[KB_LUKS_SERIAL];
	struct kb_agent agent;
	struct kb_err why = {0};
	int r = kb_agent_open(m->vm, m->id, &agent, err);

	if (r < 0) {
		json_decref(request);
		return r;
	}
	kb_luks_serial(d->id, serial);
	json_object_set_new(request, "serial", json_string(serial));
	r = kb_agent_sync(&agent, HELLO_MS, &why);
	if (r == 0)
		r = kb_agent_call(&agent, KB_STEAL(request), timeout_ms, ret, &why);
	json_decref(request);
	kb_agent_close(&agent);
	if (r < 0 && is_unknown(&why))
		return too_old(m, err);
	if (r < 0 && err)
		*err = why;
	return r;
}

/* "bash (412) is in /mnt/projects, node (77) has … open and 3 more": the machine's words. */
static void users_text(const json_t *busy, char *ret, size_t size)
{
	size_t n = json_array_size(busy), at = 0;

	ret[0] = '\0';
	for (size_t i = 0; i < KB_MIN(n, USERS_MAX) && at < size; i++) {
		const json_t *one = json_array_get(busy, i);
		json_int_t pid = kb_json_int(one, "pid", 0);
		const char *what = kb_json_str(one, "what", "uses it");

		at += (size_t)(pid ? snprintf(ret + at, size - at, "%s%.32s (%lld) %.120s",
					     i ? ", " : "", kb_json_str(one, "name", "?"),
					     (long long)pid, what)
				   : snprintf(
					     ret + at, size - at, "%s%.120s", i ? ", " : "", what));
	}
	if (n > USERS_MAX && at < size)
		snprintf(ret + at, size - at, " and %zu more", n - USERS_MAX);
}

/* The machine lets it go: KB_ERR_EXISTS, with who keeps it, when something does. */
static int guest_close(struct kb_machine *m, struct kb_disk *d, bool now, struct kb_err *err)
{
	KB_JSON json_t *reply = NULL;
	char users[480];
	const json_t *busy;
	int r = ask(m, d, json_pack("{s:s, s:b}", "op", "disk_close", "kill", now), CLOSE_MS,
		&reply, err);

	if (r < 0)
		return r;
	busy = json_object_get(reply, "busy");
	if (!json_is_array(busy))
		return 0;
	users_text(busy, users, sizeof(users));
	kb_err_set(err, KB_ERR_EXISTS, "disk %s is in use in machine %s: %s", d->name, m->name,
		*users ? users : "by what could not be found");
	return kb_err_hint(
		err, "end them, or let kbsup kill them: kbsup disk detach --now %s", d->name);
}

/* ---- attaching ------------------------------------------------------------------------------- */

static int note(struct kb_disk *d, bool open, struct kb_err *err)
{
	json_object_set_new(d->json, "open", json_boolean(open));
	return kb_disk_save(d, err);
}

static int format_once(struct kb_machine *m, struct kb_disk *d, struct kb_err *err)
{
	int r;

	if (json_is_true(json_object_get(d->json, "formatted")))
		return 0;
	kb_op_progress(m->vm, "format", "making a file system on %s", d->name);
	r = ask(m, d,
		json_pack("{s:s, s:s, s:s#}", "op", "disk_format", "uuid",
			kb_json_str(d->json, "uuid", ""), "label", d->name,
			(int)KB_MIN(strlen(d->name), 16u)),
		FORMAT_MS, NULL, err);
	if (r < 0)
		return r;
	json_object_set_new(d->json, "formatted", json_true());
	return kb_disk_save(d, err);
}

static int guest_open(
	struct kb_machine *m, struct kb_disk *d, bool repair, json_t **ret, struct kb_err *err)
{
	const char *damaged;
	int r;

	kb_op_progress(m->vm, "mount", "%s %s in %s",
		repair ? "repairing" : "checking and mounting", d->name, m->name);
	r = ask(m, d,
		json_pack("{s:s, s:s, s:b}", "op", "disk_open", "place",
			kb_json_str(d->json, "at", ""), "repair", repair),
		MOUNT_MS, ret, err);
	damaged = r == 0 ? json_string_value(json_object_get(*ret, "damaged")) : NULL;
	if (r == 0 && json_object_get(*ret, "not_grown"))
		kb_op_progress(m->vm, "grow", "the file system cannot use all of %s: %s", d->name,
			kb_json_str(*ret, "not_grown", ""));
	if (!damaged)
		return r;
	kb_err_set(
		err, KB_ERR_FAILED, "the file system of disk %s is damaged: %s", d->name, damaged);
	return kb_err_hint(err, "keep a copy of %s, then: kbsup disk attach --repair %s %s",
		d->volume, m->name, d->name);
}

/* With keep_node QEMU keeps the volume open, so that giving it back needs no passphrase. */
static int unplug(struct kb_disk *d, struct kb_mon *mon, bool keep_node, struct kb_err *err)
{
	struct kb_luks_parts parts;
	int r = kb_luks_look(mon, d->id, &parts, err);

	if (r == 0 && parts.device)
		r = kb_luks_unplug(mon, d->id, err);
	if (r == 0 && parts.node && !keep_node)
		r = kb_luks_close(mon, d->id, err);
	if (r < 0)
		return r;
	if (!keep_node)
		json_object_set_new(d->json, "machine_id", json_string(""));
	return note(d, false, err);
}

struct attaching {
	struct kb_machine *m;
	struct kb_disk *d;
	struct kb_mon *mon;
	struct kb_luks_parts parts;
	const struct kb_disk_attach *spec;
};

/* Never pulled from a machine that does not say it has let it go. */
static void undo_attach(struct attaching *a)
{
	struct kb_err why = {0};
	int r;

	a->m->vm->shielded++;
	r = guest_close(a->m, a->d, false, &why);
	if (r == 0 || is_unknown(&why) || strstr(why.msg, "knows no disks"))
		r = unplug(a->d, a->mon, false, &why);
	if (r < 0)
		kb_op_progress(a->m->vm, "undo", "%s; kbsup disk detach %s", why.msg, a->d->name);
	a->m->vm->shielded--;
}

static int plug(struct attaching *a, const struct kb_diskkey *key, struct kb_err *err)
{
	int r = 0;

	kb_op_progress(a->m->vm, "plug", "giving %s to %s", a->d->name, a->m->name);
	if (!a->parts.node)
		r = kb_luks_open(
			a->mon, kb_pid_of(a->m->vm, a->m->id), a->d->id, a->d->volume, key, err);
	if (r == 0 && !a->parts.device)
		r = kb_luks_plug(a->mon, a->d->id, err);
	return r;
}

static int name_machine(struct attaching *a, struct kb_err *err)
{
	json_t *json = a->d->json;
	const char *place = a->spec->place;

	json_object_set_new(json, "machine", json_string(a->m->name));
	json_object_set_new(json, "machine_id", json_string(a->m->id));
	if (!a->parts.device || place)
		json_object_set_new(
			json, "at", json_string(place ? place : kb_json_str(json, "place", "")));
	return kb_disk_save(a->d, err);
}

static int mount_it(struct attaching *a, json_t **ret, struct kb_err *err)
{
	int r = format_once(a->m, a->d, err);

	if (r == 0)
		r = note(a->d, true, err);
	if (r == 0)
		r = guest_open(a->m, a->d, a->spec->repair, ret, err);
	if (r < 0)
		return r;
	json_object_set_new(a->d->json, "wanted", json_true());
	json_object_set(a->d->json, "at", json_object_get(*ret, "mounted"));
	return kb_disk_save(a->d, err);
}

static int attach_parts(struct attaching *a, json_t **ret, struct kb_err *err)
{
	struct kb_diskkey key KB_CLEANUP(kb_diskkey_wipe) = {0};
	int r;

	if (!a->parts.node) {
		if ((r = kb_space_check(a->d->dir, SPACE_MIN, err)) < 0 ||
			(r = kb_disk_key(a->d, a->spec->passphrase, &key, err)) < 0)
			return r;
	}
	if ((r = name_machine(a, err)) < 0)
		return r;
	r = plug(a, &key, err);
	if (r == 0)
		r = mount_it(a, ret, err);
	if (r < 0)
		undo_attach(a);
	return r;
}

static const struct {
	enum kb_vm_state state;
	const char *remedy; /* of the machine that is named after it */
} remedies[] = {
	{KB_VM_PAUSED, "let it go on: kbsup vm resume"},
	{KB_VM_NO_SPACE, "make room, then: kbsup vm resume"},
	{KB_VM_PANICKED, "kbsup vm stop"},
	{KB_VM_HUNG, "kbsup vm stop"},
	{KB_VM_STARTING, "wait for it: kbsup vm start"},
};

/* Only a machine that runs can mount and unmount. */
int kb_machine_must_run(const char *name, enum kb_vm_state state, struct kb_err *err)
{
	const char *remedy = "start it first: kbsup vm start";

	if (state == KB_VM_RUNNING)
		return 0;
	for (size_t i = 0; i < KB_ARRAY_LEN(remedies); i++)
		if (remedies[i].state == state)
			remedy = remedies[i].remedy;
	kb_err_set(err, KB_ERR_FAILED, "machine %s is %s", name, kb_vm_state_name(state));
	return kb_err_hint(err, "%s %s", remedy, name);
}

/* Its monitor, once it runs and nothing of an interrupted operation does any more. */
static int open_running(struct kb_machine *m, struct kb_mon *ret, struct kb_err *err)
{
	int r;

	*ret = (struct kb_mon){0};
	if (kb_pid_of(m->vm, m->id) > 0) {
		if ((r = kb_mon_open(m->vm, m->id, "qmp", 0, OPEN_MS, ret, err)) < 0) {
			kb_mon_close(ret);
			return r;
		}
		kb_migrate_cancel(ret);
	}
	r = kb_machine_must_run(m->name, kb_machine_state(m->vm, m->json, m->dir), err);
	if (r < 0)
		kb_mon_close(ret);
	return r;
}

static bool is_of(const struct kb_disk *d, const char *machine_id)
{
	return strcmp(kb_json_str(d->json, "machine_id", ""), machine_id) == 0;
}

/* Somebody else's, or one too many. */
static int may_have(struct attaching *a, struct kb_err *err)
{
	struct kb_vm_info info = {.n_disks = 0};

	if (a->parts.node)
		return 0;
	/* What an interrupted attach wrote, and QEMU does not have. */
	if (is_of(a->d, a->m->id))
		json_object_set_new(a->d->json, "machine_id", json_string(""));
	kb_disks_of(a->m->vm, a->m->id, &info);
	if (info.n_disks == KB_VM_DISKS_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "machine %s has %d disks, and more it cannot",
			a->m->name, KB_VM_DISKS_MAX);
	return kb_disk_refuse_used(a->d, err);
}

int kb_disk_attach(struct kb_vmctl *vm, const struct kb_disk_attach *spec, struct kb_disk_info *ret,
	struct kb_err *err)
{
	struct kb_machine m KB_CLEANUP(kb_machine_finish) = {.lock = -1};
	struct kb_disk d KB_CLEANUP(kb_disk_finish) = {.lock = -1};
	KB_JSON json_t *reply = NULL;
	struct kb_mon mon = {0};
	struct attaching a = {&m, &d, &mon, {0}, spec};
	int r;

	if ((spec->place && (r = kb_disk_check_place(spec->place, err)) < 0) ||
		(r = kb_machine_lock(vm, spec->machine, &m, err)) < 0 ||
		(r = kb_disk_lock(vm, spec->name, &d, err)) < 0 ||
		(r = open_running(&m, &mon, err)) < 0)
		return r;
	if ((r = kb_luks_look(&mon, d.id, &a.parts, err)) == 0 && (r = may_have(&a, err)) == 0)
		r = attach_parts(&a, &reply, err);
	kb_mon_close(&mon);
	if (r < 0 || (r = kb_disk_info(&d, ret, err)) < 0)
		return r;
	kb_run_touch(vm, m.id); /* somebody uses it, as far as idleness goes */
	ret->live = true;
	ret->total = (uint64_t)kb_json_int(reply, "total", 0);
	ret->free = (uint64_t)kb_json_int(reply, "free", 0);
	ret->mended = json_is_true(json_object_get(reply, "mended"));
	return 0;
}

/* ---- detaching ------------------------------------------------------------------------------- */

static int detach(
	struct kb_machine *m, struct kb_disk *d, bool now, bool keep_node, struct kb_err *err)
{
	struct kb_luks_parts parts;
	struct kb_mon mon = {0};
	int r;

	if ((r = open_running(m, &mon, err)) < 0)
		return kb_err_prefix(err, "disk %s cannot be unmounted", d->name);
	r = kb_luks_look(&mon, d->id, &parts, err);
	if (r == 0 && parts.device) {
		kb_op_progress(m->vm, "unmount", "taking %s from %s", d->name, m->name);
		r = guest_close(m, d, now, err);
	}
	if (r == 0)
		r = unplug(d, &mon, keep_node, err);
	kb_mon_close(&mon);
	return r;
}

static int forget_machine(struct kb_disk *d, struct kb_err *err)
{
	json_object_set_new(d->json, "wanted", json_false());
	return kb_disk_save(d, err);
}

static int detach_locked(struct kb_machine *m, struct kb_disk *d, bool now, struct kb_err *err)
{
	int r = 0;

	if (m->json && is_of(d, m->id) && kb_pid_of(m->vm, m->id) > 0 && kb_luks_locked(d->volume))
		r = detach(m, d, now, false, err);
	else
		r = kb_disk_refuse_used(d, err);
	return r < 0 ? r : forget_machine(d, err);
}

int kb_disk_detach(struct kb_vmctl *vm, const char *name, bool now, struct kb_err *err)
{
	struct kb_machine m KB_CLEANUP(kb_machine_finish) = {.lock = -1};
	struct kb_disk d KB_CLEANUP(kb_disk_finish) = {.lock = -1};
	struct kb_disk seen KB_CLEANUP(kb_disk_finish) = {.lock = -1};
	const char *machine;
	int r;

	if ((r = kb_disk_load(vm, name, &seen, err)) < 0)
		return r;
	/* The machine's lock comes first; which machine, is seen before either is held. */
	machine = kb_json_str(seen.json, "machine", "");
	if (*machine && (r = kb_machine_lock(vm, machine, &m, err)) < 0 && r != -KB_ERR_NOTFOUND)
		return r;
	if ((r = kb_disk_lock(vm, name, &d, err)) < 0)
		return r;
	if (strcmp(kb_json_str(d.json, "machine", ""), machine) != 0)
		return kb_err_set(
			err, KB_ERR_FAILED, "disk %s went to another machine meanwhile", name);
	return detach_locked(&m, &d, now, err);
}

/* ---- for operations on machines -------------------------------------------------------------- */

typedef int (*own_fn)(struct kb_machine *m, struct kb_disk *d, void *arg, struct kb_err *err);

struct own {
	struct kb_machine *m;
	own_fn fn;
	void *arg;
};

static bool was_of(const struct kb_disk *d, const struct kb_machine *m)
{
	return strcmp(kb_json_str(d->json, "machine", ""), m->name) == 0;
}

static bool has_now(const struct kb_disk *d, const struct kb_machine *m)
{
	return is_of(d, m->id) && kb_luks_locked(d->volume);
}

static int one_of_own(struct kb_vmctl *vm, const char *name, void *arg, struct kb_err *err)
{
	struct kb_disk d KB_CLEANUP(kb_disk_finish) = {.lock = -1};
	struct own *own = arg;
	int r;

	if (kb_disk_load(vm, name, &d, NULL) < 0 || !was_of(&d, own->m))
		return 0;
	kb_disk_finish(&d);
	if ((r = kb_disk_lock(vm, name, &d, err)) < 0)
		return r == -KB_ERR_NOTFOUND ? 0 : r;
	return was_of(&d, own->m) ? own->fn(own->m, &d, own->arg, err) : 0;
}

/* fn, with the disk locked, for each that is, or was last, of a machine of that name. fn may steal
 * it. */
static int each_own(struct kb_machine *m, own_fn fn, void *arg, struct kb_err *err)
{
	struct own own = {m, fn, arg};

	return kb_disk_each(m->vm, one_of_own, &own, err);
}

static int park_one(struct kb_machine *m, struct kb_disk *d, void *arg, struct kb_err *err)
{
	struct kb_disks_parked *parked = arg;
	int r;

	if (!has_now(d, m) || parked->n == KB_VM_DISKS_MAX)
		return 0;
	r = detach(m, d, false, true, err);
	if (r < 0)
		return r;
	parked->disks[parked->n++] = *d;
	*d = (struct kb_disk){.lock = -1};
	return 0;
}

int kb_disks_park(struct kb_machine *m, struct kb_disks_parked *ret, struct kb_err *err)
{
	int r;

	ret->n = 0;
	r = each_own(m, park_one, ret, err);
	if (r < 0)
		kb_disks_unpark(m, ret);
	return r;
}

static int unpark_one(struct kb_machine *m, struct kb_disk *d, struct kb_err *err)
{
	static const struct kb_disk_attach plain = {.repair = false};
	KB_JSON json_t *reply = NULL;
	struct kb_mon mon = {0};
	struct attaching a = {m, d, &mon, {.node = true}, &plain};
	int r = kb_mon_open(m->vm, m->id, "qmp", 0, OPEN_MS, &mon, err);

	if (r < 0)
		return r;
	r = kb_luks_look(&mon, d->id, &a.parts, err);
	if (r == 0 && !a.parts.node)
		r = kb_err_set(err, KB_ERR_CLOSED, "QEMU has it no longer");
	if (r == 0)
		r = plug(&a, NULL, err);
	if (r == 0)
		r = mount_it(&a, &reply, err);
	kb_mon_close(&mon);
	return r;
}

void kb_disks_unpark(struct kb_machine *m, struct kb_disks_parked *parked)
{
	m->vm->shielded++;
	for (size_t i = 0; i < parked->n; i++) {
		struct kb_err why = {0};

		if (unpark_one(m, &parked->disks[i], &why) < 0)
			kb_op_progress(m->vm, "disk",
				"%s could not be given back (%s): kbsup disk attach %s %s",
				parked->disks[i].name, why.msg, m->name, parked->disks[i].name);
	}
	m->vm->shielded--;
	kb_disks_parked_finish(parked);
}

void kb_disks_parked_finish(struct kb_disks_parked *parked)
{
	for (size_t i = 0; i < parked->n; i++)
		kb_disk_finish(&parked->disks[i]);
	parked->n = 0;
}

static int release_one(struct kb_machine *m, struct kb_disk *d, void *arg, struct kb_err *err)
{
	const bool *now = arg;
	struct kb_err why = {0};

	if (has_now(d, m) && detach(m, d, *now, false, &why) < 0)
		kb_op_progress(m->vm, "disk", "%s", why.msg);
	return 0;
}

void kb_disks_release(struct kb_machine *m, bool now)
{
	each_own(m, release_one, &now, NULL);
}

static int end_one(struct kb_machine *m, struct kb_disk *d, void *arg, struct kb_err *err)
{
	return is_of(d, m->id) && json_is_true(json_object_get(d->json, "open"))
		       ? note(d, false, err)
		       : 0;
}

void kb_disks_ended(struct kb_machine *m)
{
	each_own(m, end_one, NULL, NULL);
}

static int forget_one(struct kb_machine *m, struct kb_disk *d, void *arg, struct kb_err *err)
{
	return forget_machine(d, err);
}

void kb_disks_forget(struct kb_machine *m)
{
	each_own(m, forget_one, NULL, NULL);
}

struct names {
	const char *machine_id;
	struct kb_vm_info *info;
};

static int add_name(struct kb_vmctl *vm, const char *name, void *arg, struct kb_err *err)
{
	struct kb_disk d KB_CLEANUP(kb_disk_finish) = {.lock = -1};
	struct names *names = arg;

	if (names->info->n_disks < KB_VM_DISKS_MAX && kb_disk_load(vm, name, &d, NULL) == 0 &&
		is_of(&d, names->machine_id) && kb_luks_locked(d.volume))
		snprintf(names->info->disks[names->info->n_disks++], KB_NAME_MAX, "%s", name);
	return 0;
}

void kb_disks_of(struct kb_vmctl *vm, const char *machine_id, struct kb_vm_info *ret)
{
	struct names names = {machine_id, ret};

	ret->n_disks = 0;
	kb_disk_each(vm, add_name, &names, NULL);
}
