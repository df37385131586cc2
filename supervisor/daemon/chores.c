/* Work on the store that a client asks for and waits for: main only hands it on, and remembers who
 * is to hear how it went. A client that goes away stops nothing that has begun. */
#include <stdlib.h>

#include "main.h"
#include "proto/role_error.h"
#include "supervisor/base/util.h"

struct kb_chore {
	TAILQ_ENTRY(kb_chore) entry;
	uint32_t number;
	struct kb_role_process *store; /* the one that does it */
	struct kb_conn *conn;	       /* NULL: gone */
	uint32_t request;
};

static void chore_over(struct kb_main *m, struct kb_chore *chore, const struct kb_err *why)
{
	if (chore->conn && why)
		kb_conn_error(chore->conn, chore->request, why);
	if (chore->conn)
		chore->conn->watches--;
	TAILQ_REMOVE(&m->chores, chore, entry);
	free(chore);
}

static int chore_create(
	struct kb_conn *conn, uint32_t request, struct kb_chore **ret, struct kb_err *err)
{
	struct kb_main *m = conn->main;
	struct kb_chore *chore;
	int r;

	if (conn->watches >= KB_WATCHES_MAX)
		return kb_err_set(
			err, KB_ERR_LIMIT, "more than %d requests are waiting", KB_WATCHES_MAX);
	r = kb_peers_ensure_store(m, err);
	if (r < 0)
		return r;
	chore = calloc(1, sizeof(*chore));
	if (!chore)
		return kb_err_nomem(err);
	*chore = (struct kb_chore){
		.number = ++m->last_number, .store = m->store, .conn = conn, .request = request};
	conn->watches++;
	TAILQ_INSERT_TAIL(&m->chores, chore, entry);
	*ret = chore;
	return 0;
}

/* Without an answer: the caller has one. */
static void chore_drop(struct kb_main *m, struct kb_chore *chore)
{
	chore_over(m, chore, NULL);
}

/* ---- Pruning --------------------------------------------------------------------------------- */

int kb_chore_prune(struct kb_conn *conn, uint32_t request, const Kb__Control__PruneRequest *what,
	struct kb_err *err)
{
	Kb__Role__PruneStore prune = KB__ROLE__PRUNE_STORE__INIT;
	Kb__Role__ToStore msg = KB__ROLE__TO_STORE__INIT;
	struct kb_chore *chore;
	int r = chore_create(conn, request, &chore, err);

	if (r < 0)
		return r;
	prune.number = chore->number;
	prune.keep_ns = what->keep_ns;
	prune.max_bytes = what->max_bytes;
	msg.body_case = KB__ROLE__TO_STORE__BODY_PRUNE;
	msg.prune = &prune;
	r = kb_process_send(chore->store, &msg.base, -1, err);
	if (r < 0)
		chore_drop(conn->main, chore);
	return r;
}

static void answer_pruned(const struct kb_chore *chore, const Kb__Role__StorePruned *msg)
{
	Kb__Control__Pruned pruned = KB__CONTROL__PRUNED__INIT;
	Kb__Control__Reply reply = KB__CONTROL__REPLY__INIT;

	pruned.sessions = msg->sessions;
	pruned.records = msg->records;
	pruned.bytes = msg->bytes;
	pruned.left_bytes = msg->left_bytes;
	reply.body_case = KB__CONTROL__REPLY__BODY_PRUNED;
	reply.pruned = &pruned;
	kb_conn_reply(chore->conn, chore->request, &reply);
}

void kb_chore_pruned(struct kb_role_process *store, const Kb__Role__StorePruned *msg)
{
	struct kb_main *m = store->main;
	struct kb_chore *chore;
	struct kb_err why = {0};

	TAILQ_FOREACH(chore, &m->chores, entry)
		if (chore->store == store && chore->number == msg->number)
			break;
	if (!chore)
		return;
	if (msg->error)
		kb_role_error_read(msg->error, &why);
	else if (chore->conn)
		answer_pruned(chore, msg);
	chore_over(m, chore, msg->error ? &why : NULL);
}

/* ---- Losses ---------------------------------------------------------------------------------- */

void kb_chores_store_gone(struct kb_role_process *store, const struct kb_err *why)
{
	struct kb_chore *chore, *next;

	for (chore = TAILQ_FIRST(&store->main->chores); chore; chore = next) {
		next = TAILQ_NEXT(chore, entry);
		if (chore->store == store)
			chore_over(store->main, chore, why);
	}
}

void kb_chores_forget_conn(struct kb_main *m, const struct kb_conn *conn)
{
	struct kb_chore *chore;

	TAILQ_FOREACH(chore, &m->chores, entry)
		if (chore->conn == conn)
			chore->conn = NULL;
}
