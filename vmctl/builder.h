/* A machine that lives only while a base is made: to be set up from inside, or to be frozen.
 * Internal to vmctl. */
#pragma once

#include "agent.h"
#include "monitor.h"

struct kb_builder {
	struct kb_vmctl *vm;
	const char *arch;
	const json_t *words;
	const char
		*base;	 /* directory with root.img, and vmlinuz and initrd if its disk boots not */
	const char *dir; /* in tmp; gets root.qcow2 (an overlay), qemu.log and, for `ram`, ram */
	const char *seed; /* a directory that it sees as a disk; NULL: none */
	bool ram;	  /* its memory is a file */
	bool isolated;
	/* While it runs: */
	struct kb_mon mon;
	struct kb_agent agent;
};

/* Boot it, and wait until its service answers. What its console showed last is in the tail when it
 * does not. Stop it in any case. */
int kb_builder_boot(struct kb_builder *b, const char *detail, int64_t wait_ms, struct kb_err *err);
/* Let it end now, without a word to what runs in it; an error unless it does. */
int kb_builder_quit(struct kb_builder *b, struct kb_err *err);
/* Whatever is left of it is killed. */
void kb_builder_stop(struct kb_builder *b);
