/* From the wire's messages to plain C and back. */
#include <stdlib.h>
#include <string.h>

#include "client_private.h"
#include "supervisor/base/util.h"

int kb_client_error(const Kb__Control__Error *error, struct kb_err *err)
{
	enum kb_errcode code = error->code > 0 && error->code < KB_ERR_MAX_
				       ? (enum kb_errcode)error->code
				       : KB_ERR_FAILED;

	kb_err_set(err, code, "%s", error->message);
	if (error->hint && error->hint[0])
		kb_err_hint(err, "%s", error->hint);
	if (err)
		err->errnum = error->errnum;
	return -(int)code;
}

ProtobufCBinaryData kb_bytes_of(const char *text)
{
	return (ProtobufCBinaryData){.data = (uint8_t *)text, .len = text ? strlen(text) : 0};
}

int kb_bytes_list(
	const char *const *list, ProtobufCBinaryData **ret, size_t *ret_n, struct kb_err *err)
{
	ProtobufCBinaryData *out;
	size_t n = 0;

	while (list && list[n])
		n++;
	out = calloc(n + 1, sizeof(*out));
	if (!out)
		return kb_err_nomem(err);
	for (size_t i = 0; i < n; i++)
		out[i] = kb_bytes_of(list[i]);
	*ret = out;
	*ret_n = n;
	return 0;
}

/* Fresh copies, gathered until the first that fails. */
static void copy(bool *ok, char **ret, const void *data, size_t len)
{
	char *text = *ok ? malloc(len + 1) : NULL;

	*ret = text;
	*ok = text != NULL;
	if (!text)
		return;
	if (len)
		memcpy(text, data, len);
	text[len] = '\0';
}

static void copy_text(bool *ok, char **ret, const char *text)
{
	copy(ok, ret, text, text ? strlen(text) : 0);
}

static void copy_bytes(bool *ok, char **ret, ProtobufCBinaryData bytes)
{
	copy(ok, ret, bytes.data, bytes.len);
}

void kb_session_finish(struct kb_session *session)
{
	char **strings[] = {&session->name, &session->agent, &session->machine, &session->user,
		&session->state, &session->workspace, &session->reason};

	for (size_t i = 0; i < KB_ARRAY_LEN(strings); i++) {
		free(*strings[i]);
		*strings[i] = NULL;
	}
}

int kb_session_from_proto(const Kb__Control__Session *p, struct kb_session *ret, struct kb_err *err)
{
	struct kb_session s = {.started = p->started,
		.ended = p->ended,
		.exit_code = p->has_exit_code ? p->exit_code : -1,
		.signal = p->signal,
		.attached = p->attached,
		.complete = p->complete,
		.records = p->records,
		.denials = p->denials,
		.lost = p->lost,
		.commands = p->commands,
		.questions = p->questions};
	bool ok = true;

	if (strlen(p->id) >= sizeof(s.id))
		return kb_err_set(
			err, KB_ERR_INVALID, "a session id of %zu characters", strlen(p->id));
	memcpy(s.id, p->id, strlen(p->id) + 1);
	for (size_t i = 0; i < p->n_ports && i < KB_PUBLISHED_MAX; i++)
		s.ports[s.n_ports++] = (struct kb_published){.port = (uint16_t)p->ports[i]->port,
			.host_port = (uint16_t)p->ports[i]->host_port};
	copy_text(&ok, &s.name, p->name);
	copy_text(&ok, &s.agent, p->agent);
	copy_text(&ok, &s.machine, p->machine);
	copy_text(&ok, &s.user, p->user);
	copy_text(&ok, &s.state, p->state);
	copy_bytes(&ok, &s.workspace, p->workspace);
	copy_text(&ok, &s.reason, p->reason);
	if (!ok) {
		kb_session_finish(&s);
		return kb_err_nomem(err);
	}
	*ret = s;
	return 0;
}

void kb_question_finish(struct kb_question *q)
{
	char **strings[] = {
		&q->session, &q->process, &q->call, &q->rule, &q->rule_text, &q->text, &q->file};

	for (size_t i = 0; i < KB_ARRAY_LEN(strings); i++) {
		free(*strings[i]);
		*strings[i] = NULL;
	}
}

int kb_question_from_proto(
	const Kb__Control__Question *p, struct kb_question *ret, struct kb_err *err)
{
	struct kb_question q = {
		.number = p->number, .asked = p->asked, .wait_ms = p->wait_ms, .line = p->line};
	bool ok = true;

	copy_text(&ok, &q.session, p->session);
	copy_text(&ok, &q.process, p->process);
	copy_text(&ok, &q.call, p->call);
	copy_text(&ok, &q.rule, p->rule);
	copy_text(&ok, &q.rule_text, p->rule_text);
	copy_text(&ok, &q.text, p->text);
	copy_text(&ok, &q.file, p->file);
	if (!ok) {
		kb_question_finish(&q);
		return kb_err_nomem(err);
	}
	*ret = q;
	return 0;
}

void kb_status_finish(struct kb_status *status)
{
	char **strings[] = {&status->version, &status->build, &status->socket, &status->store,
		&status->log, &status->runtime, &status->runtime_why, &status->kernel};

	for (size_t i = 0; i < KB_ARRAY_LEN(strings); i++)
		free(*strings[i]);
	for (size_t i = 0; i < status->n_roles; i++) {
		free(status->roles[i].name);
		free(status->roles[i].machine);
		free(status->roles[i].state);
	}
	free(status->roles);
	for (size_t i = 0; i < status->n_limits_missing; i++)
		free(status->limits_missing[i]);
	free(status->limits_missing);
	*status = (struct kb_status){0};
}

static bool copy_roles(const Kb__Control__Status *p, struct kb_status *s)
{
	bool ok = true;

	s->roles = calloc(p->n_roles + 1, sizeof(*s->roles));
	s->limits_missing = calloc(p->n_limits_missing + 1, sizeof(char *));
	if (!s->roles || !s->limits_missing)
		return false;
	for (size_t i = 0; i < p->n_roles; i++) {
		struct kb_role_status *role = &s->roles[s->n_roles++];

		role->pid = (pid_t)p->roles[i]->pid;
		copy_text(&ok, &role->name, p->roles[i]->name);
		copy_text(&ok, &role->machine, p->roles[i]->machine);
		copy_text(&ok, &role->state, p->roles[i]->state);
	}
	for (size_t i = 0; i < p->n_limits_missing; i++)
		copy_text(&ok, &s->limits_missing[s->n_limits_missing++], p->limits_missing[i]);
	return ok;
}

int kb_status_from_proto(const Kb__Control__Status *p, struct kb_status *ret, struct kb_err *err)
{
	struct kb_status s = {.pid = (pid_t)p->pid,
		.started = p->started,
		.sessions = p->sessions,
		.landlock_abi = p->landlock_abi,
		.rootless = p->rootless,
		.guest_pid = (pid_t)p->guest_pid};
	bool ok = true;

	copy_text(&ok, &s.version, p->version);
	copy_text(&ok, &s.build, p->build);
	copy_bytes(&ok, &s.socket, p->socket);
	copy_bytes(&ok, &s.store, p->store);
	copy_bytes(&ok, &s.log, p->log);
	copy_text(&ok, &s.runtime, p->runtime);
	copy_text(&ok, &s.runtime_why, p->runtime_why);
	copy_text(&ok, &s.kernel, p->kernel);
	if (!ok || !copy_roles(p, &s)) {
		kb_status_finish(&s);
		return kb_err_nomem(err);
	}
	*ret = s;
	return 0;
}
