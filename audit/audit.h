/* The audit pipeline's only public header: records, collectors, the store and its questions.
 *
 * In the machine, collectors make records and hand them to a sink. On the host, the store commits
 * blocks of records, chained by hash, and acknowledges them; readers answer questions from it.
 * Ownership as in policy.h. Byte strings are foreign: they are exact in the store and must be
 * escaped on every screen.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "policy/policy.h"
#include "supervisor/base/buf.h"
#include "supervisor/base/err.h"
#include "supervisor/base/loop.h"
#include "supervisor/base/str.h"

/* ---- Records (proto/record.proto has the meaning of every field) ------------------------------
 */

enum kb_event {
	KB_EVENT_NONE,
	KB_EVENT_START,
	KB_EVENT_EXEC,
	KB_EVENT_EXIT,
	KB_EVENT_OPEN,
	KB_EVENT_CONNECT,
	KB_EVENT_BIND,
	KB_EVENT_LISTEN,
	KB_EVENT_SEND,
	KB_EVENT_UNLINK,
	KB_EVENT_RMDIR,
	KB_EVENT_RENAME,
	KB_EVENT_LINK,
	KB_EVENT_SYMLINK,
	KB_EVENT_MKDIR,
	KB_EVENT_MKNOD,
	KB_EVENT_CHMOD,
	KB_EVENT_CHOWN,
	KB_EVENT_TRUNCATE,
	KB_EVENT_XATTR,
	KB_EVENT_MOUNT,
	KB_EVENT_SETNS,
	KB_EVENT_PTRACE,
	KB_EVENT_SIGNAL,
	KB_EVENT_MEMORY,
	KB_EVENT_SYSCALL,
	KB_EVENT_RESOLVE,
	KB_EVENT_REQUEST,
	KB_EVENT_LIMIT,
	KB_EVENT_LOSS,
	KB_EVENT_THROTTLE,
	KB_EVENT_ATTACH,
	KB_EVENT_END,
	KB_EVENT_MAX_,
};
const char *kb_event_name(enum kb_event event); /* "exec", "open", … */

enum kb_lane { KB_LANE_NONE, KB_LANE_NOTIFY, KB_LANE_BPF, KB_LANE_NET, KB_LANE_RUNTIME };
enum kb_decision { KB_DECISION_ALLOWED, KB_DECISION_DENIED, KB_DECISION_KILLED, KB_DECISION_ASKED };
enum kb_outcome { KB_OUTCOME_UNKNOWN, KB_OUTCOME_OK, KB_OUTCOME_FAILED, KB_OUTCOME_INTERRUPTED };
enum kb_trust { KB_TRUST_REGISTER, KB_TRUST_RACY, KB_TRUST_KERNEL, KB_TRUST_UNREADABLE };

struct kb_bytes {
	const uint8_t *data; /* NULL: absent */
	size_t len;
};

/* A record as plain C. Numbers that are absent are 0 unless said otherwise; has_* tells where 0 is
 * a value. Byte strings point into memory owned by whoever made the record. */
struct kb_record {
	uint64_t time; /* ns since the epoch */
	enum kb_event event;
	enum kb_lane lane;
	uint32_t pid, tid, ppid;
	int32_t syscall; /* -1: none */
	uint32_t arch;
	enum kb_decision decision;
	enum kb_outcome outcome;
	int32_t errnum;
	bool has_result, has_exit_code, has_flags, has_mode;
	bool created; /* open: the file was not there before, as far as the lane could see */
	int64_t result;
	uint32_t rule; /* KB_RULE_NONE or index into the session's rules */
	enum kb_trust trust;
	struct kb_bytes path, path2, path_arg, path2_arg, exe, comm, cwd, address, host, text,
		secret; /* names of those put into a request, "A,B" */
	const struct kb_bytes *argv;
	size_t argc;
	uint32_t argv_lost;
	uint32_t flags, mode;
	uint32_t family, port;
	uint64_t bytes, count;
	int32_t exit_code;
	uint32_t signal;
	uint64_t args[6];
	bool has_args;
};

/* Name and parse of the contract's words; NULL and -1 when unknown. */
const char *kb_lane_name(enum kb_lane lane);
const char *kb_decision_name(enum kb_decision decision);
const char *kb_outcome_name(enum kb_outcome outcome);

/* Collects encoded records into one block (an encoded RecordBlock, packed: see record.proto).
 * Fill it, send kb_buf_data(&block->buf), then kb_block_reset() and fill it again. Link against
 * `librecord` alone for this part: it knows no database. */
struct kb_block {
	struct kb_buf buf;
	uint32_t count;
	uint32_t denials; /* records with a decision other than allowed */
	struct kb_block_dict *dict;
};
#define KB_BLOCK_MAX	     (3u << 20) /* bytes; fits a frame */
#define KB_BLOCK_RECORDS_MAX 65536u
#define KB_RECORD_ARGC_MAX   (256u << 10) /* arguments past it are counted as lost */
void kb_block_init(struct kb_block *block);
void kb_block_finish(struct kb_block *block);
/* Empty it, keeping its memory. */
void kb_block_reset(struct kb_block *block);
/* KB_ERR_LIMIT: the block is full; send it, reset, add again (a record that does not even fit an
 * empty block fails the same way). A failure leaves the block as it was. */
int kb_block_add(struct kb_block *block, const struct kb_record *record, struct kb_err *err);
/* Checks a foreign block whole: well-formed, in bounds, `count` records (at least one). */
int kb_block_check(const uint8_t *data, size_t len, uint32_t *ret_count, struct kb_err *err);

/* ---- Collector: lane notify --------------------------------------------------------------------
 */

/* Runs in the machine, one per session. It owns the listeners it is given, answers every
 * notification by the bundle's rules and reports what it saw. See collect/notify.c for the theory.
 */
struct kb_notify;

/* A call that an `ask` rule stopped: its caller waits for the answer. */
struct kb_asked {
	uint64_t number; /* from 1, in the order they are put */
	uint32_t rule;
	uint32_t pid;	  /* in the session */
	const char *comm; /* foreign */
	uint32_t arch;
	int32_t syscall;
	uint64_t args[6];
	uint32_t wait_ms; /* then it is denied */
};
enum kb_asked_answer {
	KB_ANSWER_DENY,
	KB_ANSWER_ALLOW,
	KB_ANSWER_DENY_SESSION, /* the rule asks no more in this session */
	KB_ANSWER_ALLOW_SESSION,
	KB_ANSWER_MAX_,
};
#define KB_QUESTIONS_MAX  32u	 /* open at once; further calls are denied */
#define KB_ASK_MS_DEFAULT 120000 /* for an answer */

struct kb_notify_ops {
	/* One record; its byte strings live for the call. */
	void (*record)(const struct kb_record *record, void *arg);
	/* The collector cannot go on: the session must be ended. */
	void (*failed)(const struct kb_err *why, void *arg);
	/* Somebody is to be asked; kb_notify_answer() says what came of it. NULL: there is nobody,
	 * and such calls are denied. */
	void (*ask)(const struct kb_asked *question, void *arg);
	/* A question needs no answer any more: it has one, its time is up, or its caller is gone.
	 * Set when `ask` is. */
	void (*ask_over)(uint64_t number, const char *how, void *arg);
};
struct kb_notify_options {
	const struct kb_bundle *bundle; /* outlives the collector */
	uint32_t arch;
	int root_fd;	/* O_PATH of the session's root directory as its processes see it; taken */
	pid_t init_pid; /* the session's pid 1, as seen from here */
	const char *host_root; /* where the machine's own files are, to tell "hidden" from "absent";
				  or NULL */
	/* Both lanes are at work, and the filter is emitted with KB_EMIT_SPLIT: lane notify has the
	 * calls the filter asks about and says nothing of processes, lane bpf has all the rest. */
	bool split;
	bool relayed; /* connections to anywhere but loopback are decided by whoever relays them */
	uint32_t ask_ms; /* how long a question stays open; 0: KB_ASK_MS_DEFAULT */
};
int kb_notify_create(struct kb_loop *loop, const struct kb_notify_options *options,
	const struct kb_notify_ops *ops, void *arg, struct kb_notify **ret, struct kb_err *err);
/* Takes listener. Each process tree started in the session brings its own. */
int kb_notify_add(struct kb_notify *notify, int listener, struct kb_err *err);
/* While paused nothing is received: recorded calls wait, and the session with them. */
void kb_notify_pause(struct kb_notify *notify, bool paused);
/* Answers a question; a number that is not open is ignored. note says in the record what came of
 * it ("allowed once by ada"). Not from within an op. */
void kb_notify_answer(
	struct kb_notify *notify, uint64_t number, enum kb_asked_answer answer, const char *note);
void kb_notify_destroy(struct kb_notify *notify);

/* ---- Collector: lane bpf -----------------------------------------------------------------------
 */

/* Runs in the machine where it is privileged (CAP_BPF and CAP_PERFMON, or root). It sees calls as
 * they return, with the kernel's own idea of files, and holds nobody up: the filter is emitted with
 * KB_EMIT_PLAIN or KB_EMIT_SPLIT. What its ring buffer has no room for is counted and recorded as
 * loss. See collect/bpf/lane.c and hub.c for the theory. */

/* The programs, loaded once per machine; sessions share them. Closing the hub, or the death of its
 * process, takes them out of the kernel. */
struct kb_bpf_hub;
#define KB_BPF_HUB_FDS	 5
#define KB_BPF_SEATS_MAX 319 /* seats are numbered from 0 */
int kb_bpf_hub_create(struct kb_bpf_hub **ret, struct kb_err *err);
void kb_bpf_hub_destroy(struct kb_bpf_hub *hub);
/* Proves that the lane works here: makes a call and sees it. Leaves the hub detached. */
int kb_bpf_hub_probe(struct kb_bpf_hub *hub, struct kb_err *err);
/* Attached, every session with a seat is seen. Both are no-ops when it is so already. */
int kb_bpf_hub_attach(struct kb_bpf_hub *hub, struct kb_err *err);
void kb_bpf_hub_detach(struct kb_bpf_hub *hub);
/* The kernel lets us see what names mean to it, also of calls that open nothing. */
bool kb_bpf_hub_hooked(const struct kb_bpf_hub *hub);
/* Descriptors to be handed to the processes of sessions; the hub keeps them. */
void kb_bpf_hub_fds(const struct kb_bpf_hub *hub, int ret[KB_BPF_HUB_FDS]);
/* The session with this seat is over, however it ended: the seat can be given again. */
void kb_bpf_hub_release(struct kb_bpf_hub *hub, unsigned seat);

/* A session's place in the programs. Making it takes the kernel some milliseconds: do it ahead. The
 * descriptors stay the caller's. */
struct kb_bpf_seat;
int kb_bpf_seat_create(const int hub[KB_BPF_HUB_FDS], unsigned number, struct kb_bpf_seat **ret,
	struct kb_err *err);
void kb_bpf_seat_destroy(struct kb_bpf_seat *seat);

struct kb_bpf;
/* Uses bundle, arch, root_fd (taken), init_pid (its pid namespace is the session; who has no more
 * seccomp filters than it has is not looked at), host_root and split. seat is borrowed,
 * for as long as the lane lives; it is the session's from then on, and no other's later. */
int kb_bpf_create(struct kb_loop *loop, const struct kb_notify_options *options,
	struct kb_bpf_seat *seat, const struct kb_notify_ops *ops, void *arg, struct kb_bpf **ret,
	struct kb_err *err);
/* Reports what has come so far. */
void kb_bpf_look(struct kb_bpf *bpf);
/* While paused nothing is read: what the buffer cannot hold meanwhile is lost, and counted. */
void kb_bpf_pause(struct kb_bpf *bpf, bool paused);
/* Reports what is still on its way, then everything that can no longer be told. */
void kb_bpf_destroy(struct kb_bpf *bpf);
/* All of it in one: loads, proves, unloads. */
int kb_bpf_probe(struct kb_err *err);

/* A session in numbers, for ps and the closing lines of run. */
struct kb_summary {
	uint64_t records, denials, lost;
	uint64_t commands, changed, deleted, hosts;
	uint64_t secrets; /* distinct ones that were used */
};

/* ---- Store (host, one writer) ------------------------------------------------------------------
 */

struct kb_store;
/* dir is created 0700 when missing. Refuses a store made by a newer version (KB_ERR_REFUSED), a
 * store another process writes (KB_ERR_EXISTS). Sessions left open by a crash are closed with an
 * `end` record that says so. */
int kb_store_open(const char *dir, struct kb_store **ret, struct kb_err *err);
void kb_store_close(struct kb_store *store);

/* SessionMeta, encoded (record.proto). Durable on return of the next commit. */
int kb_store_session_begin(
	struct kb_store *store, const uint8_t *meta, size_t len, struct kb_err *err);
/* Append a checked block. first_seq must follow what is there (exactly-once: what is already stored
 * is skipped silently; a gap is KB_ERR_INVALID). Durable with the next commit. */
int kb_store_append(struct kb_store *store, const uint8_t session[KB_ULID_SIZE], uint64_t first_seq,
	const uint8_t *block, size_t len, struct kb_err *err);
/* The finish of a session. reason NULL: it ended by itself. complete false: records are missing
 * (the machine or a collector was lost) and verify must say so. Adds an `end` record if there is
 * none. */
struct kb_session_end {
	int32_t exit_code;
	uint32_t signal;
	uint64_t ended; /* ns since the epoch */
	const char *reason;
	bool complete;
};
int kb_store_session_finish(struct kb_store *store, const uint8_t session[KB_ULID_SIZE],
	const struct kb_session_end *end, struct kb_err *err);
/* Make everything since the last commit durable. Acknowledge only after it returned 0. A failure
 * says that nothing since the last commit is kept, of any session. */
int kb_store_commit(struct kb_store *store, struct kb_err *err);
/* Highest durable seq of a session, 0 when none. Sequence numbers start at 1. */
uint64_t kb_store_last_seq(struct kb_store *store, const uint8_t session[KB_ULID_SIZE]);
/* The same for all that is counted as it is stored: records, denials, lost and commands; the rest
 * is 0 (kb_reader_summary() has it). */
void kb_store_totals(
	struct kb_store *store, const uint8_t session[KB_ULID_SIZE], struct kb_summary *ret);

/* Retention: drop ended sessions, oldest first, while they are older than keep_ns (0: any age
 * stays) or all together have more than max_bytes (0: any size stays). A signed tombstone stays of
 * each. */
struct kb_prune {
	uint64_t keep_ns, max_bytes;
};
struct kb_pruned {
	uint64_t sessions, records, bytes; /* dropped */
	uint64_t left_bytes;
	bool counted; /* left_bytes is known */
};
/* One bounded step of it, durable on return; call it again, with the same *sum (zero at first),
 * while it returns 1. Everything must be committed before. */
int kb_store_prune_step(struct kb_store *store, const struct kb_prune *prune, struct kb_pruned *sum,
	struct kb_err *err);
/* All steps at once. */
int kb_store_prune(struct kb_store *store, const struct kb_prune *prune, struct kb_pruned *ret,
	struct kb_err *err);

/* ---- Import ------------------------------------------------------------------------------------
 */

/* Reads what strace wrote (`strace -f`, any of -t -tt -ttt -y -yy -s -x) as audit records, so that
 * logs people already have can be asked with the same questions. What strace did not write stays
 * unknown: without -y or a chdir seen, relative paths stay relative; without times, records are
 * numbered from `start`. */
struct kb_strace_stats {
	uint64_t lines;	  /* read */
	uint64_t records; /* made */
	uint64_t foreign; /* lines that are not strace's; skipped */
	uint64_t cut;	  /* records with a string that strace abbreviated (-s) */
};

/* `record` is called for each; its byte strings live for the call. A negative return ends the
 * reading with *err as filled by the callee. start: ns since the epoch for a log without dates. */
int kb_strace_read(FILE *in, uint64_t start,
	int (*record)(const struct kb_record *record, void *arg, struct kb_err *err), void *arg,
	struct kb_strace_stats *ret, struct kb_err *err);

/* ---- Reader (host, any number, never blocks the writer) ----------------------------------------
 */

struct kb_reader;
int kb_reader_open(const char *dir, struct kb_reader **ret, struct kb_err *err);
void kb_reader_close(struct kb_reader *reader);

/* What the command line asks; each prints to `out` as people or programs want it. `json`: stable
 * field names of the command line's contract. `tty`: colour and width allowed. */
struct kb_view {
	FILE *out;
	bool json;
	bool tty;
	bool utc;
	unsigned columns; /* 0: not a terminal */
	const char *home; /* shown as ~ */
};

/* sessions: "last", "all", a name or an id (NULL: "last"). expr may be NULL. */
struct kb_query {
	const char *sessions;
	const char *expr;
	const char *since, *until; /* "2026-11-23", "yesterday", "2h", RFC 3339; NULL: no bound */
	uint64_t limit;		   /* 0: none */
	bool follow;		   /* logs -f: go on as records arrive, until the session ends */
	uint64_t after_seq;
};
/* Checks an expression without a store: 0, or -KB_ERR_USAGE with *err in one line and, appended to
 * screen (may be NULL), the same as people read it: the expression, a caret, what is meant. */
int kb_query_check(const char *expr, struct kb_buf *screen, struct kb_err *err);
/* Offers what may follow `before`, the beginning of an expression (the name of a session may stand
 * before it): fields, operators, a field's values, "and" and "or". Returns the field whose value is
 * next, NULL when it is none's: live names (session, agent, machine) are the caller's to offer. */
typedef void (*kb_offer_fn)(const char *word, const char *help, void *arg);
const char *kb_query_complete(const char *before, kb_offer_fn offer, void *arg);

int kb_reader_sessions(struct kb_reader *reader, const struct kb_view *view, struct kb_err *err);
int kb_reader_query(struct kb_reader *reader, const struct kb_query *query,
	const struct kb_view *view, struct kb_err *err);
int kb_reader_tree(struct kb_reader *reader, const char *session, uint32_t around_pid,
	const struct kb_view *view, struct kb_err *err);
enum kb_verify { KB_VERIFY_INTACT, KB_VERIFY_TAMPERED, KB_VERIFY_UNREADABLE, KB_VERIFY_INCOMPLETE };
/* *ret is the exit status the command line promises (the worst of all sessions). */
int kb_reader_verify(struct kb_reader *reader, const char *sessions, const struct kb_view *view,
	enum kb_verify *ret, struct kb_err *err);

/* The newest signed head of every session, to be kept elsewhere; and, before verify, such an anchor
 * to hold the store against: it shows changes even by someone who has the key. */
int kb_reader_export_anchor(
	struct kb_reader *reader, const struct kb_view *view, struct kb_err *err);
int kb_reader_set_anchor(
	struct kb_reader *reader, const char *text, size_t len, struct kb_err *err);

/* The events of one session in order, runs of reading in one line; JSON Lines: all of them. */
int kb_reader_timeline(struct kb_reader *reader, const char *session, const struct kb_view *view,
	struct kb_err *err);
/* Sizes, rates and losses of sessions (NULL: all); of a single one also its events and busiest
 * processes. */
int kb_reader_stats(struct kb_reader *reader, const char *sessions, const struct kb_view *view,
	struct kb_err *err);
/* One session as a page: format "html" (self-contained; NULL means it) or "md". */
int kb_reader_report(struct kb_reader *reader, const char *session, const char *format,
	const struct kb_view *view, struct kb_err *err);

/* Every record in another system's words, streamed: "jsonl" (NULL: the same), "ocsf", "otlp". */
int kb_reader_export(struct kb_reader *reader, const char *sessions, const char *format,
	const struct kb_view *view, struct kb_err *err);

/* Recorded sessions against policies. What another policy must be compiled for to be held against
 * one of them. */
struct kb_subject {
	char id[KB_ULID_TEXT];
	char *name;
	char *workspace; /* exact; empty: none */
	char *home;	 /* NULL: not known */
	char **programs; /* kb_policy_options.programs; NULL-terminated */
};
struct kb_subjects {
	struct kb_subject *items;
	size_t n;
};
/* Those that `query` selects: of its sessions, the ones that began at or after its `since`. *ret is
 * filled as far as it went; finish it in any case. */
int kb_reader_subjects(struct kb_reader *reader, const struct kb_query *query, bool utc,
	struct kb_subjects *ret, struct kb_err *err);
void kb_subjects_finish(struct kb_subjects *subjects);
/* A recorded session, and the policy to hold it against. */
struct kb_trial {
	const char *session; /* id */
	const struct kb_bundle *bundle;
};
/* What would change. *ret_denied: something would be denied that was not. */
int kb_reader_replay(struct kb_reader *reader, const struct kb_trial *trials, size_t n,
	const struct kb_view *view, bool *ret_denied, struct kb_err *err);
/* The smallest policy that allows what they did, on top of options->bundle. */
int kb_reader_learn(struct kb_reader *reader, const char *sessions,
	const struct kb_learn_options *options, const struct kb_view *view, struct kb_err *err);
/* Why the record was decided as it was; by a bundle that is not NULL: how that would decide. */
int kb_reader_explain(struct kb_reader *reader, const char *session, uint64_t seq,
	const struct kb_bundle *bundle, const struct kb_view *view, struct kb_err *err);

int kb_reader_summary(
	struct kb_reader *reader, const char *session, struct kb_summary *ret, struct kb_err *err);
