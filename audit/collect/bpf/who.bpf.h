/* The kernel's half: its maps, whose call it is, and how an event leaves. */
#pragma once

#include "kernel.h"

#include <bpf/bpf_helpers.h>

#include <bpf/bpf_core_read.h>

#include "ring.h"

#define DATA_MASK  (KB_BPF_DATA_MAX - 1)
#define ROOM	   (KB_BPF_DATA_MAX - KB_BPF_STRING_MAX)
#define LEVELS_MAX 4
#define WAKE_BYTES (256u << 10)

struct scratch {
	struct kb_bpf_event event;
	char data[KB_BPF_DATA_MAX + KB_BPF_STRING_MAX];
};

/* The sessions by the inode of their pid namespace. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, KB_BPF_SEATS);
	__type(key, __u32);
	__type(value, struct kb_bpf_session);
} sessions SEC(".maps");

/* Calls that any session wants: all others are over after one look at this. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KB_BPF_CALLS);
	__type(key, __u32);
	__type(value, __u32);
} wanted SEC(".maps");

/* By seat: a buffer, and how to read which call. A session that floods its buffer fills no other.
 */
struct events {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, KB_BPF_RING);
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, KB_BPF_SEATS);
	__type(key, __u32);
	__array(values, struct events);
} rings SEC(".maps");

struct calls { /* of struct kb_bpf_call; its type is not described for inner maps */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KB_BPF_CALLS);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct kb_bpf_call));
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, KB_BPF_SEATS);
	__type(key, __u32);
	__array(values, struct calls);
} tables SEC(".maps");

/* One for each CPU; per-CPU maps have no room for values this big. Tracepoints run with preemption
 * off, so nobody else of this CPU comes between. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* the loader knows how many */
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

/* By seat: what the ring buffer had no room for. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KB_BPF_SEATS);
	__type(key, __u32);
	__type(value, struct kb_bpf_lost);
} losses SEC(".maps");

/* ---- Who --------------------------------------------------------------------------------------
 *
 * What hangs at a task is read through its type, which costs a load; numbers of a pid lie behind a
 * variable index, which the verifier wants read by a helper, and that costs twenty loads. So those
 * are read once: the threads of a process share the level of its namespaces, and nearly every
 * parent has it too.
 */

/* A task's place in its session. */
struct place {
	const struct kb_bpf_session *session;
	struct pid_namespace *ns; /* the session's */
	int level;		  /* of ns among the task's namespaces */
};

static __always_inline struct upid *upid_at(struct pid *pid, int level)
{
	__u64 at = level;

	asm volatile("%0 &= 31" : "+r"(at)); /* levels end at 32: MAX_PID_NS_LEVEL */
	return (void *)pid + bpf_core_field_offset(struct pid, numbers) +
	       at * bpf_core_type_size(struct upid);
}

/* Whose namespace of a pid is a session's: its own or one of the next above. What kbsup-init does
 * before the filter is in place is not of the session: such a task has no more filters than
 * kbsup-init itself. */
static __always_inline bool find_place(struct task_struct *task, struct place *ret)
{
	struct pid *pid = task->thread_pid;
	struct pid_namespace *ns = NULL;
	int level;
	__u32 inum;

	if (!pid)
		return false;
	ret->session = NULL;
	level = pid->level;
	for (int i = 0; i < LEVELS_MAX && level >= 0; i++, level--) {
		struct upid *upid = upid_at(pid, level);

		ns = BPF_CORE_READ(upid, ns);
		inum = BPF_CORE_READ(ns, ns.inum);
		ret->session = bpf_map_lookup_elem(&sessions, &inum);
		if (ret->session)
			break;
	}
	ret->ns = ns;
	ret->level = level;
	return ret->session && task->seccomp.filter_count.counter > ret->session->filters;
}

/* The number of a pid in the session's namespace; 0 if it is not of the session. */
static __always_inline __u32 number_at(const struct place *place, struct pid *pid)
{
	struct upid *upid = upid_at(pid, place->level);

	if (!pid || pid->level < place->level || BPF_CORE_READ(upid, ns) != place->ns)
		return 0;
	return BPF_CORE_READ(upid, nr);
}

static __always_inline __u32 process_number(const struct place *place, struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;

	return leader ? number_at(place, leader->thread_pid) : 0;
}

/* ---- Which call ------------------------------------------------------------------------------
 */

#if defined(__TARGET_ARCH_x86)
#define CALL_NUMBER(regs) ((int)(regs)->orig_ax)
static __always_inline void read_registers(struct pt_regs *regs, unsigned long long args[6])
{
	args[0] = regs->di;
	args[1] = regs->si;
	args[2] = regs->dx;
	args[3] = regs->r10;
	args[4] = regs->r8;
	args[5] = regs->r9;
}
#elif defined(__TARGET_ARCH_arm64)
#define CALL_NUMBER(regs) ((regs)->syscallno)
static __always_inline void read_registers(struct pt_regs *regs, unsigned long long args[6])
{
	args[0] = regs->orig_x0; /* regs[0] is the result by now */
	args[1] = regs->regs[1];
	args[2] = regs->regs[2];
	args[3] = regs->regs[3];
	args[4] = regs->regs[4];
	args[5] = regs->regs[5];
}
#endif

static __always_inline bool is_wanted(__u32 nr, __u32 when)
{
	const __u32 *want = bpf_map_lookup_elem(&wanted, &nr);

	return want && *want & when;
}

static __always_inline const struct kb_bpf_call *call_of(const struct place *place, __u32 nr)
{
	__u32 seat = place->session->seat;
	void *table = bpf_map_lookup_elem(&tables, &seat);

	return table ? bpf_map_lookup_elem(table, &nr) : NULL;
}

/* ---- Events -----------------------------------------------------------------------------------
 */

static __always_inline struct scratch *begin(
	const struct place *place, struct task_struct *task, __u32 kind)
{
	__u32 cpu = bpf_get_smp_processor_id(), pid = process_number(place, task);
	struct task_struct *parent = task->real_parent;
	struct scratch *s;

	if (!pid)
		return NULL;
	s = bpf_map_lookup_elem(&scratches, &cpu);
	if (!s)
		return NULL;
	__builtin_memset(&s->event, 0, sizeof(s->event));
	s->event.time = bpf_ktime_get_ns();
	s->event.kind = kind;
	s->event.pid = pid;
	s->event.tid = task->pid == task->tgid ? pid : number_at(place, task->thread_pid);
	s->event.ppid = parent ? process_number(place, parent) : 0;
	s->event.host_tid = task->pid;
	BPF_CORE_READ_STR_INTO(&s->event.comm, task, comm);
	return s;
}

/* An offset is always below the mask; this says so to the verifier in a way clang does not undo. */
static __always_inline __u64 masked(__u32 at)
{
	__u64 offset = at;

	asm volatile("%0 &= %1" : "+r"(offset) : "i"(DATA_MASK));
	return offset;
}

static __always_inline void set_len(struct scratch *s, __u64 part, __u32 len)
{
	asm volatile("%0 &= 7" : "+r"(part));
	s->event.len[part] = len;
}

static __always_inline char *data_at(struct scratch *s, __u32 at)
{
	return s->data + masked(at);
}

static __always_inline void count_loss(__u32 seat, __u32 kind)
{
	struct kb_bpf_lost *lost = bpf_map_lookup_elem(&losses, &seat);

	if (lost && kind < KB_BPF_KINDS)
		__sync_fetch_and_add(&lost->count[kind], 1);
}

static __always_inline void send(const struct place *place, struct scratch *s, __u32 used)
{
	__u32 seat = place->session->seat;
	void *ring = bpf_map_lookup_elem(&rings, &seat);
	__u64 wake, size = masked(used);

	if (!ring)
		return;
	/* Whoever reads looks by itself every now and then; it is woken when there is much. */
	wake = bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) > WAKE_BYTES ? BPF_RB_FORCE_WAKEUP
								       : BPF_RB_NO_WAKEUP;
	if (bpf_ringbuf_output(ring, s, sizeof(s->event) + size, wake) != 0)
		count_loss(seat, s->event.kind);
}
