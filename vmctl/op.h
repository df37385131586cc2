/* What every operation stands on: waiting on the loop with a deadline and cancellation, progress,
 * running programs, JSON files. Internal to vmctl.
 */
#pragma once

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>

#include "supervisor/base/buf.h"
#include "supervisor/base/loop.h"
#include "supervisor/base/util.h"
#include "vmctl.h"

#define KB_OP_LINE_MAX 512

struct kb_vmctl {
	struct kb_loop *loop;
	struct kb_source *cancel, *timer;
	bool cancelled, expired;
	int shielded; /* > 0: cancellation waits, because something is being put back in order */
	char state[PATH_MAX], run[PATH_MAX];
	char machine_program[PATH_MAX], guest_program[PATH_MAX], init_program[PATH_MAX];
	char accel[16];
	void (*progress)(const char *step, const char *detail, void *arg);
	void (*output)(const char *step, const char *line, void *arg);
	void *arg;
	/* The last lines that programs printed in the current step, oldest first from tail_at on.
	 */
	char tail[KB_VM_TAIL_MAX][KB_OP_LINE_MAX];
	size_t tail_at, tail_n;
};

/* A step begins. Forgets what the programs of the one before printed. */
void kb_op_progress(struct kb_vmctl *vm, const char *step, const char *fmt, ...) KB_PRINTF(3, 4);
/* A program of this step printed a line. */
void kb_op_output(struct kb_vmctl *vm, const char *step, const char *line);

/* Cuts what programs print into lines of at most KB_OP_LINE_MAX - 1 bytes. */
struct kb_op_lines {
	struct kb_vmctl *vm;
	const char *step; /* NULL: only the last line is kept */
	char line[KB_OP_LINE_MAX], last[KB_OP_LINE_MAX];
	size_t len;
};
void kb_op_lines_take(struct kb_op_lines *lines, const char *data, size_t len);
/* What came without an end of line is one, too. */
void kb_op_lines_end(struct kb_op_lines *lines);

/* Run the loop until *done. Whoever sets *done calls kb_loop_stop(). KB_ERR_TIMEOUT names `what`;
 * a cancelled operation fails with KB_ERR_CLOSED. */
int kb_op_wait(struct kb_vmctl *vm, const bool *done, int64_t timeout_ms, const char *what,
	struct kb_err *err);
int kb_op_sleep(struct kb_vmctl *vm, int64_t msec, struct kb_err *err);

/* Run a program (found in PATH, with our environment) to its end, its output going line by line to
 * kb_op_output() under `step` when that is not NULL. An error quotes its last line. */
int kb_op_run(struct kb_vmctl *vm, const char *step, const char *const *argv, int64_t timeout_ms,
	struct kb_err *err);
/* The same with a standard input of its own; the caller closes it. */
int kb_op_run_input(struct kb_vmctl *vm, const char *step, const char *const *argv, int input,
	int64_t timeout_ms, struct kb_err *err);
/* The absolute path of a program in PATH. */
int kb_op_program(const char *name, char ret[PATH_MAX], const char *package, struct kb_err *err);

#define KB_OP_JSON_MAX (1u << 20)
int kb_json_load(const char *path, json_t **ret, struct kb_err *err);
int kb_json_save(const char *path, const json_t *json, struct kb_err *err);
/* Fields, with a default for what is missing or of another type. */
const char *kb_json_str(const json_t *json, const char *key, const char *fallback);
json_int_t kb_json_int(const json_t *json, const char *key, json_int_t fallback);

static inline void kb_json_decrefp(json_t **p)
{
	json_decref(*p);
}
#define KB_JSON KB_CLEANUP(kb_json_decrefp)
