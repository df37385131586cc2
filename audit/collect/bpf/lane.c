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
 * it was noticed.
 *
 * - An **open** that succeeded has the path of the file it returned: trust `kernel`. One that
 * failed has only a name; it is resolved here, afterwards, like in lane notify: trust `racy`.
 * - An **exec** is announced at entry with its arguments, because they are gone when it succeeds;
 * then either the kernel says that the program was replaced, with the file that runs now, or the
 * call returns an error. The two halves meet by the caller's thread number.
 * - **Parents** come from the fork itself, so they are right whatever happens to them later.
 * - **Verdicts** are the policy's on the same registers and paths: a call that failed and whose
 * path no rule grants was denied, a call that succeeded was not.
 *
 * The lane starts before the session's first program and sees everything after that.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "lane.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/util.h"

#define LOOK_MSEC     10
#define LOOK_MSEC_MAX 200
#define PROBE_CALL    "getppid" /* what the probe makes and looks for */

/* bpf_object.c, made from trace.bpf.o */
extern const unsigned char kb_bpf_object[];
extern const unsigned kb_bpf_object_len;

static const char *const kind_names[KB_BPF_KINDS] = {
	"calls", "execs", "execs done", "forks", "exits"};

static struct kb_bytes bytes(const void *data, size_t len)
{
	return (struct kb_bytes){.data = data, .len = len};
}

/* ---- Events -----------------------------------------------------------------------------------
 */

static int on_event(void *arg, void *data, size_t size)
{
	const struct kb_bpf_event *event = data;
	struct kb_bpf *bpf = arg;
	struct kb_bpf_view v = {.event = event};
	const char *at = (const char *)(event + 1), *end = (const char *)data + size;

	if (size < sizeof(*event) || event->kind >= KB_BPF_KINDS)
		return 0;
	if (bpf->probe_nr >= 0) {
		bpf->probe_seen |= event->kind == KB_BPF_CALL && event->nr == bpf->probe_nr;
		return 0;
	}
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

/* ---- Loss -------------------------------------------------------------------------------------
 */

static void report_loss(struct kb_bpf *bpf)
{
	int cpus = libbpf_num_possible_cpus();
	KB_FREE uint64_t *counts = cpus > 0 ? calloc((size_t)cpus, sizeof(*counts)) : NULL;

	for (uint32_t kind = 0; counts && kind < KB_BPF_KINDS; kind++) {
		uint64_t sum = 0;
		struct kb_record record = {
			.time = (uint64_t)kb_now_real(),
			.event = KB_EVENT_LOSS,
			.lane = KB_LANE_BPF,
			.syscall = -1,
			.rule = KB_RULE_NONE,
			.text = bytes(kind_names[kind], strlen(kind_names[kind])),
		};

		if (bpf_map_lookup_elem(bpf->lost_fd, &kind, counts) < 0)
			continue;
		for (int i = 0; i < cpus; i++)
			sum += counts[i];
		record.count = sum - bpf->lost[kind];
		bpf->lost[kind] = sum;
		if (record.count)
			bpf->ops.record(&record, bpf->arg);
	}
}

/* ---- The loop ---------------------------------------------------------------------------------
 */

static void look(struct kb_bpf *bpf)
{
	if (bpf->paused)
		return;
	ring_buffer__consume(bpf->ring);
	report_loss(bpf);
}

static void on_woken(int fd, unsigned events, void *arg)
{
	look(arg);
}

static void on_timer(void *arg)
{
	struct kb_bpf *bpf = arg;

	bpf->look_msec = KB_MIN(bpf->look_msec * 2, LOOK_MSEC_MAX);
	look(bpf);
	kb_source_arm(bpf->timer, bpf->look_msec, NULL);
}

/* ---- Loading ----------------------------------------------------------------------------------
 */

static int quiet(enum libbpf_print_level level, const char *format, va_list args)
{
	return 0;
}

static int configure(struct kb_bpf *bpf, pid_t init_pid, struct kb_err *err)
{
	struct bpf_map *rodata = bpf_object__find_map_by_name(bpf->object, ".rodata");
	struct bpf_map *scratches = bpf_object__find_map_by_name(bpf->object, "scratches");
	int cpus = libbpf_num_possible_cpus();
	struct kb_bpf_config config = {0};
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), init_pid ? "/proc/%d/ns/pid" : "/proc/self/ns/pid", init_pid);
	if (stat(path, &st) < 0)
		return kb_err_sys(err, errno, "the session's pid namespace");
	config.pid_ns = (unsigned)st.st_ino;
	if (!rodata || !scratches || cpus < 1 ||
		bpf_map__set_max_entries(scratches, (unsigned)cpus) < 0 ||
		bpf_map__set_initial_value(rodata, &config, sizeof(config)) < 0)
		return kb_err_set(err, KB_ERR_FAILED, "lane bpf cannot be configured");
	return 0;
}

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
	int fd = bpf_object__find_map_fd_by_name(bpf->object, "calls");

	for (uint32_t nr = 0; nr < KB_BPF_CALLS; nr++) {
		unsigned watch = bpf->bundle ? kb_bundle_watch(bpf->bundle, bpf->arch, (int)nr)
				 : (int)nr == bpf->probe_nr ? KB_WATCH_ALLOWED
							    : 0;
		struct kb_bpf_call call;

		describe(bpf->traps[nr], watch, &call);
		if (bpf_map_update_elem(fd, &nr, &call, 0) < 0)
			return kb_err_sys(err, errno, "lane bpf: the table of calls");
	}
	return 0;
}

static int attach(struct kb_bpf *bpf, struct kb_err *err)
{
	struct bpf_program *program;

	bpf_object__for_each_program(program, bpf->object)
	{
		struct bpf_link *link =
			bpf->n_links < KB_BPF_LINKS_MAX ? bpf_program__attach(program) : NULL;

		if (!link)
			return kb_err_sys(err, errno, "lane bpf cannot be attached");
		bpf->links[bpf->n_links++] = link;
	}
	return 0;
}

static int load(struct kb_bpf *bpf, pid_t init_pid, struct kb_err *err)
{
	int r;

	libbpf_set_print(quiet);
	kb_traps_index(bpf->arch, bpf->traps);
	bpf->object = bpf_object__open_mem(kb_bpf_object, kb_bpf_object_len, NULL);
	if (!bpf->object)
		return kb_err_sys(err, errno, "lane bpf cannot be opened");
	r = configure(bpf, init_pid, err);
	if (r < 0)
		return r;
	r = bpf_object__load(bpf->object);
	if (r < 0) {
		kb_err_sys(err, -r, "the kernel does not take lane bpf");
		return kb_err_hint(err, "lane bpf needs CAP_BPF and CAP_PERFMON, and a kernel of "
					"5.17 or later with BTF; lane notify needs neither");
	}
	bpf->lost_fd = bpf_object__find_map_fd_by_name(bpf->object, "lost");
	bpf->ring = ring_buffer__new(
		bpf_object__find_map_fd_by_name(bpf->object, "events"), on_event, bpf, NULL);
	if (!bpf->ring)
		return kb_err_sys(err, errno, "lane bpf has no ring buffer");
	r = fill_calls(bpf, err);
	return r < 0 ? r : attach(bpf, err);
}

static void unload(struct kb_bpf *bpf)
{
	while (bpf->n_links)
		bpf_link__destroy(bpf->links[--bpf->n_links]);
	if (bpf->ring)
		ring_buffer__free(bpf->ring);
	if (bpf->object)
		bpf_object__close(bpf->object);
	bpf->ring = NULL;
	bpf->object = NULL;
}

int kb_bpf_probe(struct kb_err *err)
{
	struct kb_bpf *bpf = calloc(1, sizeof(*bpf));
	int r;

	if (!bpf)
		return kb_err_nomem(err);
	bpf->arch = kb_arch_native();
	bpf->probe_nr = kb_syscall_number(bpf->arch, PROBE_CALL);
	r = load(bpf, 0, err);
	if (r == 0) {
		syscall(bpf->probe_nr);
		ring_buffer__consume(bpf->ring);
		if (!bpf->probe_seen)
			r = kb_err_set(err, KB_ERR_FAILED, "lane bpf loads but sees nothing");
	}
	unload(bpf);
	free(bpf);
	return r;
}

/* ---- Life -------------------------------------------------------------------------------------
 */

static int watch_ring(struct kb_bpf *bpf, struct kb_loop *loop, struct kb_err *err)
{
	int r = kb_loop_io(loop, ring_buffer__epoll_fd(bpf->ring), KB_IO_READ, on_woken, bpf,
		&bpf->woken, err);

	if (r == 0)
		r = kb_loop_timer(loop, on_timer, bpf, &bpf->timer, err);
	if (r == 0)
		r = kb_source_arm(bpf->timer, LOOK_MSEC, err);
	return r;
}

int kb_bpf_create(struct kb_loop *loop, const struct kb_notify_options *options,
	const struct kb_notify_ops *ops, void *arg, struct kb_bpf **ret, struct kb_err *err)
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
	bpf->root_fd = kb_steal_fd(&root_fd);
	bpf->probe_nr = -1;
	bpf->look_msec = LOOK_MSEC;
	bpf->resolver = (struct kb_resolver){.self_fd = -1, .host_fd = -1};
	bpf->monotonic_to_real = (uint64_t)(kb_now_real() - kb_now_mono());
	r = kb_resolver_init(&bpf->resolver, bpf->root_fd, options->host_root, err);
	if (r == 0)
		r = load(bpf, options->init_pid, err);
	if (r == 0)
		r = watch_ring(bpf, loop, err);
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
	if (bpf->ring)
		look(bpf);
	kb_source_destroy(bpf->woken);
	kb_source_destroy(bpf->timer);
	unload(bpf);
	kb_bpf_forget_all(bpf);
	kb_resolver_finish(&bpf->resolver);
	kb_close(&bpf->root_fd);
	free(bpf);
}
