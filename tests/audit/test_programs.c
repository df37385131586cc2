/* Programs and processes: what was run, by whom, how it ended, in what order. */
#include "tests/unit/kbtest.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "live.h"

static const char *const policy = LIVE_POLICY(LIVE_FILES LIVE_RECORD);

static int wait_for(pid_t pid)
{
	int status = -1;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

static const struct kb_record *expect_exec(
	const struct live *live, const char *path, enum kb_outcome outcome)
{
	const struct kb_record *r = live_find(live, KB_EVENT_EXEC, path, 0);

	if (!r || r->outcome != outcome) {
		live_dump(live);
		fail_msg("exec of %s: %s", path, r ? "another outcome" : "no record");
	}
	return r;
}

static const struct kb_record *exit_of(const struct live *live, uint32_t pid)
{
	for (size_t i = 0; i < live->n_records; i++)
		if (live->records[i]->record.event == KB_EVENT_EXIT &&
			live->records[i]->record.pid == pid)
			return &live->records[i]->record;
	fail_msg("no exit of %u", pid);
	return NULL;
}

/* ---- One program ------------------------------------------------------------------------------
 */

static int exec_echo(void *arg)
{
	char *argv[] = {"echo", "", "a\nb", "\xff\xfe", NULL}, *env[] = {NULL};
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	dup2(null, 1);
	chdir("/usr");
	execve("/nowhere/echo", argv, env);
	execve("/etc", argv, env);
	execve("/bin/echo", argv, env);
	return 1;
}

static void test_exec(void **state)
{
	struct live live = {0};
	const struct kb_record *r;

	assert_int_equal(live_run(&live, policy, exec_echo, NULL), 0);
	r = expect_exec(&live, "/nowhere/echo", KB_OUTCOME_FAILED);
	assert_int_equal(r->errnum, ENOENT);
	expect_exec(&live, "/etc", KB_OUTCOME_FAILED);
	r = expect_exec(&live, "/usr/bin/echo", KB_OUTCOME_OK);
	assert_true(bytes_are(r->path_arg, "/bin/echo"));
	assert_true(bytes_are(r->exe, "/usr/bin/echo"));
	assert_true(bytes_are(r->comm, "echo"));
	assert_true(bytes_are(r->cwd, "/usr"));
	assert_int_equal(r->argc, 4);
	assert_true(bytes_are(r->argv[0], "echo"));
	assert_int_equal(r->argv[1].len, 0);
	assert_true(bytes_are(r->argv[2], "a\nb"));
	assert_true(bytes_are(r->argv[3], "\xff\xfe"));
	assert_int_equal(r->ppid, getpid());
	/* The new program's records come after. */
	assert_true(live_index(&live, r) <
		    live_index(&live, live_find(&live, KB_EVENT_OPEN, "/etc/ld.so.cache", 0)));
	r = exit_of(&live, r->pid);
	assert_true(r->has_exit_code);
	assert_int_equal(r->exit_code, 0);
	live_finish(&live);
}

static int exec_script(void *arg)
{
	char *argv[] = {"zero", "one", NULL}, *env[] = {NULL};

	execve(arg, argv, env);
	return 1;
}

static void write_script(const char *path, const char *text)
{
	struct kb_err err;

	assert_ok(kb_file_write_atomic(path, text, strlen(text), 0755, &err));
}

static void test_script(void **state)
{
	PATH_IN(script, *state, "script");
	struct live live = {0};
	const struct kb_record *r;

	write_script(script, "#!/bin/sh -e\nexit 5\n");
	assert_int_equal(live_run(&live, policy, exec_script, script), 5 << 8);
	r = expect_exec(&live, script, KB_OUTCOME_OK);
	/* The script was asked for, the shell runs; the arguments are the caller's. */
	assert_true(bytes_are(r->exe, "/usr/bin/dash") || bytes_are(r->exe, "/usr/bin/bash"));
	assert_true(bytes_are(r->comm, "script"));
	assert_int_equal(r->argc, 2);
	assert_int_equal(exit_of(&live, r->pid)->exit_code, 5);
	live_finish(&live);
}

static void test_script_without_interpreter(void **state)
{
	PATH_IN(script, *state, "script");
	struct live live = {0};

	write_script(script, "#!/nowhere/interpreter\n");
	assert_int_equal(live_run(&live, policy, exec_script, script), 1 << 8);
	expect_exec(&live, script, KB_OUTCOME_FAILED);
	live_finish(&live);
}

static int copy_to(int fd, const char *from)
{
	int in = open(from, O_RDONLY | O_CLOEXEC);
	char buf[65536];
	ssize_t n;

	while ((n = read(in, buf, sizeof(buf))) > 0)
		if (write(fd, buf, (size_t)n) != n)
			return -1;
	close(in);
	return 0;
}

static int exec_memfd(void *arg)
{
	char *argv[] = {"ghost", NULL}, *env[] = {NULL};
	int fd = memfd_create("ghost", MFD_CLOEXEC);

	copy_to(fd, "/bin/true");
	syscall(SYS_execveat, fd, "", argv, env, AT_EMPTY_PATH);
	return 1;
}

static void test_memfd(void **state)
{
	struct live live = {0};
	const struct kb_record *r;

	assert_int_equal(live_run(&live, policy, exec_memfd, NULL), 0);
	r = expect_exec(&live, NULL, KB_OUTCOME_OK);
	assert_true(bytes_are(r->exe, "/memfd:ghost (deleted)"));
	live_finish(&live);
}

/* Only /proc/PID/exe knows what ld.so was told to run: the loader itself. */
static int exec_loader(void *arg)
{
	char *argv[] = {"ld", "/bin/true", NULL}, *env[] = {NULL};

	execve("/lib64/ld-linux-x86-64.so.2", argv, env);
	execve("/lib/ld-linux-aarch64.so.1", argv, env);
	return 1;
}

static void test_loader(void **state)
{
	struct live live = {0};
	const struct kb_record *r;
	char want[4096];
	size_t i = 0;

	assert_int_equal(live_run(&live, policy, exec_loader, NULL), 0);
	while ((r = live_find(&live, KB_EVENT_EXEC, NULL, i++)) && r->outcome != KB_OUTCOME_OK)
		;
	assert_non_null(r);
	snprintf(want, sizeof(want), "%.*s", (int)r->exe.len, r->exe.data);
	assert_non_null(strstr(want, "/ld-"));
	live_finish(&live);
}

static int exec_again(void *arg)
{
	char *argv[] = {"/bin/sh", "-c", "exec /bin/sh -c 'exec /bin/sh -c \"exit 3\"'", NULL};
	char *env[] = {NULL};

	execve(argv[0], argv, env);
	return 1;
}

/* The same program over itself is still three programs. */
static void test_same_program_again(void **state)
{
	struct live live = {0};
	const struct kb_record *r;
	size_t n = 0;

	assert_int_equal(live_run(&live, policy, exec_again, NULL), 3 << 8);
	while ((r = live_find(&live, KB_EVENT_EXEC, NULL, n))) {
		assert_int_equal(r->outcome, KB_OUTCOME_OK);
		n++;
	}
	assert_int_equal(n, 3);
	live_finish(&live);
}

/* ---- Big and broken arguments -----------------------------------------------------------------
 */

static int exec_megabyte(void *arg)
{
	static char big[120000];
	char *argv[12] = {"true"}, *env[] = {NULL};

	memset(big, 'x', sizeof(big) - 1);
	for (int i = 1; i < 10; i++)
		argv[i] = big;
	argv[10] = "last";
	execve("/bin/true", argv, env);
	return 1;
}

static void test_megabyte_of_arguments(void **state)
{
	struct live live = {0};
	const struct kb_record *r;

	assert_int_equal(live_run(&live, policy, exec_megabyte, NULL), 0);
	r = expect_exec(&live, "/usr/bin/true", KB_OUTCOME_OK);
	assert_int_equal(r->argc, 11);
	assert_int_equal(r->argv_lost, 0);
	for (int i = 1; i < 10; i++)
		assert_int_equal(r->argv[i].len, 119999);
	assert_true(bytes_are(r->argv[10], "last"));
	live_finish(&live);
}

static int exec_broken(void *arg)
{
	char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *argv[] = {"x", (char *)8, NULL}, *env[] = {NULL};

	munmap(map + 4096, 4096);
	memset(map, 'y', 4096);
	/* A vector with a bad pointer, a path that runs into nothing, one without an end. */
	if (execve("/bin/true", argv, env) != -1 || errno != EFAULT)
		return 1;
	argv[1] = NULL;
	if (execve(map + 4000, argv, env) != -1 || errno != EFAULT)
		return 2;
	if (syscall(SYS_execve, 16, argv, env) != -1 || errno != EFAULT)
		return 3;
	return 0;
}

static void test_broken_arguments(void **state)
{
	struct live live = {0};

	assert_int_equal(live_run(&live, policy, exec_broken, NULL), 0);
	assert_int_equal(live_count(&live, KB_EVENT_EXEC, NULL), 3);
	for (size_t i = 0; i < 3; i++) {
		const struct kb_record *r = live_find(&live, KB_EVENT_EXEC, NULL, i);

		assert_int_equal(r->trust, KB_TRUST_UNREADABLE);
		assert_int_equal(r->outcome, KB_OUTCOME_FAILED);
	}
	live_finish(&live);
}

/* ---- Threads and children ---------------------------------------------------------------------
 */

static void *exec_in_thread(void *arg)
{
	char *argv[] = {"true", NULL}, *env[] = {NULL};

	execve("/nowhere/true", argv, env);
	execve("/bin/true", argv, env);
	return NULL;
}

static void *open_all_the_time(void *arg)
{
	for (;;)
		close(open("/etc/hostname", O_RDONLY | O_CLOEXEC));
	return NULL;
}

static int exec_from_thread(void *arg)
{
	pthread_t a, b;

	pthread_create(&a, NULL, open_all_the_time, NULL);
	usleep(2000);
	pthread_create(&b, NULL, exec_in_thread, NULL);
	pthread_join(b, NULL);
	return 1;
}

static void test_exec_from_thread(void **state)
{
	struct live live = {0};
	const struct kb_record *r;

	assert_int_equal(live_run(&live, policy, exec_from_thread, NULL), 0);
	r = expect_exec(&live, "/nowhere/true", KB_OUTCOME_FAILED);
	assert_true(r->tid != 0 && r->tid != r->pid);
	r = expect_exec(&live, "/usr/bin/true", KB_OUTCOME_OK);
	assert_true(r->tid != 0 && r->tid != r->pid);
	/* Nothing of the old program after it. */
	for (size_t i = live_index(&live, r); i < live.n_records; i++)
		assert_false(bytes_are(live.records[i]->record.path, "/etc/hostname"));
	live_finish(&live);
}

static int spawn_some(void *arg)
{
	char *argv[] = {"sh", "-c", "exit 7", NULL}, *env[] = {NULL};
	pid_t pid;

	for (int i = 0; i < 20; i++) {
		if (posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, env) != 0)
			return 1;
		if (wait_for(pid) != 7 << 8)
			return 2;
	}
	if (posix_spawn(&pid, "/nowhere/sh", NULL, NULL, argv, env) != ENOENT)
		return 3;
	return 0;
}

static void test_spawn(void **state)
{
	struct live live = {0};
	uint32_t parent;

	assert_int_equal(live_run(&live, policy, spawn_some, NULL), 0);
	parent = (uint32_t)live.pid;
	assert_int_equal(live_count(&live, KB_EVENT_EXEC, "/usr/bin/dash") +
				 live_count(&live, KB_EVENT_EXEC, "/usr/bin/bash"),
		20);
	for (size_t i = 0; i < 20; i++) {
		const struct kb_record *r = live_find(&live, KB_EVENT_EXEC, NULL, i);

		assert_int_equal(r->outcome, KB_OUTCOME_OK);
		assert_int_equal(r->ppid, parent);
		assert_int_equal(exit_of(&live, r->pid)->exit_code, 7);
	}
	expect_exec(&live, "/nowhere/sh", KB_OUTCOME_FAILED);
	live_finish(&live);
}

/* A parent that leaves its child behind before the child has done anything recorded. */
static int orphan(void *arg)
{
	char *argv[] = {"true", NULL}, *env[] = {NULL};
	int gate[2], gone[2];
	pid_t middle;
	char byte;

	if (pipe(gate) < 0 || pipe(gone) < 0)
		return 1;
	middle = fork();
	if (middle == 0) {
		if (fork() == 0) {
			close(gone[0]);
			read(gate[0], &byte, 1);
			execve("/bin/true", argv, env);
		}
		_exit(0);
	}
	wait_for(middle);
	close(gone[1]);
	write(gate[1], "g", 1);
	/* The grandchild is not ours to wait for; its end closes the pipe. */
	read(gone[0], &byte, 1);
	return 0;
}

static void test_orphan_keeps_its_parent(void **state)
{
	struct live live = {0};
	const struct kb_record *r, *end;

	assert_int_equal(live_run(&live, policy, orphan, NULL), 0);
	r = expect_exec(&live, "/usr/bin/true", KB_OUTCOME_OK);
	/* Its parent is the middle process, which had ended, not who inherited it. */
	end = exit_of(&live, r->ppid);
	assert_true(live_index(&live, end) < live_index(&live, r));
	/* Not by the last record: the grandchild may be seen to end after everybody. */
	assert_int_equal(end->ppid, live.pid);
	live_finish(&live);
}

static int die_of_signal(void *arg)
{
	pid_t pid = fork();

	if (pid == 0) {
		close(open("/etc/hostname", O_RDONLY | O_CLOEXEC));
		raise(SIGKILL);
	}
	wait_for(pid);
	return 0;
}

static void test_death_by_signal(void **state)
{
	struct live live = {0};
	const struct kb_record *r;

	assert_int_equal(live_run(&live, policy, die_of_signal, NULL), 0);
	r = exit_of(&live, live_find(&live, KB_EVENT_OPEN, "/etc/hostname", 0)->pid);
	/* Who was reaped at once leaves no trace on kernels before 6.15. */
	if (r->has_exit_code) {
		assert_int_equal(r->signal, SIGKILL);
		assert_int_equal(r->exit_code, 128 + SIGKILL);
	} else {
		assert_int_equal(r->outcome, KB_OUTCOME_UNKNOWN);
	}
	live_finish(&live);
}

#define MANY 300

static int fork_many(void *arg)
{
	for (int i = 0; i < MANY; i++) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(i & 0xff);
		if (wait_for(pid) != (i & 0xff) << 8)
			return 1;
	}
	return 0;
}

static void test_many_forks(void **state)
{
	struct live live = {0};

	assert_int_equal(live_run(&live, policy, fork_many, NULL), 0);
	assert_int_equal(live.n_records, MANY + 1);
	for (size_t i = 0; i < MANY; i++) {
		const struct kb_record *r = &live.records[i]->record;

		assert_int_equal(r->event, KB_EVENT_EXIT);
		assert_int_equal(r->exit_code, i & 0xff);
		assert_int_equal(r->ppid, live.records[MANY]->record.pid);
	}
	live_finish(&live);
}

#define TMPDIR_TEST(fn) cmocka_unit_test_setup_teardown(fn, tmpdir_setup, tmpdir_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exec),
		TMPDIR_TEST(test_script),
		TMPDIR_TEST(test_script_without_interpreter),
		cmocka_unit_test(test_memfd),
		cmocka_unit_test(test_loader),
		cmocka_unit_test(test_same_program_again),
		cmocka_unit_test(test_megabyte_of_arguments),
		cmocka_unit_test(test_broken_arguments),
		cmocka_unit_test(test_exec_from_thread),
		cmocka_unit_test(test_spawn),
		cmocka_unit_test(test_orphan_keeps_its_parent),
		cmocka_unit_test(test_death_by_signal),
		cmocka_unit_test(test_many_forks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
