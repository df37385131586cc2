/* Private to audit/: the processes of a session, rebuilt from its records as they are scanned.
 *
 * Records carry a pid only. A process begins with its first record (which has its ppid), runs the
 * program of its last exec (or its parent's, until its own first exec) and ends with its exit
 * record; after that its pid may come again as another process. Its parent is the one that made
 * it, also after that one has ended.
 */
#pragma once

#include "audit/audit.h"

/* A program with its arguments, shared by a process and the children that have not exec'd. */
struct kb_image {
	unsigned refs;
	uint64_t seq; /* of the exec record */
	struct kb_bytes exe;
	const struct kb_bytes *argv;
	size_t argc;
};

struct kb_image *kb_image_ref(struct kb_image *image);
void kb_image_unref(struct kb_image *image); /* NULL is fine */

#define KB_COMM_MAX 16

struct kb_process {
	unsigned refs;
	uint32_t pid, ppid;
	struct kb_process *parent; /* referenced; NULL: not known */
	struct kb_process *next;   /* in its slot of the table */
	struct kb_image *image;	   /* referenced; NULL: not known, or not loaded yet */
	uint64_t image_seq;	   /* of its exec record; 0: none known */
	uint64_t started, ended;   /* ns since the epoch; of the first and of the exit record */
	uint32_t execs;
	uint8_t comm[KB_COMM_MAX];
	uint8_t comm_len;
	bool exited;
	int32_t exit_code;
	uint32_t signal;
	void *user; /* for whoever scans; starts NULL */
};
struct kb_process *kb_process_ref(struct kb_process *proc);
void kb_process_unref(struct kb_process *proc); /* NULL is fine */
static inline struct kb_bytes kb_process_comm(const struct kb_process *proc)
{
	return (struct kb_bytes){proc->comm, proc->comm_len};
}

struct kb_processes;
struct kb_processes *kb_processes_create(void); /* NULL: out of memory */
void kb_processes_destroy(struct kb_processes *procs);
void kb_processes_clear(struct kb_processes *procs);
/* Account for a record and give its process in *ret (NULL when it has none); the table owns it. */
int kb_processes_update(struct kb_processes *procs, const struct kb_record *record, uint64_t seq,
	struct kb_process **ret, struct kb_err *err);
/* True when an exec record says that the program was (or may have been) replaced. */
bool kb_exec_took_place(const struct kb_record *record);
/* The process that has this pid now, or had it last; NULL when unknown. */
struct kb_process *kb_processes_find(struct kb_processes *procs, uint32_t pid);

/* A process in brief, for the index of a block; and, from such an index, the processes as they were
 * before it: with image_seq, and no image until somebody loads it. */
struct kb_filter;
struct kb_filter_proc;
struct kb_filter_proc kb_process_brief(const struct kb_process *proc);
int kb_processes_seed(
	struct kb_processes *procs, const struct kb_filter *filter, struct kb_err *err);
/* The image that an exec record made. NULL: out of memory. */
struct kb_image *kb_image_create(const struct kb_record *record, uint64_t seq);
