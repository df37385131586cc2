#include "luks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/os.h"
#include "vmctl/files.h"

#define CREATE_MS    60000
#define CREATE_TRIES 64
#define GONE_MS	     10000
#define POLL_MS	     5
/* The key is random, so QEMU need not make guessing it slow; it wants to measure something. */
#define ITER_MS 10
/* QEMU's image locks are on these bytes: "may write" is 100 + 1, "others may not" from 200. See
 * block/file-posix.c. */
#define LOCK_START 100
#define LOCK_LEN   200

static void node_name(const char *id, char ret[32])
{
	snprintf(ret, 32, "kbd-%s", id);
}

void kb_luks_serial(const char *id, char ret[KB_LUKS_SERIAL])
{
	snprintf(ret, KB_LUKS_SERIAL, "kbsup-%s", id);
}

/* ---- the file -------------------------------------------------------------------------------- */

/* A pipe that already holds the key, for a program that reads it from its standard input. */
static int key_pipe(const struct kb_diskkey *key, int *ret, struct kb_err *err)
{
	int ends[2], r;

	if (kb_os_pipe(ends, false) < 0)
		return kb_err_sys(err, errno, "no pipe");
	r = kb_fd_write_all(ends[1], key->text, strlen(key->text), err);
	close(ends[1]);
	if (r < 0)
		close(ends[0]);
	else
		*ret = ends[0];
	return r;
}

static int create_once(struct kb_vmctl *vm, const char *path, uint64_t bytes,
	const struct kb_diskkey *key, struct kb_err *err)
{
	char size[32], options[64];
	const char *const argv[] = {"qemu-img", "create", "-q", "-f", "luks", "--object",
		"secret,id=key,file=/dev/stdin", "-o", options, path, size, NULL};
	KB_CLOSE int input = -1;
	int r = key_pipe(key, &input, err);

	snprintf(size, sizeof(size), "%llu", (unsigned long long)bytes);
	snprintf(options, sizeof(options), "key-secret=key,iter-time=%d", ITER_MS);
	return r < 0 ? r : kb_op_run_input(vm, NULL, argv, input, CREATE_MS, err);
}

int kb_luks_create(struct kb_vmctl *vm, const char *path, uint64_t bytes,
	const struct kb_diskkey *key, struct kb_err *err)
{
	struct kb_err why = {0};
	int r = -KB_ERR_FAILED;

	/* Before 9.1 it measures with the scheduler's clock, and gives up when that did not tick
	 * meanwhile ("Unable to get accurate CPU usage"). */
	for (int i = 0; i < CREATE_TRIES && r < 0; i++) {
		r = create_once(vm, path, bytes, key, &why);
		if (r < 0 && !strstr(why.msg, "CPU usage"))
			break;
	}
	if (r < 0) {
		unlink(path);
		if (err)
			*err = why;
		return r;
	}
	if (chmod(path, 0600) < 0)
		return kb_err_sys(err, errno, "%s cannot be closed to others", path);
	return kb_fsync_path(path, err);
}

/* A volume reaches from where its header says (in sectors, as a big-endian number at 104; see the
 * LUKS1 on-disk format) to the end of the file. */
int kb_luks_grow(const char *path, uint64_t bytes, struct kb_err *err)
{
	KB_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
	uint8_t b[4];
	uint64_t start;

	if (fd < 0 || pread(fd, b, sizeof(b), 104) != sizeof(b))
		return kb_err_sys(err, errno ? errno : EIO, "%s cannot be read", path);
	start = 512 * ((uint64_t)b[0] << 24 | b[1] << 16 | b[2] << 8 | b[3]);
	if (ftruncate(fd, (off_t)(start + bytes)) < 0 || fsync(fd) < 0)
		return kb_err_sys(err, errno, "%s cannot be made larger", path);
	return 0;
}

bool kb_luks_locked(const char *path)
{
	struct flock lock = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_START, .l_len = LOCK_LEN};
	KB_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);

	return fd >= 0 && fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/* ---- a running QEMU -------------------------------------------------------------------------- */

/* Whether a list of objects has one whose `key` is that name. */
static int listed(struct kb_mon *mon, const char *command, json_t *args, const char *key,
	const char *name, bool *ret, struct kb_err *err)
{
	KB_JSON json_t *list = NULL;
	const json_t *one;
	size_t i;
	int r = kb_mon_call(mon, command, args, &list, err);

	*ret = false;
	json_array_foreach(list, i, one) if (strcmp(kb_json_str(one, key, ""), name) == 0) *ret =
		true;
	return r;
}

int kb_luks_look(struct kb_mon *mon, const char *id, struct kb_luks_parts *ret, struct kb_err *err)
{
	char name[32];
	int r;

	node_name(id, name);
	r = listed(mon, "query-named-block-nodes", json_pack("{s:b}", "flat", true), "node-name",
		name, &ret->node, err);
	if (r < 0)
		return r;
	return listed(mon, "qom-list", json_pack("{s:s}", "path", "/machine/peripheral"), "name",
		name, &ret->device, err);
}

static int open_node(struct kb_mon *mon, const char *name, const char *path, const char *secret,
	struct kb_err *err)
{
	return kb_mon_call(mon, "blockdev-add",
		json_pack("{s:s, s:s, s:s, s:{s:s, s:s}}", "driver", "luks", "node-name", name,
			"key-secret", secret, "file", "driver", "file", "filename", path),
		NULL, err);
}

int kb_luks_open(struct kb_mon *mon, pid_t pid, const char *id, const char *path,
	const struct kb_diskkey *key, struct kb_err *err)
{
	char name[32], secret[40];
	int r;

	/* From here on it holds a key. */
	if (kb_os_forbid_dumps(pid) < 0)
		return kb_err_sys(err, errno, "QEMU cannot be kept from dumping its memory");
	node_name(id, name);
	snprintf(secret, sizeof(secret), "%s-key", name);
	/* One that an interrupted operation left would be in the way. */
	kb_mon_call(mon, "object-del", json_pack("{s:s}", "id", secret), NULL, NULL);
	r = kb_mon_call(mon, "object-add",
		json_pack("{s:s, s:s, s:s}", "qom-type", "secret", "id", secret, "data", key->text),
		NULL, err);
	if (r < 0)
		return r;
	r = open_node(mon, name, path, secret, err);
	mon->vm->shielded++;
	kb_mon_call(mon, "object-del", json_pack("{s:s}", "id", secret), NULL, NULL);
	mon->vm->shielded--;
	return r;
}

/* A device that was just taken away holds its node a little longer: what it is in the way of is
 * tried until it is gone. args is consumed. */
static int call_patiently(struct kb_mon *mon, const char *command, json_t *args,
	const char *in_the_way, struct kb_err *err)
{
	int64_t deadline = kb_now_mono() + GONE_MS * 1000000ll;
	struct kb_err why = {0};
	int r;

	while ((r = kb_mon_call(mon, command, json_incref(args), NULL, &why)) == -KB_ERR_FAILED &&
		strstr(why.msg, in_the_way) && kb_now_mono() < deadline &&
		kb_op_sleep(mon->vm, POLL_MS, NULL) == 0)
		;
	json_decref(args);
	if (r < 0 && err)
		*err = why;
	return r;
}

int kb_luks_plug(struct kb_mon *mon, const char *id, struct kb_err *err)
{
	char name[32], serial[KB_LUKS_SERIAL];

	node_name(id, name);
	kb_luks_serial(id, serial);
	/* A full file system here halts the machine until there is room; other errors are its own
	 * to see. */
	return call_patiently(mon, "device_add",
		json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "driver", "scsi-hd", "bus",
			"sc0.0", "drive", name, "id", name, "serial", serial, "werror", "enospc",
			"rerror", "report"),
		"Permission conflict", err);
}

int kb_luks_unplug(struct kb_mon *mon, const char *id, struct kb_err *err)
{
	int64_t deadline = kb_now_mono() + GONE_MS * 1000000ll;
	struct kb_luks_parts parts = {.device = true};
	char name[32];
	int r;

	node_name(id, name);
	r = kb_mon_call(mon, "device_del", json_pack("{s:s}", "id", name), NULL, err);
	while (r == 0 && (r = kb_luks_look(mon, id, &parts, err)) == 0 && parts.device) {
		if (kb_now_mono() >= deadline)
			return kb_err_set(err, KB_ERR_TIMEOUT,
				"QEMU did not take the device away within %d ms", GONE_MS);
		r = kb_op_sleep(mon->vm, POLL_MS, err);
	}
	return r;
}

int kb_luks_close(struct kb_mon *mon, const char *id, struct kb_err *err)
{
	char name[32];

	node_name(id, name);
	return call_patiently(
		mon, "blockdev-del", json_pack("{s:s}", "node-name", name), "is in use", err);
}
