/* Where kbsup keeps its files, by the XDG base directory specification:
 *
 *	runtime  $XDG_RUNTIME_DIR/kbsup, else /run/user/UID/kbsup where that is, else /run/kbsup for
 *		 root, else /tmp/kbsup-UID
 *	state    $XDG_STATE_HOME/kbsup, else ~/.local/state/kbsup; the audit store is in store/
 *	config   $XDG_CONFIG_HOME/kbsup, else ~/.config/kbsup
 *
 * All are made 0700 and must belong to us. */
#pragma once

#include <limits.h>

#include "err.h"

struct kb_dirs {
	char home[PATH_MAX];
	char runtime[PATH_MAX];
	char state[PATH_MAX];
	char config[PATH_MAX];
	char store[PATH_MAX];
	char socket[PATH_MAX]; /* the control socket: fits a sockaddr_un */
	char vm[PATH_MAX];     /* of machines: vmctl's state */
	char vm_run[PATH_MAX]; /* … and their sockets */
};

/* From the environment (variables must be absolute paths, others are ignored) and the user
 * database. Creates nothing. */
int kb_dirs_find(struct kb_dirs *ret, struct kb_err *err);
/* Make path, 0700, with its parents; one that is open to others is closed to them. Refuses
 * (KB_ERR_REFUSED) one that is a symbolic link or belongs to somebody else. */
int kb_dirs_make(const char *path, struct kb_err *err);
