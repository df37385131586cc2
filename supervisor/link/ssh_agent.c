/* An ssh agent (draft-miller-ssh-agent): which keys it has, and signatures by them. One question at
 * a time; it may ask a person, so an answer may take long, and nothing waits for it here. */
#include <errno.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "ssh_private.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/os.h"

#define MESSAGE_MAX (256u << 10) /* what OpenSSH takes and gives */

enum { FAILURE = 5, REQUEST_IDENTITIES = 11, IDENTITIES = 12, SIGN_REQUEST = 13, SIGNATURE = 14 };

struct kb_ssh_agent {
	int fd;
	struct kb_source *io;
	void (*woken)(void *arg);
	void *arg;
	struct kb_buf in, out;
	uint8_t asked; /* the question that is open, or 0 */
	bool broken;
	struct kb_ssh_identity keys[KB_SSH_AGENT_KEYS];
	size_t n_keys;
	uint8_t *list; /* what the keys point into */
};

/* ---- Taking answers apart -------------------------------------------------------------------- */

struct reader {
	const uint8_t *at;
	size_t left;
};

static bool get_u32(struct reader *r, uint32_t *ret)
{
	if (r->left < 4)
		return false;
	*ret = (uint32_t)r->at[0] << 24 | (uint32_t)r->at[1] << 16 | (uint32_t)r->at[2] << 8 |
	       r->at[3];
	r->at += 4;
	r->left -= 4;
	return true;
}

static bool get_string(struct reader *r, const uint8_t **ret, size_t *ret_len)
{
	uint32_t len;

	if (!get_u32(r, &len) || len > r->left)
		return false;
	*ret = r->at;
	*ret_len = len;
	r->at += len;
	r->left -= len;
	return true;
}

/* Past the type of the answer, which must be the one that was due. */
static int open_answer(
	const uint8_t *data, size_t len, uint8_t type, struct reader *ret, struct kb_err *err)
{
	if (len == 0 || data[0] != type)
		return kb_err_set(err, KB_ERR_INVALID, "the ssh agent %s",
			len && data[0] == FAILURE ? "refuses" : "answers something else");
	*ret = (struct reader){data + 1, len - 1};
	return 0;
}

static bool is_usable(const uint8_t *blob, size_t len)
{
	static const char *const types[] = {
		"ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"};
	struct reader r = {blob, len};
	const uint8_t *type;
	size_t n;

	if (!get_string(&r, &type, &n))
		return false;
	for (size_t i = 0; i < KB_ARRAY_LEN(types); i++)
		if (n == strlen(types[i]) && memcmp(type, types[i], n) == 0)
			return true;
	return false;
}

int kb_ssh_agent_parse_keys(const uint8_t *data, size_t len,
	struct kb_ssh_identity ret[KB_SSH_AGENT_KEYS], size_t *ret_n, struct kb_err *err)
{
	struct reader r = {0};
	const uint8_t *comment;
	size_t comment_len;
	uint32_t n;
	int rc = open_answer(data, len, IDENTITIES, &r, err);

	if (rc < 0)
		return rc;
	*ret_n = 0;
	if (!get_u32(&r, &n))
		return kb_err_set(err, KB_ERR_INVALID, "the ssh agent's list is cut off");
	for (uint32_t i = 0; i < n; i++) {
		struct kb_ssh_identity key;

		if (!get_string(&r, &key.blob, &key.len) || !get_string(&r, &comment, &comment_len))
			return kb_err_set(err, KB_ERR_INVALID, "the ssh agent's list is cut off");
		if (*ret_n < KB_SSH_AGENT_KEYS && is_usable(key.blob, key.len))
			ret[(*ret_n)++] = key;
	}
	return 0;
}

int kb_ssh_agent_parse_signature(
	const uint8_t *data, size_t len, const uint8_t **ret, size_t *ret_len, struct kb_err *err)
{
	struct reader r = {0};
	const uint8_t *type;
	size_t n;
	int rc = open_answer(data, len, SIGNATURE, &r, err);

	if (rc < 0)
		return rc;
	if (!get_string(&r, &type, &n))
		return kb_err_set(err, KB_ERR_INVALID, "the ssh agent's signature is cut off");
	r = (struct reader){type, n};
	if (!get_string(&r, &type, &n) || !get_string(&r, ret, ret_len) || r.left || !*ret_len)
		return kb_err_set(err, KB_ERR_INVALID, "the ssh agent's signature is malformed");
	return 0;
}

/* ---- Talking --------------------------------------------------------------------------------- */

static void on_agent(int fd, unsigned events, void *arg)
{
	struct kb_ssh_agent *a = arg;
	uint8_t *at;
	ssize_t n;

	if (events & KB_IO_WRITE) {
		n = send(fd, kb_buf_data(&a->out), kb_buf_len(&a->out), MSG_NOSIGNAL);
		if (n > 0)
			kb_buf_consume(&a->out, (size_t)n);
		else if (n < 0 && errno != EAGAIN && errno != EINTR)
			a->broken = true;
	}
	if (events & KB_IO_READ) {
		n = kb_buf_reserve(&a->in, 4096, &at, NULL) < 0 ? 0 : recv(fd, at, 4096, 0);
		if (n > 0)
			kb_buf_commit(&a->in, (size_t)n);
		else if (n == 0 || (errno != EAGAIN && errno != EINTR))
			a->broken = true;
	}
	if (a->broken)
		kb_source_set_events(a->io, 0, NULL);
	else
		kb_source_set_events(
			a->io, KB_IO_READ | (kb_buf_len(&a->out) ? KB_IO_WRITE : 0), NULL);
	a->woken(a->arg);
}

int kb_ssh_agent_open(struct kb_loop *loop, const char *path, void (*woken)(void *arg), void *arg,
	struct kb_ssh_agent **ret, struct kb_err *err)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct kb_ssh_agent *a;
	int r;

	if (strlen(path) >= sizeof(sa.sun_path))
		return kb_err_set(
			err, KB_ERR_LIMIT, "the path of the ssh agent's socket is too long");
	memcpy(sa.sun_path, path, strlen(path) + 1);
	a = calloc(1, sizeof(*a));
	if (!a)
		return kb_err_nomem(err);
	a->woken = woken;
	a->arg = arg;
	kb_buf_init(&a->in, MESSAGE_MAX + 8192);
	kb_buf_init(&a->out, MESSAGE_MAX);
	a->fd = kb_os_socket(AF_UNIX, SOCK_STREAM, 0, true);
	if (a->fd < 0 || connect(a->fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		r = kb_err_sys(err, errno, "the ssh agent cannot be reached");
	else
		r = kb_loop_io(loop, a->fd, KB_IO_READ, on_agent, a, &a->io, err);
	if (r < 0)
		kb_ssh_agent_close(a);
	else
		*ret = a;
	return r;
}

void kb_ssh_agent_close(struct kb_ssh_agent *a)
{
	if (!a)
		return;
	kb_source_destroy(a->io);
	kb_close(&a->fd);
	kb_buf_finish(&a->in);
	kb_buf_finish(&a->out);
	free(a->list);
	free(a);
}

static bool put_u32(struct kb_buf *buf, size_t v)
{
	uint8_t b[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};

	return kb_buf_append(buf, b, sizeof(b), NULL) == 0;
}

static bool put_string(struct kb_buf *buf, const uint8_t *data, size_t len)
{
	return put_u32(buf, len) && kb_buf_append(buf, data, len, NULL) == 0;
}

/* The whole answer to the open question is there: *ret, *ret_len; 0 when not yet. */
static int answer(struct kb_ssh_agent *a, const uint8_t **ret, size_t *ret_len, struct kb_err *err)
{
	struct reader r = {kb_buf_data(&a->in), kb_buf_len(&a->in)};
	uint32_t len;

	if (get_u32(&r, &len)) {
		if (len == 0 || len > MESSAGE_MAX)
			return kb_err_set(
				err, KB_ERR_INVALID, "the ssh agent sends %u bytes at once", len);
		if (r.left >= len) {
			*ret = r.at;
			*ret_len = len;
			return 1;
		}
	}
	return a->broken ? kb_err_set(err, KB_ERR_CLOSED, "the ssh agent is gone") : 0;
}

static void answered(struct kb_ssh_agent *a, size_t len)
{
	kb_buf_consume(&a->in, 4 + len);
	a->asked = 0;
}

static int asking(struct kb_ssh_agent *a, uint8_t type, bool good, struct kb_err *err)
{
	if (!good)
		return kb_err_set(err, KB_ERR_LIMIT, "the question to the ssh agent is too long");
	a->asked = type;
	return kb_source_set_events(a->io, KB_IO_READ | KB_IO_WRITE, err);
}

int kb_ssh_agent_list(struct kb_ssh_agent *a, const struct kb_ssh_identity **ret, size_t *ret_n,
	struct kb_err *err)
{
	static const uint8_t question = REQUEST_IDENTITIES;
	const uint8_t *data;
	size_t len;
	int r;

	if (a->asked != REQUEST_IDENTITIES)
		return asking(a, question, put_string(&a->out, &question, 1), err);
	r = answer(a, &data, &len, err);
	if (r <= 0)
		return r;
	free(a->list);
	a->list = malloc(len);
	if (!a->list)
		return kb_err_nomem(err);
	memcpy(a->list, data, len);
	answered(a, len);
	r = kb_ssh_agent_parse_keys(a->list, len, a->keys, &a->n_keys, err);
	*ret = a->keys;
	*ret_n = a->n_keys;
	return r < 0 ? r : 1;
}

int kb_ssh_agent_sign(struct kb_ssh_agent *a, const struct kb_ssh_identity *identity,
	const uint8_t *data, size_t len, const uint8_t **ret, size_t *ret_len, struct kb_err *err)
{
	static const uint8_t type = SIGN_REQUEST;
	const uint8_t *text;
	size_t text_len;
	int r;

	if (a->asked != SIGN_REQUEST) {
		bool good = put_u32(&a->out, 1 + 4 + identity->len + 4 + len + 4) &&
			    kb_buf_append(&a->out, &type, 1, NULL) == 0 &&
			    put_string(&a->out, identity->blob, identity->len) &&
			    put_string(&a->out, data, len) && put_u32(&a->out, 0);

		return asking(a, type, good, err);
	}
	r = answer(a, &text, &text_len, err);
	if (r <= 0)
		return r;
	answered(a, text_len); /* its bytes stay until the next question */
	r = kb_ssh_agent_parse_signature(text, text_len, ret, ret_len, err);
	return r < 0 ? r : 1;
}
