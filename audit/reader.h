/* Private to audit/: reading sessions and their records. Everything that answers questions stands
 * on the scan below: query, tree, timeline, stats, report, export, replay, learn. */
#pragma once

#include "audit/audit.h"
#include "audit/process.h"

#define KB_TIME_NONE INT64_MIN

struct kb_rule_text {
	const char *id, *file, *text, *reason;
	unsigned line;
};

/* A session as stored. Strings live as long as it does. */
struct kb_session {
	uint8_t id[KB_ULID_SIZE];
	char id_text[KB_ULID_TEXT];
	const char *name, *agent, *machine, *user, *policy, *lane;
	uint64_t started;
	uint32_t arch;
	struct kb_bytes workspace, bundle;
	const struct kb_bytes *argv;
	size_t argc;
	const struct kb_rule_text *rules;
	size_t n_rules;
	const char *const *policy_files;
	size_t n_policy_files;
	uint64_t records, denials, lost, blocks, bytes, execs, last_time;
	bool ended;
	struct kb_session_end end; /* when ended */
	struct kb_session_private *priv;
};
const struct kb_rule_text *kb_session_rule(const struct kb_session *session, uint32_t rule);
void kb_session_destroy(struct kb_session *session);

/* ids, names, "last", "all" or a list of them with commas; NULL: "last". Oldest first. */
struct kb_session_list {
	uint8_t (*ids)[KB_ULID_SIZE];
	size_t n;
};
void kb_session_list_finish(struct kb_session_list *list);
int kb_reader_resolve(struct kb_reader *reader, const char *sessions, struct kb_session_list *ret,
	struct kb_err *err);
int kb_reader_session(struct kb_reader *reader, const uint8_t id[KB_ULID_SIZE],
	struct kb_session **ret, struct kb_err *err);
/* The one session that `name` means; a list or "all" with several is a usage error. */
int kb_reader_one(
	struct kb_reader *reader, const char *name, struct kb_session **ret, struct kb_err *err);

/* One record with what its session and the records before it tell about it. Valid until the next
 * step of the scan. */
struct kb_row {
	const struct kb_session *session;
	uint64_t seq;
	const struct kb_record *record;
	struct kb_process *proc; /* NULL: the record has no process */
};

/* Walks the records of one session in order. It holds a snapshot of the database only for a
 * bounded number of blocks at a time, so that a slow reader does not make the file grow. */
struct kb_scan;
int kb_scan_create(struct kb_reader *reader, const struct kb_session *session, struct kb_scan **ret,
	struct kb_err *err);
void kb_scan_destroy(struct kb_scan *scan);
/* From now on leave out blocks without any row that `plan` can match; what it gives is a superset
 * of them. The plan is kept, not copied. Processes are known as before; their programs (exe, argv)
 * are there after kb_scan_resolve(). */
struct kb_plan;
void kb_scan_select(struct kb_scan *scan, const struct kb_plan *plan);
/* Load the program of the row's process where that was left out. */
int kb_scan_resolve(struct kb_scan *scan, const struct kb_row *row, struct kb_err *err);
/* 1: *ret is the next row; 0: no more now (a live session may have more later: call again);
 * negative: damaged or out of memory. */
int kb_scan_next(struct kb_scan *scan, struct kb_row *ret, struct kb_err *err);

/* What verify says of one session, and its word. */
enum kb_verify kb_verify_session(struct kb_reader *reader, const uint8_t id[KB_ULID_SIZE]);
const char *kb_verify_word(enum kb_verify verdict);
/* Bytes of the database file; 0 when unknown. */
uint64_t kb_reader_file_size(struct kb_reader *reader);

/* What is left of the sessions that were dropped on purpose: their signed tombstones, oldest first.
 */
struct kb_tombstone {
	char id_text[KB_ULID_TEXT];
	uint64_t started, pruned; /* ns since the epoch */
	uint64_t records;
};
struct kb_heads;
/* heads as read; free(*ret). */
int kb_tombstones_of(struct kb_reader *reader, const struct kb_heads *heads,
	struct kb_tombstone **ret, size_t *ret_n, struct kb_err *err);
int kb_reader_tombstones(
	struct kb_reader *reader, struct kb_tombstone **ret, size_t *ret_n, struct kb_err *err);
