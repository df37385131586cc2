/* Places: the machines that sessions run on, and what their links say.
 *
 * There is one link process for each machine. That of `local` starts with the supervisor and always
 * comes back. That of another machine starts when a session is to run there, and leaves some time
 * after the last one ended. How a machine is reached is the link's business: main hands on the
 * transport's name and address as the client gave them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "main.h"
#include "proto/role_error.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/util.h"

#define TRANSPORT_LOCAL "pipe"
#define PLACES_MAX	64    /* besides `local`; each has a process */
#define LINGER_MS	10000 /* a link stays so long after its machine's last session */

static const struct kb_process_kind link_kind;

/* ---- Making and finding ---------------------------------------------------------------------- */

bool kb_place_is_local(const struct kb_place *place)
{
	return place == TAILQ_FIRST(&place->main->places);
}

bool kb_place_is_needed(const struct kb_place *place)
{
	const struct kb_live *live;

	TAILQ_FOREACH(live, &place->main->lives, entry)
		if (live->place == place && live->state == KB_LIVE_QUEUED)
			return true;
	return kb_place_is_local(place);
}

struct kb_place *kb_place_local(const struct kb_main *m)
{
	return TAILQ_FIRST(&m->places);
}

static void facts_finish(struct kb_machine_facts *facts)
{
	free(facts->runtime);
	free(facts->runtime_why);
	free(facts->kernel);
	for (size_t i = 0; i < facts->n_limits_missing; i++)
		free(facts->limits_missing[i]);
	free(facts->limits_missing);
	*facts = (struct kb_machine_facts){0};
}

static void destroy(struct kb_place *place)
{
	TAILQ_REMOVE(&place->main->places, place, entry);
	kb_source_destroy(place->idle);
	facts_finish(&place->facts);
	free(place->name);
	free(place->transport);
	free(place->address);
	free(place);
}

static void ask_to_leave(struct kb_place *place, const char *reason)
{
	Kb__Role__LinkShutdown shutdown = KB__ROLE__LINK_SHUTDOWN__INIT;
	Kb__Role__ToLink msg = KB__ROLE__TO_LINK__INIT;

	if (!place->link || place->link->expected)
		return;
	shutdown.reason = (char *)reason;
	msg.body_case = KB__ROLE__TO_LINK__BODY_SHUTDOWN;
	msg.shutdown = &shutdown;
	place->link->expected = true;
	if (kb_process_send(place->link, &msg.base, -1, NULL) < 0)
		kb_process_close(place->link);
}

static void on_idle(void *arg)
{
	struct kb_place *place = arg;

	if (place->lives > 0)
		return;
	if (place->link)
		ask_to_leave(place, "no session needs it");
	else
		destroy(place);
}

static int create(struct kb_main *m, const char *name, const char *transport,
	ProtobufCBinaryData address, struct kb_place **ret, struct kb_err *err)
{
	struct kb_place *place = calloc(1, sizeof(*place));
	int r;

	if (!place)
		return kb_err_nomem(err);
	place->main = m;
	place->name = strdup(name);
	place->transport = strdup(transport);
	place->address = address.len ? strndup((char *)address.data, address.len) : strdup("");
	TAILQ_INSERT_TAIL(&m->places, place, entry);
	r = kb_loop_timer(m->loop, on_idle, place, &place->idle, err);
	if (r == 0 && (!place->name || !place->transport || !place->address))
		r = kb_err_nomem(err);
	if (r < 0)
		destroy(place);
	else
		*ret = place;
	return r;
}

int kb_places_init(struct kb_main *m, struct kb_err *err)
{
	struct kb_place *local;

	return create(m, KB_MACHINE_LOCAL, TRANSPORT_LOCAL, (ProtobufCBinaryData){0}, &local, err);
}

void kb_places_finish(struct kb_main *m)
{
	while (!TAILQ_EMPTY(&m->places))
		destroy(TAILQ_FIRST(&m->places));
}

static struct kb_place *by_name(struct kb_main *m, const char *name, size_t *ret_n)
{
	struct kb_place *place, *found = NULL;

	*ret_n = 0;
	TAILQ_FOREACH(place, &m->places, entry) {
		++*ret_n;
		if (strcmp(place->name, name) == 0 && !(place->link && place->link->expected))
			found = place;
	}
	return found;
}

static bool same_way(const struct kb_place *place, const Kb__Control__RunRequest *run)
{
	return strcmp(place->transport, run->transport) == 0 &&
	       strlen(place->address) == run->address.len &&
	       memcmp(place->address, run->address.data, run->address.len) == 0;
}

int kb_place_find(struct kb_main *m, const Kb__Control__RunRequest *run, struct kb_place **ret,
	struct kb_err *err)
{
	size_t n;
	struct kb_place *place = by_name(m, run->machine, &n);

	if (place && kb_place_is_local(place)) {
		*ret = place;
		return 0;
	}
	if (!kb_name_valid(run->machine) || !run->transport || run->address.len == 0 ||
		memchr(run->address.data, 0, run->address.len)) {
		kb_err_set(err, KB_ERR_NOTFOUND, "there is no machine named %s", run->machine);
		return kb_err_hint(err, "leave it out, or use --local");
	}
	if (place && !same_way(place, run)) {
		if (place->lives > 0)
			return kb_err_set(err, KB_ERR_EXISTS,
				"another machine of the name %s has sessions", run->machine);
		ask_to_leave(place, "its machine is another one now");
		place = NULL;
	}
	*ret = place;
	if (place)
		return 0;
	if (n > PLACES_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "more than %d machines at once", PLACES_MAX);
	return create(m, run->machine, run->transport, run->address, ret, err);
}

void kb_place_enter(struct kb_place *place)
{
	place->lives++;
	kb_source_disarm(place->idle);
}

void kb_place_leave(struct kb_place *place)
{
	if (--place->lives > 0 || kb_place_is_local(place))
		return;
	(void)kb_source_arm(place->idle, place->link ? LINGER_MS : 0, NULL);
}

/* ---- Links ----------------------------------------------------------------------------------- */

/* A channel of their own: what records say never passes through main. */
static int connect_store(struct kb_place *place, struct kb_err *err)
{
	Kb__Role__AddLink add = KB__ROLE__ADD_LINK__INIT;
	Kb__Role__UseStore use = KB__ROLE__USE_STORE__INIT;
	Kb__Role__ToStore to_store = KB__ROLE__TO_STORE__INIT;
	Kb__Role__ToLink to_link = KB__ROLE__TO_LINK__INIT;
	int pair[2], r = kb_fd_socketpair(false, pair, err);

	if (r < 0)
		return r;
	add.link = place->link->number;
	to_store.body_case = KB__ROLE__TO_STORE__BODY_LINK;
	to_store.link = &add;
	to_link.body_case = KB__ROLE__TO_LINK__BODY_STORE;
	to_link.store = &use;
	r = kb_process_send(place->main->store, &to_store.base, pair[0], err);
	if (r == 0)
		r = kb_process_send(place->link, &to_link.base, pair[1], err);
	kb_close(&pair[0]);
	kb_close(&pair[1]);
	return r;
}

void kb_places_use_store(struct kb_main *m)
{
	struct kb_place *place;
	struct kb_err err;

	TAILQ_FOREACH(place, &m->places, entry)
		if (place->link && connect_store(place, &err) < 0)
			kb_log_error("%s is not connected to the store: %s", place->name, err.msg);
}

int kb_place_ensure(struct kb_place *place, struct kb_err *err)
{
	KB_FREE char *machine = kb_asprintf("--machine=%s", place->name);
	KB_FREE char *transport = kb_asprintf("--transport=%s", place->transport);
	KB_FREE char *address = kb_asprintf("--address=%s", place->address);
	const char *const args[] = {machine, transport, address, NULL};
	int r;

	if (place->link)
		return 0;
	if (!machine || !transport || !address)
		return kb_err_nomem(err);
	r = kb_process_start(place->main, &link_kind, args, &place->link, err);
	if (r < 0)
		return r;
	place->link->place = place;
	return connect_store(place, err);
}

bool kb_place_ready(const struct kb_place *place)
{
	const struct kb_role_process *store = place->main->store;

	return store && store->state == KB_PROCESS_UP && place->link &&
	       place->link->state == KB_PROCESS_UP && !place->link->expected;
}

void kb_places_shut_down(struct kb_main *m)
{
	struct kb_place *place;

	TAILQ_FOREACH(place, &m->places, entry)
		ask_to_leave(place, m->stop_reason);
}

bool kb_places_linked(const struct kb_main *m)
{
	const struct kb_place *place;

	TAILQ_FOREACH(place, &m->places, entry)
		if (place->link)
			return true;
	return false;
}

static void link_up(struct kb_role_process *p)
{
	p->state = KB_PROCESS_UP;
	p->place->failures = 0;
	kb_log_info("link to %s (pid %d) is up after %lld ms", p->place->name, (int)p->pid,
		(long long)(kb_now_mono() - p->started) / 1000000);
	if (kb_place_ready(p->place))
		kb_peers_tell(p->main, p->place, true, KB_EV_READY, NULL);
}

/* ---- What a link says ------------------------------------------------------------------------ */

static char *copy_text(const char *text)
{
	return text ? strdup(text) : NULL;
}

static void keep_facts(struct kb_machine_facts *facts, const Kb__Role__LinkReady *msg)
{
	facts_finish(facts);
	facts->runtime = copy_text(msg->runtime);
	facts->runtime_why = copy_text(msg->runtime_why);
	facts->kernel = copy_text(msg->kernel);
	facts->landlock_abi = msg->landlock_abi;
	facts->arch = msg->arch;
	facts->rootless = msg->rootless;
	facts->guest_pid = (pid_t)msg->guest_pid;
	facts->limits_missing = calloc(msg->n_limits_missing + 1, sizeof(char *));
	for (size_t i = 0; facts->limits_missing && i < msg->n_limits_missing; i++) {
		char *line = strdup(msg->limits_missing[i]);

		if (line)
			facts->limits_missing[facts->n_limits_missing++] = line;
	}
}

static void on_link_ready(struct kb_role_process *p, const Kb__Role__FromLink *msg)
{
	if (msg->ready->error) {
		kb_role_error_read(msg->ready->error, &p->last_words);
		return;
	}
	keep_facts(&p->place->facts, msg->ready);
	link_up(p);
}

static void on_link_lost(struct kb_role_process *p, const Kb__Role__FromLink *msg)
{
	kb_role_error_read(msg->lost->error, &p->last_words);
}

/* The session of a message, if it is this link's. */
static struct kb_live *live_of(struct kb_role_process *p, ProtobufCBinaryData id)
{
	struct kb_live *live = kb_live_by_id(p->main, id);

	return live && live->link == p ? live : NULL;
}

static void on_started(struct kb_role_process *p, const Kb__Role__FromLink *msg)
{
	struct kb_live *live = live_of(p, msg->started->session);

	if (live && msg->started->process_id == 0)
		kb_live_event(live, KB_EV_STARTED, NULL);
}

static void on_failed(struct kb_role_process *p, const Kb__Role__FromLink *msg)
{
	struct kb_live *live = live_of(p, msg->failed->session);
	struct kb_err err = {0};

	kb_role_error_read(msg->failed->error, &err);
	if (live && msg->failed->process_id == 0) {
		live->last_seq = msg->failed->last_seq;
		kb_live_event(live, KB_EV_FAILED, &err);
	} else if (live) {
		kb_live_exec_over(live, msg->failed->process_id, &err);
	}
}

static void on_exited(struct kb_role_process *p, const Kb__Role__FromLink *msg)
{
	struct kb_live *live = live_of(p, msg->exited->session);

	if (live && msg->exited->process_id != 0)
		kb_live_exec_over(live, msg->exited->process_id, NULL);
}

static void on_ended(struct kb_role_process *p, const Kb__Role__FromLink *msg)
{
	struct kb_live *live = live_of(p, msg->ended->session);
	struct kb_err why;

	if (!live)
		return;
	live->exit_code = msg->ended->exit_code;
	live->signal = msg->ended->signal;
	live->last_seq = msg->ended->last_seq;
	if (msg->ended->reason)
		kb_err_set(&why, KB_ERR_FAILED, "%s", msg->ended->reason);
	kb_live_event(live, KB_EV_ENDED, msg->ended->reason ? &why : NULL);
}

static void on_attached(struct kb_role_process *p, const Kb__Role__FromLink *msg)
{
	struct kb_live *live = live_of(p, msg->attached->session);
	struct kb_err why;

	if (!live)
		return;
	live->attached = msg->attached->attached;
	kb_err_set(&why, KB_ERR_CLOSED, "its client went away");
	if (msg->attached->hangup && live->stop_on_hangup)
		kb_live_event(live, KB_EV_STOP, &why);
}

static void on_progress(struct kb_role_process *p, const Kb__Role__FromLink *msg)
{
	struct kb_live *live = live_of(p, msg->progress->session);

	if (!live)
		return;
	live->records = msg->progress->records;
	live->denials = msg->progress->denials;
}

static void on_carried(struct kb_role_process *p, const Kb__Role__FromLink *msg)
{
	p->interrupted = !msg->carried->carried;
	if (p->interrupted)
		kb_log_warn("%s cannot be reached: %s", p->place->name,
			msg->carried->reason ? msg->carried->reason : "");
	else
		kb_log_info("%s is reached", p->place->name);
}

static void on_question(struct kb_role_process *p, const Kb__Role__FromLink *msg)
{
	struct kb_live *live = live_of(p, msg->question->session);

	if (live)
		kb_live_question(live, msg->question);
}

static void on_question_over(struct kb_role_process *p, const Kb__Role__FromLink *msg)
{
	struct kb_live *live = live_of(p, msg->question_over->session);

	if (live)
		kb_live_question_over(live, msg->question_over);
}

static int link_message(
	struct kb_role_process *p, const uint8_t *data, size_t len, struct kb_err *err)
{
	static void (*const handlers[])(struct kb_role_process *, const Kb__Role__FromLink *) = {
		[KB__ROLE__FROM_LINK__BODY_READY] = on_link_ready,
		[KB__ROLE__FROM_LINK__BODY_STARTED] = on_started,
		[KB__ROLE__FROM_LINK__BODY_FAILED] = on_failed,
		[KB__ROLE__FROM_LINK__BODY_EXITED] = on_exited,
		[KB__ROLE__FROM_LINK__BODY_ENDED] = on_ended,
		[KB__ROLE__FROM_LINK__BODY_ATTACHED] = on_attached,
		[KB__ROLE__FROM_LINK__BODY_PROGRESS] = on_progress,
		[KB__ROLE__FROM_LINK__BODY_LOST] = on_link_lost,
		[KB__ROLE__FROM_LINK__BODY_CARRIED] = on_carried,
		[KB__ROLE__FROM_LINK__BODY_QUESTION] = on_question,
		[KB__ROLE__FROM_LINK__BODY_QUESTION_OVER] = on_question_over,
	};
	Kb__Role__FromLink *msg = kb__role__from_link__unpack(NULL, len, data);
	size_t kind = msg ? (size_t)msg->body_case : 0;
	bool known = kind < KB_ARRAY_LEN(handlers) && handlers[kind];

	if (known)
		handlers[kind](p, msg);
	if (msg)
		kb__role__from_link__free_unpacked(msg, NULL);
	return known ? 0 : kb_err_set(err, KB_ERR_INVALID, "a malformed or unknown message");
}

/* Lost before it was up: whoever waits for it hears why. Then it is tried again, not too often;
 * another machine's only when somebody asks. */
static void link_gone(struct kb_role_process *p, const struct kb_err *why)
{
	struct kb_place *place = p->place;
	struct kb_main *m = p->main;
	struct kb_live *live, *next;

	place->link = NULL;
	facts_finish(&place->facts);
	place->lives++; /* it stays until all have heard */
	for (live = TAILQ_FIRST(&m->lives); live; live = next) {
		next = TAILQ_NEXT(live, entry);
		if (live->link == p)
			kb_live_event(live, KB_EV_LINK_LOST, why);
	}
	if (p->state == KB_PROCESS_STARTING && m->stopping == KB_RUNS) {
		place->failures++;
		kb_peers_tell(m, place, true, KB_EV_FAILED, why);
	}
	if (kb_place_is_needed(place))
		kb_peers_respawn(m, place->failures);
	kb_place_leave(place);
}

static const struct kb_process_kind link_kind = {"link", 0, link_message, link_gone};
