/* Lane bpf's own header: what its files share. lane.c reads, records.c makes records,
 * hub.c has what is in the kernel.
 */
#pragma once

#include "audit/audit.h"
#include "audit/collect/held.h"
#include "audit/collect/resolve.h"
#include "audit/collect/tally.h"
#include "audit/collect/traps.h"
#include "hub.h"

#define KB_BPF_BUCKETS 1024u

struct kb_bpf_task {
	struct kb_bpf_task *next;
	uint32_t pid, ppid;
	char comm[16];
	bool introduced;
	struct kb_tallies tallies;
};

/* The first half of an exec. */
struct kb_bpf_attempt {
	struct kb_bpf_attempt *next;
	uint32_t host_tid;
	struct kb_held *held;
};

struct kb_bpf {
	const struct kb_bundle *bundle;
	struct kb_notify_ops ops;
	void *arg;
	uint32_t arch;
	bool relayed; /* connections out are not judged here */
	int root_fd;
	struct kb_resolver resolver;
	struct kb_bpf_seat *seat;
	bool split, paused, looking;
	struct kb_source *woken, *timer;
	int64_t look_msec;
	uint64_t monotonic_to_real;
	struct kb_bpf_lost lost; /* already reported */
	struct kb_bpf_task *tasks[KB_BPF_BUCKETS];
	struct kb_bpf_attempt *attempts;
	const struct kb_trap *traps[KB_TRAP_NUMBERS];

	/* Scratch of the event being handled. */
	struct kb_resolved base[2], path[2], file, cwd;
	char raw[2][KB_BPF_STRING_MAX];
	struct kb_bytes argv[KB_BPF_ARGS_MAX];
};

/* One event and what is behind it. */
struct kb_bpf_view {
	const struct kb_bpf_event *event;
	const char *part[KB_BPF_PARTS];
};

/* records.c */
void kb_bpf_handle(struct kb_bpf *bpf, const struct kb_bpf_view *view);
/* Nobody is left to speak of. */
void kb_bpf_forget_all(struct kb_bpf *bpf);
