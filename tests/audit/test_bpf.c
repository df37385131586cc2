/* Lane bpf: what the kernel says happened. Skipped where the lane cannot be loaded. */
#include "tests/unit/kbtest.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "live.h"

static const char *const policy = LIVE_POLICY(LIVE_FILES LIVE_RECORD);

static void run_bpf(
	struct live *live, const char *text, int (*fn)(void *arg), void *arg, int status)
{
	*live = (struct live){.lane_bpf = true};
	assert_int_equal(live_run(live, text, fn, arg), status);
}

static const struct kb_record *find(const struct live *live, enum kb_event event, const char *path)
{
	const struct kb_record *r = live_find(live, event, path, 0);

	if (!r) {
		live_dump(live);
		fail_msg("no %s of %s", kb_event_name(event), path ? path : "anything");
	}
	return r;
}

/* ---- Files ------------------------------------------------------------------------------------
 */

static int use_files(void *arg)
{
	int dir, fd;

	if (chdir(arg) < 0 || symlink("real", "link") < 0 || mkdir("real", 0755) < 0)
		return 1;
	dir = open("link", O_RDONLY | O_DIRECTORY);
	fd = openat(dir, "made\n\xff", O_CREAT | O_WRONLY, 0600);
	if (dir < 0 || fd < 0 || fchmod(fd, 0640) < 0)
		return 2;
	close(openat(dir, "made\n\xff", O_CREAT | O_WRONLY, 0600));
	if (open("link/none", O_RDONLY) >= 0 || renameat(dir, "made\n\xff", dir, "moved") < 0 ||
		unlink("link/moved") < 0 || unlinkat(AT_FDCWD, "real", AT_REMOVEDIR) < 0)
		return 3;
	return open((char *)16, O_RDONLY) >= 0;
}

static void test_files(void **state)
{
	PATH_IN(made, *state, "real/made\n\xff");
	PATH_IN(none, *state, "real/none");
	PATH_IN(real, *state, "real");
	PATH_IN(moved, *state, "real/moved");
	const struct kb_record *r;
	struct live live;

	run_bpf(&live, policy, use_files, *state, 0);
	r = find(&live, KB_EVENT_OPEN, made);
	assert_int_equal(r->trust, KB_TRUST_KERNEL);
	assert_int_equal(r->outcome, KB_OUTCOME_OK);
	assert_true(r->created && r->has_mode && r->mode == 0600);
	assert_true(bytes_are(r->path_arg, "made\n\xff"));
	assert_false(live_find(&live, KB_EVENT_OPEN, made, 1)->created);
	assert_int_equal(find(&live, KB_EVENT_CHMOD, made)->mode, 0640);
	r = find(&live, KB_EVENT_OPEN, none);
	assert_int_equal(r->outcome, KB_OUTCOME_FAILED);
	assert_int_equal(r->errnum, ENOENT);
	r = find(&live, KB_EVENT_RENAME, made);
	assert_true(bytes_are(r->path2, moved));
	find(&live, KB_EVENT_UNLINK, moved);
	find(&live, KB_EVENT_RMDIR, real);
	r = live_find(&live, KB_EVENT_OPEN, NULL, live_count(&live, KB_EVENT_OPEN, NULL) - 1);
	assert_int_equal(r->trust, KB_TRUST_UNREADABLE);
	assert_int_equal(r->errnum, EFAULT);
	live_finish(&live);
}

/* ---- Denials ----------------------------------------------------------------------------------
 */

static int be_refused(void *arg)
{
	/* On the stack: what nobody has touched yet may not be in memory, and no call reads it. */
	char nowhere[] = "/nowhere";

	if (syscall(SYS_swapoff, nowhere) != -1 || errno != EPERM)
		return 1;
	/* No rule: the default, ENOSYS. */
	if (syscall(SYS_acct, NULL) != -1 || errno != ENOSYS)
		return 2;
	if (mkdir("/proc/not-here", 0755) == 0)
		return 3;
	for (int i = 0; i < 100; i++)
		syscall(SYS_quotactl, 0, NULL, 0, NULL);
	return 0;
}

static void test_denials(void **state)
{
	const struct kb_record *r, *more;
	const struct kb_rule *rules;
	struct live live;

	run_bpf(&live,
		LIVE_POLICY("fs read \"/usr\" fs default deny EACCES record full\n" LIVE_RECORD
			    "syscall swapoff deny EPERM record full\n"),
		be_refused, NULL, 0);
	kb_bundle_rules(live.bundle, &rules);
	r = find(&live, KB_EVENT_MOUNT, "/nowhere");
	assert_int_equal(r->decision, KB_DECISION_DENIED);
	assert_int_equal(r->errnum, EPERM);
	assert_non_null(strstr(rules[r->rule].text, "swapoff"));
	r = live_find(&live, KB_EVENT_SYSCALL, NULL, 0);
	assert_int_equal(r->syscall, SYS_acct);
	assert_int_equal(r->errnum, ENOSYS);
	assert_non_null(strstr(rules[r->rule].text, "default"));
	/* What the kernel refused and no rule grants. */
	r = find(&live, KB_EVENT_MKDIR, "/proc/not-here");
	assert_int_equal(r->decision, KB_DECISION_DENIED);
	assert_non_null(strstr(rules[r->rule].text, "fs default"));
	/* A summary: one, and how many more. */
	r = live_find(&live, KB_EVENT_SYSCALL, NULL, 1);
	more = live_find(&live, KB_EVENT_SYSCALL, NULL, 2);
	assert_int_equal(r->syscall, SYS_quotactl);
	assert_int_equal(more->count, 99);
	live_finish(&live);
}

/* ---- Programs ---------------------------------------------------------------------------------
 */

static void *exec_in_thread(void *arg)
{
	char *argv[] = {"sh", "-c", "exit 9", NULL}, *env[] = {NULL};

	execve("/nowhere/sh", argv, env);
	execve("/bin/sh", argv, env);
	return NULL;
}

static int run_programs(void *arg)
{
	/* On the stack: in memory, as the arguments of real programs are. */
	char zero[] = "zero", one[] = "one", none[] = "";
	char *script[] = {zero, one, none, NULL}, *env[] = {NULL};
	pthread_t thread;
	int status;

	if (fork() == 0) {
		execve(arg, script, env);
		_exit(1);
	}
	wait(&status);
	if (fork() == 0)
		raise(SIGKILL);
	wait(&status);
	/* A child whose parent leaves at once. */
	if (fork() == 0) {
		if (fork() == 0) {
			usleep(20000);
			execve("/bin/true", script, env);
		}
		_exit(4);
	}
	wait(&status);
	usleep(100000);
	pthread_create(&thread, NULL, exec_in_thread, NULL);
	pthread_join(thread, NULL);
	return 1;
}

static const struct kb_record *exit_of(const struct live *live, uint32_t pid)
{
	const struct kb_record *r;

	for (size_t i = 0; (r = live_find(live, KB_EVENT_EXIT, NULL, i)); i++)
		if (r->pid == pid)
			return r;
	fail_msg("no exit of %u", pid);
	return NULL;
}

static void test_programs(void **state)
{
	PATH_IN(script, *state, "script");
	const struct kb_record *r;
	struct live live;
	struct kb_err err;

	assert_ok(kb_file_write_atomic(script, "#!/bin/sh\nexit 3\n", 17, 0755, &err));
	run_bpf(&live, policy, run_programs, script, 9 << 8);
	r = find(&live, KB_EVENT_EXEC, script);
	assert_int_equal(r->outcome, KB_OUTCOME_OK);
	assert_int_equal(r->argc, 3);
	assert_true(bytes_are(r->argv[1], "one"));
	assert_true(bytes_are(r->exe, "/usr/bin/dash") || bytes_are(r->exe, "/usr/bin/bash"));
	assert_int_equal(r->ppid, 1);
	assert_int_equal(exit_of(&live, r->pid)->exit_code, 3);
	/* Nothing recorded but its end, and that is exact. */
	r = exit_of(&live, 3);
	assert_int_equal(r->signal, SIGKILL);
	assert_int_equal(r->ppid, 1);
	r = find(&live, KB_EVENT_EXEC, "/usr/bin/true");
	assert_int_equal(r->ppid, 4);
	assert_int_equal(exit_of(&live, 4)->exit_code, 4);
	r = find(&live, KB_EVENT_EXEC, "/nowhere/sh");
	assert_int_equal(r->outcome, KB_OUTCOME_FAILED);
	assert_int_equal(r->errnum, ENOENT);
	assert_int_equal(r->pid, 1);
	assert_true(r->tid > 1);
	assert_int_equal(exit_of(&live, 1)->exit_code, 9);
	live_finish(&live);
}

static int exec_much(void *arg)
{
	char path[] = "/bin/true";
	static char big[60000];
	char name[] = "true", *argv[12] = {name}, *env[] = {NULL};

	memset(big, 'x', sizeof(big) - 1);
	for (int i = 1; i < 10; i++)
		argv[i] = big;
	execve(path, argv, env);
	return 1;
}

/* More than the buffer holds: what is missing is counted to the byte. */
static void test_many_arguments(void **state)
{
	const struct kb_record *r;
	struct live live;
	size_t kept = 0;

	run_bpf(&live, policy, exec_much, NULL, 0);
	r = find(&live, KB_EVENT_EXEC, "/usr/bin/true");
	for (size_t i = 0; i < r->argc; i++)
		kept += r->argv[i].len + 1;
	assert_true(r->argc >= 2 && r->argv[1].len == 59999);
	assert_int_equal(kept + r->argv_lost, 5 + 9 * 60000);
	live_finish(&live);
}

/* ---- What names mean to the kernel --------------------------------------------------------------
 */

static int use_names(void *arg)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(9)};
	int tcp = socket(AF_INET, SOCK_STREAM, 0);

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (chdir(arg) < 0 || mkdir("real", 0755) < 0 || symlink("real", "alias") < 0 ||
		mknod("alias/fifo", S_IFIFO | 0600, 0) < 0 || link("alias/fifo", "alias/two") < 0 ||
		rename("alias/two", "alias/moved") < 0 || chmod("alias/moved", 0640) < 0 ||
		chown("alias/moved", (uid_t)-1, (gid_t)-1) < 0)
		return 1;
	close(open("alias/file", O_CREAT | O_WRONLY, 0600));
	if (truncate("alias/file", 3) < 0 || unlink("alias/file") < 0)
		return 2;
	/* Nobody listens; and nothing is there: the kernel never got as far as to ask. */
	return connect(tcp, (struct sockaddr *)&in, sizeof(in)) == 0 || unlink("alias/none") == 0;
}

/* Events of names below the directory, and what each is about. */
static const struct {
	enum kb_event event;
	const char *path, *path2;
} kernel_names[] = {
	{KB_EVENT_MKDIR, "real", NULL},
	{KB_EVENT_MKNOD, "real/fifo", NULL},
	{KB_EVENT_LINK, "real/fifo", "real/two"},
	{KB_EVENT_RENAME, "real/two", "real/moved"},
	{KB_EVENT_CHMOD, "real/moved", NULL},
	{KB_EVENT_CHOWN, "real/moved", NULL},
	{KB_EVENT_TRUNCATE, "real/file", NULL},
	{KB_EVENT_UNLINK, "real/file", NULL},
};

/* Skips where this kernel takes no hooks. skip() does not return: what the caller owns by then is
 * lost. */
static void need_hooks(struct live *live)
{
	if (kb_bpf_hub_hooked(live->hub))
		return;
	live_finish(live);
	skip();
}

static void test_names(void **state)
{
	const struct kb_record *r;
	struct live live;

	run_bpf(&live, LIVE_POLICY(LIVE_FILES LIVE_RECORD "net connect loopback\n"), use_names,
		*state, 0);
	need_hooks(&live);
	PATH_IN(alias, *state, "alias");
	PATH_IN(none, *state, "real/none");
	for (size_t i = 0; i < KB_ARRAY_LEN(kernel_names); i++) {
		PATH_IN(path, *state, kernel_names[i].path);
		PATH_IN(path2, *state, kernel_names[i].path2 ? kernel_names[i].path2 : "");

		r = find(&live, kernel_names[i].event, path);
		assert_int_equal(r->trust, KB_TRUST_KERNEL);
		if (kernel_names[i].path2)
			assert_true(bytes_are(r->path2, path2));
	}
	r = find(&live, KB_EVENT_SYMLINK, alias);
	assert_int_equal(r->trust, KB_TRUST_KERNEL);
	assert_true(bytes_are(r->path2, "real"));
	assert_int_equal(find(&live, KB_EVENT_CONNECT, NULL)->trust, KB_TRUST_KERNEL);
	assert_int_equal(find(&live, KB_EVENT_UNLINK, none)->trust, KB_TRUST_RACY);
	live_finish(&live);
}

#define RACES 400

static char flipped[] = "x";
static volatile int flipping = 1;

static void *flip(void *arg)
{
	while (flipping)
		*(volatile char *)flipped ^= 'x' ^ 'y';
	return NULL;
}

/* The name changes all the while; which file went, only the directory knows. */
static int race_names(void *arg)
{
	pthread_t thread;
	char went[RACES];
	int fd;

	if (chdir(arg) < 0 || pthread_create(&thread, NULL, flip, NULL) != 0)
		return 1;
	for (int i = 0; i < RACES; i++) {
		close(open("x", O_CREAT | O_WRONLY, 0600));
		close(open("y", O_CREAT | O_WRONLY, 0600));
		if (unlink(flipped) < 0)
			return 2;
		went[i] = access("x", F_OK) < 0 ? 'x' : 'y';
	}
	flipping = 0;
	pthread_join(thread, NULL);
	fd = open("truth", O_CREAT | O_WRONLY, 0600);
	return write(fd, went, sizeof(went)) != sizeof(went);
}

static void test_names_cannot_be_raced(void **state)
{
	KB_BUF_CLEANUP struct kb_buf went;
	const struct kb_record *r;
	struct live live;
	struct kb_err err;

	run_bpf(&live, policy, race_names, *state, 0);
	need_hooks(&live);
	PATH_IN(truth, *state, "truth");
	kb_buf_init(&went, RACES);
	assert_ok(kb_file_read(truth, &went, &err));
	for (size_t i = 0; i < RACES; i++) {
		r = live_find(&live, KB_EVENT_UNLINK, NULL, i);
		assert_non_null(r);
		assert_int_equal(r->path.data[r->path.len - 1], kb_buf_data(&went)[i]);
	}
	live_finish(&live);
}

/* ---- Sockets ----------------------------------------------------------------------------------
 */

static int use_sockets(void *arg)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(9)};
	int tcp = socket(AF_INET, SOCK_STREAM, 0);

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return connect(tcp, (struct sockaddr *)&in, sizeof(in)) < 0 && errno != ECONNREFUSED;
}

static void test_sockets(void **state)
{
	const struct kb_record *r;
	struct live live;

	run_bpf(&live, LIVE_POLICY(LIVE_FILES LIVE_RECORD "net connect loopback\n"), use_sockets,
		NULL, 0);
	r = find(&live, KB_EVENT_CONNECT, NULL);
	assert_int_equal(r->family, AF_INET);
	assert_int_equal(r->port, 9);
	assert_memory_equal(r->address.data, "\x7f\0\0\1", 4);
	assert_int_equal(r->decision, KB_DECISION_ALLOWED);
	live_finish(&live);
}

/* ---- Loss -------------------------------------------------------------------------------------
 */

#define FLOOD 60000

static int flood(void *arg)
{
	char name[300];

	memset(name, 'n', sizeof(name) - 1);
	name[0] = '/';
	name[250] = '\0';
	for (int i = 0; i < FLOOD; i++)
		open(name, O_RDONLY);
	return 0;
}

/* A collector that does not keep up loses calls; the number is exact. */
static void test_loss_is_counted(void **state)
{
	struct live live = {.lane_bpf = true};
	const struct kb_record *r;
	uint64_t lost = 0;
	siginfo_t info;

	live_init(&live, policy, NULL, "/");
	live_start(&live, flood, NULL);
	/* Not looking until it is over. */
	assert_int_equal(waitid(P_PID, (id_t)live.pid, &info, WEXITED | WNOWAIT), 0);
	live_wait(&live);
	for (size_t i = 0; (r = live_find(&live, KB_EVENT_LOSS, NULL, i)); i++)
		lost += r->count;
	assert_true(lost > 0);
	/* Besides the opens: the exit. */
	assert_int_equal(live_count(&live, KB_EVENT_OPEN, NULL) + lost +
				 live_count(&live, KB_EVENT_EXIT, NULL),
		FLOOD + 1);
	live_finish(&live);
}

#define TMPDIR_TEST(fn) cmocka_unit_test_setup_teardown(fn, tmpdir_setup, tmpdir_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TMPDIR_TEST(test_files),
		cmocka_unit_test(test_denials),
		TMPDIR_TEST(test_programs),
		cmocka_unit_test(test_many_arguments),
		TMPDIR_TEST(test_names),
		TMPDIR_TEST(test_names_cannot_be_raced),
		cmocka_unit_test(test_sockets),
		cmocka_unit_test(test_loss_is_counted),
	};
	struct kb_err err;

	if (kb_bpf_probe(&err) < 0) {
		fprintf(stderr, "skipped: %s\n", err.msg);
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
