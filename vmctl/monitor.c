#include "monitor.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "files.h"
#include "supervisor/base/os.h"

#define CONNECT_POLL_MS 2
#define MIGRATE_POLL_MS 3

struct call {
	struct kb_vmctl *vm;
	bool done;
	json_t *ret;
	struct kb_err err;
};

static bool process_ended(int pidfd)
{
	struct pollfd p = {pidfd, POLLIN, 0};

	return pidfd >= 0 && poll(&p, 1, 0) == 1;
}

/* Until its socket is there, or the process (pid > 0) is not any more. */
static int connect_retry(struct kb_vmctl *vm, const char *id, const char *name, pid_t pid,
	int64_t timeout_ms, int *ret_fd, struct kb_err *err)
{
	KB_CLOSE int pidfd = pid > 0 ? kb_os_process_open(pid) : -1;
	int64_t deadline = kb_now_mono() + timeout_ms * 1000000;
	struct kb_err why = {0};
	int r = 0;

	while (r == 0) {
		r = kb_run_connect(vm, id, name, ret_fd, &why);
		if (r == 0)
			return 0;
		if (r == -KB_ERR_LIMIT)
			return kb_err_set(err, KB_ERR_LIMIT, "%s", why.msg);
		if (pid > 0 && (pidfd < 0 || process_ended(pidfd)))
			return kb_err_set(err, KB_ERR_CLOSED, "QEMU ended");
		if (kb_now_mono() >= deadline)
			return kb_err_set(err, KB_ERR_TIMEOUT,
				"QEMU did not open its monitor within %lld ms",
				(long long)timeout_ms);
		r = kb_op_sleep(vm, CONNECT_POLL_MS, err);
	}
	return r;
}

int kb_mon_open(struct kb_vmctl *vm, const char *id, const char *name, pid_t pid,
	int64_t timeout_ms, struct kb_mon *ret, struct kb_err *err)
{
	int fd = -1, r;

	*ret = (struct kb_mon){.vm = vm};
	snprintf(ret->id, sizeof(ret->id), "%s", id);
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	r = connect_retry(vm, id, name, pid, timeout_ms, &fd, err);
	if (r == 0)
		r = kb_qmp_create(vm->loop, fd, NULL, NULL, &ret->qmp, err);
	return r;
}

void kb_mon_close(struct kb_mon *mon)
{
	kb_qmp_destroy(KB_STEAL(mon->qmp));
}

static void on_reply(const json_t *ret, const struct kb_err *err, void *arg)
{
	struct call *call = arg;

	call->done = true;
	if (err)
		call->err = *err;
	else
		call->ret = json_incref((json_t *)ret);
	kb_loop_stop(call->vm->loop);
}

static int call_once(struct kb_mon *mon, const char *command, json_t *args, int fd, json_t **ret,
	bool *ret_unseen, struct kb_err *err)
{
	struct call call = {.vm = mon->vm};
	int r;

	*ret_unseen = false;
	if (!mon->qmp) {
		json_decref(args);
		return kb_err_set(err, KB_ERR_CLOSED, "%s: QEMU's monitor is closed", command);
	}
	r = kb_qmp_execute(mon->qmp, command, args, fd, KB_MON_COMMAND_MS, on_reply, &call, err);
	/* The client's own deadlines end it: this one only bounds them all. */
	if (r == 0)
		r = kb_op_wait(mon->vm, &call.done,
			mon->limit_ms ? mon->limit_ms : KB_QMP_GREETING_MS + 2 * KB_MON_COMMAND_MS,
			command, err);
	*ret_unseen = !kb_qmp_ready(mon->qmp);
	if (r < 0)
		kb_mon_close(mon); /* the reply would find our stack gone */
	else if (call.err.code) {
		if (err)
			*err = call.err;
		r = -(int)call.err.code;
	} else if (ret)
		*ret = call.ret;
	else
		json_decref(call.ret);
	return r;
}

static int connect_again(struct kb_mon *mon, struct kb_err *err)
{
	int fd = -1, r;

	kb_mon_close(mon);
	mon->again = true;
	r = kb_run_connect(mon->vm, mon->id, mon->name, &fd, err);
	return r < 0 ? r : kb_qmp_create(mon->vm->loop, fd, NULL, NULL, &mon->qmp, err);
}

/* Who connects while QEMU still lets go of the client before may be dropped with it (QEMU 7.2). It
 * has seen nothing of the command then, so once more does no harm. */
static int call_wait(struct kb_mon *mon, const char *command, json_t *args, int fd, json_t **ret,
	struct kb_err *err)
{
	bool unseen;
	int r = call_once(mon, command, json_incref(args), fd, ret, &unseen, err);

	if (r == -KB_ERR_CLOSED && unseen && !mon->again && fd < 0 && connect_again(mon, NULL) == 0)
		r = call_once(mon, command, json_incref(args), fd, ret, &unseen, err);
	json_decref(args);
	return r;
}

int kb_mon_call(
	struct kb_mon *mon, const char *command, json_t *args, json_t **ret, struct kb_err *err)
{
	return call_wait(mon, command, args, -1, ret, err);
}

int kb_mon_call_fd(
	struct kb_mon *mon, const char *command, json_t *args, int fd, struct kb_err *err)
{
	return call_wait(mon, command, args, fd, NULL, err);
}

int kb_mon_status(struct kb_mon *mon, char ret[32], struct kb_err *err)
{
	KB_JSON json_t *status = NULL;
	int r = kb_mon_call(mon, "query-status", NULL, &status, err);

	if (r == 0)
		snprintf(ret, 32, "%s", kb_json_str(status, "status", ""));
	return r;
}

int kb_mon_migrated(struct kb_mon *mon, const char *other, int64_t timeout_ms, struct kb_err *err)
{
	int64_t deadline = kb_now_mono() + timeout_ms * 1000000;
	int r = 0;

	while (r == 0) {
		KB_JSON json_t *info = NULL;
		const char *status;

		r = kb_mon_call(mon, "query-migrate", NULL, &info, err);
		if (r < 0)
			break;
		status = kb_json_str(info, "status", "none");
		if (strcmp(status, "completed") == 0 || (other && strcmp(status, other) == 0))
			return 0;
		if (strcmp(status, "failed") == 0 || strcmp(status, "cancelled") == 0)
			return kb_err_set(err, KB_ERR_FAILED, "QEMU could not move the state: %s",
				kb_json_str(info, "error-desc", status));
		if (kb_now_mono() >= deadline)
			return kb_err_set(err, KB_ERR_TIMEOUT,
				"the state was not moved within %lld ms (%s)",
				(long long)timeout_ms, status);
		r = kb_op_sleep(mon->vm, MIGRATE_POLL_MS, err);
	}
	return r;
}

int kb_mon_human(struct kb_mon *mon, struct kb_err *err, const char *fmt, ...)
{
	KB_JSON json_t *ret = NULL;
	char line[512];
	va_list ap;
	int r;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	r = kb_mon_call(
		mon, "human-monitor-command", json_pack("{s:s}", "command-line", line), &ret, err);
	if (r == 0 && json_string_length(ret) > 0)
		r = kb_err_set(err, KB_ERR_FAILED, "QEMU: %s", json_string_value(ret));
	return r;
}
