/* The guest's directory in the runtime directory, and in it one directory for each session: an
 * empty place to mount on, and a lock that the session's process holds. A directory whose lock is
 * free belongs to nobody any more.
 */
#pragma once

#include "supervisor/base/err.h"

#define KB_STATEDIR_MOUNT "m"

/* Make dir (0700) and clean up after sessions that are gone: their directories and their control
 * groups. */
int kb_statedir_open(const char *dir, struct kb_err *err);
/* The cleaning up alone; cheap when there is nothing to do. */
void kb_statedir_sweep(const char *dir);
/* A new session's: makes DIR/NAME with the mount point in it, and locks it for the life of *ret_fd.
 */
int kb_statedir_claim(const char *dir, const char *name, int *ret_fd, struct kb_err *err);
/* Remove DIR/NAME and the control groups called NAME, if its lock is free. */
void kb_statedir_release(const char *dir, const char *name);
/* The same from within: by the process that holds the lock and has the mount, when nobody else is
 * left to do it. */
void kb_statedir_remove_own(const char *dir, const char *name);
