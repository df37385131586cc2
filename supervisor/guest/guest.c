#include "supervisor/guest/guest.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/base/build.h"
#include "supervisor/base/log.h"
#include "supervisor/base/util.h"
#include "supervisor/guest/cgroup.h"
#include "supervisor/guest/emulator.h"
#include "supervisor/guest/guest_private.h"
#include "supervisor/guest/setup.h"
#include "supervisor/guest/statedir.h"

#define ORPHANS_MAX	1024 /* looked at in one round */
#define LINK_PROTOCOL	1
#define SPARE_DELAY_MS	100  /* after a start, so as not to compete with it */
#define DETACH_DELAY_MS 5000 /* after the last session */
#define RESWEEP_MS	1000
#define CLOSE_GRACE_MS	5000 /* for sessions to end after the link closed; then they are killed */

/* ---- Messages to the host -------------------------------------------------------------------- */

void kb_guest_send(struct kb_guest *g, const Kb__FromGuest *msg)
{
	struct kb_err err = {0};

	if (!g->closing && kb_channel_send(g->link, 0, &msg->base, -1, &err) < 0)
		kb_log_error("a message to the host is lost: %s", err.msg);
}

void kb_guest_send_failed(
	struct kb_guest *g, const uint8_t *session, uint64_t process, struct kb_err *why)
{
	Kb__LinkError error = KB__LINK_ERROR__INIT;
	Kb__StartFailed failed = KB__START_FAILED__INIT;
	Kb__FromGuest msg = KB__FROM_GUEST__INIT;

	error.code = why->code;
	error.message = why->msg;
	error.hint = why->hint[0] ? why->hint : NULL;
	failed.session = (ProtobufCBinaryData){.data = (uint8_t *)session, .len = KB_ULID_SIZE};
	failed.process_id = process;
	failed.error = &error;
	msg.body_case = KB__FROM_GUEST__BODY_FAILED;
	msg.failed = &failed;
	kb_guest_send(g, &msg);
}

static const struct {
	unsigned cgroup;
	const char *text;
} limit_texts[] = {
	{KB_CGROUP_MEMORY, "memory: no control group can be made for it here"},
	{KB_CGROUP_PIDS, "processes: no control group can be made for it here"},
	{KB_CGROUP_CPU, "cpu: no control group can be made for it here"},
};

static void send_hello(struct kb_guest *g)
{
	char *missing[KB_ARRAY_LEN(limit_texts)];
	Kb__Hello hello = KB__HELLO__INIT;
	Kb__FromGuest msg = KB__FROM_GUEST__INIT;
	struct utsname uts;

	hello.limits_missing = missing;
	for (size_t i = 0; i < KB_ARRAY_LEN(limit_texts); i++)
		if (!(g->runtime.cgroups & limit_texts[i].cgroup))
			missing[hello.n_limits_missing++] = (char *)limit_texts[i].text;
	hello.protocol = LINK_PROTOCOL;
	hello.build = (char *)kb_build_id();
	hello.runtime = g->runtime.path[0] ? g->runtime.version : NULL;
	hello.runtime_why = g->runtime.why;
	hello.has_arch = 1;
	hello.arch = kb_arch_native();
	hello.has_landlock_abi = 1;
	hello.landlock_abi = (uint32_t)kb_landlock_abi();
	if (uname(&uts) == 0)
		hello.kernel = uts.release;
	hello.has_rootless = 1;
	hello.rootless = geteuid() != 0;
	msg.body_case = KB__FROM_GUEST__BODY_HELLO;
	msg.hello = &hello;
	kb_guest_send(g, &msg);
}

/* ---- Children -------------------------------------------------------------------------------- */

static struct kb_child *find_child(struct kb_guest *g, ProtobufCBinaryData session)
{
	if (session.len != KB_ULID_SIZE)
		return NULL;
	for (struct kb_child *c = g->children; c; c = c->next)
		if (memcmp(c->session, session.data, KB_ULID_SIZE) == 0)
			return c;
	return NULL;
}

static size_t count_children(const struct kb_guest *g)
{
	size_t n = 0;

	for (const struct kb_child *c = g->children; c; c = c->next)
		n++;
	return n;
}

static void on_retry(void *arg)
{
	struct kb_guest *g = arg;
	struct kb_child **at = &g->children;

	while (*at) {
		struct kb_child *c = *at;

		if (c->over) {
			*at = c->next;
			if (g->hub)
				kb_bpf_hub_release(g->hub, c->seat);
			/* Nothing to compete with any more. */
			if (c->name[0] && !g->spare && !g->closing)
				kb_source_arm(g->spare_timer, 0, NULL);
			kb_child_destroy(c);
			continue;
		}
		kb_child_send_records(c);
		kb_child_check(c);
		at = &c->next;
	}
	if (g->hub && !g->children)
		kb_source_arm(g->detach_timer, DETACH_DELAY_MS, NULL);
	if (g->closing && !g->children && !g->spare)
		kb_loop_stop(g->loop);
}

/* Attached, lane bpf costs every process of this machine a little with each call; attaching right
 * after a detaching costs a session's start some milliseconds (the kernel waits for all
 * processors). */
static void on_detach_timer(void *arg)
{
	struct kb_guest *g = arg;

	if (!g->children)
		kb_bpf_hub_detach(g->hub);
}

void kb_guest_child_over(struct kb_guest *g)
{
	/* Never from within its own callbacks. */
	kb_source_arm(g->retry_timer, 0, NULL);
}

static void make_spare(void *arg)
{
	struct kb_guest *g = arg;
	struct kb_err err = {0};

	if (!g->spare && !g->closing && g->runtime.path[0] &&
		kb_child_spawn(g, &g->spare, &err) < 0)
		kb_log_warn("%s", err.msg);
}

unsigned kb_guest_kill_orphans(struct kb_guest *g)
{
	pid_t pids[ORPHANS_MAX];
	unsigned left = 0;
	char path[64];
	size_t n;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	n = kb_pids_read(path, pids, ORPHANS_MAX);
	for (size_t i = 0; i < n; i++) {
		bool known = g->spare && g->spare->pid == pids[i];

		for (const struct kb_child *c = g->children; c && !known; c = c->next)
			known = c->pid == pids[i];
		if (!known && kill(pids[i], SIGKILL) == 0)
			left++;
	}
	return left;
}

static struct kb_child *child_of(struct kb_guest *g, pid_t pid)
{
	if (g->spare && g->spare->pid == pid)
		return g->spare;
	for (struct kb_child *c = g->children; c; c = c->next)
		if (c->pid == pid)
			return c;
	return NULL;
}

static void on_child(int signo, void *arg)
{
	struct kb_guest *g = arg;
	bool died_early = false;
	struct kb_child *c;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		c = child_of(g, pid);
		died_early |= !c || status != 0;
		if (!c)
			continue;
		if (c == g->spare) {
			g->spare = NULL;
			c->next = g->children;
			g->children = c;
			kb_source_arm(g->spare_timer, SPARE_DELAY_MS, NULL);
		}
		kb_child_reaped(c, status);
	}
	if (died_early)
		kb_guest_kill_orphans(g);
	for (c = g->children; c; c = c->next)
		if (c->awaits_orphans)
			kb_child_settle(c);
}

/* ---- Messages of the host -------------------------------------------------------------------- */

struct request {
	Kb__ToGuest *msg;
	const uint8_t *data;
	size_t len;
};

static int take_child(struct kb_guest *g, struct kb_child **ret, struct kb_err *err)
{
	int r = 0;

	if (!g->runtime.path[0]) {
		kb_err_set(
			err, KB_ERR_REFUSED, "no container runtime works here: %s", g->runtime.why);
		return kb_err_hint(err, "install runc or crun; kbsup doctor tries every layer");
	}
	if (count_children(g) >= KB_GUEST_SESSIONS_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "%d sessions run on this machine already",
			KB_GUEST_SESSIONS_MAX);
	*ret = g->spare;
	g->spare = NULL;
	if (!*ret)
		r = kb_child_spawn(g, ret, err);
	if (r < 0)
		return r;
	(*ret)->next = g->children;
	g->children = *ret;
	return 0;
}

static int handle_start(struct kb_guest *g, const struct request *req, struct kb_err *err)
{
	const Kb__StartSession *start = req->msg->start;
	struct kb_err why = {0};
	struct kb_child *c = NULL;
	int r;

	if (start->session.len != KB_ULID_SIZE)
		return kb_err_set(err, KB_ERR_INVALID, "a session has no id");
	if (find_child(g, start->session))
		r = kb_err_set(&why, KB_ERR_EXISTS, "this session is running already");
	else
		r = take_child(g, &c, &why);
	if (r == 0 && g->hub)
		r = kb_bpf_hub_attach(g->hub, &why);
	if (r == 0)
		r = kb_child_start(c, start, req->data, req->len, &why);
	if (r < 0) {
		kb_guest_send_failed(g, start->session.data, 0, &why);
		if (c)
			kb_child_hang_up(c);
	}
	kb_source_arm(g->spare_timer, SPARE_DELAY_MS, NULL);
	return 0;
}

static int handle_exec(struct kb_guest *g, const struct request *req, struct kb_err *err)
{
	const Kb__ExecProcess *exec = req->msg->exec;
	struct kb_child *c = find_child(g, exec->session);
	struct kb_err why = {0};
	int r;

	if (exec->session.len != KB_ULID_SIZE)
		return kb_err_set(err, KB_ERR_INVALID, "a session has no id");
	r = c ? kb_child_exec(c, exec, req->data, req->len, &why)
	      : kb_err_set(&why, KB_ERR_NOTFOUND, "there is no such session on this machine");
	if (r < 0)
		kb_guest_send_failed(g, exec->session.data, exec->process_id, &why);
	return 0;
}

static int pass_to(struct kb_guest *g, ProtobufCBinaryData session, const struct request *req)
{
	struct kb_child *c = find_child(g, session);
	struct kb_err err = {0};

	/* It may have ended while this was on its way. */
	if (c && kb_child_send(c, req->data, req->len, &err) < 0)
		kb_log_debug("%s", err.msg);
	return 0;
}

static int handle_resize(struct kb_guest *g, const struct request *req, struct kb_err *err)
{
	return pass_to(g, req->msg->resize->session, req);
}

static int handle_signal(struct kb_guest *g, const struct request *req, struct kb_err *err)
{
	return pass_to(g, req->msg->signal->session, req);
}

static int handle_stop(struct kb_guest *g, const struct request *req, struct kb_err *err)
{
	return pass_to(g, req->msg->stop->session, req);
}

static int handle_attached(struct kb_guest *g, const struct request *req, struct kb_err *err)
{
	return pass_to(g, req->msg->attached->session, req);
}

static int handle_answer(struct kb_guest *g, const struct request *req, struct kb_err *err)
{
	return pass_to(g, req->msg->answer->session, req);
}

static int handle_ack(struct kb_guest *g, const struct request *req, struct kb_err *err)
{
	struct kb_child *c = find_child(g, req->msg->ack->session);

	if (c)
		kb_child_acked(c, req->msg->ack->seq);
	return 0;
}

static int handle_egress(struct kb_guest *g, const struct request *req, struct kb_err *err)
{
	return pass_to(g, req->msg->egress->session, req);
}

static int handle_inbound(struct kb_guest *g, const struct request *req, struct kb_err *err)
{
	struct kb_child *c = find_child(g, req->msg->inbound->session);
	struct kb_err why = {0};

	if (c && kb_child_inbound(c, req->msg->inbound, req->data, req->len, &why) < 0)
		kb_log_debug("%s", why.msg);
	return 0;
}

static int handle_hello(struct kb_guest *g, const struct request *req, struct kb_err *err)
{
	if (req->msg->hello->protocol == LINK_PROTOCOL)
		return 0;
	return kb_err_set(err, KB_ERR_INVALID, "the host speaks link protocol %u, this guest %d",
		req->msg->hello->protocol, LINK_PROTOCOL);
}

static int handle_shutdown(struct kb_guest *g, const struct request *req, struct kb_err *err)
{
	return kb_err_set(err, KB_ERR_CLOSED, "the host ends the link");
}

static int (*const handlers[])(struct kb_guest *, const struct request *, struct kb_err *) = {
	[KB__TO_GUEST__BODY_HELLO] = handle_hello,
	[KB__TO_GUEST__BODY_EGRESS] = handle_egress,
	[KB__TO_GUEST__BODY_START] = handle_start,
	[KB__TO_GUEST__BODY_EXEC] = handle_exec,
	[KB__TO_GUEST__BODY_RESIZE] = handle_resize,
	[KB__TO_GUEST__BODY_SIGNAL] = handle_signal,
	[KB__TO_GUEST__BODY_STOP] = handle_stop,
	[KB__TO_GUEST__BODY_ATTACHED] = handle_attached,
	[KB__TO_GUEST__BODY_ACK] = handle_ack,
	[KB__TO_GUEST__BODY_SHUTDOWN] = handle_shutdown,
	[KB__TO_GUEST__BODY_ANSWER] = handle_answer,
	[KB__TO_GUEST__BODY_INBOUND] = handle_inbound,
};

static int on_message(struct kb_channel *ch, uint32_t stream, const uint8_t *data, size_t len,
	int fd, void *arg, struct kb_err *err)
{
	struct kb_guest *g = arg;
	struct request req = {
		.msg = kb__to_guest__unpack(NULL, len, data), .data = data, .len = len};
	int r;

	kb_close(&fd);
	if (!req.msg)
		return kb_err_set(err, KB_ERR_INVALID, "a message of the host is malformed");
	if ((size_t)req.msg->body_case >= KB_ARRAY_LEN(handlers) || !handlers[req.msg->body_case])
		r = kb_err_set(err, KB_ERR_INVALID, "the host said what this guest does not know");
	else
		r = handlers[req.msg->body_case](g, &req, err);
	kb__to_guest__free_unpacked(req.msg, NULL);
	return r;
}

/* ---- The end --------------------------------------------------------------------------------- */

static void on_closed(struct kb_channel *ch, const struct kb_err *why, void *arg)
{
	struct kb_guest *g = arg;

	if (why && why->code != KB_ERR_CLOSED)
		kb_log_error("link: %s", why->msg);
	g->closing = true;
	if (g->spare) {
		g->spare->next = g->children;
		g->children = g->spare;
		g->spare = NULL;
	}
	for (struct kb_child *c = g->children; c; c = c->next)
		kb_child_hang_up(c);
	kb_source_arm(g->retry_timer, 0, NULL);
	kb_source_arm(g->spare_timer, CLOSE_GRACE_MS, NULL);
}

/* With the link gone this timer has another job: whoever is still there is killed. */
static void on_spare_timer(void *arg)
{
	struct kb_guest *g = arg;

	if (!g->closing) {
		make_spare(g);
		/* Sessions of an earlier guest may have been dying when we came. */
		kb_statedir_sweep(g->options->state);
		return;
	}
	for (struct kb_child *c = g->children; c; c = c->next)
		if (c->pid > 0)
			kill(c->pid, SIGKILL);
}

static const struct kb_channel_ops link_ops = {.message = on_message, .closed = on_closed};

static int choose_runtime(struct kb_guest *g, struct kb_err *err)
{
	struct kb_runtime_options options = {.state = g->options->state,
		.init = g->options->init,
		.wanted = g->options->runtime};

	return kb_runtime_choose(&options, &g->runtime, err);
}

/* Loaded once, before the first session could want it. */
static void load_bpf(struct kb_guest *g)
{
	struct kb_err why = {0};

	if (kb_emulator_hangs())
		kb_err_set(&why, KB_ERR_REFUSED,
			"under QEMU's emulator a machine with several processors may hang");
	else if (kb_bpf_hub_create(&g->hub, &why) == 0 && kb_bpf_hub_probe(g->hub, &why) == 0)
		return;
	kb_bpf_hub_destroy(KB_STEAL(g->hub));
	snprintf(g->no_bpf, sizeof(g->no_bpf), "%s", why.msg);
	kb_log_info("sessions are recorded by lane notify: %s", why.msg);
}

static int run(struct kb_guest *g, struct kb_err *err)
{
	int r = kb_statedir_open(g->options->state, err);

	if (r == 0)
		r = choose_runtime(g, err);
	if (r == 0)
		r = kb_loop_create(&g->loop, err);
	if (r == 0)
		r = kb_loop_timer(g->loop, on_retry, g, &g->retry_timer, err);
	if (r == 0)
		r = kb_loop_timer(g->loop, on_spare_timer, g, &g->spare_timer, err);
	if (r == 0)
		r = kb_loop_timer(g->loop, on_detach_timer, g, &g->detach_timer, err);
	if (r == 0)
		r = kb_loop_signal(g->loop, SIGCHLD, on_child, g, &g->child_source, err);
	if (r == 0)
		r = kb_channel_create(g->loop, g->options->link_fd, &link_ops, g, &g->link, err);
	if (r < 0)
		return r;
	load_bpf(g);
	send_hello(g);
	make_spare(g);
	kb_source_arm(g->spare_timer, RESWEEP_MS, NULL);
	return kb_loop_run(g->loop, err);
}

static void finish(struct kb_guest *g)
{
	while (g->children) {
		struct kb_child *c = g->children;

		g->children = c->next;
		kb_child_destroy(c);
	}
	kb_bpf_hub_destroy(g->hub);
	kb_channel_destroy(g->link);
	kb_source_destroy(g->child_source);
	kb_source_destroy(g->retry_timer);
	kb_source_destroy(g->spare_timer);
	kb_source_destroy(g->detach_timer);
	kb_loop_destroy(g->loop);
}

int kb_guest_main(const struct kb_guest_options *options)
{
	struct kb_guest g = {.options = options};
	struct kb_err err = {0};
	int r;

	signal(SIGPIPE, SIG_IGN);
	/* What a dead session's process leaves behind comes to us. */
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	r = run(&g, &err);
	if (r < 0)
		kb_log_error("%s", err.msg);
	finish(&g);
	return r < 0 ? 1 : 0;
}
