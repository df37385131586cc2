/* Role main: what its files share. main owns the control socket and the state of sessions; it
 * never looks at what a guest or a record says.
 *
 *	main.c		life of the process: start, signals, idle, stop
 *	listen.c	the lock and the control socket
 *	conn.c		one connection of a client; requests.c: its requests
 *	session.c	the sessions' state × event table; session_msg.c: their messages
 *	session_asked.c	questions of `ask` rules, and their answers
 *	session_ports.c	ports of sessions that are published on this host
 *	process.c	role processes: start, loss, restart
 *	peers.c		what store and reader say
 *	places.c	the machines sessions run on, and what their links say
 *	chores.c	work on the store that clients ask for: pruning
 *	import.c	logs that become sessions
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "proto/control.pb-c.h"
#include "proto/role.pb-c.h"
#include "supervisor/base/dirs.h"
#include "supervisor/base/err.h"
#include "supervisor/base/frame.h"
#include "supervisor/base/inbound.h"
#include "supervisor/base/loop.h"
#include "supervisor/base/str.h"

#define KB_CONNS_MAX	      256  /* clients at once */
#define KB_SESSIONS_MAX	      1024 /* live sessions */
#define KB_WATCHES_MAX	      64   /* unanswered requests of one client */
#define KB_LIVE_QUESTIONS_MAX 64   /* open ones of one session */
#define KB_ARGV_MAX	      (2u << 20)
#define KB_IDLE_MS	      300000 /* unless KBSUP_IDLE says otherwise */

#define KB_MACHINE_LOCAL "local"

struct kb_bundle;
struct kb_main;
struct kb_place;
struct kb_role_process;
struct kb_conn;
struct kb_live;
struct kb_chore;
struct kb_import;

/* ---- Role processes (process.c) -------------------------------------------------------------- */

enum kb_process_state { KB_PROCESS_STARTING, KB_PROCESS_UP };

struct kb_process_kind {
	const char *role;
	unsigned spawn_flags;
	/* A message; a negative return ends the process. */
	int (*message)(
		struct kb_role_process *p, const uint8_t *data, size_t len, struct kb_err *err);
	/* It is gone, whole: channel closed, process reaped. why says how. p is freed after. */
	void (*gone)(struct kb_role_process *p, const struct kb_err *why);
};

struct kb_role_process {
	struct kb_main *main;
	TAILQ_ENTRY(kb_role_process) entry;
	const struct kb_process_kind *kind;
	enum kb_process_state state;
	uint32_t number; /* unique: which link, which store */
	pid_t pid;
	struct kb_channel *ch; /* NULL once it is closed */
	bool reaped;
	bool expected;	  /* its end was asked for */
	bool interrupted; /* link: its machine cannot be reached now */
	int status;	  /* of waitpid, when reaped */
	int64_t started;
	struct kb_err last_words; /* why it says it ended; code 0: nothing said */
	struct kb_source *timer;  /* ends a process that closed its channel and stays */
	struct kb_place *place;	  /* link: of which machine */
	struct kb_conn *conn;	  /* reader: who asked, and with which request */
	uint32_t request;
	ProtobufCBinaryData question; /* reader: not yet handed over, see peers.c; owned */
	int out_fd;		      /* reader: goes with the question, owned; -1: none */
};

/* args: what the role is told on its command line besides, NULL-terminated; NULL: nothing. */
int kb_process_start(struct kb_main *m, const struct kb_process_kind *kind, const char *const *args,
	struct kb_role_process **ret, struct kb_err *err);
int kb_process_send(
	struct kb_role_process *p, const ProtobufCMessage *msg, int fd, struct kb_err *err);
/* Close the channel: the role ends by itself. */
void kb_process_close(struct kb_role_process *p);
void kb_process_kill(struct kb_role_process *p, int signo);
/* SIGCHLD. */
void kb_process_reap_all(struct kb_main *m);

/* ---- Places (places.c) ----------------------------------------------------------------------- */

/* What a machine's guest said of itself. */
struct kb_machine_facts {
	char *runtime, *runtime_why, *kernel;
	uint32_t landlock_abi, arch;
	bool rootless;
	pid_t guest_pid;
	char **limits_missing;
	size_t n_limits_missing;
};

/* A machine as main knows it: how it is reached, and its link. `local` is always there; another one
 * while it has sessions, and a while after, so that the next one finds its link up. */
struct kb_place {
	struct kb_main *main;
	TAILQ_ENTRY(kb_place) entry;
	char *name, *transport, *address; /* of `local`, the latter two are "pipe" and "" */
	struct kb_role_process *link;	  /* NULL: none now */
	unsigned failures;		  /* the link died while starting, in a row */
	unsigned lives;			  /* sessions that have not ended */
	struct kb_source *idle;		  /* without sessions the link leaves; not `local`'s */
	struct kb_machine_facts facts;
};

int kb_places_init(struct kb_main *m, struct kb_err *err);
void kb_places_finish(struct kb_main *m);
struct kb_place *kb_place_local(const struct kb_main *m);
/* The one that a run names, made when missing. KB_ERR_EXISTS when a machine of that name has
 * sessions and is reached differently. */
int kb_place_find(struct kb_main *m, const Kb__Control__RunRequest *run, struct kb_place **ret,
	struct kb_err *err);
bool kb_place_is_local(const struct kb_place *place);
/* `local`, or one that a session waits for. */
bool kb_place_is_needed(const struct kb_place *place);
/* A session more, or one less, on it. */
void kb_place_enter(struct kb_place *place);
void kb_place_leave(struct kb_place *place);
/* Its link runs, or is started. */
int kb_place_ensure(struct kb_place *place, struct kb_err *err);
/* Store and link are up: a session can be launched. */
bool kb_place_ready(const struct kb_place *place);
/* Connect every link with the store, which is new. */
void kb_places_use_store(struct kb_main *m);
/* Ask all links to leave; and whether any is still there. */
void kb_places_shut_down(struct kb_main *m);
bool kb_places_linked(const struct kb_main *m);

/* ---- Chores (chores.c) ----------------------------------------------------------------------- */

/* The client is answered when the store has done it, or was lost. */
int kb_chore_prune(struct kb_conn *conn, uint32_t request, const Kb__Control__PruneRequest *what,
	struct kb_err *err);
void kb_chore_pruned(struct kb_role_process *store, const Kb__Role__StorePruned *msg);
void kb_chores_store_gone(struct kb_role_process *store, const struct kb_err *why);
void kb_chores_forget_conn(struct kb_main *m, const struct kb_conn *conn);

/* ---- Imports (import.c) ---------------------------------------------------------------------- */

/* fd: the log, kept by a dup. The client is answered when the session is durable. */
int kb_import_start(struct kb_conn *conn, uint32_t request, const Kb__Control__ImportRequest *what,
	int fd, struct kb_err *err);
/* What the store says of sessions; those that are no imports are ignored. */
void kb_import_finished(struct kb_role_process *store, const Kb__Role__SessionFinished *msg);
void kb_import_unstorable(
	struct kb_role_process *store, ProtobufCBinaryData id, const struct kb_err *why);
void kb_imports_store_gone(struct kb_role_process *store, const struct kb_err *why);
void kb_imports_forget_conn(struct kb_main *m, const struct kb_conn *conn);
/* The supervisor leaves. */
void kb_imports_stop(struct kb_main *m);

/* ---- main ------------------------------------------------------------------------------------ */

struct kb_main {
	struct kb_loop *loop;
	struct kb_dirs dirs;
	const char *log;  /* "" : stderr */
	uint64_t started; /* ns since the epoch */
	int lock, listener;
	bool activated; /* the socket belongs to systemd */
	struct kb_source *accept, *sigs[4], *idle, *stop_timer, *respawn;
	int64_t idle_ms; /* 0: never leave */
	TAILQ_HEAD(kb_conns, kb_conn) conns;
	size_t n_conns;
	TAILQ_HEAD(kb_lives, kb_live) lives;
	size_t n_lives;
	TAILQ_HEAD(kb_chores, kb_chore) chores;
	TAILQ_HEAD(kb_imports, kb_import) imports;
	TAILQ_HEAD(kb_processes, kb_role_process) processes;
	uint32_t last_number;
	struct kb_role_process *store; /* NULL: none now */
	unsigned failures;	       /* the store died while starting, in a row */
	TAILQ_HEAD(kb_places, kb_place) places;
	enum kb_stopping { KB_RUNS, KB_STOPS_SESSIONS, KB_STOPS_LINKS, KB_STOPS_STORE } stopping;
	char stop_reason[128];
	int exit_status;
};

struct kb_main_options {
	bool foreground;
	int ready_fd; /* -1: nobody waits */
};
/* The whole life of role main; returns the exit status. */
int kb_main_run(const struct kb_main_options *options);
/* Begin a clean stop. */
void kb_main_stop(struct kb_main *m, const char *reason);
/* Something ended: is it time to leave, or the next step of the stop? */
void kb_main_check(struct kb_main *m);

/* ---- Lock and socket (listen.c) -------------------------------------------------------------- */

/* KB_ERR_EXISTS names the supervisor that holds it. */
int kb_listen_lock(const struct kb_dirs *dirs, int *ret, struct kb_err *err);
int kb_listen_open(const struct kb_dirs *dirs, int *ret, bool *ret_activated, struct kb_err *err);

/* ---- Connections (conn.c, requests.c) -------------------------------------------------------- */

/* Ports of a session that are reachable on this host. */
struct kb_ports {
	struct kb_port {
		uint16_t port, host_port;
		int fd; /* listens; -1 once the link has it */
	} list[KB_INBOUND_PORTS];
	size_t n;
};

struct kb_conn {
	struct kb_main *main;
	struct kb_ports ports; /* of the session that its next run starts */
	TAILQ_ENTRY(kb_conn) entry;
	struct kb_channel *ch;
	bool greeted;
	int secrets;	  /* for the session that is asked for next; -1: none */
	unsigned watches; /* requests waiting for a session's or a reader's end */
};

/* Takes fd. */
int kb_conn_accept(struct kb_main *m, int fd, struct kb_err *err);
void kb_conn_destroy(struct kb_conn *conn);
void kb_conn_reply(struct kb_conn *conn, uint32_t id, Kb__Control__Reply *reply);
void kb_conn_error(struct kb_conn *conn, uint32_t id, const struct kb_err *why);
/* A negative return is answered with the error. fd: -1, or one the callee may keep with a dup. */
int kb_request_handle(
	struct kb_conn *conn, const Kb__Control__Request *request, int fd, struct kb_err *err);

/* ---- Sessions (session.c, session_msg.c) ----------------------------------------------------- */

enum kb_live_state {
	KB_LIVE_QUEUED,	  /* waits for store and link */
	KB_LIVE_STARTING, /* told to store and link */
	KB_LIVE_RUNNING,
	KB_LIVE_STOPPING,  /* told to end */
	KB_LIVE_FINISHING, /* over in the machine; the store writes its end */
	KB_LIVE_ENDED,	   /* nothing left */
	KB_LIVE_STATES_,
};

enum kb_live_event {
	KB_EV_NONE,
	KB_EV_READY,   /* store and link are up */
	KB_EV_STARTED, /* its first process runs */
	KB_EV_FAILED,  /* it could not be started */
	KB_EV_STOP,    /* somebody wants it ended */
	KB_EV_ENDED,   /* everything of it is gone from the machine */
	KB_EV_LINK_LOST,
	KB_EV_STORE_LOST,
	KB_EV_UNSTORABLE, /* the store cannot keep its records any more */
	KB_EV_FINISHED,	  /* its record is durable to the end */
	KB_EV_DEADLINE,	  /* the state took too long */
	KB_EVENTS_,
};

/* ---- Peers (peers.c) ------------------------------------------------------------------------- */

/* Start what is missing of the store and of the links that are needed, and connect them. */
void kb_peers_ensure(struct kb_main *m);
/* Only the store; what is sent to it before it is up waits. */
int kb_peers_ensure_store(struct kb_main *m, struct kb_err *err);
/* A role was lost: later, and not too often, kb_peers_ensure(). failures: in a row. */
void kb_peers_respawn(struct kb_main *m, unsigned failures);
/* An event for every session that is (place not NULL) of this place and (queued) not launched. */
void kb_peers_tell(struct kb_main *m, const struct kb_place *place, bool queued,
	enum kb_live_event event, const struct kb_err *why);
int kb_peers_ask(struct kb_conn *conn, uint32_t request, const Kb__Control__AskRequest *ask, int fd,
	struct kb_err *err);

/* A request that is answered when the session is over; or an exec's, answered only when it fails.
 */
struct kb_watch {
	TAILQ_ENTRY(kb_watch) entry;
	struct kb_conn *conn;
	uint32_t request;
	uint64_t process; /* exec: its number, else 0 */
	bool connected;	  /* run, attach: hears of questions */
};

/* A call that waits in the machine for an answer. */
struct kb_live_question {
	TAILQ_ENTRY(kb_live_question) entry;
	uint64_t number, asked; /* asked: ns since the epoch */
	uint32_t wait_ms;
	uint32_t rule;
	char *process, *call; /* escaped */
};

struct kb_live {
	struct kb_main *main;
	TAILQ_ENTRY(kb_live) entry;
	uint8_t id[KB_ULID_SIZE];
	char id_text[KB_ULID_TEXT];
	char name[KB_NAME_MAX];
	char *agent, *user;
	struct kb_place *place; /* the machine it runs on */
	ProtobufCBinaryData workspace;
	enum kb_live_state state;
	struct kb_role_process *broker;	      /* NULL: loopback only, or gone */
	struct kb_role_process *link, *store; /* the very ones it lives on; NULL: lost or not yet */
	struct kb_source *deadline;
	TAILQ_HEAD(, kb_watch) watches;
	TAILQ_HEAD(kb_live_questions, kb_live_question) questions;
	size_t n_questions;
	struct kb_ports ports;
	/* What kb_live_describe() shows of them. */
	Kb__Control__PublishedPort shown_ports[KB_INBOUND_PORTS];
	Kb__Control__PublishedPort *shown_port[KB_INBOUND_PORTS];
	struct kb_bundle *policy;
	/* For the launch; freed after it. */
	uint8_t *start, *meta;
	size_t start_len, meta_len;
	uint8_t *bundle; /* for the broker; NULL: it needs none */
	size_t bundle_len;
	int secrets;	/* what its broker is to read; -1: nothing */
	int attachment; /* -1: none */
	char **env;	/* what an exec starts from; NULL-terminated */
	bool detached_start, stop_on_hangup, attached;
	bool now;		 /* no grace for its processes */
	uint64_t started, ended; /* ns since the epoch */
	int32_t exit_code;
	uint32_t signal;
	uint64_t last_seq, records, denials, lost, commands;
	uint64_t last_process;
	bool complete;
	struct kb_err why;	     /* why it could not start (FAILED); code 0: it started */
	char reason[KB_ERR_MSG_MAX]; /* why it ended, if not by itself */
};

/* conn may be NULL (nobody waits). fd: the attachment or -1; kept by a dup. */
int kb_live_create(struct kb_main *m, const Kb__Control__RunRequest *run, int fd,
	struct kb_live **ret, struct kb_err *err);
/* The one place that moves a state. why may be NULL. The session may be freed. */
void kb_live_event(struct kb_live *live, enum kb_live_event event, const struct kb_err *why);
void kb_live_destroy(struct kb_live *live);
/* The deadline of the state it is in. */
void kb_live_arm_deadline(struct kb_live *live);
/* By id or exact name; NULL with KB_ERR_NOTFOUND in err. */
struct kb_live *kb_live_find(struct kb_main *m, const char *name, struct kb_err *err);
int kb_live_find_running(
	struct kb_main *m, const char *name, struct kb_live **ret, struct kb_err *err);
struct kb_live *kb_live_by_id(struct kb_main *m, ProtobufCBinaryData id);
int kb_live_watch(struct kb_live *live, struct kb_conn *conn, uint32_t request, struct kb_err *err);
/* The same for who is connected to it: run and attach. */
int kb_live_watch_connected(
	struct kb_live *live, struct kb_conn *conn, uint32_t request, struct kb_err *err);
int kb_live_watch_exec(struct kb_live *live, uint64_t process, struct kb_conn *conn,
	uint32_t request, struct kb_err *err);
/* An exec'd process ended, or (why) could not start. */
void kb_live_exec_over(struct kb_live *live, uint64_t process, const struct kb_err *why);
void kb_watch_destroy(struct kb_live *live, struct kb_watch *w);
/* brokers.c: one for each session with a network. kb_broker_start(), when the link is there: the
 * link hears of it before it hears of the session. */
int kb_broker_keep(struct kb_live *live, const struct kb_bundle *bundle,
	ProtobufCBinaryData encoded, struct kb_err *err);
int kb_broker_start(struct kb_live *live, struct kb_err *err);
void kb_broker_end(struct kb_live *live);
/* A client went: its watches go with it. */
void kb_live_forget_conn(struct kb_main *m, struct kb_conn *conn);
const char *kb_live_state_name(enum kb_live_state state); /* of the command line's contract */

int kb_live_make_messages(
	struct kb_live *live, const Kb__Control__RunRequest *run, struct kb_err *err);
int kb_live_make_process(struct kb_live *live, const Kb__Control__Process *from, uint8_t **ret,
	size_t *ret_len, struct kb_err *err);
/* Questions (session_asked.c). */
void kb_live_question(struct kb_live *live, const Kb__Role__LinkQuestion *msg);
void kb_live_question_over(struct kb_live *live, const Kb__Role__LinkQuestionOver *msg);
/* Tell a client that has just connected of those that are open. */
void kb_live_show_questions(struct kb_live *live, struct kb_conn *conn, uint32_t request);
int kb_live_answer(struct kb_live *live, uint64_t number, uint32_t verdict, struct kb_err *err);
/* Replies with those of one session, or (only NULL) of all. */
int kb_live_list_questions(struct kb_main *m, struct kb_live *only, struct kb_conn *conn,
	uint32_t request, struct kb_err *err);
void kb_live_forget_questions(struct kb_live *live);

/* Ports (session_ports.c). fd: -1, or kept by a dup. */
int kb_ports_request(struct kb_conn *conn, const Kb__Control__PublishRequest *request, int fd,
	struct kb_err *err);
/* The ports a client announced become those of the session it starts, if its policy lets them. */
int kb_ports_take(struct kb_live *live, struct kb_conn *conn, struct kb_err *err);
/* The link has the session: it gets what is not there yet. */
int kb_ports_hand_over(struct kb_live *live, struct kb_err *err);
void kb_ports_forget(struct kb_ports *ports);

/* Borrows everything from live. */
void kb_live_describe(struct kb_live *live, Kb__Control__Session *ret);
