/* Encrypted disks on the command line, as far as other verbs need them. */
#pragma once

#include "args.h"
#include "passphrase.h"

/* The operand, or the disk that is meant without one: the setting `disk`, else "projects". */
int kb_disk_named(const struct kb_args *args, size_t at, char ret[KB_NAME_MAX], struct kb_err *err);

/* One disk into one machine that runs, asking for the passphrase when it is needed (and again when
 * it was wrong). fd is the value of --passphrase-fd or NULL. Says what was done. */
int kb_disk_give(
	struct kb_vm_cli *v, const struct kb_disk_attach *spec, const char *fd, struct kb_err *err);

struct kb_disk_start {
	const char *machine;
	const char *disk; /* the one that is configured or asked for, or NULL */
	bool must;	  /* asked for */
	const char *fd;	  /* of its passphrase, or NULL */
};

/* After a start: that disk, and those the machine had when it was last running. What cannot be
 * attached is said and no failure, because the machine runs; except for one that must be. */
int kb_disk_at_start(struct kb_vm_cli *v, const struct kb_disk_start *start, struct kb_err *err);
