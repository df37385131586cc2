#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/base/dirs.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/spawn.h"
#include "supervisor/base/util.h"

/* Run a shell script with fds; returns the wait status, its output (fd 1) in text. */
static int run_sh(const char *script, struct kb_spawn spawn, char *text, size_t size)
{
	const char *argv[] = {"sh", "-c", script, NULL};
	struct kb_spawn_fd fds[KB_SPAWN_FDS_MAX];
	ssize_t n, total = 0;
	int out[2], status;
	pid_t pid;

	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	if (spawn.n_fds)
		memcpy(fds, spawn.fds, spawn.n_fds * sizeof(fds[0]));
	fds[spawn.n_fds++] = (struct kb_spawn_fd){out[1], 1};
	spawn.path = "/bin/sh";
	spawn.argv = argv;
	spawn.fds = fds;
	assert_int_equal(kb_spawn(&spawn, &pid, NULL), 0);
	close(out[1]);
	while ((n = read(out[0], text + total, size - 1 - (size_t)total)) > 0)
		total += n;
	text[total] = '\0';
	close(out[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void test_fds_and_environment_are_exact(void **state)
{
	static const char *const env[] = {"ONE=1", NULL};
	int a = open("/dev/zero", O_RDONLY), b = open("/dev/full", O_RDONLY);
	/* Each is the other's target: nothing may be overwritten before it is used. */
	struct kb_spawn_fd swap[] = {{a, b}, {b, a}};
	char text[4096], want[64];

	setenv("KBSUP_LEAK", "1", 1);
	assert_true(a > 2 && b > 2);
	run_sh("cd /proc/self/fd; for f in *; do [ -e $f ] && echo $f=$(readlink $f); done; set",
		(struct kb_spawn){.env = env, .fds = swap, .n_fds = 2}, text, sizeof(text));
	snprintf(want, sizeof(want), "%d=/dev/full\n", a);
	assert_non_null(strstr(text, want));
	snprintf(want, sizeof(want), "%d=/dev/zero\n", b);
	assert_non_null(strstr(text, want));
	assert_non_null(strstr(text, "0=/dev/null\n"));
	assert_non_null(strstr(text, "2=/dev/null\n"));
	assert_non_null(strstr(text, "ONE='1'"));
	assert_null(strstr(text, "KBSUP_LEAK"));
	close(a);
	close(b);
}

static void test_nothing_else_is_inherited(void **state)
{
	int leak = open("/dev/zero", O_RDONLY); /* not close-on-exec */
	char text[4096], want[64];

	run_sh("for f in /proc/self/fd/*; do readlink $f; done", (struct kb_spawn){0}, text,
		sizeof(text));
	snprintf(want, sizeof(want), "/dev/zero");
	assert_null(strstr(text, want));
	close(leak);
}

static void test_signals_are_reset(void **state)
{
	char text[4096];
	sigset_t block, old;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&block);
	sigaddset(&block, SIGTERM);
	sigprocmask(SIG_BLOCK, &block, &old);
	run_sh("grep -E 'Sig(Blk|Ign)' /proc/self/status", (struct kb_spawn){0}, text,
		sizeof(text));
	sigprocmask(SIG_SETMASK, &old, NULL);
	assert_string_equal(text, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

static void test_failures_are_reported(void **state)
{
	const char *argv[] = {"x", NULL};
	struct kb_spawn spawn = {.path = "/nonexistent/x", .argv = argv};
	struct kb_err err;
	pid_t pid = -5;

	assert_int_equal(kb_spawn(&spawn, &pid, &err), -KB_ERR_SYSTEM);
	assert_int_equal(err.errnum, ENOENT);
	assert_int_equal(pid, -5);
	spawn = (struct kb_spawn){.path = "/bin/true", .argv = argv, .cwd = "/nonexistent"};
	assert_int_equal(kb_spawn(&spawn, &pid, &err), -KB_ERR_SYSTEM);
	assert_non_null(strstr(err.msg, "/nonexistent"));
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no zombies left */
}

static void test_dies_with_parent(void **state)
{
	const char *argv[] = {"sleep", "1000", NULL};
	struct kb_spawn spawn = {.path = "/bin/sleep", .argv = argv, .flags = KB_SPAWN_PDEATHSIG};
	int link[2];
	pid_t middle, pid = 0;

	assert_int_equal(pipe(link), 0);
	middle = fork();
	if (middle == 0) {
		if (kb_spawn(&spawn, &pid, NULL) < 0 ||
			write(link[1], &pid, sizeof(pid)) != sizeof(pid))
			_exit(1);
		_exit(0);
	}
	assert_int_equal(read(link[0], &pid, sizeof(pid)), sizeof(pid));
	assert_int_equal(waitpid(middle, NULL, 0), middle);
	for (int i = 0; i < 500; i++) {
		char path[64], state_char = 'Z';
		FILE *f;

		/* Gone, or going: it may end between the opening and the reading. */
		snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
		f = fopen(path, "r");
		if (f && fscanf(f, "%*d %*s %c", &state_char) != 1)
			state_char = 'Z';
		if (f)
			fclose(f);
		if (state_char == 'Z')
			return;
		usleep(10000);
	}
	fail_msg("the child outlived its parent");
}

static void test_describe(void **state)
{
	char text[KB_EXIT_TEXT];

	kb_exit_describe(3 << 8, text);
	assert_string_equal(text, "exit 3");
	kb_exit_describe(SIGKILL, text);
	assert_string_equal(text, "killed by SIGKILL");
}

static char scratch[64];

static int scratch_setup(void **state)
{
	strcpy(scratch, "/tmp/kbsup-test-XXXXXX");
	return mkdtemp(scratch) ? 0 : -1;
}

static int scratch_teardown(void **state)
{
	return kb_rmtree(scratch, NULL);
}

static void test_dirs_follow_xdg(void **state)
{
	struct kb_dirs dirs;
	struct kb_err err;
	char longer[200];

	setenv("HOME", "/h", 1);
	setenv("XDG_RUNTIME_DIR", "/r", 1);
	setenv("XDG_STATE_HOME", "not/absolute", 1);
	setenv("XDG_CONFIG_HOME", "/c", 1);
	assert_int_equal(kb_dirs_find(&dirs, NULL), 0);
	assert_string_equal(dirs.runtime, "/r/kbsup");
	assert_string_equal(dirs.socket, "/r/kbsup/control.sock");
	assert_string_equal(dirs.state, "/h/.local/state/kbsup");
	assert_string_equal(dirs.store, "/h/.local/state/kbsup/store");
	assert_string_equal(dirs.config, "/c/kbsup");
	memset(longer, 'a', sizeof(longer));
	longer[0] = '/';
	longer[sizeof(longer) - 1] = '\0';
	setenv("XDG_RUNTIME_DIR", longer, 1);
	assert_int_equal(kb_dirs_find(&dirs, &err), -KB_ERR_LIMIT);
	assert_true(err.hint[0] != '\0');
}

static void test_dirs_must_be_ours(void **state)
{
	char path[128], link_path[128];
	struct kb_err err;
	struct stat st;

	snprintf(path, sizeof(path), "%s/a/b", scratch);
	snprintf(link_path, sizeof(link_path), "%s/link", scratch);
	assert_int_equal(kb_dirs_make(path, NULL), 0);
	assert_int_equal(chmod(path, 0755), 0);
	assert_int_equal(kb_dirs_make(path, NULL), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(symlink(path, link_path), 0);
	assert_int_equal(kb_dirs_make(link_path, &err), -KB_ERR_REFUSED);
	if (geteuid() == 0) {
		assert_int_equal(chown(path, 12345, 12345), 0);
		assert_int_equal(kb_dirs_make(path, &err), -KB_ERR_REFUSED);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fds_and_environment_are_exact),
		cmocka_unit_test(test_nothing_else_is_inherited),
		cmocka_unit_test(test_signals_are_reset),
		cmocka_unit_test(test_failures_are_reported),
		cmocka_unit_test(test_dies_with_parent),
		cmocka_unit_test(test_describe),
		cmocka_unit_test(test_dirs_follow_xdg),
		cmocka_unit_test_setup_teardown(
			test_dirs_must_be_ours, scratch_setup, scratch_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
