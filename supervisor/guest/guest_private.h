/* What the files of the guest's parent process share. */
#pragma once

#include <sys/types.h>

#include "audit/audit.h"
#include "proto/link.pb-c.h"
#include "supervisor/base/frame.h"
#include "supervisor/base/loop.h"
#include "supervisor/guest/guest.h"
#include "supervisor/guest/relays.h"
#include "supervisor/guest/runtime.h"
#include "supervisor/guest/spool.h"

#define KB_GUEST_SESSIONS_MAX 256	 /* at once */
#define KB_LINK_RECORDS_HIGH  (4u << 20) /* unsent bytes on the link; then records wait */
#define KB_RELAY_GRACE_MS     2000	 /* for output nobody takes, once its session is gone */

struct kb_guest {
	const struct kb_guest_options *options;
	struct kb_loop *loop;
	struct kb_channel *link;
	struct kb_source *child_source, *retry_timer, *spare_timer, *detach_timer;
	struct kb_runtime runtime;
	struct kb_bpf_hub *hub;	     /* NULL: sessions are recorded by lane notify */
	char no_bpf[KB_ERR_MSG_MAX]; /* why */
	struct kb_child *children;
	struct kb_child *spare; /* started ahead, waits for its session */
	bool closing;		/* the link is gone */
};

/* A message that waits for output to be passed on first. */
struct kb_held {
	struct kb_held *next;
	uint64_t process; /* of Exited; UINT64_MAX: of none */
	size_t len;
	uint8_t data[];
};

/* A session's process as its parent sees it. */
struct kb_child {
	struct kb_child *next;
	struct kb_guest *guest;
	pid_t pid; /* 0: reaped */
	int status;
	unsigned seat; /* in the hub */
	uint8_t session[KB_ULID_SIZE];
	char name[64]; /* of its state directory and control groups */
	struct kb_channel *channel;
	struct kb_relays relays;
	bool has_egress;
	uint32_t egress_base; /* of its stream numbers */
	struct kb_held *held, **held_tail;
	struct kb_spool spool;
	struct kb_source *grace;
	bool started, ended; /* those messages of the child came */
	uint8_t *failed;     /* its StartFailed of the first process, as it came */
	size_t failed_len;
	bool paused, over;
	bool awaits_orphans; /* it crashed; what it left is still being killed */
	int exit_code;
	uint32_t signal;
	char *reason;
};

/* child.c */
int kb_child_spawn(struct kb_guest *g, struct kb_child **ret, struct kb_err *err);
/* Give an idle child its session; the message is passed on. */
int kb_child_start(struct kb_child *c, const Kb__StartSession *msg, const uint8_t *data, size_t len,
	struct kb_err *err);
/* Pass on a further message of the host. */
int kb_child_send(struct kb_child *c, const uint8_t *data, size_t len, struct kb_err *err);
int kb_child_exec(struct kb_child *c, const Kb__ExecProcess *msg, const uint8_t *data, size_t len,
	struct kb_err *err);
int kb_child_inbound(struct kb_child *c, const Kb__Inbound *msg, const uint8_t *data, size_t len,
	struct kb_err *err);
void kb_child_acked(struct kb_child *c, uint64_t seq);
void kb_child_send_records(struct kb_child *c);
/* Tell the end if everything else has been told. */
void kb_child_check(struct kb_child *c);
/* Go on with the end, if it was waiting for orphans. */
void kb_child_settle(struct kb_child *c);
/* Its process was reaped. */
void kb_child_reaped(struct kb_child *c, int status);
/* The link is gone: end the session. */
void kb_child_hang_up(struct kb_child *c);
void kb_child_destroy(struct kb_child *c);

/* guest.c */
/* The child's last message is out: forget it, soon. */
void kb_guest_child_over(struct kb_guest *g);
/* A crashed session's runtime or kbsup-init, come to us as the next subreaper, must not go on.
 * Returns how many of them are still there; SIGCHLD tells when they are gone. */
unsigned kb_guest_kill_orphans(struct kb_guest *g);
void kb_guest_send(struct kb_guest *g, const Kb__FromGuest *msg);
void kb_guest_send_failed(
	struct kb_guest *g, const uint8_t *session, uint64_t process, struct kb_err *why);
