/* What the files of the ssh client share.
 *
 *	ssh.c		the connection: bytes in and out, life, keepalive, end
 *	ssh_dial.c	from a name to a connected socket
 *	ssh_auth.c	host key, then the user's keys
 *	ssh_agent.c	keys and signatures of an ssh agent
 *	ssh_channel.c	commands and connections
 *	ssh_sftp.c	work on files, one after the other; ssh_copy.c: their contents
 *	ssh_splice.c	a channel and a descriptor, end to end
 *	ssh_forward.c	local ports
 */
#pragma once

#include <libssh2.h>
#include <libssh2_sftp.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "ssh.h"
#include "supervisor/base/buf.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

#define KB_SSH_IN_MAX	(256u << 10) /* from the socket, not yet taken by libssh2 */
#define KB_SSH_OUT_HIGH (512u << 10) /* to the socket: channels and transfers wait above it */
#define KB_SSH_OUT_MAX	(16u << 20)
#define KB_SSH_KEYS_MAX 8

enum kb_ssh_phase {
	KB_SSH_DIALLING,
	KB_SSH_HANDSHAKE,
	KB_SSH_AUTH,
	KB_SSH_READY,
	KB_SSH_OVER, /* `closed` was or need not be called */
};

struct kb_ssh_dial;
struct kb_ssh_agent;

struct kb_ssh_identity {
	const uint8_t *blob; /* in the agent's answer */
	size_t len;
};

struct kb_ssh_auth {
	struct kb_ssh_agent *agent;	    /* NULL: none, or done with */
	const struct kb_ssh_identity *list; /* the agent's; NULL: not asked yet */
	size_t n_list;
	bool listed;	      /* the server said what it takes */
	size_t identity, key; /* the next to try */
	char tried[256];      /* for people */
};

struct kb_ssh {
	struct kb_loop *loop;
	const struct kb_ssh_ops *ops;
	void *arg;
	kb_ssh_scan_fn scan; /* not NULL: the host key is all that is wanted */

	char *host, *user, *host_key, *agent_path;
	char *keys[KB_SSH_KEYS_MAX + 1];
	unsigned port;
	char where[320]; /* host:port, for people */
	int64_t connect_ms, keepalive_ms, dead_ms;

	enum kb_ssh_phase phase;
	struct kb_ssh_dial *dial;
	struct kb_ssh_auth auth;
	LIBSSH2_SESSION *session;
	size_t memory; /* what libssh2 has */
	LIST_HEAD(, kb_ssh_piece) pieces;
	int fd;
	struct kb_source *io, *kick, *deadline, *alive;
	struct kb_buf in, out;
	bool eof;      /* the server sends no more */
	int64_t heard; /* when something came last */
	int errnum;    /* the socket's, when it broke */

	TAILQ_HEAD(, kb_ssh_channel) channels;
	size_t n_channels;
	struct kb_ssh_channel *opening; /* libssh2 opens one at a time */
	TAILQ_HEAD(, kb_ssh_job) jobs;	/* on files */
	LIBSSH2_SFTP *sftp;

	bool serving, doomed; /* in the middle of its work; to be freed after it */
};

/* ---- ssh.c ---- */

/* For what libssh2 frees. abstract: points to the kb_ssh. */
void *kb_ssh_alloc(size_t size, void **abstract);
/* Do what can be done, soon. */
void kb_ssh_kick(struct kb_ssh *ssh);
/* It is over. Keeps the first reason. */
void kb_ssh_fail(struct kb_ssh *ssh, const struct kb_err *why);
/* An error from what libssh2 says: "WHAT: …". */
int kb_ssh_error(struct kb_ssh *ssh, struct kb_err *err, const char *what);
/* Whether a result of libssh2 means that the connection, not just a channel, is broken. */
bool kb_ssh_is_fatal(int rc);

/* ---- ssh_dial.c ---- */

struct kb_ssh_dial_ops {
	void (*connected)(int fd, void *arg); /* takes fd */
	void (*failed)(const struct kb_err *why, void *arg);
};
int kb_ssh_dial_start(struct kb_loop *loop, const char *host, unsigned port,
	const struct kb_ssh_dial_ops *ops, void *arg, struct kb_ssh_dial **ret, struct kb_err *err);
void kb_ssh_dial_destroy(struct kb_ssh_dial *dial); /* NULL is fine */

/* ---- ssh_auth.c: 1 done, 0 wait, or a negative error ---- */

/* Before the handshake: ask for the kind of key that is pinned. */
int kb_ssh_want_host_key(struct kb_ssh *ssh, struct kb_err *err);
/* After it: what the server showed, as line and fingerprint. */
int kb_ssh_shown_key(struct kb_ssh *ssh, char line[KB_SSH_KEY_TEXT], char print[KB_SSH_PRINT_TEXT],
	struct kb_err *err);
int kb_ssh_check_host_key(struct kb_ssh *ssh, struct kb_err *err);
int kb_ssh_auth_step(struct kb_ssh *ssh, struct kb_err *err);
void kb_ssh_auth_finish(struct kb_ssh *ssh);

/* ---- ssh_agent.c ---- */

#define KB_SSH_AGENT_KEYS 16

/* The agent's answers, taken apart. Pure. Identities that libssh2 cannot use are left out. */
int kb_ssh_agent_parse_keys(const uint8_t *data, size_t len,
	struct kb_ssh_identity ret[KB_SSH_AGENT_KEYS], size_t *ret_n, struct kb_err *err);
/* The raw signature in the answer to a request to sign. */
int kb_ssh_agent_parse_signature(
	const uint8_t *data, size_t len, const uint8_t **ret, size_t *ret_len, struct kb_err *err);

/* woken: something came; ask again. */
int kb_ssh_agent_open(struct kb_loop *loop, const char *path, void (*woken)(void *arg), void *arg,
	struct kb_ssh_agent **ret, struct kb_err *err);
void kb_ssh_agent_close(struct kb_ssh_agent *agent); /* NULL is fine */
/* 1 and the list (the agent's, until the next question), 0 not yet, or a negative error. */
int kb_ssh_agent_list(struct kb_ssh_agent *agent, const struct kb_ssh_identity **ret, size_t *ret_n,
	struct kb_err *err);
/* The same for a signature; ret points into the agent's answer. */
int kb_ssh_agent_sign(struct kb_ssh_agent *agent, const struct kb_ssh_identity *identity,
	const uint8_t *data, size_t len, const uint8_t **ret, size_t *ret_len, struct kb_err *err);

/* ---- ssh_channel.c ---- */

/* One step; true when something happened. */
bool kb_ssh_channels_step(struct kb_ssh *ssh);
/* The connection is over: tell (why) or just free (NULL). */
void kb_ssh_channels_end(struct kb_ssh *ssh, const struct kb_err *why);

/* ---- ssh_sftp.c ---- */

/* Something to be done with the files there, embedded in what knows how. */
struct kb_ssh_job {
	TAILQ_ENTRY(kb_ssh_job) entry;
	/* One step, with ssh->sftp there; true when something happened. Ends with
	 * kb_ssh_job_end(). */
	bool (*step)(struct kb_ssh *ssh, struct kb_ssh_job *job);
	void (*tell)(struct kb_ssh_job *job, const struct kb_err *why); /* whoever asked */
	void (*drop)(struct kb_ssh *ssh, struct kb_ssh_job *job);	/* free it */
	bool told;
};

/* Takes job, also on failure. */
int kb_ssh_job_add(struct kb_ssh *ssh, struct kb_ssh_job *job, struct kb_err *err);
/* Out of the queue, told, freed. */
void kb_ssh_job_end(struct kb_ssh *ssh, struct kb_ssh_job *job, const struct kb_err *why);
bool kb_ssh_jobs_step(struct kb_ssh *ssh);
/* The connection is over: tell (why), or just free (NULL). */
void kb_ssh_jobs_end(struct kb_ssh *ssh, const struct kb_err *why);
/* "HOST: PATH cannot be WHAT: …", from what the server says; the connection fails as well when that
 * is what broke (then true). */
bool kb_ssh_sftp_error(struct kb_ssh *ssh, const char *path, const char *what, struct kb_err *ret);
static inline bool kb_ssh_waits(ssize_t rc)
{
	return rc == LIBSSH2_ERROR_EAGAIN;
}
