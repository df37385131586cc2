/* How a session is recorded: by lane notify alone, or by lane bpf with lane notify for the calls
 * that somebody has to answer (KB_EMIT_SPLIT). Each call is recorded by one of them.
 */
#pragma once

#include "audit/audit.h"
#include "supervisor/base/err.h"
#include "supervisor/base/loop.h"

struct kb_lanes {
	struct kb_bpf_seat *seat; /* made ahead */
	struct kb_bpf *bpf;
	struct kb_notify *notify;
	struct kb_notify_ops ops;
	void *arg;
};

/* Ahead of the session: a seat in the hub whose descriptors start at first_fd; they are closed. */
int kb_lanes_prepare(struct kb_lanes *lanes, int first_fd, unsigned seat, struct kb_err *err);
/* options: as for kb_notify_create; root_fd is taken. From here on the session is seen. use_bpf
 * needs a seat. ops and arg: of both lanes; ask and ask_over must be set. */
int kb_lanes_start(struct kb_lanes *lanes, struct kb_loop *loop,
	const struct kb_notify_options *options, bool use_bpf, const struct kb_notify_ops *ops,
	void *arg, struct kb_err *err);
/* Takes listener. */
int kb_lanes_add(struct kb_lanes *lanes, int listener, struct kb_err *err);
void kb_lanes_pause(struct kb_lanes *lanes, bool paused);
/* What is still to be told is told; from here on nothing is seen. */
void kb_lanes_stop(struct kb_lanes *lanes);
/* The same, and gives everything back. Zeroed or finished is fine. */
void kb_lanes_finish(struct kb_lanes *lanes);
