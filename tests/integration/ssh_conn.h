/* A connection of the ssh client to the fixture's server, and commands on it, each waited for. */
#pragma once

#include "sshd_fixture.h"
#include "supervisor/base/buf.h"
#include "supervisor/base/loop.h"
#include "supervisor/link/ssh.h"

#define CONN_WAIT_MS 120000

extern struct sshd conn_server; /* started by main() */

/* One connection and what came of it. */
struct conn {
	struct kb_loop *loop;
	struct kb_source *limit;
	struct kb_ssh *ssh;
	bool ready, closed, late;
	struct kb_err why;
	/* of a command */
	struct kb_ssh_channel *ch;
	struct kb_buf out, err, in;
	bool opened, eof, done, done_well;
	struct kb_ssh_exit exit;
	struct kb_err done_why;
	const char *await; /* stop when the output has it */
};

/* The server, its host key, the key that opens it. */
struct kb_ssh_target conn_target(void);
/* Connecting; conn_run() until ready or closed. */
struct conn *conn_start(const struct kb_ssh_target *t);
/* A ready one, or the test fails. */
struct conn *conn_connected(void);
void conn_finish(struct conn *c);
/* Turn the loop until *until; the test fails after CONN_WAIT_MS. */
void conn_run(struct conn *c, const bool *until);

/* Start a command: c->ch, c->opened, c->out, c->err, c->done … */
void conn_begin(struct conn *c, const struct kb_ssh_exec *exec);
/* Send what is in c->in, then the end of the input. */
void conn_feed(struct conn *c);
/* Run one without input to its end. */
void conn_command(struct conn *c, const char *text);
void conn_await_output(struct conn *c, const char *text);
void conn_assert_text(struct kb_buf *buf, const char *text);
