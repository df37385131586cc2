/* An ssh client on the loop: shells, commands, terminals, file transfers and forwarded ports on an
 * existing Linux machine. libssh2 stays behind ssh*.c.
 *
 * Nothing here blocks. Callbacks come from the loop, never from within the call that asked for
 * something, and anything may be closed or destroyed in any of them. The server's host key is
 * always checked against the one that was pinned; there is no way around it. What the server makes
 * libssh2 keep is bounded (KB_SSH_MEMORY_MAX), and so is every buffer here.
 *
 * Keys: Ed25519 and ECDSA, of servers and of users.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "supervisor/base/err.h"
#include "supervisor/base/loop.h"

#define KB_SSH_MEMORY_MAX   (96u << 20)
#define KB_SSH_CHANNELS_MAX 128
#define KB_SSH_CHUNK	    (32u << 10)	 /* the most that one `data` brings */
#define KB_SSH_ROOM	    (256u << 10) /* the most that waits to be sent on a channel */
#define KB_SSH_KEY_TEXT	    1024	 /* of a host key: "ssh-ed25519 AAAA…" */
#define KB_SSH_PRINT_TEXT   64		 /* of a fingerprint: "SHA256:…" */

#define KB_SSH_CONNECT_MS   20000
#define KB_SSH_KEEPALIVE_MS 15000
#define KB_SSH_DEAD_MS	    45000

struct kb_ssh;
struct kb_ssh_channel;

struct kb_ssh_target {
	const char *host; /* a name or an address */
	unsigned port;
	const char *user;
	const char *host_key;	 /* pinned: type and base64, as in a known_hosts file */
	const char *agent;	 /* socket of an ssh agent whose keys are tried first; NULL: none */
	const char *const *keys; /* files with private keys, tried next; NULL-terminated, or NULL */
	int64_t connect_ms;	 /* until it is ready; 0: KB_SSH_CONNECT_MS */
	int64_t keepalive_ms; /* silence after which it is asked; 0: KB_SSH_KEEPALIVE_MS; at least
				 2000 */
	int64_t dead_ms;      /* silence after which it counts as gone; 0: KB_SSH_DEAD_MS */
};

struct kb_ssh_ops {
	/* Connected, the host key is the pinned one, the user is in. */
	void (*ready)(struct kb_ssh *ssh, void *arg);
	/* Over, and why. Its channels and transfers were told before. Called once; destroy it. */
	void (*closed)(struct kb_ssh *ssh, const struct kb_err *why, void *arg);
};

/* Everything in target is copied. Channels and transfers may be asked for at once; they wait. */
int kb_ssh_connect(struct kb_loop *loop, const struct kb_ssh_target *target,
	const struct kb_ssh_ops *ops, void *arg, struct kb_ssh **ret, struct kb_err *err);
/* Ends everything on it without callbacks. NULL is fine. */
void kb_ssh_destroy(struct kb_ssh *ssh);

/* Ask a server for its host key and nothing else: user, host_key and keys of target are not used.
 * line[KB_SSH_KEY_TEXT] and print[KB_SSH_PRINT_TEXT] are NULL when it failed, and why says it.
 * Called once; the object is gone after it. */
typedef void (*kb_ssh_scan_fn)(
	const char *line, const char *print, const struct kb_err *why, void *arg);
int kb_ssh_scan(struct kb_loop *loop, const struct kb_ssh_target *target, kb_ssh_scan_fn fn,
	void *arg, struct kb_ssh **ret, struct kb_err *err);
/* The fingerprint of a host key in that form; KB_ERR_INVALID when it is none. */
int kb_ssh_fingerprint(const char *line, char ret[KB_SSH_PRINT_TEXT], struct kb_err *err);

/* ---- Channels -------------------------------------------------------------------------------- */

struct kb_ssh_exit {
	int code;	 /* of a command that exited */
	char signal[16]; /* "KILL", …: what ended it instead; empty: nothing did */
};

struct kb_ssh_channel_ops {
	/* The command was started, the connection made. May be NULL. */
	void (*opened)(struct kb_ssh_channel *ch, void *arg);
	/* The callee takes all of it, and pauses the channel when it has enough. err: of the
	 * command's standard error. */
	void (*data)(
		struct kb_ssh_channel *ch, bool err, const uint8_t *data, size_t len, void *arg);
	/* kb_ssh_channel_room() is not zero any more. May be NULL. */
	void (*writable)(struct kb_ssh_channel *ch, void *arg);
	/* No more data will come. May be NULL. */
	void (*eof)(struct kb_ssh_channel *ch, void *arg);
	/* Over: exit is how the command ended, or NULL and why says what went wrong. Called once;
	 * the channel is gone after it. */
	void (*closed)(struct kb_ssh_channel *ch, const struct kb_ssh_exit *exit,
		const struct kb_err *why, void *arg);
};

struct kb_ssh_exec {
	const char *command; /* for the user's shell there; NULL: a login shell */
	bool tty;	     /* on a terminal of its own, of this type and size */
	const char *term;    /* NULL: xterm */
	uint32_t rows, cols;
};

int kb_ssh_exec(struct kb_ssh *ssh, const struct kb_ssh_exec *exec,
	const struct kb_ssh_channel_ops *ops, void *arg, struct kb_ssh_channel **ret,
	struct kb_err *err);
/* A TCP connection from the server to host:port. */
int kb_ssh_dial(struct kb_ssh *ssh, const char *host, unsigned port,
	const struct kb_ssh_channel_ops *ops, void *arg, struct kb_ssh_channel **ret,
	struct kb_err *err);
/* How much a write takes now. After 0, as after a write that took less than offered, `writable`
 * comes when there is room. */
size_t kb_ssh_channel_room(const struct kb_ssh_channel *ch);
/* Returns how much was taken. */
size_t kb_ssh_channel_write(struct kb_ssh_channel *ch, const void *data, size_t len);
/* Nothing more will be written. */
void kb_ssh_channel_eof(struct kb_ssh_channel *ch);
/* No more `data` until it goes on; the server is held up. */
void kb_ssh_channel_pause(struct kb_ssh_channel *ch, bool paused);
void kb_ssh_channel_resize(struct kb_ssh_channel *ch, uint32_t rows, uint32_t cols);
/* Forget it: it is closed behind the scenes, without callbacks. NULL is fine. */
void kb_ssh_channel_close(struct kb_ssh_channel *ch);

/* ---- A channel and a socket, end to end ------------------------------------------------------ */

struct kb_ssh_splice;
/* Bytes go between ch, which was or is being opened with kb_ssh_splice_ops and this splice as its
 * arg, and fd (taken, a socket). over: both ends are closed; destroy it then. */
typedef void (*kb_ssh_splice_fn)(struct kb_ssh_splice *splice, const struct kb_ssh_exit *exit,
	const struct kb_err *why, void *arg);
extern const struct kb_ssh_channel_ops kb_ssh_splice_ops;
int kb_ssh_splice_create(struct kb_loop *loop, int fd, kb_ssh_splice_fn over, void *arg,
	struct kb_ssh_splice **ret, struct kb_err *err);
void kb_ssh_splice_start(struct kb_ssh_splice *splice, struct kb_ssh_channel *ch);
/* The channel's end is not passed on: the socket may be released for another channel. Before start.
 */
void kb_ssh_splice_keep(struct kb_ssh_splice *splice);
/* Its socket, now the caller's; destroy the splice after. */
int kb_ssh_splice_release(struct kb_ssh_splice *splice);
void kb_ssh_splice_destroy(struct kb_ssh_splice *splice); /* NULL is fine */

/* ---- Files (SFTP) ---------------------------------------------------------------------------- */

struct kb_ssh_copy {
	int fd; /* the file here, open; stays the caller's and at its place until the end */
	const char *path; /* the file there; a relative one starts at the user's home. Copied */
	unsigned mode;	  /* its permission bits (put) */
	bool soon;	  /* put: do not wait until it is on the disk there */
	/* total: 0 when unknown. May be NULL. */
	void (*progress)(uint64_t done, uint64_t total, void *arg);
	void (*done)(const struct kb_err *why, void *arg); /* NULL: all is well. Called once */
	void *arg;
};

/* One after the other, in order. A file there appears whole or not at all. */
int kb_ssh_put(struct kb_ssh *ssh, const struct kb_ssh_copy *copy, struct kb_err *err);
int kb_ssh_get(struct kb_ssh *ssh, const struct kb_ssh_copy *copy, struct kb_err *err);
/* End the copy that runs, if any, with "cancelled" (KB_ERR_CLOSED), once what it wrote there is
 * removed. */
void kb_ssh_copy_cancel(struct kb_ssh *ssh);

struct kb_ssh_attrs {
	unsigned mode; /* as st_mode has it; 0: not known */
	uint64_t size;
};

/* The rest is queued behind copies, and answered in order. Paths are copied. Where something is
 * not there, why->code is KB_ERR_NOTFOUND. Exactly one of the answer and why is not NULL. */
typedef void (*kb_ssh_attrs_fn)(
	const struct kb_ssh_attrs *attrs, const struct kb_err *why, void *arg);
/* What is at a path; follow: behind a link, else of the link itself. */
int kb_ssh_stat(struct kb_ssh *ssh, const char *path, bool follow, kb_ssh_attrs_fn fn, void *arg,
	struct kb_err *err);
/* The entries of a directory but "." and "..", in no order, then done. Names are foreign: any
 * bytes but NUL, at most KB_SSH_NAME_MAX. */
#define KB_SSH_NAME_MAX 1023
struct kb_ssh_lister {
	void (*entry)(const char *name, const struct kb_ssh_attrs *attrs, void *arg);
	void (*done)(const struct kb_err *why, void *arg); /* NULL: that was all */
	void *arg;
};
int kb_ssh_list(struct kb_ssh *ssh, const char *path, const struct kb_ssh_lister *lister,
	struct kb_err *err);
typedef void (*kb_ssh_text_fn)(const char *text, const struct kb_err *why, void *arg);
int kb_ssh_readlink(
	struct kb_ssh *ssh, const char *path, kb_ssh_text_fn fn, void *arg, struct kb_err *err);
typedef void (*kb_ssh_done_fn)(const struct kb_err *why, void *arg); /* NULL: all is well */
int kb_ssh_mkdir(struct kb_ssh *ssh, const char *path, unsigned mode, kb_ssh_done_fn fn, void *arg,
	struct kb_err *err);
int kb_ssh_chmod(struct kb_ssh *ssh, const char *path, unsigned mode, kb_ssh_done_fn fn, void *arg,
	struct kb_err *err);
/* A link at path, in place of a file or link that is there. */
int kb_ssh_symlink(struct kb_ssh *ssh, const char *path, const char *target, kb_ssh_done_fn fn,
	void *arg, struct kb_err *err);

/* ---- Local ports ----------------------------------------------------------------------------- */

struct kb_ssh_forward;

/* Listen on 127.0.0.1:*port (0: a free one, told in *port) and connect whoever comes with host:port
 * as the server sees them. Destroy it before the connection. */
int kb_ssh_forward(struct kb_loop *loop, struct kb_ssh *ssh, unsigned *port, const char *to_host,
	unsigned to_port, struct kb_ssh_forward **ret, struct kb_err *err);
void kb_ssh_forward_destroy(struct kb_ssh_forward *forward); /* NULL is fine */
