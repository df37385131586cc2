/* The half of lane bpf that runs in the kernel; see lane.c for the whole. */
#include "hooks.bpf.h"
#include "read.bpf.h"

#define SIGNAL_GROUP_EXIT 4
#define NEW_ARGUMENTS_MAX KB_BPF_STRING_MAX
#define MAX_ERRNO	  4095

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* ---- Calls ------------------------------------------------------------------------------------
 */

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
	struct scratch *s, __u32 at, const struct kb_bpf_call *call, const struct named *named)
{
	struct {
		__u64 name;
		__u32 len, pad;
	} header = {0};
	__u64 user = argument(s, call->address), len = argument(s, call->address_len);

	if (named) {
		at = copy_name(s, at, KB_BPF_PATH, named->data, named->len[0]);
		s->event.flags |= KB_BPF_NAMED;
		return put_cwd(s, at, KB_BPF_BASE2);
	}
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

/* Where names start matters only while nobody knows where they led. */
static __always_inline __u32 put_names(
	struct scratch *s, __u32 at, const struct kb_bpf_call *call, bool known)
{
	if (call->path && known)
		at = put_string(s, at, KB_BPF_PATH, argument(s, call->path));
	else if (call->path)
		at = put_name(s, at, KB_BPF_BASE, call->dirfd, call->path);
	if (call->path2 && known)
		at = put_string(s, at, KB_BPF_PATH2, argument(s, call->path2));
	else if (call->path2)
		at = put_name(s, at, KB_BPF_BASE2, call->dirfd2, call->path2);
	return at;
}

static __always_inline __u32 put_named(struct scratch *s, __u32 at, const struct named *named)
{
	at = copy_name(s, at, KB_BPF_FILE, named->data, named->len[0]);
	if (named->len[0] < sizeof(named->data))
		at = copy_name(s, at, KB_BPF_CWD, named->data + named->len[0], named->len[1]);
	s->event.flags |= KB_BPF_NAMED;
	return at;
}

static __always_inline __u32 put_call(
	struct scratch *s, __u32 at, const struct kb_bpf_call *call, const struct named *named)
{
	bool returned = call->returns_file && s->event.result >= 0;

	at = put_names(s, at, call, returned || named);
	if (call->address)
		at = put_address(s, at, call, named);
	if (call->how)
		bpf_probe_read_user(
			s->event.how, sizeof(s->event.how), (const void *)argument(s, call->how));
	if (call->fd)
		at = put_fd(s, at, KB_BPF_FILE, (int)argument(s, call->fd));
	else if (returned)
		at = put_fd(s, at, KB_BPF_FILE, (int)s->event.result);
	else if (named && !call->address)
		at = put_named(s, at, named);
	if (call->exec) {
		at = put_arguments(s, at, argument(s, call->argv));
		at = put_cwd(s, at, KB_BPF_CWD);
	}
	return at;
}

static __always_inline void report_call(
	const struct place *place, struct pt_regs *regs, __u32 nr, long result)
{
	struct task_struct *task = bpf_get_current_task_btf();
	bool failed = result < 0 && result >= -MAX_ERRNO;
	const struct kb_bpf_call *call = call_of(place, nr);
	struct scratch *s;

	if (!call || !call->report || (call->report == KB_BPF_REPORT_ERRORS && !failed))
		return;
	/* A program that took over tells of itself. */
	if (call->exec && !failed)
		return;
	s = begin(place, task, KB_BPF_CALL);
	if (!s)
		return;
	s->event.nr = nr;
	s->event.result = result;
	read_registers(regs, s->event.args);
	send(place, s, put_call(s, 0, call, named_by(s->event.host_tid, nr)));
}

SEC("tp_btf/sys_exit")
int on_sys_exit(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = (void *)ctx[0];
	__u32 nr = CALL_NUMBER(regs);
	struct place place;

	if (!is_wanted(nr, KB_BPF_WANT_EXIT) || !find_place(task, &place))
		return 0;
	report_call(&place, regs, nr, ctx[1]);
	forget_names(task->pid);
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
	send(&place, s, put_call(s, 0, call, NULL));
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

	forget_names(task->pid);
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
