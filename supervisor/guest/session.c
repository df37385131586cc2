/* One session, from StartSession to Ended.
 *
 *	IDLE      waits for StartSession
 *	STARTING  the runtime makes the container
 *	LAUNCHING kbsup-init starts the first process
 *	RUNNING   it runs; others may be exec'd beside it
 *	ENDING    its first process is gone, or it was told to end: the container goes
 *	          down, what was written is sent on
 *	OVER      the last message is on its way; then the process exits
 *
 * The session ends with its first process. Whatever goes wrong on the way ends it too, with the
 * reason: nothing runs unrecorded, and a closed channel ends everything at once.
 */
#include "supervisor/guest/session.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "supervisor/base/log.h"
#include "supervisor/base/util.h"
#include "supervisor/guest/session_private.h"
#include "supervisor/guest/statedir.h"

#define STOP_GRACE_MS  5000 /* between being asked to end and being ended */
#define DRAIN_GRACE_MS 2000 /* for output nobody takes, once a session was told to stop */
#define EXEC_MAX       64   /* processes beside the first, at once */

/* ---- Ending ---------------------------------------------------------------------------------- */

static struct kb_member *first_process(struct kb_session *s)
{
	struct kb_member *m = s->members;

	while (m && m->next)
		m = m->next;
	return m && m->id == 0 ? m : NULL;
}

static bool all_drained(const struct kb_session *s)
{
	for (const struct kb_member *m = s->members; m; m = m->next)
		if (!m->drained)
			return false;
	return true;
}

/* The container is gone and everything written was sent: say the last words. */
static void check_over(struct kb_session *s)
{
	const struct kb_member *first = first_process(s);
	int status = first && first->exited ? first->status : SIGKILL;

	if (s->state != ENDING || !s->container_gone || !all_drained(s))
		return;
	if (s->egress && !s->egress_over) {
		kb_egress_finish(s->egress);
		return;
	}
	s->state = OVER;
	kb_inbound_destroy(KB_STEAL(s->inbound));
	kb_lanes_stop(&s->lanes);
	if (s->recorder) {
		kb_session_record_end(s, status);
		kb_recorder_flush(s->recorder);
	}
	if (s->failure.code)
		kb_session_send_failed(s, 0, &s->failure);
	else
		kb_session_send_ended(s, status);
	kb_channel_finish(s->channel);
}

static void on_egress_finished(void *arg)
{
	struct kb_session *s = arg;

	s->egress_over = true;
	check_over(s);
}

static void begin_end(struct kb_session *s)
{
	if (s->state >= ENDING)
		return;
	s->state = ENDING;
	kb_source_disarm(s->limit_timer);
	if (s->container && !s->container_gone) {
		kb_session_check_counters(s);
		kb_container_stop(s->container);
	}
	check_over(s);
}

/* It ends for a reason other than its first process's exit. Before that process ran, that means it
 * could not be started. */
static void end_because(struct kb_session *s, const struct kb_err *why)
{
	if (s->state >= ENDING)
		return;
	snprintf(s->reason, sizeof(s->reason), "%s", why->msg);
	if (s->state < RUNNING && !s->failure.code)
		s->failure = *why;
	begin_end(s);
}

static void abandon_output(struct kb_session *s)
{
	for (struct kb_member *m = s->members; m; m = m->next)
		kb_process_abandon(m->process);
}

static void on_stop_timer(void *arg)
{
	struct kb_session *s = arg;

	if (s->state < ENDING) {
		begin_end(s);
		kb_source_arm(s->stop_timer, DRAIN_GRACE_MS, NULL);
		return;
	}
	abandon_output(s);
	check_over(s);
}

static void on_time_up(void *arg)
{
	struct kb_session *s = arg;

	kb_session_record_limit(s, "the time limit was reached: the session is ended", 1);
	snprintf(s->reason, sizeof(s->reason), "the time limit of the policy was reached");
	begin_end(s);
	kb_source_arm(s->stop_timer, DRAIN_GRACE_MS, NULL);
}

/* ---- Processes ------------------------------------------------------------------------------- */

static struct kb_member *find_member(struct kb_session *s, uint64_t id)
{
	for (struct kb_member *m = s->members; m; m = m->next)
		if (m->id == id)
			return m;
	return NULL;
}

static void member_destroy(struct kb_member *m)
{
	kb_process_destroy(m->process);
	free(m->argv0);
	free(m);
}

/* Forget exec'd processes that are over. Called between events, never from a process's callback. */
static void sweep_members(struct kb_session *s)
{
	struct kb_member **at = &s->members;

	while (*at) {
		struct kb_member *m = *at;

		if (m->id != 0 && m->drained) {
			*at = m->next;
			member_destroy(m);
		} else {
			at = &m->next;
		}
	}
}

static void on_drained(struct kb_process *process, void *arg)
{
	struct kb_member *m = arg;
	struct kb_session *s = m->session;

	m->drained = true;
	if (m->failure.code && m->id != 0)
		kb_session_send_failed(s, m->id, &m->failure);
	else if (m->started)
		kb_session_send_exited(s, m);
	check_over(s);
}

static const struct kb_process_ops process_ops = {.drained = on_drained};

static void member_exited(struct kb_session *s, struct kb_member *m, int status)
{
	m->exited = true;
	m->status = status;
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && s->state < ENDING)
		kb_session_check_counters(s);
	if (m->id == 0)
		begin_end(s);
	kb_process_exited(m->process);
}

/* Copies n strings and leaves room for some more. */
static struct kb_byte_string *byte_strings(const ProtobufCBinaryData *from, size_t n, size_t room)
{
	struct kb_byte_string *to = calloc(n + room, sizeof(*to));

	for (size_t i = 0; i < n && to; i++)
		to[i] = (struct kb_byte_string){.data = from[i].data, .len = from[i].len};
	return to;
}

static int launch_with(struct kb_session *s, struct kb_member *m, const Kb__ProcessSpec *spec,
	const struct kb_byte_string *argv, struct kb_byte_string *env, struct kb_err *err)
{
	char own[KB_OWN_VARIABLES][KB_OWN_VARIABLE_MAX];
	struct kb_init_process p = {
		.id = m->id,
		.tty = spec->tty,
		.rows = spec->size ? (uint16_t)spec->size->rows : 0,
		.cols = spec->size ? (uint16_t)spec->size->cols : 0,
		.uid = s->setup.uid,
		.gid = s->setup.gid,
		.cwd = {(const uint8_t *)s->setup.workspace, strlen(s->setup.workspace)},
		.argv = argv,
		.n_argv = spec->n_argv,
		.env = env,
		.n_env = kb_session_own_env(s, spec, env, own),
		.rlimits = s->setup.rlimits,
		.n_rlimits = s->setup.n_rlimits,
		.landlock = s->setup.landlock,
		.n_landlock = s->setup.n_landlock,
		.filter = s->setup.program.insns,
		.n_filter = s->setup.program.len,
		.listener = true,
	};
	int r;

	if (spec->has_cwd && spec->cwd.len > 0)
		p.cwd = (struct kb_byte_string){spec->cwd.data, spec->cwd.len};
	kb_process_ends(m->process, p.stdio);
	r = kb_initlink_start(kb_container_control(s->container), &p, err);
	kb_process_running(m->process);
	return r;
}

static int launch(
	struct kb_session *s, struct kb_member *m, const Kb__ProcessSpec *spec, struct kb_err *err)
{
	KB_FREE struct kb_byte_string *argv = byte_strings(spec->argv, spec->n_argv, 1);
	KB_FREE struct kb_byte_string *env = byte_strings(spec->env, spec->n_env, KB_OWN_VARIABLES);

	return argv && env ? launch_with(s, m, spec, argv, env, err) : kb_err_nomem(err);
}

static int add_member(struct kb_session *s, uint64_t id, const Kb__ProcessSpec *spec,
	struct kb_member **ret, struct kb_err *err)
{
	struct kb_member *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return kb_err_nomem(err);
	*m = (struct kb_member){.session = s, .id = id, .tty = spec->tty};
	if (spec->n_argv > 0)
		m->argv0 = strndup((const char *)spec->argv[0].data, spec->argv[0].len);
	else
		m->argv0 = strdup("");
	r = m->argv0 ? kb_process_create(s->loop, s->channel, spec->stdio, spec->tty,
			       s->attached || id != 0, &process_ops, m, &m->process, err)
		     : kb_err_nomem(err);
	if (r < 0) {
		member_destroy(m);
		return r;
	}
	m->next = s->members;
	s->members = m;
	*ret = m;
	return 0;
}

/* ---- What the container says ----------------------------------------------------------------- */

static void on_record(const struct kb_record *record, void *arg)
{
	struct kb_session *s = arg;

	kb_recorder_add(s->recorder, record);
}

static void on_collector_failed(const struct kb_err *why, void *arg)
{
	end_because(arg, why);
}

static const struct kb_notify_ops lanes_ops = {.record = on_record,
	.failed = on_collector_failed,
	.ask = kb_session_send_question,
	.ask_over = kb_session_send_question_over};

static void on_pressure(bool paused, void *arg)
{
	struct kb_session *s = arg;

	kb_lanes_pause(&s->lanes, paused);
}

static const struct kb_recorder_ops recorder_ops = {.pause = on_pressure};

static int make_collector(struct kb_session *s, struct kb_err *err)
{
	struct kb_notify_options options = {.bundle = s->setup.bundle,
		.arch = kb_arch_native(),
		.root_fd = -1,
		.init_pid = kb_container_init_pid(s->container),
		.host_root = "/",
		.ask_ms = s->setup.ask_ms};
	int r = kb_container_root(s->container, &options.root_fd, err);

	options.relayed = s->egress != NULL;
	return r < 0 ? r
		     : kb_lanes_start(
			       &s->lanes, s->loop, &options, s->setup.bpf, &lanes_ops, s, err);
}

static int make_egress(struct kb_session *s, struct kb_err *err)
{
	struct kb_egress_options options = {.init = kb_container_init_pid(s->container),
		.bundle = s->setup.bundle,
		.base = s->start->start->egress};

	if (!s->start->start->has_egress)
		return 0;
	memcpy(options.session, s->id, sizeof(options.session));
	return kb_egress_create(
		s->loop, s->channel, &options, on_egress_finished, s, &s->egress, err);
}

static void on_ready(int landlock_abi, void *arg)
{
	struct kb_session *s = arg;
	struct kb_err err = {0};
	int r = 0;

	if (landlock_abi == 0) {
		r = kb_err_set(&err, KB_ERR_REFUSED, "this machine's kernel has no Landlock");
		kb_err_hint(&err, "use a kernel of 5.13 or newer whose lsm= contains landlock");
	}
	if (r == 0)
		r = kb_setup_effective(&s->setup, landlock_abi, &s->effective, &err);
	if (r == 0)
		r = make_egress(s, &err);
	if (r == 0)
		kb_session_record_start(s);
	if (r == 0)
		r = make_collector(s, &err);
	if (r == 0)
		r = launch(s, first_process(s), s->start->start->process, &err);
	kb__to_guest__free_unpacked(s->start, NULL);
	s->start = NULL;
	if (r < 0)
		end_because(s, &err);
	else
		s->state = LAUNCHING;
}

static void report_pty(
	struct kb_session *s, struct kb_member *m, const struct kb_init_report *report, int fd)
{
	struct kb_err err = {0};

	if (fd >= 0 && kb_process_terminal(m->process, fd, &err) < 0)
		end_because(s, &err);
}

static void report_listener(
	struct kb_session *s, struct kb_member *m, const struct kb_init_report *report, int fd)
{
	struct kb_err err = {0};

	if (fd >= 0 && kb_lanes_add(&s->lanes, fd, &err) < 0)
		end_because(s, &err);
}

static void report_started(
	struct kb_session *s, struct kb_member *m, const struct kb_init_report *report, int fd)
{
	m->started = true;
	if (m->id == 0) {
		s->state = RUNNING;
		if (s->setup.time_ms > 0)
			kb_source_arm(s->limit_timer, s->setup.time_ms, NULL);
	}
	kb_session_send_started(s, m->id);
	kb_process_started(m->process);
}

static void report_failed(
	struct kb_session *s, struct kb_member *m, const struct kb_init_report *report, int fd)
{
	struct kb_err err = {0};

	kb_initlink_explain(report, m->argv0, &err);
	m->failure = err;
	m->exited = true;
	m->status = 127 << 8;
	if (m->id == 0)
		end_because(s, &err);
	kb_process_exited(m->process);
}

static void report_exited(
	struct kb_session *s, struct kb_member *m, const struct kb_init_report *report, int fd)
{
	member_exited(s, m, report->status);
}

static void (*const reports[KB_INIT_KIND_MAX_])(
	struct kb_session *, struct kb_member *, const struct kb_init_report *, int fd) = {
	[KB_INIT_PTY] = report_pty,
	[KB_INIT_LISTENER] = report_listener,
	[KB_INIT_STARTED] = report_started,
	[KB_INIT_FAILED] = report_failed,
	[KB_INIT_EXITED] = report_exited,
};

static void on_report(const struct kb_init_report *report, int fd, void *arg)
{
	struct kb_session *s = arg;
	struct kb_member *m = find_member(s, report->id);

	sweep_members(s);
	if (m && reports[report->kind])
		reports[report->kind](s, m, report, fd);
	else
		kb_close(&fd);
}

static void on_gone(const struct kb_err *why, void *arg)
{
	struct kb_session *s = arg;

	s->container_gone = true;
	if (s->host_gone) {
		kb_loop_stop(s->loop);
		return;
	}
	if (why)
		end_because(s, why);
	s->state = ENDING;
	/* Who was still running went with the container. */
	for (struct kb_member *m = s->members; m; m = m->next)
		if (!m->exited)
			member_exited(s, m, SIGKILL);
	check_over(s);
}

static const struct kb_container_ops container_ops = {
	.ready = on_ready, .report = on_report, .gone = on_gone};

/* ---- What the host says ---------------------------------------------------------------------- */

static int start_container(struct kb_session *s, const Kb__StartSession *msg, struct kb_err *err)
{
	struct kb_setup *setup = &s->setup;
	KB_FREE char *dir = NULL;
	struct kb_container_spec spec;
	int r = kb_setup_make(msg, s->options, setup, err);

	if (r == 0)
		r = kb_statedir_claim(s->options->state, setup->container_name, &s->lock, err);
	if (r < 0)
		return r;
	dir = kb_asprintf("%s/%s/" KB_STATEDIR_MOUNT, s->options->state, setup->container_name);
	if (!dir)
		return kb_err_nomem(err);
	spec = (struct kb_container_spec){
		.name = setup->container_name,
		.dir = dir,
		.runtime = setup->runtime,
		.oci = setup->oci,
		.rootfs = {.bundle = setup->bundle,
			.workspace = setup->workspace,
			.home = setup->home,
			.user = setup->user,
			.uid = setup->uid,
			.gid = setup->gid,
			.hostname = setup->name,
			.source = setup->rootfs,
			.init = s->options->init,
			.disk = setup->disk,
			.facts = setup->facts,
			.profile = setup->profile,
			.context = setup->context,
			.trust = setup->trust,
			.network = setup->network,
			.hidden = (const char *const *)setup->hidden},
	};
	return kb_container_start(s->loop, &spec, &container_ops, s, &s->container, err);
}

static void handle_start(struct kb_session *s, Kb__ToGuest *msg)
{
	struct kb_err err = {0};
	struct kb_member *first;
	int r;

	if (s->state != IDLE || msg->start->session.len != KB_ULID_SIZE)
		return;
	memcpy(s->id, msg->start->session.data, KB_ULID_SIZE);
	s->state = STARTING;
	r = kb_recorder_create(s->loop, s->channel, s->id, &recorder_ops, s, &s->recorder, &err);
	if (r == 0)
		r = add_member(s, 0, msg->start->process, &first, &err);
	if (r == 0)
		r = start_container(s, msg->start, &err);
	if (r < 0) {
		s->container_gone = true;
		end_because(s, &err);
		first = first_process(s);
		if (first)
			member_exited(s, first, SIGKILL);
		check_over(s);
	}
}

static void handle_exec(struct kb_session *s, Kb__ToGuest *msg)
{
	struct kb_err err = {0};
	struct kb_member *m = NULL;
	size_t n = 0;
	int r;

	sweep_members(s);
	for (struct kb_member *at = s->members; at; at = at->next)
		n++;
	if (s->state != RUNNING)
		r = kb_err_set(&err, KB_ERR_CLOSED, "the session is not running");
	else if (n > EXEC_MAX)
		r = kb_err_set(
			&err, KB_ERR_LIMIT, "%d further processes run in this session", EXEC_MAX);
	else if (msg->exec->process_id == 0 || find_member(s, msg->exec->process_id))
		r = kb_err_set(&err, KB_ERR_INVALID, "this process id is taken");
	else
		r = add_member(s, msg->exec->process_id, msg->exec->process, &m, &err);
	if (r == 0)
		r = launch(s, m, msg->exec->process, &err);
	if (r < 0 && m) {
		m->failure = err;
		m->exited = true;
		kb_process_exited(m->process);
	} else if (r < 0) {
		kb_session_send_failed(s, msg->exec->process_id, &err);
	}
}

static void handle_resize(struct kb_session *s, Kb__ToGuest *msg)
{
	struct kb_member *m = find_member(s, msg->resize->process_id);

	if (m)
		kb_process_resize(m->process, (uint16_t)msg->resize->size->rows,
			(uint16_t)msg->resize->size->cols);
}

static void handle_signal(struct kb_session *s, Kb__ToGuest *msg)
{
	struct kb_member *m = find_member(s, msg->signal->process_id);

	if (m && !m->exited && s->state < ENDING && s->container &&
		msg->signal->signal < (uint32_t)NSIG)
		(void)kb_initlink_signal(
			kb_container_control(s->container), m->id, (int)msg->signal->signal, NULL);
}

static void handle_stop(struct kb_session *s, Kb__ToGuest *msg)
{
	const char *reason = msg->stop->reason ? msg->stop->reason : "stopped";
	const struct kb_member *first;
	struct kb_err err = {0};
	int control;

	if (s->state >= ENDING) {
		kb_source_arm(s->stop_timer, msg->stop->now ? 0 : DRAIN_GRACE_MS, NULL);
		return;
	}
	if (s->reason[0] == '\0')
		snprintf(s->reason, sizeof(s->reason), "%s", reason);
	if (msg->stop->now || s->state != RUNNING) {
		kb_err_set(&err, KB_ERR_CLOSED, "%s", reason);
		end_because(s, &err);
		kb_source_arm(s->stop_timer, DRAIN_GRACE_MS, NULL);
		return;
	}
	/* Interactive shells ignore SIGTERM; what ends them is the terminal's hanging up. */
	control = kb_container_control(s->container);
	first = first_process(s);
	(void)kb_initlink_signal_all(control, SIGTERM, NULL);
	if (first && first->tty)
		(void)kb_initlink_signal_all(control, SIGHUP, NULL);
	(void)kb_initlink_signal_all(control, SIGCONT, NULL);
	kb_source_arm(s->stop_timer, STOP_GRACE_MS, NULL);
}

static void handle_attached(struct kb_session *s, Kb__ToGuest *msg)
{
	struct kb_member *first = first_process(s);
	char text[256];

	if (s->attached == msg->attached->attached || s->state == OVER)
		return;
	s->attached = msg->attached->attached;
	snprintf(text, sizeof(text), "%s%s%s", s->attached ? "attached" : "detached",
		msg->attached->who ? " by " : "", msg->attached->who ? msg->attached->who : "");
	if (s->state == RUNNING)
		kb_recorder_say(s->recorder, KB_EVENT_ATTACH, text);
	if (first)
		kb_process_attach(first->process, s->attached);
}

static void handle_egress(struct kb_session *s, Kb__ToGuest *msg)
{
	if (s->egress)
		kb_egress_message(s->egress, msg->egress);
}

static void handle_inbound(struct kb_session *s, Kb__ToGuest *msg)
{
	struct kb_inbound_options options = {
		.bundle = s->setup.bundle, .recorder = s->recorder, .inside = s->egress != NULL};
	struct kb_err err;

	if (s->state != RUNNING)
		return;
	options.init = kb_container_init_pid(s->container);
	memcpy(options.session, s->id, sizeof(options.session));
	if (!s->inbound &&
		kb_inbound_create(s->loop, s->channel, &options, &s->inbound, &err) < 0) {
		end_because(s, &err);
		return;
	}
	kb_inbound_message(s->inbound, msg->inbound);
}

static void handle_answer(struct kb_session *s, Kb__ToGuest *msg)
{
	const Kb__Answer *answer = msg->answer;

	if (s->lanes.notify && answer->verdict < KB_ANSWER_MAX_)
		kb_notify_answer(s->lanes.notify, answer->number,
			(enum kb_asked_answer)answer->verdict, answer->note);
}

static void (*const handlers[])(struct kb_session *, Kb__ToGuest *) = {
	[KB__TO_GUEST__BODY_EGRESS] = handle_egress,
	[KB__TO_GUEST__BODY_START] = handle_start,
	[KB__TO_GUEST__BODY_EXEC] = handle_exec,
	[KB__TO_GUEST__BODY_RESIZE] = handle_resize,
	[KB__TO_GUEST__BODY_SIGNAL] = handle_signal,
	[KB__TO_GUEST__BODY_STOP] = handle_stop,
	[KB__TO_GUEST__BODY_ATTACHED] = handle_attached,
	[KB__TO_GUEST__BODY_ANSWER] = handle_answer,
	[KB__TO_GUEST__BODY_INBOUND] = handle_inbound,
};

static int on_message(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len,
	int fd, void *arg, struct kb_err *err)
{
	struct kb_session *s = arg;
	Kb__ToGuest *msg = kb__to_guest__unpack(NULL, len, data);

	kb_close(&fd);
	if (!msg)
		return kb_err_set(err, KB_ERR_INVALID, "a message of the host is malformed");
	if ((size_t)msg->body_case < KB_ARRAY_LEN(handlers) && handlers[msg->body_case])
		handlers[msg->body_case](s, msg);
	/* The first process's part is needed once the container is up. */
	if (msg->body_case == KB__TO_GUEST__BODY_START && s->state == STARTING && !s->start)
		s->start = msg;
	else
		kb__to_guest__free_unpacked(msg, NULL);
	return 0;
}

static void on_closed(struct kb_channel *ch, const struct kb_err *why, void *arg)
{
	struct kb_session *s = arg;

	/* Over, or nobody to report to any more: what is left goes when this process does, because
	 * kbsup-init exits with its control socket. */
	if (why)
		kb_log_warn("session: %s", why->msg);
	s->host_gone = true;
	kb_loop_stop(s->loop);
}

static const struct kb_channel_ops channel_ops = {.message = on_message, .closed = on_closed};

/* ---- The process ----------------------------------------------------------------------------- */

static int run(struct kb_session *s, struct kb_err *err)
{
	int r = kb_loop_create(&s->loop, err);

	if (r == 0)
		r = kb_loop_timer(s->loop, on_time_up, s, &s->limit_timer, err);
	if (r == 0)
		r = kb_loop_timer(s->loop, on_stop_timer, s, &s->stop_timer, err);
	if (r == 0 && s->options->bpf)
		r = kb_lanes_prepare(&s->lanes, KB_SESSION_FD + 1, s->options->seat, err);
	if (r == 0)
		r = kb_channel_create(s->loop, KB_SESSION_FD, &channel_ops, s, &s->channel, err);
	return r < 0 ? r : kb_loop_run(s->loop, err);
}

/* The channel went away in the middle: bring the container down without anybody to tell. */
static void take_down(struct kb_session *s)
{
	if (!s->container || s->container_gone)
		return;
	s->host_gone = true;
	kb_container_stop(s->container);
	if (!s->container_gone)
		(void)kb_loop_run(s->loop, NULL);
	kb_statedir_remove_own(s->options->state, s->setup.container_name);
}

static void finish(struct kb_session *s)
{
	kb_lanes_finish(&s->lanes);
	kb_egress_destroy(s->egress);
	kb_inbound_destroy(s->inbound);
	kb_recorder_destroy(s->recorder);
	while (s->members) {
		struct kb_member *m = s->members;

		s->members = m->next;
		member_destroy(m);
	}
	kb_container_destroy(s->container);
	kb_setup_finish(&s->setup);
	kb_lines_finish(&s->effective);
	if (s->start)
		kb__to_guest__free_unpacked(s->start, NULL);
	kb_channel_destroy(s->channel);
	kb_source_destroy(s->limit_timer);
	kb_source_destroy(s->stop_timer);
	kb_loop_destroy(s->loop);
}

int kb_session_main(const struct kb_setup_options *options)
{
	struct kb_session s = {.options = options, .lock = -1, .attached = true};
	struct kb_err err = {0};

	umask(022);
	signal(SIGPIPE, SIG_IGN);
	if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
		return 1;
	if (run(&s, &err) < 0) {
		kb_log_error("session: %s", err.msg);
		return 1;
	}
	take_down(&s);
	finish(&s);
	return 0;
}
