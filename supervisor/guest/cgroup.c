#include "supervisor/guest/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/base/log.h"
#include "supervisor/base/util.h"

#define LINE_MAX_     4096
#define KILL_ROUNDS   10
#define PIDS_MAX      4096 /* killed in one round */
#define PIDS_TEXT_MAX (64u << 10)

struct hierarchy {
	char mount[KB_CGROUP_PATH];
	char options[128]; /* version 1: its controllers, "cpu,cpuacct" or "name=systemd" */
	bool v2;
};

/* Walk the cgroup mounts of this mount namespace. */
static void each_hierarchy(void (*fn)(const struct hierarchy *, void *), void *arg)
{
	FILE *f = fopen("/proc/self/mounts", "re");
	char line[LINE_MAX_], type[32], options[512];
	struct hierarchy h;

	while (f && fgets(line, sizeof(line), f)) {
		char *name, *save = NULL;

		if (sscanf(line, "%*s %511s %31s %511s", h.mount, type, options) != 3)
			continue;
		h.v2 = strcmp(type, "cgroup2") == 0;
		if (!h.v2 && strcmp(type, "cgroup") != 0)
			continue;
		h.options[0] = '\0';
		/* The controllers come last, after the mount's own flags. */
		for (name = strtok_r(options, ",", &save); name;
			name = strtok_r(NULL, ",", &save)) {
			if (strcmp(name, "rw") == 0 || strcmp(name, "relatime") == 0 ||
				strncmp(name, "no", 2) == 0 || strcmp(name, "xattr") == 0 ||
				strncmp(name, "release_agent", 13) == 0)
				continue;
			snprintf(h.options + strlen(h.options),
				sizeof(h.options) - strlen(h.options), "%s%s",
				h.options[0] ? "," : "", name);
		}
		fn(&h, arg);
	}
	if (f)
		fclose(f);
}

/* Does the mount's list of controllers have one of those in the line of /proc/PID/cgroup? */
static bool same_hierarchy(const struct hierarchy *h, const char *controllers)
{
	const char *comma = strchr(controllers, ',');
	size_t len = comma ? (size_t)(comma - controllers) : strlen(controllers);

	if (h->v2 || len == 0)
		return h->v2 && len == 0;
	for (const char *at = h->options; at; at = strchr(at, ',')) {
		at += *at == ',';
		if (strncmp(at, controllers, len) == 0 && (at[len] == '\0' || at[len] == ','))
			return true;
	}
	return false;
}

/* The directory of process pid ("self" for 0) in hierarchy h. */
static bool group_of(const struct hierarchy *h, pid_t pid, char ret[KB_CGROUP_PATH])
{
	char file[64], line[LINE_MAX_];
	bool found = false;
	FILE *f;

	if (pid > 0)
		snprintf(file, sizeof(file), "/proc/%d/cgroup", (int)pid);
	else
		snprintf(file, sizeof(file), "/proc/self/cgroup");
	f = fopen(file, "re");
	while (f && !found && fgets(line, sizeof(line), f)) {
		char *controllers = strchr(line, ':');
		char *path = controllers ? strchr(controllers + 1, ':') : NULL;

		if (!path)
			continue;
		*path++ = '\0';
		path[strcspn(path, "\n")] = '\0';
		found = same_hierarchy(h, controllers + 1) &&
			snprintf(ret, KB_CGROUP_PATH, "%s%s", h->mount, path) < KB_CGROUP_PATH;
	}
	if (f)
		fclose(f);
	return found;
}

struct find {
	pid_t pid;
	const char *name;
	struct kb_cgroups *out;
};

static void note_events(struct kb_cgroups *out, const struct hierarchy *h, const char *path)
{
	if (h->v2 || strstr(h->options, "memory"))
		snprintf(out->memory_events, sizeof(out->memory_events), "%s/%s", path,
			h->v2 ? "memory.events" : "memory.oom_control");
	if (h->v2 || strstr(h->options, "pids"))
		snprintf(out->pids_events, sizeof(out->pids_events), "%s/pids.events", path);
}

static void find_in(const struct hierarchy *h, void *arg)
{
	struct find *find = arg;
	struct kb_cgroups *out = find->out;
	char path[KB_CGROUP_PATH];
	const char *last;

	if (out->n == KB_CGROUPS_MAX || !group_of(h, find->pid, path))
		return;
	last = strrchr(path, '/');
	if (!last || strcmp(last + 1, find->name) != 0) {
		out->others++;
		return;
	}
	memcpy(out->paths[out->n++], path, sizeof(path));
	/* On a hybrid machine version 2 has no controllers; do not let it hide version 1's. */
	if (!h->v2 || out->memory_events[0] == '\0')
		note_events(out, h, path);
}

void kb_cgroups_find(pid_t pid, const char *name, struct kb_cgroups *ret)
{
	struct find find = {.pid = pid, .name = name, .out = ret};

	*ret = (struct kb_cgroups){0};
	each_hierarchy(find_in, &find);
}

/* The number after `key` at the start of a line. */
static uint64_t read_counter(const char *path, const char *key)
{
	FILE *f = path[0] ? fopen(path, "re") : NULL;
	char line[128];
	uint64_t n = 0;
	size_t len = strlen(key);

	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, key, len) == 0 && line[len] == ' ')
			n = strtoull(line + len, NULL, 10);
	if (f)
		fclose(f);
	return n;
}

uint64_t kb_cgroups_oom_kills(const struct kb_cgroups *groups)
{
	return read_counter(groups->memory_events, "oom_kill");
}

uint64_t kb_cgroups_pids_refused(const struct kb_cgroups *groups)
{
	return read_counter(groups->pids_events, "max");
}

size_t kb_pids_read(const char *path, pid_t *ret, size_t max)
{
	KB_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[PIDS_TEXT_MAX], *at = text, *end;
	size_t n = 0, used = 0;
	ssize_t got;

	while (fd >= 0 && used < sizeof(text) - 1 &&
		(got = read(fd, text + used, sizeof(text) - 1 - used)) > 0)
		used += (size_t)got;
	text[used] = '\0';
	for (; n < max; at = end) {
		long pid = strtol(at, &end, 10);

		if (end == at)
			break;
		ret[n++] = (pid_t)pid;
	}
	return n;
}

static void kill_group(const char *path)
{
	char file[KB_CGROUP_PATH + 16];
	pid_t pids[PIDS_MAX];
	size_t n;

	snprintf(file, sizeof(file), "%s/cgroup.procs", path);
	n = kb_pids_read(file, pids, PIDS_MAX);
	for (size_t i = 0; i < n; i++)
		if (pids[i] > 1)
			kill(pids[i], SIGKILL);
}

void kb_cgroups_kill(const struct kb_cgroups *groups)
{
	for (unsigned i = 0; i < groups->n; i++)
		kill_group(groups->paths[i]);
}

unsigned kb_cgroups_remove(const struct kb_cgroups *groups)
{
	unsigned left = 0;

	for (unsigned i = 0; i < groups->n; i++)
		if (rmdir(groups->paths[i]) < 0 && errno != ENOENT)
			left++;
	return left;
}

struct sweep {
	int (*is_dead)(const char *name, void *arg);
	void *arg;
};

static void sweep_dir(const char *dir, const struct sweep *sweep)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	char path[KB_CGROUP_PATH];

	while (d && (e = readdir(d))) {
		if (strncmp(e->d_name, KB_CGROUP_PREFIX, strlen(KB_CGROUP_PREFIX)) != 0 ||
			snprintf(path, sizeof(path), "%s/%s", dir, e->d_name) >= KB_CGROUP_PATH ||
			!sweep->is_dead(e->d_name, sweep->arg))
			continue;
		for (int i = 0; i < KILL_ROUNDS && rmdir(path) < 0 && errno == EBUSY; i++) {
			kill_group(path);
			usleep(5000);
		}
		kb_log_info("removed the control group %s of a session that is gone", path);
	}
	if (d)
		closedir(d);
}

static void sweep_in(const struct hierarchy *h, void *arg)
{
	char path[KB_CGROUP_PATH];
	char *slash;

	if (!group_of(h, 0, path))
		return;
	sweep_dir(path, arg);
	/* Version 2's runtimes put it beside our own group, which holds processes. */
	slash = strrchr(path, '/');
	if (h->v2 && slash && strlen(path) > strlen(h->mount)) {
		*slash = '\0';
		sweep_dir(path, arg);
	}
}

void kb_cgroups_sweep(int (*is_dead)(const char *name, void *arg), void *arg)
{
	struct sweep sweep = {.is_dead = is_dead, .arg = arg};

	each_hierarchy(sweep_in, &sweep);
}
