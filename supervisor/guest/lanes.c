#include "supervisor/guest/lanes.h"

#include <fcntl.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/util.h"

int kb_lanes_prepare(struct kb_lanes *lanes, int first_fd, unsigned seat, struct kb_err *err)
{
	int fds[KB_BPF_HUB_FDS];
	int r;

	for (int i = 0; i < KB_BPF_HUB_FDS; i++)
		fds[i] = first_fd + i;
	r = kb_bpf_seat_create(fds, seat, &lanes->seat, err);
	for (int i = 0; i < KB_BPF_HUB_FDS; i++)
		kb_close(&fds[i]);
	return r;
}

/* What lane bpf saw before came before. */
static void on_notify_record(const struct kb_record *record, void *arg)
{
	struct kb_lanes *lanes = arg;

	if (lanes->bpf)
		kb_bpf_look(lanes->bpf);
	lanes->ops.record(record, lanes->arg);
}

static void on_bpf_record(const struct kb_record *record, void *arg)
{
	struct kb_lanes *lanes = arg;

	lanes->ops.record(record, lanes->arg);
}

static void on_failed(const struct kb_err *why, void *arg)
{
	struct kb_lanes *lanes = arg;

	lanes->ops.failed(why, lanes->arg);
}

static void on_ask(const struct kb_asked *question, void *arg)
{
	struct kb_lanes *lanes = arg;

	lanes->ops.ask(question, lanes->arg);
}

static void on_ask_over(uint64_t number, const char *how, void *arg)
{
	struct kb_lanes *lanes = arg;

	lanes->ops.ask_over(number, how, lanes->arg);
}

/* Questions are lane notify's alone. */
static const struct kb_notify_ops notify_ops = {
	.record = on_notify_record, .failed = on_failed, .ask = on_ask, .ask_over = on_ask_over};
static const struct kb_notify_ops bpf_ops = {.record = on_bpf_record, .failed = on_failed};

int kb_lanes_start(struct kb_lanes *lanes, struct kb_loop *loop,
	const struct kb_notify_options *options, bool use_bpf, const struct kb_notify_ops *ops,
	void *arg, struct kb_err *err)
{
	struct kb_notify_options own = *options;
	int r = 0;

	lanes->ops = *ops;
	lanes->arg = arg;
	own.split = use_bpf;
	if (use_bpf) {
		own.root_fd = fcntl(options->root_fd, F_DUPFD_CLOEXEC, 3);
		r = kb_bpf_create(loop, &own, lanes->seat, &bpf_ops, lanes, &lanes->bpf, err);
		own.root_fd = options->root_fd;
	}
	if (r < 0) {
		kb_close(&own.root_fd);
		return r;
	}
	return kb_notify_create(loop, &own, &notify_ops, lanes, &lanes->notify, err);
}

int kb_lanes_add(struct kb_lanes *lanes, int listener, struct kb_err *err)
{
	return kb_notify_add(lanes->notify, listener, err);
}

void kb_lanes_pause(struct kb_lanes *lanes, bool paused)
{
	if (lanes->notify)
		kb_notify_pause(lanes->notify, paused);
	if (lanes->bpf)
		kb_bpf_pause(lanes->bpf, paused);
}

void kb_lanes_stop(struct kb_lanes *lanes)
{
	kb_notify_destroy(KB_STEAL(lanes->notify));
	kb_bpf_destroy(KB_STEAL(lanes->bpf));
}

void kb_lanes_finish(struct kb_lanes *lanes)
{
	kb_lanes_stop(lanes);
	kb_bpf_seat_destroy(KB_STEAL(lanes->seat));
}
