/* What the kernel must be able to do, tried in a child process that is thrown away.
 *
 * Interfaces: user_namespaces(7), seccomp_unotify(2), landlock(7). The constants that the headers
 * of older systems lack are given here with their values.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "doctor.h"
#include "supervisor/base/fd.h"

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1ul << 5)
#endif
#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS	   SECCOMP_IOW(4, __u64)
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1ul << 0)
#endif

#define CALLS	     1000 /* notifications answered */
#define ANSWER	     4242 /* what each of them returns */
#define WAIT_MS	     5000
#define CHILD_FAILED 99 /* anything but an errno that is expected */

/* Runs fn in a child; its exit status, or -1. */
static int in_child(int (*fn)(void *), void *arg)
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0)
		_exit(fn(arg));
	if (pid < 0 || waitpid(pid, &status, 0) < 0 || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

/* ---- User namespaces ------------------------------------------------------------------------- */

static int write_text(const char *path, const char *text)
{
	KB_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd < 0 || write(fd, text, strlen(text)) < 0 ? errno : 0;
}

static int make_namespaces(void *arg)
{
	char map[64];

	snprintf(map, sizeof(map), "0 %u 1\n", (unsigned)getuid());
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC |
		    CLONE_NEWUTS | CLONE_NEWCGROUP) < 0)
		return errno;
	return write_text("/proc/self/uid_map", map);
}

void kb_probe_namespaces(struct kb_check *check)
{
	int errnum = in_child(make_namespaces, NULL);

	if (errnum == 0) {
		kb_check_say(check, KB_CHECK_OK, "all seven kinds were made, with a user mapped");
		return;
	}
	kb_check_say(check, KB_CHECK_FAILED, "they cannot be made: %s",
		errnum > 0 ? strerror(errnum) : "the attempt was killed");
	kb_check_fix(check, "allow them: sysctl user.max_user_namespaces, "
			    "kernel.unprivileged_userns_clone and "
			    "kernel.apparmor_restrict_unprivileged_userns; in a container, its own "
			    "seccomp profile");
}

/* ---- Seccomp notification -------------------------------------------------------------------- */

static int install_filter(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = KB_ARRAY_LEN(code), .filter = code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	return (int)syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER,
		SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
		&program);
}

/* The trapped side: hands the listener out, then makes its calls. */
static int make_calls(int sock)
{
	int listener = install_filter(), errnum = errno;
	struct kb_err err;

	if (listener < 0)
		return errnum;
	if (kb_fd_send(sock, "l", 1, &listener, 1, &err) < 0)
		return CHILD_FAILED;
	close(listener);
	for (int i = 0; i < CALLS; i++)
		if (syscall(__NR_getppid) != ANSWER)
			return CHILD_FAILED;
	return 0;
}

static bool answer_one(int listener)
{
	struct pollfd p = {.fd = listener, .events = POLLIN};
	struct seccomp_notif request = {0};
	struct seccomp_notif_resp response = {0};

	if (poll(&p, 1, WAIT_MS) <= 0 || ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request) < 0)
		return false;
	response.id = request.id;
	response.val = ANSWER;
	return ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response) == 0;
}

/* Nanoseconds for all calls, or -1. */
static int64_t answer_all(int listener, bool *ret_synchronous)
{
	int64_t start = kb_now_mono();

	*ret_synchronous = ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS,
				   SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP) == 0;
	for (int i = 0; i < CALLS; i++)
		if (!answer_one(listener))
			return -1;
	return kb_now_mono() - start;
}

static void say_seccomp(struct kb_check *check, int status, int64_t ns, bool synchronous)
{
	if (status == 0 && ns > 0) {
		kb_check_say(check, KB_CHECK_OK, "%d calls answered, %.1f µs each%s", CALLS,
			(double)ns / CALLS / 1000, synchronous ? ", synchronous wake-up" : "");
		return;
	}
	if (status == EINVAL)
		kb_check_say(check, KB_CHECK_FAILED, "this kernel lacks it, or a part of it");
	else
		kb_check_say(check, KB_CHECK_FAILED, "it does not work: %s",
			status > 0 && status != CHILD_FAILED ? strerror(status)
							     : "calls were not answered");
	kb_check_fix(check, "run a kernel of 5.19 or later; in a container, allow seccomp(2)");
}

void kb_probe_seccomp(struct kb_check *check)
{
	int pair[2], listener = -1, status = -1;
	bool synchronous = false;
	int64_t ns = -1;
	char byte;
	pid_t pid;

	if (kb_fd_socketpair(false, pair, NULL) < 0)
		return;
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		close(pair[0]);
		_exit(make_calls(pair[1]));
	}
	kb_close(&pair[1]);
	if (pid > 0 && kb_fd_recv(pair[0], &byte, 1, &listener, 1, NULL) == 1 && listener >= 0)
		ns = answer_all(listener, &synchronous);
	kb_close(&listener); /* ends calls that were not answered: ENOSYS */
	kb_close(&pair[0]);
	if (pid > 0 && waitpid(pid, &status, 0) == pid)
		status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	say_seccomp(check, status, ns, synchronous);
}

/* ---- Landlock -------------------------------------------------------------------------------- */

/* 0 when a forbidden write is refused, else an errno. */
static int forbidden_write(void *arg)
{
	struct landlock_ruleset_attr attr = {
		.handled_access_fs = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG};
	int ruleset = (int)syscall(__NR_landlock_create_ruleset, &attr, sizeof(attr), 0);

	if (ruleset < 0)
		return errno;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
		syscall(__NR_landlock_restrict_self, ruleset, 0) < 0)
		return errno;
	if (open("/tmp", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600) >= 0 ||
		open("/dev/null", O_WRONLY | O_CLOEXEC) >= 0)
		return CHILD_FAILED;
	return errno == EACCES ? 0 : CHILD_FAILED;
}

void kb_probe_landlock(struct kb_check *check)
{
	int abi = (int)syscall(
		__NR_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	int errnum = in_child(forbidden_write, NULL);

	if (errnum == 0) {
		kb_check_say(check, KB_CHECK_OK, "ABI %d, a forbidden write was refused", abi);
		return;
	}
	kb_check_say(check, KB_CHECK_FAILED, "it does not hold: %s",
		errnum > 0 && errnum != CHILD_FAILED ? strerror(errnum)
						     : "a forbidden write was not refused");
	kb_check_fix(check, "run a kernel of 5.13 or later with landlock in its lsm= list");
}
