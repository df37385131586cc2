/* What the files of the link share.
 *
 *	link.c		the role: main's messages, the store's acknowledgements, life and end
 *	guest.c		what the guest says, and whether it may
 *	check.c		the pure checks of the guest's messages
 *	egress.c	a session's connections: to its broker and back
 *	inbound.c	connections to a session's published ports
 *	process.c	a process of a session: its streams spliced to an attachment
 *	pipe.c		the transport of driver `local`
 *	lasting.c	one stream over many carriers, for machines further away
 *	reach.c		what the two transports over it share
 *	serial.c	carriers: the virtio serial port of a machine of ours
 *	remote.c	carriers: ssh connections
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "link.h"
#include "proto/link.pb-c.h"
#include "proto/role.pb-c.h"
#include "supervisor/base/buf.h"
#include "supervisor/base/frame.h"
#include "supervisor/base/loop.h"
#include "supervisor/base/str.h"

#define KB_LINK_STREAMS                                                                            \
	4 /* numbers a process takes: stdin or tty, stdout, stderr, and one spare                  \
	   */
#define KB_LINK_SCROLLBACK (64u << 10) /* output kept per stream while nobody is attached */
#define KB_LINK_LINES	   64	       /* of `effective` and of `missing` */
#define KB_LINK_LINE	   512
#define KB_LINK_QUEUE_HIGH (6u << 20) /* unsent to the store: the guest is not read any more */
#define KB_LINK_QUEUE_LOW  (2u << 20)

/* One direction: src → buf → dst. Without dst, the newest bytes are kept. */
struct kb_splice {
	struct kb_buf buf;
	struct kb_stream *src, *dst;
	size_t unreported; /* bytes at the end of buf not yet reported to src as consumed */
	bool src_eof, eof_passed;
};

struct kb_link;
struct kb_link_session;
struct kb_link_egress;
struct kb_link_inbound;
struct kb_process;

/* The far end of one `kbsup run|attach|exec`. Outlives its process until its last bytes are read.
 */
struct kb_attachment {
	TAILQ_ENTRY(kb_attachment) entry;
	struct kb_link *link;
	struct kb_process *process; /* NULL: over, only delivering */
	struct kb_channel *ch;
	struct kb_stream *streams[3]; /* 0: input or tty, 1: output, 2: error */
};

struct kb_process {
	TAILQ_ENTRY(kb_process) entry;
	struct kb_link_session *session;
	uint64_t id; /* 0: the session's first */
	uint32_t stdio;
	bool tty, started, exited, done;
	int32_t exit_code;
	uint32_t signal;
	struct kb_stream *streams[3]; /* of the guest's channel; tty: the first alone */
	struct kb_splice in, out[3];  /* out[i]: streams[i] → attachment->streams[i] */
	struct kb_attachment *at;     /* NULL: none */
	struct kb_source *linger;     /* exited: output may follow for so long */
	/* For attachments that come later. */
	char **effective, **missing;
	size_t n_effective, n_missing;
	char *lane;
};

struct kb_link_session {
	TAILQ_ENTRY(kb_link_session) entry;
	struct kb_link *link;
	uint8_t id[KB_ULID_SIZE];
	uint64_t received; /* last seq that came from the guest */
	uint64_t stored;   /* last seq the store was given: the broker's are among them */
	struct kb_link_egress *egress;	 /* NULL: loopback only */
	struct kb_link_inbound *inbound; /* NULL: not started yet */
	uint64_t denials, told_records;
	uint64_t last_question;
	bool discard; /* its store is gone: blocks are acknowledged and dropped */
	bool over;    /* ended or failed to start: the guest says no more of it */
	TAILQ_HEAD(, kb_process) processes;
};

/* How a machine's guest is reached. */
struct kb_transport {
	const char *name;
	int greeting_ms; /* for the guest to greet, from open on */
	/* Start or reach the guest: *ret_fd is a stream socket with its frames. What is kept goes
	 * into link->transport_state. */
	int (*open)(struct kb_link *link, int *ret_fd, struct kb_err *err);
	void (*close)(struct kb_link *link); /* after a failed open too; NULL: nothing to do */
};
extern const struct kb_transport kb_transport_pipe;
extern const struct kb_transport kb_transport_serial;
extern const struct kb_transport kb_transport_ssh;

struct kb_link {
	struct kb_loop *loop;
	const struct kb_link_options *options;
	const struct kb_transport *transport;
	void *transport_state;
	struct kb_channel *main, *store, *guest; /* NULL: closed or not yet */
	pid_t guest_pid;			 /* of our child; 0: it is none */
	bool greeted;				 /* the guest's Hello was good */
	bool leaving;				 /* no new sessions; the guest was told to go */
	bool finished;				 /* the loop stops */
	int status;
	struct kb_err fault; /* why the guest is cut off; code 0: it is not */
	struct kb_source *kick, *deadline, *progress, *drain;
	uint32_t next_stream, next_egress;
	int next_broker; /* channel to the broker of the session that starts next; -1: none */
	TAILQ_HEAD(, kb_link_session) sessions;
	TAILQ_HEAD(, kb_attachment) attachments;
};

/* link.c: the machine's stream is carried now, or (why) is not. */
void kb_link_carried(struct kb_link *link, bool carried, const struct kb_err *why);
void kb_link_tell_main(struct kb_link *link, Kb__Role__FromLink *msg);
int kb_link_tell_guest(struct kb_link *link, Kb__ToGuest *msg, struct kb_err *err);
void kb_link_ack(struct kb_link *link, const uint8_t id[KB_ULID_SIZE], uint64_t seq);
/* Ask the guest to end everything and go. */
void kb_link_leave(struct kb_link *link, const char *reason);
/* The guest is gone or must not be heard any more. */
void kb_link_fail(struct kb_link *link, const struct kb_err *why);
struct kb_link_session *kb_link_find(struct kb_link *link, ProtobufCBinaryData id);
/* Free it once it is over and every process of it is done. */
void kb_link_session_reap(struct kb_link_session *s);
ProtobufCBinaryData kb_link_id(struct kb_link_session *s);

/* guest.c: hand a block to the store, under the session's next numbers. */
void kb_link_store_block(
	struct kb_link_session *s, const ProtobufCBinaryData *block, uint32_t count);

/* egress.c. base: the first stream number of its connections. Takes fd. */
int kb_link_egress_create(struct kb_link_session *s, int fd, uint32_t base, struct kb_err *err);
int kb_link_egress_message(struct kb_link_session *s, const Kb__Egress *msg, struct kb_err *err);
/* The guest's records so far are the store's up to `stored`. */
int kb_link_egress_mark(struct kb_link_session *s, uint64_t stored, struct kb_err *err);
/* The store has everything up to `stored`: which number of the guest's that is (0: none new). */
uint64_t kb_link_egress_acked(struct kb_link_session *s, uint64_t stored);
void kb_link_egress_forget_guest(struct kb_link_session *s);
void kb_link_egress_destroy(struct kb_link_session *s); /* fine without one */

/* inbound.c. publish takes fd; inbound_destroy comes before the guest's channel goes. */
int kb_link_inbound_publish(
	struct kb_link *link, const Kb__Role__LinkPublish *msg, int fd, struct kb_err *err);
int kb_link_inbound_message(struct kb_link_session *s, const Kb__Inbound *msg, struct kb_err *err);
void kb_link_inbound_started(struct kb_link_session *s);
void kb_link_inbound_destroy(struct kb_link_session *s); /* fine without one */

/* guest.c */
extern const struct kb_channel_ops kb_guest_ops; /* arg: struct kb_link */

/* check.c: 0, or KB_ERR_INVALID that says what the guest got wrong. */
int kb_check_hello(const Kb__Hello *msg, const char *build, struct kb_err *err);
int kb_check_lines(char **lines, size_t n, struct kb_err *err);
int kb_check_exit(int32_t exit_code, uint32_t signal, struct kb_err *err);
/* last: the highest number so far. */
int kb_check_question(const Kb__Question *msg, uint64_t last, struct kb_err *err);
/* received: the last sequence number so far. */
int kb_check_records(const Kb__Records *msg, uint64_t received, struct kb_err *err);

int kb_check_egress(const Kb__Egress *msg, struct kb_err *err);
int kb_check_inbound(const Kb__Inbound *msg, struct kb_err *err);

/* process.c */
int kb_process_create(struct kb_link_session *s, uint64_t id, bool tty, struct kb_process **ret,
	struct kb_err *err);
void kb_process_destroy(struct kb_process *p);
struct kb_process *kb_process_find(struct kb_link_session *s, uint64_t id);
/* Takes fd. Another attachment of the process is detached. */
int kb_process_attach(struct kb_process *p, int fd, struct kb_err *err);
/* Nobody is attached, nor will input ever come. */
void kb_process_no_input(struct kb_process *p);
void kb_process_started(struct kb_process *p, const Kb__Started *msg);
void kb_process_exited(struct kb_process *p, int32_t exit_code, uint32_t signal);
void kb_attachment_destroy(struct kb_attachment *at);
