/* The kernel's half: what names mean to the kernel, from hooks where it has them (fentry on the
 * functions that ask its security modules).
 *
 * A call that names a file or an address gives a pointer into memory that another thread may
 * change. These functions are called after the kernel has read and resolved it, and before anybody
 * is asked whether it may be: what they are given is what the call is about, denied or not. It is
 * noted under the caller's thread and taken up when the call returns. Each hook is an extra: where
 * one is missing, or a call ended before it, names are read from the caller instead.
 *
 * Unlike tracepoints, these functions can be preempted: their room for a path may be in use, and
 * then the names of this call are not noted.
 */
#pragma once

#include "read.bpf.h"

#define NAMED_HEAD 16u /* before the names */

/* Set by the loader, when a hook is in place. */
const volatile bool has_hooks = false;

/* By thread number: the call it is in, how long its one or two names are, and those. */
struct named {
	__u32 nr, len[2], is_address;
	char data[KB_BPF_STRING_MAX];
};
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256); /* calls under way at once; more are read from the caller */
	__type(key, __u32);
	__type(value, struct named);
} names SEC(".maps");

struct notes {
	__u64 busy;
	struct scratch scratch;
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* the loader knows how many */
	__type(key, __u32);
	__type(value, struct notes);
} hook_scratches SEC(".maps");

/* ---- Noting -----------------------------------------------------------------------------------
 */

/* The room for the names of a call that will be reported with them; NULL: not this one. */
static __always_inline struct notes *begin_names(bool address)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = (void *)bpf_task_pt_regs(task);
	__u32 nr = CALL_NUMBER(regs), cpu = bpf_get_smp_processor_id();
	const struct kb_bpf_call *call;
	struct notes *notes;
	struct named *named;
	struct place place;

	if (!is_wanted(nr, KB_BPF_WANT_EXIT) || !find_place(task, &place))
		return NULL;
	call = call_of(&place, nr);
	if (!call || !call->report || !(address ? call->address : call->path) ||
		call->returns_file || call->exec || call->fd)
		return NULL;
	notes = bpf_map_lookup_elem(&hook_scratches, &cpu);
	if (!notes || __sync_lock_test_and_set(&notes->busy, 1))
		return NULL;
	named = (void *)notes->scratch.data;
	named->nr = nr;
	named->len[0] = named->len[1] = 0;
	named->is_address = address;
	notes->scratch.event.flags = 0;
	return notes;
}

static __always_inline void end_names(struct notes *notes, __u32 at)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct named *named = (void *)notes->scratch.data;
	__u32 tid = task->pid;

	/* The first of a call counts. */
	if (at < NAMED_HEAD + KB_BPF_STRING_MAX && !(notes->scratch.event.flags & KB_BPF_TRUNCATED))
		bpf_map_update_elem(&names, &tid, named, BPF_NOEXIST);
	__sync_lock_test_and_set(&notes->busy, 0);
}

/* A leaf (0: none) and the directory it is in, as components, leaf first. */
static __always_inline __u32 note(struct notes *notes, __u32 at, __u32 which, __u64 dir, __u64 leaf)
{
	struct scratch *s = &notes->scratch;
	struct named *named = (void *)s->data;
	struct dentry *dentry = (void *)leaf;
	__u32 start = at;
	long n;

	if (leaf) {
		n = bpf_probe_read_kernel_str(
			data_at(s, at), KB_BPF_NAME_MAX, BPF_CORE_READ(dentry, d_name.name));
		at += n > 0 ? n : 0;
	}
	at = put_path(s, at, KB_BPF_FILE, dir);
	named->len[which & 1] = at - start;
	return at;
}

static __always_inline __u64 argument_of(void *ctx, __u32 n)
{
	__u64 value = 0;

	bpf_get_func_arg(ctx, n, &value);
	return value;
}

/* The hook's argument `dir` is a directory and `leaf` a name in it; or it is the file itself. */
static __always_inline int note_one(void *ctx, __u32 dir, int leaf)
{
	struct notes *notes = begin_names(false);

	if (notes)
		end_names(notes, note(notes, NAMED_HEAD, 0, argument_of(ctx, dir),
					 leaf < 0 ? 0 : argument_of(ctx, leaf)));
	return 0;
}

static __always_inline int note_two(void *ctx, __u32 dir, __u32 leaf, __u32 dir2, __u32 leaf2)
{
	struct notes *notes = begin_names(false);
	__u32 at;

	if (!notes)
		return 0;
	at = note(notes, NAMED_HEAD, 0, argument_of(ctx, dir), argument_of(ctx, leaf));
	end_names(notes, note(notes, at, 1, argument_of(ctx, dir2), argument_of(ctx, leaf2)));
	return 0;
}

/* The old name of a link comes without its mount, which is that of the new one. */
static __always_inline int note_link(void *ctx)
{
	struct notes *notes = begin_names(false);
	struct path *dir = (void *)argument_of(ctx, 1);
	volatile __u64 *old;
	__u32 at;

	if (!notes)
		return 0;
	old = notes->scratch.event.how;
	old[bpf_core_field_offset(struct path, mnt) / 8 & 1] = (__u64)BPF_CORE_READ(dir, mnt);
	old[bpf_core_field_offset(struct path, dentry) / 8 & 1] = argument_of(ctx, 0);
	old[2] = (__u64)old; /* read back, the address is a number */
	at = note(notes, NAMED_HEAD, 0, old[2], 0);
	end_names(notes, note(notes, at, 1, (__u64)dir, argument_of(ctx, 2)));
	return 0;
}

/* What a new link says. */
static __always_inline int note_symlink(void *ctx)
{
	struct notes *notes = begin_names(false);
	struct named *named;
	__u32 at;
	long n;

	if (!notes)
		return 0;
	named = (void *)notes->scratch.data;
	at = note(notes, NAMED_HEAD, 0, argument_of(ctx, 0), argument_of(ctx, 1));
	n = bpf_probe_read_kernel_str(
		data_at(&notes->scratch, at), KB_BPF_STRING_MAX, (void *)argument_of(ctx, 2));
	named->len[1] = n > 0 ? n - 1 : 0;
	end_names(notes, at + named->len[1]);
	return 0;
}

static __always_inline int note_address(void *ctx)
{
	struct notes *notes = begin_names(true);
	__u64 len = argument_of(ctx, 2);
	struct named *named;

	if (!notes)
		return 0;
	named = (void *)notes->scratch.data;
	/* The verifier wants to see the bound at the very register. */
	asm volatile("%0 &= 255" : "+r"(len));
	if (len > 0 && len <= SOCKADDR_MAX &&
		bpf_probe_read_kernel(named->data, len, (void *)argument_of(ctx, 1)) == 0)
		named->len[0] = len;
	end_names(notes, named->len[0] ? NAMED_HEAD + len : -1);
	return 0;
}

SEC("?fentry/security_path_unlink") int hook_unlink(void *ctx)
{
	return note_one(ctx, 0, 1);
}

SEC("?fentry/security_path_rmdir") int hook_rmdir(void *ctx)
{
	return note_one(ctx, 0, 1);
}

SEC("?fentry/security_path_mkdir") int hook_mkdir(void *ctx)
{
	return note_one(ctx, 0, 1);
}

SEC("?fentry/security_path_mknod") int hook_mknod(void *ctx)
{
	return note_one(ctx, 0, 1);
}

SEC("?fentry/security_path_symlink") int hook_symlink(void *ctx)
{
	return note_symlink(ctx);
}

SEC("?fentry/security_path_link") int hook_link(void *ctx)
{
	return note_link(ctx);
}

SEC("?fentry/security_path_rename") int hook_rename(void *ctx)
{
	return note_two(ctx, 0, 1, 2, 3);
}

SEC("?fentry/security_path_truncate") int hook_truncate(void *ctx)
{
	return note_one(ctx, 0, -1);
}

SEC("?fentry/security_path_chmod") int hook_chmod(void *ctx)
{
	return note_one(ctx, 0, -1);
}

SEC("?fentry/security_path_chown") int hook_chown(void *ctx)
{
	return note_one(ctx, 0, -1);
}

SEC("?fentry/security_socket_connect") int hook_connect(void *ctx)
{
	return note_address(ctx);
}

SEC("?fentry/security_socket_bind") int hook_bind(void *ctx)
{
	return note_address(ctx);
}

/* ---- Taking up --------------------------------------------------------------------------------
 */

static __always_inline void forget_names(__u32 tid)
{
	if (has_hooks)
		bpf_map_delete_elem(&names, &tid);
}

static __always_inline __u32 copy_name(
	struct scratch *s, __u32 at, __u32 part, const char *from, __u64 len)
{
	asm volatile("%0 &= %1" : "+r"(len) : "i"(KB_BPF_STRING_MAX - 1));
	if (len == 0 || at >= ROOM || bpf_probe_read_kernel(data_at(s, at), len, from) < 0)
		return at;
	set_len(s, part, len);
	return at + len;
}

/* What was noted of this call, or NULL. */
static __always_inline struct named *named_by(__u32 tid, __u32 nr)
{
	struct named *named = has_hooks ? bpf_map_lookup_elem(&names, &tid) : NULL;

	return named && named->nr == nr ? named : NULL;
}
