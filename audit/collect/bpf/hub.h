/* What lane bpf has in the kernel, once per machine; see hub.c. Private to the lane. */
#pragma once

#include "audit/audit.h"
#include "ring.h"

/* The maps sessions share, in the order of kb_bpf_hub_fds(). */
enum kb_bpf_map { KB_BPF_SESSIONS, KB_BPF_WANTED, KB_BPF_RINGS, KB_BPF_TABLES, KB_BPF_LOSSES };
_Static_assert(KB_BPF_LOSSES + 1 == KB_BPF_HUB_FDS, "one descriptor for each map");

struct ring_buffer;

struct kb_bpf_seat {
	int maps[KB_BPF_HUB_FDS]; /* ours */
	uint32_t number;
	uint32_t pid_ns; /* 0: not registered */
	int ring_fd, table_fd;
	/* Mapped ahead, and unmapped when nobody waits any more: it takes the kernel a millisecond.
	 */
	struct ring_buffer *ring;
	int (*event)(void *arg, const void *data, size_t size); /* NULL: skipped */
	void *arg;
};

/* What the session wants to see of each call, by number; then taking the seat makes its processes
 * seen. */
int kb_bpf_seat_want(const struct kb_bpf_seat *seat, const struct kb_bpf_call calls[KB_BPF_CALLS],
	struct kb_err *err);
/* init_pid 0: ourselves, whatever filters there are. */
int kb_bpf_seat_take(struct kb_bpf_seat *seat, pid_t init_pid, struct kb_err *err);
/* Its processes are seen no more; what was seen is still in the ring. */
void kb_bpf_seat_leave(struct kb_bpf_seat *seat);
/* What was lost since the session began. */
int kb_bpf_seat_lost(const struct kb_bpf_seat *seat, struct kb_bpf_lost *ret);
