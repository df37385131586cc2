/* Role reader: one audit verb, rendered to the fd that came with it. A process of its own, so that
 * no question ever delays the writer, and so that whoever asked may walk away at any time. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "audit/audit.h"
#include "proto/control.pb-c.h"
#include "proto/role_error.h"
#include "role_io.h"
#include "roles.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/util.h"

struct ask {
	const Kb__Control__AskRequest *request;
	struct kb_reader *reader;
	struct kb_view view;
	struct kb_query query;
	int status; /* to exit with */
};

static int ask_sessions(struct ask *a, struct kb_err *err)
{
	return kb_reader_sessions(a->reader, &a->view, err);
}

static int ask_query(struct ask *a, struct kb_err *err)
{
	return kb_reader_query(a->reader, &a->query, &a->view, err);
}

static int ask_tree(struct ask *a, struct kb_err *err)
{
	return kb_reader_tree(a->reader, a->query.sessions, a->request->around_pid, &a->view, err);
}

static int ask_verify(struct ask *a, struct kb_err *err)
{
	enum kb_verify verdict = KB_VERIFY_UNREADABLE;
	const char *anchor = a->query.expr;
	int r = anchor ? kb_reader_set_anchor(a->reader, anchor, strlen(anchor), err) : 0;

	if (r < 0)
		return r;
	r = kb_reader_verify(a->reader, a->query.sessions, &a->view, &verdict, err);

	a->status = (int)verdict;
	return r;
}

static int ask_anchor(struct ask *a, struct kb_err *err)
{
	return kb_reader_export_anchor(a->reader, &a->view, err);
}

static int ask_timeline(struct ask *a, struct kb_err *err)
{
	return kb_reader_timeline(a->reader, a->query.sessions, &a->view, err);
}

static int ask_stats(struct ask *a, struct kb_err *err)
{
	return kb_reader_stats(a->reader, a->query.sessions, &a->view, err);
}

static int ask_report(struct ask *a, struct kb_err *err)
{
	return kb_reader_report(a->reader, a->query.sessions, a->request->format, &a->view, err);
}

static int ask_export(struct ask *a, struct kb_err *err)
{
	return kb_reader_export(a->reader, a->query.sessions, a->request->format, &a->view, err);
}

static int ask_summary(struct ask *a, struct kb_err *err)
{
	struct kb_summary s;
	int r = kb_reader_summary(a->reader, a->query.sessions, &s, err);

	if (r < 0)
		return r;
	fprintf(a->view.out,
		"{\"records\":%llu,\"denials\":%llu,\"lost\":%llu,\"commands\":%llu,"
		"\"changed\":%llu,\"deleted\":%llu,\"hosts\":%llu}\n",
		(unsigned long long)s.records, (unsigned long long)s.denials,
		(unsigned long long)s.lost, (unsigned long long)s.commands,
		(unsigned long long)s.changed, (unsigned long long)s.deleted,
		(unsigned long long)s.hosts);
	return 0;
}

static const struct {
	const char *name;
	int (*run)(struct ask *a, struct kb_err *err);
} verbs[] = {
	{"sessions", ask_sessions},
	{"query", ask_query},
	{"tree", ask_tree},
	{"verify", ask_verify}, /* expr: an anchor, or nothing */
	{"anchor", ask_anchor},
	{"timeline", ask_timeline},
	{"stats", ask_stats},
	{"summary", ask_summary},
	{"report", ask_report},
	{"export", ask_export},
};

static int run_verb(struct ask *a, struct kb_err *err)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(verbs); i++)
		if (strcmp(verbs[i].name, a->request->verb) == 0)
			return verbs[i].run(a, err);
	return kb_err_set(
		err, KB_ERR_USAGE, "the store cannot be asked for '%s'", a->request->verb);
}

static void fill_ask(struct ask *a, const Kb__Control__AskRequest *r, FILE *out, const char *home)
{
	a->request = r;
	a->view = (struct kb_view){.out = out,
		.json = r->json,
		.tty = r->tty,
		.utc = r->utc,
		.columns = r->columns,
		.home = home};
	a->query = (struct kb_query){.sessions = r->sessions,
		.expr = r->expr,
		.since = r->since,
		.until = r->until,
		.limit = r->limit,
		.follow = r->follow,
		.after_seq = r->after_seq};
}

static int answer(const char *dir, const Kb__Control__AskRequest *request, int fd, int *ret_status,
	struct kb_err *err)
{
	KB_FREE char *home = request->home.len
				     ? strndup((char *)request->home.data, request->home.len)
				     : strdup("");
	FILE *out = fdopen(fd, "w");
	struct ask a = {0};
	int r;

	if (!home || !out) {
		if (out)
			fclose(out);
		else
			close(fd);
		return kb_err_nomem(err);
	}
	fill_ask(&a, request, out, home);
	r = kb_reader_open(dir, &a.reader, err);
	if (r == 0)
		r = run_verb(&a, err);
	kb_reader_close(a.reader);
	*ret_status = a.status;
	/* Whoever reads may have seen enough: that is no failure. */
	errno = 0;
	if (fclose(out) != 0 && r == 0 && errno != EPIPE)
		r = kb_err_sys(err, errno, "the output cannot be written");
	return r;
}

/* Everything at once: the process does nothing else meanwhile. */
static int receive(uint8_t **ret, size_t *ret_len, int *ret_fd, struct kb_err *err)
{
	int r = kb_role_receive(KB_ROLE_FD, ret, ret_len, ret_fd, err);

	if (r == 0 && *ret_fd < 0)
		r = kb_err_set(err, KB_ERR_INVALID, "a question without its fd");
	return r;
}

static int tell(int status, const struct kb_err *why)
{
	Kb__Role__FromReader msg = KB__ROLE__FROM_READER__INIT;
	Kb__Role__RoleError error;

	msg.status = status;
	if (why) {
		kb_role_error_fill(&error, why);
		msg.error = &error;
	}
	return kb_role_send(KB_ROLE_FD, &msg.base, NULL);
}

int kb_reader_role(const char *dir)
{
	Kb__Role__ToReader *msg = NULL;
	Kb__Control__AskRequest *request = NULL;
	struct kb_err err;
	KB_FREE uint8_t *data = NULL;
	size_t len = 0;
	int fd = -1, status = 0, r;

	signal(SIGPIPE, SIG_IGN);
	r = receive(&data, &len, &fd, &err);
	if (r == 0)
		msg = kb__role__to_reader__unpack(NULL, len, data);
	if (msg)
		request =
			kb__control__ask_request__unpack(NULL, msg->request.len, msg->request.data);
	if (r == 0 && !request)
		r = kb_err_set(&err, KB_ERR_INVALID, "the question is malformed");
	else if (r == 0)
		r = answer(dir, request, kb_steal_fd(&fd), &status, &err);
	kb_close(&fd);
	if (tell(status, r < 0 ? &err : NULL) < 0)
		kb_log_debug("main does not listen any more");
	if (request)
		kb__control__ask_request__free_unpacked(request, NULL);
	if (msg)
		kb__role__to_reader__free_unpacked(msg, NULL);
	return 0;
}
