#include "qmp.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "supervisor/base/buf.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/log.h"
#include "supervisor/base/os.h"
#include "supervisor/base/util.h"

#define READ_CHUNK     (64u << 10)
#define READS_PER_WAKE 16

struct command {
	TAILQ_ENTRY(command) link;
	const char *name; /* within text */
	char *text;	  /* the whole line to send */
	size_t len, sent;
	int fd; /* travels with the first byte, or -1 */
	json_int_t id;
	int timeout_ms;
	kb_qmp_reply_fn fn;
	void *arg;
};

TAILQ_HEAD(command_list, command);

struct kb_qmp {
	struct kb_loop *loop;
	int fd;
	const struct kb_qmp_ops *ops;
	void *arg;
	struct kb_source *io, *timer;
	struct kb_buf in;
	size_t scanned; /* bytes of `in` known to hold no newline */
	struct command_list queue;
	struct command *flying; /* sent, or being sent; not in the queue */
	size_t n_queued;
	json_int_t first_id; /* of the negotiation */
	json_int_t next_id;  /* from a random number on: see is_foreign() */
	bool greeted;
	bool ready; /* capabilities negotiated */
	bool dead;
	unsigned busy; /* handlers running: a destroy inside one is carried out at its end */
	bool doomed;
	struct kb_err late; /* a failure noticed outside a handler; reported from the timer */
};

static void qmp_free(struct kb_qmp *q);

static void enter(struct kb_qmp *q)
{
	q->busy++;
}

static void leave(struct kb_qmp *q)
{
	if (--q->busy == 0 && q->doomed)
		qmp_free(q);
}

static void command_free(struct command *c)
{
	if (!c)
		return;
	kb_close(&c->fd);
	free(c->text);
	free(c);
}

int kb_qmp_parse(const char *line, size_t len, struct kb_qmp_msg *ret, struct kb_err *err)
{
	json_error_t jerr;
	json_t *root = json_loadb(line, len, JSON_REJECT_DUPLICATES, &jerr);
	const json_t *id;

	if (!root)
		return kb_err_set(err, KB_ERR_INVALID, "QEMU sent a malformed line: %s", jerr.text);
	*ret = (struct kb_qmp_msg){.root = root, .id = -1};
	id = json_object_get(root, "id");
	if (json_is_integer(id))
		ret->id = json_integer_value(id);
	if ((ret->body = json_object_get(root, "QMP"))) {
		ret->kind = KB_QMP_GREETING;
		return 0;
	}
	if ((ret->body = json_object_get(root, "return"))) {
		ret->kind = KB_QMP_RETURN;
		return 0;
	}
	if ((ret->body = json_object_get(root, "error"))) {
		ret->kind = KB_QMP_ERROR;
		ret->name = json_string_value(json_object_get(ret->body, "class"));
		ret->text = json_string_value(json_object_get(ret->body, "desc"));
		if (ret->name && ret->text)
			return 0;
	} else if ((ret->name = json_string_value(json_object_get(root, "event")))) {
		ret->kind = KB_QMP_EVENT;
		ret->body = json_object_get(root, "data");
		return 0;
	}
	json_decref(root);
	ret->root = NULL;
	return kb_err_set(err, KB_ERR_INVALID, "QEMU sent a line that is no QMP message");
}

/* Every pending command learns why; then the owner does. Only from within a handler. */
static void qmp_fail(struct kb_qmp *q, const struct kb_err *why)
{
	struct command *c;

	if (q->dead)
		return;
	q->dead = true;
	kb_source_destroy(KB_STEAL(q->io));
	kb_source_destroy(KB_STEAL(q->timer));
	if ((c = KB_STEAL(q->flying)))
		TAILQ_INSERT_HEAD(&q->queue, c, link);
	while (!q->doomed && (c = TAILQ_FIRST(&q->queue))) {
		TAILQ_REMOVE(&q->queue, c, link);
		if (c->fn)
			c->fn(NULL, why, c->arg);
		command_free(c);
	}
	if (!q->doomed && q->ops && q->ops->closed)
		q->ops->closed(q, why, q->arg);
}

static void on_deadline(void *arg)
{
	struct kb_qmp *q = arg;
	struct kb_err why = {0};

	if (q->late.code)
		why = q->late;
	else if (!q->ready)
		kb_err_set(&why, KB_ERR_TIMEOUT,
			"QEMU gave no greeting within %d ms: another client holds its monitor, "
			"or it hangs",
			KB_QMP_GREETING_MS);
	else
		kb_err_set(&why, KB_ERR_TIMEOUT, "QEMU did not answer %s within %d ms",
			q->flying ? q->flying->name : "a command",
			q->flying ? q->flying->timeout_ms : 0);
	enter(q);
	qmp_fail(q, &why);
	leave(q);
}

/* Write what is left of the flying command. The fd goes with the first byte. */
static int command_write(struct kb_qmp *q, struct command *c, struct kb_err *err)
{
	while (c->sent < c->len) {
		struct iovec iov = {c->text + c->sent, c->len - c->sent};
		union {
			struct cmsghdr head;
			char bytes[CMSG_SPACE(sizeof(int))];
		} control = {0};
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
		ssize_t n;

		if (c->fd >= 0) {
			msg.msg_control = control.bytes;
			msg.msg_controllen = sizeof(control.bytes);
			control.head = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
				.cmsg_type = SCM_RIGHTS,
				.cmsg_len = CMSG_LEN(sizeof(int))};
			memcpy(CMSG_DATA(&control.head), &c->fd, sizeof(int));
		}
		n = sendmsg(q->fd, &msg, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return kb_source_set_events(q->io, KB_IO_READ | KB_IO_WRITE, err);
		if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
			return kb_err_set(err, KB_ERR_CLOSED, "QEMU closed its monitor");
		if (n < 0)
			return kb_err_sys(err, errno, "QEMU cannot be told to %s", c->name);
		kb_close(&c->fd);
		c->sent += (size_t)n;
	}
	return kb_source_set_events(q->io, KB_IO_READ, err);
}

static void pump_queue(struct kb_qmp *q)
{
	struct command *c = TAILQ_FIRST(&q->queue);

	if (q->dead || q->late.code || !q->ready || q->flying || !c)
		return;
	TAILQ_REMOVE(&q->queue, c, link);
	q->n_queued--;
	q->flying = c;
	/* The caller may be anybody, so a failure is reported from the timer. */
	if (kb_source_arm(q->timer, c->timeout_ms, &q->late) < 0 ||
		command_write(q, c, &q->late) < 0)
		kb_source_arm(q->timer, 0, NULL);
}

static void on_capabilities(const json_t *ret, const struct kb_err *err, void *arg)
{
	if (err)
		kb_log_debug("QMP capabilities: %s", err->msg);
}

static struct command *command_new(json_int_t id, const char *name, json_t *args, int fd,
	int timeout_ms, kb_qmp_reply_fn fn, void *arg)
{
	struct command *c = calloc(1, sizeof(*c));
	json_t *root = json_pack("{s:s, s:I}", "execute", name, "id", id);
	char *text = NULL;

	if (root && args)
		json_object_set(root, "arguments", args);
	if (root)
		text = json_dumps(root, JSON_COMPACT);
	json_decref(root);
	json_decref(args);
	if (c)
		*c = (struct command){
			.fd = -1, .id = id, .timeout_ms = timeout_ms, .fn = fn, .arg = arg};
	if (c && text) {
		c->len = strlen(text);
		/* The line, its end, and the name for messages behind it, in one allocation. */
		c->text = malloc(c->len + 1 + strlen(name) + 1);
	}
	if (c && c->text) {
		memcpy(c->text, text, c->len);
		c->text[c->len++] = '\n';
		c->name = memcpy(c->text + c->len, name, strlen(name) + 1);
	}
	free(text);
	if (c && c->text && fd >= 0)
		c->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (!c || !c->text || (fd >= 0 && c->fd < 0)) {
		command_free(c);
		return NULL;
	}
	return c;
}

bool kb_qmp_ready(const struct kb_qmp *q)
{
	return q->ready;
}

int kb_qmp_execute(struct kb_qmp *q, const char *name, json_t *args, int fd, int timeout_ms,
	kb_qmp_reply_fn fn, void *arg, struct kb_err *err)
{
	struct command *c;

	if (q->dead || q->n_queued >= KB_QMP_QUEUE_MAX) {
		json_decref(args);
		return q->dead ? kb_err_set(err, KB_ERR_CLOSED,
					 "QEMU's monitor is closed, so %s cannot be sent", name)
			       : kb_err_set(
					 err, KB_ERR_LIMIT, "too many QEMU commands are waiting");
	}
	c = command_new(q->next_id, name, args, fd, timeout_ms, fn, arg);
	if (!c)
		return kb_err_nomem(err);
	q->next_id++;
	TAILQ_INSERT_TAIL(&q->queue, c, link);
	q->n_queued++;
	pump_queue(q);
	return 0;
}

/* The greeting came: negotiate ahead of everything that is queued. */
static int negotiate(struct kb_qmp *q, struct kb_err *err)
{
	if (q->greeted)
		return kb_err_set(err, KB_ERR_INVALID, "QEMU greeted twice");
	q->greeted = true;
	q->flying = command_new(q->first_id, "qmp_capabilities", NULL, -1, KB_QMP_GREETING_MS,
		on_capabilities, NULL);
	if (!q->flying)
		return kb_err_nomem(err);
	return command_write(q, q->flying, err);
}

/* QEMU hands the answer to a command whose client has left to the next client. Each client numbers
 * its commands from a random start, so such an answer is known by its number and passes by. */
static bool is_foreign(const struct kb_qmp *q, const struct kb_qmp_msg *msg)
{
	return msg->id >= 0 && (!q->flying || msg->id != q->flying->id);
}

static int handle_reply(struct kb_qmp *q, const struct kb_qmp_msg *msg, struct kb_err *err)
{
	struct command *c = q->flying;
	struct kb_err why = {0};

	if (is_foreign(q, msg)) {
		kb_log_debug("QEMU answered command %lld of a client before", (long long)msg->id);
		return 0;
	}
	if (!c || msg->id != c->id || c->sent < c->len)
		return kb_err_set(err, KB_ERR_INVALID, "QEMU answered what was not asked");
	if (!q->ready && msg->kind == KB_QMP_ERROR)
		return kb_err_set(
			err, KB_ERR_INVALID, "QEMU refused the QMP protocol: %s", msg->text);
	q->flying = NULL;
	q->ready = true;
	kb_source_disarm(q->timer);
	if (msg->kind == KB_QMP_ERROR)
		kb_err_set(&why, KB_ERR_FAILED, "QEMU refused %s: %s", c->name, msg->text);
	if (c->fn)
		c->fn(why.code ? NULL : msg->body, why.code ? &why : NULL, c->arg);
	command_free(c);
	pump_queue(q);
	return 0;
}

static int handle_event(struct kb_qmp *q, const struct kb_qmp_msg *msg, struct kb_err *err)
{
	json_t *empty = msg->body ? NULL : json_object();

	if (!msg->body && !empty)
		return kb_err_nomem(err);
	if (q->ops && q->ops->event)
		q->ops->event(q, msg->name, msg->body ? msg->body : empty, q->arg);
	json_decref(empty);
	return 0;
}

static int handle_line(struct kb_qmp *q, const char *line, size_t len, struct kb_err *err)
{
	struct kb_qmp_msg msg;
	int r = kb_qmp_parse(line, len, &msg, err);

	if (r < 0)
		return r;
	switch (msg.kind) {
	case KB_QMP_GREETING:
		r = negotiate(q, err);
		break;
	case KB_QMP_EVENT:
		r = handle_event(q, &msg, err);
		break;
	case KB_QMP_RETURN:
	case KB_QMP_ERROR:
		r = handle_reply(q, &msg, err);
		break;
	}
	json_decref(msg.root);
	return r;
}

static int handle_lines(struct kb_qmp *q, struct kb_err *err)
{
	while (!q->doomed) {
		const char *data = (const char *)kb_buf_data(&q->in);
		size_t len = kb_buf_len(&q->in);
		const char *end =
			len > q->scanned ? memchr(data + q->scanned, '\n', len - q->scanned) : NULL;
		size_t line;
		int r = 0;

		if (!end) {
			q->scanned = len;
			return 0;
		}
		line = (size_t)(end - data);
		if (line > 1)
			r = handle_line(q, data, line, err);
		if (r < 0)
			return r;
		kb_buf_consume(&q->in, line + 1);
		q->scanned = 0;
	}
	return 0;
}

static int read_some(struct kb_qmp *q, struct kb_err *err)
{
	for (int i = 0; i < READS_PER_WAKE && !q->doomed; i++) {
		uint8_t *space;
		ssize_t n;
		int r = kb_buf_reserve(&q->in, READ_CHUNK, &space, err);

		if (r < 0)
			return r;
		n = read(q->fd, space, READ_CHUNK);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n < 0)
			return kb_err_sys(err, errno, "QEMU's monitor cannot be read");
		if (n == 0)
			return kb_err_set(err, KB_ERR_CLOSED, "QEMU closed its monitor");
		kb_buf_commit(&q->in, (size_t)n);
		r = handle_lines(q, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static void on_io(int fd, unsigned events, void *arg)
{
	struct kb_qmp *q = arg;
	struct kb_err why = {0};
	int r = 0;

	enter(q);
	if (events & KB_IO_WRITE && q->flying)
		r = command_write(q, q->flying, &why);
	if (r == 0 && events & KB_IO_READ)
		r = read_some(q, &why);
	if (r < 0)
		qmp_fail(q, &why);
	leave(q);
}

int kb_qmp_create(struct kb_loop *loop, int fd, const struct kb_qmp_ops *ops, void *arg,
	struct kb_qmp **ret, struct kb_err *err)
{
	struct kb_qmp *q = calloc(1, sizeof(*q));
	uint32_t number;
	int r;

	if (!q) {
		close(fd);
		return kb_err_nomem(err);
	}
	*q = (struct kb_qmp){.loop = loop, .fd = fd, .ops = ops, .arg = arg};
	TAILQ_INIT(&q->queue);
	kb_buf_init(&q->in, KB_QMP_LINE_MAX + READ_CHUNK);
	r = kb_os_random(&number, sizeof(number)) < 0 ? kb_err_sys(err, errno, "no random bytes")
						      : 0;
	if (r < 0 || (r = kb_fd_nonblock(fd, err)) < 0 ||
		(r = kb_loop_timer(loop, on_deadline, q, &q->timer, err)) < 0 ||
		(r = kb_source_arm(q->timer, KB_QMP_GREETING_MS, err)) < 0 ||
		(r = kb_loop_io(loop, fd, KB_IO_READ, on_io, q, &q->io, err)) < 0) {
		kb_qmp_destroy(q);
		return r;
	}
	kb_qmp_count_from(q, (json_int_t)number << 20);
	*ret = q;
	return 0;
}

void kb_qmp_count_from(struct kb_qmp *q, json_int_t first)
{
	q->first_id = first;
	q->next_id = first + 1;
}

static void qmp_free(struct kb_qmp *q)
{
	struct command *c;

	command_free(q->flying);
	while ((c = TAILQ_FIRST(&q->queue))) {
		TAILQ_REMOVE(&q->queue, c, link);
		command_free(c);
	}
	kb_buf_finish(&q->in);
	free(q);
}

void kb_qmp_destroy(struct kb_qmp *q)
{
	if (!q)
		return;
	kb_source_destroy(KB_STEAL(q->io));
	kb_source_destroy(KB_STEAL(q->timer));
	kb_close(&q->fd);
	q->dead = q->doomed = true;
	if (!q->busy)
		qmp_free(q);
}
