/* The encrypted disk as the machine sees it: a SCSI disk with a serial number of its own, plain
 * text by then. Whose it is, and when it comes and goes, is the host's business; here it is made a
 * file system, mounted, and let go again so that nothing of it stays in use. */
#include "disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/util.h"

#define DEVICE_MS   20000 /* until a disk that was plugged is there: its driver may have to load */
#define RESCAN_MS   3000
#define FORMAT_MS   120000
#define PREEN_MS    600000
#define REPAIR_MS   3600000
#define GROW_MS	    600000
#define GROW_MIN    (1u << 20)
#define CLOSE_MS    15000 /* for what was killed to be gone */
#define POLL_MS	    20
#define VPD_HEADER  4
#define SERIAL_MAX  64
#define MOUNT_FLAGS (MS_NOSUID | MS_NODEV | MS_NOATIME)
#define UUID_SIZE   16
#define FSCK_MENDED 3 /* e2fsck(8): what is below this bit is well */
#define OUTPUT_TAIL 200

static void pause_ms(int msec)
{
	struct timespec t = {msec / 1000, msec % 1000 * 1000000L};

	nanosleep(&t, NULL);
}

/* ---- finding it ------------------------------------------------------------------------------ */

static bool has_serial(const char *block, const char *serial)
{
	char path[300], page[VPD_HEADER + SERIAL_MAX + 1] = "";
	KB_CLOSE int fd = -1;
	ssize_t n;

	snprintf(path, sizeof(path), "/sys/block/%s/device/vpd_pg80", block);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, page, sizeof(page) - 1);
	return n > VPD_HEADER && strcmp(page + VPD_HEADER, serial) == 0;
}

static bool look(const char *serial, struct kbm_disk *ret)
{
	DIR *dir = opendir("/sys/block");
	struct dirent *entry;
	struct stat st;
	bool found = false;

	while (dir && !found && (entry = readdir(dir)))
		if (strncmp(entry->d_name, "sd", 2) == 0 && has_serial(entry->d_name, serial) &&
			strlen(entry->d_name) < sizeof(ret->name)) {
			snprintf(ret->name, sizeof(ret->name), "%s", entry->d_name);
			snprintf(ret->path, sizeof(ret->path), "/dev/%s", ret->name);
			/* devtmpfs makes it before udev knows. */
			found = stat(ret->path, &st) == 0 && S_ISBLK(st.st_mode);
			ret->dev = found ? st.st_rdev : 0;
		}
	if (dir)
		closedir(dir);
	return found;
}

/* Look at every SCSI bus again: a disk that was removed here, and then not unplugged because the
 * host was interrupted, raises no event. */
static void rescan(void)
{
	DIR *dir = opendir("/sys/class/scsi_host");
	struct dirent *entry;
	char path[300];

	while (dir && (entry = readdir(dir))) {
		KB_CLOSE int fd = -1;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/sys/class/scsi_host/%s/scan", entry->d_name);
		fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd >= 0 && write(fd, "- - -", 5) != 5)
			kb_log_warn("%s: %s", path, strerror(errno));
	}
	if (dir)
		closedir(dir);
}

int kbm_disk_find(const json_t *request, int wait_ms, struct kbm_disk *ret, struct kb_err *err)
{
	int64_t start = kb_now_mono(), deadline = start + wait_ms * 1000000ll;
	bool rescanned = false;
	const char *serial;
	int r = kbm_string(request, "serial", &serial, err);

	if (r < 0)
		return r;
	while (!look(serial, ret)) {
		if (kb_now_mono() >= deadline)
			return kb_err_set(err, KB_ERR_NOTFOUND, "there is no disk %s", serial);
		if (!rescanned && kb_now_mono() - start > RESCAN_MS * 1000000ll) {
			rescanned = true;
			rescan();
		}
		pause_ms(POLL_MS);
	}
	return 0;
}

/* ---- making it a file system ----------------------------------------------------------------- */

/* What is looked at of ext4's superblock, where kernel.org/doc/html/latest/filesystems/ext4 says.
 */
struct super {
	uint8_t uuid[UUID_SIZE];
	uint64_t bytes; /* of the file system */
};

static uint32_t le32(const uint8_t *b)
{
	return b[0] | b[1] << 8 | b[2] << 16 | (uint32_t)b[3] << 24;
}

static bool read_super(const struct kbm_disk *disk, struct super *ret)
{
	uint8_t block[1024];
	KB_CLOSE int fd = open(disk->path, O_RDONLY | O_CLOEXEC);
	uint64_t blocks;

	if (fd < 0 || pread(fd, block, sizeof(block), sizeof(block)) != sizeof(block) ||
		block[0x38] != 0x53 || block[0x39] != 0xef || le32(block + 0x18) > 6)
		return false;
	memcpy(ret->uuid, block + 0x68, UUID_SIZE);
	blocks = le32(block + 0x4) | (uint64_t)le32(block + 0x150) << 32;
	ret->bytes = blocks << (10 + le32(block + 0x18));
	return true;
}

/* Nothing needs zeroing first: what was never written reads as random bytes, which no checksum
 * fits. */
int kbm_disk_format(const json_t *request, json_t *reply, struct kb_err *err)
{
	uint8_t uuid[UUID_SIZE];
	char text[40], tail[OUTPUT_TAIL];
	const char *hex, *label;
	struct kbm_disk disk;
	struct super super;
	int status, r;

	if ((r = kbm_string(request, "uuid", &hex, err)) < 0 ||
		(r = kbm_string(request, "label", &label, err)) < 0 ||
		(r = kbm_disk_find(request, DEVICE_MS, &disk, err)) < 0)
		return r;
	if (kbm_unhex(hex, uuid, sizeof(uuid), err) != UUID_SIZE)
		return kb_err_set(err, KB_ERR_INVALID, "a uuid has %d bytes", UUID_SIZE);
	/* Made by an earlier request: then it is not made again, whatever the host remembers. */
	if (read_super(&disk, &super) && memcmp(super.uuid, uuid, UUID_SIZE) == 0)
		return 0;
	snprintf(text, sizeof(text), "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16,
		hex + 20);
	const char *const argv[] = {"mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-U", text, "-L",
		label, "-E",
		"lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=1000:1000", disk.path,
		NULL};
	r = kbm_capture(argv, FORMAT_MS, &status, tail, sizeof(tail), err);
	if (r == 0 && status != 0)
		r = kb_err_set(err, KB_ERR_FAILED, "mke2fs ended with %d: %s", status, tail);
	return r;
}

/* ---- mounting it ----------------------------------------------------------------------------- */

/* Returns 1, with `damaged` in the reply, when it should not be mounted as it is. */
static int check(const struct kbm_disk *disk, bool repair, json_t *reply, struct kb_err *err)
{
	const char *const preen[] = {"e2fsck", "-p", disk->path, NULL};
	const char *const mend[] = {"e2fsck", "-f", "-y", disk->path, NULL};
	int64_t limit = repair ? REPAIR_MS : PREEN_MS;
	char tail[OUTPUT_TAIL];
	int status = 0;
	int r = kbm_capture(repair ? mend : preen, limit, &status, tail, sizeof(tail), err);

	if (r < 0)
		return r;
	/* Up to this one the exit status only tells of what was mended. */
	if (status <= FSCK_MENDED) {
		json_object_set_new(reply, "mended", json_boolean(status != 0));
		return 0;
	}
	json_object_set_new(reply, "damaged", json_string(tail));
	return 1;
}

/* Directories made on the way belong to whom the one above them belongs. What is mounted there
 * already would be hidden, and unmounted in our place. */
static int make_place(const char *path, struct kb_err *err)
{
	char part[PATH_MAX];
	struct stat above, st;

	if (stat("/", &above) < 0)
		return kb_err_sys(err, errno, "/ cannot be looked at");
	for (size_t i = 1; i <= strlen(path); i++) {
		if (path[i] != '/' && path[i] != '\0')
			continue;
		snprintf(part, sizeof(part), "%.*s", (int)i, path);
		if (stat(part, &st) < 0) {
			if (mkdir(part, 0755) < 0 || chown(part, above.st_uid, above.st_gid) < 0 ||
				stat(part, &st) < 0)
				return kb_err_sys(err, errno, "%s cannot be made", part);
		}
		if (path[i] == '\0' && st.st_dev != above.st_dev)
			return kb_err_set(
				err, KB_ERR_EXISTS, "something is mounted at %s already", path);
		above = st;
	}
	return 0;
}

static uint64_t device_size(const struct kbm_disk *disk)
{
	KB_CLOSE int fd = open(disk->path, O_RDONLY | O_CLOEXEC);
	uint64_t size = 0;

	return fd >= 0 && ioctl(fd, BLKGETSIZE64, &size) == 0 ? size : 0;
}

/* The host may have made the disk larger since. Where that cannot be used it is said, and the disk
 * is what it was. */
static int grow(const struct kbm_disk *disk, json_t *reply, struct kb_err *err)
{
	const char *const argv[] = {"resize2fs", disk->path, NULL};
	char tail[OUTPUT_TAIL];
	struct super super;
	int status, r;

	if (!read_super(disk, &super) || device_size(disk) < super.bytes + GROW_MIN)
		return 0;
	r = kbm_capture(argv, GROW_MS, &status, tail, sizeof(tail), err);
	if (r == 0 && status != 0)
		json_object_set_new(reply, "not_grown", json_string(tail));
	return r;
}

static void report(const struct kbm_disk *disk, const char *place, json_t *reply)
{
	struct statvfs fs;

	json_object_set_new(reply, "mounted", json_string(place));
	if (statvfs(place, &fs) < 0)
		return;
	json_object_set_new(
		reply, "total", json_integer((json_int_t)fs.f_blocks * (json_int_t)fs.f_frsize));
	json_object_set_new(
		reply, "free", json_integer((json_int_t)fs.f_bavail * (json_int_t)fs.f_frsize));
}

/* 1, with `damaged` in the reply, for what the kernel sees and e2fsck does not without looking
 * closer: a file system that says it is clean. */
static int mount_at(
	const struct kbm_disk *disk, const char *place, json_t *reply, struct kb_err *err)
{
	if (mount(disk->path, place, "ext4", MOUNT_FLAGS, "errors=remount-ro") == 0)
		return 0;
	if (errno != EUCLEAN && errno != EBADMSG)
		return kb_err_sys(err, errno, "%s cannot be mounted at %s", disk->path, place);
	json_object_set_new(reply, "damaged", json_string(strerror(errno)));
	rmdir(place);
	return 1;
}

int kbm_disk_open(const json_t *request, json_t *reply, struct kb_err *err)
{
	bool repair = json_is_true(json_object_get(request, "repair"));
	char at[PATH_MAX];
	struct kbm_disk disk;
	const char *place;
	int r;

	if ((r = kbm_string(request, "place", &place, err)) < 0 ||
		(r = kbm_disk_find(request, DEVICE_MS, &disk, err)) < 0)
		return r;
	if (kbm_disk_mounted(&disk, at, sizeof(at))) {
		report(&disk, at, reply);
		return 0;
	}
	if ((r = check(&disk, repair, reply, err)) != 0)
		return r < 0 ? r : 0;
	if ((r = make_place(place, err)) < 0 || (r = mount_at(&disk, place, reply, err)) != 0)
		return r < 0 ? r : 0;
	if ((r = grow(&disk, reply, err)) < 0)
		return r;
	report(&disk, place, reply);
	return 0;
}

int kbm_disk_stat(const json_t *request, json_t *reply, struct kb_err *err)
{
	char at[PATH_MAX];
	struct kbm_disk disk;
	int r = kbm_disk_find(request, 0, &disk, err);

	if (r == 0 && kbm_disk_mounted(&disk, at, sizeof(at)))
		report(&disk, at, reply);
	return r;
}

/* ---- letting it go --------------------------------------------------------------------------- */

static int unmount(const char *place, struct kb_err *err)
{
	KB_CLOSE int fd = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0 && syncfs(fd) < 0)
		return kb_err_sys(err, errno, "%s cannot be written back", place);
	kb_close(&fd);
	if (umount2(place, 0) < 0)
		return kb_err_sys(err, errno, "%s cannot be unmounted", place);
	return 0;
}

/* Nobody has it: not a mount in another namespace, not an open file of one that is gone from here.
 * The kernel grants this only then. */
static int claim(const struct kbm_disk *disk, struct kb_err *err)
{
	KB_CLOSE int fd = open(disk->path, O_RDWR | O_EXCL | O_CLOEXEC);

	if (fd < 0)
		return kb_err_sys(err, errno, "%s is in use", disk->path);
	if (fsync(fd) < 0 || ioctl(fd, BLKFLSBUF, 0) < 0)
		return kb_err_sys(err, errno, "%s cannot be written back", disk->path);
	return 0;
}

/* Unmount it here and see that nobody else has it; ret_place is where it was, to put it back. With
 * `all`, further mounts of it (made by hand) go too, the newest first; without, they are a use. */
static int try_close(
	const struct kbm_disk *disk, bool all, char ret_place[PATH_MAX], struct kb_err *err)
{
	char place[PATH_MAX];
	unsigned n;

	while ((n = kbm_disk_mounted(disk, place, sizeof(place))) > 0) {
		int r = n > 1 && !all ? kb_err_sys(err, EBUSY, "it is mounted twice")
				      : unmount(place, err);

		if (r < 0)
			return r;
		snprintf(ret_place, PATH_MAX, "%s", place);
	}
	return claim(disk, err);
}

/* The device goes in order, so that its last cache is written; then the host unplugs it. */
static int remove_device(const struct kbm_disk *disk, struct kb_err *err)
{
	char path[300];
	KB_CLOSE int fd = -1;

	snprintf(path, sizeof(path), "/sys/block/%s/device/delete", disk->name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "1", 1) != 1)
		return kb_err_sys(err, errno, "%s cannot be removed", disk->path);
	return 0;
}

/* Somebody has it and may keep it: then it stays as it was. */
static void put_back(const struct kbm_disk *disk, const char *place)
{
	char at[PATH_MAX];

	if (*place && !kbm_disk_mounted(disk, at, sizeof(at)) && make_place(place, NULL) == 0)
		mount(disk->path, place, "ext4", MOUNT_FLAGS, "errors=remount-ro");
}

int kbm_disk_close(const json_t *request, json_t *reply, struct kb_err *err)
{
	bool kill_users = json_is_true(json_object_get(request, "kill"));
	int64_t deadline = kb_now_mono() + CLOSE_MS * 1000000ll;
	char place[PATH_MAX] = "";
	struct kb_err why = {0};
	struct kbm_disk disk;
	int r;

	/* Not plugged, or removed by a request before this one: there is nothing to let go. */
	if (kbm_disk_find(request, 0, &disk, NULL) < 0)
		return 0;
	while ((r = try_close(&disk, kill_users, place, &why)) < 0 && why.errnum == EBUSY &&
		kill_users && kb_now_mono() < deadline) {
		kbm_disk_kill_users(&disk);
		pause_ms(POLL_MS);
	}
	if (r == 0) {
		/* Writing where the disk used to be must fail, not land on the machine's own. Only
		 * now: with a directory go the mounts that other namespaces have on it. */
		rmdir(place);
		return remove_device(&disk, err);
	}
	if (why.errnum == EBUSY) {
		json_object_set_new(reply, "busy", kbm_disk_users(&disk));
		put_back(&disk, place);
		return 0;
	}
	put_back(&disk, place);
	if (err)
		*err = why;
	return r;
}
