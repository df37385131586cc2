/* What the policy says of one call: of its registers first, then of the files and addresses it
 * names. Shared by the lanes. */
#pragma once

#include "audit/audit.h"
#include "resolve.h"

struct kb_judge {
	const struct kb_bundle *bundle;
	const struct kb_resolver *resolver;
	const struct kb_caller *caller;
	bool probes;  /* looks but does not touch: Landlock lets it */
	bool relayed; /* connections out are decided elsewhere, and recorded there */
	bool binds;   /* an address is listened on, not connected to */
	struct kb_verdict verdict;
	int answer; /* 0: left to the kernel; else the errno a rule has for it */
};

/* Starts with the registers. */
void kb_judge_call(struct kb_judge *judge, uint32_t arch, int nr, const uint64_t args[6]);
/* Adds what the path rules say of one path. creates: it need not be there yet. */
void kb_judge_path(
	struct kb_judge *judge, unsigned access, const struct kb_resolved *path, bool creates);
/* The same for a socket address of a connect, bind or send. */
void kb_judge_address(struct kb_judge *judge, const uint8_t *address, size_t len);
