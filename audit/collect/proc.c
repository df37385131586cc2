/* Theory of operation.
 *
 * A notification names a thread by a number, and numbers are reused. A process is known by its
 * pidfd: it becomes readable when the process ends, before its number can be given away. All pidfds
 * are in one epoll set. Whoever looks at that set *after* a notification was received has seen the
 * end of every process that ended before; what is then still in the table under the number is
 * the one that called. Threads have no such descriptor (pidfds of threads are Linux 6.9): that a
 * tid still belongs to its process is asked of /proc/TGID/task.
 *
 * Parents: records need the parent that made the process, but by the time of a process's first
 * notification the kernel may have given it a new one. When a process announces its end
 * (exit_group), its children are read from /proc and entered, so their parent is the right one for
 * ever. What is left is a parent killed by a signal before its child ever made a recorded call.
 *
 * Numbers in records are those of the session's pid namespace: the NSpid line of the status file
 * has one column per namespace, from ours downwards; the session's is at `depth`. The kernel takes
 * its time to write that file; a newer one tells the same of a pidfd and a namespace.
 */
#include "proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include "supervisor/base/fd.h"
#include "supervisor/base/util.h"
#include "uapi.h"

#define BUCKETS_FIRST	 256u
#define THREADS_KEPT_MAX 65536u /* known threads; past it, all but leaders are forgotten */
#define STATUS_MAX	 4096u
#define CHILDREN_MAX	 (256u << 10)
#define REAP_BATCH	 64

/* ---- Text of /proc ----------------------------------------------------------------------------
 */

static const char *find_line(const char *text, const char *key)
{
	size_t n = strlen(key);

	while (text) {
		if (strncmp(text, key, n) == 0)
			return text + n;
		text = strchr(text, '\n');
		text = text ? text + 1 : NULL;
	}
	return NULL;
}

/* The index-th number of a line; how many there are in *ret_count. */
static uint32_t column(const char *line, unsigned index, unsigned *ret_count)
{
	uint32_t found = 0;
	unsigned count = 0;

	while (line && *line && *line != '\n') {
		char *end;
		unsigned long value = strtoul(line, &end, 10);

		if (end == line)
			break;
		if (count == index)
			found = (uint32_t)value;
		count++;
		line = end + strspn(end, " \t");
	}
	if (ret_count)
		*ret_count = count;
	return found;
}

/* The kernel writes newline and backslash as \n and \\. */
static void unescape_comm(const char *line, char comm[KB_COMM_MAX])
{
	size_t n = 0;

	while (*line == '\t' || *line == ' ')
		line++;
	for (; *line && *line != '\n' && n + 1 < KB_COMM_MAX; line++) {
		if (line[0] == '\\' && (line[1] == 'n' || line[1] == '\\')) {
			line++;
			comm[n++] = *line == 'n' ? '\n' : '\\';
		} else {
			comm[n++] = *line;
		}
	}
	comm[n] = '\0';
}

bool kb_status_parse(const char *text, size_t len, unsigned depth, struct kb_status *ret)
{
	char copy[STATUS_MAX];
	const char *name, *tgid, *pid, *ppid;

	len = KB_MIN(len, sizeof(copy) - 1);
	memcpy(copy, text, len);
	copy[len] = '\0';
	*ret = (struct kb_status){0};
	name = find_line(copy, "Name:");
	tgid = find_line(copy, "Tgid:");
	pid = find_line(copy, "Pid:");
	ppid = find_line(copy, "PPid:");
	if (!name || !tgid || !pid || !ppid)
		return false;
	unescape_comm(name, ret->comm);
	ret->tgid = (pid_t)column(tgid, 0, NULL);
	ret->pid = (pid_t)column(pid, 0, NULL);
	ret->ppid = (pid_t)column(ppid, 0, NULL);
	ret->vtgid = column(find_line(copy, "NStgid:"), depth, NULL);
	ret->vpid = column(find_line(copy, "NSpid:"), depth, &ret->levels);
	if (ret->levels == 0 && depth == 0) {
		/* A kernel without pid namespaces. */
		ret->vtgid = (uint32_t)ret->tgid;
		ret->vpid = (uint32_t)ret->pid;
		ret->levels = 1;
	}
	return ret->tgid > 0 && ret->pid > 0;
}

static ssize_t read_at(int dir, const char *name, char *buf, size_t size)
{
	KB_CLOSE int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = read(fd, buf, size - 1);
	if (n >= 0)
		buf[n] = '\0';
	return n;
}

static bool read_status(pid_t pid, unsigned depth, struct kb_status *ret)
{
	char path[32], text[STATUS_MAX];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	n = read_at(AT_FDCWD, path, text, sizeof(text));
	return n > 0 && kb_status_parse(text, (size_t)n, depth, ret);
}

/* ---- The table --------------------------------------------------------------------------------
 */

static struct kb_thread **bucket(const struct kb_procs *procs, pid_t tid)
{
	return &procs->buckets[(uint32_t)tid % procs->n_buckets];
}

static struct kb_thread *lookup(const struct kb_procs *procs, pid_t tid)
{
	struct kb_thread *t = *bucket(procs, tid);

	while (t && t->tid != tid)
		t = t->hash_next;
	return t;
}

static void rehash(struct kb_procs *procs)
{
	struct kb_procs bigger = *procs;

	bigger.n_buckets = procs->n_buckets * 2;
	bigger.buckets = calloc(bigger.n_buckets, sizeof(*bigger.buckets));
	if (!bigger.buckets)
		return; /* chains get longer, nothing else */
	for (size_t i = 0; i < procs->n_buckets; i++) {
		struct kb_thread *t = procs->buckets[i], *next;

		for (; t; t = next) {
			next = t->hash_next;
			t->hash_next = *bucket(&bigger, t->tid);
			*bucket(&bigger, t->tid) = t;
		}
	}
	free(procs->buckets);
	procs->buckets = bigger.buckets;
	procs->n_buckets = bigger.n_buckets;
}

static void insert(struct kb_procs *procs, struct kb_thread *thread)
{
	if (procs->n_threads > procs->n_buckets)
		rehash(procs);
	thread->hash_next = *bucket(procs, thread->tid);
	*bucket(procs, thread->tid) = thread;
	procs->n_threads++;
}

static void unlink_thread(struct kb_procs *procs, struct kb_thread *thread)
{
	struct kb_thread **at = bucket(procs, thread->tid);

	while (*at && *at != thread)
		at = &(*at)->hash_next;
	if (*at) {
		*at = thread->hash_next;
		procs->n_threads--;
	}
}

void kb_procs_forget_threads(struct kb_procs *procs, struct kb_proc *proc)
{
	struct kb_thread *t = proc->leader.sibling, *next;

	for (; t; t = next) {
		next = t->sibling;
		unlink_thread(procs, t);
		free(t);
	}
	proc->leader.sibling = NULL;
}

void kb_procs_forget(struct kb_procs *procs, struct kb_proc *proc)
{
	kb_procs_forget_threads(procs, proc);
	unlink_thread(procs, &proc->leader);
	while (proc->execs) {
		struct kb_exec *next = proc->execs->next;

		free(proc->execs->held);
		free(proc->execs);
		proc->execs = next;
	}
	free(proc->interrupted);
	free(proc->tallies.items);
	kb_close(&proc->proc_fd);
	kb_close(&proc->pid_fd); /* leaves the epoll set by itself */
	free(proc);
}

/* ---- Acquaintance -----------------------------------------------------------------------------
 */

/* The number of a process in the session; 0 if it has none, or the kernel cannot say it. */
static uint32_t translate(const struct kb_procs *procs, pid_t pid)
{
	int number = procs->ns_fd >= 0 ? ioctl(procs->ns_fd, KB_NS_GET_TGID_IN_PIDNS, pid) : 0;

	return number > 0 ? (uint32_t)number : 0;
}

static uint32_t number_in_session(const struct kb_procs *procs, pid_t pid)
{
	struct kb_thread *known = lookup(procs, pid);
	struct kb_status status;
	uint32_t number;

	if (known)
		return known->proc->vpid;
	number = translate(procs, pid);
	if (number)
		return number;
	return pid > 0 && read_status(pid, procs->depth, &status) ? status.vtgid : 0;
}

/* A process that is looked at: what it says of itself, and what it is held by. */
struct meeting {
	struct kb_status status;
	int pid_fd, proc_fd;
};

static bool hold(struct kb_procs *procs, pid_t pid, struct meeting *m)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d", pid);
	if (m->pid_fd < 0)
		m->pid_fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (m->pid_fd >= 0)
		m->proc_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (m->proc_fd < 0)
		procs->exhausted |= errno == EMFILE || errno == ENFILE || errno == ENOMEM;
	return m->proc_fd >= 0;
}

/* What the status file says, without the file. False for a thread that leads no process, and where
 * the kernel is too old. */
static bool ask_kernel(struct kb_procs *procs, pid_t pid, struct meeting *m)
{
	struct kb_pidfd_info info = {.mask = KB_PIDFD_INFO_PID};
	struct kb_status *status = &m->status;
	char comm[KB_COMM_MAX + 2]; /* a line end and a zero more */
	ssize_t n;

	if (procs->ns_fd < 0)
		return false;
	m->pid_fd = (int)syscall(SYS_pidfd_open, pid, 0);
	status->vtgid = m->pid_fd >= 0 ? translate(procs, pid) : 0;
	if (!status->vtgid || ioctl(m->pid_fd, KB_PIDFD_GET_INFO, &info) < 0 ||
		!hold(procs, pid, m))
		return false;
	n = read_at(m->proc_fd, "comm", comm, sizeof(comm));
	if (n <= 0 || n > KB_COMM_MAX)
		return false;
	memcpy(status->comm, comm, (size_t)n - 1);
	status->comm[n - 1] = '\0';
	status->tgid = status->pid = pid;
	status->ppid = (pid_t)info.ppid;
	status->vpid = status->vtgid;
	return true;
}

static bool meet(struct kb_procs *procs, pid_t pid, struct meeting *m)
{
	*m = (struct meeting){.pid_fd = -1, .proc_fd = -1};
	return ask_kernel(procs, pid, m) || read_status(pid, procs->depth, &m->status);
}

static void part(struct meeting *m)
{
	kb_close(&m->pid_fd);
	kb_close(&m->proc_fd);
}

/* Takes over what it is held by. */
static struct kb_proc *create_proc(struct kb_procs *procs, struct meeting *m)
{
	const struct kb_status *status = &m->status;
	struct epoll_event event = {.events = EPOLLIN};
	struct kb_proc *proc;

	if (m->proc_fd < 0 && !hold(procs, status->tgid, m))
		return NULL;
	proc = calloc(1, sizeof(*proc));
	event.data.ptr = proc;
	if (!proc || epoll_ctl(procs->epoll_fd, EPOLL_CTL_ADD, m->pid_fd, &event) < 0) {
		procs->exhausted = true;
		free(proc);
		return NULL;
	}
	proc->leader = (struct kb_thread){.proc = proc, .tid = status->tgid, .vtid = status->vtgid};
	proc->vpid = status->vtgid;
	proc->ppid = status->ppid;
	proc->vppid = number_in_session(procs, status->ppid);
	proc->pid_fd = kb_steal_fd(&m->pid_fd);
	proc->proc_fd = kb_steal_fd(&m->proc_fd);
	memcpy(proc->comm, status->comm, sizeof(proc->comm));
	insert(procs, &proc->leader);
	return proc;
}

static void forget_some_threads(struct kb_procs *procs)
{
	if (procs->n_threads < THREADS_KEPT_MAX)
		return;
	for (size_t i = 0; i < procs->n_buckets; i++)
		for (struct kb_thread *t = procs->buckets[i]; t; t = t->hash_next)
			if (t == &t->proc->leader && t->sibling) {
				kb_procs_forget_threads(procs, t->proc);
			}
}

static struct kb_thread *create_thread(
	struct kb_procs *procs, struct kb_proc *proc, const struct kb_status *status)
{
	struct kb_thread *thread;

	forget_some_threads(procs);
	thread = calloc(1, sizeof(*thread));
	if (!thread) {
		procs->exhausted = true;
		return NULL;
	}
	*thread = (struct kb_thread){.proc = proc,
		.tid = status->pid,
		.vtid = status->vpid,
		.sibling = proc->leader.sibling};
	proc->leader.sibling = thread;
	insert(procs, thread);
	return thread;
}

struct kb_thread *kb_procs_enter(struct kb_procs *procs, pid_t tid)
{
	struct kb_thread *leader, *thread = NULL;
	struct kb_proc *proc;
	struct meeting m;

	if (tid <= 0)
		return NULL;
	if (meet(procs, tid, &m)) {
		leader = lookup(procs, m.status.tgid);
		proc = leader && leader == &leader->proc->leader ? leader->proc
								 : create_proc(procs, &m);
		if (proc)
			thread = m.status.pid == m.status.tgid
					 ? &proc->leader
					 : create_thread(procs, proc, &m.status);
	}
	part(&m);
	return thread;
}

struct kb_thread *kb_procs_find(struct kb_procs *procs, pid_t tid)
{
	struct kb_thread *thread = lookup(procs, tid);
	struct kb_thread **at;
	char path[32];

	if (!thread || thread == &thread->proc->leader)
		return thread;
	snprintf(path, sizeof(path), "task/%d", tid);
	if (faccessat(thread->proc->proc_fd, path, F_OK, 0) == 0)
		return thread;
	/* The thread is gone and its number belongs to somebody else. */
	for (at = &thread->proc->leader.sibling; *at != thread; at = &(*at)->sibling)
		;
	*at = thread->sibling;
	unlink_thread(procs, thread);
	free(thread);
	return NULL;
}

struct kb_proc *kb_procs_parent(struct kb_procs *procs, const struct kb_proc *proc)
{
	struct kb_thread *parent = lookup(procs, proc->ppid);

	return parent ? parent->proc : NULL;
}

/* ---- Children ---------------------------------------------------------------------------------
 */

bool kb_proc_single(const struct kb_proc *proc)
{
	struct stat st;

	/* Links of /proc/PID/task: itself, its parent, and one for each thread. */
	return fstatat(proc->proc_fd, "task", &st, 0) == 0 && st.st_nlink <= 3;
}

static void enter_child(struct kb_procs *procs, struct kb_proc *parent, pid_t pid)
{
	struct meeting m;

	if (lookup(procs, pid))
		return;
	/* The parent waits in its exit_group: who has it as parent is its child, not a stranger
	 * under a reused number. */
	if (meet(procs, pid, &m) && m.status.ppid == parent->leader.tid &&
		m.status.pid == m.status.tgid)
		create_proc(procs, &m);
	part(&m);
}

static void adopt_of_thread(struct kb_procs *procs, struct kb_proc *proc, const char *tid)
{
	KB_FREE char *word = NULL;
	char path[64], first;
	size_t size = 0;
	FILE *file;
	int fd;

	snprintf(path, sizeof(path), "task/%.20s/children", tid);
	fd = openat(proc->proc_fd, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	/* Most processes end without children. */
	file = pread(fd, &first, 1, 0) == 1 ? fdopen(fd, "re") : NULL;
	if (!file) {
		close(fd);
		return;
	}
	for (unsigned i = 0; i < CHILDREN_MAX && getdelim(&word, &size, ' ', file) > 0; i++)
		enter_child(procs, proc, (pid_t)strtol(word, NULL, 10));
	fclose(file);
}

void kb_procs_adopt(struct kb_procs *procs, struct kb_proc *proc)
{
	char name[16];
	struct dirent *entry;
	DIR *dir;
	int fd;

	if (kb_proc_single(proc)) {
		snprintf(name, sizeof(name), "%d", proc->leader.tid);
		adopt_of_thread(procs, proc, name);
		return;
	}
	fd = openat(proc->proc_fd, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd >= 0 ? fdopendir(fd) : NULL;
	if (!dir) {
		kb_close(&fd);
		return;
	}
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			adopt_of_thread(procs, proc, entry->d_name);
	closedir(dir);
}

/* ---- Ends -------------------------------------------------------------------------------------
 */

void kb_procs_reap(struct kb_procs *procs)
{
	struct epoll_event events[REAP_BATCH];
	int n;

	do {
		n = epoll_wait(procs->epoll_fd, events, REAP_BATCH, 0);
		for (int i = 0; i < n; i++) {
			struct kb_proc *proc = events[i].data.ptr;

			procs->died(proc, procs->arg);
			kb_procs_forget(procs, proc);
		}
	} while (n == REAP_BATCH);
}

/* The last number but one of /proc/PID/stat is the exit code, shown while the dead is unburied. */
static bool zombie_status(const struct kb_proc *proc, int *ret_status)
{
	char text[2048];
	ssize_t n = read_at(proc->proc_fd, "stat", text, sizeof(text));
	const char *at = n > 0 ? strrchr(text, ')') : NULL;
	char *last;

	if (!at || at[1] != ' ' || (at[2] != 'Z' && at[2] != 'X'))
		return false;
	last = strrchr(text, ' ');
	*ret_status = (int)strtol(last + 1, NULL, 10);
	return true;
}

bool kb_proc_status(const struct kb_proc *proc, int *ret_status)
{
	struct kb_pidfd_info info = {.mask = KB_PIDFD_INFO_EXIT};

	for (int round = 0; round < 2; round++) {
		/* Reaped: the pidfd remembers (6.15). Between both it may have been reaped. */
		if (ioctl(proc->pid_fd, KB_PIDFD_GET_INFO, &info) == 0 &&
			info.mask & KB_PIDFD_INFO_EXIT) {
			*ret_status = info.exit_code;
			return true;
		}
		info = (struct kb_pidfd_info){.mask = KB_PIDFD_INFO_EXIT};
		if (zombie_status(proc, ret_status))
			return true;
	}
	return false;
}

/* ---- Life -------------------------------------------------------------------------------------
 */

/* Stays -1 where the kernel cannot translate numbers: status files are read then. */
static void open_namespace(struct kb_procs *procs, pid_t pid)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/ns/pid", pid);
	procs->ns_fd = open(path, O_RDONLY | O_CLOEXEC);
	if (!translate(procs, pid))
		kb_close(&procs->ns_fd);
}

int kb_procs_init(struct kb_procs *procs, pid_t init_pid,
	void (*died)(struct kb_proc *proc, void *arg), void *arg, struct kb_err *err)
{
	struct kb_status status;

	*procs = (struct kb_procs){.epoll_fd = -1, .ns_fd = -1, .died = died, .arg = arg};
	if (init_pid > 0 && !read_status(init_pid, 0, &status))
		return kb_err_set(err, KB_ERR_NOTFOUND, "the session's first process is gone");
	procs->depth = init_pid > 0 ? status.levels - 1 : 0;
	open_namespace(procs, init_pid > 0 ? init_pid : getpid());
	procs->n_buckets = BUCKETS_FIRST;
	procs->buckets = calloc(procs->n_buckets, sizeof(*procs->buckets));
	if (!procs->buckets)
		return kb_err_nomem(err);
	procs->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (procs->epoll_fd < 0) {
		int r = kb_err_sys(err, errno, "an epoll set cannot be made");

		kb_procs_finish(procs);
		return r;
	}
	return 0;
}

void kb_procs_finish(struct kb_procs *procs)
{
	for (size_t i = 0; procs->buckets && i < procs->n_buckets; i++)
		while (procs->buckets[i])
			kb_procs_forget(procs, procs->buckets[i]->proc);
	free(procs->buckets);
	kb_close(&procs->epoll_fd);
	kb_close(&procs->ns_fd);
	procs->buckets = NULL;
}
