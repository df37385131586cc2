/* One session as the guest's parent sees it: messages and streams pass through, records get their
 * numbers and are kept until acknowledged, and the end is told only when it has come true.
 *
 * The order the host sees: a process's output, then its Exited; all records, then Ended; and Ended
 * when the child process is reaped and its directory and control groups are gone. A child that dies
 * without its last words gets them from here.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/base/egress.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/inbound.h"
#include "supervisor/base/log.h"
#include "supervisor/base/spawn.h"
#include "supervisor/base/util.h"
#include "supervisor/guest/cgroup.h"
#include "supervisor/guest/guest_private.h"
#include "supervisor/guest/session.h"
#include "supervisor/guest/statedir.h"

#define NO_PROCESS UINT64_MAX
/* What the session process may know of our environment: where kbsup's own files are. */
static const char *const passed_env[] = {
	"HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "KBSUP_LOG"};

/* ---- Messages to the host -------------------------------------------------------------------- */

static void check_over(struct kb_child *c);

static void pass_on(struct kb_child *c, uint64_t process, const uint8_t *data, size_t len)
{
	struct kb_err err = {0};

	if (!c->guest->closing && kb_channel_send_bytes(c->guest->link, 0, data, len, &err) < 0)
		kb_log_error("a message to the host is lost: %s", err.msg);
	if (process != NO_PROCESS)
		kb_relays_forget_process(&c->relays, process);
}

static bool is_its_turn(const struct kb_child *c, uint64_t process)
{
	return process == NO_PROCESS || kb_relays_are_flushed(&c->relays, process);
}

static void release_held(struct kb_child *c)
{
	while (c->held && is_its_turn(c, c->held->process)) {
		struct kb_held *h = c->held;

		c->held = h->next;
		if (!c->held)
			c->held_tail = &c->held;
		pass_on(c, h->process, h->data, h->len);
		free(h);
	}
}

static void on_flushed(void *arg)
{
	release_held(arg);
	check_over(arg);
}

/* In order, and not before the process's output. */
static void pass_in_order(struct kb_child *c, uint64_t process, const uint8_t *data, size_t len)
{
	struct kb_held *h;

	if (!c->held && is_its_turn(c, process)) {
		pass_on(c, process, data, len);
		return;
	}
	h = malloc(sizeof(*h) + len);
	if (!h) {
		pass_on(c, process, data, len);
		return;
	}
	*h = (struct kb_held){.process = process, .len = len};
	memcpy(h->data, data, len);
	*c->held_tail = h;
	c->held_tail = &h->next;
}

/* ---- Records --------------------------------------------------------------------------------- */

static int send_block(struct kb_child *c, struct kb_spool_block *block)
{
	Kb__Records records = KB__RECORDS__INIT;
	Kb__FromGuest msg = KB__FROM_GUEST__INIT;

	records.session = (ProtobufCBinaryData){.data = c->session, .len = KB_ULID_SIZE};
	records.first_seq = block->first_seq;
	records.count = block->count;
	records.block = (ProtobufCBinaryData){.data = block->data, .len = block->len};
	records.has_denials = block->denials > 0;
	records.denials = block->denials;
	msg.body_case = KB__FROM_GUEST__BODY_RECORDS;
	msg.records = &records;
	return kb_channel_send(c->guest->link, 0, &msg.base, -1, NULL);
}

void kb_child_send_records(struct kb_child *c)
{
	bool full;

	if (c->guest->closing)
		return;
	while (c->spool.unsent && kb_channel_queued(c->guest->link) < KB_LINK_RECORDS_HIGH &&
		send_block(c, c->spool.unsent) == 0)
		kb_spool_sent(&c->spool);
	if (c->spool.unsent)
		kb_source_arm(c->guest->retry_timer, 1, NULL);
	full = kb_spool_is_full(&c->spool);
	if (c->channel && full != c->paused) {
		c->paused = full;
		kb_channel_pause(c->channel, full);
	}
}

void kb_child_acked(struct kb_child *c, uint64_t seq)
{
	kb_spool_ack(&c->spool, seq);
	kb_child_send_records(c);
}

static int take_records(struct kb_child *c, const Kb__FromGuest *msg, struct kb_err *err)
{
	const Kb__Records *r = msg->records;
	int e = kb_spool_add(&c->spool, r->block.data, r->block.len, r->count,
		r->has_denials ? r->denials : 0, err);

	if (e == 0)
		kb_child_send_records(c);
	return e;
}

/* A record of lane runtime that the child did not live to write. */
static void add_record(struct kb_child *c, enum kb_event event, const char *text)
{
	struct kb_record record = {
		.time = (uint64_t)kb_now_real(),
		.event = event,
		.lane = KB_LANE_RUNTIME,
		.syscall = -1,
		.rule = KB_RULE_NONE,
		.has_exit_code = event == KB_EVENT_END,
		.exit_code = c->exit_code,
		.signal = event == KB_EVENT_END ? c->signal : 0,
		.text = {(const uint8_t *)text, strlen(text)},
	};
	struct kb_block block;

	kb_block_init(&block);
	if (kb_block_add(&block, &record, NULL) == 0)
		(void)kb_spool_add(&c->spool, kb_buf_data(&block.buf), kb_buf_len(&block.buf),
			block.count, block.denials, NULL);
	kb_block_finish(&block);
}

/* ---- The end --------------------------------------------------------------------------------- */

static void send_ended(struct kb_child *c)
{
	Kb__Ended ended = KB__ENDED__INIT;
	Kb__FromGuest msg = KB__FROM_GUEST__INIT;

	ended.session = (ProtobufCBinaryData){.data = c->session, .len = KB_ULID_SIZE};
	ended.exit_code = c->exit_code;
	ended.has_signal = c->signal != 0;
	ended.signal = c->signal;
	ended.last_seq = c->spool.last_seq;
	ended.reason = c->reason;
	msg.body_case = KB__FROM_GUEST__BODY_ENDED;
	msg.ended = &ended;
	kb_guest_send(c->guest, &msg);
}

static bool no_output_left(const struct kb_child *c)
{
	return !c->held && !c->spool.unsent;
}

/* Reaped, nothing of it left, its channel read to the end and everything passed on: the last word.
 */
static void check_over(struct kb_child *c)
{
	struct kb_err why = {0};

	if (c->over || c->pid != 0 || c->channel || c->awaits_orphans ||
		(!no_output_left(c) && !c->guest->closing))
		return;
	c->over = true;
	if (c->guest->closing) {
		;
	} else if (c->failed) {
		pass_on(c, NO_PROCESS, c->failed, c->failed_len);
	} else if (!c->started) {
		kb_err_set(&why, KB_ERR_FAILED, "%s", c->reason ? c->reason : "it ended early");
		kb_guest_send_failed(c->guest, c->session, 0, &why);
	} else {
		send_ended(c);
	}
	kb_guest_child_over(c->guest);
}

static void on_grace(void *arg)
{
	struct kb_child *c = arg;

	if (c->pid > 0 && !c->channel)
		kill(c->pid, SIGKILL);
	kb_relays_abandon(&c->relays);
	release_held(c);
	check_over(c);
}

void kb_child_check(struct kb_child *c)
{
	check_over(c);
}

static int is_dead_child(const char *name, void *arg)
{
	const struct kb_child *c = arg;

	return strcmp(name, c->name) == 0;
}

/* The child died without finishing: what it left, and what it would have said. */
static void clean_up_after(struct kb_child *c)
{
	char how[KB_EXIT_TEXT];

	if (c->guest->closing && c->status == 0)
		return;
	kb_exit_describe(c->status, how);
	kb_log_warn("the process of session %s died (%s)", c->name, how);
	kb_cgroups_sweep(is_dead_child, c);
	c->exit_code = 128 + SIGKILL;
	c->signal = SIGKILL;
	free(c->reason);
	c->reason = kb_asprintf("the session's own process died (%s)", how);
	add_record(c, KB_EVENT_LOSS, "records not yet handed over went with the process");
	add_record(c, KB_EVENT_END, c->reason ? c->reason : how);
	kb_child_send_records(c);
}

/* Both its death and the end of its channel were seen, in either order. */
void kb_child_settle(struct kb_child *c)
{
	bool crashed = c->name[0] && !c->ended && !c->failed;

	if (c->pid != 0 || c->channel || c->over)
		return;
	c->awaits_orphans = crashed && kb_guest_kill_orphans(c->guest) > 0;
	if (c->awaits_orphans)
		return;
	if (crashed)
		clean_up_after(c);
	if (c->name[0])
		kb_statedir_release(c->guest->options->state, c->name);
	if (!c->name[0])
		c->over = true; /* the spare: it had no session */
	kb_source_arm(c->grace, KB_RELAY_GRACE_MS, NULL);
	release_held(c);
	check_over(c);
	if (c->over)
		kb_guest_child_over(c->guest);
}

void kb_child_reaped(struct kb_child *c, int status)
{
	c->pid = 0;
	c->status = status;
	kb_child_settle(c);
}

void kb_child_hang_up(struct kb_child *c)
{
	kb_relays_finish(&c->relays);
	kb_channel_destroy(c->channel);
	c->channel = NULL;
	kb_child_settle(c);
}

/* ---- Messages of the child ------------------------------------------------------------------- */

static void take_ended(struct kb_child *c, const Kb__Ended *ended)
{
	c->ended = true;
	c->exit_code = ended->exit_code;
	c->signal = ended->has_signal ? ended->signal : 0;
	c->reason = ended->reason ? strdup(ended->reason) : NULL;
}

/* That the session could not start is its last word: it waits until everything is gone. */
static int keep_failed(struct kb_child *c, const uint8_t *data, size_t len, struct kb_err *err)
{
	if (c->failed)
		return 0;
	c->failed = malloc(len);
	if (!c->failed)
		return kb_err_nomem(err);
	memcpy(c->failed, data, len);
	c->failed_len = len;
	return 0;
}

static int open_egress(struct kb_child *c, uint32_t stream, struct kb_err *err)
{
	if (!c->has_egress || stream - c->egress_base >= KB_EGRESS_STREAMS)
		return kb_err_set(
			err, KB_ERR_INVALID, "a connection's stream is not the session's");
	return kb_relays_connection(&c->relays, stream, err);
}

static int take_egress(struct kb_child *c, const Kb__Egress *msg, const uint8_t *data, size_t len,
	struct kb_err *err)
{
	int r = kb_egress_opens(msg->kind) ? open_egress(c, msg->stream, err) : 0;

	if (r == 0)
		pass_on(c, NO_PROCESS, data, len);
	return r;
}

static int take_inbound(struct kb_child *c, const Kb__Inbound *msg, const uint8_t *data, size_t len)
{
	if (msg->kind == KB_INBOUND_REFUSED)
		kb_relays_forget_connection(&c->relays, msg->stream);
	pass_on(c, NO_PROCESS, data, len);
	return 0;
}

static int take_message(struct kb_child *c, const Kb__FromGuest *msg, const uint8_t *data,
	size_t len, struct kb_err *err)
{
	switch (msg->body_case) {
	case KB__FROM_GUEST__BODY_RECORDS:
		return take_records(c, msg, err);
	case KB__FROM_GUEST__BODY_ENDED:
		take_ended(c, msg->ended);
		return 0;
	case KB__FROM_GUEST__BODY_STARTED:
		c->started |= msg->started->process_id == 0;
		pass_in_order(c, NO_PROCESS, data, len);
		return 0;
	case KB__FROM_GUEST__BODY_FAILED:
		if (msg->failed->process_id == 0)
			return keep_failed(c, data, len, err);
		pass_in_order(c, msg->failed->process_id, data, len);
		return 0;
	case KB__FROM_GUEST__BODY_EGRESS:
		return take_egress(c, msg->egress, data, len, err);
	case KB__FROM_GUEST__BODY_INBOUND:
		return take_inbound(c, msg->inbound, data, len);
	case KB__FROM_GUEST__BODY_QUESTION:
	case KB__FROM_GUEST__BODY_QUESTION_OVER:
		pass_in_order(c, NO_PROCESS, data, len);
		return 0;
	case KB__FROM_GUEST__BODY_EXITED:
		pass_in_order(c, msg->exited->process_id, data, len);
		return 0;
	default:
		return kb_err_set(err, KB_ERR_INVALID, "a session said what it cannot");
	}
}

static int on_message(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len,
	int fd, void *arg, struct kb_err *err)
{
	struct kb_child *c = arg;
	Kb__FromGuest *msg = kb__from_guest__unpack(NULL, len, data);
	int r;

	kb_close(&fd);
	if (!msg)
		return kb_err_set(err, KB_ERR_INVALID, "a session's message is malformed");
	r = take_message(c, msg, data, len, err);
	kb__from_guest__free_unpacked(msg, NULL);
	return r;
}

static void on_closed(struct kb_channel *ch, const struct kb_err *why, void *arg)
{
	struct kb_child *c = arg;

	if (why)
		kb_log_warn("session %s: %s", c->name, why->msg);
	kb_relays_detach(&c->relays);
	c->channel = NULL;
	kb_channel_destroy(ch);
	/* It follows its channel within moments, or is made to. */
	kb_source_arm(c->grace, KB_RELAY_GRACE_MS, NULL);
	kb_child_settle(c);
}

static const struct kb_channel_ops child_ops = {.message = on_message, .closed = on_closed};

/* ---- Life ------------------------------------------------------------------------------------ */

static bool seat_taken(const struct kb_guest *g, unsigned seat)
{
	for (const struct kb_child *c = g->children; c; c = c->next)
		if (c->seat == seat)
			return true;
	return g->spare && g->spare->seat == seat;
}

/* The lowest that is free: there are more than sessions. */
static char *place_argument(struct kb_child *c)
{
	const struct kb_guest *g = c->guest;

	if (!g->hub)
		return kb_asprintf("--no-bpf=%s", g->no_bpf);
	for (c->seat = 0; seat_taken(g, c->seat);)
		c->seat++;
	return kb_asprintf("--seat=%u", c->seat);
}

static size_t list_fds(
	const struct kb_child *c, int socket, struct kb_spawn_fd fds[2 + KB_BPF_HUB_FDS])
{
	int hub[KB_BPF_HUB_FDS];
	size_t n = 0;

	fds[n++] = (struct kb_spawn_fd){socket, KB_SESSION_FD};
	fds[n++] = (struct kb_spawn_fd){STDERR_FILENO, STDERR_FILENO};
	if (!c->guest->hub)
		return n;
	kb_bpf_hub_fds(c->guest->hub, hub);
	for (int i = 0; i < KB_BPF_HUB_FDS; i++)
		fds[n++] = (struct kb_spawn_fd){hub[i], KB_SESSION_FD + 1 + i};
	return n;
}

/* Starts the process with its end of the socket pair, in a known environment. */
static int spawn(struct kb_child *c, int socket, struct kb_err *err)
{
	const struct kb_guest_options *o = c->guest->options;
	KB_FREE char *state = kb_asprintf("--state=%s", o->state);
	KB_FREE char *init = kb_asprintf("--init=%s", o->init);
	KB_FREE char *runtime = kb_asprintf("--runtime=%s", c->guest->runtime.path);
	KB_FREE char *cgroups = kb_asprintf("--cgroups=%u", c->guest->runtime.cgroups);
	KB_FREE char *place = place_argument(c);
	const char *const argv[] = {
		"kbsup-guest", "--role=session", state, init, runtime, cgroups, place, NULL};
	char *env[KB_ARRAY_LEN(passed_env) + 1] = {0};
	struct kb_spawn_fd fds[2 + KB_BPF_HUB_FDS];
	struct kb_spawn spawn = {.path = "/proc/self/exe",
		.argv = argv,
		.env = (const char *const *)env,
		.fds = fds,
		.n_fds = list_fds(c, socket, fds)};
	size_t n = 0;
	int r;

	if (!state || !init || !runtime || !cgroups || !place)
		return kb_err_nomem(err);
	for (size_t i = 0; i < KB_ARRAY_LEN(passed_env); i++) {
		const char *value = getenv(passed_env[i]);

		if (value && (env[n] = kb_asprintf("%s=%s", passed_env[i], value)))
			n++;
	}
	r = kb_spawn(&spawn, &c->pid, err);
	for (size_t i = 0; i < n; i++)
		free(env[i]);
	return r;
}

int kb_child_spawn(struct kb_guest *g, struct kb_child **ret, struct kb_err *err)
{
	struct kb_child *c = calloc(1, sizeof(*c));
	KB_CLOSE int theirs = -1;
	int pair[2], r;

	if (!c)
		return kb_err_nomem(err);
	c->guest = g;
	c->held_tail = &c->held;
	r = kb_fd_socketpair(false, pair, err);
	if (r < 0) {
		free(c);
		return r;
	}
	theirs = pair[1];
	r = kb_channel_create(g->loop, pair[0], &child_ops, c, &c->channel, err);
	kb_relays_init(&c->relays, g->link, c->channel, on_flushed, c);
	if (r == 0)
		r = kb_loop_timer(g->loop, on_grace, c, &c->grace, err);
	if (r == 0)
		r = spawn(c, theirs, err);
	if (r < 0) {
		kb_child_destroy(c);
		return r;
	}
	*ret = c;
	return 0;
}

int kb_child_send(struct kb_child *c, const uint8_t *data, size_t len, struct kb_err *err)
{
	if (!c->channel)
		return kb_err_set(err, KB_ERR_CLOSED, "the session has ended");
	return kb_channel_send_bytes(c->channel, 0, data, len, err);
}

int kb_child_inbound(struct kb_child *c, const Kb__Inbound *msg, const uint8_t *data, size_t len,
	struct kb_err *err)
{
	int r = 0;

	if (!c->channel)
		return kb_err_set(err, KB_ERR_CLOSED, "the session has ended");
	if (msg->kind == KB_INBOUND_CONNECT)
		r = kb_relays_connection(&c->relays, msg->stream, err);
	return r < 0 ? r : kb_child_send(c, data, len, err);
}

int kb_child_start(struct kb_child *c, const Kb__StartSession *msg, const uint8_t *data, size_t len,
	struct kb_err *err)
{
	char id[KB_ULID_TEXT];
	int r;

	memcpy(c->session, msg->session.data, KB_ULID_SIZE);
	kb_ulid_format(c->session, id);
	c->has_egress = msg->has_egress;
	c->egress_base = msg->egress;
	r = kb_relays_process(&c->relays, 0, msg->process, err);
	if (r == 0)
		r = kb_child_send(c, data, len, err);
	if (r == 0)
		snprintf(c->name, sizeof(c->name), KB_CGROUP_PREFIX "%s", id);
	return r;
}

int kb_child_exec(struct kb_child *c, const Kb__ExecProcess *msg, const uint8_t *data, size_t len,
	struct kb_err *err)
{
	int r;

	if (!c->channel)
		return kb_err_set(err, KB_ERR_CLOSED, "the session has ended");
	r = kb_relays_process(&c->relays, msg->process_id, msg->process, err);
	return r < 0 ? r : kb_child_send(c, data, len, err);
}

void kb_child_destroy(struct kb_child *c)
{
	struct kb_held *h;

	if (!c)
		return;
	kb_relays_finish(&c->relays);
	while ((h = c->held)) {
		c->held = h->next;
		free(h);
	}
	kb_channel_destroy(c->channel);
	kb_source_destroy(c->grace);
	kb_spool_finish(&c->spool);
	free(c->failed);
	free(c->reason);
	free(c);
}
