/* Theory of operation.
 *
 * The session's seccomp filter answers some calls with "ask": the caller sleeps in the kernel and a
 * notification appears at the filter's listener. The collector receives it, reads the arguments,
 * decides by the same rules the filter was made from, answers, and reports a record. The answer is
 * an errno, or "go on": then the kernel reads the arguments *again*, so nothing decided here about
 * memory is a border (that is what mounts and Landlock are for), only a record that says `racy`.
 *
 * The order of things, which is what makes it cheap and sound:
 *
 * - **Receive first, handle later.** A call that is not yet received can be interrupted by any
 *   signal, and programs are not made for that; once received it is safe (WAIT_KILLABLE_RECV). So a
 *   wake-up first receives everything there is, up to a bound, and then handles it in order.
 * - **Receive only after POLLIN**: without a notification the call would block, for ever if the
 * last caller has just died. One poll after each receive asks for three things at once: is there
 * more, has the session gone, has any process ended (see proc.c: that is also what makes the
 * process table safe against reused numbers, and it must come after the receive).
 * - **The caller is who it says.** Its memory is read by number. That the number belonged to the
 *   caller all the time is proven by the answer: NOTIF_SEND finds the caller or fails with ENOENT,
 *   exactly as NOTIF_ID_VALID would, and until it has succeeded nothing that was read has had an
 *   effect. (A caller that is entered in the process table is checked with NOTIF_ID_VALID.) ENOENT
 *   is nothing special: the caller was killed, or its machine was suspended; the record says
 *   `interrupted`. Where the kernel restarts such a call, the second notification replaces the
 *   first.
 * - **Answer, then report**: encoding and sending records happens while the caller runs on.
 * - The kernel is asked to switch between caller and collector on one CPU (SYNC_WAKE_UP, 6.6):
 *   without it most of the cost of a notification is waking the other CPU.
 *
 * - A policy may bound the rate (`limit notify-rate`): then calls past it wait, not yet received,
 *   and `throttle` records say when that began and ended (throttle.c).
 *
 * If anything here fails for want of memory or descriptors the session must end: `failed` is called
 * and the unanswered callers stay where they are until their listener closes and they get ENOSYS.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "collector.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/util.h"
#include "uapi.h"

#define BATCH_MAX	64u
#define LULL_MSEC	10 /* without being woken by ends */
#define LISTENER_EVENTS (KB_IO_READ | KB_IO_WRITE)

void kb_collector_fail(struct kb_notify *notify, const struct kb_err *why)
{
	if (!notify->failure.code)
		notify->failure = *why;
}

static void fail_errno(struct kb_notify *notify, int errnum, const char *what)
{
	struct kb_err err;

	kb_err_sys(&err, errnum, "the session's calls can no longer be recorded: %s", what);
	kb_collector_fail(notify, &err);
}

/* ---- One notification -------------------------------------------------------------------------
 */

static bool still_valid(int listener, uint64_t id)
{
	return ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0;
}

/* False when the caller was gone before it could be answered. */
static bool answer(struct kb_seen *seen, int listener)
{
	struct seccomp_notif_resp *response = seen->notify->response;

	memset(response, 0, seen->notify->response_size);
	response->id = seen->request->id;
	response->error = -seen->judge.answer;
	if (!seen->judge.answer)
		response->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
	while (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, response) < 0) {
		if (errno == ENOENT)
			return false;
		if (errno == EINTR)
			continue;
		fail_errno(seen->notify, errno, "a call could not be answered");
		return false;
	}
	return true;
}

static struct kb_thread *caller_of(
	struct kb_notify *notify, int listener, const struct seccomp_notif *request)
{
	struct kb_thread *thread = kb_procs_find(&notify->procs, (pid_t)request->pid);
	struct kb_proc *parent;

	if (thread)
		return thread;
	thread = kb_procs_enter(&notify->procs, (pid_t)request->pid);
	if (notify->procs.exhausted)
		fail_errno(notify, EMFILE, "too many processes to keep track of");
	if (!still_valid(listener, request->id)) {
		/* It may have been somebody else under the same number. */
		if (thread)
			kb_procs_forget(&notify->procs, thread->proc);
		return NULL;
	}
	if (!thread) {
		fail_errno(notify, ESRCH, "a caller is out of sight");
		return NULL;
	}
	/* A program's own exec comes before what its children do. */
	parent = kb_procs_parent(&notify->procs, thread->proc);
	if (parent)
		kb_exec_settle(notify, parent, 0);
	return thread;
}

static void fill_caller(struct kb_seen *seen)
{
	seen->caller = (struct kb_caller){
		.tid = seen->thread->tid,
		.proc_fd = seen->proc->proc_fd,
		.leader = seen->thread == &seen->proc->leader,
		.vpid = seen->proc->vpid,
		.vtid = seen->thread->vtid,
	};
}

static void decide(struct kb_seen *seen)
{
	const struct seccomp_data *data = &seen->request->data;
	uint64_t args[6];

	seen->judge = (struct kb_judge){
		.bundle = seen->notify->bundle,
		.resolver = &seen->notify->resolver,
		.caller = &seen->caller,
		.relayed = seen->notify->relayed,
		.probes = seen->call && seen->call->traits & KB_TRAP_PROBES,
		.binds = seen->call && seen->call->event == KB_EVENT_BIND,
	};
	memcpy(args, data->args, sizeof(args));
	kb_judge_call(&seen->judge, data->arch, data->nr, args);
}

static void start_record(struct kb_seen *seen)
{
	const struct seccomp_data *data = &seen->request->data;

	seen->record = (struct kb_record){
		.time = (uint64_t)kb_now_real(),
		.lane = KB_LANE_NOTIFY,
		.pid = seen->proc->vpid,
		.tid = seen->caller.leader ? 0 : seen->thread->vtid,
		.syscall = data->nr,
		.arch = data->arch == seen->notify->arch ? 0 : data->arch,
		.rule = seen->judge.verdict.rule,
		.trust = KB_TRUST_REGISTER,
	};
}

/* Somebody was asked; where a path rule then said no, that is the decision. */
static void note_answer(struct kb_seen *seen, uint32_t rule)
{
	if (seen->judge.verdict.action == KB_DENY || seen->judge.verdict.action == KB_KILL)
		return;
	seen->record.decision = KB_DECISION_ASKED;
	seen->record.rule = rule;
	seen->record.text = (struct kb_bytes){(const uint8_t *)seen->note, strlen(seen->note)};
}

static void conclude(struct kb_seen *seen)
{
	static const enum kb_decision decisions[] = {
		[KB_ALLOW] = KB_DECISION_ALLOWED,
		[KB_DENY] = KB_DECISION_DENIED,
		[KB_KILL] = KB_DECISION_KILLED,
		[KB_ASK] = KB_DECISION_ASKED,
	};

	seen->record.decision = decisions[seen->judge.verdict.action];
	seen->record.rule = seen->judge.verdict.rule;
	if (seen->judge.answer) {
		seen->record.outcome = KB_OUTCOME_FAILED;
		seen->record.errnum = seen->judge.answer;
	}
}

/* A rule that kills is carried out by the filter; one about paths, here. */
static void kill_caller(const struct kb_seen *seen)
{
	syscall(SYS_pidfd_send_signal, seen->proc->pid_fd, SIGKILL, NULL, 0);
}

static void report(struct kb_seen *seen, bool answered)
{
	enum kb_event event = seen->record.event;

	if (event == KB_EVENT_EXIT)
		return; /* recorded when it has come true */
	if (event == KB_EVENT_EXEC && seen->notify->split)
		return; /* lane bpf sees what becomes of it */
	if (!answered)
		kb_report_interrupted(seen);
	else if (event == KB_EVENT_EXEC && !seen->judge.answer &&
		 seen->judge.verdict.record != KB_RECORD_NONE)
		kb_exec_begin(seen, seen->record.errnum);
	else
		kb_report_seen(seen);
}

void kb_collector_handle(struct kb_listener *listener, const struct seccomp_notif *request)
{
	struct kb_notify *notify = listener->notify;
	struct kb_seen seen = {.notify = notify, .request = request};
	uint32_t rule;
	bool answered;

	seen.thread = caller_of(notify, listener->fd, request);
	if (!seen.thread)
		return;
	seen.proc = seen.thread->proc;
	fill_caller(&seen);
	if (seen.proc->execs)
		kb_exec_settle(notify, seen.proc, seen.thread->tid);
	if (seen.proc->interrupted)
		kb_report_resumed(&seen);
	if (request->data.arch == notify->arch && (uint32_t)request->data.nr < KB_TRAP_NUMBERS)
		seen.call = notify->calls[request->data.nr];
	decide(&seen);
	rule = seen.judge.verdict.rule;
	if (seen.judge.verdict.action == KB_ASK && !kb_asked_settle(&seen, listener))
		return;
	start_record(&seen);
	kb_seen_read(&seen);
	conclude(&seen);
	if (seen.asked)
		note_answer(&seen, rule);
	if (seen.judge.verdict.action == KB_KILL)
		kill_caller(&seen);
	answered = answer(&seen, listener->fd);
	report(&seen, answered);
}

/* ---- The listeners ----------------------------------------------------------------------------
 */

static struct seccomp_notif *request_at(const struct kb_notify *notify, unsigned i)
{
	return (struct seccomp_notif *)(notify->requests + i * notify->request_size);
}

/* True if there is another notification. Also tells of ends. */
static bool look(struct kb_listener *listener, bool *ret_hangup, bool *ret_deaths)
{
	struct pollfd fds[] = {
		{.fd = listener->fd, .events = POLLIN},
		{.fd = listener->notify->procs.epoll_fd, .events = POLLIN},
	};

	if (poll(fds, KB_ARRAY_LEN(fds), 0) < 0)
		return false;
	*ret_hangup = fds[0].revents & POLLHUP;
	*ret_deaths = fds[1].revents != 0;
	return fds[0].revents & POLLIN;
}

/* False when there is nothing to be had just now. */
static bool receive(struct kb_listener *listener, struct seccomp_notif *request)
{
	memset(request, 0, listener->notify->request_size);
	if (ioctl(listener->fd, SECCOMP_IOCTL_NOTIF_RECV, request) == 0)
		return true;
	/* ENOENT: the caller was killed between poll and receive. */
	if (errno != ENOENT && errno != EINTR && errno != EAGAIN)
		fail_errno(listener->notify, errno, "a call could not be received");
	return false;
}

static void remove_listener(struct kb_listener *listener)
{
	struct kb_listener **at = &listener->notify->listeners;

	kb_asked_drop(listener->notify, listener);
	while (*at != listener)
		at = &(*at)->next;
	*at = listener->next;
	kb_source_destroy(listener->source);
	kb_close(&listener->fd);
	free(listener);
}

void kb_collector_report_failure(struct kb_notify *notify)
{
	struct kb_err why = notify->failure;

	/* Nothing is touched after this: the session, and we with it, may be gone. */
	if (why.code) {
		while (notify->listeners)
			remove_listener(notify->listeners);
		notify->ops.failed(&why, notify->arg);
	}
}

static void on_listener(int fd, unsigned events, void *arg)
{
	struct kb_listener *listener = arg;
	struct kb_notify *notify = listener->notify;
	bool hangup = false, deaths = false, more = true;
	unsigned count = 0;

	/* The loop reports a hang-up as "readable and writable", never as readable alone. */
	if (events != KB_IO_READ)
		more = look(listener, &hangup, &deaths);
	while (more && count < BATCH_MAX) {
		if (receive(listener, request_at(notify, count)))
			count++;
		more = look(listener, &hangup, &deaths) && !notify->failure.code;
	}
	if (deaths)
		kb_procs_reap(&notify->procs);
	for (unsigned i = 0; i < count && !notify->failure.code; i++)
		kb_collector_handle(listener, request_at(notify, i));
	kb_throttle_count(notify, count);
	if (hangup && !more)
		remove_listener(listener);
	kb_collector_report_failure(notify);
}

/* Every call that is received looks for ends as well: a session that starts processes by the
 * thousand need not wake us for each end, too. */
static void on_deaths(int fd, unsigned events, void *arg)
{
	struct kb_notify *notify = arg;

	kb_procs_reap(&notify->procs);
	(void)kb_source_set_events(notify->deaths, 0, NULL);
	(void)kb_source_arm(notify->lull, LULL_MSEC, NULL);
	kb_collector_report_failure(notify);
}

static void on_lull(void *arg)
{
	struct kb_notify *notify = arg;

	(void)kb_source_set_events(notify->deaths, KB_IO_READ, NULL);
}

static void on_died(struct kb_proc *proc, void *arg)
{
	kb_asked_forget(arg, proc);
	kb_report_end(arg, proc);
}

/* ---- Life -------------------------------------------------------------------------------------
 */

static int no_notifications(struct kb_err *err)
{
	kb_err_set(err, KB_ERR_REFUSED, "this kernel has no seccomp notifications: %s",
		strerror(errno));
	return kb_err_hint(err, "use a kernel of 5.9 or newer, built with CONFIG_SECCOMP_FILTER");
}

static int make_room(struct kb_notify *notify, struct kb_err *err)
{
	struct seccomp_notif_sizes sizes;

	if (syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) < 0)
		return no_notifications(err);
	notify->request_size = KB_MAX(sizes.seccomp_notif, sizeof(struct seccomp_notif));
	notify->request_size = (notify->request_size + 7) & ~(size_t)7;
	notify->response_size = KB_MAX(sizes.seccomp_notif_resp, sizeof(struct seccomp_notif_resp));
	notify->requests = calloc(BATCH_MAX, notify->request_size);
	notify->response = calloc(1, notify->response_size);
	return notify->requests && notify->response ? 0 : kb_err_nomem(err);
}

/* Two descriptors for each process. */
static void raise_nofile(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static int start(
	struct kb_notify *notify, const struct kb_notify_options *options, struct kb_err *err)
{
	int r = make_room(notify, err);

	if (r == 0)
		r = kb_resolver_init(&notify->resolver, notify->root_fd, options->host_root, err);
	if (r == 0)
		r = kb_procs_init(&notify->procs, options->init_pid, on_died, notify, err);
	if (r == 0)
		r = kb_loop_io(notify->loop, notify->procs.epoll_fd, KB_IO_READ, on_deaths, notify,
			&notify->deaths, err);
	if (r == 0)
		r = kb_loop_timer(notify->loop, on_lull, notify, &notify->lull, err);
	if (r == 0)
		r = kb_loop_timer(notify->loop, kb_exec_tick, notify, &notify->settle, err);
	if (r == 0)
		r = kb_loop_timer(notify->loop, kb_asked_tick, notify, &notify->questions, err);
	return r < 0 ? r : kb_throttle_init(notify, err);
}

int kb_notify_create(struct kb_loop *loop, const struct kb_notify_options *options,
	const struct kb_notify_ops *ops, void *arg, struct kb_notify **ret, struct kb_err *err)
{
	struct kb_notify *notify = calloc(1, sizeof(*notify));
	int r;

	if (!notify) {
		int fd = options->root_fd;

		kb_close(&fd);
		return kb_err_nomem(err);
	}
	notify->loop = loop;
	notify->bundle = options->bundle;
	notify->ops = *ops;
	notify->arg = arg;
	notify->arch = options->arch;
	notify->relayed = options->relayed;
	notify->ask_ms = options->ask_ms ? options->ask_ms : KB_ASK_MS_DEFAULT;
	notify->root_fd = options->root_fd;
	notify->split = options->split;
	notify->resolver = (struct kb_resolver){.self_fd = -1, .host_fd = -1};
	notify->procs.epoll_fd = notify->procs.ns_fd = -1;
	kb_argv_init(&notify->argv);
	kb_traps_index(options->arch, notify->calls);
	raise_nofile();
	r = start(notify, options, err);
	if (r < 0) {
		kb_notify_destroy(notify);
		return r;
	}
	*ret = notify;
	return 0;
}

static unsigned wanted_events(const struct kb_notify *notify)
{
	return notify->paused || notify->throttle.waiting ? 0 : LISTENER_EVENTS;
}

int kb_notify_add(struct kb_notify *notify, int listener, struct kb_err *err)
{
	struct kb_listener *l = calloc(1, sizeof(*l));
	int r;

	if (!l) {
		kb_close(&listener);
		return kb_err_nomem(err);
	}
	*l = (struct kb_listener){.notify = notify, .fd = listener};
	/* Older kernels do without. */
	ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP);
	r = kb_loop_io(
		notify->loop, listener, wanted_events(notify), on_listener, l, &l->source, err);
	if (r < 0) {
		kb_close(&l->fd);
		free(l);
		return r;
	}
	l->next = notify->listeners;
	notify->listeners = l;
	return 0;
}

void kb_collector_listen(struct kb_notify *notify)
{
	for (struct kb_listener *l = notify->listeners; l; l = l->next)
		kb_source_set_events(l->source, wanted_events(notify), NULL);
}

void kb_notify_pause(struct kb_notify *notify, bool paused)
{
	notify->paused = paused;
	kb_collector_listen(notify);
}

/* Whoever is left was ended with the session; what is known of them is said. */
static void report_rest(struct kb_notify *notify)
{
	struct kb_procs *procs = &notify->procs;

	kb_procs_reap(procs);
	for (size_t i = 0; i < procs->n_buckets; i++)
		for (struct kb_thread *t = procs->buckets[i]; t; t = t->hash_next)
			if (t == &t->proc->leader)
				kb_report_end(notify, t->proc);
}

void kb_notify_destroy(struct kb_notify *notify)
{
	if (!notify)
		return;
	while (notify->listeners)
		remove_listener(notify->listeners);
	if (notify->procs.buckets && notify->procs.epoll_fd >= 0)
		report_rest(notify);
	kb_throttle_finish(notify);
	kb_source_destroy(notify->deaths);
	kb_source_destroy(notify->lull);
	kb_source_destroy(notify->settle);
	kb_asked_finish(notify);
	kb_procs_finish(&notify->procs);
	kb_resolver_finish(&notify->resolver);
	kb_argv_finish(&notify->argv);
	free(notify->requests);
	free(notify->response);
	kb_close(&notify->root_fd);
	free(notify);
}
