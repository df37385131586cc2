/* The ways around a filter that are known, tried for real: each in a child under the preset
 * `shell`, with the program that denies by itself (no collector here). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "policy/tables.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"
#include "tests/policy/support.h"

#define X32 0x40000000
#define BAD 250 /* exit status of a child whose set-up failed */

static struct kb_bundle *shell;
static struct kb_program shell_program;

static int install(const struct kb_program *program, unsigned flags)
{
	struct sock_fprog fprog = {.len = (unsigned short)program->len, .filter = program->insns};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -1;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &fprog);
}

/* Runs fn in a child under the program; its wait status. */
static int run_under(const struct kb_program *program, int (*fn)(void))
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0)
		_exit(install(program, 0) ? BAD : fn());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static int result(int (*fn)(void))
{
	int status = run_under(&shell_program, fn);

	assert_true(WIFEXITED(status));
	assert_int_not_equal(WEXITSTATUS(status), BAD);
	return WEXITSTATUS(status);
}

/* errno of a raw call, 0 when it succeeded */
static int raw(long nr, long a, long b, long c, long d)
{
	return syscall(nr, a, b, c, d, 0, 0) == -1 ? errno : 0;
}

/* ---- One function per probe ------------------------------------------------------------------ */

#ifdef __x86_64__
static int probe_i386(void)
{
	long r;

	__asm__ volatile("int $0x80" : "=a"(r) : "a"(20L) : "memory");
	return r > 0 ? 0 : 1;
}

static int probe_x32(void)
{
	return raw(X32 | SYS_getpid, 0, 0, 0, 0);
}
#endif

static int probe_io_uring(void)
{
	char params[256] = {0};

	return raw(425, 1, (long)params, 0, 0);
}

static int probe_io_uring_enter(void)
{
	return raw(426, -1, 0, 0, 0);
}

static int probe_clone3(void)
{
	uint64_t args[11] = {[0] = 0x10000000};

	return raw(435, (long)args, sizeof(args), 0, 0);
}

static int probe_namespace_clone(void)
{
	return raw(SYS_clone, 0x10000000 | SIGCHLD, 0, 0, 0);
}

static int probe_unshare(void)
{
	return raw(SYS_unshare, 0x10000000, 0, 0, 0);
}

static int probe_unknown(void)
{
	static const long numbers[] = {999, 4095, 0x3fffffff, -1};

	for (size_t i = 0; i < KB_ARRAY_LEN(numbers); i++)
		if (raw(numbers[i], 0, 0, 0, 0) != ENOSYS)
			return 1;
	return ENOSYS;
}

/* The upper half of an int argument is nothing to the kernel, and must be nothing to the filter. */
static int probe_wide_ioctl(void)
{
	return raw(SYS_ioctl, 0, (long)(0x100000000UL | TIOCSTI), 0, 0);
}

static int probe_wide_socket(void)
{
	return raw(SYS_socket, (long)(0x700000000UL | 17 /* AF_PACKET */), 3, 0, 0);
}

static int probe_tioclinux(void)
{
	return raw(SYS_ioctl, 0, TIOCLINUX, 0, 0);
}

static int probe_seccomp(void)
{
	return raw(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, 0, 0);
}

static int probe_prctl_seccomp(void)
{
	return raw(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, 0, 0);
}

static int probe_ptrace(void)
{
	return raw(SYS_ptrace, 0, 0, 0, 0);
}

static int probe_process_vm(void)
{
	return raw(SYS_process_vm_readv, getpid(), 0, 0, 0);
}

static int probe_pidfd_getfd(void)
{
	return raw(438, -1, 0, 0, 0);
}

static int probe_userfaultfd(void)
{
	return raw(SYS_userfaultfd, 0, 0, 0, 0);
}

static int probe_bpf(void)
{
	return raw(SYS_bpf, 0, 0, 0, 0);
}

static int probe_keyctl(void)
{
	return raw(SYS_keyctl, 0, -3, 0, 0);
}

static int probe_mount(void)
{
	return raw(SYS_mount, 0, 0, 0, 0);
}

static int probe_open_tree(void)
{
	return raw(428, -100, 0, 0, 0);
}

static int probe_personality(void)
{
	return raw(SYS_personality, 8 /* PER_LINUX32 */, 0, 0, 0);
}

static int probe_memfd_secret(void)
{
	return raw(447, 0, 0, 0, 0);
}

static int probe_vsock(void)
{
	return raw(SYS_socket, 40, 1, 0, 0);
}

static int probe_handle(void)
{
	return raw(SYS_open_by_handle_at, -100, 0, 0, 0);
}

struct probe {
	const char *name;
	int (*fn)(void);
	int errnum;
};

static void denials(void **state)
{
	static const struct probe probes[] = {
#ifdef __x86_64__
		{"x32 number", probe_x32, ENOSYS},
#endif
		{"io_uring_setup", probe_io_uring, ENOSYS},
		{"io_uring_enter", probe_io_uring_enter, ENOSYS},
		{"clone3", probe_clone3, ENOSYS},
		{"clone with a namespace", probe_namespace_clone, EPERM},
		{"unshare", probe_unshare, EPERM},
		{"unknown calls", probe_unknown, ENOSYS},
		{"TIOCSTI with bits above 32", probe_wide_ioctl, EPERM},
		{"AF_PACKET with bits above 32", probe_wide_socket, EAFNOSUPPORT},
		{"TIOCLINUX", probe_tioclinux, EPERM},
		{"seccomp", probe_seccomp, EINVAL},
		{"prctl(PR_SET_SECCOMP)", probe_prctl_seccomp, EINVAL},
		{"ptrace", probe_ptrace, EPERM},
		{"process_vm_readv", probe_process_vm, EPERM},
		{"pidfd_getfd", probe_pidfd_getfd, EPERM},
		{"userfaultfd", probe_userfaultfd, EPERM},
		{"bpf", probe_bpf, EPERM},
		{"keyctl", probe_keyctl, EPERM},
		{"mount", probe_mount, EPERM},
		{"open_tree", probe_open_tree, EPERM},
		{"personality", probe_personality, EPERM},
		{"memfd_secret", probe_memfd_secret, ENOSYS},
		{"AF_VSOCK", probe_vsock, EAFNOSUPPORT},
		{"open_by_handle_at", probe_handle, EPERM},
	};

	(void)state;
	for (size_t i = 0; i < KB_ARRAY_LEN(probes); i++) {
		int got = result(probes[i].fn);

		if (got != probes[i].errnum)
			fail_msg("%s: %s, not %s", probes[i].name, strerror(got),
				strerror(probes[i].errnum));
	}
}

static void foreign_abi_is_killed(void **state)
{
	(void)state;
#ifdef __x86_64__
	int status = run_under(&shell_program, probe_i386);

	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSYS);
#else
	skip();
#endif
}

/* ---- What must go on working ----------------------------------------------------------------- */

static volatile sig_atomic_t caught;

static void on_signal(int signo)
{
	caught = signo;
}

static int works_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	struct timespec half = {.tv_nsec = 20000000};
	pid_t me = getpid(), other;

	sigaction(SIGUSR1, &action, NULL);
	other = fork();
	if (other == 0) {
		usleep(5000);
		kill(me, SIGUSR1);
		_exit(0);
	}
	while (nanosleep(&half, &half) && errno == EINTR)
		;
	waitpid(other, NULL, 0);
	return caught == SIGUSR1 ? 0 : 1;
}

static void *thread_main(void *arg)
{
	return arg;
}

static int works_threads(void)
{
	pthread_t thread;
	void *back = NULL;
	int token;

	if (pthread_create(&thread, NULL, thread_main, &token))
		return 1;
	pthread_join(thread, &back);
	return back == &token ? 0 : 2;
}

extern char **environ;

static int works_spawn(void)
{
	char *argv[] = {"true", NULL};
	int status;
	pid_t pid;

	if (posix_spawn(&pid, "/bin/true", NULL, NULL, argv, environ))
		return 1;
	waitpid(pid, &status, 0);
	return status;
}

static int works_shell(void)
{
	return system("x=$(printf %s a | tr a b); test \"$x\" = b && python3 -c 'import os' "
		      ">/dev/null 2>&1 || test \"$x\" = b")
		       ? 1
		       : 0;
}

static void ordinary_work(void **state)
{
	static int (*const works[])(void) = {
		works_signals, works_threads, works_spawn, works_shell};

	(void)state;
	for (size_t i = 0; i < KB_ARRAY_LEN(works); i++)
		assert_int_equal(result(works[i]), 0);
}

/* ---- What the kernel needs is never taken ---------------------------------------------------- */

/* Comes back from a handler (rt_sigreturn), goes on sleeping after a stop (restart_syscall) and
 * ends (exit); the caller stops it meanwhile. */
static int works_without_rules(void)
{
	struct timespec tenth = {.tv_nsec = 300000000};

	while (!caught)
		; /* the timer was set before the filter */
	return raw(SYS_nanosleep, (long)&tenth, (long)&tenth, 0, 0);
}

static void mandatory_calls_stay(void **state)
{
	const struct itimerval soon = {.it_value = {.tv_usec = 20000}};
	struct kb_bundle *bundle = test_compile("policy t {\n default deny ENOSYS record none\n"
						" syscall nanosleep allow\n}\n",
		"bare.policy", NULL);
	struct kb_program program = test_emit(bundle, kb_arch_native(), KB_EMIT_PLAIN);
	int status = 0;
	pid_t pid;

	(void)state;
	caught = 0;
	pid = fork();
	if (pid == 0) {
		signal(SIGALRM, on_signal);
		setitimer(ITIMER_REAL, &soon, NULL);
		/* By the call that is never taken: a sanitizer's _exit() looks for leaks first. */
		syscall(SYS_exit, install(&program, 0) ? BAD : works_without_rules());
	}
	usleep(150000); /* well within its sleep: the stop is what makes the call restart */
	kill(pid, SIGSTOP);
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	kill(pid, SIGCONT);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	kb_program_finish(&program);
	kb_bundle_destroy(bundle);
}

/* ---- Errors ---------------------------------------------------------------------------------- */

static int getppid_errno(void)
{
	return raw(SYS_getppid, 0, 0, 0, 0);
}

/* The kernel takes 16 bits and means 12 of them: only names go in, and each comes out as itself. */
static void every_errno_arrives(void **state)
{
	unsigned tried = 0;

	(void)state;
	for (int errnum = 1; errnum < 4096; errnum++) {
		KB_FREE char *text = NULL;
		struct kb_bundle *bundle;
		struct kb_program program;

		if (!kb_errno_name(errnum))
			continue;
		text = kb_asprintf("policy t extends shell {\n syscall getppid deny %s\n}\n",
			kb_errno_name(errnum));
		bundle = test_compile(text, "errno.policy", NULL);
		program = test_emit(bundle, kb_arch_native(), KB_EMIT_PLAIN);
		assert_int_equal(WEXITSTATUS(run_under(&program, getppid_errno)), errnum);
		kb_program_finish(&program);
		kb_bundle_destroy(bundle);
		tried++;
	}
	assert_true(tried >= 40);
}

/* ---- Kill takes the whole process ------------------------------------------------------------ */

static void *thread_kill(void *arg)
{
	syscall(SYS_getppid);
	return arg;
}

static int kill_in_a_thread(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, thread_kill, NULL);
	pthread_join(thread, NULL);
	return 0;
}

static void kill_is_for_the_process(void **state)
{
	struct kb_bundle *bundle = test_compile(
		"policy t extends shell {\n syscall getppid kill\n}\n", "kill.policy", NULL);
	struct kb_program program = test_emit(bundle, kb_arch_native(), KB_EMIT_PLAIN);
	int status = run_under(&program, kill_in_a_thread);

	(void)state;
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSYS);
	kb_program_finish(&program);
	kb_bundle_destroy(bundle);
}

/* ---- The notify lane ------------------------------------------------------------------------- */

static int load_notify(void)
{
	struct kb_program program = test_emit(shell, kb_arch_native(), KB_EMIT_NOTIFY);
	int fd = install(&program, SECCOMP_FILTER_FLAG_NEW_LISTENER);

	/* exit_group is recorded too: with nobody listening, leave by the call that never traps. */
	syscall(SYS_exit, fd > 0 ? 0 : 1);
	return 1;
}

static void kernel_takes_the_notify_program(void **state)
{
	int status = 0;
	pid_t pid = fork();

	(void)state;
	if (pid == 0)
		_exit(load_notify());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static int setup(void **state)
{
	(void)state;
	shell = test_compile(NULL, "shell", NULL);
	if (!shell || !kb_arch_native())
		return -1;
	shell_program = test_emit(shell, kb_arch_native(), KB_EMIT_PLAIN);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	kb_program_finish(&shell_program);
	kb_bundle_destroy(shell);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(denials),
		cmocka_unit_test(foreign_abi_is_killed),
		cmocka_unit_test(ordinary_work),
		cmocka_unit_test(mandatory_calls_stay),
		cmocka_unit_test(every_errno_arrives),
		cmocka_unit_test(kill_is_for_the_process),
		cmocka_unit_test(kernel_takes_the_notify_program),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
