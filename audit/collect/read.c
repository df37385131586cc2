/* The arguments of a call, read out of its caller's registers and memory into a record. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "collector.h"
#include "supervisor/base/util.h"

#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif

/* The argument a row names by KB_ARG(n); 0 when the row has none. */
static uint64_t argument(const struct kb_seen *seen, uint8_t place)
{
	return place ? seen->request->data.args[place - 1] : 0;
}

static struct kb_bytes bytes(const void *data, size_t len)
{
	return (struct kb_bytes){.data = data, .len = len};
}

/* Memory the caller names is not there. The kernel would say so too; and it must not be given the
 * chance to find there something that was never seen. */
static void unreadable(struct kb_seen *seen, ssize_t error)
{
	seen->record.trust = KB_TRUST_UNREADABLE;
	if (seen->judge.verdict.action == KB_ALLOW && !seen->judge.answer)
		seen->judge.answer = error == -ENAMETOOLONG ? ENAMETOOLONG : EFAULT;
}

/* ---- Flags ------------------------------------------------------------------------------------
 */

static unsigned open_access(uint64_t flags)
{
	unsigned access;

	if (flags & O_PATH)
		return KB_FS_READ;
	access = (flags & O_ACCMODE) == O_RDONLY   ? KB_FS_READ
		 : (flags & O_ACCMODE) == O_WRONLY ? KB_FS_WRITE
						   : KB_FS_READ | KB_FS_WRITE;
	return flags & (O_CREAT | O_TRUNC) ? access | KB_FS_WRITE : access;
}

/* What a call's flags and row come to. */
struct manner {
	unsigned access, access2;
	unsigned resolve, resolve2;
	bool creates, creates2;
};

static bool read_how(struct kb_seen *seen, uint64_t *ret_flags, struct manner *manner)
{
	struct open_how how = {0};
	size_t size = KB_MIN(sizeof(how), argument(seen, KB_ARG(3)));
	ssize_t n = kb_mem_read(seen->caller.tid, argument(seen, seen->call->flags), &how, size);

	if (size == 0 || n != (ssize_t)size) {
		unreadable(seen, n < 0 ? n : -EFAULT);
		return false;
	}
	*ret_flags = how.flags;
	seen->record.has_mode = how.flags & (O_CREAT | __O_TMPFILE);
	seen->record.mode = (uint32_t)how.mode;
	if (how.resolve & (RESOLVE_IN_ROOT | RESOLVE_BENEATH))
		manner->resolve |= KB_RESOLVE_SCOPED;
	return true;
}

static void apply_open_flags(struct kb_seen *seen, uint64_t flags, struct manner *manner)
{
	manner->access = open_access(flags);
	manner->creates = flags & O_CREAT;
	if (flags & O_NOFOLLOW || (flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL))
		manner->resolve |= KB_RESOLVE_NOFOLLOW;
	seen->record.flags = (uint32_t)flags;
	seen->record.has_mode &= (flags & (O_CREAT | __O_TMPFILE)) != 0;
	if (!seen->record.has_mode)
		seen->record.mode = 0;
}

static void apply_at_flags(struct kb_seen *seen, uint64_t flags, struct manner *manner)
{
	unsigned traits = seen->call->traits;

	if (traits & KB_TRAP_AT_NOFOLLOW && flags & AT_SYMLINK_NOFOLLOW)
		manner->resolve |= KB_RESOLVE_NOFOLLOW;
	if (traits & KB_TRAP_AT_FOLLOW && !(flags & AT_SYMLINK_FOLLOW))
		manner->resolve |= KB_RESOLVE_NOFOLLOW;
	if (traits & KB_TRAP_AT_EMPTY && flags & AT_EMPTY_PATH)
		manner->resolve |= KB_RESOLVE_EMPTY;
	if (traits & KB_TRAP_DETACHES_DIR && flags & AT_REMOVEDIR)
		seen->record.event = KB_EVENT_RMDIR;
}

static bool read_manner(struct kb_seen *seen, struct manner *manner)
{
	const struct kb_trap *call = seen->call;
	uint64_t flags = argument(seen, call->flags);
	bool two_files = call->path2 && !(call->traits & KB_TRAP_TARGET);

	*manner = (struct manner){.access = call->access, .access2 = call->access2};
	manner->creates = call->traits & KB_TRAP_CREATES && !two_files;
	manner->creates2 = call->traits & KB_TRAP_CREATES && two_files;
	if (call->traits & KB_TRAP_NOFOLLOW)
		manner->resolve |= KB_RESOLVE_NOFOLLOW;
	manner->resolve2 = manner->resolve | (manner->creates2 ? KB_RESOLVE_NOFOLLOW : 0);
	seen->record.has_mode = call->mode != 0;
	seen->record.mode = (uint32_t)argument(seen, call->mode);
	seen->record.has_flags = call->flags != 0;
	seen->record.flags = (uint32_t)flags;
	if (call->traits & KB_TRAP_HOW && !read_how(seen, &flags, manner))
		return false;
	if (call->traits & KB_TRAP_OPEN_FLAGS)
		apply_open_flags(seen, flags, manner);
	else
		apply_at_flags(seen, flags, manner);
	return true;
}

/* ---- Paths ------------------------------------------------------------------------------------
 */

static int directory(const struct kb_seen *seen, uint8_t place)
{
	return place ? (int)argument(seen, place) : AT_FDCWD;
}

static void set_path(const char *raw, size_t raw_len, const struct kb_resolved *resolved,
	struct kb_bytes *path, struct kb_bytes *path_arg)
{
	*path = bytes(resolved->path, resolved->len);
	if (raw_len != resolved->len || memcmp(raw, resolved->path, raw_len) != 0)
		*path_arg = bytes(raw, raw_len);
}

/* A path argument into scratch `which`. False when it is not there. */
static bool read_path(struct kb_seen *seen, uint8_t place, uint8_t dirfd, unsigned flags,
	unsigned which, size_t *ret_len)
{
	struct kb_notify *notify = seen->notify;
	char *raw = notify->raw[which];
	uint64_t addr = argument(seen, place);
	ssize_t n = 0;

	raw[0] = '\0';
	if (addr || !(seen->call->traits & KB_TRAP_NULL_IS_DIR))
		n = kb_mem_string(seen->caller.tid, addr, raw, sizeof(notify->raw[which]));
	else
		flags |= KB_RESOLVE_EMPTY;
	if (n < 0) {
		unreadable(seen, n);
		return false;
	}
	seen->record.trust = KB_TRUST_RACY;
	*ret_len = (size_t)n;
	kb_resolve(&notify->resolver, &seen->caller, directory(seen, dirfd), raw, flags,
		&notify->resolved[which]);
	return true;
}

/* The text of a symbolic link, or the source of a mount: bytes, not a file. */
static void read_target(struct kb_seen *seen)
{
	struct kb_notify *notify = seen->notify;
	ssize_t n = kb_mem_string(seen->caller.tid, argument(seen, seen->call->path2),
		notify->raw[1], sizeof(notify->raw[1]));

	if (n >= 0)
		seen->record.path2 = bytes(notify->raw[1], (size_t)n);
	else if (seen->record.event == KB_EVENT_SYMLINK)
		unreadable(seen, n);
}

/* The lookup fails, and surely so: the call is going to. */
static void expect_failure(struct kb_seen *seen, const struct kb_resolved *path, bool creates)
{
	bool sure = path->state == KB_PATH_ABSENT ||
		    (path->state == KB_PATH_ERROR &&
			    (path->errnum == ENOTDIR || path->errnum == ELOOP));

	if (!sure || creates || seen->record.outcome != KB_OUTCOME_UNKNOWN)
		return;
	seen->record.outcome = KB_OUTCOME_FAILED;
	seen->record.errnum = path->errnum;
}

static void read_paths(struct kb_seen *seen)
{
	struct kb_notify *notify = seen->notify;
	const struct kb_trap *call = seen->call;
	struct kb_record *record = &seen->record;
	struct manner manner;
	size_t len;

	if (!read_manner(seen, &manner) ||
		!read_path(seen, call->path, call->dirfd, manner.resolve, 0, &len))
		return;
	set_path(notify->raw[0], len, &notify->resolved[0], &record->path, &record->path_arg);
	expect_failure(seen, &notify->resolved[0], manner.creates);
	record->created = call->event == KB_EVENT_OPEN && manner.creates &&
			  notify->resolved[0].state == KB_PATH_ABSENT;
	kb_judge_path(&seen->judge, manner.access, &notify->resolved[0], manner.creates);
	if (call->traits & KB_TRAP_TARGET)
		read_target(seen);
	if (call->traits & KB_TRAP_TARGET || !call->path2)
		return;
	if (!read_path(seen, call->path2, call->dirfd2, manner.resolve2, 1, &len))
		return;
	set_path(notify->raw[1], len, &notify->resolved[1], &record->path2, &record->path2_arg);
	expect_failure(seen, &notify->resolved[1], manner.creates2);
	kb_judge_path(&seen->judge, manner.access2, &notify->resolved[1], manner.creates2);
}

static void read_fd(struct kb_seen *seen)
{
	struct kb_resolved *path = &seen->notify->resolved[0];
	struct manner manner;

	if (!read_manner(seen, &manner))
		return;
	kb_resolve_fd(&seen->notify->resolver, &seen->caller,
		(int)argument(seen, seen->call->dirfd), path);
	seen->record.trust = KB_TRUST_RACY;
	seen->record.path = bytes(path->path, path->len);
	if (path->state == KB_PATH_ERROR) {
		seen->record.path = bytes(NULL, 0);
		seen->record.outcome = KB_OUTCOME_FAILED;
		seen->record.errnum = path->errnum;
	}
	kb_judge_path(&seen->judge, manner.access, path, false);
}

/* ---- Programs ---------------------------------------------------------------------------------
 */

static void read_exec(struct kb_seen *seen)
{
	struct kb_notify *notify = seen->notify;
	struct kb_argv *argv = &notify->argv;
	int r;

	read_paths(seen);
	r = kb_mem_argv(seen->caller.tid, argument(seen, seen->call->argv), argv);
	if (r < 0 && r != -E2BIG)
		unreadable(seen, r);
	seen->record.argv = argv->items;
	seen->record.argc = argv->count;
	seen->record.argv_lost = (uint32_t)KB_MIN(argv->lost, UINT32_MAX);
	kb_resolve_fd(&notify->resolver, &seen->caller, AT_FDCWD, &notify->cwd);
	seen->record.cwd = bytes(notify->cwd.path, notify->cwd.len);
	if (!seen->judge.answer)
		kb_exec_prepare(seen);
}

static void read_exit(struct kb_seen *seen)
{
	struct kb_proc *proc = seen->proc;

	if (!(seen->call->traits & KB_TRAP_GROUP) && !kb_proc_single(proc))
		return;
	proc->has_exit_code = true;
	proc->exit_code = (int)(seen->request->data.args[0] & 0xff);
	kb_procs_adopt(&seen->notify->procs, proc);
}

/* ---- Addresses --------------------------------------------------------------------------------
 */

/* A named unix socket is a file. */
static void judge_unix(struct kb_seen *seen, struct kb_bytes name)
{
	struct kb_notify *notify = seen->notify;
	bool creates = seen->call->traits & KB_TRAP_CREATES;
	char *raw = notify->raw[0];

	if (name.len == 0 || name.data[0] == 0)
		return;
	memcpy(raw, name.data, name.len);
	raw[name.len] = '\0';
	kb_resolve(&notify->resolver, &seen->caller, AT_FDCWD, raw,
		creates ? KB_RESOLVE_NOFOLLOW : 0, &notify->resolved[0]);
	set_path(raw, name.len, &notify->resolved[0], &seen->record.path, &seen->record.path_arg);
	expect_failure(seen, &notify->resolved[0], creates);
	kb_judge_path(&seen->judge, seen->call->access, &notify->resolved[0], creates);
}

static void read_address(struct kb_seen *seen, uint64_t addr, uint64_t len)
{
	struct kb_notify *notify = seen->notify;
	struct kb_sockaddr parsed;
	ssize_t n;

	/* sendto without an address goes where the socket is connected to. */
	if (addr == 0 && seen->call->event == KB_EVENT_SEND)
		return;
	if ((uint32_t)len > KB_SOCKADDR_MAX) {
		seen->record.outcome = KB_OUTCOME_FAILED;
		seen->record.errnum = EINVAL;
		return;
	}
	n = kb_mem_read(seen->caller.tid, addr, notify->sockaddr, (uint32_t)len);
	if (n != (ssize_t)(uint32_t)len) {
		unreadable(seen, -EFAULT);
		return;
	}
	seen->record.trust = KB_TRUST_RACY;
	kb_sockaddr_parse(notify->sockaddr, (size_t)n, &parsed);
	seen->record.family = parsed.family;
	seen->record.port = parsed.port;
	seen->record.address = parsed.address;
	if (parsed.family == AF_UNIX)
		judge_unix(seen, parsed.address);
	else
		kb_judge_address(&seen->judge, notify->sockaddr, (size_t)n);
}

static void read_sockaddr(struct kb_seen *seen)
{
	read_address(seen, argument(seen, seen->call->path), argument(seen, seen->call->argv));
}

static void read_msghdr(struct kb_seen *seen)
{
	struct {
		uint64_t name;
		uint32_t len, pad;
	} header; /* the start of struct msghdr, and of struct mmsghdr */
	ssize_t n = kb_mem_read(
		seen->caller.tid, argument(seen, seen->call->path), &header, sizeof(header));

	if (n == (ssize_t)sizeof(header))
		read_address(seen, header.name, header.len);
	else
		unreadable(seen, -EFAULT);
}

/* ---- Registers --------------------------------------------------------------------------------
 */

static void read_plain(struct kb_seen *seen)
{
	seen->record.has_args = true;
	memcpy(seen->record.args, seen->request->data.args, sizeof(seen->record.args));
	if (seen->call && seen->call->signal)
		seen->record.signal = (uint32_t)argument(seen, seen->call->signal);
}

static void (*const readers[])(struct kb_seen *) = {
	[KB_SHAPE_PLAIN] = read_plain,
	[KB_SHAPE_PATH] = read_paths,
	[KB_SHAPE_FD] = read_fd,
	[KB_SHAPE_EXEC] = read_exec,
	[KB_SHAPE_EXIT] = read_exit,
	[KB_SHAPE_SOCKADDR] = read_sockaddr,
	[KB_SHAPE_MSGHDR] = read_msghdr,
};

void kb_seen_read(struct kb_seen *seen)
{
	enum kb_event event = seen->call ? seen->call->event : KB_EVENT_SYSCALL;

	seen->record.event = event;
	/* "syscall" says nothing by itself: its registers do. */
	if (event == KB_EVENT_SYSCALL)
		read_plain(seen);
	readers[seen->call ? seen->call->shape : KB_SHAPE_PLAIN](seen);
}
