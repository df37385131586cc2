/* QMP as an operation uses it: one question after the other, each waited for. Internal to vmctl. */
#pragma once

#include "files.h"
#include "op.h"
#include "qmp.h"

#define KB_MON_COMMAND_MS 5000

struct kb_mon {
	struct kb_vmctl *vm;
	struct kb_qmp *qmp;		     /* NULL when closed */
	int64_t limit_ms;		     /* for each call; 0: the client's own deadlines */
	char id[KB_VM_ID_SIZE * 2], name[8]; /* where it is connected to */
	bool again; /* it was lost before QEMU had greeted, and connected once more */
};

/* Connect to RUN/ID/NAME.sock ("qmp", which operations use under the machine's lock, or "spare",
 * for looking), retrying until the socket is there or, with pid > 0, that process has
 * ended (KB_ERR_CLOSED). */
int kb_mon_open(struct kb_vmctl *vm, const char *id, const char *name, pid_t pid,
	int64_t timeout_ms, struct kb_mon *ret, struct kb_err *err);
void kb_mon_close(struct kb_mon *mon);
/* args is consumed. *ret (may be NULL) is a new reference. */
int kb_mon_call(
	struct kb_mon *mon, const char *command, json_t *args, json_t **ret, struct kb_err *err);
int kb_mon_call_fd(
	struct kb_mon *mon, const char *command, json_t *args, int fd, struct kb_err *err);
/* query-status: its word, into ret ("running", "paused", "postmigrate", …). */
int kb_mon_status(struct kb_mon *mon, char ret[32], struct kb_err *err);
/* Wait until query-migrate says completed (or `other`, if not NULL). */
int kb_mon_migrated(struct kb_mon *mon, const char *other, int64_t timeout_ms, struct kb_err *err);
/* The human monitor, for the few things QMP lacks. Its answer is empty when it worked. */
int kb_mon_human(struct kb_mon *mon, struct kb_err *err, const char *fmt, ...) KB_PRINTF(3, 4);
