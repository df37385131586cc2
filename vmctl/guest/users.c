/* Who keeps a disk busy: working and root directories, programs, open and mapped files of every
 * process, and mounts, also those of other mount namespaces (a session that has a directory of the
 * disk holds all of it). /proc is read as it changes: what is missed this time is seen the next. */
#include "disk.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

#define WHAT_MAX  160
#define LINE_MAX_ 8192

/* Called for each way in which a process uses the disk; false ends the search in that process. */
typedef bool (*use_fn)(pid_t pid, const char *what, void *arg);

/* ---- mounts ---------------------------------------------------------------------------------- */

/* mountinfo writes space, tab, newline and backslash as three octal digits. */
static void unescape(char *text)
{
	char *to = text;

	for (const char *at = text; *at; to++) {
		if (at[0] == '\\' && strspn(at + 1, "01234567") >= 3) {
			*to = (char)((at[1] - '0') * 64 + (at[2] - '0') * 8 + (at[3] - '0'));
			at += 4;
		} else {
			*to = *at++;
		}
	}
	*to = '\0';
}

/* The place of a line of mountinfo (within it), if that mount is of the disk; see proc(5). */
static char *line_place(char *line, dev_t dev)
{
	unsigned major, minor;
	char *save = NULL, *field = strtok_r(line, " ", &save);

	for (int i = 0; i < 2 && field; i++)
		field = strtok_r(NULL, " ", &save);
	if (!field || sscanf(field, "%u:%u", &major, &minor) != 2 || makedev(major, minor) != dev)
		return NULL;
	strtok_r(NULL, " ", &save);
	field = strtok_r(NULL, " ", &save);
	if (field)
		unescape(field);
	return field;
}

/* The newest mount of the disk that a process's namespace has, and how many there are. */
static unsigned mounts_of(pid_t pid, dev_t dev, char *ret_place, size_t size)
{
	char path[64], line[LINE_MAX_];
	unsigned n = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/mountinfo", (int)pid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file)) {
		const char *place = line_place(line, dev);

		if (!place)
			continue;
		snprintf(ret_place, size, "%s", place);
		n++;
	}
	if (file)
		fclose(file);
	return n;
}

unsigned kbm_disk_mounted(const struct kbm_disk *disk, char *ret_place, size_t size)
{
	return mounts_of(getpid(), disk->dev, ret_place, size);
}

/* ---- processes ------------------------------------------------------------------------------- */

static bool on_disk(const char *path, dev_t dev)
{
	struct stat st;

	return stat(path, &st) == 0 && st.st_dev == dev;
}

static void link_text(const char *path, char ret[WHAT_MAX])
{
	ssize_t n = readlink(path, ret, WHAT_MAX - 1);

	ret[n < 0 ? 0 : n] = '\0';
}

static bool use_links(pid_t pid, dev_t dev, use_fn fn, void *arg)
{
	static const struct {
		const char *name, *how;
	} links[] = {{"cwd", "is in"}, {"root", "has as its root"}, {"exe", "runs"}};
	char path[64], where[WHAT_MAX], what[2 * WHAT_MAX];

	for (size_t i = 0; i < KB_ARRAY_LEN(links); i++) {
		snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, links[i].name);
		if (!on_disk(path, dev))
			continue;
		link_text(path, where);
		snprintf(what, sizeof(what), "%s %s", links[i].how, where);
		if (!fn(pid, what, arg))
			return false;
	}
	return true;
}

/* Open files, or with map_files those that are mapped. */
static bool use_dir(pid_t pid, const char *sub, const char *how, dev_t dev, use_fn fn, void *arg)
{
	char path[400], where[WHAT_MAX], what[2 * WHAT_MAX];
	struct dirent *entry;
	bool on = true;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, sub);
	dir = opendir(path);
	while (dir && on && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%d/%s/%s", (int)pid, sub, entry->d_name);
		if (entry->d_name[0] == '.' || !on_disk(path, dev))
			continue;
		link_text(path, where);
		snprintf(what, sizeof(what), "has %s %s", where, how);
		on = fn(pid, what, arg);
	}
	if (dir)
		closedir(dir);
	return on;
}

static bool same_namespace(pid_t pid)
{
	char path[64], mine[WHAT_MAX], its[WHAT_MAX];

	snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)pid);
	link_text("/proc/self/ns/mnt", mine);
	link_text(path, its);
	return strcmp(mine, its) == 0;
}

/* A mount elsewhere counts once ours is gone: until then most are copies that go with it. */
static bool use_mounts(pid_t pid, dev_t dev, use_fn fn, void *arg)
{
	char place[WHAT_MAX], what[2 * WHAT_MAX];

	if (same_namespace(pid) || !mounts_of(pid, dev, place, sizeof(place)))
		return true;
	snprintf(what, sizeof(what), "has it mounted at %s", place);
	return fn(pid, what, arg);
}

static void each_use(const struct kbm_disk *disk, use_fn fn, void *arg)
{
	char place[WHAT_MAX];
	bool ours = kbm_disk_mounted(disk, place, sizeof(place)) > 0;
	DIR *dir = opendir("/proc");
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		uint64_t number;
		pid_t pid;

		if (!kb_parse_u64(entry->d_name, &number) || number > INT32_MAX ||
			(pid = (pid_t)number) == getpid())
			continue;
		if (use_links(pid, disk->dev, fn, arg) &&
			use_dir(pid, "fd", "open", disk->dev, fn, arg) &&
			use_dir(pid, "map_files", "mapped", disk->dev, fn, arg) && !ours)
			use_mounts(pid, disk->dev, fn, arg);
	}
	if (dir)
		closedir(dir);
}

/* ---- what is done about them ----------------------------------------------------------------- */

static void process_name(pid_t pid, char *ret, size_t size)
{
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	file = fopen(path, "re");
	ret[0] = '\0';
	if (file && fgets(ret, (int)size, file))
		ret[strcspn(ret, "\n")] = '\0';
	if (file)
		fclose(file);
}

static void add_user(json_t *list, pid_t pid, const char *name, const char *what)
{
	char safe_name[64], safe_what[2 * WHAT_MAX];

	kb_escape(safe_name, sizeof(safe_name), name, strlen(name));
	kb_escape(safe_what, sizeof(safe_what), what, strlen(what));
	json_array_append_new(list, json_pack("{s:i, s:s, s:s}", "pid", (int)pid, "name", safe_name,
					    "what", safe_what));
}

/* One way per process is enough to know it by. */
static bool note_user(pid_t pid, const char *what, void *arg)
{
	json_t *list = arg;
	char name[32];

	if (json_array_size(list) < KBM_USERS_MAX) {
		process_name(pid, name, sizeof(name));
		add_user(list, pid, name, what);
	}
	return false;
}

json_t *kbm_disk_users(const struct kbm_disk *disk)
{
	json_t *list = json_array();
	char place[WHAT_MAX], what[2 * WHAT_MAX];

	if (kbm_disk_mounted(disk, place, sizeof(place)) > 1) {
		snprintf(what, sizeof(what), "it is mounted at %s as well", place);
		add_user(list, 0, "", what);
	}
	each_use(disk, note_user, list);
	return list;
}

static bool kill_user(pid_t pid, const char *what, void *arg)
{
	kill(pid, SIGKILL);
	return false;
}

void kbm_disk_kill_users(const struct kbm_disk *disk)
{
	each_use(disk, kill_user, NULL);
}
