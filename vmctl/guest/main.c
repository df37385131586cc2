#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "supervisor/base/buf.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"
#include "supervisor/base/vport.h"

#define PORT_WAIT_MS 20	 /* between two looks for a port that is not there yet */
#define HOST_WAIT_MS 500 /* without a host; its coming raises SIGIO, so this is only a net */
#define READ_CHUNK   4096

static int op_hello(const json_t *request, json_t *reply, struct kb_err *err)
{
	const json_t *nonce = json_object_get(request, "nonce");

	json_object_set_new(reply, "protocol", json_integer(KBM_PROTOCOL));
	json_object_set_new(reply, "version", json_string(KB_VERSION));
	if (nonce)
		json_object_set(reply, "nonce", (json_t *)nonce);
	return 0;
}

static int op_shutdown(const json_t *request, json_t *reply, struct kb_err *err)
{
	static const char *const argv[] = {"/usr/bin/systemctl", "--no-block", "poweroff", NULL};

	return kbm_run(argv, err);
}

static const struct {
	const char *name;
	kbm_op_fn fn;
} ops[] = {
	{"hello", op_hello},
	{"identity", kbm_identity},
	{"prepare", kbm_prepare},
	{"clock", kbm_clock},
	{"stats", kbm_stats},
	{"exec", kbm_exec},
	{"put", kbm_put},
	{"disk_format", kbm_disk_format},
	{"disk_open", kbm_disk_open},
	{"disk_stat", kbm_disk_stat},
	{"disk_close", kbm_disk_close},
	{"follow", kbm_follow},
	{"online", kbm_online},
	{"shutdown", op_shutdown},
};

static int dispatch(const json_t *request, json_t *reply, struct kb_err *err)
{
	const char *op;
	int r = kbm_string(request, "op", &op, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < KB_ARRAY_LEN(ops); i++)
		if (strcmp(ops[i].name, op) == 0)
			return ops[i].fn(request, reply, err);
	return kb_err_set(err, KB_ERR_USAGE, "unknown operation %s", op);
}

static int host_port = -1; /* while a request from it is being answered */

int kbm_send(const json_t *object, struct kb_err *err)
{
	KB_FREE char *text = json_dumps(object, JSON_COMPACT);
	int r = text ? kb_fd_write_all(host_port, text, strlen(text), err) : kb_err_nomem(err);

	return r < 0 ? r : kb_fd_write_all(host_port, "\n", 1, err);
}

/* One line in, one line out. What is not JSON gets no answer: it may be the tail of a line whose
 * head was lost while nobody listened. */
static int answer(int port, const char *line, size_t len, struct kb_err *err)
{
	json_t *request = json_loadb(line, len, 0, NULL), *reply = json_object();
	struct kb_err why = {0};
	int r = 0;

	host_port = port;
	if (request && reply) {
		json_object_set(reply, "id", json_object_get(request, "id"));
		if (dispatch(request, reply, &why) < 0)
			json_object_set_new(reply, "error", json_string(why.msg));
		else
			json_object_set_new(reply, "ok", json_true());
		r = kbm_send(reply, err);
	}
	json_decref(request);
	json_decref(reply);
	return r;
}

static int answer_lines(int port, struct kb_buf *in, struct kb_err *err)
{
	for (;;) {
		const char *data = (const char *)kb_buf_data(in);
		const char *end = kb_buf_len(in) ? memchr(data, '\n', kb_buf_len(in)) : NULL;
		size_t len;
		int r = 0;

		if (!end)
			return 0;
		len = (size_t)(end - data);
		if (len > 0)
			r = answer(port, data, len, err);
		kbm_reap();
		kb_buf_consume(in, len + 1);
		if (r < 0)
			return r;
	}
}

static void sleep_ms(int msec)
{
	struct timespec t = {msec / 1000, msec % 1000 * 1000000L};

	nanosleep(&t, NULL);
}

/* The host's end is closed: until it opens, reads return 0 at once. The driver raises SIGIO when
 * that changes. */
static void wait_for_host(void)
{
	struct timespec t = {0, HOST_WAIT_MS * 1000000L};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGIO);
	sigtimedwait(&set, NULL, &t);
}

static void serve(int port)
{
	struct kb_buf in KB_BUF_CLEANUP;
	struct kb_err err;

	kb_buf_init(&in, KBM_LINE_MAX);
	for (;;) {
		uint8_t *space;
		ssize_t n;

		if (kb_buf_reserve(&in, READ_CHUNK, &space, &err) < 0) {
			kb_buf_finish(&in); /* a line past the bound: drop it */
			continue;
		}
		n = read(port, space, READ_CHUNK);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return;
		if (n <= 0) {
			kb_buf_finish(&in);
			wait_for_host();
			continue;
		}
		kb_buf_commit(&in, (size_t)n);
		if (answer_lines(port, &in, &err) < 0)
			kb_log_warn("%s", err.msg);
	}
}

/* The host waits for every answer, so nothing else in the machine goes first; what is started here
 * does not inherit that. */
static void go_first(void)
{
	const struct sched_param param = {.sched_priority = 1};

	sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &param);
}

int main(void)
{
	sigset_t set;

	kb_log_init("kbsup-machine");
	go_first();
	sigemptyset(&set);
	sigaddset(&set, SIGIO);
	sigprocmask(SIG_BLOCK, &set, NULL);
	kbm_net_again();
	for (;;) {
		KB_CLOSE int port = kb_vport_open(KBM_PORT, 0);

		if (port < 0) {
			sleep_ms(PORT_WAIT_MS);
			continue;
		}
		fcntl(port, F_SETOWN, getpid());
		fcntl(port, F_SETFL, O_ASYNC);
		serve(port);
	}
}
