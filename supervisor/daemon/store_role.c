/* Role store: theory of operation.
 *
 * main says which sessions there are and over which link their blocks come (BeginSession), and how
 * they ended (FinishSession). Links bring blocks. The two arrive over different channels, so a
 * block may be here before its session: its link then waits, unread, until main's message is in.
 *
 * Everything goes into one transaction, which is committed when a turn of the loop brought nothing
 * new, at the latest after COMMIT_MS or COMMIT_BLOCKS. Only then is it acknowledged, and a finished
 * session reported. A commit that fails takes back what was not acknowledged; the sessions
 * concerned cannot be recorded any more, main hears of it and ends them. What was acknowledged
 * stays.
 *
 * When the database gives a transaction up before its commit, the commit that tells so is made
 * before anything else is put (settle()): nobody else's records shall be in that one.
 *
 * A session is finished when its last block is in, or its link has closed. When main is lost, links
 * go on delivering what their machines still have (they end by themselves); then, or after a
 * bounded wait, what is still open is finished as incomplete, and the role ends.
 *
 * Pruning goes on between all this, a bounded step in each turn of the loop.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "audit/audit.h"
#include "proto/role_error.h"
#include "roles.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/frame.h"
#include "supervisor/base/log.h"
#include "supervisor/base/util.h"

#define COMMIT_MS     20
#define COMMIT_BLOCKS 256
#define OPEN_RETRY_MS 50
#define OPEN_WAIT_MS  10000 /* for the store of a supervisor that died to finish */
#define PARKED_MS     5000  /* a block may be so much earlier than its session */
#define ORPHAN_MS     8000  /* links may deliver for so long after main is gone */

struct stored {
	TAILQ_ENTRY(stored) entry;
	uint8_t id[KB_ULID_SIZE];
	uint32_t link;
	uint64_t appended; /* last seq in the store or the transaction */
	bool dirty;	   /* the transaction holds something of it */
	bool failed;	   /* cannot be recorded any more */
	bool finish_asked; /* main said how it ended */
	bool finish_put;   /* and the transaction holds that */
	uint64_t last_seq;
	struct kb_session_end end;
	char *reason;
};

/* One at a time; the others wait. */
struct prune {
	TAILQ_ENTRY(prune) entry;
	uint32_t number; /* main's, for the answer */
	struct kb_prune what;
	struct kb_pruned sum;
};

struct store_link {
	struct store *store;
	TAILQ_ENTRY(store_link) entry;
	uint32_t number;
	struct kb_channel *ch; /* NULL: closed */
	Kb__Role__LinkToStore *parked;
	struct kb_source *timer; /* bounds the parking */
};

struct store {
	struct kb_loop *loop;
	struct kb_store *db;
	struct kb_channel *main; /* NULL: lost */
	struct kb_source *turn, *orphan, *prune;
	TAILQ_HEAD(, stored) sessions;
	TAILQ_HEAD(, store_link) links;
	TAILQ_HEAD(, prune) prunes;
	bool unsettled;	  /* an append or begin failed: commit before anything else */
	bool dirty, grew; /* since the commit; since the last turn */
	unsigned blocks;
	int64_t dirty_since;
};

/* ---- Telling --------------------------------------------------------------------------------- */

static ProtobufCBinaryData id_of(struct stored *s)
{
	return (ProtobufCBinaryData){.data = s->id, .len = sizeof(s->id)};
}

static void tell_main(struct store *st, Kb__Role__FromStore *msg)
{
	struct kb_err err;

	if (st->main && kb_channel_send(st->main, 0, &msg->base, -1, &err) < 0)
		kb_log_error("main was not told: %s", err.msg);
}

static void tell_unstorable(struct store *st, struct stored *s, const struct kb_err *why)
{
	Kb__Role__SessionUnstorable unstorable = KB__ROLE__SESSION_UNSTORABLE__INIT;
	Kb__Role__FromStore msg = KB__ROLE__FROM_STORE__INIT;
	Kb__Role__RoleError error;

	kb_role_error_fill(&error, why);
	unstorable.session = id_of(s);
	unstorable.error = &error;
	msg.body_case = KB__ROLE__FROM_STORE__BODY_UNSTORABLE;
	msg.unstorable = &unstorable;
	tell_main(st, &msg);
}

static void fill_summary(struct store *st, struct stored *s, Kb__Role__SessionFinished *msg)
{
	struct kb_summary sum;

	kb_store_totals(st->db, s->id, &sum);
	msg->records = sum.records;
	msg->denials = sum.denials;
	msg->lost = sum.lost;
	msg->has_commands = 1;
	msg->commands = sum.commands;
}

/* The last that is said of a session. */
static void tell_finished(struct store *st, struct stored *s, const struct kb_err *why)
{
	Kb__Role__SessionFinished finished = KB__ROLE__SESSION_FINISHED__INIT;
	Kb__Role__FromStore msg = KB__ROLE__FROM_STORE__INIT;
	Kb__Role__RoleError error;

	finished.session = id_of(s);
	finished.complete = s->end.complete && !why;
	if (why) {
		kb_role_error_fill(&error, why);
		finished.error = &error;
	}
	fill_summary(st, s, &finished);
	msg.body_case = KB__ROLE__FROM_STORE__BODY_FINISHED;
	msg.finished = &finished;
	tell_main(st, &msg);
	TAILQ_REMOVE(&st->sessions, s, entry);
	free(s->reason);
	free(s);
}

static struct store_link *find_link(struct store *st, uint32_t number)
{
	struct store_link *l;

	TAILQ_FOREACH(l, &st->links, entry)
		if (l->number == number)
			return l;
	return NULL;
}

static void acknowledge(struct store *st, struct stored *s, bool discarded)
{
	struct store_link *l = find_link(st, s->link);
	Kb__Role__AckBlock ack = KB__ROLE__ACK_BLOCK__INIT;
	Kb__Role__StoreToLink msg = KB__ROLE__STORE_TO_LINK__INIT;
	struct kb_err err;

	if (!l || !l->ch || s->appended == 0)
		return;
	ack.session = id_of(s);
	ack.seq = s->appended;
	ack.has_discarded = 1;
	ack.discarded = discarded;
	msg.body_case = KB__ROLE__STORE_TO_LINK__BODY_ACK;
	msg.ack = &ack;
	if (kb_channel_send(l->ch, 0, &msg.base, -1, &err) < 0)
		kb_log_error("a link was not told of a commit: %s", err.msg);
}

/* ---- Committing ------------------------------------------------------------------------------ */

static void mark_dirty(struct store *st)
{
	if (!st->dirty) {
		st->dirty = true;
		st->dirty_since = kb_now_mono();
		(void)kb_source_arm(st->turn, 0, NULL);
	}
	st->grew = true;
}

static void fail_session(struct store *st, struct stored *s, const struct kb_err *why)
{
	if (s->failed)
		return;
	s->failed = true;
	s->end.complete = false;
	kb_log_error("a session cannot be recorded any more: %s", why->msg);
	tell_unstorable(st, s, why);
	acknowledge(st, s, true);
}

static void after_commit(struct store *st, const struct kb_err *why)
{
	struct stored *s, *next;

	for (s = TAILQ_FIRST(&st->sessions); s; s = next) {
		next = TAILQ_NEXT(s, entry);
		if (!s->dirty)
			continue;
		s->dirty = false;
		if (why)
			fail_session(st, s, why);
		else if (!s->failed)
			acknowledge(st, s, false);
		if (s->finish_put)
			tell_finished(st, s, why);
	}
}

static void commit(struct store *st)
{
	struct kb_err err;
	int r = kb_store_commit(st->db, &err);

	st->dirty = st->grew = false;
	st->blocks = 0;
	if (r < 0)
		kb_log_error("a commit failed: %s", err.msg);
	after_commit(st, r < 0 ? &err : NULL);
}

static void finish_all_due(struct store *st);

static void unsettle(struct store *st)
{
	st->unsettled = true;
	(void)kb_source_arm(st->turn, 0, NULL);
}

static void settle(struct store *st)
{
	if (!st->unsettled)
		return;
	st->unsettled = false;
	commit(st);
	finish_all_due(st);
}

static void on_turn(void *arg)
{
	struct store *st = arg;
	bool late = kb_now_mono() - st->dirty_since >= (int64_t)COMMIT_MS * 1000000;

	settle(st);
	if (!st->dirty)
		return;
	if (st->grew && !late && st->blocks < COMMIT_BLOCKS) {
		st->grew = false;
		(void)kb_source_arm(st->turn, 0, NULL);
		return;
	}
	commit(st);
}

/* ---- Finishing ------------------------------------------------------------------------------- */

static void put_finish(struct store *st, struct stored *s)
{
	struct kb_err err;

	s->end.reason = s->reason;
	if (kb_store_session_finish(st->db, s->id, &s->end, &err) < 0) {
		kb_log_error("a session's end cannot be written: %s", err.msg);
		tell_finished(st, s, &err);
		return;
	}
	s->finish_put = s->dirty = true;
	mark_dirty(st);
}

static void finish_if_due(struct store *st, struct stored *s)
{
	struct store_link *l = find_link(st, s->link);

	if (!s->finish_asked || s->finish_put || st->unsettled)
		return;
	if (s->appended >= s->last_seq || s->failed || !l || !l->ch) {
		/* What main knows of is missing. */
		if (s->appended < s->last_seq)
			s->end.complete = false;
		put_finish(st, s);
	}
}

static void finish_all_due(struct store *st)
{
	struct stored *s, *next;

	for (s = TAILQ_FIRST(&st->sessions); s; s = next) {
		next = TAILQ_NEXT(s, entry);
		finish_if_due(st, s);
	}
}

/* Nobody is left to say how these ended. */
static void finish_orphans(struct store *st)
{
	struct stored *s, *next;

	settle(st);
	for (s = TAILQ_FIRST(&st->sessions); s; s = next) {
		next = TAILQ_NEXT(s, entry);
		if (!s->finish_asked) {
			s->finish_asked = true;
			s->end = (struct kb_session_end){.exit_code = 128 + SIGKILL,
				.signal = SIGKILL,
				.ended = (uint64_t)kb_now_real()};
			s->reason = strdup("the supervisor's main process was lost");
		}
		s->last_seq = s->appended; /* no more will come */
		finish_if_due(st, s);
	}
	if (st->dirty)
		commit(st);
	kb_loop_stop(st->loop);
}

/* ---- From links ------------------------------------------------------------------------------ */

static struct stored *find_session(struct store *st, ProtobufCBinaryData id)
{
	struct stored *s;

	TAILQ_FOREACH(s, &st->sessions, entry)
		if (id.len == sizeof(s->id) && memcmp(s->id, id.data, id.len) == 0)
			return s;
	return NULL;
}

static void append(struct store *st, struct stored *s, const Kb__Role__AppendBlock *a)
{
	uint64_t last = a->first_seq + a->count - 1;
	struct kb_err err;
	int r;

	if (s->failed) {
		s->appended = KB_MAX(s->appended, last);
		acknowledge(st, s, true);
		return;
	}
	r = kb_store_append(st->db, s->id, a->first_seq, a->block.data, a->block.len, &err);
	s->appended = KB_MAX(s->appended, last);
	if (r < 0) {
		fail_session(st, s, &err);
		unsettle(st);
		return;
	}
	s->dirty = true;
	st->blocks++;
	mark_dirty(st);
}

/* The link's next message has to wait for main's. */
static void park(struct store_link *l, Kb__Role__LinkToStore *msg)
{
	l->parked = msg;
	kb_channel_pause(l->ch, true);
	(void)kb_source_arm(l->timer, PARKED_MS, NULL);
}

static int handle_append(struct store_link *l, const Kb__Role__AppendBlock *a, struct kb_err *err)
{
	struct stored *s = find_session(l->store, a->session);

	if (s->link != l->number)
		return kb_err_set(err, KB_ERR_INVALID, "a block for another link's session");
	if (a->count == 0 || a->first_seq == 0 || a->first_seq > UINT64_MAX - a->count)
		return kb_err_set(err, KB_ERR_INVALID, "a block with impossible numbers");
	append(l->store, s, a);
	finish_if_due(l->store, s);
	return 0;
}

static int on_link_message(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len,
	int fd, void *arg, struct kb_err *err)
{
	struct store_link *l = arg;
	Kb__Role__LinkToStore *msg = kb__role__link_to_store__unpack(NULL, len, data);
	int r;

	kb_close(&fd);
	if (!msg || msg->body_case != KB__ROLE__LINK_TO_STORE__BODY_APPEND) {
		if (msg)
			kb__role__link_to_store__free_unpacked(msg, NULL);
		return kb_err_set(err, KB_ERR_INVALID, "a link's message is malformed");
	}
	settle(l->store);
	if (!find_session(l->store, msg->append->session)) {
		park(l, msg);
		return 0;
	}
	r = handle_append(l, msg->append, err);
	kb__role__link_to_store__free_unpacked(msg, NULL);
	return r;
}

static void unpark(struct store_link *l)
{
	Kb__Role__LinkToStore *msg = l->parked;
	struct kb_err err;

	if (!msg || !l->ch || !find_session(l->store, msg->append->session))
		return;
	l->parked = NULL;
	kb_source_disarm(l->timer);
	if (handle_append(l, msg->append, &err) < 0)
		kb_log_error("a block was refused: %s", err.msg);
	kb__role__link_to_store__free_unpacked(msg, NULL);
	kb_channel_pause(l->ch, false);
}

static void leave_if_done(struct store *st);

static void drop_link(struct store_link *l)
{
	kb_channel_destroy(l->ch);
	l->ch = NULL;
	if (l->parked)
		kb__role__link_to_store__free_unpacked(l->parked, NULL);
	TAILQ_REMOVE(&l->store->links, l, entry);
	kb_source_destroy(l->timer);
	free(l);
}

static void on_link_closed(struct kb_channel *ch, const struct kb_err *why, void *arg)
{
	struct store_link *l = arg;
	struct store *st = l->store;

	if (why)
		kb_log_error("link %u: %s", l->number, why->msg);
	drop_link(l);
	settle(st);
	finish_all_due(st);
	leave_if_done(st);
}

static void on_parked_too_long(void *arg)
{
	struct kb_err err;

	kb_err_set(&err, KB_ERR_INVALID, "a block of a session that does not exist");
	on_link_closed(NULL, &err, arg);
}

static const struct kb_channel_ops link_ops = {on_link_message, on_link_closed};

/* ---- From main ------------------------------------------------------------------------------- */

static int on_add_link(struct store *st, const Kb__Role__AddLink *msg, int fd, struct kb_err *err)
{
	struct store_link *l;
	int r;

	if (fd < 0)
		return kb_err_set(err, KB_ERR_INVALID, "a link without its channel");
	l = calloc(1, sizeof(*l));
	if (!l) {
		close(fd);
		return kb_err_nomem(err);
	}
	l->store = st;
	l->number = msg->link;
	TAILQ_INSERT_TAIL(&st->links, l, entry);
	r = kb_channel_create(st->loop, fd, &link_ops, l, &l->ch, err);
	if (r == 0)
		r = kb_loop_timer(st->loop, on_parked_too_long, l, &l->timer, err);
	if (r < 0)
		drop_link(l);
	return r;
}

static int on_begin(struct store *st, const Kb__Role__BeginSession *msg, struct kb_err *err)
{
	struct store_link *l;
	struct stored *s;
	struct kb_err why;

	if (msg->session.len != KB_ULID_SIZE || find_session(st, msg->session))
		return kb_err_set(err, KB_ERR_INVALID, "a session begins twice");
	s = calloc(1, sizeof(*s));
	if (!s)
		return kb_err_nomem(err);
	memcpy(s->id, msg->session.data, KB_ULID_SIZE);
	s->link = msg->link;
	s->end.complete = true;
	TAILQ_INSERT_TAIL(&st->sessions, s, entry);
	if (kb_store_session_begin(st->db, msg->meta.data, msg->meta.len, &why) < 0) {
		fail_session(st, s, &why);
		unsettle(st);
	} else {
		s->dirty = true;
		mark_dirty(st);
	}
	l = find_link(st, msg->link);
	if (l)
		unpark(l);
	return 0;
}

static int on_finish(struct store *st, const Kb__Role__FinishSession *msg, struct kb_err *err)
{
	struct stored *s = find_session(st, msg->session);

	if (!s || s->finish_asked)
		return kb_err_set(err, KB_ERR_INVALID, "a session ends that is not open");
	s->finish_asked = true;
	s->last_seq = msg->last_seq;
	s->reason = msg->reason ? strdup(msg->reason) : NULL;
	s->end = (struct kb_session_end){.exit_code = msg->exit_code,
		.signal = msg->signal,
		.ended = msg->ended,
		.complete = msg->complete && !s->failed};
	finish_if_due(st, s);
	return 0;
}

static void tell_pruned(struct store *st, const struct prune *p, const struct kb_err *why)
{
	Kb__Role__StorePruned pruned = KB__ROLE__STORE_PRUNED__INIT;
	Kb__Role__FromStore msg = KB__ROLE__FROM_STORE__INIT;
	Kb__Role__RoleError error;

	if (why) {
		kb_role_error_fill(&error, why);
		pruned.error = &error;
	}
	pruned.number = p->number;
	pruned.sessions = p->sum.sessions;
	pruned.records = p->sum.records;
	pruned.bytes = p->sum.bytes;
	pruned.left_bytes = p->sum.left_bytes;
	msg.body_case = KB__ROLE__FROM_STORE__BODY_PRUNED;
	msg.pruned = &pruned;
	tell_main(st, &msg);
}

static void drop_prune(struct store *st, struct prune *p)
{
	TAILQ_REMOVE(&st->prunes, p, entry);
	free(p);
}

static void on_prune_turn(void *arg)
{
	struct store *st = arg;
	struct prune *p = TAILQ_FIRST(&st->prunes);
	struct kb_err err;
	int r;

	if (!p)
		return;
	settle(st);
	if (st->dirty)
		commit(st);
	r = kb_store_prune_step(st->db, &p->what, &p->sum, &err);
	if (r <= 0) {
		tell_pruned(st, p, r < 0 ? &err : NULL);
		drop_prune(st, p);
	}
	if (!TAILQ_EMPTY(&st->prunes))
		(void)kb_source_arm(st->prune, 0, NULL);
}

static int on_prune(struct store *st, const Kb__Role__PruneStore *msg, struct kb_err *err)
{
	struct prune *p = calloc(1, sizeof(*p));

	if (!p)
		return kb_err_nomem(err);
	p->number = msg->number;
	p->what = (struct kb_prune){.keep_ns = msg->keep_ns, .max_bytes = msg->max_bytes};
	TAILQ_INSERT_TAIL(&st->prunes, p, entry);
	return kb_source_arm(st->prune, 0, err);
}

static int on_main_message(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len,
	int fd, void *arg, struct kb_err *err)
{
	struct store *st = arg;
	KB_CLOSE int guard = fd;
	Kb__Role__ToStore *msg = kb__role__to_store__unpack(NULL, len, data);
	int r;

	if (!msg)
		return kb_err_set(err, KB_ERR_INVALID, "main's message is malformed");
	settle(st);
	if (msg->body_case == KB__ROLE__TO_STORE__BODY_LINK)
		r = on_add_link(st, msg->link, kb_steal_fd(&guard), err);
	else if (msg->body_case == KB__ROLE__TO_STORE__BODY_BEGIN)
		r = on_begin(st, msg->begin, err);
	else if (msg->body_case == KB__ROLE__TO_STORE__BODY_FINISH)
		r = on_finish(st, msg->finish, err);
	else if (msg->body_case == KB__ROLE__TO_STORE__BODY_PRUNE)
		r = on_prune(st, msg->prune, err);
	else
		r = kb_err_set(err, KB_ERR_INVALID, "main's message is unknown");
	kb__role__to_store__free_unpacked(msg, NULL);
	return r;
}

static void on_orphan_timer(void *arg)
{
	kb_log_warn("links still deliver: no longer waited for");
	finish_orphans(arg);
}

static void leave_if_done(struct store *st)
{
	if (!st->main && TAILQ_EMPTY(&st->links))
		finish_orphans(st);
}

static void on_main_closed(struct kb_channel *ch, const struct kb_err *why, void *arg)
{
	struct store *st = arg;

	if (why)
		kb_log_error("main's channel: %s", why->msg);
	kb_channel_destroy(st->main);
	st->main = NULL;
	(void)kb_source_arm(st->orphan, ORPHAN_MS, NULL);
	leave_if_done(st);
}

static const struct kb_channel_ops main_ops = {on_main_message, on_main_closed};

/* ---- Life ------------------------------------------------------------------------------------ */

static int open_db(const char *dir, struct kb_store **ret, struct kb_err *err)
{
	int64_t deadline = kb_now_mono() + (int64_t)OPEN_WAIT_MS * 1000000;
	int r;

	/* The store of a supervisor that was killed may still be finishing its sessions. */
	while ((r = kb_store_open(dir, ret, err)) == -KB_ERR_EXISTS && kb_now_mono() < deadline)
		usleep(OPEN_RETRY_MS * 1000);
	return r;
}

static void tell_ready(struct store *st, const struct kb_err *why)
{
	Kb__Role__StoreReady ready = KB__ROLE__STORE_READY__INIT;
	Kb__Role__FromStore msg = KB__ROLE__FROM_STORE__INIT;
	Kb__Role__RoleError error;

	if (why) {
		kb_role_error_fill(&error, why);
		ready.error = &error;
	}
	msg.body_case = KB__ROLE__FROM_STORE__BODY_READY;
	msg.ready = &ready;
	tell_main(st, &msg);
}

static int set_up(struct store *st, struct kb_err *err)
{
	int r = kb_loop_create(&st->loop, err);

	if (r == 0)
		r = kb_loop_timer(st->loop, on_turn, st, &st->turn, err);
	if (r == 0)
		r = kb_loop_timer(st->loop, on_orphan_timer, st, &st->orphan, err);
	if (r == 0)
		r = kb_loop_timer(st->loop, on_prune_turn, st, &st->prune, err);
	if (r == 0)
		r = kb_channel_create(st->loop, KB_ROLE_FD, &main_ops, st, &st->main, err);
	return r;
}

static void tear_down(struct store *st)
{
	while (!TAILQ_EMPTY(&st->links))
		drop_link(TAILQ_FIRST(&st->links));
	kb_source_destroy(st->turn);
	kb_source_destroy(st->orphan);
	kb_source_destroy(st->prune);
	while (!TAILQ_EMPTY(&st->prunes))
		drop_prune(st, TAILQ_FIRST(&st->prunes));
	kb_channel_destroy(st->main);
	kb_store_close(st->db);
	kb_loop_destroy(st->loop);
}

int kb_store_role(const char *dir)
{
	struct store st = {0};
	struct kb_err err;
	int r;

	signal(SIGPIPE, SIG_IGN);
	TAILQ_INIT(&st.sessions);
	TAILQ_INIT(&st.links);
	TAILQ_INIT(&st.prunes);
	r = set_up(&st, &err);
	if (r < 0) {
		kb_log_error("%s", err.msg);
		return 1;
	}
	r = open_db(dir, &st.db, &err);
	tell_ready(&st, r < 0 ? &err : NULL);
	if (r < 0)
		kb_channel_finish(st.main); /* the message first; then on_main_closed */
	r = kb_loop_run(st.loop, &err) < 0 || r < 0;
	tear_down(&st);
	return r;
}
