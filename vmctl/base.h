/* Bases as the machine code sees them. Internal to vmctl. */
#pragma once

#include "op.h"

#define KB_BASE_BOOT_MS 240000 /* a whole Debian under TCG, on a busy machine */

struct kb_base {
	char name[KB_NAME_MAX];
	unsigned generation;
	char dir[PATH_MAX];
	json_t *json;	     /* base.json */
	const json_t *words; /* within json */
	bool frozen;
};

/* What the network device has while it is a template; each fork is given its own. */
#define KB_TEMPLATE_MAC "02:00:00:00:00:01"

void kb_base_finish(struct kb_base *base);
/* The current generation of `name`; NULL: "default", or the only base there is. */
int kb_base_current(struct kb_vmctl *vm, const char *name, struct kb_base *ret, struct kb_err *err);
int kb_base_load(struct kb_vmctl *vm, const char *name, unsigned generation, struct kb_base *ret,
	struct kb_err *err);
/* The number behind bases/NAME/current; 0 when there is none. */
unsigned kb_base_generation(struct kb_vmctl *vm, const char *name);
/* Held by whoever changes a base. */
int kb_base_lock(struct kb_vmctl *vm, const char *name, int *ret, struct kb_err *err);
/* Boot it once and freeze it as its template. */
int kb_base_freeze_generation(struct kb_vmctl *vm, struct kb_base *base, struct kb_err *err);
/* Remove generations that are neither current nor any machine's. */
int kb_base_collect(struct kb_vmctl *vm, struct kb_err *err);
