/* Real processes under a real filter and a real collector: what the live tests and the benchmark
 * share. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "audit/audit.h"
#include "audit/collect/held.h"

/* The rules around what a policy text for live_start() says itself: everyday calls allowed. */
#define LIVE_POLICY(rules)                                                                         \
	"policy live version 1 { groups 2026-11\n" rules                                           \
	"group @io @stat @attr-change @watch @memory @thread @process @exit @signal @time @event " \
	"@sched @limits @identity @set-identity @socket @ipc @random @sandbox allow\n"             \
	"syscall exit_group allow record full\n"                                                   \
	"default deny ENOSYS record summary }\n"
/* All of the machine's files, what is opened, changed and run recorded. */
#define LIVE_FILES "fs write \"/\" exec allow \"/\"\n"
#define LIVE_RECORD                                                                                \
	"group @exec @open @path-change @socket-name allow record full\n"                          \
	"syscall chmod fchmod fchmodat fchmodat2 chown lchown fchown fchownat ftruncate allow "    \
	"record full\n"

struct live {
	struct kb_loop *loop;
	struct kb_bundle *bundle;
	struct kb_notify *notify;
	bool lane_bpf; /* instead: a pid namespace for the child, which is what the lane goes by */
	struct kb_bpf_hub *hub;
	struct kb_bpf_seat *seat;
	struct kb_bpf *bpf;
	struct kb_notify_options options;
	pid_t pid; /* the session's first process */
	int status;
	bool interruptible; /* the filter lacks WAIT_KILLABLE_RECV */
	struct kb_held **records;
	size_t n_records, cap;
	/* Instead of keeping them. */
	void (*on_record)(const struct kb_record *record, void *arg);
	void *arg;
	char failure[KB_ERR_MSG_MAX];
};

/* Makes the collector. root: the session's root directory, NULL for ours. host: as in
 * kb_notify_options. Dies with a message when that cannot be. */
void live_init(struct live *live, const char *policy, const char *root, const char *host);
/* Forks; the child runs fn under the filter and ends with what it returns. */
void live_start(struct live *live, int (*fn)(void *arg), void *arg);
/* Until the child has ended, then destroys the collector; records stay. Returns the wait status. */
int live_wait(struct live *live);
void live_finish(struct live *live);
/* All of it. */
int live_run(struct live *live, const char *policy, int (*fn)(void *arg), void *arg);

/* The nth (from 0) record of an event whose path is `path` (NULL: any), or NULL. */
const struct kb_record *live_find(
	const struct live *live, enum kb_event event, const char *path, size_t nth);
size_t live_count(const struct live *live, enum kb_event event, const char *path);
/* Where it is among the records. */
size_t live_index(const struct live *live, const struct kb_record *record);
bool bytes_are(struct kb_bytes bytes, const char *text);
/* All records, to stderr. */
void live_dump(const struct live *live);
