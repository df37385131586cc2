/* Shared by the policy tests. */
#pragma once

#include "policy/policy.h"
#include "tests/policy/bpf_interp.h"

extern const struct kb_policy_options test_options;

/* Compile text (or, with text NULL, the policy of that name) to a parsed bundle. On errors the
 * rendered diagnostics are in *ret_diags (free()), and NULL is returned. */
struct kb_bundle *test_compile(const char *text, const char *name, char **ret_diags);
struct kb_bundle *test_compile_with(const struct kb_policy_options *options, const char *text,
	const char *name, char **ret_diags);
/* What a program should return for a verdict. */
uint32_t test_expected(const struct kb_verdict *verdict, enum kb_emit_lane lane);
/* Emit, or fail the test. */
struct kb_program test_emit(const struct kb_bundle *bundle, uint32_t arch, enum kb_emit_lane lane);
/* A policy with the given rules and `default deny ENOSYS record none`; free() it. */
char *test_policy(const char *rules);
