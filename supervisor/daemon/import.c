/* Imports as main knows them: an importer reads the log and delivers to the store as a link does;
 * main begins the session when the importer has seen the first record, and finishes it when it has
 * seen the last, or is gone. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "main.h"
#include "policy/policy.h"
#include "proto/record.pb-c.h"
#include "proto/role_error.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/spawn.h"
#include "supervisor/base/util.h"

#define IMPORT_AGENT   "strace"
#define IMPORT_MACHINE "import"

struct kb_import {
	struct kb_main *main;
	TAILQ_ENTRY(kb_import) entry;
	struct kb_conn *conn; /* NULL: gone */
	uint32_t request;
	struct kb_role_process *store, *importer; /* importer NULL: gone */
	uint32_t link;				  /* its number for the store */
	uint8_t id[KB_ULID_SIZE];
	char id_text[KB_ULID_TEXT];
	char name[KB_NAME_MAX];
	char *user;
	bool begun, finishing;
	struct kb_err why; /* why it is not whole; code 0: it is */
	uint64_t lines, foreign, cut;
};

static const struct kb_process_kind importer_kind;

static void import_over(struct kb_import *im, const struct kb_err *why)
{
	if (im->conn && why)
		kb_conn_error(im->conn, im->request, why);
	if (im->conn)
		im->conn->watches--;
	if (im->importer) {
		im->importer->conn = NULL;
		im->importer->expected = true;
		kb_process_kill(im->importer, SIGKILL);
	}
	TAILQ_REMOVE(&im->main->imports, im, entry);
	free(im->user);
	free(im);
}

static ProtobufCBinaryData id_of(struct kb_import *im)
{
	return (ProtobufCBinaryData){.data = im->id, .len = sizeof(im->id)};
}

/* ---- To the store ---------------------------------------------------------------------------- */

static int send_begin(
	struct kb_import *im, const Kb__Role__ImportBegins *begins, struct kb_err *err)
{
	Kb__Role__BeginSession begin = KB__ROLE__BEGIN_SESSION__INIT;
	Kb__Role__ToStore msg = KB__ROLE__TO_STORE__INIT;
	Kb__SessionMeta meta = KB__SESSION_META__INIT;
	KB_FREE uint8_t *packed = NULL;

	meta.id = id_of(im);
	meta.name = im->name;
	meta.agent = (char *)IMPORT_AGENT;
	meta.machine = (char *)IMPORT_MACHINE;
	meta.started = begins->started;
	meta.user = im->user;
	meta.argv = begins->argv;
	meta.n_argv = begins->n_argv;
	meta.has_arch = 1;
	meta.arch = kb_arch_native();
	begin.meta.len = kb__session_meta__get_packed_size(&meta);
	begin.meta.data = packed = malloc(begin.meta.len + 1);
	if (!packed)
		return kb_err_nomem(err);
	kb__session_meta__pack(&meta, packed);
	begin.session = id_of(im);
	begin.link = im->link;
	msg.body_case = KB__ROLE__TO_STORE__BODY_BEGIN;
	msg.begin = &begin;
	return kb_process_send(im->store, &msg.base, -1, err);
}

/* done NULL: the importer was lost, with what it still had. */
static void send_finish(struct kb_import *im, const Kb__Role__ImportDone *done)
{
	Kb__Role__FinishSession finish = KB__ROLE__FINISH_SESSION__INIT;
	Kb__Role__ToStore msg = KB__ROLE__TO_STORE__INIT;
	struct kb_err err;

	im->finishing = true;
	finish.session = id_of(im);
	finish.exit_code = done ? done->exit_code : 255;
	finish.has_signal = done && done->has_signal;
	finish.signal = done ? done->signal : 0;
	finish.ended = done ? done->ended : (uint64_t)kb_now_real();
	finish.last_seq = done ? done->last_seq : UINT64_MAX;
	finish.complete = im->why.code == 0;
	finish.reason = im->why.code ? im->why.msg : NULL;
	msg.body_case = KB__ROLE__TO_STORE__BODY_FINISH;
	msg.finish = &finish;
	if (kb_process_send(im->store, &msg.base, -1, &err) < 0)
		import_over(im, &err);
}

/* ---- From the importer ----------------------------------------------------------------------- */

static struct kb_import *of_importer(const struct kb_role_process *p)
{
	struct kb_import *im;

	TAILQ_FOREACH(im, &p->main->imports, entry)
		if (im->importer == p)
			break;
	return im;
}

static void on_done(struct kb_import *im, const Kb__Role__ImportDone *done)
{
	struct kb_err why;

	im->importer->expected = true;
	im->lines = done->lines;
	im->foreign = done->foreign;
	im->cut = done->cut;
	if (done->error && im->why.code == 0)
		kb_role_error_read(done->error, &im->why);
	if (im->begun) {
		send_finish(im, done);
	} else {
		why = im->why;
		import_over(im, &why);
	}
}

static int importer_message(
	struct kb_role_process *p, const uint8_t *data, size_t len, struct kb_err *err)
{
	Kb__Role__FromImporter *msg = kb__role__from_importer__unpack(NULL, len, data);
	struct kb_import *im = of_importer(p);
	int r = 0;

	if (!msg)
		return kb_err_set(err, KB_ERR_INVALID, "a malformed message");
	if (!im || im->finishing) {
		/* given up already */
	} else if (msg->body_case == KB__ROLE__FROM_IMPORTER__BODY_BEGINS && !im->begun) {
		im->begun = true;
		r = send_begin(im, msg->begins, err);
	} else if (msg->body_case == KB__ROLE__FROM_IMPORTER__BODY_DONE) {
		on_done(im, msg->done);
	} else {
		r = kb_err_set(err, KB_ERR_INVALID, "an unknown message");
	}
	kb__role__from_importer__free_unpacked(msg, NULL);
	return r;
}

static void importer_gone(struct kb_role_process *p, const struct kb_err *why)
{
	struct kb_import *im = of_importer(p);

	if (!im)
		return;
	im->importer = NULL;
	if (im->why.code == 0 && !im->finishing)
		im->why = *why;
	if (!im->begun)
		import_over(im, why);
	else if (!im->finishing)
		send_finish(im, NULL);
}

static const struct kb_process_kind importer_kind = {
	"importer", KB_SPAWN_PDEATHSIG, importer_message, importer_gone};

/* ---- From the store -------------------------------------------------------------------------- */

static struct kb_import *of_session(const struct kb_role_process *store, ProtobufCBinaryData id)
{
	struct kb_import *im;

	TAILQ_FOREACH(im, &store->main->imports, entry)
		if (im->store == store && id.len == sizeof(im->id) &&
			memcmp(id.data, im->id, sizeof(im->id)) == 0)
			break;
	return im;
}

static void answer(struct kb_import *im, uint64_t records)
{
	Kb__Control__Imported imported = KB__CONTROL__IMPORTED__INIT;
	Kb__Control__Reply reply = KB__CONTROL__REPLY__INIT;

	imported.id = im->id_text;
	imported.name = im->name;
	imported.records = records;
	imported.lines = im->lines;
	imported.foreign = im->foreign;
	imported.cut = im->cut;
	reply.body_case = KB__CONTROL__REPLY__BODY_IMPORTED;
	reply.imported = &imported;
	kb_conn_reply(im->conn, im->request, &reply);
}

void kb_import_finished(struct kb_role_process *store, const Kb__Role__SessionFinished *msg)
{
	struct kb_import *im = of_session(store, msg->session);
	struct kb_err why;

	if (!im)
		return;
	why = im->why;
	if (why.code == 0 && msg->error)
		kb_role_error_read(msg->error, &why);
	else if (why.code == 0 && im->conn)
		answer(im, msg->records);
	else if (why.code != 0)
		kb_err_prefix(&why, "session %s is not whole", im->name);
	import_over(im, why.code ? &why : NULL);
}

void kb_import_unstorable(
	struct kb_role_process *store, ProtobufCBinaryData id, const struct kb_err *why)
{
	struct kb_import *im = of_session(store, id);

	if (!im || im->finishing)
		return;
	im->why = *why;
	if (im->importer)
		kb_process_kill(im->importer, SIGKILL);
}

void kb_imports_store_gone(struct kb_role_process *store, const struct kb_err *why)
{
	struct kb_import *im, *next;

	for (im = TAILQ_FIRST(&store->main->imports); im; im = next) {
		next = TAILQ_NEXT(im, entry);
		if (im->store == store)
			import_over(im, why);
	}
}

/* ---- From clients ---------------------------------------------------------------------------- */

/* The importer of a client that goes is killed with it (conn.c). */
void kb_imports_forget_conn(struct kb_main *m, const struct kb_conn *conn)
{
	struct kb_import *im;

	TAILQ_FOREACH(im, &m->imports, entry)
		if (im->conn == conn)
			im->conn = NULL;
}

void kb_imports_stop(struct kb_main *m)
{
	struct kb_import *im;

	TAILQ_FOREACH(im, &m->imports, entry)
		if (im->importer)
			kb_process_kill(im->importer, SIGKILL);
}

static int choose_name(struct kb_import *im, const char *wanted, struct kb_err *err)
{
	if (!wanted)
		return kb_name_new(im->name, err);
	if (!kb_name_valid(wanted))
		return kb_err_set(err, KB_ERR_USAGE, "'%s' cannot be a session's name", wanted);
	snprintf(im->name, sizeof(im->name), "%s", wanted);
	return 0;
}

/* A channel of their own, as between a link and the store. */
static int connect_store(struct kb_import *im, struct kb_err *err)
{
	Kb__Role__AddLink add = KB__ROLE__ADD_LINK__INIT;
	Kb__Role__ImportInto into = KB__ROLE__IMPORT_INTO__INIT;
	Kb__Role__ToStore to_store = KB__ROLE__TO_STORE__INIT;
	Kb__Role__ToImporter to_importer = KB__ROLE__TO_IMPORTER__INIT;
	int pair[2], r = kb_fd_socketpair(false, pair, err);

	if (r < 0)
		return r;
	add.link = im->link;
	to_store.body_case = KB__ROLE__TO_STORE__BODY_LINK;
	to_store.link = &add;
	to_importer.body_case = KB__ROLE__TO_IMPORTER__BODY_INTO;
	to_importer.into = &into;
	r = kb_process_send(im->store, &to_store.base, pair[0], err);
	if (r == 0)
		r = kb_process_send(im->importer, &to_importer.base, pair[1], err);
	kb_close(&pair[0]);
	kb_close(&pair[1]);
	return r;
}

static int start(
	struct kb_import *im, const Kb__Control__ImportRequest *what, int fd, struct kb_err *err)
{
	Kb__Role__ImportLog log = KB__ROLE__IMPORT_LOG__INIT;
	Kb__Role__ToImporter msg = KB__ROLE__TO_IMPORTER__INIT;
	int r = kb_ulid_new(im->id, err);

	if (r == 0)
		r = choose_name(im, what->name, err);
	im->user = strdup(what->user);
	if (r == 0 && !im->user)
		r = kb_err_nomem(err);
	if (r == 0)
		r = kb_process_start(im->main, &importer_kind, NULL, &im->importer, err);
	if (r < 0)
		return r;
	kb_ulid_format(im->id, im->id_text);
	im->link = im->importer->number;
	im->importer->state = KB_PROCESS_UP;
	im->importer->conn = im->conn;
	log.session = id_of(im);
	log.start = what->start;
	msg.body_case = KB__ROLE__TO_IMPORTER__BODY_LOG;
	msg.log = &log;
	r = kb_process_send(im->importer, &msg.base, fd, err);
	return r < 0 ? r : connect_store(im, err);
}

int kb_import_start(struct kb_conn *conn, uint32_t request, const Kb__Control__ImportRequest *what,
	int fd, struct kb_err *err)
{
	struct kb_main *m = conn->main;
	struct kb_import *im;
	int r;

	if (conn->watches >= KB_WATCHES_MAX)
		return kb_err_set(
			err, KB_ERR_LIMIT, "more than %d requests are waiting", KB_WATCHES_MAX);
	r = kb_peers_ensure_store(m, err);
	if (r < 0)
		return r;
	im = calloc(1, sizeof(*im));
	if (!im)
		return kb_err_nomem(err);
	*im = (struct kb_import){.main = m, .store = m->store, .conn = conn, .request = request};
	conn->watches++;
	TAILQ_INSERT_TAIL(&m->imports, im, entry);
	r = start(im, what, fd, err);
	if (r < 0)
		import_over(im, NULL);
	return r;
}
