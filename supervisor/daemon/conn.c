/* One client. Its uid is checked before a byte of it is read. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "main.h"
#include "supervisor/base/build.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/util.h"

void kb_conn_reply(struct kb_conn *conn, uint32_t id, Kb__Control__Reply *reply)
{
	struct kb_err err;

	reply->id = id;
	if (kb_channel_send(conn->ch, 0, &reply->base, -1, &err) < 0)
		kb_log_info("a reply to a client was lost: %s", err.msg);
}

void kb_conn_error(struct kb_conn *conn, uint32_t id, const struct kb_err *why)
{
	Kb__Control__Error error = KB__CONTROL__ERROR__INIT;
	Kb__Control__Reply reply = KB__CONTROL__REPLY__INIT;

	error.code = (uint32_t)why->code;
	error.message = (char *)why->msg;
	error.hint = (char *)why->hint;
	error.has_errnum = 1;
	error.errnum = why->errnum;
	reply.body_case = KB__CONTROL__REPLY__BODY_ERROR;
	reply.error = &error;
	kb_conn_reply(conn, id, &reply);
}

static int on_message(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len,
	int fd, void *arg, struct kb_err *err)
{
	struct kb_conn *conn = arg;
	Kb__Control__Request *request = kb__control__request__unpack(NULL, len, data);
	struct kb_err why = {0};
	int r;

	if (!request || stream != 0) {
		kb_close(&fd);
		if (request)
			kb__control__request__free_unpacked(request, NULL);
		return kb_err_set(err, KB_ERR_INVALID, "a client's request is malformed");
	}
	r = kb_request_handle(conn, request, fd, &why);
	if (r < 0)
		kb_conn_error(conn, request->id, &why);
	kb__control__request__free_unpacked(request, NULL);
	kb_close(&fd); /* whoever needed it has a copy */
	return 0;
}

static void on_closed(struct kb_channel *ch, const struct kb_err *why, void *arg)
{
	struct kb_conn *conn = arg;
	struct kb_main *m = conn->main;

	if (why)
		kb_log_info("a client's connection ended: %s", why->msg);
	kb_conn_destroy(conn);
	kb_main_check(m);
}

static const struct kb_channel_ops channel_ops = {on_message, on_closed};

static int check_peer(int fd, struct kb_err *err)
{
	struct kb_peer peer;
	int r = kb_fd_peer(fd, &peer, err);

	if (r < 0 || peer.uid == geteuid())
		return r;
	return kb_err_set(err, KB_ERR_REFUSED, "uid %d is not served by the supervisor of uid %d",
		(int)peer.uid, (int)geteuid());
}

static int admit(struct kb_main *m, int fd, struct kb_err *err)
{
	int r = check_peer(fd, err);

	if (r == 0 && m->stopping != KB_RUNS)
		r = kb_err_set(err, KB_ERR_UNREACHABLE, "the supervisor is leaving");
	if (r == 0 && m->n_conns == KB_CONNS_MAX)
		r = kb_err_set(err, KB_ERR_LIMIT, "more than %d clients at once", KB_CONNS_MAX);
	return r;
}

int kb_conn_accept(struct kb_main *m, int fd, struct kb_err *err)
{
	struct kb_conn *conn;
	struct kb_err why;
	int refused = admit(m, fd, &why), r;

	conn = calloc(1, sizeof(*conn));
	if (!conn) {
		close(fd);
		return kb_err_nomem(err);
	}
	conn->main = m;
	conn->secrets = -1;
	r = kb_channel_create(m->loop, fd, &channel_ops, conn, &conn->ch, err);
	if (r < 0) {
		free(conn);
		return r;
	}
	TAILQ_INSERT_TAIL(&m->conns, conn, entry);
	m->n_conns++;
	if (refused < 0) {
		kb_log_warn("a client was turned away: %s", why.msg);
		kb_conn_error(conn, 0, &why);
		kb_channel_finish(conn->ch); /* reads nothing any more */
	}
	return 0;
}

void kb_conn_destroy(struct kb_conn *conn)
{
	struct kb_role_process *p;

	kb_live_forget_conn(conn->main, conn);
	kb_chores_forget_conn(conn->main, conn);
	kb_imports_forget_conn(conn->main, conn);
	kb_ports_forget(&conn->ports);
	TAILQ_FOREACH(p, &conn->main->processes, entry)
		if (p->conn == conn) {
			p->conn = NULL;
			p->expected = true;
			kb_process_kill(p, SIGKILL);
		}
	kb_close(&conn->secrets);
	TAILQ_REMOVE(&conn->main->conns, conn, entry);
	conn->main->n_conns--;
	kb_channel_destroy(conn->ch);
	free(conn);
}
