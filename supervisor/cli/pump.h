/* Connects this program's terminal or pipes with a process in a session, until it ends or the user
 * leaves. See pump.c for what happens to keys, signals and the terminal.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "cli.h"
#include "keys.h"
#include "supervisor/daemon/client.h"

enum kb_pump_verb { KB_PUMP_RUN, KB_PUMP_ATTACH, KB_PUMP_EXEC };

/* How it went. */
struct kb_pump_end {
	int exit_code; /* 0–255 or 128+signal */
	bool detached;
	char detach_reason[128]; /* why, when it was not the user */
	char id[KB_ULID_TEXT];	 /* empty: it never got that far */
	char name[KB_NAME_MAX];
	bool has_session;
	struct kb_session session; /* run, attach: how the session ended; finish it */
	int output_errnum; /* the output could not be written: errno; EPIPE does not count */
};

struct kb_pump;

struct kb_pump_options {
	struct kb_cli *cli;
	struct kb_loop *loop;
	enum kb_pump_verb verb;
	bool tty; /* the process has a terminal: ours is raw meanwhile */
	struct kb_keys keys;
	/* The process runs; nothing of its output has come. For the opening line. May be NULL. */
	void (*started)(const struct kb_pump_end *end, const struct kb_started *started, void *arg);
	void *arg;
};

int kb_pump_create(const struct kb_pump_options *options, struct kb_pump **ret, struct kb_err *err);
void kb_pump_destroy(struct kb_pump *pump); /* NULL is fine */
/* What to hand to kb_client_run() and its like, with the pump as arg. */
extern const struct kb_attach_ops kb_pump_ops;
/* Turns the loop until the end. at is what the client gave; destroy it afterwards. The terminal is
 * as it was before on return. */
int kb_pump_run(
	struct kb_pump *pump, struct kb_attach *at, struct kb_pump_end *ret, struct kb_err *err);

/* The detach keys: option, else KBSUP_DETACH_KEYS, else the default. */
int kb_pump_keys(struct kb_keys *keys, const char *option, struct kb_err *err);
