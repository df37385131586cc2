#include "main.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ready.h"
#include "supervisor/base/build.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/util.h"

#define ACCEPTS_PER_WAKE 16
#define STOP_STEP_MS	 60000 /* sessions, links, store: each step of a stop has so long */
#define LOG_KEEP	 (4u << 20)

/* ---- Leaving --------------------------------------------------------------------------------- */

static void close_listener(struct kb_main *m)
{
	kb_source_destroy(m->accept);
	m->accept = NULL;
	if (m->listener >= 0 && !m->activated)
		unlink(m->dirs.socket);
	kb_close(&m->listener);
}

static void stop_store(struct kb_main *m)
{
	m->stopping = KB_STOPS_STORE;
	if (!m->store)
		return;
	m->store->expected = true;
	kb_process_close(m->store);
}

/* One step after the other: sessions, the links, the store. */
static void proceed_stop(struct kb_main *m)
{
	enum kb_stopping before = m->stopping;

	if (m->stopping == KB_STOPS_SESSIONS && m->n_lives == 0)
		m->stopping = KB_STOPS_LINKS;
	if (m->stopping == KB_STOPS_LINKS && before != KB_STOPS_LINKS)
		kb_places_shut_down(m);
	if (m->stopping == KB_STOPS_LINKS && !kb_places_linked(m))
		stop_store(m);
	if (m->stopping == KB_STOPS_STORE && !m->store)
		kb_loop_stop(m->loop);
	else if (m->stopping != before)
		(void)kb_source_arm(m->stop_timer, STOP_STEP_MS, NULL);
}

static void on_stop_timer(void *arg)
{
	struct kb_main *m = arg;
	struct kb_role_process *p;

	kb_log_error("a clean stop did not succeed in time: everything is killed");
	TAILQ_FOREACH(p, &m->processes, entry)
		kb_process_kill(p, SIGKILL);
	m->exit_status = 1;
	(void)kb_source_arm(m->stop_timer, STOP_STEP_MS, NULL);
}

void kb_main_stop(struct kb_main *m, const char *reason)
{
	struct kb_live *live, *next;
	struct kb_err why;

	if (m->stopping != KB_RUNS)
		return;
	kb_log_info("leaving: %s", reason);
	m->stopping = KB_STOPS_SESSIONS;
	snprintf(m->stop_reason, sizeof(m->stop_reason), "%s", reason);
	kb_err_set(&why, KB_ERR_CLOSED, "%s", reason);
	close_listener(m);
	kb_imports_stop(m);
	kb_source_disarm(m->idle);
	(void)kb_source_arm(m->stop_timer, STOP_STEP_MS, NULL);
	for (live = TAILQ_FIRST(&m->lives); live; live = next) {
		next = TAILQ_NEXT(live, entry);
		kb_live_event(live, KB_EV_STOP, &why);
	}
	proceed_stop(m);
}

void kb_main_check(struct kb_main *m)
{
	bool idle = m->n_conns == 0 && m->n_lives == 0 && m->idle_ms > 0;

	if (m->stopping != KB_RUNS)
		proceed_stop(m);
	else if (idle)
		(void)kb_source_arm(m->idle, m->idle_ms, NULL);
	else
		kb_source_disarm(m->idle);
}

static void on_idle(void *arg)
{
	kb_main_stop(arg, "nothing to do");
}

/* ---- Signals, connections -------------------------------------------------------------------- */

static void on_signal(int signo, void *arg)
{
	struct kb_main *m = arg;

	if (signo == SIGCHLD)
		kb_process_reap_all(m);
	else if (signo != SIGHUP)
		kb_main_stop(m, "the supervisor was ended by a signal");
}

static void on_respawn(void *arg)
{
	kb_peers_ensure(arg);
}

static void on_accept(int fd, unsigned events, void *arg)
{
	struct kb_main *m = arg;
	struct kb_err err;

	for (int i = 0; i < ACCEPTS_PER_WAKE; i++) {
		int client = kb_fd_accept(fd);

		if (client < 0 && (errno == EMFILE || errno == ENFILE))
			kb_log_error("no file descriptor is left for a client");
		if (client < 0)
			break;
		if (kb_conn_accept(m, client, &err) < 0)
			kb_log_error("a client could not be served: %s", err.msg);
	}
	kb_main_check(m);
}

static int watch(struct kb_main *m, struct kb_err *err)
{
	static const int signals[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP};
	int r = 0;

	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; r == 0 && i < KB_ARRAY_LEN(signals); i++)
		r = kb_loop_signal(m->loop, signals[i], on_signal, m, &m->sigs[i], err);
	if (r == 0)
		r = kb_loop_timer(m->loop, on_idle, m, &m->idle, err);
	if (r == 0)
		r = kb_loop_timer(m->loop, on_stop_timer, m, &m->stop_timer, err);
	if (r == 0)
		r = kb_loop_timer(m->loop, on_respawn, m, &m->respawn, err);
	if (r == 0)
		r = kb_loop_io(m->loop, m->listener, KB_IO_READ, on_accept, m, &m->accept, err);
	return r;
}

/* ---- Starting -------------------------------------------------------------------------------- */

/* stderr becomes the log; an old one that grew large is kept once. */
static int open_log(struct kb_main *m, struct kb_err *err)
{
	static char path[PATH_MAX + 16], old[PATH_MAX + 32];
	KB_CLOSE int fd = -1;
	struct stat st;

	snprintf(path, sizeof(path), "%s/kbsupd.log", m->dirs.state);
	snprintf(old, sizeof(old), "%s.old", path);
	if (stat(path, &st) == 0 && st.st_size > LOG_KEEP)
		(void)rename(path, old);
	fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return kb_err_sys(err, errno, "the log %s cannot be opened", path);
	if (dup2(fd, STDERR_FILENO) < 0)
		return kb_err_sys(err, errno, "the log cannot be used");
	m->log = path;
	return 0;
}

static int read_idle(struct kb_main *m, struct kb_err *err)
{
	const char *text = getenv("KBSUP_IDLE");
	int64_t ns;

	m->idle_ms = KB_IDLE_MS;
	if (!text)
		return 0;
	if (!kb_parse_duration(text, &ns)) {
		kb_err_set(err, KB_ERR_USAGE, "KBSUP_IDLE is '%s', which is not a duration", text);
		return kb_err_hint(err, "use 30s, 5m, 1h, or 0 to stay for ever");
	}
	m->idle_ms = ns / 1000000;
	return 0;
}

static int set_up(struct kb_main *m, const struct kb_main_options *options, struct kb_err *err)
{
	int r = kb_dirs_find(&m->dirs, err);

	if (r == 0)
		r = kb_dirs_make(m->dirs.runtime, err);
	if (r == 0)
		r = kb_listen_lock(&m->dirs, &m->lock, err);
	if (r == 0)
		r = kb_dirs_make(m->dirs.state, err);
	if (r == 0 && !options->foreground)
		r = open_log(m, err);
	if (r == 0)
		r = read_idle(m, err);
	if (r == 0)
		r = kb_loop_create(&m->loop, err);
	if (r == 0)
		r = kb_listen_open(&m->dirs, &m->listener, &m->activated, err);
	if (r == 0)
		r = watch(m, err);
	if (r == 0)
		r = kb_places_init(m, err);
	return r;
}

static void tear_down(struct kb_main *m)
{
	while (!TAILQ_EMPTY(&m->conns))
		kb_conn_destroy(TAILQ_FIRST(&m->conns));
	close_listener(m);
	for (size_t i = 0; i < KB_ARRAY_LEN(m->sigs); i++)
		kb_source_destroy(m->sigs[i]);
	kb_source_destroy(m->idle);
	kb_source_destroy(m->stop_timer);
	kb_source_destroy(m->respawn);
	kb_places_finish(m);
	kb_loop_destroy(m->loop);
	kb_close(&m->lock); /* last: whoever waits for it finds nothing of us */
}

static void speak(const struct kb_err *err)
{
	fprintf(stderr, "kbsupd: %s\n", err->msg);
	if (err->hint[0])
		fprintf(stderr, "        %s\n", err->hint);
}

int kb_main_run(const struct kb_main_options *options)
{
	struct kb_main m = {
		.log = "", .lock = -1, .listener = -1, .started = (uint64_t)kb_now_real()};
	struct kb_err err;
	int r;

	TAILQ_INIT(&m.conns);
	TAILQ_INIT(&m.lives);
	TAILQ_INIT(&m.chores);
	TAILQ_INIT(&m.imports);
	TAILQ_INIT(&m.processes);
	TAILQ_INIT(&m.places);
	r = set_up(&m, options, &err);
	kb_ready_tell(options->ready_fd, r < 0 ? &err : NULL);
	if (options->ready_fd >= 0)
		close(options->ready_fd);
	if (r < 0) {
		speak(&err);
		m.exit_status = kb_err_exit_status(&err);
	} else {
		kb_log_info("kbsupd %s, pid %d, listens on %s", kb_build_id(), (int)getpid(),
			m.dirs.socket);
		kb_peers_ensure(&m);
		kb_main_check(&m);
		if (kb_loop_run(m.loop, &err) < 0) {
			kb_log_error("%s", err.msg);
			m.exit_status = 1;
		}
		kb_log_info("left");
	}
	tear_down(&m);
	return m.exit_status;
}
