/* escapes ALLOWED FORBIDDEN runs inside a session and makes system calls that a library would not:
 * by other calling conventions, with strings that change meanwhile. Prints "NAME RESULT" lines;
 * RESULT is "ok" or an errno's number. A call that kills is made in a child: then it is "signal N".
 *
 * escapes --without NAME CMD... runs a command on a kernel that seems not to have a mechanism.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define X32	0x40000000L
#define FLIPS	200000
#define FLIPS_S 4 /* seconds at most */
#define MADE_UP 5120L

static void tell(const char *name, long result)
{
	if (result >= 0)
		printf("%s ok\n", name);
	else
		printf("%s %ld\n", name, -result);
}

/* In a child, because the filter may kill. */
static void guarded(const char *name, long (*fn)(long), long arg)
{
	int status, pair[2];
	long result = -EIO;
	pid_t pid;

	fflush(stdout);
	if (pipe(pair) < 0 || (pid = fork()) < 0)
		exit(1);
	if (pid == 0) {
		/* Lane notify learns of a process by its first recorded call. */
		close(open("/dev/null", O_RDONLY));
		result = fn(arg);
		_exit(write(pair[1], &result, sizeof(result)) != sizeof(result));
	}
	waitpid(pid, &status, 0);
	if (WIFSIGNALED(status)) {
		printf("%s signal %d\n", name, WTERMSIG(status));
	} else if (read(pair[0], &result, sizeof(result)) == sizeof(result)) {
		tell(name, result);
	}
	close(pair[0]);
	close(pair[1]);
}

static long plain(long nr)
{
	long r = syscall(nr, 0, 0, 0, 0, 0, 0);

	return r < 0 ? -errno : r;
}

#if defined(__x86_64__)
/* The 32-bit entry: eax is a number of the other table. */
static long by_int80(long nr)
{
	long r;

	__asm__ volatile("int $0x80"
			 : "=a"(r)
			 : "a"(nr), "b"(0), "c"(0), "d"(0), "S"(0), "D"(0)
			 : "memory", "r8", "r9", "r10", "r11");
	return (int)r;
}
#endif

static void other_conventions(void)
{
#if defined(__x86_64__)
	guarded("x32.mount", plain, X32 | SYS_mount);
	guarded("x32.ptrace", plain, X32 | 521);
	guarded("x32.socket", plain, X32 | SYS_socket);
	guarded("x32.getpid", plain, X32 | SYS_getpid);
	guarded("int80.socketcall", by_int80, 102);
	guarded("int80.mount", by_int80, 21);
	guarded("int80.ptrace", by_int80, 26);
	guarded("int80.open", by_int80, 5);
#endif
	guarded("unknown.number", plain, MADE_UP);
	guarded("unknown.negative", plain, -2L);
}

static void other_processes(void)
{
	char bytes[8];
	struct iovec mine = {bytes, sizeof(bytes)}, theirs = {(void *)0x400000, sizeof(bytes)};
	int fd = open("/proc/1/mem", O_RDWR);

	tell("init.mem", fd < 0 ? -errno : fd);
	tell("init.read",
		syscall(SYS_process_vm_readv, 1, &mine, 1, &theirs, 1, 0) < 0 ? -errno : 0);
	tell("init.write",
		syscall(SYS_process_vm_writev, 1, &mine, 1, &theirs, 1, 0) < 0 ? -errno : 0);
	tell("init.pidfd", syscall(SYS_pidfd_getfd, 0, 3, 0) < 0 ? -errno : 0);
	tell("init.root", open("/proc/1/root/etc/passwd", O_RDONLY) < 0 ? -errno : 0);
	tell("init.ns", open("/proc/1/ns/mnt", O_RDONLY) < 0 ? -errno : 0);
}

/* ---- A name that changes while it is looked at ----------------------------------------------- */

static char flipping[256];
static const char *faces[2];
static volatile int flips_over;

static void *flip(void *arg)
{
	for (unsigned i = 0; !flips_over; i++)
		strcpy(flipping, faces[i & 1]);
	return NULL;
}

static void names_that_flip(const char *allowed, const char *forbidden)
{
	pthread_t thread;
	time_t end = time(NULL) + FLIPS_S;
	long opened = 0;
	char bytes[8];

	faces[0] = allowed;
	faces[1] = forbidden;
	strcpy(flipping, allowed);
	if (pthread_create(&thread, NULL, flip, NULL) != 0)
		exit(1);
	for (int i = 0; i < FLIPS && time(NULL) < end; i++) {
		int fd = open(flipping, O_RDONLY);

		if (fd < 0)
			continue;
		if (read(fd, bytes, sizeof(bytes)) >= 6 && memcmp(bytes, "secret", 6) == 0)
			opened++;
		close(fd);
	}
	flips_over = 1;
	pthread_join(thread, NULL);
	printf("flips.read %ld\n", opened);
}

/* Arguments that the collector cannot read, or that go while it does. */
static void broken_arguments(void)
{
	tell("broken.path",
		syscall(SYS_openat, AT_FDCWD, (void *)16, O_RDONLY, 0) < 0 ? -errno : 0);
	tell("broken.exec",
		syscall(SYS_execve, (void *)16, (void *)16, (void *)16) < 0 ? -errno : 0);
	tell("broken.connect", syscall(SYS_connect, 0, (void *)16, 16) < 0 ? -errno : 0);
}

/* ---- A kernel without -------------------------------------------------------------------------
 */

static int without(const char *name, char **command)
{
	static const struct {
		const char *name;
		unsigned nr;
	} mechanisms[] = {{"landlock", SYS_landlock_create_ruleset}, {"seccomp", SYS_seccomp}};
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};

	for (size_t i = 0; i < sizeof(mechanisms) / sizeof(mechanisms[0]); i++)
		if (strcmp(mechanisms[i].name, name) == 0)
			code[1].k = mechanisms[i].nr;
	/* For root too: a filter may be inherited by programs without setuid only. */
	if (!code[1].k || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		return 2;
	execvp(command[0], command);
	return 2;
}

int main(int argc, char **argv)
{
	if (argc > 3 && strcmp(argv[1], "--without") == 0)
		return without(argv[2], argv + 3);
	if (argc != 3)
		return 2;
	other_conventions();
	other_processes();
	broken_arguments();
	names_that_flip(argv[1], argv[2]);
	return 0;
}
