/* Records leave the collector here: introduced, counted, or held back. */
#include <string.h>
#include <sys/wait.h>

#include "collector.h"
#include "supervisor/base/util.h"

static struct kb_bytes bytes_of(const char *text)
{
	return (struct kb_bytes){.data = (const uint8_t *)text, .len = strlen(text)};
}

void kb_report(struct kb_notify *notify, struct kb_proc *proc, struct kb_record *record)
{
	/* The first record of a process says who it is. */
	if (!proc->introduced) {
		proc->introduced = true;
		if (!record->comm.data)
			record->comm = bytes_of(proc->comm);
		record->ppid = proc->vppid;
	}
	if (record->event == KB_EVENT_EXEC || record->event == KB_EVENT_EXIT)
		record->ppid = proc->vppid;
	notify->ops.record(record, notify->arg);
}

void kb_report_seen(struct kb_seen *seen)
{
	enum kb_record_level level = seen->judge.verdict.record;

	if (level == KB_RECORD_NONE ||
		(level == KB_RECORD_SUMMARY &&
			kb_tallies_count(&seen->proc->tallies, &seen->record)))
		return;
	kb_report(seen->notify, seen->proc, &seen->record);
}

/* ---- Interrupted calls ------------------------------------------------------------------------
 */

void kb_report_flush(struct kb_notify *notify, struct kb_proc *proc)
{
	struct kb_held *held = KB_STEAL(proc->interrupted);

	if (held)
		kb_report(notify, proc, &held->record);
	free(held);
}

void kb_report_interrupted(struct kb_seen *seen)
{
	struct kb_err err;

	if (seen->judge.verdict.record == KB_RECORD_NONE)
		return;
	kb_report_flush(seen->notify, seen->proc);
	seen->record.outcome = KB_OUTCOME_INTERRUPTED;
	memcpy(seen->record.args, seen->request->data.args, sizeof(seen->record.args));
	seen->proc->interrupted = kb_held_create(&seen->record);
	seen->proc->interrupted_tid = seen->thread->tid;
	if (!seen->proc->interrupted) {
		kb_err_nomem(&err);
		kb_collector_fail(seen->notify, &err);
	}
}

void kb_report_resumed(struct kb_seen *seen)
{
	struct kb_proc *proc = seen->proc;

	if (!proc->interrupted || proc->interrupted_tid != seen->thread->tid)
		return;
	/* The same call again from the same thread is the interrupted one, restarted. (There is a
	 * moment in which a signal wins over an answer that was already taken; then the call comes
	 * twice. Not with WAIT_KILLABLE_RECV, which every filter of ours has.) */
	if (proc->interrupted->record.syscall == seen->request->data.nr &&
		memcmp(proc->interrupted->record.args, seen->request->data.args,
			sizeof(seen->request->data.args)) == 0)
		free(KB_STEAL(proc->interrupted));
	else
		kb_report_flush(seen->notify, proc);
}

/* ---- The end of a process ---------------------------------------------------------------------
 */

static void report_tallies(struct kb_notify *notify, struct kb_proc *proc)
{
	struct kb_record record;

	for (uint32_t i = 0; i < proc->tallies.len; i++)
		if (kb_tally_record(&proc->tallies.items[i], KB_LANE_NOTIFY, proc->vpid, &record))
			kb_report(notify, proc, &record);
	proc->tallies.len = 0;
}

static void set_status(struct kb_record *record, int status)
{
	record->has_exit_code = true;
	record->outcome = KB_OUTCOME_OK;
	if (WIFSIGNALED(status)) {
		record->signal = (uint32_t)WTERMSIG(status);
		record->exit_code = 128 + WTERMSIG(status);
	} else {
		record->exit_code = WEXITSTATUS(status);
	}
}

void kb_report_end(struct kb_notify *notify, struct kb_proc *proc)
{
	struct kb_record record = {
		.time = (uint64_t)kb_now_real(),
		.event = KB_EVENT_EXIT,
		.lane = KB_LANE_NOTIFY,
		.pid = proc->vpid,
		.syscall = -1,
		.rule = KB_RULE_NONE,
		.trust = KB_TRUST_REGISTER,
		.outcome = KB_OUTCOME_UNKNOWN,
	};
	int status;

	kb_exec_abandon(notify, proc);
	kb_report_flush(notify, proc);
	report_tallies(notify, proc);
	if (notify->split)
		return;
	if (kb_proc_status(proc, &status)) {
		record.trust = KB_TRUST_KERNEL;
		set_status(&record, status);
	} else if (proc->has_exit_code) {
		set_status(&record, proc->exit_code << 8);
	}
	kb_report(notify, proc, &record);
}
