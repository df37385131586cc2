#include "start.h"

#include <stdio.h>

struct start {
	struct kb_loop *loop;
	char *id, *name;
	bool accepted;
	struct kb_err failure;
};

static void on_accepted(struct kb_attach *at, const char *id, const char *name, void *arg)
{
	struct start *s = arg;

	s->accepted = true;
	snprintf(s->id, KB_ULID_TEXT, "%s", id);
	snprintf(s->name, KB_NAME_MAX, "%s", name);
	kb_loop_stop(s->loop);
}

static void on_failed(struct kb_attach *at, const struct kb_err *why, void *arg)
{
	struct start *s = arg;

	s->failure = *why;
	kb_loop_stop(s->loop);
}

/* Nothing else is said to somebody who does not stay; the interface wants every word. */
static void no_started(struct kb_attach *at, const struct kb_started *started, void *arg)
{
}

static void no_output(struct kb_attach *at, int fd, const uint8_t *data, size_t len, void *arg)
{
	kb_attach_consumed(at, fd, len);
}

static void no_writable(struct kb_attach *at, void *arg)
{
}

static void no_exited(struct kb_attach *at, int exit_code, unsigned signal, void *arg)
{
}

static void no_detached(struct kb_attach *at, const char *reason, void *arg)
{
}

static void no_ended(struct kb_attach *at, const struct kb_session *session, void *arg)
{
}

static const struct kb_attach_ops ops = {
	.accepted = on_accepted,
	.started = no_started,
	.output = no_output,
	.writable = no_writable,
	.exited = no_exited,
	.detached = no_detached,
	.ended = no_ended,
	.failed = on_failed,
};

int kb_start_detached(struct kb_loop *loop, struct kb_client *client, const struct kb_run *run,
	char ret_id[KB_ULID_TEXT], char ret_name[KB_NAME_MAX], struct kb_err *err)
{
	struct start s = {.loop = loop, .id = ret_id, .name = ret_name};
	struct kb_attach *at = NULL;
	int r = kb_client_run(client, run, &ops, &s, &at, err);

	if (r == 0)
		r = kb_loop_run(loop, err);
	kb_attach_destroy(at);
	if (r < 0 || s.accepted)
		return r;
	if (err)
		*err = s.failure;
	return -(int)s.failure.code;
}
