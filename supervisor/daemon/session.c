/* Sessions: theory of operation.
 *
 * A session lives on three sides: in the machine (behind the link), in the store, and here, where
 * its state is kept. What happens to it is an event; the table below says for each state what an
 * event does and where it leads. kb_live_event() is the one place that moves a state, and logs it.
 *
 *	queued ──ready──▶ starting ──started──▶ running
 *	                      │ stop, unstorable … │
 *	                      ▼                    ▼
 *	                   stopping ──ended──▶ finishing ──finished──▶ ended
 *
 * A session whose link is lost is over at once (the guest ends what it had when its link closes);
 * its record is finished as incomplete. A session whose store is lost cannot be recorded any more,
 * so it is stopped; the store that follows closes its record. Every state but running has a
 * deadline, so that nothing waits for ever: a machine that does not end a session loses its link.
 *
 * An action may name a following event; nothing here calls kb_live_event() from an action.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "main.h"
#include "supervisor/base/log.h"
#include "supervisor/base/util.h"

#define QUEUED_MS    30000  /* for store and link to come up */
#define REACHING_MS  150000 /* for the link to a machine that may still be booting */
#define STARTING_MS  60000  /* for the machine to start it */
#define STOPPING_MS  15000  /* for the machine to end it; then at once, then the link goes */
#define NOW_MS	     10000
#define FINISHING_MS 15000 /* for the store */

typedef enum kb_live_event (*action_fn)(struct kb_live *live, const struct kb_err *why);

/* ---- Actions --------------------------------------------------------------------------------- */

static ProtobufCBinaryData id_of(struct kb_live *live)
{
	return (ProtobufCBinaryData){.data = live->id, .len = sizeof(live->id)};
}

/* The first reason stays: what follows is its consequence. */
static void keep_reason(struct kb_live *live, const struct kb_err *why)
{
	if (why && !live->reason[0])
		snprintf(live->reason, sizeof(live->reason), "%s", why->msg);
}

static int send_begin(struct kb_live *live, struct kb_err *err)
{
	Kb__Role__BeginSession begin = KB__ROLE__BEGIN_SESSION__INIT;
	Kb__Role__ToStore msg = KB__ROLE__TO_STORE__INIT;

	begin.session = id_of(live);
	begin.link = live->link->number;
	begin.meta = (ProtobufCBinaryData){.data = live->meta, .len = live->meta_len};
	msg.body_case = KB__ROLE__TO_STORE__BODY_BEGIN;
	msg.begin = &begin;
	return kb_process_send(live->store, &msg.base, -1, err);
}

static int send_start(struct kb_live *live, struct kb_err *err)
{
	Kb__Role__LinkStart start = KB__ROLE__LINK_START__INIT;
	Kb__Role__ToLink msg = KB__ROLE__TO_LINK__INIT;

	start.session = id_of(live);
	start.start = (ProtobufCBinaryData){.data = live->start, .len = live->start_len};
	msg.body_case = KB__ROLE__TO_LINK__BODY_START;
	msg.start = &start;
	return kb_process_send(live->link, &msg.base, live->attachment, err);
}

/* To the store first: what comes from the link belongs to a session it knows. Neither is waited
 * for; the store commits while the machine starts. */
static enum kb_live_event act_launch(struct kb_live *live, const struct kb_err *why)
{
	struct kb_err err;
	int r;

	live->store = live->main->store;
	live->link = live->place->link;
	r = send_begin(live, &err);
	if (r == 0)
		r = kb_broker_start(live, &err);
	if (r == 0)
		r = send_start(live, &err);
	if (r == 0)
		r = kb_ports_hand_over(live, &err);
	live->attached = live->attachment >= 0;
	kb_close(&live->attachment);
	free(live->start);
	free(live->meta);
	live->start = live->meta = NULL;
	if (r == 0)
		return KB_EV_NONE;
	live->why = err;
	keep_reason(live, &err);
	return KB_EV_FAILED;
}

static void reply_accepted(struct kb_live *live, struct kb_watch *w)
{
	Kb__Control__Accepted accepted = KB__CONTROL__ACCEPTED__INIT;
	Kb__Control__Reply reply = KB__CONTROL__REPLY__INIT;

	accepted.id = live->id_text;
	accepted.name = live->name;
	reply.body_case = KB__CONTROL__REPLY__BODY_ACCEPTED;
	reply.accepted = &accepted;
	kb_conn_reply(w->conn, w->request, &reply);
}

/* A detached start is answered now; whoever asked need not stay. */
static enum kb_live_event act_running(struct kb_live *live, const struct kb_err *why)
{
	struct kb_watch *w, *next;

	for (w = TAILQ_FIRST(&live->watches); w && live->detached_start; w = next) {
		next = TAILQ_NEXT(w, entry);
		reply_accepted(live, w);
		kb_watch_destroy(live, w);
	}
	return KB_EV_NONE;
}

static enum kb_live_event act_stop(struct kb_live *live, const struct kb_err *why)
{
	Kb__Role__LinkStop stop = KB__ROLE__LINK_STOP__INIT;
	Kb__Role__ToLink msg = KB__ROLE__TO_LINK__INIT;
	struct kb_err err;

	keep_reason(live, why);
	stop.session = id_of(live);
	stop.now = live->now;
	stop.reason = live->reason;
	msg.body_case = KB__ROLE__TO_LINK__BODY_STOP;
	msg.stop = &stop;
	if (!live->link)
		return KB_EV_LINK_LOST;
	if (kb_process_send(live->link, &msg.base, -1, &err) < 0)
		kb_log_warn("session %s: stop was not sent: %s", live->name, err.msg);
	return KB_EV_NONE;
}

static enum kb_live_event act_store_lost(struct kb_live *live, const struct kb_err *why)
{
	live->store = NULL;
	live->complete = false;
	live->now = true;
	return act_stop(live, why);
}

static enum kb_live_event act_unstorable(struct kb_live *live, const struct kb_err *why)
{
	live->complete = false;
	live->now = true;
	return act_stop(live, why);
}

static enum kb_live_event act_note_store_lost(struct kb_live *live, const struct kb_err *why)
{
	live->store = NULL;
	live->complete = false;
	keep_reason(live, why);
	return KB_EV_NONE;
}

static enum kb_live_event act_note(struct kb_live *live, const struct kb_err *why)
{
	keep_reason(live, why);
	return KB_EV_NONE;
}

/* The machine does not end it: at once, then; and if not even that works, without the link nothing
 * of it goes on. */
static enum kb_live_event act_escalate(struct kb_live *live, const struct kb_err *why)
{
	if (!live->now) {
		live->now = true;
		return act_stop(live, why);
	}
	kb_log_error("session %s does not end: its link goes", live->name);
	if (!live->link)
		return KB_EV_LINK_LOST;
	kb_process_kill(live->link, SIGKILL);
	return KB_EV_NONE;
}

static enum kb_live_event act_too_slow(struct kb_live *live, const struct kb_err *why)
{
	struct kb_err err;

	kb_err_set(&err, KB_ERR_TIMEOUT, "it did not start within %d s", STARTING_MS / 1000);
	live->now = true;
	return act_stop(live, &err);
}

static void fill_finish(struct kb_live *live, Kb__Role__FinishSession *finish)
{
	finish->session = id_of(live);
	finish->exit_code = live->exit_code;
	finish->has_signal = live->signal != 0;
	finish->signal = live->signal;
	finish->ended = live->ended;
	finish->reason = live->reason[0] ? live->reason : NULL;
	finish->complete = live->complete;
	finish->last_seq = live->last_seq;
}

static enum kb_live_event act_finish(struct kb_live *live, const struct kb_err *why)
{
	Kb__Role__FinishSession finish = KB__ROLE__FINISH_SESSION__INIT;
	Kb__Role__ToStore msg = KB__ROLE__TO_STORE__INIT;
	struct kb_err err;

	if (live->ended == 0)
		live->ended = (uint64_t)kb_now_real();
	keep_reason(live, why);
	if (!live->store)
		return KB_EV_STORE_LOST;
	fill_finish(live, &finish);
	msg.body_case = KB__ROLE__TO_STORE__BODY_FINISH;
	msg.finish = &finish;
	if (kb_process_send(live->store, &msg.base, -1, &err) == 0)
		return KB_EV_NONE;
	kb_log_error("session %s cannot be finished: %s", live->name, err.msg);
	return KB_EV_STORE_LOST;
}

/* Nobody will tell its exit code any more. */
static enum kb_live_event act_link_lost(struct kb_live *live, const struct kb_err *why)
{
	live->link = NULL;
	live->complete = false;
	live->last_seq = UINT64_MAX; /* whatever came before the link closed */
	live->exit_code = 128 + SIGKILL;
	live->signal = SIGKILL;
	return act_finish(live, why);
}

static enum kb_live_event act_forget_link(struct kb_live *live, const struct kb_err *why)
{
	live->link = NULL;
	return KB_EV_NONE;
}

static enum kb_live_event act_start_failed(struct kb_live *live, const struct kb_err *why)
{
	if (why)
		live->why = *why;
	live->exit_code = kb_err_exit_status(&live->why);
	return act_finish(live, why);
}

static enum kb_live_event act_refuse(struct kb_live *live, const struct kb_err *why)
{
	if (why)
		live->why = *why;
	else
		kb_err_set(&live->why, KB_ERR_TIMEOUT,
			"the supervisor's store and the link to %s did not come up in time",
			live->place->name);
	return KB_EV_NONE;
}

static enum kb_live_event act_store_silent(struct kb_live *live, const struct kb_err *why)
{
	live->complete = false;
	kb_log_error("session %s: the store did not finish its record", live->name);
	return KB_EV_NONE;
}

static enum kb_live_event act_none(struct kb_live *live, const struct kb_err *why)
{
	return KB_EV_NONE;
}

/* ---- The table ------------------------------------------------------------------------------- */

#define Q KB_LIVE_QUEUED
#define S KB_LIVE_STARTING
#define R KB_LIVE_RUNNING
#define P KB_LIVE_STOPPING
#define F KB_LIVE_FINISHING
#define E KB_LIVE_ENDED

/* No entry (act NULL): the event means nothing in that state; it is logged and dropped. */
static const struct {
	enum kb_live_state next;
	action_fn act;
} table[KB_LIVE_STATES_][KB_EVENTS_] = {
	[Q] =
		{
			[KB_EV_READY] = {S, act_launch},
			[KB_EV_STOP] = {E, act_refuse},
			[KB_EV_FAILED] = {E, act_refuse},
			[KB_EV_DEADLINE] = {E, act_refuse},
		},
	[S] =
		{
			[KB_EV_STARTED] = {R, act_running},
			[KB_EV_FAILED] = {F, act_start_failed},
			[KB_EV_STOP] = {P, act_stop},
			[KB_EV_ENDED] = {F, act_finish},
			[KB_EV_LINK_LOST] = {F, act_link_lost},
			[KB_EV_STORE_LOST] = {P, act_store_lost},
			[KB_EV_UNSTORABLE] = {P, act_unstorable},
			[KB_EV_DEADLINE] = {P, act_too_slow},
		},
	[R] =
		{
			[KB_EV_STOP] = {P, act_stop},
			[KB_EV_ENDED] = {F, act_finish},
			[KB_EV_LINK_LOST] = {F, act_link_lost},
			[KB_EV_STORE_LOST] = {P, act_store_lost},
			[KB_EV_UNSTORABLE] = {P, act_unstorable},
		},
	[P] =
		{
			[KB_EV_STARTED] = {P, act_none},
			[KB_EV_FAILED] = {F, act_start_failed},
			[KB_EV_STOP] = {P, act_stop},
			[KB_EV_ENDED] = {F, act_finish},
			[KB_EV_LINK_LOST] = {F, act_link_lost},
			[KB_EV_STORE_LOST] = {P, act_note_store_lost},
			[KB_EV_UNSTORABLE] = {P, act_note},
			[KB_EV_DEADLINE] = {P, act_escalate},
		},
	[F] =
		{
			[KB_EV_STOP] = {F, act_none},
			[KB_EV_LINK_LOST] = {F, act_forget_link},
			[KB_EV_UNSTORABLE] = {F, act_none},
			[KB_EV_FINISHED] = {E, act_none},
			[KB_EV_STORE_LOST] = {E, act_note_store_lost},
			[KB_EV_DEADLINE] = {E, act_store_silent},
		},
};

#undef Q
#undef S
#undef R
#undef P
#undef F
#undef E

static const char *const state_names[] = {
	"queued", "starting", "running", "stopping", "finishing", "ended"};
static const char *const event_names[] = {"none", "ready", "started", "failed", "stop", "ended",
	"link lost", "store lost", "unstorable", "finished", "deadline"};

/* The command line knows four states. */
const char *kb_live_state_name(enum kb_live_state state)
{
	static const char *const names[] = {
		"starting", "starting", "running", "stopping", "stopping", "ended"};

	return names[state];
}

static int64_t deadline_of(const struct kb_live *live)
{
	const int64_t deadlines[KB_LIVE_STATES_] = {
		[KB_LIVE_QUEUED] = kb_place_is_local(live->place) ? QUEUED_MS : REACHING_MS,
		[KB_LIVE_STARTING] = STARTING_MS,
		[KB_LIVE_STOPPING] = live->now ? NOW_MS : STOPPING_MS,
		[KB_LIVE_FINISHING] = FINISHING_MS};

	return deadlines[live->state];
}

void kb_live_arm_deadline(struct kb_live *live)
{
	int64_t ms = deadline_of(live);

	if (ms == 0)
		kb_source_disarm(live->deadline);
	else if (kb_source_arm(live->deadline, ms, NULL) < 0)
		kb_log_error("session %s has no deadline", live->name);
}

/* ---- The end --------------------------------------------------------------------------------- */

static void answer_watch(struct kb_live *live, struct kb_watch *w)
{
	Kb__Control__Session session;
	Kb__Control__Reply reply = KB__CONTROL__REPLY__INIT;

	if (live->why.code != 0) {
		kb_conn_error(w->conn, w->request, &live->why);
		return;
	}
	kb_live_describe(live, &session);
	reply.body_case = KB__CONTROL__REPLY__BODY_ENDED;
	reply.ended = &session;
	kb_conn_reply(w->conn, w->request, &reply);
}

static void say_goodbye(struct kb_live *live)
{
	struct kb_main *m = live->main;
	struct kb_watch *w;

	kb_log_info("session %s (%s) ended: exit %d%s%s, %llu records%s", live->name, live->id_text,
		live->exit_code, live->reason[0] ? ", " : "", live->reason,
		(unsigned long long)live->records, live->complete ? "" : ", incomplete");
	while ((w = TAILQ_FIRST(&live->watches))) {
		answer_watch(live, w);
		kb_watch_destroy(live, w);
	}
	kb_live_destroy(live);
	kb_main_check(m);
}

void kb_live_event(struct kb_live *live, enum kb_live_event event, const struct kb_err *why)
{
	while (event != KB_EV_NONE) {
		enum kb_live_state from = live->state;
		action_fn act = table[from][event].act;

		if (!act) {
			kb_log_debug("session %s: %s means nothing while %s", live->name,
				event_names[event], state_names[from]);
			return;
		}
		live->state = table[from][event].next;
		kb_log_info("session %s: %s → %s (%s%s%s)", live->name, state_names[from],
			state_names[live->state], event_names[event], why ? ": " : "",
			why ? why->msg : "");
		event = act(live, why);
		if (live->state == KB_LIVE_ENDED) {
			say_goodbye(live);
			return;
		}
		kb_live_arm_deadline(live);
	}
}
