#include "throttle.h"

#include <stdio.h>
#include <string.h>

#include "collector.h"
#include "supervisor/base/util.h"

#define NSEC	  1000000000ll
#define BURST	  NSEC /* a second's worth may come at once */
#define CALM_MSEC 1000 /* without a wait: it is over */

static void record(struct kb_notify *notify, const char *text, uint64_t count)
{
	struct kb_record r = {
		.time = (uint64_t)kb_now_real(),
		.event = KB_EVENT_THROTTLE,
		.lane = KB_LANE_NOTIFY,
		.syscall = -1,
		.rule = notify->throttle.rule,
		.count = count,
		.text = {(const uint8_t *)text, strlen(text)},
	};

	notify->ops.record(&r, notify->arg);
}

static void begin(struct kb_notify *notify)
{
	struct kb_throttle *t = &notify->throttle;
	char text[128];

	t->on = true;
	t->held = 0;
	t->count = 0;
	snprintf(text, sizeof(text),
		"begins: more than %llu recorded calls a second, the rest wait their turn",
		(unsigned long long)t->rate);
	record(notify, text, 0);
}

static void end(struct kb_notify *notify)
{
	struct kb_throttle *t = &notify->throttle;
	char text[128];

	t->on = false;
	snprintf(text, sizeof(text), "ends: the session was held up for %lld ms",
		(long long)(t->held / 1000000));
	record(notify, text, t->count);
}

static void stop_waiting(struct kb_throttle *t)
{
	if (t->waiting)
		t->held += kb_now_mono() - t->since;
	t->waiting = false;
}

static void on_timer(void *arg)
{
	struct kb_notify *notify = arg;
	struct kb_throttle *t = &notify->throttle;

	if (!t->waiting) {
		end(notify);
		return;
	}
	stop_waiting(t);
	kb_collector_listen(notify);
	kb_source_arm(t->timer, CALM_MSEC, NULL);
}

int kb_throttle_init(struct kb_notify *notify, struct kb_err *err)
{
	const struct kb_limit *limits;
	size_t n = kb_bundle_limits(notify->bundle, &limits);
	struct kb_throttle *t = &notify->throttle;

	for (size_t i = 0; i < n; i++)
		if (limits[i].kind == KB_LIMIT_NOTIFY && limits[i].value > 0 &&
			(!t->rate || limits[i].value < t->rate)) {
			t->rate = limits[i].value;
			t->rule = limits[i].rule;
		}
	return t->rate ? kb_loop_timer(notify->loop, on_timer, notify, &t->timer, err) : 0;
}

void kb_throttle_count(struct kb_notify *notify, unsigned calls)
{
	struct kb_throttle *t = &notify->throttle;
	int64_t now;

	if (!t->rate || !calls)
		return;
	now = kb_now_mono();
	t->due = KB_MAX(t->due, now - BURST) + calls * NSEC / (int64_t)t->rate;
	t->count += t->on ? calls : 0;
	if (t->due <= now || t->waiting)
		return;
	if (!t->on)
		begin(notify);
	t->waiting = true;
	t->since = now;
	kb_collector_listen(notify);
	kb_source_arm(t->timer, (t->due - now) / 1000000 + 1, NULL);
}

void kb_throttle_finish(struct kb_notify *notify)
{
	struct kb_throttle *t = &notify->throttle;

	stop_waiting(t);
	if (t->on)
		end(notify);
	kb_source_destroy(t->timer);
	t->timer = NULL;
}
