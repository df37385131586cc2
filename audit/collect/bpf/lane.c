/* Theory of operation.
 *
 * A program in the kernel (trace.bpf.c) looks at every system call as it returns, drops at once
 * what the policy does not record or what is not of the session's pid namespace, and writes the
 * rest into a ring buffer: registers, result, the strings the caller named, the directories they
 * start from, and for calls that are about an open file the path of that file as the kernel has it.
 * Calls the filter refused return too, so denials are seen without anybody being asked.
 *
 * This file reads the buffer, records.c turns events into records. Nothing waits for them: the
 * buffer is looked into every few milliseconds, or when it wakes us when much has gathered. What
 * did not fit is counted in the kernel by kind and becomes a `loss` record here, at the place where
 * it was noticed. How the programs get into the kernel, and how sessions share them, is in hub.c.
 *
 * - An **open** that succeeded has the path of the file it returned: trust `kernel`. One that
 * failed has only a name; it is resolved here, afterwards, like in lane notify: trust `racy`.
 * - A call that **changes names**, or names an address, has what the kernel made of them where
 * hooks are in place (hooks.bpf.h): trust `kernel`, denied or not. Elsewhere, and where the call
 * ended before the kernel had resolved anything, like a failed open.
 * - An **exec** is announced at entry with its arguments, because they are gone when it succeeds;
 * then either the kernel says that the program was replaced, with the file that runs now, or the
 * call returns an error. The two halves meet by the caller's thread number.
 * - **Parents** come from the fork itself, so they are right whatever happens to them later.
 * - **Verdicts** are the policy's on the same registers and paths: a call that failed and whose
 * path no rule grants was denied, a call that succeeded was not.
 *
 * The lane starts before the session's first program and sees everything after the filter is in
 * place: what kbsup-init does to prepare a process is not the session's.
 *
 * Beside lane notify (split) each call belongs to one of them, by the registers alone: what the
 * filter asks about is the other's. That one looks here first, so that records keep their order.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <string.h>

#include "lane.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/util.h"

#define LOOK_MSEC     10
#define LOOK_MSEC_MAX 200

static const char *const kind_names[KB_BPF_KINDS] = {
	"calls", "execs", "execs done", "forks", "exits"};

/* ---- Events -----------------------------------------------------------------------------------
 */

static int on_event(void *arg, const void *data, size_t size)
{
	const struct kb_bpf_event *event = data;
	struct kb_bpf *bpf = arg;
	struct kb_bpf_view v = {.event = event};
	const char *at = (const char *)(event + 1), *end = (const char *)data + size;

	if (size < sizeof(*event) || event->kind >= KB_BPF_KINDS)
		return 0;
	for (int i = 0; i < KB_BPF_PARTS; i++) {
		v.part[i] = at;
		if (event->len[i] > (size_t)(end - at))
			return 0;
		at += event->len[i];
	}
	kb_bpf_handle(bpf, &v);
	bpf->look_msec = LOOK_MSEC;
	return 0;
}

static void report_loss(struct kb_bpf *bpf)
{
	struct kb_bpf_lost now;

	if (kb_bpf_seat_lost(bpf->seat, &now) < 0)
		return;
	for (uint32_t kind = 0; kind < KB_BPF_KINDS; kind++) {
		struct kb_record record = {
			.time = (uint64_t)kb_now_real(),
			.event = KB_EVENT_LOSS,
			.lane = KB_LANE_BPF,
			.syscall = -1,
			.rule = KB_RULE_NONE,
			.count = now.count[kind] - bpf->lost.count[kind],
			.text = {(const uint8_t *)kind_names[kind], strlen(kind_names[kind])},
		};

		if (record.count)
			bpf->ops.record(&record, bpf->arg);
	}
	bpf->lost = now;
}

/* ---- The loop ---------------------------------------------------------------------------------
 */

void kb_bpf_look(struct kb_bpf *bpf)
{
	/* A record may make the sink pause us, or ask for what has come. */
	if (bpf->paused || bpf->looking)
		return;
	bpf->looking = true;
	ring_buffer__consume(bpf->seat->ring);
	report_loss(bpf);
	bpf->looking = false;
}

static void on_woken(int fd, unsigned events, void *arg)
{
	kb_bpf_look(arg);
}

static void on_timer(void *arg)
{
	struct kb_bpf *bpf = arg;

	bpf->look_msec = KB_MIN(bpf->look_msec * 2, LOOK_MSEC_MAX);
	kb_bpf_look(bpf);
	kb_source_arm(bpf->timer, bpf->look_msec, NULL);
}

/* ---- What to look at --------------------------------------------------------------------------
 */

/* A row of our table, as the program in the kernel reads it. */
static void describe(const struct kb_trap *trap, unsigned watch, struct kb_bpf_call *ret)
{
	*ret = (struct kb_bpf_call){0};
	if (watch & KB_WATCH_ALLOWED)
		ret->report = KB_BPF_REPORT_ALWAYS;
	else if (watch & KB_WATCH_DENIED)
		ret->report = KB_BPF_REPORT_ERRORS;
	if (!trap)
		return;
	if (trap->event == KB_EVENT_EXIT)
		ret->report = 0; /* does not return */
	ret->exec = trap->shape == KB_SHAPE_EXEC;
	ret->argv = ret->exec ? trap->argv : 0;
	ret->returns_file = trap->event == KB_EVENT_OPEN;
	ret->how = trap->traits & KB_TRAP_HOW ? trap->flags : 0;
	if (trap->shape == KB_SHAPE_FD) {
		ret->fd = trap->dirfd;
	} else if (trap->shape == KB_SHAPE_PATH || ret->exec) {
		ret->path = trap->path;
		ret->dirfd = trap->dirfd;
		ret->path2 = trap->path2;
		ret->dirfd2 = trap->dirfd2;
	} else if (trap->shape == KB_SHAPE_SOCKADDR || trap->shape == KB_SHAPE_MSGHDR) {
		ret->address = trap->path;
		ret->address_len = trap->argv;
		ret->msghdr = trap->shape == KB_SHAPE_MSGHDR;
	}
}

static int fill_calls(struct kb_bpf *bpf, struct kb_err *err)
{
	struct kb_bpf_call calls[KB_BPF_CALLS];

	for (uint32_t nr = 0; nr < KB_BPF_CALLS; nr++)
		describe(bpf->traps[nr], kb_bundle_watch(bpf->bundle, bpf->arch, (int)nr),
			&calls[nr]);
	return kb_bpf_seat_want(bpf->seat, calls, err);
}

/* ---- Life -------------------------------------------------------------------------------------
 */

static int watch_ring(struct kb_bpf *bpf, struct kb_loop *loop, struct kb_err *err)
{
	int r;

	bpf->seat->event = on_event;
	bpf->seat->arg = bpf;
	r = kb_loop_io(loop, ring_buffer__epoll_fd(bpf->seat->ring), KB_IO_READ, on_woken, bpf,
		&bpf->woken, err);
	if (r == 0)
		r = kb_loop_timer(loop, on_timer, bpf, &bpf->timer, err);
	if (r == 0)
		r = kb_source_arm(bpf->timer, LOOK_MSEC, err);
	return r;
}

int kb_bpf_create(struct kb_loop *loop, const struct kb_notify_options *options,
	struct kb_bpf_seat *seat, const struct kb_notify_ops *ops, void *arg, struct kb_bpf **ret,
	struct kb_err *err)
{
	struct kb_bpf *bpf = calloc(1, sizeof(*bpf));
	KB_CLOSE int root_fd = options->root_fd;
	int r;

	if (!bpf)
		return kb_err_nomem(err);
	bpf->bundle = options->bundle;
	bpf->ops = *ops;
	bpf->arg = arg;
	bpf->arch = options->arch;
	bpf->split = options->split;
	bpf->seat = seat;
	bpf->relayed = options->relayed;
	bpf->root_fd = kb_steal_fd(&root_fd);
	bpf->look_msec = LOOK_MSEC;
	bpf->resolver = (struct kb_resolver){.self_fd = -1, .host_fd = -1};
	bpf->monotonic_to_real = (uint64_t)(kb_now_real() - kb_now_mono());
	kb_traps_index(bpf->arch, bpf->traps);
	r = kb_resolver_init(&bpf->resolver, bpf->root_fd, options->host_root, err);
	if (r == 0)
		r = watch_ring(bpf, loop, err);
	if (r == 0)
		r = fill_calls(bpf, err);
	if (r == 0)
		r = kb_bpf_seat_take(bpf->seat, options->init_pid, err);
	if (r < 0) {
		kb_bpf_destroy(bpf);
		return r;
	}
	*ret = bpf;
	return 0;
}

void kb_bpf_pause(struct kb_bpf *bpf, bool paused)
{
	bpf->paused = paused;
}

void kb_bpf_destroy(struct kb_bpf *bpf)
{
	if (!bpf)
		return;
	bpf->paused = false;
	if (bpf->seat->event)
		kb_bpf_look(bpf);
	bpf->seat->event = NULL;
	kb_bpf_seat_leave(bpf->seat);
	kb_source_destroy(bpf->woken);
	kb_source_destroy(bpf->timer);
	kb_bpf_forget_all(bpf);
	kb_resolver_finish(&bpf->resolver);
	kb_close(&bpf->root_fd);
	free(bpf);
}
