/* How a process is started, and how its seccomp listener gets out.
 *
 * pid 1 forks a *helper*; the helper does everything that may be done before the filter: terminal,
 * stdio, user namespace, limits, capabilities, Landlock. Then it clones the *process* proper, which
 * shares the helper's memory and file table and is a child of pid 1 (CLONE_PARENT). The process
 * becomes a session leader, takes the terminal, installs the filter and calls execve. No other
 * system call of ours runs under the filter, so that no policy can break the start, and the process
 * cannot send the listener out itself: it stores the number in the shared memory, and the helper,
 * in whose file table the listener appeared, sends it.
 *
 * execve usually traps to the collector and waits there until the listener has arrived and it is
 * answered. When it succeeds the kernel clears and wakes the futex word given with
 * CLONE_CHILD_CLEARTID, because the process leaves the shared memory; the same happens when it
 * exits. The helper waits for that, reports, and exits.
 *
 * Sharing memory means sharing errno: between the clone and the end the helper only waits on the
 * futex, with a bare system call.
 */
#include "supervisor/init/start.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "supervisor/init/confine.h"

#define PROCESS_STACK  (64u << 10)
#define SPIN_YIELDS    64
#define SPIN_SLEEP_NS  20000L
#define PATH_DEFAULT   "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define SHELL	       "/bin/sh"
#define LISTENER_UNSET INT32_MIN

struct start {
	int control;
	struct kb_slot *slot;
	int *fds;
	struct kb_spec spec;
	char *file; /* what is executed: argv[0], looked up */
	/* Written by the process, read by the helper. */
	volatile int listener; /* as kb_confine_seccomp() returns it */
	volatile uint32_t installing;
	volatile enum kb_init_stage stage; /* what failed */
	volatile int errnum;
	volatile uint32_t tid; /* cleared by the kernel on exec and exit */
};

int kb_report_send(int control, const struct kb_init_report *report, int fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} space = {0};
	struct iovec iov = {.iov_base = (void *)report, .iov_len = sizeof(*report)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c;
	ssize_t n;

	if (fd >= 0) {
		msg.msg_control = space.buf;
		msg.msg_controllen = sizeof(space.buf);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	do
		n = sendmsg(control, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

static int report(struct start *s, enum kb_init_kind kind, int fd)
{
	struct kb_init_report r = {.kind = kind, .id = s->slot->id, .pid = s->slot->pid};

	return kb_report_send(s->control, &r, fd);
}

/* The specification cannot change under us: it is sealed. */
static int load_spec(struct start *s)
{
	const int seals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;
	int have = fcntl(s->fds[0], F_GET_SEALS);
	struct stat st;
	void *data;

	if (have < 0 || (have & seals) != seals)
		return -EPERM;
	if (fstat(s->fds[0], &st) < 0)
		return -errno;
	if (st.st_size <= 0 || st.st_size > KB_INIT_SPEC_MAX)
		return -EMSGSIZE;
	data = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, s->fds[0], 0);
	if (data == MAP_FAILED)
		return -errno;
	return kb_spec_parse(data, (size_t)st.st_size, &s->spec) ? 0 : -EINVAL;
}

/* A terminal of the container's own devpts: the name in /proc and ttyname(3) are right inside. */
static int open_terminal(struct start *s)
{
	struct winsize size = {.ws_row = (unsigned short)s->spec.header->rows,
		.ws_col = (unsigned short)s->spec.header->cols};
	int unlock = 0, master, slave, r = 0;

	if (!(s->spec.header->flags & KB_SPEC_TTY))
		return 0;
	master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (master < 0)
		return -errno;
	slave = ioctl(master, TIOCSPTLCK, &unlock) < 0
			? -1
			: ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0 || ioctl(master, TIOCSWINSZ, &size) < 0)
		r = -errno;
	else
		r = report(s, KB_INIT_PTY, master);
	close(master);
	for (int i = 1; i < KB_START_FDS; i++)
		s->fds[i] = slave;
	return r;
}

static int place_stdio(struct start *s)
{
	/* The sources are all above 2: pid 1 keeps its own 0, 1 and 2 open. */
	for (int i = 0; i < 3; i++)
		if (dup2(s->fds[i + 1], i) < 0)
			return -errno;
	return 0;
}

static int enter_userns(struct start *s)
{
	return kb_confine_userns(&s->spec);
}

static int enter_cwd(struct start *s)
{
	return chdir(s->spec.cwd) < 0 ? -errno : 0;
}

static int apply_rlimits(struct start *s)
{
	return kb_confine_rlimits(&s->spec);
}

static int drop_caps(struct start *s)
{
	return kb_confine_caps(&s->spec);
}

static int apply_landlock(struct start *s)
{
	return kb_confine_landlock(&s->spec);
}

static const char *search_path(const struct kb_spec *spec)
{
	for (char **e = spec->env; *e; e++)
		if (strncmp(*e, "PATH=", 5) == 0)
			return *e + 5;
	return PATH_DEFAULT;
}

/* 0 when path can be executed as far as its mode says. */
static int executable(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EACCES;
	return access(path, X_OK) < 0 ? -errno : 0;
}

/* As execvp(3) would find it, but before the filter is on, so that the collector sees the one
 * execve that counts. */
static int look_up(struct start *s)
{
	const char *name = s->spec.argv[0];
	int found = -ENOENT;

	if (strchr(name, '/')) {
		s->file = (char *)name;
		return executable(name);
	}
	for (const char *dir = search_path(&s->spec);; dir++) {
		size_t len = strcspn(dir, ":");
		char *path = NULL;
		int r;

		if (asprintf(&path, "%.*s%s%s", (int)len, dir, len ? "/" : "./", name) < 0)
			return -ENOMEM;
		r = executable(path);
		if (r == 0) {
			s->file = path;
			return 0;
		}
		free(path);
		if (r == -EACCES)
			found = r;
		dir += len;
		if (*dir == '\0')
			return found;
	}
}

static const struct {
	enum kb_init_stage stage;
	int (*run)(struct start *);
} steps[] = {
	{KB_STAGE_SPEC, load_spec},
	{KB_STAGE_TERMINAL, open_terminal},
	{KB_STAGE_STDIO, place_stdio},
	{KB_STAGE_USERNS, enter_userns},
	{KB_STAGE_CWD, enter_cwd},
	{KB_STAGE_RLIMIT, apply_rlimits},
	{KB_STAGE_CAPS, drop_caps},
	{KB_STAGE_LANDLOCK, apply_landlock},
	{KB_STAGE_LOOKUP, look_up},
};

/* ---- In the process, sharing memory with the helper ------------------------------------------ */

static _Noreturn void process_fail(struct start *s, enum kb_init_stage stage, int errnum)
{
	s->errnum = errnum;
	s->stage = stage;
	/* exit is allowed by every filter. */
	syscall(SYS_exit_group, 127);
	__builtin_unreachable();
}

static void default_signals(void)
{
	sigset_t none;

	for (int signo = 1; signo <= SIGRTMAX; signo++)
		signal(signo, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* A script without an interpreter line is run by the shell, as execvp(3) does. argv has a free slot
 * in front for it. */
static void exec_shell(struct start *s)
{
	char **argv = s->spec.argv - 1;

	argv[1] = s->file;
	argv[0] = (char *)"sh";
	execve(SHELL, argv, s->spec.env);
}

static int process_main(void *arg)
{
	struct start *s = arg;

	if (setsid() < 0)
		process_fail(s, KB_STAGE_FORK, errno);
	if ((s->spec.header->flags & KB_SPEC_TTY) && ioctl(0, TIOCSCTTY, 0) < 0)
		process_fail(s, KB_STAGE_TERMINAL, errno);
	default_signals();
	umask(022);
	s->installing = 1;
	s->listener = kb_confine_seccomp(&s->spec);
	if (s->listener < -1)
		process_fail(s, KB_STAGE_SECCOMP, -(s->listener + 1));
	execve(s->file, s->spec.argv, s->spec.env);
	if (errno == ENOEXEC)
		exec_shell(s);
	process_fail(s, KB_STAGE_EXEC, errno);
}

/* ---- In the helper --------------------------------------------------------------------------- */

/* futex(2) without touching errno. */
static void futex_wait(volatile uint32_t *word, uint32_t value)
{
#if defined(__x86_64__)
	register long r10 __asm__("r10") = 0;
	register long r8 __asm__("r8") = 0;
	register long r9 __asm__("r9") = 0;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(SYS_futex), "D"(word), "S"(FUTEX_WAIT), "d"((long)value), "r"(r10),
			 "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = SYS_futex;
	register long x0 __asm__("x0") = (long)word;
	register long x1 __asm__("x1") = FUTEX_WAIT;
	register long x2 __asm__("x2") = (long)value;
	register long x3 __asm__("x3") = 0;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
#else
#error "futex_wait() needs this architecture's system call instruction"
#endif
}

/* Until the filter is in place or the process gave up. Installing takes tens of microseconds and
 * nothing can wake us, so look, yield, and after a while sleep between looks. */
static void wait_listener(struct start *s)
{
	struct timespec pause = {.tv_nsec = SPIN_SLEEP_NS};

	for (unsigned i = 0; s->listener == LISTENER_UNSET && s->tid != 0; i++) {
		if (s->installing && i < SPIN_YIELDS)
			sched_yield();
		else
			clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
	}
}

static _Noreturn void helper_fail(struct start *s, enum kb_init_stage stage, int errnum)
{
	struct kb_init_report r = {.kind = KB_INIT_FAILED,
		.stage = stage,
		.id = s->slot->id,
		.pid = s->slot->pid,
		.errnum = errnum};

	kb_report_send(s->control, &r, -1);
	s->slot->state = KB_SLOT_FAILED;
	_exit(0);
}

static void run_process(struct start *s)
{
	/* With PARENT_SETTID pid 1 knows whose end it reaps however soon that comes: the number is
	 * stored before the process first runs. */
	const int flags = CLONE_VM | CLONE_FILES | CLONE_PARENT | CLONE_PARENT_SETTID |
			  CLONE_CHILD_CLEARTID | SIGCHLD;
	char *stack = mmap(NULL, PROCESS_STACK, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	pid_t pid;

	if (stack == MAP_FAILED)
		helper_fail(s, KB_STAGE_FORK, errno);
	s->listener = LISTENER_UNSET;
	s->tid = 1;
	pid = clone(process_main, stack + PROCESS_STACK, flags, s, &s->slot->pid, NULL,
		(pid_t *)&s->tid);
	if (pid < 0)
		helper_fail(s, KB_STAGE_FORK, errno);
	wait_listener(s);
	if (s->listener >= 0 && report(s, KB_INIT_LISTENER, s->listener) < 0)
		kill(pid, SIGKILL);
	while (s->tid != 0)
		futex_wait(&s->tid, s->tid);
}

_Noreturn void kb_start_helper(int control, struct kb_slot *slot, int fds[KB_START_FDS])
{
	struct start s = {.control = control, .slot = slot, .fds = fds};

	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		int r = steps[i].run(&s);

		if (r < 0)
			helper_fail(&s, steps[i].stage, -r);
	}
	run_process(&s);
	if (s.stage != KB_STAGE_NONE)
		helper_fail(&s, s.stage, s.errnum);
	report(&s, KB_INIT_STARTED, -1);
	slot->state = KB_SLOT_RUNNING;
	_exit(0);
}
