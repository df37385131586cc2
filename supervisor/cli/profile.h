/* What `--agent NAME` means: a policy, and the command it runs. */
#pragma once

#include "policies.h"

struct kb_profile {
	struct kb_policy *loaded;	    /* keeps the strings below alive */
	const char *policy;		    /* name or file of the policy it runs under */
	const char *const *command;	    /* NULL-terminated; NULL: the user's shell */
	const char *package_kind, *package; /* where the command comes from; or NULL */
	const char *const *programs;	    /* what it needs besides; NULL-terminated, or NULL */
	const char *context;		    /* where it looks for what it is told; or NULL */
	bool described; /* an `agent` block says so; otherwise it is a bare policy */
};

/* By name; a policy without an agent block is an agent that runs the user's shell. */
int kb_profile_load(const struct kb_policies *policies, const char *agent, struct kb_profile *ret,
	struct kb_err *err);
/* The same for a list: mistakes in the policy's text are not shown. */
int kb_profile_peek(const struct kb_policies *policies, const char *agent, struct kb_profile *ret,
	struct kb_err *err);
void kb_profile_finish(struct kb_profile *profile);
#define KB_PROFILE_CLEANUP KB_CLEANUP(kb_profile_finish)
