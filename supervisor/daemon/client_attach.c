/* run, attach and exec. Two connections tell of a process: the control socket (accepted, ended,
 * errors) and the attachment to its link (output, started, exited, detached). Their messages may
 * cross; the order the ops promise is made here: output, exited, ended. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client_private.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"

#define EXEC_REASON_MS 3000 /* after an exec's attachment closed, for main to say why */

/* ---- Last words ------------------------------------------------------------------------------ */

static void drop_channel(struct kb_attach *at)
{
	kb_channel_destroy(at->ch);
	at->ch = NULL;
	memset(at->streams, 0, sizeof(at->streams));
}

static void fail_with(struct kb_attach *at, const struct kb_err *why)
{
	if (at->over)
		return;
	at->over = true;
	drop_channel(at);
	at->ops->failed(at, why, at->arg);
}

/* `ended` is due once it came and the attachment has nothing more to say. */
static void end_if_due(struct kb_attach *at)
{
	struct kb_session session;
	struct kb_err err;

	if (at->over || !at->ended || (at->ch && !at->exited))
		return;
	if (kb_session_from_proto(at->ended, &session, &err) < 0) {
		fail_with(at, &err);
		return;
	}
	at->over = true;
	drop_channel(at);
	at->ops->ended(at, &session, at->arg);
	kb_session_finish(&session);
}

void kb_attach_lost(struct kb_attach *at, const struct kb_err *why)
{
	fail_with(at, why);
}

/* exec: main had its time to say why the attachment closed. Else: `ended` waited for `exited`. */
static void on_timer(void *arg)
{
	struct kb_attach *at = arg;
	struct kb_err err;

	if (!at->is_exec) {
		end_if_due(at);
		return;
	}
	kb_err_set(&err, KB_ERR_CLOSED, "the process was lost together with its session");
	fail_with(at, &err);
}

/* ---- Replies on the control socket ----------------------------------------------------------- */

static void on_error_reply(struct kb_attach *at, const Kb__Control__Error *error)
{
	struct kb_err err = {0};

	kb_client_error(error, &err);
	fail_with(at, &err);
}

static void on_accepted_reply(struct kb_attach *at, const Kb__Control__Accepted *accepted)
{
	if (at->detached_start)
		at->over = true;
	snprintf(at->session, sizeof(at->session), "%s", accepted->id);
	at->ops->accepted(at, accepted->id, accepted->name, at->arg);
}

static void on_question_reply(struct kb_attach *at, const Kb__Control__Question *p)
{
	struct kb_question question;
	struct kb_err err;

	if (!at->ops->question)
		return;
	if (kb_question_from_proto(p, &question, &err) < 0) {
		kb_log_error("a question is lost: %s", err.msg); /* it will time out */
		return;
	}
	at->ops->question(at, &question, at->arg);
	kb_question_finish(&question);
}

void kb_attach_reply(struct kb_attach *at, Kb__Control__Reply *reply)
{
	if (!at->over && reply->body_case == KB__CONTROL__REPLY__BODY_ERROR) {
		on_error_reply(at, reply->error);
	} else if (!at->over && reply->body_case == KB__CONTROL__REPLY__BODY_ACCEPTED) {
		on_accepted_reply(at, reply->accepted);
	} else if (!at->over && reply->body_case == KB__CONTROL__REPLY__BODY_QUESTION) {
		on_question_reply(at, reply->question);
	} else if (!at->over && reply->body_case == KB__CONTROL__REPLY__BODY_QUESTION_OVER) {
		if (at->ops->question_over)
			at->ops->question_over(at, reply->question_over->number,
				reply->question_over->how, at->arg);
	} else if (!at->over && !at->ended && reply->body_case == KB__CONTROL__REPLY__BODY_ENDED) {
		at->ended = reply->ended;
		reply->ended = NULL; /* taken */
		reply->body_case = KB__CONTROL__REPLY__BODY__NOT_SET;
		kb__control__reply__free_unpacked(reply, NULL);
		end_if_due(at);
		return;
	}
	kb__control__reply__free_unpacked(reply, NULL);
}

/* ---- Messages on the attachment -------------------------------------------------------------- */

static void on_started(struct kb_attach *at, const Kb__Control__Started *p)
{
	struct kb_started started = {.effective = (const char *const *)p->effective,
		.n_effective = p->n_effective,
		.missing = (const char *const *)p->missing,
		.n_missing = p->n_missing,
		.lane = p->lane,
		.tty = p->tty};

	at->tty = p->tty;
	at->ops->started(at, &started, at->arg);
}

static void on_exited(struct kb_attach *at, const Kb__Control__Exited *p)
{
	if (at->exited)
		return;
	at->exited = true;
	at->over = at->is_exec;
	if (at->ended) /* the op may destroy us: the rest happens on the loop */
		(void)kb_source_arm(at->timer, 0, NULL);
	at->ops->exited(at, p->exit_code, p->signal, at->arg);
}

static void on_detached(struct kb_attach *at, const Kb__Control__Detached *p)
{
	at->over = true;
	at->ops->detached(at, p->reason, at->arg);
}

static int on_message(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len,
	int fd, void *arg, struct kb_err *err)
{
	struct kb_attach *at = arg;
	Kb__Control__FromProcess *msg = kb__control__from_process__unpack(NULL, len, data);

	kb_close(&fd);
	if (!msg)
		return kb_err_set(err, KB_ERR_INVALID, "a message of the session is malformed");
	if (at->over)
		;
	else if (msg->body_case == KB__CONTROL__FROM_PROCESS__BODY_STARTED)
		on_started(at, msg->started);
	else if (msg->body_case == KB__CONTROL__FROM_PROCESS__BODY_EXITED)
		on_exited(at, msg->exited);
	else if (msg->body_case == KB__CONTROL__FROM_PROCESS__BODY_DETACHED)
		on_detached(at, msg->detached);
	kb__control__from_process__free_unpacked(msg, NULL);
	return 0;
}

static void on_closed(struct kb_channel *ch, const struct kb_err *why, void *arg)
{
	struct kb_attach *at = arg;

	if (why)
		kb_log_debug("attachment closed: %s", why->msg);
	drop_channel(at);
	if (at->over)
		return;
	if (at->is_exec)
		(void)kb_source_arm(at->timer, EXEC_REASON_MS, NULL);
	else
		end_if_due(at); /* else main will tell how the session ended */
}

static const struct kb_channel_ops channel_ops = {on_message, on_closed};

/* ---- Streams --------------------------------------------------------------------------------- */

static void on_data(struct kb_stream *st, const uint8_t *data, size_t len, void *arg)
{
	struct kb_attach *at = arg;
	uint32_t id = kb_stream_id(st);

	if (id == KB_ATTACH_INPUT)
		at->tty = true;
	if (at->over)
		kb_stream_consumed(st, len);
	else
		at->ops->output(at, id == KB_ATTACH_ERROR ? 2 : 1, data, len, at->arg);
}

static void on_writable(struct kb_stream *st, void *arg)
{
	struct kb_attach *at = arg;

	if (!at->over && kb_stream_id(st) == KB_ATTACH_INPUT)
		at->ops->writable(at, at->arg);
}

static void on_eof(struct kb_stream *st, void *arg)
{
	/* `exited` tells when the output is complete. */
}

static const struct kb_stream_ops stream_ops = {on_data, on_writable, on_eof};

/* ---- Starting -------------------------------------------------------------------------------- */

static int attach_create(struct kb_client *client, const struct kb_attach_ops *ops, void *arg,
	struct kb_attach **ret, struct kb_err *err)
{
	struct kb_attach *at = calloc(1, sizeof(*at));
	int r;

	if (!at)
		return kb_err_nomem(err);
	*at = (struct kb_attach){.client = client, .ops = ops, .arg = arg};
	TAILQ_INSERT_TAIL(&client->attaches, at, entry);
	r = kb_loop_timer(client->loop, on_timer, at, &at->timer, err);
	if (r < 0) {
		kb_attach_destroy(at);
		return r;
	}
	*ret = at;
	return 0;
}

/* Our end becomes the channel; *ret_peer is the end that travels with the request. */
static int open_channel(struct kb_attach *at, int *ret_peer, struct kb_err *err)
{
	KB_CLOSE int peer = -1;
	int pair[2], r = kb_fd_socketpair(false, pair, err);

	if (r < 0)
		return r;
	peer = pair[1];
	r = kb_channel_create(at->client->loop, pair[0], &channel_ops, at, &at->ch, err);
	for (uint32_t id = KB_ATTACH_INPUT; r == 0 && id <= KB_ATTACH_ERROR; id++)
		r = kb_stream_open(at->ch, id, &stream_ops, at, &at->streams[id], err);
	if (r == 0)
		*ret_peer = kb_steal_fd(&peer);
	return r;
}

/* Send the request with the far end of a fresh attachment (unless it is a detached start). */
static int launch(struct kb_attach *at, Kb__Control__Request *request, struct kb_err *err)
{
	KB_CLOSE int peer = -1;
	int r = at->detached_start ? 0 : open_channel(at, &peer, err);

	return r < 0 ? r : kb_client_send(at->client, request, peer, &at->id, err);
}

static int finish_launch(struct kb_attach *at, Kb__Control__Request *request,
	struct kb_attach **ret, struct kb_err *err)
{
	int r = launch(at, request, err);

	if (r < 0)
		kb_attach_destroy(at);
	else
		*ret = at;
	return r;
}

struct process_message {
	Kb__Control__Process proto;
	Kb__Control__Size size;
};

static int fill_process(
	const struct kb_process *process, struct process_message *m, struct kb_err *err)
{
	int r;

	kb__control__process__init(&m->proto);
	kb__control__size__init(&m->size);
	r = kb_bytes_list(process->argv, &m->proto.argv, &m->proto.n_argv, err);
	if (r == 0)
		r = kb_bytes_list(process->env, &m->proto.env, &m->proto.n_env, err);
	m->proto.has_cwd = process->cwd != NULL;
	m->proto.cwd = kb_bytes_of(process->cwd);
	m->proto.has_tty = 1;
	m->proto.tty = process->tty;
	m->size.rows = process->rows;
	m->size.cols = process->cols;
	if (process->tty)
		m->proto.size = &m->size;
	return r;
}

static void free_process(struct process_message *m)
{
	free(m->proto.argv);
	free(m->proto.env);
}

static size_t count_list(const char *const *list)
{
	size_t n = 0;

	while (list && list[n])
		n++;
	return n;
}

static void fill_run(
	const struct kb_run *run, struct process_message *process, Kb__Control__RunRequest *m)
{
	m->name = (char *)run->name;
	m->agent = (char *)run->agent;
	m->machine = (char *)run->machine;
	m->transport = (char *)run->transport;
	m->has_address = run->address != NULL;
	m->address = kb_bytes_of(run->address);
	m->workspace = kb_bytes_of(run->workspace);
	m->home = kb_bytes_of(run->home);
	m->user = (char *)run->user;
	m->process = &process->proto;
	m->bundle = (ProtobufCBinaryData){.data = (uint8_t *)run->bundle, .len = run->bundle_len};
	m->policy = (char *)run->policy;
	m->policy_files = (char **)run->policy_files;
	m->n_policy_files = count_list(run->policy_files);
	m->lane = (char *)run->lane;
	m->runtime = (char *)run->runtime;
	m->has_rootfs = run->rootfs != NULL;
	m->rootfs = kb_bytes_of(run->rootfs);
	m->has_context = run->context != NULL;
	m->context = kb_bytes_of(run->context);
	m->has_trust = run->trust != NULL;
	m->trust = kb_bytes_of(run->trust);
	m->has_stop_on_hangup = 1;
	m->stop_on_hangup = run->stop_on_hangup;
}

static int send_secrets(struct kb_client *client, int fd, struct kb_err *err)
{
	Kb__Control__SecretsRequest m = KB__CONTROL__SECRETS_REQUEST__INIT;
	Kb__Control__Request request = KB__CONTROL__REQUEST__INIT;
	uint32_t id;

	if (fd == 0)
		return 0;
	request.body_case = KB__CONTROL__REQUEST__BODY_SECRETS;
	request.secrets = &m;
	return kb_client_send(client, &request, fd, &id, err);
}

int kb_client_run(struct kb_client *client, const struct kb_run *run,
	const struct kb_attach_ops *ops, void *arg, struct kb_attach **ret, struct kb_err *err)
{
	Kb__Control__RunRequest m = KB__CONTROL__RUN_REQUEST__INIT;
	Kb__Control__Request request = KB__CONTROL__REQUEST__INIT;
	struct process_message process;
	struct kb_attach *at;
	int r = attach_create(client, ops, arg, &at, err);

	if (r < 0)
		return r;
	at->detached_start = run->detach;
	r = fill_process(&run->process, &process, err);
	fill_run(run, &process, &m);
	request.body_case = KB__CONTROL__REQUEST__BODY_RUN;
	request.run = &m;
	if (r == 0)
		r = send_secrets(client, run->secrets, err);
	if (r == 0)
		r = finish_launch(at, &request, ret, err);
	else
		kb_attach_destroy(at);
	free_process(&process);
	return r;
}

int kb_client_attach(struct kb_client *client, const char *session, unsigned rows, unsigned cols,
	const struct kb_attach_ops *ops, void *arg, struct kb_attach **ret, struct kb_err *err)
{
	Kb__Control__AttachRequest m = KB__CONTROL__ATTACH_REQUEST__INIT;
	Kb__Control__Request request = KB__CONTROL__REQUEST__INIT;
	Kb__Control__Size size = KB__CONTROL__SIZE__INIT;
	struct kb_attach *at;
	int r = attach_create(client, ops, arg, &at, err);

	if (r < 0)
		return r;
	m.session = (char *)session;
	size.rows = rows;
	size.cols = cols;
	if (rows > 0 && cols > 0)
		m.size = &size;
	request.body_case = KB__CONTROL__REQUEST__BODY_ATTACH;
	request.attach = &m;
	return finish_launch(at, &request, ret, err);
}

int kb_client_exec(struct kb_client *client, const char *session, const struct kb_process *process,
	const struct kb_attach_ops *ops, void *arg, struct kb_attach **ret, struct kb_err *err)
{
	Kb__Control__ExecRequest m = KB__CONTROL__EXEC_REQUEST__INIT;
	Kb__Control__Request request = KB__CONTROL__REQUEST__INIT;
	struct process_message pm;
	struct kb_attach *at;
	int r = attach_create(client, ops, arg, &at, err);

	if (r < 0)
		return r;
	at->is_exec = true;
	r = fill_process(process, &pm, err);
	m.session = (char *)session;
	m.process = &pm.proto;
	request.body_case = KB__CONTROL__REQUEST__BODY_EXEC;
	request.exec = &m;
	if (r == 0)
		r = finish_launch(at, &request, ret, err);
	else
		kb_attach_destroy(at);
	free_process(&pm);
	return r;
}

void kb_attach_destroy(struct kb_attach *at)
{
	if (!at)
		return;
	drop_channel(at);
	kb_source_destroy(at->timer);
	TAILQ_REMOVE(&at->client->attaches, at, entry);
	if (at->ended)
		kb__control__session__free_unpacked(at->ended, NULL);
	free(at);
}

/* ---- Talking to the process ------------------------------------------------------------------ */

static int check_open(const struct kb_attach *at, struct kb_err *err)
{
	return at->ch ? 0 : kb_err_set(err, KB_ERR_CLOSED, "the process is gone");
}

size_t kb_attach_writable(struct kb_attach *at, size_t need)
{
	return at->ch ? kb_stream_writable(at->streams[KB_ATTACH_INPUT], need) : 0;
}

int64_t kb_attach_write(struct kb_attach *at, const void *data, size_t len, struct kb_err *err)
{
	int r = check_open(at, err);

	return r < 0 ? r : kb_stream_write(at->streams[KB_ATTACH_INPUT], data, len, err);
}

int kb_attach_eof(struct kb_attach *at, struct kb_err *err)
{
	int r = check_open(at, err);

	return r < 0 ? r : kb_stream_eof(at->streams[KB_ATTACH_INPUT], err);
}

void kb_attach_consumed(struct kb_attach *at, int fd, size_t len)
{
	uint32_t id = fd == 2 ? KB_ATTACH_ERROR : at->tty ? KB_ATTACH_INPUT : KB_ATTACH_OUTPUT;

	if (at->ch)
		kb_stream_consumed(at->streams[id], len);
}

static int tell(struct kb_attach *at, Kb__Control__ToProcess *msg, struct kb_err *err)
{
	int r = check_open(at, err);

	return r < 0 ? r : kb_channel_send(at->ch, 0, &msg->base, -1, err);
}

int kb_attach_resize(struct kb_attach *at, unsigned rows, unsigned cols, struct kb_err *err)
{
	Kb__Control__ToProcess msg = KB__CONTROL__TO_PROCESS__INIT;
	Kb__Control__Resize resize = KB__CONTROL__RESIZE__INIT;
	Kb__Control__Size size = KB__CONTROL__SIZE__INIT;

	size.rows = rows;
	size.cols = cols;
	resize.size = &size;
	msg.body_case = KB__CONTROL__TO_PROCESS__BODY_RESIZE;
	msg.resize = &resize;
	return tell(at, &msg, err);
}

int kb_attach_signal(struct kb_attach *at, int signo, struct kb_err *err)
{
	Kb__Control__ToProcess msg = KB__CONTROL__TO_PROCESS__INIT;
	Kb__Control__Signal sig = KB__CONTROL__SIGNAL__INIT;

	sig.signal = (uint32_t)signo;
	msg.body_case = KB__CONTROL__TO_PROCESS__BODY_SIGNAL;
	msg.signal = &sig;
	return tell(at, &msg, err);
}

int kb_attach_detach(struct kb_attach *at, struct kb_err *err)
{
	Kb__Control__ToProcess msg = KB__CONTROL__TO_PROCESS__INIT;
	Kb__Control__Detach detach = KB__CONTROL__DETACH__INIT;

	msg.body_case = KB__CONTROL__TO_PROCESS__BODY_DETACH;
	msg.detach = &detach;
	return tell(at, &msg, err);
}

int kb_attach_answer(struct kb_attach *at, uint64_t number, unsigned verdict, struct kb_err *err)
{
	Kb__Control__AnswerRequest answer = KB__CONTROL__ANSWER_REQUEST__INIT;
	Kb__Control__Request request = KB__CONTROL__REQUEST__INIT;
	uint32_t id; /* nobody waits for the reply */

	answer.session = at->session;
	answer.number = number;
	answer.verdict = verdict;
	request.body_case = KB__CONTROL__REQUEST__BODY_ANSWER;
	request.answer = &answer;
	return kb_client_send(at->client, &request, -1, &id, err);
}
