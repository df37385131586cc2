#include "loop.h"

#include <errno.h>
#include <event2/event.h>
#include <stdbool.h>
#include <stdlib.h>

#include "util.h"

struct kb_loop {
	struct event_base *base;
};

enum source_kind { SOURCE_IO, SOURCE_TIMER, SOURCE_SIGNAL };

struct kb_source {
	struct kb_loop *loop;
	struct event *event;
	enum source_kind kind;
	int fd; /* or the signal */
	unsigned events;
	union {
		kb_io_fn io;
		kb_timer_fn timer;
		kb_signal_fn signal;
	} fn;
	void *arg;
};

int kb_loop_create(struct kb_loop **ret, struct kb_err *err)
{
	struct event_config *config = event_config_new();
	struct kb_loop *loop = calloc(1, sizeof(*loop));

	if (!loop || !config)
		goto fail;
	/* One thread per loop: no locks. */
	event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
	loop->base = event_base_new_with_config(config);
	if (!loop->base)
		goto fail;
	event_config_free(config);
	*ret = loop;
	return 0;
fail:
	if (config)
		event_config_free(config);
	free(loop);
	return kb_err_set(err, KB_ERR_FAILED, "an event loop cannot be made");
}

void kb_loop_destroy(struct kb_loop *loop)
{
	if (!loop)
		return;
	event_base_free(loop->base);
	free(loop);
}

int kb_loop_run(struct kb_loop *loop, struct kb_err *err)
{
	if (event_base_dispatch(loop->base) < 0)
		return kb_err_sys(err, errno, "the event loop failed");
	return 0;
}

void kb_loop_stop(struct kb_loop *loop)
{
	event_base_loopbreak(loop->base);
}

static void dispatch(evutil_socket_t fd, short what, void *arg)
{
	struct kb_source *s = arg;
	unsigned events = (what & EV_READ ? KB_IO_READ : 0) | (what & EV_WRITE ? KB_IO_WRITE : 0);

	switch (s->kind) {
	case SOURCE_IO:
		s->fn.io((int)fd, events, s->arg);
		break;
	case SOURCE_TIMER:
		s->fn.timer(s->arg);
		break;
	case SOURCE_SIGNAL:
		s->fn.signal((int)fd, s->arg);
		break;
	}
}

static struct kb_source *source_new(struct kb_loop *loop, enum source_kind kind, int fd, void *arg)
{
	struct kb_source *s = calloc(1, sizeof(*s));

	if (s)
		*s = (struct kb_source){.loop = loop, .kind = kind, .fd = fd, .arg = arg};
	return s;
}

static short io_flags(unsigned events)
{
	return (short)(EV_PERSIST | (events & KB_IO_READ ? EV_READ : 0) |
		       (events & KB_IO_WRITE ? EV_WRITE : 0));
}

int kb_loop_io(struct kb_loop *loop, int fd, unsigned events, kb_io_fn fn, void *arg,
	struct kb_source **ret, struct kb_err *err)
{
	struct kb_source *s = source_new(loop, SOURCE_IO, fd, arg);
	int r;

	if (!s)
		return kb_err_nomem(err);
	s->fn.io = fn;
	s->event = event_new(loop->base, fd, io_flags(0), dispatch, s);
	if (!s->event) {
		free(s);
		return kb_err_nomem(err);
	}
	r = kb_source_set_events(s, events, err);
	if (r < 0) {
		kb_source_destroy(s);
		return r;
	}
	*ret = s;
	return 0;
}

int kb_source_set_events(struct kb_source *source, unsigned events, struct kb_err *err)
{
	if (source->events == events)
		return 0;
	event_del(source->event);
	source->events = events;
	if (events == 0)
		return 0;
	if (event_assign(source->event, source->loop->base, source->fd, io_flags(events), dispatch,
		    source) < 0 ||
		event_add(source->event, NULL) < 0)
		return kb_err_sys(
			err, errno ? errno : EINVAL, "fd %d cannot be watched", source->fd);
	return 0;
}

int kb_loop_timer(
	struct kb_loop *loop, kb_timer_fn fn, void *arg, struct kb_source **ret, struct kb_err *err)
{
	struct kb_source *s = source_new(loop, SOURCE_TIMER, -1, arg);

	if (!s)
		return kb_err_nomem(err);
	s->fn.timer = fn;
	s->event = evtimer_new(loop->base, dispatch, s);
	if (!s->event) {
		free(s);
		return kb_err_nomem(err);
	}
	*ret = s;
	return 0;
}

int kb_source_arm(struct kb_source *source, int64_t msec, struct kb_err *err)
{
	struct timeval tv = {.tv_sec = msec / 1000, .tv_usec = msec % 1000 * 1000};

	if (evtimer_add(source->event, &tv) < 0)
		return kb_err_set(err, KB_ERR_FAILED, "a timer cannot be armed");
	return 0;
}

void kb_source_disarm(struct kb_source *source)
{
	event_del(source->event);
}

int kb_loop_signal(struct kb_loop *loop, int signo, kb_signal_fn fn, void *arg,
	struct kb_source **ret, struct kb_err *err)
{
	struct kb_source *s = source_new(loop, SOURCE_SIGNAL, signo, arg);

	if (!s)
		return kb_err_nomem(err);
	s->fn.signal = fn;
	s->event = evsignal_new(loop->base, signo, dispatch, s);
	if (!s->event || event_add(s->event, NULL) < 0) {
		kb_source_destroy(s);
		return kb_err_set(err, KB_ERR_FAILED, "signal %d cannot be watched", signo);
	}
	*ret = s;
	return 0;
}

void kb_source_destroy(struct kb_source *source)
{
	if (!source)
		return;
	if (source->event)
		event_free(source->event);
	free(source);
}
