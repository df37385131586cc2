/* The kernel's half: paths as the kernel has them, and the caller's memory.
 *
 * The functions here are not static on purpose: the verifier looks at such ones once, not again for
 * each call. */
#pragma once

#include "who.bpf.h"

#define AT_FDCWD      (-100)
#define FMODE_CREATED 0x100000
#define SOCKADDR_MAX  128

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

/* A string of the caller with its NUL; how long it is with that, or negative. Of an empty one, the
 * helper of older kernels (6.1) says 0. */
static __always_inline long read_string(char *to, __u64 user)
{
	long n = bpf_probe_read_user_str(to, KB_BPF_STRING_MAX, (const void *)user);

	if (n == 0)
		*to = 0;
	return n == 0 ? 1 : n;
}

__noinline __u32 put_string(struct scratch *s, __u32 at, __u32 part, __u64 user)
{
	long n;

	if (!s || part >= KB_BPF_PARTS || at >= ROOM)
		return at;
	n = read_string(data_at(s, at), user);
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
	n = read_string(data_at(v->s, at), v->string);
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
