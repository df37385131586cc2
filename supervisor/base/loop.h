/* The event loop: one explicit object per process, no globals. libevent stays behind loop.c.
 *
 * A source (fd, timer, signal) belongs to the loop's user and must be destroyed before the loop.
 * Destroying a source inside its own callback is allowed. Callbacks run to completion; none may
 * block. Timers count CLOCK_MONOTONIC milliseconds.
 */
#pragma once

#include <stdint.h>

#include "err.h"

struct kb_loop;
struct kb_source;

#define KB_IO_READ  1u
#define KB_IO_WRITE 2u

typedef void (*kb_io_fn)(int fd, unsigned events, void *arg);
typedef void (*kb_timer_fn)(void *arg);
typedef void (*kb_signal_fn)(int signo, void *arg);

int kb_loop_create(struct kb_loop **ret, struct kb_err *err);
void kb_loop_destroy(struct kb_loop *loop); /* NULL is fine */
/* Runs until kb_loop_stop() or until no source is left. */
int kb_loop_run(struct kb_loop *loop, struct kb_err *err);
/* Returns from kb_loop_run() after the callback that is running. */
void kb_loop_stop(struct kb_loop *loop);

/* Watch fd (not owned). events may be 0 at first. Level-triggered. */
int kb_loop_io(struct kb_loop *loop, int fd, unsigned events, kb_io_fn fn, void *arg,
	struct kb_source **ret, struct kb_err *err);
int kb_source_set_events(struct kb_source *source, unsigned events, struct kb_err *err);
/* A timer, disarmed. Arming again moves it. It fires once per arming. */
int kb_loop_timer(struct kb_loop *loop, kb_timer_fn fn, void *arg, struct kb_source **ret,
	struct kb_err *err);
int kb_source_arm(struct kb_source *source, int64_t msec, struct kb_err *err);
void kb_source_disarm(struct kb_source *source);
/* A signal, delivered on the loop. One loop per process may watch signals (libevent's rule). */
int kb_loop_signal(struct kb_loop *loop, int signo, kb_signal_fn fn, void *arg,
	struct kb_source **ret, struct kb_err *err);
void kb_source_destroy(struct kb_source *source); /* NULL is fine */
