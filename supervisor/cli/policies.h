/* Where policies come from for this user, shared by the verbs that read them. */
#pragma once

#include "cli.h"
#include "policy/policy.h"
#include "registry.h"
#include "supervisor/base/dirs.h"

KB_DEFINE_CLEANUP(kb_diags_cleanup_, struct kb_diags, kb_diags_destroy);
KB_DEFINE_CLEANUP(kb_policy_cleanup_, struct kb_policy, kb_policy_destroy);
KB_DEFINE_CLEANUP(kb_bundle_cleanup_, struct kb_bundle, kb_bundle_destroy);
#define KB_DIAGS_CLEANUP  KB_CLEANUP(kb_diags_cleanup_)
#define KB_POLICY_CLEANUP KB_CLEANUP(kb_policy_cleanup_)
#define KB_BUNDLE_CLEANUP KB_CLEANUP(kb_bundle_cleanup_)

#define KB_BUNDLE_MAX (4u << 20) /* bytes of an encoded bundle; what a frame holds */

/* What the compiler is told of the user: points into itself, so it must not be copied. */
struct kb_policies {
	struct kb_dirs dirs;
	const char *search[2];
	char workspace[PATH_MAX];
	struct kb_registries registries; /* zero until kb_policies_look_up_hosts() */
	struct kb_policy_options options;
};

/* "." means the current directory, and each @group of hosts one name that never resolves. */
int kb_policies_init(struct kb_policies *policies, struct kb_err *err);
/* From now on @groups of hosts mean what they mean to a session. */
void kb_policies_look_up_hosts(struct kb_policies *policies);
/* Fine on a zeroed one. */
void kb_policies_finish(struct kb_policies *policies);
#define KB_POLICIES_CLEANUP KB_CLEANUP(kb_policies_finish)

/* A policy the user can name. */
struct kb_policy_entry {
	char *name;
	char *file; /* NULL: a preset */
};

struct kb_policy_list {
	struct kb_policy_entry *entries;
	size_t len;
};

/* The presets and, after them, NAME.policy of the configuration directory, by name. One of the
 * user's that has a preset's name is listed as both; it is the user's that is meant by the name. */
int kb_policy_list_read(
	struct kb_policy_list *list, const struct kb_policies *policies, struct kb_err *err);
void kb_policy_list_finish(struct kb_policy_list *list);
#define KB_POLICY_LIST_CLEANUP KB_CLEANUP(kb_policy_list_finish)

/* By name, the user's own before a preset, as for `extends`; NULL when there is none. */
const struct kb_policy_entry *kb_policy_list_find(
	const struct kb_policy_list *list, const char *name);
/* True for what is a file's name by the look of it, not a policy's. */
bool kb_policy_is_file(const char *name);
/* "there is no policy …, did you mean …" */
int kb_policy_unknown(const struct kb_policy_list *list, const char *name, struct kb_err *err);

/* Load a policy by name or file: what it says, without what it comes to. */
int kb_policies_load(const struct kb_policies *policies, const char *name_or_file,
	struct kb_policy **ret, struct kb_err *err);
/* Load, check and lower a policy by name or file. Mistakes in the text are rendered to stderr; the
 * error then says only how many. */
int kb_policies_compile(const struct kb_policies *policies, const char *name_or_file,
	struct kb_policy **ret, struct kb_buf *out, struct kb_err *err);
/* The same, parsed again: what can be asked of it. */
int kb_policies_bundle(const struct kb_policies *policies, const char *name_or_file,
	struct kb_bundle **ret, struct kb_err *err);
/* Render the mistakes to stderr; fills err with the one line that sums them up. */
int kb_policies_mistakes(const struct kb_diags *diags, const char *name, struct kb_err *err);
/* --arch, else this machine's. */
int kb_policies_arch(const struct kb_args *args, uint32_t *ret, struct kb_err *err);
