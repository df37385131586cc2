/* Shared by the files of the lower pass. */
#pragma once

#include "policy/ast.h"
#include "policy/bundle.h"

struct kb_lower {
	struct kb_policy *policy;
	const struct kb_policy_options *opts;
	struct kb_bundle *bundle;
	struct kb_arena scratch;
	struct kb_diags *diags;
};

/* 0, or -1 when out of memory; mistakes are diagnosed. */
int kb_lower_fs(struct kb_lower *lo);
int kb_lower_net(struct kb_lower *lo);
int kb_lower_secrets(struct kb_lower *lo);

/* Shared with check. The statement must have its two operands. */
int kb_limit_parse(const struct kb_stmt *stmt, struct kb_limit *ret, struct kb_diags *diags);
/* One target of a net rule ("host:443", "10.0.0.0/8", loopback …): up to two rules, as loopback has
 * two families. Returns how many, or -1 after a diagnostic. */
#define KB_NET_PER_TARGET 2
int kb_net_parse(const struct kb_stmt *stmt, const struct kb_operand *target,
	struct kb_net_rule ret[KB_NET_PER_TARGET], struct kb_arena *arena, struct kb_diags *diags);
/* One endpoint of a secret ("host:port", "https://host", "http://127.0.0.1:8080"). 0, or -1 after a
 * diagnostic. */
int kb_endpoint_parse(const struct kb_stmt *stmt, const struct kb_operand *op,
	struct kb_endpoint *ret, struct kb_arena *arena, struct kb_diags *diags);
/* Everything about a secret that one statement shows; diagnosed. */
void kb_secret_check(const struct kb_policy *policy, const struct kb_stmt *stmt,
	struct kb_arena *scratch, struct kb_diags *diags);
