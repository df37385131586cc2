#include "freeze.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "files.h"
#include "supervisor/base/fd.h"

#define CANCEL_MS      5000
#define CANCEL_POLL_MS 10
#define BANDWIDTH      (1ll << 40) /* the default throttles to 128 MiB/s */
#define DOWNTIME_MS    300
#define CONVERGE_MS    15000 /* a guest that dirties memory faster than this is stopped */
#define SPACE_SLACK    (64ull << 20)
#define OPEN_MS	       10000

static int set_capability(struct kb_mon *mon, const char *name, bool on, struct kb_err *err)
{
	return kb_mon_call(mon, "migrate-set-capabilities",
		json_pack("{s:[{s:s, s:b}]}", "capabilities", "capability", name, "state", on),
		NULL, err);
}

static int give_fd(struct kb_mon *mon, const char *name, int fd, struct kb_err *err)
{
	return kb_mon_call_fd(mon, "getfd", json_pack("{s:s}", "fdname", name), fd, err);
}

static int fast(struct kb_mon *mon, struct kb_err *err)
{
	return kb_mon_call(mon, "migrate-set-parameters",
		json_pack("{s:I, s:i}", "max-bandwidth", (json_int_t)BANDWIDTH, "downtime-limit",
			DOWNTIME_MS),
		NULL, err);
}

/* ---- in place ---- */

static int manifest_make(
	struct kb_mon *mon, const json_t *words, const char *dir, json_t **ret, struct kb_err *err)
{
	char state[PATH_MAX], ram[PATH_MAX], version[32], hash[KB_HASH_TEXT];
	struct stat state_st, ram_st;
	int r;

	if ((r = kb_vm_path(mon->vm, state, err, "%s/state", dir)) < 0 ||
		(r = kb_vm_path(mon->vm, ram, err, "%s/ram", dir)) < 0 ||
		(r = kb_fsync_path(state, err)) < 0 || (r = kb_fsync_path(ram, err)) < 0 ||
		(r = kb_file_hash(state, hash, err)) < 0 ||
		(r = kb_qemu_version(mon, version, err)) < 0)
		return r;
	if (stat(state, &state_st) < 0 || stat(ram, &ram_st) < 0)
		return kb_err_sys(err, errno, "%s", dir);
	*ret = json_pack("{s:O, s:s, s:I, s:s, s:I}", "words", (json_t *)words, "qemu", version,
		"state_size", (json_int_t)state_st.st_size, "state_sha256", hash, "ram_size",
		(json_int_t)ram_st.st_size);
	return *ret ? 0 : kb_err_nomem(err);
}

static int save_devices(struct kb_mon *mon, const char *dir, struct kb_err *err)
{
	char path[PATH_MAX];
	KB_CLOSE int fd = -1;
	int r = kb_vm_path(mon->vm, path, err, "%s/state", dir);

	if (r < 0)
		return r;
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return kb_err_sys(err, errno, "%s cannot be created", path);
	if ((r = kb_space_check(dir, SPACE_SLACK, err)) == 0 &&
		(r = set_capability(mon, "x-ignore-shared", true, err)) == 0 &&
		(r = give_fd(mon, "state", fd, err)) == 0 &&
		(r = kb_mon_call(
			 mon, "migrate", json_pack("{s:s}", "uri", "fd:state"), NULL, err)) == 0)
		r = kb_mon_migrated(mon, NULL, KB_FREEZE_MS, err);
	if (r < 0)
		unlink(path);
	return r;
}

int kb_freeze(struct kb_mon *mon, const json_t *words, const char *dir, struct kb_err *err)
{
	KB_JSON json_t *manifest = NULL;
	char before[32], path[PATH_MAX];
	int r = kb_mon_status(mon, before, err);

	if (r < 0 || (r = kb_mon_call(mon, "stop", NULL, NULL, err)) < 0)
		return r;
	r = save_devices(mon, dir, err);
	if (r == 0)
		r = manifest_make(mon, words, dir, &manifest, err);
	if (r == 0 && (r = kb_vm_path(mon->vm, path, err, "%s/frozen.json", dir)) == 0)
		r = kb_json_save(path, manifest, err);
	if (r < 0) {
		mon->vm->shielded++;
		if (kb_vm_path(mon->vm, path, NULL, "%s/state", dir) == 0)
			unlink(path);
		if (strcmp(before, "running") == 0)
			kb_mon_call(mon, "cont", NULL, NULL, NULL);
		mon->vm->shielded--;
	}
	return r;
}

/* ---- loading ---- */

static int differs(const char *what, struct kb_err *err)
{
	kb_err_set(err, KB_ERR_REFUSED, "saved memory cannot be loaded: %s", what);
	return kb_err_hint(err,
		"start it with --cold to boot from its disk instead; that drops the "
		"saved memory");
}

int kb_frozen_check(const char *dir, const json_t *words, struct kb_err *err)
{
	KB_FREE char *path = kb_asprintf("%s/frozen.json", dir);
	KB_FREE char *state = kb_asprintf("%s/state", dir);
	KB_FREE char *ram = kb_asprintf("%s/ram", dir);
	KB_JSON json_t *m = NULL;
	char hash[KB_HASH_TEXT];
	struct stat st;
	int r;

	if (!path || !state || !ram)
		return kb_err_nomem(err);
	r = kb_json_load(path, &m, err);
	if (r < 0)
		return r;
	if (!json_equal(json_object_get(m, "words"), (json_t *)words))
		return differs("the machine is defined differently now", err);
	if (stat(ram, &st) < 0 || st.st_size != kb_json_int(m, "ram_size", -1))
		return differs("its memory file is missing or cut", err);
	if (stat(state, &st) < 0 || st.st_size != kb_json_int(m, "state_size", -1))
		return differs("its device state is missing or cut", err);
	r = kb_file_hash(state, hash, err);
	if (r == 0 && strcmp(hash, kb_json_str(m, "state_sha256", "")) != 0)
		return differs("its device state is damaged", err);
	return r;
}

static int version_check(struct kb_mon *mon, const char *dir, struct kb_err *err)
{
	KB_JSON json_t *m = NULL;
	char path[PATH_MAX], now[32], why[128];
	int r;

	if ((r = kb_vm_path(mon->vm, path, err, "%s/frozen.json", dir)) < 0 ||
		(r = kb_json_load(path, &m, err)) < 0 || (r = kb_qemu_version(mon, now, err)) < 0)
		return r;
	if (strcmp(now, kb_json_str(m, "qemu", "")) == 0)
		return 0;
	snprintf(why, sizeof(why), "QEMU %s saved it, and this is %s", kb_json_str(m, "qemu", "?"),
		now);
	return differs(why, err);
}

static int load_devices(struct kb_mon *mon, const char *dir, struct kb_err *err)
{
	char path[PATH_MAX];
	KB_CLOSE int fd = -1;
	int r = kb_vm_path(mon->vm, path, err, "%s/state", dir);

	if (r < 0)
		return r;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return kb_err_sys(err, errno, "%s cannot be read", path);
	if ((r = set_capability(mon, "x-ignore-shared", true, err)) < 0 ||
		(r = give_fd(mon, "state", fd, err)) < 0 ||
		(r = kb_mon_call(mon, "migrate-incoming", json_pack("{s:s}", "uri", "fd:state"),
			 NULL, err)) < 0)
		return r;
	return kb_mon_migrated(mon, NULL, KB_FREEZE_MS, err);
}

int kb_thaw(struct kb_vmctl *vm, const json_t *words, const char *dir, struct kb_qemu_run *run,
	pid_t *ret_pid, struct kb_mon *ret_mon, struct kb_err *err)
{
	char ram[PATH_MAX];
	int r;

	if ((r = kb_frozen_check(dir, words, err)) < 0 ||
		(r = kb_vm_path(vm, ram, err, "%s/ram", dir)) < 0)
		return r;
	run->ram = ram;
	run->ram_shared = false;
	run->incoming = true;
	r = kb_qemu_start(vm, words, run, ret_pid, err);
	run->ram = NULL;
	if (r < 0)
		return r;
	if ((r = kb_mon_open(vm, run->id, "qmp", *ret_pid, OPEN_MS, ret_mon, err)) < 0 ||
		(r = version_check(ret_mon, dir, err)) < 0 ||
		(r = load_devices(ret_mon, dir, err)) < 0) {
		kb_mon_close(ret_mon);
		kb_qemu_kill(vm, run->id, NULL);
	}
	return r;
}

/* ---- from one QEMU to another ---- */

static int connect_both(struct kb_mon *from, struct kb_mon *to, struct kb_err *err)
{
	int pair[2], r = kb_fd_socketpair(false, pair, err);

	if (r < 0)
		return r;
	if ((r = fast(from, err)) == 0 && (r = fast(to, err)) == 0 &&
		(r = set_capability(from, "x-ignore-shared", false, err)) == 0 &&
		(r = set_capability(from, "pause-before-switchover", true, err)) == 0 &&
		(r = give_fd(to, "in", pair[1], err)) == 0 &&
		(r = kb_mon_call(to, "migrate-incoming", json_pack("{s:s}", "uri", "fd:in"), NULL,
			 err)) == 0 &&
		(r = give_fd(from, "out", pair[0], err)) == 0)
		r = kb_mon_call(from, "migrate", json_pack("{s:s}", "uri", "fd:out"), NULL, err);
	close(pair[0]);
	close(pair[1]);
	return r;
}

static int wait_pause(struct kb_mon *from, struct kb_err *err)
{
	struct kb_err late = {0};
	int r = kb_mon_migrated(from, "pre-switchover", CONVERGE_MS, &late);

	if (r == -KB_ERR_TIMEOUT) {
		r = kb_mon_call(from, "stop", NULL, NULL, err);
		return r < 0 ? r : kb_mon_migrated(from, "pre-switchover", KB_MIGRATE_MS, err);
	}
	if (r < 0 && err)
		*err = late;
	return r;
}

void kb_migrate_cancel(struct kb_mon *mon)
{
	static const char *const over[] = {"none", "completed", "failed", "cancelled"};
	int64_t deadline = kb_now_mono() + CANCEL_MS * 1000000ll;

	mon->vm->shielded++;
	kb_mon_call(mon, "migrate_cancel", NULL, NULL, NULL);
	while (kb_now_mono() < deadline) {
		KB_JSON json_t *info = NULL;
		const char *status;

		if (kb_mon_call(mon, "query-migrate", NULL, &info, NULL) < 0)
			break;
		status = kb_json_str(info, "status", "none");
		for (size_t i = 0; i < KB_ARRAY_LEN(over); i++)
			if (strcmp(status, over[i]) == 0)
				deadline = 0;
		if (deadline && kb_op_sleep(mon->vm, CANCEL_POLL_MS, NULL) < 0)
			break;
	}
	mon->vm->shielded--;
}

/* Under the emulator a machine stands still while its memory is copied: what several processors
 * write meanwhile is not always seen as changed (QEMU 7.2), and the copy is of no moment there was.
 */
static int pause_emulated(struct kb_mon *from, int64_t *ret_paused_at, struct kb_err *err)
{
	KB_JSON json_t *kvm = NULL;
	int r = kb_mon_call(from, "query-kvm", NULL, &kvm, err);

	*ret_paused_at = 0;
	if (r < 0 || json_is_true(json_object_get(kvm, "enabled")))
		return r;
	*ret_paused_at = kb_now_mono();
	return kb_mon_call(from, "stop", NULL, NULL, err);
}

int kb_migrate(struct kb_mon *from, struct kb_mon *to, kb_pause_fn at_pause, void *arg,
	int64_t *ret_paused_at, struct kb_err *err)
{
	char before[32];
	int r = kb_mon_status(from, before, err);

	if (r < 0)
		return r;
	if ((r = pause_emulated(from, ret_paused_at, err)) == 0 &&
		(r = connect_both(from, to, err)) == 0 && (r = wait_pause(from, err)) == 0) {
		if (!*ret_paused_at)
			*ret_paused_at = kb_now_mono();
		r = at_pause ? at_pause(arg, err) : 0;
		if (r == 0)
			r = kb_mon_call(from, "migrate-continue",
				json_pack("{s:s}", "state", "pre-switchover"), NULL, err);
		if (r == 0 && (r = kb_mon_migrated(from, NULL, KB_MIGRATE_MS, err)) == 0)
			r = kb_mon_migrated(to, NULL, KB_MIGRATE_MS, err);
	}
	if (r < 0) {
		from->vm->shielded++;
		kb_migrate_cancel(from);
		if (strcmp(before, "running") == 0)
			kb_mon_call(from, "cont", NULL, NULL, NULL);
		from->vm->shielded--;
	}
	return r;
}
