/* Calls that an `ask` rule stopped.
 *
 * The caller sleeps in the kernel, as it does for any notification; only the answer takes longer.
 * Nothing of the call is kept but the notification itself: when the answer is there it is handled
 * once more from the start, so its arguments are read, judged and recorded as they are *then*.
 *
 * What is asked about are the registers, as with every rule on system calls. An answer that allows
 * lets the kernel go on, and the kernel reads what pointers point to by itself: somebody who allows
 * a call allows what another thread may put there meanwhile. Mounts and Landlock stay what they
 * are, whatever the answer.
 *
 * Nobody waits for ever: each question has a deadline, there is a bound on how many are open, and a
 * caller that is gone takes its question with it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "collector.h"
#include "supervisor/base/util.h"

#define NO_ANSWER "nobody answered in time"

struct kb_pending {
	struct kb_pending *next;
	struct kb_listener *listener;
	uint64_t number;
	pid_t process; /* thread group of the caller, for us */
	int64_t deadline;
	struct seccomp_notif request[]; /* as large as the kernel has it */
};

/* What was answered for the rest of the session. */
struct kb_standing {
	struct kb_standing *next;
	uint32_t rule;
	bool allow;
};

static const char *const standing_notes[] = {"denied for this session", "allowed for this session"};

/* ---- Ruling ---------------------------------------------------------------------------------- */

static void rule(struct kb_seen *seen, bool allow, const char *note, enum kb_record_level level)
{
	seen->asked = true;
	seen->note = note;
	seen->judge.verdict.record = KB_MAX(seen->judge.verdict.record, level);
	if (!allow)
		return;
	seen->judge.answer = 0;
	seen->judge.verdict.action = KB_ALLOW;
}

static const struct kb_standing *find_standing(const struct kb_notify *notify, uint32_t rule)
{
	const struct kb_standing *s = notify->standing;

	while (s && s->rule != rule)
		s = s->next;
	return s;
}

static void arm(struct kb_notify *notify)
{
	int64_t first = INT64_MAX, left;

	for (const struct kb_pending *p = notify->pending; p; p = p->next)
		first = KB_MIN(first, p->deadline);
	if (!notify->pending) {
		kb_source_disarm(notify->questions);
		return;
	}
	left = (first - kb_now_mono()) / 1000000;
	(void)kb_source_arm(notify->questions, left > 0 ? left + 1 : 0, NULL);
}

static void describe(const struct kb_seen *seen, const struct kb_pending *p, struct kb_asked *ret)
{
	const struct seccomp_data *data = &seen->request->data;

	*ret = (struct kb_asked){
		.number = p->number,
		.rule = seen->judge.verdict.rule,
		.pid = seen->proc->vpid,
		.comm = seen->proc->comm,
		.arch = data->arch,
		.syscall = data->nr,
		.wait_ms = seen->notify->ask_ms,
	};
	memcpy(ret->args, data->args, sizeof(ret->args));
}

static bool put(struct kb_seen *seen, struct kb_listener *listener)
{
	struct kb_notify *notify = seen->notify;
	struct kb_pending *p, **at = &notify->pending;
	struct kb_asked question;
	size_t n = 0;

	for (; *at; at = &(*at)->next)
		n++;
	p = n < KB_QUESTIONS_MAX ? malloc(sizeof(*p) + notify->request_size) : NULL;
	if (!p)
		return false;
	*p = (struct kb_pending){
		.listener = listener,
		.number = ++notify->last_question,
		.process = seen->proc->leader.tid,
		.deadline = kb_now_mono() + (int64_t)notify->ask_ms * 1000000,
	};
	memcpy(p->request, seen->request, notify->request_size);
	*at = p;
	describe(seen, p, &question);
	notify->ops.ask(&question, notify->arg);
	arm(notify);
	return true;
}

bool kb_asked_settle(struct kb_seen *seen, struct kb_listener *listener)
{
	struct kb_notify *notify = seen->notify;
	const struct kb_standing *standing = find_standing(notify, seen->judge.verdict.rule);

	if (notify->ruling)
		rule(seen, notify->ruling->allow, notify->ruling->note, KB_RECORD_FULL);
	else if (standing)
		rule(seen, standing->allow, standing_notes[standing->allow], KB_RECORD_SUMMARY);
	else if (!notify->ops.ask)
		rule(seen, false, "there is nobody to ask", KB_RECORD_FULL);
	else if (put(seen, listener))
		return false;
	else
		rule(seen, false, "too many questions are open", KB_RECORD_FULL);
	return true;
}

/* ---- Answers --------------------------------------------------------------------------------- */

static struct kb_pending *take(struct kb_notify *notify, uint64_t number)
{
	struct kb_pending **at = &notify->pending, *p;

	while (*at && (*at)->number != number)
		at = &(*at)->next;
	p = *at;
	if (p)
		*at = p->next;
	return p;
}

/* The question is over: the call goes on as ruled. */
static void conclude(struct kb_notify *notify, struct kb_pending *p, bool allow, const char *note)
{
	const struct kb_ruling ruling = {.allow = allow, .note = note};

	notify->ruling = &ruling;
	kb_collector_handle(p->listener, p->request);
	notify->ruling = NULL;
	notify->ops.ask_over(p->number, note, notify->arg);
	free(p);
	arm(notify);
}

static void stand(struct kb_notify *notify, uint32_t rule_index, bool allow)
{
	struct kb_standing *s = calloc(1, sizeof(*s));

	if (!s)
		return; /* it will be asked again */
	*s = (struct kb_standing){.next = notify->standing, .rule = rule_index, .allow = allow};
	notify->standing = s;
}

static uint32_t rule_of(const struct kb_notify *notify, const struct kb_pending *p)
{
	const struct seccomp_data *data = &p->request->data;
	uint64_t args[6];

	memcpy(args, data->args, sizeof(args));
	return kb_bundle_decide(notify->bundle, data->arch, data->nr, args).rule;
}

/* The same rule has stopped others meanwhile: they have their answer, too. */
static struct kb_pending *next_of_rule(struct kb_notify *notify, uint32_t rule_index)
{
	struct kb_pending *p = notify->pending;

	while (p && rule_of(notify, p) != rule_index)
		p = p->next;
	return p ? take(notify, p->number) : NULL;
}

void kb_notify_answer(
	struct kb_notify *notify, uint64_t number, enum kb_asked_answer answer, const char *note)
{
	struct kb_pending *p = take(notify, number);
	bool allow = answer == KB_ANSWER_ALLOW || answer == KB_ANSWER_ALLOW_SESSION;
	uint32_t index;

	if (!p)
		return; /* it is over: too late, or its caller has gone */
	index = rule_of(notify, p);
	if (answer == KB_ANSWER_ALLOW_SESSION || answer == KB_ANSWER_DENY_SESSION) {
		stand(notify, index, allow);
		conclude(notify, p, allow, note);
		while ((p = next_of_rule(notify, index)))
			conclude(notify, p, allow, note);
	} else {
		conclude(notify, p, allow, note);
	}
	kb_collector_report_failure(notify);
}

void kb_asked_tick(void *arg)
{
	struct kb_notify *notify = arg;
	int64_t now = kb_now_mono();
	struct kb_pending *p = notify->pending;

	while (p) {
		uint64_t number = p->number;
		bool due = p->deadline <= now;

		p = p->next;
		if (due)
			conclude(notify, take(notify, number), false, NO_ANSWER);
	}
	arm(notify);
	kb_collector_report_failure(notify);
}

/* ---- Ends ------------------------------------------------------------------------------------ */

void kb_asked_forget(struct kb_notify *notify, const struct kb_proc *proc)
{
	struct kb_pending *p = notify->pending;

	while (p) {
		uint64_t number = p->number;
		bool theirs = p->process == proc->leader.tid;

		p = p->next;
		if (theirs)
			conclude(notify, take(notify, number), false, "the caller is gone");
	}
}

void kb_asked_drop(struct kb_notify *notify, const struct kb_listener *listener)
{
	struct kb_pending **at = &notify->pending;

	while (*at) {
		struct kb_pending *p = *at;

		if (listener && p->listener != listener) {
			at = &p->next;
			continue;
		}
		*at = p->next;
		notify->ops.ask_over(p->number, "the caller is gone", notify->arg);
		free(p);
	}
}

void kb_asked_finish(struct kb_notify *notify)
{
	while (notify->standing) {
		struct kb_standing *s = notify->standing;

		notify->standing = s->next;
		free(s);
	}
	kb_source_destroy(notify->questions);
}
