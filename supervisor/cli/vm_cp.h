/* What the files of `kbsup vm cp` share: one connection, one request at a time, each waited for.
 *
 *	vm_cp.c		words, connection, progress
 *	vm_cp_put.c	from here to a machine
 *	vm_cp_get.c	from a machine to here, where nothing it names may lead out of the place
 */
#pragma once

#include "vm_ssh.h"

#define KB_CP_DEPTH_MAX 64
#define KB_CP_MODE	0777u /* what is kept of a mode: no set-id bits come out of a machine */

struct kb_cp {
	struct kb_cli *cli;
	struct kb_loop *loop;
	struct kb_ssh *ssh;
	struct kb_source *signals;
	bool ready, closed, cancelled;
	struct kb_err why; /* closed */
	/* The request that is waited for, and its answer. */
	bool answered;
	struct kb_err failed; /* code 0: it did not */
	struct kb_ssh_attrs attrs;
	char text[PATH_MAX];
	/* For people. */
	const char *name; /* of the file that is being copied */
	int64_t started, shown_at;
	bool shown;
	uint64_t files, bytes; /* done */
	unsigned skipped;
};

/* Turn the loop until the request that was just made is answered; r: what making it returned. */
int kb_cp_wait(struct kb_cp *cp, int r, struct kb_err *err);
int kb_cp_stat(struct kb_cp *cp, const char *path, bool follow, struct kb_err *err);
int kb_cp_chmod(struct kb_cp *cp, const char *path, unsigned mode, struct kb_err *err);
int kb_cp_mkdir(struct kb_cp *cp, const char *path, unsigned mode, struct kb_err *err);
int kb_cp_symlink(struct kb_cp *cp, const char *path, const char *target, struct kb_err *err);
int kb_cp_readlink(struct kb_cp *cp, const char *path, struct kb_err *err); /* into text */
/* The contents of fd to, or from, path; name is what people are shown. */
int kb_cp_contents(struct kb_cp *cp, bool put, int fd, const char *path, unsigned mode,
	const char *name, struct kb_err *err);
/* A line about something that is not copied. */
void kb_cp_skip(struct kb_cp *cp, const char *path, const char *why);

/* PATH/NAME, or just NAME; fresh memory. */
char *kb_cp_join(const char *path, const char *name);
/* What a copy of path is called in a directory; NULL: nothing, its contents go there. */
const char *kb_cp_base(const char *path, char ret[NAME_MAX + 1]);

int kb_cp_put(struct kb_cp *cp, const char *from, const char *to, struct kb_err *err);
int kb_cp_get(struct kb_cp *cp, const char *from, const char *to, struct kb_err *err);
