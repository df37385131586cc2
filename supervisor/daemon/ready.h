/* The pipe over which a starting kbsupd tells its starter that it is there: one write, either
 * "ready" or "error\nCODE\nMESSAGE\nHINT". Closed without a word: it died. */
#pragma once

#include "supervisor/base/err.h"

#define KB_READY_MAX 2048

/* why NULL: ready. Best effort. */
void kb_ready_tell(int fd, const struct kb_err *why);
/* Waits at most timeout_ms. 0 when ready, else the error that was told. */
int kb_ready_wait(int fd, int timeout_ms, struct kb_err *err);
