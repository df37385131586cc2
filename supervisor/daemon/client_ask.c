/* The audit verbs of the client library: questions that a reader process answers to a file. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client_private.h"
#include "supervisor/base/fd.h"

#define SUBJECT_MAX (8u << 20) /* bytes of one answer's message */

int kb_client_ask(struct kb_client *client, const struct kb_ask *ask, int out_fd, int *ret_status,
	struct kb_err *err)
{
	Kb__Control__AskRequest a = KB__CONTROL__ASK_REQUEST__INIT;
	Kb__Control__Request request = KB__CONTROL__REQUEST__INIT;
	Kb__Control__Reply *reply;
	int r;

	a.verb = (char *)ask->verb;
	a.sessions = (char *)ask->sessions;
	a.expr = (char *)ask->expr;
	a.since = (char *)ask->since;
	a.until = (char *)ask->until;
	a.format = (char *)ask->format;
	a.has_limit = a.has_after_seq = a.has_around_pid = a.has_columns = 1;
	a.limit = ask->limit;
	a.after_seq = ask->after_seq;
	a.around_pid = ask->around_pid;
	a.columns = ask->columns;
	a.has_follow = a.has_json = a.has_tty = a.has_utc = a.has_home = 1;
	a.follow = ask->follow;
	a.json = ask->json;
	a.tty = ask->tty;
	a.utc = ask->utc;
	a.home = kb_bytes_of(ask->home ? ask->home : client->dirs.home);
	a.has_input = ask->input > 0;
	a.input = ask->input;
	request.body_case = KB__CONTROL__REQUEST__BODY_ASK;
	request.ask = &a;
	r = kb_client_call(client, &request, out_fd, 0, KB__CONTROL__REPLY__BODY_DONE, &reply, err);
	if (r < 0)
		return r;
	*ret_status = reply->done->status;
	kb__control__reply__free_unpacked(reply, NULL);
	return 0;
}

/* ---- Sessions against policies --------------------------------------------------------------- */

static void finish_recorded(struct kb_recorded *recorded)
{
	for (char **program = recorded->programs; program && *program; program++)
		free(*program);
	free(recorded->programs);
	free(recorded->name);
	free(recorded->workspace);
	free(recorded->home);
}

void kb_recorded_finish(struct kb_recorded_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		finish_recorded(&list->items[i]);
	free(list->items);
	*list = (struct kb_recorded_list){0};
}

static char *text_of(ProtobufCBinaryData bytes)
{
	return strndup(bytes.data ? (char *)bytes.data : "", bytes.len);
}

static bool fill_recorded(struct kb_recorded *to, const Kb__Control__Subject *from)
{
	bool ok;

	snprintf(to->id, sizeof(to->id), "%s", from->id);
	to->name = strdup(from->name);
	to->workspace = text_of(from->workspace);
	to->home = from->has_home ? text_of(from->home) : NULL;
	to->programs = calloc(from->n_programs + 1, sizeof(*to->programs));
	ok = to->name && to->workspace && to->programs && (to->home || !from->has_home);
	for (size_t i = 0; ok && i < from->n_programs; i++)
		ok = (to->programs[i] = text_of(from->programs[i])) != NULL;
	return ok;
}

/* 1: one was added; 0: the end. */
static int read_recorded(FILE *in, struct kb_recorded_list *list, struct kb_err *err)
{
	Kb__Control__Subject *msg = NULL;
	KB_FREE uint8_t *data = NULL;
	uint8_t head[4];
	uint32_t len;
	void *mem;
	bool ok;

	if (fread(head, 1, sizeof(head), in) != sizeof(head))
		return 0;
	len = head[0] | head[1] << 8 | head[2] << 16 | (uint32_t)head[3] << 24;
	data = len <= SUBJECT_MAX ? malloc(len + 1) : NULL;
	if (data && fread(data, 1, len, in) == len)
		msg = kb__control__subject__unpack(NULL, len, data);
	if (!msg)
		return kb_err_set(err, KB_ERR_INVALID, "the reader answered something else");
	mem = realloc(list->items, (list->n + 1) * sizeof(*list->items));
	if (mem)
		list->items = mem;
	if (mem)
		list->items[list->n++] = (struct kb_recorded){0};
	ok = mem && fill_recorded(&list->items[list->n - 1], msg);
	kb__control__subject__free_unpacked(msg, NULL);
	return ok ? 1 : kb_err_nomem(err);
}

int kb_client_recorded(struct kb_client *client, const struct kb_ask *ask,
	struct kb_recorded_list *ret, struct kb_err *err)
{
	struct kb_ask question = *ask;
	FILE *file = tmpfile();
	int status, r;

	*ret = (struct kb_recorded_list){0};
	if (!file)
		return kb_err_sys(err, errno, "a temporary file cannot be made");
	question.verb = "subjects";
	r = kb_client_ask(client, &question, fileno(file), &status, err);
	if (r == 0)
		rewind(file);
	while (r == 0 && (r = read_recorded(file, ret, err)) > 0)
		r = 0;
	fclose(file);
	return r;
}

static int write_input(
	FILE *file, const Kb__Control__AskInput *input, uint64_t *ret_len, struct kb_err *err)
{
	size_t len = kb__control__ask_input__get_packed_size(input);
	KB_FREE uint8_t *data = malloc(len + 1);

	if (!data)
		return kb_err_nomem(err);
	kb__control__ask_input__pack(input, data);
	if (fwrite(data, 1, len, file) != len || fflush(file) != 0)
		return kb_err_sys(err, errno, "a temporary file cannot be written");
	*ret_len = len;
	return 0;
}

/* The lists of the message; false without memory. */
struct lists {
	ProtobufCBinaryData *bundles;
	Kb__Control__AskTrial *trials, **trial_list;
};

static bool fill_lists(struct lists *lists, const struct kb_ask_input *input)
{
	lists->bundles = calloc(input->n_bundles + 1, sizeof(*lists->bundles));
	lists->trials = calloc(input->n_trials + 1, sizeof(*lists->trials));
	lists->trial_list = calloc(input->n_trials + 1, sizeof(*lists->trial_list));
	if (!lists->bundles || !lists->trials || !lists->trial_list)
		return false;
	for (size_t i = 0; i < input->n_bundles; i++)
		lists->bundles[i] = (ProtobufCBinaryData){
			kb_buf_len(&input->bundles[i]), kb_buf_data(&input->bundles[i])};
	for (size_t i = 0; i < input->n_trials; i++) {
		kb__control__ask_trial__init(&lists->trials[i]);
		lists->trials[i].session = (char *)input->trials[i].session;
		lists->trials[i].bundle = input->trials[i].bundle;
		lists->trial_list[i] = &lists->trials[i];
	}
	return true;
}

int kb_client_ask_about(struct kb_client *client, const struct kb_ask *ask,
	const struct kb_ask_input *input, FILE *file, int *ret_status, struct kb_err *err)
{
	Kb__Control__AskInput msg = KB__CONTROL__ASK_INPUT__INIT;
	struct kb_ask question = *ask;
	struct lists lists = {0};
	int r = fill_lists(&lists, input) ? 0 : kb_err_nomem(err);

	msg.bundles = lists.bundles;
	msg.n_bundles = input->n_bundles;
	msg.trials = lists.trial_list;
	msg.n_trials = input->n_trials;
	msg.name = (char *)input->name;
	msg.parent = (char *)input->base;
	msg.has_home = input->home != NULL;
	msg.home = kb_bytes_of(input->home);
	msg.has_workspace = input->workspace != NULL;
	msg.workspace = kb_bytes_of(input->workspace);
	msg.has_seq = 1;
	msg.seq = input->seq;
	if (r == 0)
		r = write_input(file, &msg, &question.input, err);
	if (r == 0)
		r = kb_client_ask(client, &question, fileno(file), ret_status, err);
	if (r == 0)
		rewind(file);
	free(lists.bundles);
	free(lists.trials);
	free(lists.trial_list);
	return r;
}
