/* Events of the kernel's half become records. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "audit/collect/judge.h"
#include "audit/collect/sockaddr.h"
#include "lane.h"
#include "supervisor/base/util.h"

/* ---- Processes --------------------------------------------------------------------------------
 */

static struct kb_bpf_task **slot(struct kb_bpf *bpf, uint32_t pid)
{
	struct kb_bpf_task **at = &bpf->tasks[pid % KB_BPF_BUCKETS];

	while (*at && (*at)->pid != pid)
		at = &(*at)->next;
	return at;
}

static struct kb_bpf_task *task_of(struct kb_bpf *bpf, const struct kb_bpf_event *event)
{
	struct kb_bpf_task **at = slot(bpf, event->pid);

	if (!*at) {
		*at = calloc(1, sizeof(**at));
		if (!*at)
			return NULL;
		(*at)->pid = event->pid;
		(*at)->ppid = event->ppid;
		memcpy((*at)->comm, event->comm, sizeof((*at)->comm) - 1);
	}
	return *at;
}

static void forget_task(struct kb_bpf *bpf, uint32_t pid)
{
	struct kb_bpf_task **at = slot(bpf, pid), *task = *at;

	if (!task)
		return;
	*at = task->next;
	free(task->tallies.items);
	free(task);
}

/* ---- Records ----------------------------------------------------------------------------------
 */

static void out_of_memory(struct kb_bpf *bpf)
{
	struct kb_err err;

	kb_err_nomem(&err);
	bpf->ops.failed(&err, bpf->arg);
}

static void report(struct kb_bpf *bpf, struct kb_bpf_task *task, struct kb_record *record)
{
	if (!task->introduced || record->event == KB_EVENT_EXEC || record->event == KB_EVENT_EXIT)
		record->ppid = task->ppid;
	if (!task->introduced && !record->comm.data)
		record->comm =
			(struct kb_bytes){.data = (uint8_t *)task->comm, .len = strlen(task->comm)};
	task->introduced = true;
	bpf->ops.record(record, bpf->arg);
}

static void report_at(struct kb_bpf *bpf, struct kb_bpf_task *task, struct kb_record *record,
	enum kb_record_level level)
{
	if (level == KB_RECORD_NONE ||
		(level == KB_RECORD_SUMMARY && kb_tallies_count(&task->tallies, record)))
		return;
	report(bpf, task, record);
}

static struct kb_record start_record(const struct kb_bpf *bpf, const struct kb_bpf_event *event)
{
	return (struct kb_record){
		.time = event->time + bpf->monotonic_to_real,
		.lane = KB_LANE_BPF,
		.pid = event->pid,
		.tid = event->tid == event->pid ? 0 : event->tid,
		.syscall = -1,
		.rule = KB_RULE_NONE,
		.trust = KB_TRUST_REGISTER,
	};
}

static struct kb_bytes bytes(const void *data, size_t len)
{
	return (struct kb_bytes){.data = data, .len = len};
}

/* ---- Paths ------------------------------------------------------------------------------------
 */

/* Components, leaf first, become a path. False when there are none. */
static bool read_components(
	const struct kb_bpf_view *v, enum kb_bpf_part part, struct kb_resolved *ret)
{
	const char *start = v->part[part], *end = start + v->event->len[part];
	size_t len = 0;

	ret->state = KB_PATH_FOUND;
	ret->errnum = 0;
	if (start == end)
		return false;
	if (v->event->flags & KB_BPF_SPECIAL && part == KB_BPF_FILE)
		ret->state = KB_PATH_SPECIAL;
	while (end > start) {
		const char *name = end - 1; /* its NUL */

		while (name > start && name[-1] != '\0')
			name--;
		if (*name && len + (size_t)(end - name) + 1 < sizeof(ret->path)) {
			ret->path[len++] = '/';
			memcpy(ret->path + len, name, (size_t)(end - name) - 1);
			len += (size_t)(end - name) - 1;
		}
		end = name;
	}
	if (len == 0)
		ret->path[len++] = '/';
	ret->path[len] = '\0';
	ret->len = len;
	return true;
}

/* A name as the caller gave it. False if it could not be read. */
static bool read_raw(
	struct kb_bpf *bpf, const struct kb_bpf_view *v, enum kb_bpf_part part, unsigned which)
{
	size_t len = KB_MIN(v->event->len[part], sizeof(bpf->raw[which]) - 1);
	char *raw = bpf->raw[which];

	memcpy(raw, v->part[part], len);
	raw[len] = '\0';
	/* Unreadable: nothing can be said. */
	return len > 0 || !(v->event->flags & KB_BPF_UNREADABLE);
}

/* The same, and where it leads. */
static bool read_name(struct kb_bpf *bpf, const struct kb_bpf_view *v, enum kb_bpf_part part,
	unsigned flags, unsigned which)
{
	struct kb_caller caller = {.vpid = v->event->pid, .vtid = v->event->tid, .proc_fd = -1};

	if (!read_raw(bpf, v, part, which))
		return false;
	if (!read_components(v, part - 1, &bpf->base[which]))
		bpf->base[which].path[0] = '\0';
	if (!bpf->raw[which][0] && v->event->len[part - 1] && flags & KB_RESOLVE_EMPTY) {
		bpf->path[which] = bpf->base[which];
		return true;
	}
	kb_resolve_from(&bpf->resolver, &caller, bpf->base[which].path, bpf->raw[which], flags,
		&bpf->path[which]);
	return true;
}

static void set_path(const char *raw, const struct kb_resolved *resolved, struct kb_bytes *path,
	struct kb_bytes *path_arg)
{
	size_t len = strlen(raw);

	*path = bytes(resolved->path, resolved->len);
	if (len != resolved->len || memcmp(raw, resolved->path, len) != 0)
		*path_arg = bytes(raw, len);
}

/* ---- Calls ------------------------------------------------------------------------------------
 */

struct call {
	struct kb_bpf *bpf;
	const struct kb_bpf_view *view;
	const struct kb_bpf_event *event;
	const struct kb_trap *trap; /* NULL: no row */
	struct kb_judge judge;
	struct kb_record record;
	bool failed;
};

static uint64_t argument(const struct call *c, uint8_t place)
{
	return place ? c->event->args[place - 1] : 0;
}

static unsigned resolve_flags(const struct call *c, uint64_t flags)
{
	unsigned traits = c->trap->traits, ret = 0;

	if (traits & KB_TRAP_NOFOLLOW ||
		(traits & KB_TRAP_AT_NOFOLLOW && flags & AT_SYMLINK_NOFOLLOW) ||
		(traits & KB_TRAP_AT_FOLLOW && !(flags & AT_SYMLINK_FOLLOW)) ||
		(traits & KB_TRAP_OPEN_FLAGS && flags & O_NOFOLLOW))
		ret |= KB_RESOLVE_NOFOLLOW;
	if (traits & (KB_TRAP_AT_EMPTY | KB_TRAP_NULL_IS_DIR))
		ret |= KB_RESOLVE_EMPTY;
	return ret;
}

static unsigned open_access(uint64_t flags)
{
	static const unsigned by_mode[] = {
		KB_FS_READ, KB_FS_WRITE, KB_FS_READ | KB_FS_WRITE, KB_FS_READ | KB_FS_WRITE};

	if (flags & O_PATH)
		return KB_FS_READ;
	return by_mode[flags & O_ACCMODE] | (flags & (O_CREAT | O_TRUNC) ? KB_FS_WRITE : 0);
}

static void read_flags(struct call *c, uint64_t *ret_flags, unsigned *ret_access)
{
	const struct kb_trap *trap = c->trap;
	uint64_t flags = argument(c, trap->flags);

	*ret_access = trap->access;
	c->record.has_mode = trap->mode != 0;
	c->record.mode = (uint32_t)argument(c, trap->mode);
	if (trap->traits & KB_TRAP_HOW) {
		flags = c->event->how[0];
		c->record.mode = (uint32_t)c->event->how[1];
		c->record.has_mode = true;
	}
	if (trap->traits & KB_TRAP_OPEN_FLAGS) {
		*ret_access = open_access(flags);
		c->record.has_mode &= (flags & (O_CREAT | __O_TMPFILE)) != 0;
	}
	if (!c->record.has_mode)
		c->record.mode = 0;
	c->record.has_flags = trap->flags != 0;
	c->record.flags = (uint32_t)flags;
	if (trap->traits & KB_TRAP_DETACHES_DIR && flags & AT_REMOVEDIR)
		c->record.event = KB_EVENT_RMDIR;
	*ret_flags = flags;
}

/* The second name of a call: of a new link what it says, else where it leads. */
static void read_second(struct call *c, bool leads, bool creates)
{
	struct kb_bpf *bpf = c->bpf;
	struct kb_record *r = &c->record;
	size_t len = c->event->len[KB_BPF_CWD];
	bool named = c->event->flags & KB_BPF_NAMED && len > 0;

	if (named && !leads) {
		r->path2 = bytes(c->view->part[KB_BPF_CWD], len);
		return;
	}
	if (named && read_components(c->view, KB_BPF_CWD, &bpf->path[1])) {
		read_raw(bpf, c->view, KB_BPF_PATH2, 1);
	} else if (!read_name(bpf, c->view, KB_BPF_PATH2, KB_RESOLVE_NOFOLLOW, 1)) {
		return;
	} else if (r->trust == KB_TRUST_KERNEL) {
		r->trust = KB_TRUST_RACY; /* half of it was */
	}
	if (!leads) {
		r->path2 = bytes(bpf->raw[1], strlen(bpf->raw[1]));
		return;
	}
	set_path(bpf->raw[1], &bpf->path[1], &r->path2, &r->path2_arg);
	kb_judge_path(&c->judge, c->trap->access2, &bpf->path[1], creates);
}

static void read_paths(struct call *c)
{
	struct kb_bpf *bpf = c->bpf;
	struct kb_record *r = &c->record;
	bool two = c->trap->path2 && !(c->trap->traits & KB_TRAP_TARGET);
	bool creates = c->trap->traits & KB_TRAP_CREATES;
	unsigned access;
	uint64_t flags;

	read_flags(c, &flags, &access);
	if (c->trap->traits & KB_TRAP_OPEN_FLAGS)
		creates = flags & O_CREAT;
	r->trust = KB_TRUST_RACY;
	if (read_components(c->view, KB_BPF_FILE, &bpf->path[0])) {
		/* What the kernel really opened, or was about to change. */
		read_raw(bpf, c->view, KB_BPF_PATH, 0);
		r->trust = KB_TRUST_KERNEL;
		r->created = c->event->flags & KB_BPF_CREATED;
	} else if (!read_name(bpf, c->view, KB_BPF_PATH, resolve_flags(c, flags), 0)) {
		r->trust = KB_TRUST_UNREADABLE;
		return;
	}
	set_path(bpf->raw[0], &bpf->path[0], &r->path, &r->path_arg);
	kb_judge_path(&c->judge, access, &bpf->path[0], creates && !two);
	if (c->trap->path2)
		read_second(c, two, creates);
}

static void read_fd(struct call *c)
{
	unsigned access;
	uint64_t flags;

	read_flags(c, &flags, &access);
	if (!read_components(c->view, KB_BPF_FILE, &c->bpf->file))
		return;
	c->record.trust = KB_TRUST_KERNEL;
	c->record.path = bytes(c->bpf->file.path, c->bpf->file.len);
	kb_judge_path(&c->judge, access, &c->bpf->file, false);
}

static void read_arguments(
	struct kb_bpf *bpf, const struct kb_bpf_view *view, struct kb_record *record)
{
	const char *at = view->part[KB_BPF_ARGV], *end = at + view->event->len[KB_BPF_ARGV];
	size_t n = 0;

	while (at < end && n < KB_BPF_ARGS_MAX) {
		size_t len = strnlen(at, (size_t)(end - at));

		bpf->argv[n++] = bytes(at, len);
		at += len + 1;
	}
	/* How much is missing is known when it has succeeded. */
	record->argv_lost = view->event->flags & KB_BPF_ARGS_CUT ? 1 : 0;
	record->argv = bpf->argv;
	record->argc = n;
	if (read_components(view, KB_BPF_CWD, &bpf->cwd))
		record->cwd = bytes(bpf->cwd.path, bpf->cwd.len);
}

static void read_exec(struct call *c)
{
	read_paths(c);
	read_arguments(c->bpf, c->view, &c->record);
}

static void read_address(struct call *c)
{
	struct kb_sockaddr parsed;
	const uint8_t *data = (const uint8_t *)c->view->part[KB_BPF_PATH];
	size_t len = c->event->len[KB_BPF_PATH];
	struct kb_caller caller = {.vpid = c->event->pid, .vtid = c->event->tid, .proc_fd = -1};
	struct kb_bpf *bpf = c->bpf;
	bool creates = c->trap->traits & KB_TRAP_CREATES;

	if (len == 0)
		return;
	c->record.trust = KB_TRUST_RACY;
	kb_sockaddr_parse(data, len, &parsed);
	c->record.family = parsed.family;
	c->record.port = parsed.port;
	c->record.address = parsed.address;
	if (parsed.family != AF_UNIX) {
		/* The path of a unix socket is resolved afterwards; an address says it all. */
		if (c->event->flags & KB_BPF_NAMED)
			c->record.trust = KB_TRUST_KERNEL;
		kb_judge_address(&c->judge, data, len);
		return;
	}
	if (parsed.address.len == 0 || parsed.address.data[0] == 0)
		return;
	snprintf(bpf->raw[0], sizeof(bpf->raw[0]), "%.*s", (int)parsed.address.len,
		(const char *)parsed.address.data);
	if (!read_components(c->view, KB_BPF_BASE2, &bpf->base[0]))
		bpf->base[0].path[0] = '\0';
	kb_resolve_from(&bpf->resolver, &caller, bpf->base[0].path, bpf->raw[0],
		creates ? KB_RESOLVE_NOFOLLOW : 0, &bpf->path[0]);
	set_path(bpf->raw[0], &bpf->path[0], &c->record.path, &c->record.path_arg);
	kb_judge_path(&c->judge, c->trap->access, &bpf->path[0], creates);
}

static void read_plain(struct call *c)
{
	c->record.has_args = true;
	memcpy(c->record.args, c->event->args, sizeof(c->record.args));
	if (c->trap && c->trap->signal)
		c->record.signal = (uint32_t)argument(c, c->trap->signal);
}

static void (*const readers[])(struct call *) = {
	[KB_SHAPE_PLAIN] = read_plain,
	[KB_SHAPE_PATH] = read_paths,
	[KB_SHAPE_FD] = read_fd,
	[KB_SHAPE_EXEC] = read_exec,
	[KB_SHAPE_EXIT] = read_plain,
	[KB_SHAPE_SOCKADDR] = read_address,
	[KB_SHAPE_MSGHDR] = read_address,
};

/* Both lanes are there, and the filter asked about this call: it is the other's. Of an exec only we
 * know what became of it. */
static bool is_others(const struct call *c)
{
	uint64_t args[6];

	if (!c->bpf->split || c->record.event == KB_EVENT_EXEC)
		return false;
	memcpy(args, c->event->args, sizeof(args));
	return kb_bundle_asks(c->bpf->bundle, c->bpf->arch, c->event->nr, args);
}

static void begin_call(struct kb_bpf *bpf, const struct kb_bpf_view *v, struct call *c)
{
	const struct kb_bpf_event *event = v->event;
	uint64_t args[6];

	*c = (struct call){.bpf = bpf, .view = v, .event = event};
	if (event->nr >= 0 && event->nr < KB_TRAP_NUMBERS)
		c->trap = bpf->traps[event->nr];
	c->record = start_record(bpf, event);
	c->record.syscall = event->nr;
	c->record.event = c->trap ? c->trap->event : KB_EVENT_SYSCALL;
	c->judge = (struct kb_judge){
		.bundle = bpf->bundle,
		.resolver = &bpf->resolver,
		.probes = c->trap && c->trap->traits & KB_TRAP_PROBES,
		.relayed = bpf->relayed,
		.binds = c->trap && c->trap->event == KB_EVENT_BIND,
	};
	memcpy(args, event->args, sizeof(args));
	kb_judge_call(&c->judge, bpf->arch, event->nr, args);
	if (c->record.event == KB_EVENT_SYSCALL)
		read_plain(c);
	readers[c->trap ? c->trap->shape : KB_SHAPE_PLAIN](c);
	if (event->flags & KB_BPF_UNREADABLE && c->record.trust != KB_TRUST_KERNEL)
		c->record.trust = KB_TRUST_UNREADABLE;
	c->record.rule = c->judge.verdict.rule;
}

static void conclude_call(struct call *c)
{
	struct kb_record *r = &c->record;

	c->failed = c->event->result < 0;
	r->outcome = c->failed ? KB_OUTCOME_FAILED : KB_OUTCOME_OK;
	r->errnum = c->failed ? (int32_t)-c->event->result : 0;
	r->has_result = !c->failed;
	r->result = c->failed ? 0 : c->event->result;
	/* What succeeded was not denied, whatever the rules make of it. */
	if (c->judge.verdict.action != KB_ALLOW && c->failed)
		r->decision =
			c->judge.verdict.action == KB_ASK ? KB_DECISION_ASKED : KB_DECISION_DENIED;
}

static struct kb_held *take_attempt(struct kb_bpf *bpf, uint32_t host_tid)
{
	for (struct kb_bpf_attempt **at = &bpf->attempts; *at; at = &(*at)->next) {
		struct kb_bpf_attempt *found = *at;
		struct kb_held *held = found->held;

		if (found->host_tid != host_tid)
			continue;
		*at = found->next;
		free(found);
		return held;
	}
	return NULL;
}

static void on_call(struct kb_bpf *bpf, const struct kb_bpf_view *v)
{
	struct kb_bpf_task *task = task_of(bpf, v->event);
	struct call c;

	if (!task) {
		out_of_memory(bpf);
		return;
	}
	begin_call(bpf, v, &c);
	if (is_others(&c))
		return;
	conclude_call(&c);
	if (c.record.event == KB_EVENT_EXEC)
		free(take_attempt(bpf, v->event->host_tid));
	report_at(bpf, task, &c.record, c.judge.verdict.record);
}

/* ---- Programs and processes -------------------------------------------------------------------
 */

static void on_exec_try(struct kb_bpf *bpf, const struct kb_bpf_view *v)
{
	struct kb_bpf_attempt *attempt = calloc(1, sizeof(*attempt));
	struct call c;

	free(take_attempt(bpf, v->event->host_tid));
	begin_call(bpf, v, &c);
	if (attempt)
		attempt->held = kb_held_create(&c.record);
	if (!attempt || !attempt->held) {
		free(attempt);
		out_of_memory(bpf);
		return;
	}
	attempt->host_tid = v->event->host_tid;
	attempt->next = bpf->attempts;
	bpf->attempts = attempt;
}

/* The arguments were more than the buffer takes; the kernel knows how much they were. */
static uint32_t count_lost(const struct kb_record *record, uint64_t total)
{
	uint64_t kept = 0;

	for (size_t i = 0; i < record->argc; i++)
		kept += record->argv[i].len + 1;
	return total > kept ? (uint32_t)KB_MIN(total - kept, UINT32_MAX) : 1;
}

/* What was asked for could not be read at entry: the kernel's own copies, made since. (Its
 * arguments of a script begin with the interpreter.) */
static void use_kernel_copies(
	struct kb_bpf *bpf, const struct kb_bpf_view *v, struct kb_record *record)
{
	struct kb_caller caller = {.vpid = v->event->pid, .vtid = v->event->tid, .proc_fd = -1};
	size_t len = KB_MIN(v->event->len[KB_BPF_PATH], sizeof(bpf->raw[0]) - 1);

	memcpy(bpf->raw[0], v->part[KB_BPF_PATH], len);
	bpf->raw[0][len] = '\0';
	read_arguments(bpf, v, record);
	kb_resolve_from(&bpf->resolver, &caller, record->cwd.data ? bpf->cwd.path : "", bpf->raw[0],
		0, &bpf->path[0]);
	set_path(bpf->raw[0], &bpf->path[0], &record->path, &record->path_arg);
	record->trust = KB_TRUST_KERNEL;
}

static void on_exec_done(struct kb_bpf *bpf, const struct kb_bpf_view *v)
{
	struct kb_held *held = take_attempt(bpf, v->event->host_tid);
	struct kb_bpf_task *task = task_of(bpf, v->event);
	struct kb_record record = held ? held->record : start_record(bpf, v->event);

	if (!task) {
		free(held);
		out_of_memory(bpf);
		return;
	}
	record.event = KB_EVENT_EXEC;
	record.outcome = KB_OUTCOME_OK;
	record.has_result = true;
	record.comm = bytes(v->event->comm, strnlen(v->event->comm, sizeof(v->event->comm)));
	if (!held || record.trust == KB_TRUST_UNREADABLE)
		use_kernel_copies(bpf, v, &record);
	if (read_components(v, KB_BPF_FILE, &bpf->file))
		record.exe = bytes(bpf->file.path, bpf->file.len);
	if (record.argv_lost)
		record.argv_lost = count_lost(&record, (uint64_t)v->event->result);
	memcpy(task->comm, v->event->comm, sizeof(task->comm) - 1);
	report(bpf, task, &record);
	free(held);
}

static void on_fork(struct kb_bpf *bpf, const struct kb_bpf_view *v)
{
	struct kb_bpf_task *task;

	/* A number used again: its last owner has ended. */
	forget_task(bpf, v->event->pid);
	task = task_of(bpf, v->event);
	if (!task)
		out_of_memory(bpf);
}

static void on_process_exit(struct kb_bpf *bpf, const struct kb_bpf_view *v)
{
	struct kb_bpf_task *task = task_of(bpf, v->event);
	struct kb_record record = start_record(bpf, v->event), summary;
	int status = v->event->status;

	if (!task) {
		out_of_memory(bpf);
		return;
	}
	for (uint32_t i = 0; i < task->tallies.len; i++)
		if (kb_tally_record(&task->tallies.items[i], KB_LANE_BPF, task->pid, &summary))
			report(bpf, task, &summary);
	record.event = KB_EVENT_EXIT;
	record.outcome = KB_OUTCOME_OK;
	record.trust = KB_TRUST_KERNEL;
	record.has_exit_code = true;
	record.signal = (uint32_t)(status & 0x7f);
	record.exit_code = record.signal ? 128 + (int)record.signal : status >> 8 & 0xff;
	report(bpf, task, &record);
	forget_task(bpf, task->pid);
}

static void (*const handlers[KB_BPF_KINDS])(struct kb_bpf *, const struct kb_bpf_view *) = {
	[KB_BPF_CALL] = on_call,
	[KB_BPF_EXEC_TRY] = on_exec_try,
	[KB_BPF_EXEC_DONE] = on_exec_done,
	[KB_BPF_FORK] = on_fork,
	[KB_BPF_EXIT] = on_process_exit,
};

void kb_bpf_handle(struct kb_bpf *bpf, const struct kb_bpf_view *view)
{
	handlers[view->event->kind](bpf, view);
}

void kb_bpf_forget_all(struct kb_bpf *bpf)
{
	while (bpf->attempts)
		free(take_attempt(bpf, bpf->attempts->host_tid));
	for (size_t i = 0; i < KB_BPF_BUCKETS; i++)
		while (bpf->tasks[i])
			forget_task(bpf, bpf->tasks[i]->pid);
}
