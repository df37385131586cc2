/* kbsup-init: pid 1 of a session's container. See protocol.h for what it is asked and answers, and
 * start.c for how processes are started.
 *
 * It reads no foreign bytes itself: a specification is parsed by the helper that starts the
 * process, so a mistake there costs that one start. It holds nothing worth stealing but its control
 * socket, and is not dumpable, so that processes of the session, which may have its user id, can
 * neither trace it nor look into its /proc.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/init/confine.h"
#include "supervisor/init/start.h"

enum { EXIT_SETUP = 70 };

struct init {
	int control;
	int signals;
	struct kb_slot *slots; /* KB_INIT_PROCESSES_MAX, shared with the helpers */
};

static struct kb_slot *slot_find(struct init *in, uint64_t id)
{
	for (int i = 0; i < KB_INIT_PROCESSES_MAX; i++)
		if (in->slots[i].state != KB_SLOT_FREE && in->slots[i].id == id)
			return &in->slots[i];
	return NULL;
}

static struct kb_slot *slot_take(struct init *in, uint64_t id)
{
	for (int i = 0; i < KB_INIT_PROCESSES_MAX; i++) {
		struct kb_slot *s = &in->slots[i];

		if (s->state == KB_SLOT_FREE) {
			*s = (struct kb_slot){.id = id, .state = KB_SLOT_STARTING};
			return s;
		}
	}
	return NULL;
}

static void report_failed(struct init *in, uint64_t id, enum kb_init_stage stage, int errnum)
{
	struct kb_init_report r = {
		.kind = KB_INIT_FAILED, .id = id, .stage = stage, .errnum = errnum};

	kb_report_send(in->control, &r, -1);
}

/* Both the helper and the process are gone: say how it ended. */
static void slot_settle(struct init *in, struct kb_slot *slot)
{
	struct kb_init_report r = {.kind = KB_INIT_EXITED, .id = slot->id, .pid = slot->pid};

	if (slot->helper != 0)
		return;
	if (slot->state == KB_SLOT_STARTING) {
		/* The helper died without a word. */
		report_failed(in, slot->id, KB_STAGE_FORK, ECHILD);
		slot->state = KB_SLOT_FAILED;
		if (slot->pid > 0 && !slot->exited)
			kill(slot->pid, SIGKILL);
	}
	if (slot->pid > 0 && !slot->exited)
		return;
	if (slot->state == KB_SLOT_RUNNING) {
		r.status = slot->status;
		kb_report_send(in->control, &r, -1);
	}
	slot->state = KB_SLOT_FREE;
}

static void reap(struct init *in)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (int i = 0; i < KB_INIT_PROCESSES_MAX; i++) {
			struct kb_slot *s = &in->slots[i];

			if (s->state == KB_SLOT_FREE || (s->helper != pid && s->pid != pid))
				continue;
			if (s->helper == pid) {
				s->helper = 0;
			} else {
				s->exited = 1;
				s->status = status;
			}
			slot_settle(in, s);
			break;
		}
	}
}

static void start(struct init *in, const struct kb_init_request *req, int fds[KB_START_FDS])
{
	struct kb_slot *slot = slot_find(in, req->id) ? NULL : slot_take(in, req->id);
	pid_t pid;

	if (!slot) {
		report_failed(in, req->id, KB_STAGE_REQUEST, EAGAIN);
		return;
	}
	pid = fork();
	if (pid == 0)
		kb_start_helper(in->control, slot, fds);
	if (pid < 0) {
		report_failed(in, req->id, KB_STAGE_FORK, errno);
		slot->state = KB_SLOT_FREE;
		return;
	}
	slot->helper = pid;
}

static void signal_one(struct init *in, const struct kb_init_request *req, int *fds)
{
	struct kb_slot *slot = slot_find(in, req->id);

	if (!slot || slot->pid <= 0 || slot->exited)
		return;
	/* The group is the process's own session's, unless it moved on. */
	if (kill(-slot->pid, (int)req->arg) < 0)
		kill(slot->pid, (int)req->arg);
}

static void signal_all(struct init *in, const struct kb_init_request *req, int *fds)
{
	kill(-1, (int)req->arg);
}

static void (*const operations[KB_INIT_OP_MAX_])(
	struct init *, const struct kb_init_request *, int *fds) = {
	[KB_INIT_START] = start,
	[KB_INIT_SIGNAL] = signal_one,
	[KB_INIT_SIGNAL_ALL] = signal_all,
};

/* Returns the number of bytes of one packet, 0 at the end, or -1. */
static ssize_t receive(int control, struct kb_init_request *req, int fds[KB_START_FDS])
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * KB_START_FDS)];
		struct cmsghdr align;
	} space;
	struct iovec iov = {.iov_base = req, .iov_len = sizeof(*req)};
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = space.buf,
		.msg_controllen = sizeof(space.buf)};
	ssize_t n;

	for (int i = 0; i < KB_START_FDS; i++)
		fds[i] = -1;
	do
		n = recvmsg(control, &msg, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
			memcpy(fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
	return n;
}

/* False when the session is gone or speaks nonsense: time to exit. */
static bool serve(struct init *in)
{
	struct kb_init_request req;
	int fds[KB_START_FDS];
	ssize_t n = receive(in->control, &req, fds);
	bool valid = n == (ssize_t)sizeof(req) && req.op < KB_INIT_OP_MAX_ && operations[req.op];

	if (valid)
		operations[req.op](in, &req, fds);
	for (int i = 0; i < KB_START_FDS; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return valid;
}

static bool set_up(struct init *in)
{
	struct kb_init_report ready = {.kind = KB_INIT_READY, .pid = KB_INIT_PROTOCOL};
	sigset_t all, child;

	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return false;
	sigfillset(&all);
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &all, NULL) < 0)
		return false;
	in->signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
	in->slots = mmap(NULL, KB_INIT_PROCESSES_MAX * sizeof(*in->slots), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (in->signals < 0 || in->slots == MAP_FAILED)
		return false;
	ready.status = kb_confine_landlock_abi();
	return kb_report_send(in->control, &ready, -1) == 0;
}

int main(void)
{
	struct init in = {.control = KB_INIT_FD};
	struct pollfd fds[2];
	struct signalfd_siginfo info;

	if (close_range(KB_INIT_FD, ~0U, CLOSE_RANGE_CLOEXEC) < 0 || !set_up(&in))
		return EXIT_SETUP;
	fds[0] = (struct pollfd){.fd = in.control, .events = POLLIN};
	fds[1] = (struct pollfd){.fd = in.signals, .events = POLLIN};
	for (;;) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return EXIT_SETUP;
		if (fds[1].revents) {
			while (read(in.signals, &info, sizeof(info)) > 0)
				;
			reap(&in);
		}
		if (fds[0].revents && !serve(&in))
			return 0;
	}
}
