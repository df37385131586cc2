/* Talking to kbsup-machine inside a VM. Its answers are foreign bytes: bounded, parsed, and only
 * fixed fields are looked at. Internal to vmctl; the protocol is in guest/guest.h.
 */
#pragma once

#include "op.h"

#define KB_AGENT_LINE_MAX (2u << 20)

struct kb_agent {
	struct kb_vmctl *vm;
	int fd;
	struct kb_buf in;
	json_int_t next_id;
};

/* Connect to RUN/ID/machine.sock; the guest need not be there yet. */
int kb_agent_open(struct kb_vmctl *vm, const char *id, struct kb_agent *ret, struct kb_err *err);
void kb_agent_close(struct kb_agent *agent);
/* Say hello until the guest answers with the same nonce: what is sent before it opens its end is
 * lost, and what comes first may be an answer to somebody before us. */
int kb_agent_sync(struct kb_agent *agent, int64_t timeout_ms, struct kb_err *err);
/* request (consumed) gets its id; *ret (may be NULL) is the whole answer, a new reference. */
int kb_agent_call(struct kb_agent *agent, json_t *request, int64_t timeout_ms, json_t **ret,
	struct kb_err *err);

/* Run a command there as root; what it prints goes line by line to kb_op_output() under `step` as
 * it comes. An error, with its last line, unless it exits 0. */
int kb_agent_follow(struct kb_agent *agent, const char *step, const char *const *argv,
	int64_t timeout_ms, struct kb_err *err);
/* The bytes of a base64 text, with a NUL behind them; NULL: no memory. Nothing of what is
 * malformed.
 */
char *kb_agent_bytes(const char *base64, size_t *ret_len);

/* One line, for the client and for fuzzing: the answer to request `id`? Returns 1 and *ret if so, 0
 * for an answer to something else, a negative error for the guest's own error or malformed bytes.
 */
int kb_agent_parse(const char *line, size_t len, json_int_t id, json_t **ret, struct kb_err *err);
