/* The host's end of a machine's lasting stream (supervisor/base/resume.h): dials, shakes hands, and
 * dials again when a carrier is lost, until the patience of KB_LASTING_MS is at its end. */
#pragma once

#include <stdbool.h>

#include "supervisor/base/err.h"
#include "supervisor/base/loop.h"

#define KB_LASTING_MS	     120000 /* without a carrier; $KBSUP_PATIENCE (seconds) replaces it */
#define KB_LASTING_RETRY_MS  200    /* from one try to the next, at first */
#define KB_LASTING_RETRY_MAX 2000
#define KB_LASTING_SYN_MS    300   /* a SYN that nobody answered is sent again */
#define KB_LASTING_TRY_MS    60000 /* a carrier on which nobody answers is given up */

struct kb_lasting;

struct kb_lasting_ops {
	/* Reach the machine: *ret_fd is, or is going to be, a byte stream to its kbsup-guest; what
	 * goes wrong later is told with kb_lasting_broke(). KB_ERR_NOTFOUND: the machine is no
	 * more, and nobody need try again. */
	int (*dial)(void *arg, int *ret_fd, struct kb_err *err);
	/* The carrier that was dialled is over. May be NULL. */
	void (*hang_up)(void *arg);
	/* There is a carrier now, or (why) no longer. */
	void (*carried)(bool carried, const struct kb_err *why, void *arg);
	/* The stream is lost. Called once; destroy it. */
	void (*lost)(const struct kb_err *why, void *arg);
};

/* The first dial happens here, and its failure is this call's. *ret_fd: the stream's socket. */
int kb_lasting_create(struct kb_loop *loop, const struct kb_lasting_ops *ops, void *arg,
	struct kb_lasting **ret, int *ret_fd, struct kb_err *err);
/* Why the carrier is going to end: better words than its end would find. */
void kb_lasting_broke(struct kb_lasting *lasting, const struct kb_err *why);
void kb_lasting_destroy(struct kb_lasting *lasting); /* NULL is fine */
