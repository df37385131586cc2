/* Questions of `ask` rules: who is told, who answers.
 *
 * The machine keeps the call waiting and the time; here is only the list of what is open. Who is
 * connected to the session (run, attach) is told of each question as it comes; anybody who may use
 * the control socket can answer. Where nobody is connected there is nobody to ask: the answer is
 * no, at once.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit/audit.h"
#include "main.h"
#include "supervisor/base/log.h"
#include "supervisor/base/util.h"

/* For the record, and for whoever else was told. */
static const char *const answered[KB_ANSWER_MAX_] = {
	[KB_ANSWER_DENY] = "denied",
	[KB_ANSWER_ALLOW] = "allowed once",
	[KB_ANSWER_DENY_SESSION] = "denied for this session",
	[KB_ANSWER_ALLOW_SESSION] = "allowed for this session",
};

static void question_destroy(struct kb_live *live, struct kb_live_question *q)
{
	TAILQ_REMOVE(&live->questions, q, entry);
	live->n_questions--;
	free(q->process);
	free(q->call);
	free(q);
}

void kb_live_forget_questions(struct kb_live *live)
{
	while (!TAILQ_EMPTY(&live->questions))
		question_destroy(live, TAILQ_FIRST(&live->questions));
}

static struct kb_live_question *find(struct kb_live *live, uint64_t number)
{
	struct kb_live_question *q;

	TAILQ_FOREACH(q, &live->questions, entry)
		if (q->number == number)
			return q;
	return NULL;
}

/* ---- To clients ------------------------------------------------------------------------------ */

static void describe(
	struct kb_live *live, const struct kb_live_question *q, Kb__Control__Question *ret)
{
	const struct kb_rule *rules;

	kb_bundle_rules(live->policy, &rules);
	rules += q->rule;
	kb__control__question__init(ret);
	ret->session = live->name;
	ret->number = q->number;
	ret->process = q->process;
	ret->call = q->call;
	ret->rule = (char *)rules->id;
	ret->rule_text = (char *)rules->text;
	ret->text = (char *)(rules->reason ? rules->reason : "");
	ret->file = (char *)rules->file;
	ret->line = rules->line;
	ret->asked = q->asked;
	ret->wait_ms = q->wait_ms;
}

static void show(const struct kb_watch *w, const struct kb_live_question *q, struct kb_live *live)
{
	Kb__Control__Reply reply = KB__CONTROL__REPLY__INIT;
	Kb__Control__Question question;

	describe(live, q, &question);
	reply.body_case = KB__CONTROL__REPLY__BODY_QUESTION;
	reply.question = &question;
	kb_conn_reply(w->conn, w->request, &reply);
}

void kb_live_show_questions(struct kb_live *live, struct kb_conn *conn, uint32_t request)
{
	const struct kb_watch w = {.conn = conn, .request = request};
	struct kb_live_question *q;

	TAILQ_FOREACH(q, &live->questions, entry)
		show(&w, q, live);
}

/* ---- From the machine ------------------------------------------------------------------------ */

static void send_answer(
	struct kb_live *live, uint64_t number, enum kb_asked_answer verdict, const char *note)
{
	Kb__Role__LinkAnswer answer = KB__ROLE__LINK_ANSWER__INIT;
	Kb__Role__ToLink msg = KB__ROLE__TO_LINK__INIT;
	struct kb_err err;

	answer.session = (ProtobufCBinaryData){.data = live->id, .len = sizeof(live->id)};
	answer.number = number;
	answer.verdict = verdict;
	answer.note = (char *)note;
	msg.body_case = KB__ROLE__TO_LINK__BODY_ANSWER;
	msg.answer = &answer;
	if (live->link && kb_process_send(live->link, &msg.base, -1, &err) < 0)
		kb_log_warn("session %s: an answer was not sent: %s", live->name, err.msg);
}

static bool keep(struct kb_live *live, const Kb__Role__LinkQuestion *msg)
{
	struct kb_live_question *q = calloc(1, sizeof(*q));

	if (!q)
		return false;
	q->rule = msg->rule;
	q->number = msg->number;
	q->wait_ms = msg->wait_ms;
	q->asked = (uint64_t)kb_now_real();
	TAILQ_INSERT_TAIL(&live->questions, q, entry);
	live->n_questions++;
	q->process = strdup(msg->process);
	q->call = strdup(msg->call);
	if (q->process && q->call)
		return true;
	question_destroy(live, q);
	return false;
}

/* What the rule says comes from our own copy of the policy; the machine only says which. */
static bool known_rule(const struct kb_live *live, uint32_t rule)
{
	const struct kb_rule *rules;

	return live->policy && rule < kb_bundle_rules(live->policy, &rules) &&
	       rules[rule].action == KB_ASK;
}

void kb_live_question(struct kb_live *live, const Kb__Role__LinkQuestion *msg)
{
	const struct kb_watch *w;
	bool told = false;

	if (!known_rule(live, msg->rule)) {
		kb_log_warn("session %s asks by a rule that does not ask", live->name);
		return;
	}
	if (live->n_questions >= KB_LIVE_QUESTIONS_MAX || !keep(live, msg)) {
		send_answer(live, msg->number, KB_ANSWER_DENY, "too many questions are open");
		return;
	}
	TAILQ_FOREACH(w, &live->watches, entry) {
		if (!w->connected || !live->attached)
			continue;
		show(w, TAILQ_LAST(&live->questions, kb_live_questions), live);
		told = true;
	}
	if (!told)
		send_answer(live, msg->number, KB_ANSWER_DENY, "nobody was attached to be asked");
}

void kb_live_question_over(struct kb_live *live, const Kb__Role__LinkQuestionOver *msg)
{
	struct kb_live_question *q = find(live, msg->number);
	Kb__Control__QuestionOver over = KB__CONTROL__QUESTION_OVER__INIT;
	Kb__Control__Reply reply = KB__CONTROL__REPLY__INIT;
	const struct kb_watch *w;

	if (!q)
		return;
	over.number = msg->number;
	over.how = msg->how;
	reply.body_case = KB__CONTROL__REPLY__BODY_QUESTION_OVER;
	reply.question_over = &over;
	TAILQ_FOREACH(w, &live->watches, entry)
		if (w->connected)
			kb_conn_reply(w->conn, w->request, &reply);
	question_destroy(live, q);
}

/* ---- Requests -------------------------------------------------------------------------------- */

int kb_live_answer(struct kb_live *live, uint64_t number, uint32_t verdict, struct kb_err *err)
{
	char note[128];

	if (verdict >= KB_ANSWER_MAX_)
		return kb_err_set(err, KB_ERR_INVALID, "this is no answer");
	if (!find(live, number)) {
		kb_err_set(err, KB_ERR_NOTFOUND, "session %s has no open question %llu", live->name,
			(unsigned long long)number);
		return kb_err_hint(
			err, "it may be too late; `kbsup answer %s` lists them", live->name);
	}
	snprintf(note, sizeof(note), "%s by %s", answered[verdict], live->user);
	send_answer(live, number, (enum kb_asked_answer)verdict, note);
	return 0;
}

static size_t gather(
	struct kb_live *live, Kb__Control__Question *list, Kb__Control__Question **refs, size_t n)
{
	struct kb_live_question *q;

	TAILQ_FOREACH(q, &live->questions, entry) {
		describe(live, q, &list[n]);
		refs[n] = &list[n];
		n++;
	}
	return n;
}

int kb_live_list_questions(struct kb_main *m, struct kb_live *only, struct kb_conn *conn,
	uint32_t request, struct kb_err *err)
{
	Kb__Control__Questions questions = KB__CONTROL__QUESTIONS__INIT;
	Kb__Control__Reply reply = KB__CONTROL__REPLY__INIT;
	KB_FREE Kb__Control__Question *list = NULL;
	KB_FREE Kb__Control__Question **refs = NULL;
	struct kb_live *live;
	size_t n = 0;

	TAILQ_FOREACH(live, &m->lives, entry)
		n += live->n_questions;
	list = calloc(n + 1, sizeof(*list));
	refs = calloc(n + 1, sizeof(*refs));
	if (!list || !refs)
		return kb_err_nomem(err);
	TAILQ_FOREACH(live, &m->lives, entry)
		if (!only || live == only)
			questions.n_questions = gather(live, list, refs, questions.n_questions);
	questions.questions = refs;
	reply.body_case = KB__CONTROL__REPLY__BODY_QUESTIONS;
	reply.questions = &questions;
	kb_conn_reply(conn, request, &reply);
	return 0;
}
