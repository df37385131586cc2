/* The half of lane bpf that runs in the kernel; see lane.c for the whole. */
#include "kernel.h"

#include <bpf/bpf_helpers.h>

#include <bpf/bpf_core_read.h>

#include "ring.h"

#define DATA_MASK	  (KB_BPF_DATA_MAX - 1)
#define ROOM		  (KB_BPF_DATA_MAX - KB_BPF_STRING_MAX)
#define LEVELS_MAX	  4
#define WAKE_BYTES	  (256u << 10)
#define AT_FDCWD	  (-100)
#define SIGNAL_GROUP_EXIT 4
#define FMODE_CREATED	  0x100000
#define NEW_ARGUMENTS_MAX KB_BPF_STRING_MAX
#define SOCKADDR_MAX	  128
#define MAX_ERRNO	  4095

char LICENSE[] SEC("license") = "Dual BSD/GPL";

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

/* The functions below are not static on purpose: the verifier looks at such ones once, not again
 * for each call. */

/* ---- Paths ------------------------------------------------------------------------------------
 */

struct walk {
	struct scratch *s;
	struct dentry *dentry, *root;
	struct vfsmount *vfs, *root_vfs;
	struct dentry *top; /* of vfs */
	__u32 at;
	bool done;
};

/* One component, or one step over a mount point. 1 ends the loop. */
static long walk_step(__u32 index, void *data)
{
	struct walk *w = data;
	struct dentry *dentry = w->dentry, *parent;
	struct vfsmount *vfs = w->vfs;
	struct mount *mount, *above;
	__u32 at = w->at;
	long n;

	w->done = true;
	if (dentry == w->root && vfs == w->root_vfs)
		return 1;
	if (dentry == w->top) {
		mount = (void *)vfs - bpf_core_field_offset(struct mount, mnt);
		above = BPF_CORE_READ(mount, mnt_parent);
		if (above == mount)
			return 1; /* the top of everything */
		w->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		vfs = (void *)above + bpf_core_field_offset(struct mount, mnt);
		w->vfs = vfs;
		w->top = BPF_CORE_READ(vfs, mnt_root);
		w->done = false;
		return 0;
	}
	parent = BPF_CORE_READ(dentry, d_parent);
	if (dentry == parent)
		return 1;
	w->done = false;
	if (at >= ROOM)
		return 1;
	n = bpf_probe_read_kernel_str(
		data_at(w->s, at), KB_BPF_NAME_MAX, BPF_CORE_READ(dentry, d_name.name));
	if (n <= 0)
		return 1;
	w->at = at + n;
	w->dentry = parent;
	return 0;
}

/* The components of a path, leaf first, up to the caller's root. Returns where they end. */
__noinline __u32 put_path(struct scratch *s, __u32 at, __u32 part, __u64 where)
{
	struct path *path = (void *)where;
	struct vfsmount *vfs = BPF_CORE_READ(path, mnt);
	struct task_struct *task = bpf_get_current_task_btf();
	struct walk w = {.s = s, .at = at};
	__u32 end;

	if (!s)
		return at;
	w.dentry = BPF_CORE_READ(path, dentry);
	w.vfs = vfs;
	w.top = BPF_CORE_READ(vfs, mnt_root);
	w.root = task->fs->root.dentry;
	w.root_vfs = task->fs->root.mnt;
	if (!w.dentry || !w.vfs || part >= KB_BPF_PARTS)
		return at;
	bpf_loop(KB_BPF_COMPONENTS, walk_step, &w, 0);
	if (!w.done)
		s->event.flags |= KB_BPF_TRUNCATED;
	end = w.at;
	/* The root itself: one empty component. */
	if (end == at) {
		*data_at(s, end) = 0;
		end++;
	}
	set_len(s, part, end - at);
	return end;
}

static __always_inline __u64 path_of(struct file *file)
{
	return (__u64)file + bpf_core_field_offset(struct file, f_path);
}

static __always_inline struct file *file_of(struct task_struct *task, int fd)
{
	struct fdtable *table = task->files->fdt;
	struct file *file = NULL;

	if (fd < 0 || (__u32)fd >= table->max_fds)
		return NULL;
	bpf_probe_read_kernel(&file, sizeof(file), table->fd + fd);
	return file;
}

/* Sockets, pipes and their like name themselves and have no place in the tree. */
static __always_inline bool has_place(struct file *file)
{
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry);

	return !BPF_CORE_READ(dentry, d_op, d_dname);
}

static __always_inline __u32 put_file(struct scratch *s, __u32 at, __u32 part, struct file *file)
{
	if (!file)
		return at;
	if (!has_place(file))
		s->event.flags |= KB_BPF_SPECIAL;
	if (BPF_CORE_READ(file, f_mode) & FMODE_CREATED)
		s->event.flags |= KB_BPF_CREATED;
	return put_path(s, at, part, path_of(file));
}

static __always_inline __u32 put_cwd(struct scratch *s, __u32 at, __u32 part)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct fs_struct *fs = BPF_CORE_READ(task, fs);

	return put_path(s, at, part, (__u64)fs + bpf_core_field_offset(struct fs_struct, pwd));
}

__noinline __u32 put_fd(struct scratch *s, __u32 at, __u32 part, int fd)
{
	if (!s)
		return at;
	if (fd == AT_FDCWD)
		return put_cwd(s, at, part);
	return put_file(s, at, part, file_of((void *)bpf_get_current_task_btf(), fd));
}

/* ---- Memory of the caller ---------------------------------------------------------------------
 */

__noinline __u32 put_string(struct scratch *s, __u32 at, __u32 part, __u64 user)
{
	long n;

	if (!s || part >= KB_BPF_PARTS || at >= ROOM)
		return at;
	n = bpf_probe_read_user_str(data_at(s, at), KB_BPF_STRING_MAX, (const void *)user);
	if (n <= 0) {
		s->event.flags |= KB_BPF_UNREADABLE;
		return at;
	}
	set_len(s, part, n - 1);
	return at + n - 1;
}

static __always_inline __u32 put_bytes(
	struct scratch *s, __u32 at, __u32 part, __u64 user, __u64 len)
{
	if (len == 0 || len > SOCKADDR_MAX || at >= ROOM)
		return at;
	if (bpf_probe_read_user(data_at(s, at), len, (const void *)user) < 0) {
		s->event.flags |= KB_BPF_UNREADABLE;
		return at;
	}
	set_len(s, part, len);
	return at + len;
}

struct vector {
	struct scratch *s;
	__u64 vector, string;
	__u32 at;
	bool done;
};

/* One argument, or one piece of a long one. */
static long argument_step(__u32 index, void *data)
{
	struct vector *v = data;
	__u32 at = v->at;
	__u64 next = 0;
	long n;

	if (!v->string) {
		if (bpf_probe_read_user(&next, sizeof(next), (const void *)v->vector) < 0) {
			v->s->event.flags |= KB_BPF_UNREADABLE;
			return 1;
		}
		v->done = next == 0;
		if (v->done)
			return 1;
		v->string = next;
		v->vector += sizeof(next);
	}
	if (at >= ROOM)
		return 1;
	n = bpf_probe_read_user_str(data_at(v->s, at), KB_BPF_STRING_MAX, (const void *)v->string);
	if (n <= 0) {
		v->s->event.flags |= KB_BPF_UNREADABLE;
		return 1;
	}
	if (n == KB_BPF_STRING_MAX) {
		v->at = at + n - 1;
		v->string += n - 1;
	} else {
		v->at = at + n;
		v->string = 0;
	}
	return 0;
}

__noinline __u32 put_arguments(struct scratch *s, __u32 at, __u64 vector)
{
	struct vector v = {.s = s, .vector = vector, .at = at};

	if (!s || !vector)
		return at;
	bpf_loop(KB_BPF_ARGS_MAX, argument_step, &v, 0);
	if (!v.done)
		s->event.flags |= KB_BPF_ARGS_CUT;
	s->event.len[KB_BPF_ARGV] = v.at - at;
	return v.at;
}

/* ---- Calls ------------------------------------------------------------------------------------
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

static __always_inline __u64 argument(const struct scratch *s, __u32 place)
{
	__u32 index = place - 1;

	return index < 6 ? s->event.args[index] : 0;
}

static __always_inline __u32 put_name(
	struct scratch *s, __u32 at, __u32 part, __u32 dirfd, __u32 path)
{
	__u64 user = argument(s, path);
	char first = 0;

	bpf_probe_read_user(&first, 1, (const void *)user);
	if (first != '/')
		at = put_fd(s, at, part, dirfd ? (int)argument(s, dirfd) : AT_FDCWD);
	return put_string(s, at, part + 1, user);
}

static __always_inline __u32 put_address(
	struct scratch *s, __u32 at, const struct kb_bpf_call *call)
{
	struct {
		__u64 name;
		__u32 len, pad;
	} header = {0};
	__u64 user = argument(s, call->address), len = argument(s, call->address_len);

	if (call->msghdr) {
		if (bpf_probe_read_user(&header, sizeof(header), (const void *)user) < 0) {
			s->event.flags |= KB_BPF_UNREADABLE;
			return at;
		}
		user = header.name;
		len = header.len;
	}
	if (user)
		at = put_bytes(s, at, KB_BPF_PATH, user, (__u32)len);
	/* A relative unix path. */
	return put_cwd(s, at, KB_BPF_BASE2);
}

static __always_inline __u32 put_call(struct scratch *s, __u32 at, const struct kb_bpf_call *call)
{
	bool returned = call->returns_file && s->event.result >= 0;

	/* Where a name starts matters only while nobody knows where it led. */
	if (returned)
		at = put_string(s, at, KB_BPF_PATH, argument(s, call->path));
	else if (call->path)
		at = put_name(s, at, KB_BPF_BASE, call->dirfd, call->path);
	if (call->path2)
		at = put_name(s, at, KB_BPF_BASE2, call->dirfd2, call->path2);
	if (call->address)
		at = put_address(s, at, call);
	if (call->how)
		bpf_probe_read_user(
			s->event.how, sizeof(s->event.how), (const void *)argument(s, call->how));
	if (call->fd)
		at = put_fd(s, at, KB_BPF_FILE, (int)argument(s, call->fd));
	else if (returned)
		at = put_fd(s, at, KB_BPF_FILE, (int)s->event.result);
	if (call->exec) {
		at = put_arguments(s, at, argument(s, call->argv));
		at = put_cwd(s, at, KB_BPF_CWD);
	}
	return at;
}

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

SEC("tp_btf/sys_exit")
int on_sys_exit(__u64 *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();
	struct pt_regs *regs = (void *)ctx[0];
	long result = ctx[1];
	__u32 nr = CALL_NUMBER(regs);
	bool failed = result < 0 && result >= -MAX_ERRNO;
	const struct kb_bpf_call *call;
	struct place place;
	struct scratch *s;

	if (!is_wanted(nr, KB_BPF_WANT_EXIT))
		return 0;
	if (!find_place(task, &place))
		return 0;
	call = call_of(&place, nr);
	if (!call || !call->report || (call->report == KB_BPF_REPORT_ERRORS && !failed))
		return 0;
	/* A program that took over tells of itself. */
	if (call->exec && !failed)
		return 0;
	s = begin(&place, task, KB_BPF_CALL);
	if (!s)
		return 0;
	s->event.nr = nr;
	s->event.result = result;
	read_registers(regs, s->event.args);
	send(&place, s, put_call(s, 0, call));
	return 0;
}

/* What an exec was asked to do is gone when it has succeeded. */
SEC("tp_btf/sys_enter")
int on_sys_enter(__u64 *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();
	struct pt_regs *regs = (void *)ctx[0];
	const struct kb_bpf_call *call;
	struct place place;
	__u32 nr = ctx[1];
	struct scratch *s;

	if (!is_wanted(nr, KB_BPF_WANT_ENTER))
		return 0;
	if (!find_place(task, &place))
		return 0;
	call = call_of(&place, nr);
	if (!call || !call->exec)
		return 0;
	s = begin(&place, task, KB_BPF_EXEC_TRY);
	if (!s)
		return 0;
	s->event.nr = nr;
	read_registers(regs, s->event.args);
	send(&place, s, put_call(s, 0, call));
	return 0;
}

/* ---- Processes --------------------------------------------------------------------------------
 */

/* Bytes of the new program's own memory: its arguments as the kernel wrote them a moment ago. */
static __always_inline __u32 put_new_arguments(
	struct scratch *s, __u32 at, struct task_struct *task)
{
	__u64 start = BPF_CORE_READ(task, mm, arg_start), end = BPF_CORE_READ(task, mm, arg_end);
	__u64 len = end - start, offset;

	s->event.result = len;
	if (len > NEW_ARGUMENTS_MAX) {
		len = NEW_ARGUMENTS_MAX;
		s->event.flags |= KB_BPF_ARGS_CUT;
	}
	/* Half of the room for what comes before, half for them. */
	if (at >= NEW_ARGUMENTS_MAX)
		return at;
	offset = at;
	asm volatile("%0 &= %1" : "+r"(offset) : "i"(NEW_ARGUMENTS_MAX - 1));
	if (bpf_probe_read_user(s->data + offset, len, (const void *)start) < 0)
		return at;
	set_len(s, KB_BPF_ARGV, len);
	return at + len;
}

SEC("tp_btf/sched_process_exec")
int on_exec(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct linux_binprm *bprm = (void *)ctx[2];
	struct place place;
	struct scratch *s = find_place(task, &place) ? begin(&place, task, KB_BPF_EXEC_DONE) : NULL;
	__u32 at = 0;
	long n;

	if (!s)
		return 0;
	/* A thread that execs takes over the leader's number: this is what it was before. */
	s->event.host_tid = (int)ctx[1];
	/* The kernel's copies, for when the caller's own could not be read at entry: a string that
	 * nobody has touched yet may not be in memory. */
	n = bpf_probe_read_kernel_str(
		data_at(s, 0), KB_BPF_STRING_MAX, BPF_CORE_READ(bprm, filename));
	if (n > 0) {
		at = n - 1;
		set_len(s, KB_BPF_PATH, at);
	}
	at = put_file(s, at, KB_BPF_FILE, BPF_CORE_READ(task, mm, exe_file));
	at = put_new_arguments(s, at, task);
	send(&place, s, put_cwd(s, at, KB_BPF_CWD));
	return 0;
}

SEC("tp_btf/sched_process_fork")
int on_fork(__u64 *ctx)
{
	struct task_struct *parent = (void *)ctx[0], *child = (void *)ctx[1];
	struct place place;
	struct scratch *s;

	if (child->pid != child->tgid)
		return 0; /* a thread */
	s = find_place(child, &place) ? begin(&place, child, KB_BPF_FORK) : NULL;
	if (!s)
		return 0;
	/* CLONE_PARENT gives it another parent than who made it. */
	if (!s->event.ppid)
		s->event.ppid = process_number(&place, parent);
	send(&place, s, 0);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int on_exit(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct signal_struct *signal = task->signal;
	struct place place;
	struct scratch *s;

	if (signal->live.counter != 0)
		return 0; /* not the last thread */
	s = find_place(task, &place) ? begin(&place, task, KB_BPF_EXIT) : NULL;
	if (!s)
		return 0;
	s->event.status =
		signal->flags & SIGNAL_GROUP_EXIT ? signal->group_exit_code : task->exit_code;
	send(&place, s, 0);
	return 0;
}
