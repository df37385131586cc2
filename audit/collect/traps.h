/* What each system call means: its event and where its arguments are. One row per call. */
#pragma once

#include <stdint.h>

#include "audit/audit.h"

/* How a call is read. */
enum kb_shape {
	KB_SHAPE_PLAIN,	   /* registers only */
	KB_SHAPE_PATH,	   /* one path, or two */
	KB_SHAPE_FD,	   /* the path of a descriptor */
	KB_SHAPE_EXEC,	   /* path and argument vector */
	KB_SHAPE_EXIT,	   /* this thread, or the whole group */
	KB_SHAPE_SOCKADDR, /* address and length in arguments */
	KB_SHAPE_MSGHDR,   /* address in a struct msghdr */
};

/* Traits of the path arguments. */
#define KB_TRAP_NOFOLLOW     0x001u /* never follows the last component */
#define KB_TRAP_AT_NOFOLLOW  0x002u /* unless AT_SYMLINK_NOFOLLOW is in the flags */
#define KB_TRAP_AT_FOLLOW    0x004u /* only with AT_SYMLINK_FOLLOW in the flags */
#define KB_TRAP_AT_EMPTY     0x008u /* AT_EMPTY_PATH in the flags allows an empty path */
#define KB_TRAP_CREATES	     0x010u /* the (last) path need not exist */
#define KB_TRAP_OPEN_FLAGS   0x020u /* flags are those of open */
#define KB_TRAP_HOW	     0x040u /* flags and mode are in a struct open_how */
#define KB_TRAP_TARGET	     0x080u /* the second path is the text of a link, not a file */
#define KB_TRAP_PROBES	     0x100u /* looks but does not touch: Landlock lets it */
#define KB_TRAP_GROUP	     0x200u /* exit: of all threads */
#define KB_TRAP_NULL_IS_DIR  0x400u /* a NULL path means the descriptor itself */
#define KB_TRAP_DETACHES_DIR 0x800u /* AT_REMOVEDIR in the flags makes it a rmdir */

/* An argument's place; 0 is "none", so that rows only say what they have. */
#define KB_ARG(n) ((n) + 1)

struct kb_trap {
	const char *name;
	enum kb_event event;
	enum kb_shape shape;
	uint8_t dirfd, path, dirfd2, path2, flags, mode; /* KB_ARG(n) */
	uint8_t argv;	 /* exec: the vector; sockaddr: the length */
	uint8_t signal;	 /* kill and its kin */
	unsigned access; /* KB_FS_* for path; open works it out from its flags */
	unsigned access2;
	unsigned traits;
};

#define KB_TRAP_NUMBERS 1024 /* numbers past it are read as plain */

/* Fills by_number for an architecture; numbers without a row stay NULL. */
void kb_traps_index(uint32_t arch, const struct kb_trap *by_number[KB_TRAP_NUMBERS]);
/* All rows, for tests. */
const struct kb_trap *kb_traps(size_t *ret_count);
