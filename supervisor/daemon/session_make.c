/* Sessions: making and finding them, and who waits for their end. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "main.h"
#include "policy/policy.h"
#include "supervisor/base/util.h"

static void on_deadline(void *arg)
{
	kb_live_event(arg, KB_EV_DEADLINE, NULL);
}

void kb_watch_destroy(struct kb_live *live, struct kb_watch *w)
{
	TAILQ_REMOVE(&live->watches, w, entry);
	w->conn->watches--;
	free(w);
}

static bool name_taken(const struct kb_live *self, const char *name)
{
	struct kb_live *live;

	TAILQ_FOREACH(live, &self->main->lives, entry)
		if (live != self && strcmp(live->name, name) == 0)
			return true;
	return false;
}

#define NAME_TRIES 100

static int choose_name(struct kb_live *live, const char *wanted, struct kb_err *err)
{
	int r = 0;

	if (wanted && !kb_name_valid(wanted)) {
		kb_err_set(err, KB_ERR_USAGE, "'%s' cannot be a session's name", wanted);
		return kb_err_hint(err, "use 1 to 63 letters, digits, '.', '_' or '-'");
	}
	if (wanted && name_taken(live, wanted)) {
		kb_err_set(err, KB_ERR_EXISTS, "a session named %s is running", wanted);
		return kb_err_hint(err, "choose another name, or `kbsup attach %s`", wanted);
	}
	if (wanted) {
		snprintf(live->name, sizeof(live->name), "%s", wanted);
		return 0;
	}
	for (int i = 0; r == 0 && i < NAME_TRIES; i++) {
		r = kb_name_new(live->name, err);
		if (r == 0 && !name_taken(live, live->name))
			return 0;
	}
	/* All the good ones are gone: the id is unique. */
	if (r == 0)
		snprintf(live->name, sizeof(live->name), "%s", live->id_text);
	return r;
}

static int check_run(struct kb_main *m, const Kb__Control__RunRequest *run, struct kb_err *err)
{
	if (m->n_lives >= KB_SESSIONS_MAX)
		return kb_err_set(
			err, KB_ERR_LIMIT, "more than %d sessions at once", KB_SESSIONS_MAX);
	if (run->process->n_argv == 0 || run->workspace.len == 0 || run->workspace.data[0] != '/')
		return kb_err_set(
			err, KB_ERR_INVALID, "a run needs a command and an absolute workspace");
	return 0;
}

static int fill_live(
	struct kb_live *live, const Kb__Control__RunRequest *run, int fd, struct kb_err *err)
{
	int r;

	live->started = (uint64_t)kb_now_real();
	live->complete = true;
	live->stop_on_hangup = run->stop_on_hangup;
	live->detached_start = fd < 0;
	live->agent = strdup(run->agent);
	live->user = strdup(run->user);
	live->workspace.data = malloc(run->workspace.len);
	if (!live->agent || !live->user || !live->workspace.data)
		return kb_err_nomem(err);
	memcpy(live->workspace.data, run->workspace.data, run->workspace.len);
	live->workspace.len = run->workspace.len;
	if (fd >= 0) {
		live->attachment = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		if (live->attachment < 0)
			return kb_err_sys(err, errno, "the attachment cannot be kept");
	}
	r = kb_ulid_new(live->id, err);
	if (r < 0)
		return r;
	kb_ulid_format(live->id, live->id_text);
	r = choose_name(live, run->name, err);
	return r < 0 ? r : kb_live_make_messages(live, run, err);
}

int kb_live_create(struct kb_main *m, const Kb__Control__RunRequest *run, int fd,
	struct kb_live **ret, struct kb_err *err)
{
	struct kb_live *live;
	struct kb_place *place;
	int r = check_run(m, run, err);

	if (r == 0)
		r = kb_place_find(m, run, &place, err);
	if (r < 0)
		return r;
	live = calloc(1, sizeof(*live));
	if (!live)
		return kb_err_nomem(err);
	live->main = m;
	live->place = place;
	kb_place_enter(place);
	live->attachment = live->secrets = -1;
	TAILQ_INIT(&live->watches);
	TAILQ_INIT(&live->questions);
	TAILQ_INSERT_TAIL(&m->lives, live, entry);
	m->n_lives++;
	r = kb_loop_timer(m->loop, on_deadline, live, &live->deadline, err);
	if (r == 0)
		r = fill_live(live, run, fd, err);
	if (r < 0) {
		kb_live_destroy(live);
		return r;
	}
	kb_live_arm_deadline(live);
	*ret = live;
	return 0;
}

void kb_live_destroy(struct kb_live *live)
{
	while (!TAILQ_EMPTY(&live->watches))
		kb_watch_destroy(live, TAILQ_FIRST(&live->watches));
	kb_live_forget_questions(live);
	kb_ports_forget(&live->ports);
	kb_bundle_destroy(live->policy);
	TAILQ_REMOVE(&live->main->lives, live, entry);
	live->main->n_lives--;
	kb_place_leave(live->place);
	kb_source_destroy(live->deadline);
	kb_broker_end(live);
	kb_close(&live->attachment);
	for (char **e = live->env; e && *e; e++)
		free(*e);
	free(live->env);
	free(live->agent);
	free(live->user);
	free(live->workspace.data);
	free(live->start);
	free(live->meta);
	free(live);
}

struct kb_live *kb_live_find(struct kb_main *m, const char *name, struct kb_err *err)
{
	const char *names[KB_SESSIONS_MAX], *near;
	struct kb_live *live;
	size_t n = 0;

	TAILQ_FOREACH(live, &m->lives, entry) {
		if (strcmp(live->name, name) == 0 || strcmp(live->id_text, name) == 0)
			return live;
		names[n++] = live->name;
	}
	kb_err_set(err, KB_ERR_NOTFOUND, "no session named %s is running", name);
	near = kb_closest(name, names, n);
	if (near)
		kb_err_hint(err, "did you mean %s?", near);
	else
		kb_err_hint(err, "`kbsup ps` lists them");
	return NULL;
}

int kb_live_find_running(
	struct kb_main *m, const char *name, struct kb_live **ret, struct kb_err *err)
{
	struct kb_live *live = kb_live_find(m, name, err);

	if (!live)
		return -KB_ERR_NOTFOUND;
	if (live->state != KB_LIVE_RUNNING)
		return kb_err_set(err, KB_ERR_FAILED, "session %s is %s, not running", live->name,
			kb_live_state_name(live->state));
	*ret = live;
	return 0;
}

struct kb_live *kb_live_by_id(struct kb_main *m, ProtobufCBinaryData id)
{
	struct kb_live *live;

	TAILQ_FOREACH(live, &m->lives, entry)
		if (id.len == sizeof(live->id) && memcmp(live->id, id.data, id.len) == 0)
			return live;
	return NULL;
}

static int add_watch(struct kb_live *live, struct kb_conn *conn, uint32_t request, uint64_t process,
	bool connected, struct kb_err *err)
{
	struct kb_watch *w;

	if (conn->watches >= KB_WATCHES_MAX)
		return kb_err_set(
			err, KB_ERR_LIMIT, "more than %d requests are waiting", KB_WATCHES_MAX);
	w = calloc(1, sizeof(*w));
	if (!w)
		return kb_err_nomem(err);
	*w = (struct kb_watch){
		.conn = conn, .request = request, .process = process, .connected = connected};
	TAILQ_INSERT_TAIL(&live->watches, w, entry);
	conn->watches++;
	return 0;
}

int kb_live_watch(struct kb_live *live, struct kb_conn *conn, uint32_t request, struct kb_err *err)
{
	return add_watch(live, conn, request, 0, false, err);
}

int kb_live_watch_connected(
	struct kb_live *live, struct kb_conn *conn, uint32_t request, struct kb_err *err)
{
	return add_watch(live, conn, request, 0, true, err);
}

int kb_live_watch_exec(struct kb_live *live, uint64_t process, struct kb_conn *conn,
	uint32_t request, struct kb_err *err)
{
	return add_watch(live, conn, request, process, false, err);
}

void kb_live_exec_over(struct kb_live *live, uint64_t process, const struct kb_err *why)
{
	struct kb_watch *w, *next;

	for (w = TAILQ_FIRST(&live->watches); w; w = next) {
		next = TAILQ_NEXT(w, entry);
		if (w->process != process)
			continue;
		if (why)
			kb_conn_error(w->conn, w->request, why);
		kb_watch_destroy(live, w);
	}
}

void kb_live_forget_conn(struct kb_main *m, struct kb_conn *conn)
{
	struct kb_live *live;
	struct kb_watch *w, *next;

	TAILQ_FOREACH(live, &m->lives, entry)
		for (w = TAILQ_FIRST(&live->watches); w; w = next) {
			next = TAILQ_NEXT(w, entry);
			if (w->conn == conn)
				kb_watch_destroy(live, w);
		}
}
