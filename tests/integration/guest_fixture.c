#include "guest_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
/* cmocka wants those first */
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "audit/block.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/util.h"
#include "supervisor/guest/cgroup.h"

#define ORDINARY_UID 61234 /* nobody's: rootless sessions need no account */
#define PIDS_MAX     64
#define REOPEN_WAITS 500 /* of 10 ms */

static struct {
	uid_t uid;
	const char *guest_dir, *init_dir;
} selected;

bool fixture_select(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: %s root|user GUEST-DIR INIT-DIR\n", argv[0]);
		exit(2);
	}
	selected.guest_dir = argv[2];
	selected.init_dir = argv[3];
	if (strcmp(argv[1], "root") == 0) {
		if (geteuid() == 0)
			return true;
		printf("skipped: sessions of root need root\n");
		return false;
	}
	selected.uid = geteuid() == 0 ? ORDINARY_UID : 0;
	return true;
}

static void copy_program(const char *from_dir, const char *name, const char *to_dir)
{
	KB_FREE char *from = kb_asprintf("%s/%s", from_dir, name);
	KB_FREE char *to = kb_asprintf("%s/%s", to_dir, name);
	KB_BUF_CLEANUP struct kb_buf bytes;
	struct kb_err err = {0};
	int fd;

	kb_buf_init(&bytes, 64u << 20);
	if (kb_file_read(from, &bytes, &err) < 0)
		fail_msg("%s", err.msg);
	fd = open(to, O_CREAT | O_WRONLY | O_CLOEXEC, 0755);
	assert_true(fd >= 0);
	assert_int_equal(kb_fd_write_all(fd, kb_buf_data(&bytes), kb_buf_len(&bytes), &err), 0);
	close(fd);
}

static void open_link(struct fixture *f)
{
	struct fl_options options = {.guest = f->guest, .state = f->state, .uid = f->uid};

	f->link = fl_open(&options);
}

void fixture_mkdir(const struct fixture *f, const char *path)
{
	assert_int_equal(mkdir(path, 0755), 0);
	if (f->uid)
		assert_int_equal(chown(path, f->uid, f->uid), 0);
}

int fixture_open(void **state)
{
	char template[] = "/tmp/kbsup-guest-test-XXXXXX";
	struct fixture *f = calloc(1, sizeof(*f));
	KB_FREE char *bin = NULL;

	f->uid = selected.uid;
	f->dir = strdup(mkdtemp(template));
	chmod(f->dir, 0755);
	if (f->uid && chown(f->dir, f->uid, f->uid) < 0)
		return -1;
	bin = kb_asprintf("%s/bin", f->dir);
	f->state = kb_asprintf("%s/state", f->dir);
	f->workspace = kb_asprintf("%s/workspace", f->dir);
	f->link_workspace = kb_asprintf("%s/link", f->dir);
	f->guest = kb_asprintf("%s/kbsup-guest", bin);
	f->nap = kb_asprintf("sleep 9%d", (int)getpid());
	f->blink = kb_asprintf("sleep 0.05%d", (int)getpid());
	fixture_mkdir(f, bin);
	fixture_mkdir(f, f->workspace);
	copy_program(selected.guest_dir, "kbsup-guest", bin);
	copy_program(selected.init_dir, "kbsup-init", bin);
	if (symlink("workspace", f->link_workspace) < 0)
		return -1;
	setenv("HOME", f->dir, 1);
	setenv("XDG_RUNTIME_DIR", f->dir, 1);
	setenv("XDG_STATE_HOME", f->dir, 1);
	setenv("XDG_CONFIG_HOME", f->dir, 1);
	setenv("KBSUP_TEST_SECRET", "visible-outside-only", 1);
	open_link(f);
	*state = f;
	return 0;
}

int fixture_close(void **state)
{
	struct fixture *f = *state;
	int status = fl_close(f->link);
	struct kb_err err = {0};

	f->link = NULL;

	fixture_assert_clean(f);
	if (kb_rmtree(f->dir, &err) < 0)
		fail_msg("%s", err.msg);
	free(f->dir);
	free(f->state);
	free(f->workspace);
	free(f->link_workspace);
	free(f->guest);
	free(f->nap);
	free(f->blink);
	free(f);
	return status == 0 ? 0 : -1;
}

static unsigned entries_like(const char *dir, const char *prefix);

/* After the guest's sudden death its sessions end by themselves, within moments. */
void fixture_reopen(struct fixture *f)
{
	fl_close(f->link);
	open_link(f);
	for (int i = 0; i < REOPEN_WAITS && entries_like(f->state, "kbsup-") > 0; i++)
		usleep(10000);
}

/* ---- What runs ------------------------------------------------------------------------------- */

static bool command_line(const char *pid, char *ret, size_t size)
{
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%.20s/cmdline", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, ret, size - 1);
	kb_close(&fd);
	if (n <= 0)
		return false;
	ret[n] = '\0';
	for (ssize_t i = 0; i < n - 1; i++)
		if (ret[i] == '\0')
			ret[i] = ' ';
	return true;
}

/* Zombies have no command line. */
unsigned fixture_processes(const struct fixture *f, const char *command)
{
	DIR *dir = opendir("/proc");
	struct dirent *e;
	char line[4096];
	unsigned n = 0;

	while ((e = readdir(dir)))
		if (e->d_name[0] >= '1' && e->d_name[0] <= '9' &&
			command_line(e->d_name, line, sizeof(line)))
			n += strcmp(line, command) == 0;
	closedir(dir);
	return n;
}

void fixture_wait_processes(const struct fixture *f, const char *command, unsigned n)
{
	for (int i = 0; i < REOPEN_WAITS && fixture_processes(f, command) < n; i++)
		fl_run_for(f->link, 10);
	assert_int_equal(fixture_processes(f, command), n);
}

/* The session processes: children of the guest. */
static unsigned children(const struct fixture *f, pid_t ret[PIDS_MAX])
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)fl_guest_pid(f->link),
		(int)fl_guest_pid(f->link));
	return (unsigned)kb_pids_read(path, ret, PIDS_MAX);
}

/* The process that holds the session's directory. */
static bool owns(pid_t pid, const char *id)
{
	char path[64], target[4096];
	bool found = false;

	for (int fd = 3; fd < 64 && !found; fd++) {
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
		n = readlink(path, target, sizeof(target) - 1);
		if (n > 0) {
			target[n] = '\0';
			found = strstr(target, id) != NULL;
		}
	}
	return found;
}

void fixture_kill_session(const struct fixture *f, const struct fl_session *s)
{
	pid_t pids[PIDS_MAX];
	unsigned n = children(f, pids);
	char id[KB_ULID_TEXT];

	kb_ulid_format(s->id, id);
	for (unsigned i = 0; i < n; i++)
		if (owns(pids[i], id)) {
			kill(pids[i], SIGKILL);
			return;
		}
	fail_msg("the process of session %s was not found", id);
}

void fixture_kill_everything(const struct fixture *f)
{
	pid_t pids[PIDS_MAX];
	unsigned n = children(f, pids);

	kill(fl_guest_pid(f->link), SIGKILL);
	for (unsigned i = 0; i < n; i++)
		kill(pids[i], SIGKILL);
}

/* Of all threads: the runtime's children are those of whichever thread forked. */
static unsigned children_of(pid_t pid, pid_t *ret, unsigned max)
{
	KB_FREE char *tasks = kb_asprintf("/proc/%d/task", (int)pid);
	DIR *dir = opendir(tasks);
	struct dirent *e;
	unsigned n = 0;

	while (dir && (e = readdir(dir))) {
		KB_FREE char *path = kb_asprintf("%s/%s/children", tasks, e->d_name);

		if (e->d_name[0] != '.')
			n += (unsigned)kb_pids_read(path, ret + n, max - n);
	}
	if (dir)
		closedir(dir);
	return n;
}

unsigned fixture_descendants(const struct fixture *f, pid_t *ret, unsigned max)
{
	unsigned n = 1;

	ret[0] = fl_guest_pid(f->link);
	for (unsigned i = 0; i < n; i++)
		n += children_of(ret[i], ret + n, max - n);
	return n;
}

/* ---- What is left ---------------------------------------------------------------------------- */

static unsigned entries_like(const char *dir, const char *prefix)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	unsigned n = 0;

	while (d && (e = readdir(d)))
		n += strncmp(e->d_name, prefix, strlen(prefix)) == 0;
	if (d)
		closedir(d);
	return n;
}

static bool file_mentions(const char *path, const char *text)
{
	FILE *file = fopen(path, "re");
	char line[8192];
	bool found = false;

	while (file && !found && fgets(line, sizeof(line), file))
		found = strstr(line, text) != NULL;
	if (file)
		fclose(file);
	return found;
}

/* Control groups carry the session's id, so other guests' do not confuse us. */
static void assert_no_groups(const char *base, const char *name, int depth)
{
	DIR *d = opendir(base);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		KB_FREE char *path = kb_asprintf("%s/%s", base, e->d_name);

		if (e->d_type != DT_DIR || e->d_name[0] == '.')
			continue;
		if (strcmp(e->d_name, name) == 0)
			fail_msg("%s is left", path);
		if (depth > 0)
			assert_no_groups(path, name, depth - 1);
	}
	if (d)
		closedir(d);
}

void fixture_assert_clean(const struct fixture *f)
{
	char name[KB_ULID_TEXT + 8] = "kbsup-";

	assert_int_equal(entries_like(f->state, "kbsup-"), 0);
	assert_false(file_mentions("/proc/self/mountinfo", f->state));
	for (const struct fl_session *s = f->link ? fl_sessions(f->link) : NULL; s; s = s->next) {
		kb_ulid_format(s->id, name + 6);
		assert_no_groups("/sys/fs/cgroup", name, 4);
	}
}

/* ---- Records --------------------------------------------------------------------------------- */

static bool holds(struct kb_bytes bytes, const char *text)
{
	return bytes.data && memmem(bytes.data, bytes.len, text, strlen(text));
}

/* Calls fn for each record until it returns true. */
static bool each_record(const struct fl_session *s,
	bool (*fn)(const struct kb_record *, uint64_t seq, void *arg), void *arg)
{
	const uint8_t *at = kb_buf_data(&s->records);
	const uint8_t *end = at + kb_buf_len(&s->records);
	struct kb_block_iter iter = {0};
	struct kb_record record;
	uint64_t seq = 0;
	bool found = false;
	uint32_t len;

	for (; at < end && !found; at += len) {
		memcpy(&len, at, sizeof(len));
		at += sizeof(len);
		assert_int_equal(kb_block_iter_begin(&iter, at, len, NULL), 0);
		while (!found && kb_block_iter_next(&iter, &record, NULL) == 1)
			found = fn(&record, ++seq, arg);
	}
	kb_block_iter_finish(&iter);
	return found;
}

struct wanted {
	enum kb_event event;
	const char *text;
	uint64_t seq;
};

static bool matches(const struct kb_record *r, uint64_t seq, void *arg)
{
	const struct wanted *w = arg;
	bool in_argv = false;

	for (size_t i = 0; i < r->argc; i++)
		in_argv |= holds(r->argv[i], w->text);
	return r->event == w->event && (in_argv || holds(r->text, w->text) ||
					       holds(r->path, w->text) || holds(r->exe, w->text));
}

bool fixture_has_record(const struct fl_session *s, enum kb_event event, const char *text)
{
	struct wanted w = {.event = event, .text = text};

	return each_record(s, matches, &w);
}

static bool is_at(const struct kb_record *r, uint64_t seq, void *arg)
{
	struct wanted *w = arg;

	w->event = r->event;
	return seq == w->seq;
}

enum kb_event fixture_event_at(const struct fl_session *s, uint64_t seq)
{
	struct wanted w = {.seq = seq};

	return each_record(s, is_at, &w) ? w.event : KB_EVENT_NONE;
}
