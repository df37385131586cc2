#include "process.h"

#include "filter.h"

#include <string.h>

#include "supervisor/base/util.h"

#define SLOTS	  4096u /* power of two */
#define ENDED_MAX 4096u /* ended processes that are remembered for records that come late */

struct kb_processes {
	struct kb_process *slots[SLOTS];
	struct kb_process *last; /* of the record before: mostly the same one */
	struct kb_process *ended[ENDED_MAX];
	uint64_t n_ended;
};

struct kb_image *kb_image_ref(struct kb_image *image)
{
	image->refs++;
	return image;
}

void kb_image_unref(struct kb_image *image)
{
	if (image && --image->refs == 0)
		free(image);
}

struct kb_process *kb_process_ref(struct kb_process *proc)
{
	proc->refs++;
	return proc;
}

void kb_process_unref(struct kb_process *proc)
{
	struct kb_process *parent;

	/* A loop, not recursion: chains of parents can be long. */
	for (; proc && --proc->refs == 0; proc = parent) {
		parent = proc->parent;
		kb_image_unref(proc->image);
		free(proc);
	}
}

struct kb_processes *kb_processes_create(void)
{
	return calloc(1, sizeof(struct kb_processes));
}

void kb_processes_clear(struct kb_processes *procs)
{
	struct kb_process *proc, *next;

	for (size_t i = 0; i < SLOTS; i++) {
		for (proc = procs->slots[i]; proc; proc = next) {
			next = proc->next;
			kb_process_unref(proc);
		}
	}
	memset(procs, 0, sizeof(*procs));
}

void kb_processes_destroy(struct kb_processes *procs)
{
	if (!procs)
		return;
	kb_processes_clear(procs);
	free(procs);
}

static struct kb_process *find(struct kb_processes *procs, uint32_t pid)
{
	struct kb_process *proc = procs->last;

	if (proc && proc->pid == pid)
		return proc;
	for (proc = procs->slots[pid & (SLOTS - 1)]; proc && proc->pid != pid; proc = proc->next)
		;
	return proc;
}

static void forget(struct kb_processes *procs, struct kb_process *proc)
{
	struct kb_process **at = &procs->slots[proc->pid & (SLOTS - 1)];

	while (*at && *at != proc)
		at = &(*at)->next;
	if (!*at)
		return;
	*at = proc->next;
	if (procs->last == proc)
		procs->last = NULL;
	for (uint64_t i = procs->n_ended > ENDED_MAX ? procs->n_ended - ENDED_MAX : 0;
		proc->exited && i < procs->n_ended; i++)
		if (procs->ended[i % ENDED_MAX] == proc)
			procs->ended[i % ENDED_MAX] = NULL;
	kb_process_unref(proc);
}

static struct kb_process *add(struct kb_processes *procs, const struct kb_record *record)
{
	struct kb_process *proc = calloc(1, sizeof(*proc));
	struct kb_process *parent = record->ppid ? find(procs, record->ppid) : NULL;
	struct kb_process **slot = &procs->slots[record->pid & (SLOTS - 1)];

	if (!proc)
		return NULL;
	proc->refs = 1;
	proc->pid = record->pid;
	proc->ppid = record->ppid;
	proc->started = record->time;
	if (parent && parent->pid != proc->pid) {
		proc->parent = kb_process_ref(parent);
		if (parent->image)
			proc->image = kb_image_ref(parent->image);
		proc->image_seq = parent->image_seq;
		proc->comm_len = parent->comm_len;
		memcpy(proc->comm, parent->comm, sizeof(proc->comm));
	}
	proc->next = *slot;
	*slot = proc;
	return proc;
}

struct kb_image *kb_image_create(const struct kb_record *record, uint64_t seq)
{
	struct kb_bytes exe = record->exe.data ? record->exe : record->path, *argv;
	size_t size = sizeof(struct kb_image) + record->argc * sizeof(*argv) + exe.len;
	struct kb_image *image;
	uint8_t *p;

	for (size_t i = 0; i < record->argc; i++)
		size += record->argv[i].len;
	image = malloc(size);
	if (!image)
		return NULL;
	argv = (struct kb_bytes *)(image + 1);
	p = (uint8_t *)(argv + record->argc);
	*image = (struct kb_image){.refs = 1, .seq = seq, .argv = argv, .argc = record->argc};
	if (exe.data)
		image->exe = (struct kb_bytes){memcpy(p, exe.data, exe.len), exe.len};
	p += exe.len;
	for (size_t i = 0; i < record->argc; i++) {
		argv[i] = (struct kb_bytes){p, record->argv[i].len};
		if (record->argv[i].len)
			memcpy(p, record->argv[i].data, record->argv[i].len);
		p += record->argv[i].len;
	}
	return image;
}

static void set_comm(struct kb_process *proc, struct kb_bytes comm)
{
	proc->comm_len = (uint8_t)KB_MIN(comm.len, KB_COMM_MAX);
	if (proc->comm_len)
		memcpy(proc->comm, comm.data, proc->comm_len);
}

static struct kb_bytes base_name(struct kb_bytes path)
{
	size_t at = path.len;

	while (at > 0 && path.data[at - 1] != '/')
		at--;
	return (struct kb_bytes){path.data ? path.data + at : NULL, path.len - at};
}

bool kb_exec_took_place(const struct kb_record *record)
{
	return record->event == KB_EVENT_EXEC && record->decision == KB_DECISION_ALLOWED &&
	       record->outcome != KB_OUTCOME_FAILED && record->outcome != KB_OUTCOME_INTERRUPTED;
}

static int take_exec(
	struct kb_process *proc, const struct kb_record *record, uint64_t seq, struct kb_err *err)
{
	struct kb_image *image = kb_image_create(record, seq);

	if (!image)
		return kb_err_nomem(err);
	kb_image_unref(proc->image);
	proc->image = image;
	proc->image_seq = seq;
	proc->execs++;
	if (!record->comm.data)
		set_comm(proc, base_name(image->exe));
	return 0;
}

static void take_exit(
	struct kb_processes *procs, struct kb_process *proc, const struct kb_record *record)
{
	struct kb_process **place = &procs->ended[procs->n_ended % ENDED_MAX], *old = *place;

	if (proc->exited)
		return;
	if (old)
		forget(procs, old);
	proc->exited = true;
	proc->ended = record->time;
	proc->exit_code = record->exit_code;
	proc->signal = record->signal;
	*place = proc;
	procs->n_ended++;
}

int kb_processes_update(struct kb_processes *procs, const struct kb_record *record, uint64_t seq,
	struct kb_process **ret, struct kb_err *err)
{
	struct kb_process *proc;
	int r = 0;

	*ret = NULL;
	if (!record->pid)
		return 0;
	proc = find(procs, record->pid);
	/* The pid of an ended process: a late record of it, or (it names its parent) a new one. */
	if (proc && proc->exited && record->ppid && record->event != KB_EVENT_EXIT) {
		forget(procs, proc);
		proc = NULL;
	}
	if (!proc && !(proc = add(procs, record)))
		return kb_err_nomem(err);
	procs->last = proc;
	if (kb_exec_took_place(record))
		r = take_exec(proc, record, seq, err);
	if (record->comm.data && (record->event != KB_EVENT_EXEC || kb_exec_took_place(record)))
		set_comm(proc, record->comm);
	if (record->event == KB_EVENT_EXIT)
		take_exit(procs, proc, record);
	*ret = proc;
	return r;
}

struct kb_process *kb_processes_find(struct kb_processes *procs, uint32_t pid)
{
	return pid ? find(procs, pid) : NULL;
}

struct kb_filter_proc kb_process_brief(const struct kb_process *proc)
{
	struct kb_filter_proc brief = {.pid = proc->pid,
		.ppid = proc->ppid,
		.started = proc->started,
		.image_seq = proc->image_seq,
		.exited = proc->exited,
		.comm_len = proc->comm_len};

	memcpy(brief.comm, proc->comm, proc->comm_len);
	return brief;
}

/* Seeded bytes may be wrong: a chain of parents must not close on itself. */
static bool is_above(const struct kb_process *proc, const struct kb_process *other)
{
	for (; other; other = other->parent)
		if (other == proc)
			return true;
	return false;
}

static struct kb_process *create_seeded(
	struct kb_processes *procs, const struct kb_filter_proc *brief)
{
	struct kb_process *proc, **slot = &procs->slots[brief->pid & (SLOTS - 1)];

	proc = calloc(1, sizeof(*proc));
	if (!proc)
		return NULL;
	proc->refs = 1;
	proc->pid = brief->pid;
	proc->ppid = brief->ppid;
	proc->started = brief->started;
	proc->image_seq = brief->image_seq;
	proc->exited = brief->exited;
	proc->comm_len = (uint8_t)KB_MIN(brief->comm_len, KB_COMM_MAX);
	memcpy(proc->comm, brief->comm, proc->comm_len);
	if (!brief->former) {
		proc->refs++; /* the table's */
		proc->next = *slot;
		*slot = proc;
	}
	return proc;
}

int kb_processes_seed(
	struct kb_processes *procs, const struct kb_filter *filter, struct kb_err *err)
{
	uint32_t n = filter->head.n_procs, parent;
	struct kb_process **made = calloc((size_t)n + 1, sizeof(*made));
	struct kb_filter_proc brief;
	bool ok = made != NULL;

	kb_processes_clear(procs);
	for (uint32_t i = 0; i < n && ok; i++) {
		brief = kb_filter_process(filter, i);
		made[i] = create_seeded(procs, &brief);
		ok = made[i] != NULL;
	}
	for (uint32_t i = 0; i < n && ok; i++) {
		parent = kb_filter_process(filter, i).parent;
		if (parent && parent <= n && !is_above(made[i], made[parent - 1]))
			made[i]->parent = kb_process_ref(made[parent - 1]);
	}
	for (uint32_t i = 0; made && i < n; i++)
		kb_process_unref(made[i]);
	free(made);
	return ok ? 0 : kb_err_nomem(err);
}
