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

#define INPUT_MAX   (256u << 20) /* some thousand compiled policies */
#define BUNDLES_MAX 8192

struct ask {
	const Kb__Control__AskRequest *request;
	Kb__Control__AskInput *input; /* NULL: none came along */
	struct kb_bundle **bundles;   /* of the input */
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
		"\"changed\":%llu,\"deleted\":%llu,\"hosts\":%llu,\"secrets\":%llu}\n",
		(unsigned long long)s.records, (unsigned long long)s.denials,
		(unsigned long long)s.lost, (unsigned long long)s.commands,
		(unsigned long long)s.changed, (unsigned long long)s.deleted,
		(unsigned long long)s.hosts, (unsigned long long)s.secrets);
	return 0;
}

/* ---- Sessions against policies --------------------------------------------------------------- */

static int no_input(struct kb_err *err)
{
	return kb_err_set(err, KB_ERR_INVALID, "the question came without its policy");
}

static ProtobufCBinaryData bytes_of(const char *text)
{
	return (ProtobufCBinaryData){text ? strlen(text) : 0, (uint8_t *)text};
}

static int put_subject(const struct kb_subject *subject, FILE *out, struct kb_err *err)
{
	Kb__Control__Subject msg = KB__CONTROL__SUBJECT__INIT;
	KB_FREE ProtobufCBinaryData *programs = NULL;
	KB_FREE uint8_t *data = NULL;
	size_t n = 0, len;

	while (subject->programs && subject->programs[n])
		n++;
	programs = calloc(n + 1, sizeof(*programs));
	for (size_t i = 0; programs && i < n; i++)
		programs[i] = bytes_of(subject->programs[i]);
	msg.id = (char *)subject->id;
	msg.name = subject->name;
	msg.workspace = bytes_of(subject->workspace);
	msg.has_home = subject->home != NULL;
	msg.home = bytes_of(subject->home);
	msg.programs = programs;
	msg.n_programs = programs ? n : 0;
	len = kb__control__subject__get_packed_size(&msg);
	data = malloc(sizeof(uint32_t) + len);
	if (!programs || !data)
		return kb_err_nomem(err);
	for (size_t i = 0; i < sizeof(uint32_t); i++)
		data[i] = (uint8_t)(len >> (8 * i));
	kb__control__subject__pack(&msg, data + sizeof(uint32_t));
	if (fwrite(data, 1, sizeof(uint32_t) + len, out) != sizeof(uint32_t) + len)
		return kb_err_set(err, KB_ERR_CLOSED, "the output is closed");
	return 0;
}

static int ask_subjects(struct ask *a, struct kb_err *err)
{
	struct kb_subjects subjects;
	int r = kb_reader_subjects(a->reader, &a->query, a->view.utc, &subjects, err);

	for (size_t i = 0; r == 0 && i < subjects.n; i++)
		r = put_subject(&subjects.items[i], a->view.out, err);
	kb_subjects_finish(&subjects);
	return r;
}

static int ask_replay(struct ask *a, struct kb_err *err)
{
	KB_FREE struct kb_trial *trials = NULL;
	bool denied = false;
	int r;

	if (!a->input)
		return no_input(err);
	trials = calloc(a->input->n_trials + 1, sizeof(*trials));
	if (!trials)
		return kb_err_nomem(err);
	for (size_t i = 0; i < a->input->n_trials; i++) {
		const Kb__Control__AskTrial *trial = a->input->trials[i];

		if (trial->bundle >= a->input->n_bundles)
			return no_input(err);
		trials[i] = (struct kb_trial){trial->session, a->bundles[trial->bundle]};
	}
	r = kb_reader_replay(a->reader, trials, a->input->n_trials, &a->view, &denied, err);
	a->status = denied;
	return r;
}

static int ask_learn(struct ask *a, struct kb_err *err)
{
	const Kb__Control__AskInput *in = a->input;
	struct kb_learn_options options = {0};
	KB_FREE char *home = NULL, *workspace = NULL;

	if (!in || in->n_bundles != 1 || !in->name || !in->parent || !in->has_home ||
		!in->has_workspace)
		return no_input(err);
	home = strndup((char *)in->home.data, in->home.len);
	workspace = strndup((char *)in->workspace.data, in->workspace.len);
	if (!home || !workspace)
		return kb_err_nomem(err);
	options = (struct kb_learn_options){.name = in->name,
		.base = in->parent,
		.bundle = a->bundles[0],
		.home = home,
		.workspace = workspace};
	return kb_reader_learn(a->reader, a->query.sessions, &options, &a->view, err);
}

static int ask_explain(struct ask *a, struct kb_err *err)
{
	if (!a->input)
		return no_input(err);
	return kb_reader_explain(a->reader, a->query.sessions, a->input->seq,
		a->input->n_bundles ? a->bundles[0] : NULL, &a->view, err);
}

static int parse_bundles(struct ask *a, struct kb_err *err)
{
	int r = 0;

	if (a->input->n_bundles > BUNDLES_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "more than %d policies at once", BUNDLES_MAX);
	a->bundles = calloc(a->input->n_bundles + 1, sizeof(struct kb_bundle *));
	if (!a->bundles)
		return kb_err_nomem(err);
	for (size_t i = 0; r == 0 && i < a->input->n_bundles; i++)
		r = kb_bundle_parse(
			a->input->bundles[i].data, a->input->bundles[i].len, &a->bundles[i], err);
	return r;
}

/* Leaves the file empty, for the answer. */
static int read_input(struct ask *a, int fd, struct kb_err *err)
{
	uint64_t len = a->request->input, have = 0;
	KB_FREE uint8_t *data = len && len <= INPUT_MAX ? malloc(len) : NULL;
	ssize_t n = 1;

	if (!len)
		return 0;
	if (!data)
		return kb_err_set(err, KB_ERR_LIMIT, "the question is too large");
	while (have < len && (n = pread(fd, data + have, len - have, (off_t)have)) > 0)
		have += (uint64_t)n;
	if (have < len || ftruncate(fd, 0) < 0 || lseek(fd, 0, SEEK_SET) < 0)
		return kb_err_set(err, KB_ERR_INVALID, "the question cannot be read");
	a->input = kb__control__ask_input__unpack(NULL, len, data);
	if (!a->input)
		return kb_err_set(err, KB_ERR_INVALID, "the question is malformed");
	return parse_bundles(a, err);
}

static void forget_input(struct ask *a)
{
	for (size_t i = 0; a->bundles && i < a->input->n_bundles; i++)
		kb_bundle_destroy(a->bundles[i]);
	free(a->bundles);
	if (a->input)
		kb__control__ask_input__free_unpacked(a->input, NULL);
}

/* ---- The verbs ------------------------------------------------------------------------------- */

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
	{"subjects", ask_subjects}, /* what an input has to be made for */
	{"replay", ask_replay},
	{"learn", ask_learn},
	{"explain", ask_explain},
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
	r = read_input(&a, fd, err);
	if (r == 0)
		r = kb_reader_open(dir, &a.reader, err);
	if (r == 0)
		r = run_verb(&a, err);
	kb_reader_close(a.reader);
	forget_input(&a);
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
