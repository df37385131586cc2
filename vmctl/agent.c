#include "agent.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "files.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/os.h"

#define READ_CHUNK	16384
#define HELLO_MS	150 /* between two hellos */
#define HELLO_FAST_MS	100 /* between the first ones, for guests that wait already */
#define HELLO_FAST	3
#define FOLLOW_SLACK_MS 10000 /* past a command's own time */

struct pending {
	struct kb_agent *agent;
	struct kb_source *io;
	const char *out; /* what is still to be sent */
	size_t out_len;
	json_int_t id;
	bool done;
	struct kb_op_lines *lines; /* for what comes before the answer, or NULL */
	json_t *ret;
	struct kb_err err;
};

int kb_agent_open(struct kb_vmctl *vm, const char *id, struct kb_agent *ret, struct kb_err *err)
{
	*ret = (struct kb_agent){.vm = vm, .fd = -1, .next_id = 1};
	kb_buf_init(&ret->in, KB_AGENT_LINE_MAX);
	return kb_run_connect(vm, id, "machine", &ret->fd, err);
}

void kb_agent_close(struct kb_agent *agent)
{
	kb_close(&agent->fd);
	kb_buf_finish(&agent->in);
}

int kb_agent_parse(const char *line, size_t len, json_int_t id, json_t **ret, struct kb_err *err)
{
	KB_JSON json_t *root = json_loadb(line, len, 0, NULL);
	const json_t *got = json_object_get(root, "id");
	const char *text;

	if (!json_is_object(root))
		return kb_err_set(err, KB_ERR_INVALID, "the machine sent what is not an answer");
	if (!json_is_integer(got) || json_integer_value(got) != id)
		return 0;
	text = json_string_value(json_object_get(root, "error"));
	if (text)
		return kb_err_set(err, KB_ERR_FAILED, "the machine says: %s", text);
	*ret = KB_STEAL(root);
	return 1;
}

char *kb_agent_bytes(const char *base64, size_t *ret_len)
{
	size_t len = strlen(base64), pad = 0;
	char *bytes = malloc(len / 4 * 3 + 1);
	int n;

	if (!bytes)
		return NULL;
	while (pad < 2 && pad < len && base64[len - 1 - pad] == '=')
		pad++;
	n = EVP_DecodeBlock((unsigned char *)bytes, (const unsigned char *)base64, (int)len);
	len = n < 0 ? 0 : (size_t)n - KB_MIN(pad, (size_t)n);
	bytes[len] = '\0';
	if (ret_len)
		*ret_len = len;
	return bytes;
}

/* A piece of a command's output, ahead of the answer; anything else is the answer. */
static bool take_part(struct pending *w)
{
	const char *text = json_string_value(json_object_get(w->ret, "part"));
	KB_FREE char *bytes = NULL;
	size_t len = 0;

	if (!w->lines || !text)
		return false;
	bytes = kb_agent_bytes(text, &len);
	if (bytes)
		kb_op_lines_take(w->lines, bytes, len);
	json_decref(w->ret);
	w->ret = NULL;
	return true;
}

static void wait_end(struct pending *w)
{
	w->done = true;
	kb_loop_stop(w->agent->vm->loop);
}

/* Lines that are not for us are skipped, malformed ones too: the head of a line may have gone to
 * somebody before us. */
static void take_lines(struct pending *w)
{
	struct kb_buf *in = &w->agent->in;

	while (!w->done) {
		const char *data = (const char *)kb_buf_data(in);
		size_t len = kb_buf_len(in);
		const char *end = len ? memchr(data, '\n', len) : NULL;
		struct kb_err why = {0};
		int r;

		if (!end)
			return;
		r = kb_agent_parse(data, (size_t)(end - data), w->id, &w->ret, &why);
		kb_buf_consume(in, (size_t)(end - data) + 1);
		if ((r == 1 && !take_part(w)) || why.code == KB_ERR_FAILED) {
			w->err = why;
			wait_end(w);
		}
	}
}

static int send_some(struct pending *w, struct kb_err *err)
{
	ssize_t n = send(w->agent->fd, w->out, w->out_len, MSG_NOSIGNAL);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n < 0)
		return kb_err_sys(err, errno, "the machine's port cannot be written");
	w->out += n;
	w->out_len -= (size_t)n;
	return w->out_len ? 0 : kb_source_set_events(w->io, KB_IO_READ, err);
}

static int receive_some(struct pending *w, struct kb_err *err)
{
	uint8_t *space;
	ssize_t n;
	int r = kb_buf_reserve(&w->agent->in, READ_CHUNK, &space, err);

	if (r < 0)
		return r;
	n = read(w->agent->fd, space, READ_CHUNK);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n < 0)
		return kb_err_sys(err, errno, "the machine's port cannot be read");
	if (n == 0)
		return kb_err_set(err, KB_ERR_CLOSED, "the machine's port was closed");
	kb_buf_commit(&w->agent->in, (size_t)n);
	take_lines(w);
	return 0;
}

static void on_io(int fd, unsigned events, void *arg)
{
	struct pending *w = arg;
	int r = 0;

	if (events & KB_IO_WRITE && w->out_len)
		r = send_some(w, &w->err);
	if (r == 0 && events & KB_IO_READ)
		r = receive_some(w, &w->err);
	if (r < 0 && !w->done)
		wait_end(w);
}

static int exchange(struct kb_agent *agent, const char *line, json_int_t id,
	struct kb_op_lines *lines, int64_t timeout_ms, json_t **ret, struct kb_err *err)
{
	struct pending w = {
		.agent = agent, .out = line, .out_len = strlen(line), .id = id, .lines = lines};
	int r = kb_loop_io(
		agent->vm->loop, agent->fd, KB_IO_READ | KB_IO_WRITE, on_io, &w, &w.io, err);

	if (r < 0)
		return r;
	r = kb_op_wait(agent->vm, &w.done, timeout_ms, "the machine's service", err);
	kb_source_destroy(w.io);
	if (r == 0 && w.err.code) {
		if (err)
			*err = w.err;
		r = -(int)w.err.code;
	}
	if (r == 0 && ret)
		*ret = KB_STEAL(w.ret);
	json_decref(w.ret);
	return r;
}

static int call(struct kb_agent *agent, json_t *request, struct kb_op_lines *lines,
	int64_t timeout_ms, json_t **ret, struct kb_err *err)
{
	json_int_t id = agent->next_id++;
	KB_FREE char *text = NULL;
	KB_FREE char *line = NULL;

	json_object_set_new(request, "id", json_integer(id));
	text = json_dumps(request, JSON_COMPACT);
	json_decref(request);
	/* A newline in front ends whatever half line the guest may hold. */
	line = text ? kb_asprintf("\n%s\n", text) : NULL;
	if (!line)
		return kb_err_nomem(err);
	return exchange(agent, line, id, lines, timeout_ms, ret, err);
}

int kb_agent_call(struct kb_agent *agent, json_t *request, int64_t timeout_ms, json_t **ret,
	struct kb_err *err)
{
	return call(agent, request, NULL, timeout_ms, ret, err);
}

int kb_agent_follow(struct kb_agent *agent, const char *step, const char *const *argv,
	int64_t timeout_ms, struct kb_err *err)
{
	struct kb_op_lines lines = {.vm = agent->vm, .step = step};
	KB_JSON json_t *reply = NULL;
	json_t *words = json_array();
	json_int_t code;
	int r;

	for (size_t i = 0; argv[i]; i++)
		json_array_append_new(words, json_string(argv[i]));
	r = call(agent,
		json_pack("{s:s, s:o, s:I}", "op", "follow", "argv", words, "timeout_ms",
			(json_int_t)timeout_ms),
		&lines, timeout_ms + FOLLOW_SLACK_MS, &reply, err);
	kb_op_lines_end(&lines);
	if (r < 0)
		return r;
	code = kb_json_int(reply, "exit", -1);
	return code == 0 ? 0
			 : kb_err_set(err, KB_ERR_FAILED, "it ended with exit %lld: %s",
				   (long long)code, *lines.last ? lines.last : "it said nothing");
}

int kb_agent_sync(struct kb_agent *agent, int64_t timeout_ms, struct kb_err *err)
{
	int64_t deadline = kb_now_mono() + timeout_ms * 1000000;
	uint32_t start;
	int r = 0;

	/* Ids nobody before us is likely to have used serve as the nonce. */
	if (kb_os_random(&start, sizeof(start)) < 0)
		return kb_err_sys(err, errno, "no random bytes");
	agent->next_id = (json_int_t)start << 20;
	for (int i = 0; kb_now_mono() < deadline; i++) {
		struct kb_err why = {0};

		r = kb_agent_call(agent, json_pack("{s:s}", "op", "hello"),
			i < HELLO_FAST ? HELLO_FAST_MS : HELLO_MS, NULL, &why);
		if (r == 0)
			return 0;
		if (r != -KB_ERR_TIMEOUT) {
			if (err)
				*err = why;
			return r;
		}
	}
	return kb_err_set(err, KB_ERR_TIMEOUT, "the machine did not answer within %lld ms",
		(long long)timeout_ms);
}
