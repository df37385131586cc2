#include "disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent.h"
#include "driver/luks.h"
#include "files.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/os.h"

#define LOCK_MS	  120000
#define LIVE_MS	  700
#define LIST_MAX  1024
#define SPACE_MIN (64ull << 20) /* free here, or nothing is begun that writes */
#define UUID_SIZE 16

static const char *const state_names[KB_DISK_STATE_MAX_] = {
	[KB_DISK_DETACHED] = "detached",
	[KB_DISK_ATTACHED] = "attached",
	[KB_DISK_CHANGING] = "changing",
	[KB_DISK_INCOMPLETE] = "incomplete",
	[KB_DISK_UNCLEAN] = "unclean",
	[KB_DISK_FOREIGN] = "foreign",
};

const char *kb_disk_state_name(enum kb_disk_state state)
{
	return state_names[state];
}

/* ---- one disk -------------------------------------------------------------------------------- */

void kb_disk_finish(struct kb_disk *d)
{
	json_decref(d->json);
	d->json = NULL;
	kb_close(&d->lock);
}

static int check_name(const char *name, struct kb_err *err)
{
	if (kb_name_valid(name))
		return 0;
	return kb_err_set(err, KB_ERR_USAGE, "%s is not a name for a disk", name);
}

static void lock_name(const char *name, char ret[KB_NAME_MAX + 8])
{
	snprintf(ret, KB_NAME_MAX + 8, "disk@%s", name);
}

static int paths(struct kb_vmctl *vm, const char *name, struct kb_disk *d, struct kb_err *err)
{
	int r = check_name(name, err);

	*d = (struct kb_disk){.vm = vm, .lock = -1};
	snprintf(d->name, sizeof(d->name), "%s", name);
	if (r < 0 || (r = kb_vm_path(vm, d->dir, err, "%s/luks/%s", vm->state, name)) < 0)
		return r;
	return kb_vm_path(vm, d->volume, err, "%s/luks/%s/disk.luks", vm->state, name);
}

static int load(struct kb_disk *d, struct kb_err *err)
{
	char path[PATH_MAX];
	int r = kb_vm_path(d->vm, path, err, "%s/disk.json", d->dir);

	if (r < 0)
		return r;
	if (access(path, F_OK) < 0) {
		kb_err_set(err, KB_ERR_NOTFOUND, "there is no disk %s", d->name);
		return kb_err_hint(
			err, "kbsup disk list shows them; kbsup disk create %s makes it", d->name);
	}
	r = kb_json_load(path, &d->json, err);
	if (r == 0)
		d->id = kb_json_str(d->json, "id", "");
	return r;
}

int kb_disk_load(struct kb_vmctl *vm, const char *name, struct kb_disk *ret, struct kb_err *err)
{
	int r = paths(vm, name, ret, err);

	return r < 0 ? r : load(ret, err);
}

int kb_disk_lock(struct kb_vmctl *vm, const char *name, struct kb_disk *ret, struct kb_err *err)
{
	char lock[KB_NAME_MAX + 8];
	int r = paths(vm, name, ret, err);

	lock_name(name, lock);
	if (r < 0 || (r = kb_lock_name(vm, lock, LOCK_MS, &ret->lock, err)) < 0)
		return r;
	r = load(ret, err);
	if (r == -KB_ERR_NOTFOUND)
		kb_lock_name_forget(vm, lock);
	return r;
}

int kb_disk_save(struct kb_disk *d, struct kb_err *err)
{
	char path[PATH_MAX];
	int r = kb_vm_path(d->vm, path, err, "%s/disk.json", d->dir);

	return r < 0 ? r : kb_json_save(path, d->json, err);
}

static enum kb_disk_state state_of(const struct kb_disk *d)
{
	bool open = json_is_true(json_object_get(d->json, "open"));
	bool locked = kb_luks_locked(d->volume);
	char lock[KB_NAME_MAX + 8];

	lock_name(d->name, lock);
	if (d->lock < 0 && kb_lock_name_held(d->vm, lock))
		return KB_DISK_CHANGING;
	if (!locked)
		return open ? KB_DISK_UNCLEAN : KB_DISK_DETACHED;
	if (kb_pid_of(d->vm, kb_json_str(d->json, "machine_id", "@")) <= 0)
		return KB_DISK_FOREIGN;
	return open ? KB_DISK_ATTACHED : KB_DISK_INCOMPLETE;
}

int kb_disk_info(const struct kb_disk *d, struct kb_disk_info *ret, struct kb_err *err)
{
	struct stat st;

	if (stat(d->volume, &st) < 0)
		return kb_err_sys(err, errno, "%s cannot be read", d->volume);
	*ret = (struct kb_disk_info){.state = state_of(d),
		.wanted = json_is_true(json_object_get(d->json, "wanted")),
		.bytes = (uint64_t)kb_json_int(d->json, "bytes", 0),
		.occupied = (uint64_t)st.st_blocks * 512,
		.created_ns = kb_json_int(d->json, "created_ns", 0)};
	snprintf(ret->name, sizeof(ret->name), "%s", d->name);
	snprintf(ret->machine, sizeof(ret->machine), "%s", kb_json_str(d->json, "machine", ""));
	snprintf(ret->place, sizeof(ret->place), "%s",
		kb_json_str(d->json, ret->state == KB_DISK_ATTACHED ? "at" : "place", ""));
	return 0;
}

int kb_disk_key(const struct kb_disk *d, const struct kb_passphrase *passphrase,
	struct kb_diskkey *ret, struct kb_err *err)
{
	struct kb_buf text KB_BUF_CLEANUP;
	char path[PATH_MAX];
	int r;

	kb_buf_init(&text, KB_DISKKEY_BYTES + 1);
	if (!passphrase)
		return kb_err_set(err, KB_ERR_INVALID, "disk %s needs its passphrase", d->name);
	if ((r = kb_vm_path(d->vm, path, err, "%s/" KB_DISKKEY_FILE, d->dir)) < 0 ||
		(r = kb_file_read(path, &text, err)) < 0 ||
		(r = kb_buf_append(&text, "", 1, err)) < 0)
		return r;
	r = kb_diskkey_unseal((const char *)kb_buf_data(&text), passphrase, ret, err);
	return r < 0 ? kb_err_prefix(err, "disk %s", d->name) : 0;
}

static int write_key(struct kb_vmctl *vm, const char *dir, const struct kb_diskkey *key,
	const struct kb_passphrase *passphrase, struct kb_err *err)
{
	KB_FREE char *text = NULL;
	char path[PATH_MAX];
	int r;

	if (passphrase->len == 0)
		return kb_err_set(err, KB_ERR_USAGE, "the passphrase is empty");
	if ((r = kb_vm_path(vm, path, err, "%s/" KB_DISKKEY_FILE, dir)) < 0 ||
		(r = kb_diskkey_seal(key, passphrase, &text, err)) < 0)
		return r;
	return kb_file_write_atomic(path, text, strlen(text), 0600, err);
}

/* ---- making one ------------------------------------------------------------------------------ */

/* Where machines have their own things, nothing is mounted over. */
int kb_disk_check_place(const char *place, struct kb_err *err)
{
	static const char *const taken[] = {"/bin", "/boot", "/dev", "/etc", "/home", "/lib",
		"/lib32", "/lib64", "/libx32", "/mnt", "/proc", "/root", "/run", "/sbin", "/sys",
		"/tmp", "/usr", "/usr/local", "/var"};
	static const char *const below[] = {"/bin/", "/boot/", "/dev/", "/etc/", "/lib/", "/proc/",
		"/run/", "/sbin/", "/sys/", "/usr/bin/", "/usr/lib/", "/usr/sbin/"};
	bool good = place[0] == '/' && place[1] && strlen(place) < PATH_MAX / 2 &&
		    place[strlen(place) - 1] != '/' && !strstr(place, "//") &&
		    !strstr(place, "/./") && !strstr(place, "/../");

	for (size_t i = 0; i < strlen(place); i++)
		good = good && (unsigned char)place[i] >= ' ';
	for (size_t i = 0; i < KB_ARRAY_LEN(taken); i++)
		good = good && strcmp(place, taken[i]) != 0;
	for (size_t i = 0; i < KB_ARRAY_LEN(below); i++)
		good = good && strncmp(place, below[i], strlen(below[i])) != 0;
	if (good)
		return 0;
	kb_err_set(err, KB_ERR_USAGE, "a disk cannot be mounted at %s", place);
	return kb_err_hint(
		err, "an absolute path that is the machine's to give, like /mnt/projects");
}

static int new_record(const struct kb_disk_spec *spec, const char *dir, struct kb_vmctl *vm,
	uint64_t bytes, struct kb_err *err)
{
	KB_FREE char *place =
		spec->place ? strdup(spec->place) : kb_asprintf("/mnt/%s", spec->name);
	KB_JSON json_t *json = NULL;
	char path[PATH_MAX], id[KB_VM_ID_SIZE], uuid[2 * UUID_SIZE + 1];
	uint8_t raw[UUID_SIZE];
	int r;

	if (!place)
		return kb_err_nomem(err);
	if (kb_os_random(raw, sizeof(raw)) < 0)
		return kb_err_sys(err, errno, "no random bytes");
	for (size_t i = 0; i < sizeof(raw); i++)
		snprintf(uuid + 2 * i, 3, "%02x", raw[i]);
	if ((r = kb_disk_check_place(place, err)) < 0 || (r = kb_vm_id_new(id, err)) < 0 ||
		(r = kb_vm_path(vm, path, err, "%s/disk.json", dir)) < 0)
		return r;
	json = json_pack("{s:s, s:s, s:s, s:I, s:s, s:I, s:b, s:b, s:b}", "name", spec->name, "id",
		id, "uuid", uuid, "bytes", (json_int_t)bytes, "place", place, "created_ns",
		(json_int_t)kb_now_real(), "formatted", false, "open", false, "wanted", false);
	return json ? kb_json_save(path, json, err) : kb_err_nomem(err);
}

static int make_in(struct kb_vmctl *vm, const struct kb_disk_spec *spec,
	const struct kb_passphrase *passphrase, const char *dir, struct kb_err *err)
{
	uint64_t bytes = spec->bytes ? spec->bytes : KB_DISK_BYTES;
	struct kb_diskkey key KB_CLEANUP(kb_diskkey_wipe) = {0};
	char volume[PATH_MAX];
	int r;

	if ((r = new_record(spec, dir, vm, bytes, err)) < 0 || (r = kb_diskkey_new(&key, err)) < 0)
		return r;
	kb_op_progress(vm, "key", "guarding its key with the passphrase");
	if ((r = write_key(vm, dir, &key, passphrase, err)) < 0 ||
		(r = kb_vm_path(vm, volume, err, "%s/disk.luks", dir)) < 0)
		return r;
	kb_op_progress(vm, "volume", "making the LUKS volume");
	if ((r = kb_luks_create(vm, volume, bytes, &key, err)) < 0)
		return r;
	return kb_fsync_path(dir, err);
}

static int check_size(uint64_t bytes, struct kb_err *err)
{
	if (bytes == 0 || (bytes >= KB_DISK_BYTES_MIN && bytes <= KB_DISK_BYTES_MAX))
		return 0;
	return kb_err_set(err, KB_ERR_USAGE, "a disk has between %llu MiB and %llu TiB",
		KB_DISK_BYTES_MIN >> 20, KB_DISK_BYTES_MAX >> 40);
}

int kb_disk_may_create(struct kb_vmctl *vm, const struct kb_disk_spec *spec, struct kb_err *err)
{
	struct kb_disk d KB_CLEANUP(kb_disk_finish) = {.lock = -1};
	struct kb_err none = {0};
	int r;

	if ((r = check_name(spec->name, err)) < 0 || (r = check_size(spec->bytes, err)) < 0 ||
		(spec->place && (r = kb_disk_check_place(spec->place, err)) < 0))
		return r;
	if (kb_disk_load(vm, spec->name, &d, &none) == -KB_ERR_NOTFOUND)
		return kb_space_check(vm->state, SPACE_MIN, err);
	kb_err_set(err, KB_ERR_EXISTS, "there is a disk %s already", spec->name);
	return kb_err_hint(err, "kbsup disk list");
}

int kb_disk_create(struct kb_vmctl *vm, const struct kb_disk_spec *spec,
	const struct kb_passphrase *passphrase, struct kb_err *err)
{
	struct kb_disk d KB_CLEANUP(kb_disk_finish) = {.lock = -1};
	char dir[PATH_MAX];
	KB_CLOSE int lock = -1;
	int r;

	if ((r = kb_vmctl_collect_garbage(vm, err)) < 0 ||
		(r = kb_disk_may_create(vm, spec, err)) < 0 ||
		(r = paths(vm, spec->name, &d, err)) < 0 ||
		(r = kb_tmp_create(vm, dir, &lock, err)) < 0)
		return r;
	r = make_in(vm, spec, passphrase, dir, err);
	if (r == 0)
		r = kb_dir_publish(dir, d.dir, err);
	if (r < 0)
		kb_rmtree(dir, NULL);
	return r;
}

/* ---- changing and removing one --------------------------------------------------------------- */

static int refuse_used(const struct kb_disk_info *info, struct kb_err *err)
{
	if (info->state == KB_DISK_DETACHED || info->state == KB_DISK_UNCLEAN)
		return 0;
	if (info->state == KB_DISK_CHANGING)
		return kb_err_set(
			err, KB_ERR_EXISTS, "another operation on disk %s is running", info->name);
	if (info->state == KB_DISK_FOREIGN) {
		kb_err_set(err, KB_ERR_EXISTS,
			"disk %s is in use: a program that is no machine has it open", info->name);
		return kb_err_hint(err, "fuser -v finds it");
	}
	kb_err_set(
		err, KB_ERR_EXISTS, "disk %s is in use by machine %s", info->name, info->machine);
	return kb_err_hint(err, "kbsup disk detach %s", info->name);
}

int kb_disk_refuse_used(const struct kb_disk *d, struct kb_err *err)
{
	struct kb_disk_info info;
	int r = kb_disk_info(d, &info, err);

	return r < 0 ? r : refuse_used(&info, err);
}

int kb_disk_may_attach(
	const struct kb_disk_info *disk, const struct kb_vm_info *machine, struct kb_err *err)
{
	int r = kb_machine_must_run(machine->name, machine->state, err);

	if (r < 0 || disk->state == KB_DISK_CHANGING || strcmp(disk->machine, machine->name) == 0)
		return r;
	return refuse_used(disk, err);
}

int kb_disk_passphrase(struct kb_vmctl *vm, const char *name, const struct kb_passphrase *old,
	const struct kb_passphrase *new, struct kb_err *err)
{
	struct kb_disk d KB_CLEANUP(kb_disk_finish) = {.lock = -1};
	struct kb_diskkey key KB_CLEANUP(kb_diskkey_wipe) = {0};
	int r;

	if ((r = kb_disk_lock(vm, name, &d, err)) < 0 || (r = kb_disk_key(&d, old, &key, err)) < 0)
		return r;
	return write_key(vm, d.dir, &key, new, err);
}

int kb_disk_grow(struct kb_vmctl *vm, const char *name, uint64_t bytes, struct kb_err *err)
{
	struct kb_disk d KB_CLEANUP(kb_disk_finish) = {.lock = -1};
	uint64_t now;
	int r;

	if ((r = check_size(bytes, err)) < 0 || (r = kb_disk_lock(vm, name, &d, err)) < 0 ||
		(r = kb_disk_refuse_used(&d, err)) < 0)
		return r;
	now = (uint64_t)kb_json_int(d.json, "bytes", 0);
	if (bytes < now)
		return kb_err_set(err, KB_ERR_USAGE,
			"disk %s has %llu MiB, and a disk cannot be made smaller", name,
			(unsigned long long)now >> 20);
	if ((r = kb_luks_grow(d.volume, bytes, err)) < 0)
		return r;
	json_object_set_new(d.json, "bytes", json_integer((json_int_t)bytes));
	return kb_disk_save(&d, err);
}

int kb_disk_delete(struct kb_vmctl *vm, const char *name, struct kb_err *err)
{
	struct kb_disk d KB_CLEANUP(kb_disk_finish) = {.lock = -1};
	char tmp[PATH_MAX], gone[PATH_MAX], key[PATH_MAX], lock[KB_NAME_MAX + 8];
	KB_CLOSE int tmp_lock = -1;
	int r;

	if ((r = kb_disk_lock(vm, name, &d, err)) < 0 || (r = kb_disk_refuse_used(&d, err)) < 0 ||
		(r = kb_tmp_create(vm, tmp, &tmp_lock, err)) < 0 ||
		(r = kb_vm_path(vm, gone, err, "%s/disk", tmp)) < 0 ||
		(r = kb_vm_path(vm, key, err, "%s/" KB_DISKKEY_FILE, gone)) < 0)
		return r;
	if (rename(d.dir, gone) < 0)
		return kb_err_sys(err, errno, "%s cannot be removed", d.dir);
	/* First what the rest is worthless without. */
	unlink(key);
	lock_name(name, lock);
	kb_lock_name_forget(vm, lock);
	return kb_rmtree(tmp, err);
}

/* ---- looking --------------------------------------------------------------------------------- */

static void add_live(struct kb_disk *d, struct kb_disk_info *info)
{
	KB_JSON json_t *reply = NULL;
	char serial[KB_LUKS_SERIAL];
	struct kb_agent agent;

	if (info->state != KB_DISK_ATTACHED ||
		kb_agent_open(d->vm, kb_json_str(d->json, "machine_id", ""), &agent, NULL) < 0)
		return;
	kb_luks_serial(d->id, serial);
	if (kb_agent_sync(&agent, LIVE_MS / 2, NULL) == 0 &&
		kb_agent_call(&agent, json_pack("{s:s, s:s}", "op", "disk_stat", "serial", serial),
			LIVE_MS / 2, &reply, NULL) == 0) {
		/* The machine's word: what interrupted operations left is seen here. */
		info->live = json_is_string(json_object_get(reply, "mounted"));
		info->total = (uint64_t)kb_json_int(reply, "total", 0);
		info->free = (uint64_t)kb_json_int(reply, "free", 0);
		if (!info->live)
			info->state = KB_DISK_INCOMPLETE;
	}
	kb_agent_close(&agent);
}

int kb_disk_query(struct kb_vmctl *vm, const char *name, bool live, struct kb_disk_info *ret,
	struct kb_err *err)
{
	struct kb_disk d KB_CLEANUP(kb_disk_finish) = {.lock = -1};
	int r;

	if ((r = kb_disk_load(vm, name, &d, err)) < 0 || (r = kb_disk_info(&d, ret, err)) < 0)
		return r;
	if (live)
		add_live(&d, ret);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static size_t read_names(struct kb_vmctl *vm, char **ret, size_t max)
{
	char dir[PATH_MAX];
	struct dirent *entry;
	size_t n = 0;
	DIR *d;

	if (kb_vm_path(vm, dir, NULL, "%s/luks", vm->state) < 0 || !(d = opendir(dir)))
		return 0;
	while (n < max && (entry = readdir(d)))
		if (kb_name_valid(entry->d_name) && (ret[n] = strdup(entry->d_name)))
			n++;
	closedir(d);
	if (n)
		qsort(ret, n, sizeof(*ret), by_name);
	return n;
}

int kb_disk_each(struct kb_vmctl *vm, kb_disk_each_fn fn, void *arg, struct kb_err *err)
{
	char *names[LIST_MAX];
	size_t n = read_names(vm, names, LIST_MAX);
	int r = 0;

	for (size_t i = 0; i < n; i++) {
		if (r == 0)
			r = fn(vm, names[i], arg, err);
		free(names[i]);
	}
	return r;
}

struct list {
	bool live;
	kb_disk_fn fn;
	void *arg;
};

static int list_one(struct kb_vmctl *vm, const char *name, void *arg, struct kb_err *err)
{
	struct list *list = arg;
	struct kb_disk_info info;

	/* One that goes away meanwhile is not an error. */
	if (kb_disk_query(vm, name, list->live, &info, NULL) == 0)
		list->fn(&info, list->arg);
	return 0;
}

int kb_disk_list(struct kb_vmctl *vm, bool live, kb_disk_fn fn, void *arg, struct kb_err *err)
{
	struct list list = {live, fn, arg};

	return kb_disk_each(vm, list_one, &list, err);
}
