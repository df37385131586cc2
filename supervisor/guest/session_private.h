/* What the files of the session process share. */
#pragma once

#include "audit/audit.h"
#include "proto/link.pb-c.h"
#include "supervisor/guest/egress.h"
#include "supervisor/guest/inbound.h"
#include "supervisor/guest/lanes.h"
#include "supervisor/guest/process.h"
#include "supervisor/guest/recorder.h"
#include "supervisor/guest/session.h"

enum kb_session_state { IDLE, STARTING, LAUNCHING, RUNNING, ENDING, OVER };

/* One process of the session. */
struct kb_member {
	struct kb_session *session;
	struct kb_member *next;
	uint64_t id;
	struct kb_process *process;
	char *argv0;
	bool tty, started, exited, drained;
	int status; /* as from wait(2) */
	struct kb_err failure;
};

struct kb_session {
	const struct kb_setup_options *options;
	struct kb_loop *loop;
	struct kb_channel *channel;
	enum kb_session_state state;
	uint8_t id[KB_ULID_SIZE];
	int lock; /* of the state directory */
	struct kb_setup setup;
	struct kb_container *container;
	struct kb_recorder *recorder;
	struct kb_lanes lanes;
	struct kb_egress *egress;   /* NULL: loopback only */
	struct kb_inbound *inbound; /* NULL: no port was ever published */
	struct kb_member *members;  /* the first process is the last of the list */
	Kb__ToGuest *start;	    /* until the first process is launched */
	struct kb_lines effective;
	bool attached, container_gone, host_gone;
	bool egress_over;		  /* nothing more is recorded of the network */
	uint64_t oom_kills, pids_refused; /* already recorded */
	char reason[KB_ERR_MSG_MAX];	  /* why it ended, if not by itself */
	struct kb_err failure;		  /* why it could not start; code 0: it could */
	struct kb_source *limit_timer, *stop_timer;
};

/* session_env.c: what the agent is told of its session, unless spec already says it. env has room
 * for KB_OWN_VARIABLES more than spec has; text is where they stand. The number of all of them. */
#define KB_OWN_VARIABLES    20
#define KB_OWN_VARIABLE_MAX (KB_NAME_MAX + 64)
size_t kb_session_own_env(const struct kb_session *s, const Kb__ProcessSpec *spec,
	struct kb_byte_string *env, char text[KB_OWN_VARIABLES][KB_OWN_VARIABLE_MAX]);

/* session_say.c: messages to the host, and records of our own. status is as from wait(2). */
void kb_session_send_failed(struct kb_session *s, uint64_t process, struct kb_err *why);
void kb_session_send_started(struct kb_session *s, uint64_t process);
void kb_session_send_exited(struct kb_session *s, const struct kb_member *m);
void kb_session_send_ended(struct kb_session *s, int status);
/* Ops of the collector; arg is the session. */
void kb_session_send_question(const struct kb_asked *question, void *arg);
void kb_session_send_question_over(uint64_t number, const char *how, void *arg);
void kb_session_record_start(struct kb_session *s);
void kb_session_record_limit(struct kb_session *s, const char *text, uint64_t count);
void kb_session_record_end(struct kb_session *s, int status);
/* Records what the control groups counted since we last looked. */
void kb_session_check_counters(struct kb_session *s);
