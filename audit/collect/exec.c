/* Theory of operation.
 *
 * An exec is answered "go on" and its outcome is not told to us. It must be found out, because a
 * search along PATH tries many names and runs one, and because the program that really runs may be
 * an interpreter, or come from a descriptor.
 *
 * A program is recognised by its *signature*: the auxiliary vector the kernel made for it
 * (addresses of its stack, vdso, headers and loader, all randomised) and the 16 random bytes
 * AT_RANDOM points to, drawn anew by each exec. Taken before the answer and compared later:
 * changed, the exec happened; unchanged and the same thread calls again, it failed. The process
 * cannot change the vector, and writing the old random bytes over the new ones would have to happen
 * before the new program's first recorded call, by a program that does not know them.
 *
 * "Later" is whatever comes first: the next notification of the process (so that the record comes
 * before those of the new program), the first of a child it made, its exit_group, or a timer. A
 * process that is killed before any of these leaves the outcome unknown.
 *
 * In a process with several threads the one that execs becomes the leader and the others die.
 * Others may still call until then: only a call of the thread that asked proves its failure.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "collector.h"
#include "supervisor/base/util.h"

#define AUXV_MAX	1024
#define AT_RANDOM_TYPE	25
#define SETTLE_MSEC	20
#define SETTLE_MSEC_MAX 1000

static uint64_t hash(const uint64_t *words, size_t n)
{
	uint64_t h = 0x9e3779b97f4a7c15ull;

	for (size_t i = 0; i < n; i++) {
		h ^= words[i];
		h *= 0xff51afd7ed558ccdull;
		h ^= h >> 32;
	}
	return h;
}

static bool read_signature(const struct kb_proc *proc, pid_t tid, struct kb_signature *ret)
{
	uint64_t auxv[AUXV_MAX / sizeof(uint64_t)], random = 0;
	char name[32] = "auxv";
	KB_CLOSE int fd = -1;
	ssize_t n;

	/* A leader may have left while its threads go on. */
	if (tid != proc->leader.tid)
		snprintf(name, sizeof(name), "task/%d/auxv", tid);
	fd = openat(proc->proc_fd, name, O_RDONLY | O_CLOEXEC);
	n = fd >= 0 ? read(fd, auxv, sizeof(auxv)) : -1;
	if (n <= 0)
		return false;
	for (size_t i = 0; i + 1 < (size_t)n / sizeof(*auxv); i += 2)
		if (auxv[i] == AT_RANDOM_TYPE)
			random = auxv[i + 1];
	ret->layout = hash(auxv, (size_t)n / sizeof(*auxv));
	memset(ret->random, 0, sizeof(ret->random));
	ret->valid = kb_mem_read(tid, random, ret->random, sizeof(ret->random)) ==
		     (ssize_t)sizeof(ret->random);
	return ret->valid;
}

static bool same_program(const struct kb_signature *a, const struct kb_signature *b)
{
	return a->layout == b->layout && memcmp(a->random, b->random, sizeof(a->random)) == 0;
}

void kb_exec_prepare(struct kb_seen *seen)
{
	if (!seen->proc->signature.valid)
		read_signature(seen->proc, seen->thread->tid, &seen->proc->signature);
}

static void arm(struct kb_notify *notify, int64_t msec)
{
	notify->settle_msec = msec;
	kb_source_arm(notify->settle, msec, NULL);
}

void kb_exec_begin(struct kb_seen *seen, int expected)
{
	struct kb_notify *notify = seen->notify;
	struct kb_exec *exec = calloc(1, sizeof(*exec));
	struct kb_held *held = kb_held_create(&seen->record);
	struct kb_err err;

	if (!exec || !held) {
		free(exec);
		free(held);
		kb_err_nomem(&err);
		kb_collector_fail(notify, &err);
		return;
	}
	*exec = (struct kb_exec){.tid = seen->thread->tid,
		.expected = expected,
		.held = held,
		.next = seen->proc->execs};
	seen->proc->execs = exec;
	if (notify->n_execs++ == 0)
		arm(notify, SETTLE_MSEC);
}

static void release(
	struct kb_notify *notify, struct kb_proc *proc, struct kb_exec *exec, bool report)
{
	struct kb_exec **at = &proc->execs;

	while (*at != exec)
		at = &(*at)->next;
	*at = exec->next;
	notify->n_execs--;
	if (report)
		kb_report(notify, proc, &exec->held->record);
	free(exec->held);
	free(exec);
}

static void report_failed(struct kb_notify *notify, struct kb_proc *proc, struct kb_exec *exec)
{
	exec->held->record.outcome = KB_OUTCOME_FAILED;
	exec->held->record.errnum = exec->expected;
	release(notify, proc, exec, true);
}

static struct kb_bytes base_name(struct kb_bytes path)
{
	const uint8_t *slash = path.len ? memrchr(path.data, '/', path.len) : NULL;

	if (slash) {
		path.len -= (size_t)(slash + 1 - path.data);
		path.data = slash + 1;
	}
	path.len = KB_MIN(path.len, KB_COMM_MAX - 1);
	return path;
}

static void report_done(struct kb_notify *notify, struct kb_proc *proc, struct kb_exec *exec)
{
	struct kb_record *record = &exec->held->record;
	char exe[PATH_MAX];
	ssize_t n = readlinkat(proc->proc_fd, "exe", exe, sizeof(exe));

	if (n > 0)
		record->exe = (struct kb_bytes){.data = (uint8_t *)exe, .len = (size_t)n};
	record->comm = base_name(record->path_arg.data ? record->path_arg : record->path);
	memset(proc->comm, 0, sizeof(proc->comm));
	memcpy(proc->comm, record->comm.data ? (const char *)record->comm.data : "",
		record->comm.len);
	record->outcome = KB_OUTCOME_OK;
	record->has_result = true;
	release(notify, proc, exec, true);
}

/* The program has changed: which of the threads that asked for one got it? Almost always there is
 * one. Else the one that asked for what runs, or the last. */
static struct kb_exec *winner(const struct kb_proc *proc)
{
	char exe[PATH_MAX];
	ssize_t n = proc->execs->next ? readlinkat(proc->proc_fd, "exe", exe, sizeof(exe)) : 0;

	for (struct kb_exec *e = proc->execs; n > 0 && e; e = e->next)
		if (e->held->record.path.len == (size_t)n &&
			memcmp(e->held->record.path.data, exe, (size_t)n) == 0)
			return e;
	return proc->execs;
}

static void settle_changed(struct kb_notify *notify, struct kb_proc *proc)
{
	struct kb_exec *done = winner(proc);

	kb_report_flush(notify, proc);
	for (struct kb_exec *e = proc->execs, *next; e; e = next) {
		next = e->next;
		if (e == done)
			continue;
		e->held->record.outcome = KB_OUTCOME_INTERRUPTED;
		release(notify, proc, e, true);
	}
	report_done(notify, proc, done);
	kb_procs_forget_threads(&notify->procs, proc);
}

void kb_exec_settle(struct kb_notify *notify, struct kb_proc *proc, pid_t tid)
{
	struct kb_signature now = {0};

	if (!proc->execs || !read_signature(proc, tid ? tid : proc->leader.tid, &now))
		return;
	if (proc->signature.valid && same_program(&proc->signature, &now)) {
		for (struct kb_exec *e = proc->execs, *next; e; e = next) {
			next = e->next;
			if (e->tid == tid)
				report_failed(notify, proc, e);
		}
		return;
	}
	proc->signature = now;
	settle_changed(notify, proc);
}

void kb_exec_abandon(struct kb_notify *notify, struct kb_proc *proc)
{
	while (proc->execs)
		release(notify, proc, proc->execs, true);
}

void kb_exec_tick(void *arg)
{
	struct kb_notify *notify = arg;
	struct kb_procs *procs = &notify->procs;

	for (size_t i = 0; i < procs->n_buckets && notify->n_execs; i++)
		for (struct kb_thread *t = procs->buckets[i], *next; t; t = next) {
			next = t->hash_next;
			/* Only leaders: settling frees the other threads. */
			if (t == &t->proc->leader && t->proc->execs) {
				kb_exec_settle(notify, t->proc, 0);
				next = t->hash_next;
			}
		}
	if (notify->n_execs)
		arm(notify, KB_MIN(notify->settle_msec * 2, SETTLE_MSEC_MAX));
}
