/* The checks of kbsup doctor. Each tries the real thing and says what came of it. */
#pragma once

#include "cli.h"

enum kb_check_state { KB_CHECK_OK, KB_CHECK_WARNING, KB_CHECK_FAILED };

#define KB_CHECK_TEXT_MAX 512

struct kb_check {
	enum kb_check_state state;
	char detail[KB_CHECK_TEXT_MAX]; /* what was tried and what came of it */
	char fix[KB_CHECK_TEXT_MAX];	/* what to do; empty when nothing is to be done */
};

void kb_check_say(struct kb_check *check, enum kb_check_state state, const char *fmt, ...)
	KB_PRINTF(3, 4);
void kb_check_fix(struct kb_check *check, const char *fmt, ...) KB_PRINTF(2, 3);

/* probe_linux.c: the kernel's part. */
void kb_probe_namespaces(struct kb_check *check);
void kb_probe_seccomp(struct kb_check *check);
void kb_probe_landlock(struct kb_check *check);
