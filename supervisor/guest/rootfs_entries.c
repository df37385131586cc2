/* What a session's root directory is made of: the policy's mounts, and what the guest adds. */
#include "supervisor/guest/rootfs_private.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/base/str.h"
#include "supervisor/base/util.h"
#include "supervisor/guest/glob.h"
#include "supervisor/guest/trust.h"

static const struct {
	const char *path;
	mode_t mode;
} private_dirs[] = {
	{"/tmp", 01777},
	{"/var/tmp", 01777},
	{"/dev/shm", 01777},
	{"/run", 0755},
};

/* ---- Paths ----------------------------------------------------------------------------------- */

bool kb_rootfs_path_below(const char *path, const char *top)
{
	size_t len = strlen(top);

	return strncmp(path, top, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

static unsigned path_depth(const char *path)
{
	unsigned depth = 0;

	for (const char *p = path; *p; p++)
		if (*p == '/' && p[1] != '\0' && p[1] != '/')
			depth++;
	return depth;
}

/* Absolute, no empty, "." or ".." component, no slash at the end. */
static bool path_normal(const char *path)
{
	if (path[0] != '/' || path[1] == '\0' || strlen(path) >= PATH_MAX)
		return false;
	for (const char *p = path; *p;) {
		size_t len = strcspn(++p, "/");

		if (len == 0 || (len == 1 && p[0] == '.') || (len == 2 && memcmp(p, "..", 2) == 0))
			return false;
		p += len;
	}
	return true;
}

int kb_rootfs_path_error(struct kb_err *err, int errnum, const struct kb_entry *e, const char *path,
	const char *what)
{
	char shown[256];

	kb_escape(shown, sizeof(shown), path, strlen(path));
	if (e && e->rule)
		return kb_err_sys(err, errnum, "%s %s (%s)", shown, what, e->rule);
	return kb_err_sys(err, errnum, "%s %s", shown, what);
}

/* ---- Collecting the entries ------------------------------------------------------------------ */

static int add_entry(struct kb_build *b, const struct kb_entry *e, struct kb_err *err)
{
	if (!path_normal(e->path))
		return kb_rootfs_path_error(
			err, EINVAL, e, e->path, "is not a plain absolute path");
	for (size_t i = 0; i < b->n_entries; i++) {
		struct kb_entry *old = &b->entries[i];

		if (strcmp(old->path, e->path) != 0)
			continue;
		if (e->vague < old->vague || (e->vague == old->vague && e->kind >= old->kind)) {
			*old = *e;
			old->depth = path_depth(e->path);
		}
		return 0;
	}
	if (b->n_entries == KB_ROOTFS_ENTRIES_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "the policy has more than %d mounts",
			KB_ROOTFS_ENTRIES_MAX);
	b->entries[b->n_entries] = *e;
	b->entries[b->n_entries++].depth = path_depth(e->path);
	return 0;
}

/* Made by the runtime, after us. */
bool kb_rootfs_is_kernels(const char *path)
{
	return kb_rootfs_path_below(path, "/sys") || kb_rootfs_path_below(path, "/proc") ||
	       kb_rootfs_path_below(path, "/dev");
}

/* /proc, /dev, /sys and what is generated of /etc are the guest's business. */
static bool is_own_path(struct kb_build *b, const struct kb_mount *m)
{
	if (kb_rootfs_path_below(m->path, "/sys"))
		b->out->sysfs = true;
	return kb_rootfs_is_kernels(m->path) ||
	       (m->kind == KB_MOUNT_PRIVATE && strcmp(m->path, "/etc") == 0);
}

struct match {
	struct kb_build *b;
	struct kb_entry entry;
};

/* Matched paths live as long as the build. */
static int add_match(const char *path, void *arg, struct kb_err *err)
{
	struct match *m = arg;
	struct kb_build *b = m->b;
	char *copy;
	char **grown;

	if (b->n_matches == KB_ROOTFS_ENTRIES_MAX)
		return kb_err_set(err, KB_ERR_LIMIT,
			"a pattern of the policy (%s) matches more than %d paths",
			m->entry.rule ? m->entry.rule : "", KB_ROOTFS_ENTRIES_MAX);
	grown = reallocarray(b->matches, b->n_matches + 1, sizeof(*grown));
	if (!grown)
		return kb_err_nomem(err);
	b->matches = grown;
	copy = strdup(path);
	if (!copy)
		return kb_err_nomem(err);
	b->matches[b->n_matches++] = copy;
	m->entry.path = copy;
	return add_entry(b, &m->entry, err);
}

static int add_pattern(struct kb_build *b, const struct kb_entry *e, struct kb_err *err)
{
	struct match m = {.b = b, .entry = *e};

	return kb_glob_walk(e->path, add_match, &m, err);
}

static int add_policy_mounts(struct kb_build *b, struct kb_err *err)
{
	static const enum kb_entry_kind kinds[] = {
		[KB_MOUNT_READ] = KB_ENTRY_READ,
		[KB_MOUNT_WRITE] = KB_ENTRY_WRITE,
		[KB_MOUNT_HIDE] = KB_ENTRY_HIDE,
		[KB_MOUNT_PRIVATE] = KB_ENTRY_PRIVATE,
	};
	const struct kb_mount *mounts;
	const struct kb_rule *rules;
	size_t n = kb_bundle_mounts(b->spec->bundle, &mounts);
	size_t n_rules = kb_bundle_rules(b->spec->bundle, &rules);
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		const struct kb_mount *m = &mounts[i];
		struct kb_entry e = {.kind = m->keep ? KB_ENTRY_KEEP : kinds[m->kind],
			.path = m->path,
			.mode = 0755,
			.optional = m->optional,
			.vague = m->pin	   ? KB_ENTRY_PINNED
				 : m->glob ? KB_ENTRY_MATCHED
					   : KB_ENTRY_NAMED,
			.rule = m->rule < n_rules ? rules[m->rule].id : NULL};

		if (m->glob)
			r = add_pattern(b, &e, err);
		else if (!is_own_path(b, m))
			r = add_entry(b, &e, err);
	}
	return r;
}

static int check_workspace(const struct kb_rootfs_spec *spec, struct kb_err *err)
{
	static const char *const kernel[] = {"/proc", "/sys", "/dev"};

	if (!path_normal(spec->workspace))
		return kb_rootfs_path_error(
			err, EINVAL, NULL, spec->workspace, "cannot be the workspace");
	for (size_t i = 0; i < KB_ARRAY_LEN(kernel); i++)
		if (kb_rootfs_path_below(spec->workspace, kernel[i]))
			return kb_rootfs_path_error(
				err, EINVAL, NULL, spec->workspace, "cannot be the workspace");
	if (strcmp(spec->workspace, spec->home) == 0) {
		kb_err_set(err, KB_ERR_REFUSED,
			"the home directory itself cannot be the workspace: the session has a "
			"private one in its place");
		return kb_err_hint(err, "choose a project directory (--workspace DIR)");
	}
	for (const char *const *h = spec->hidden; h && *h; h++)
		if (kb_rootfs_path_below(spec->workspace, *h)) {
			kb_err_set(err, KB_ERR_REFUSED,
				"the workspace lies in one of kbsup's own directories");
			return kb_err_hint(err, "choose a project directory (--workspace DIR)");
		}
	return 0;
}

static int add_own_entries(struct kb_build *b, struct kb_err *err)
{
	const struct kb_rootfs_spec *s = b->spec;
	struct kb_entry home = {.kind = KB_ENTRY_PRIVATE, .path = s->home, .mode = 0700};
	int r = 0;

	for (size_t i = 0; i < KB_ARRAY_LEN(private_dirs) && r == 0; i++) {
		struct kb_entry e = {.kind = KB_ENTRY_PRIVATE,
			.path = private_dirs[i].path,
			.mode = private_dirs[i].mode};

		r = add_entry(b, &e, err);
	}
	if (r == 0)
		r = add_entry(b, &home, err);
	for (const char *const *h = s->hidden; h && *h && r == 0; h++) {
		struct kb_entry e = {.kind = KB_ENTRY_HIDE, .path = *h};

		if (kb_rootfs_path_below(*h, s->workspace))
			r = add_entry(b, &e, err);
	}
	return r;
}

/* Our own files where programs look for them. */
static int add_again(struct kb_build *b, struct kb_err *err)
{
	struct kb_entry facts = {
		.kind = KB_ENTRY_AGAIN, .path = b->spec->context, .source = KB_ROOTFS_FACTS};
	int r = facts.path ? add_entry(b, &facts, err) : 0;

	for (size_t i = 0; b->spec->trust && kb_trust_place(i) && r == 0; i++) {
		struct kb_entry trust = {.kind = KB_ENTRY_AGAIN,
			.path = kb_trust_place(i),
			.source = KB_TRUST_BUNDLE,
			.optional = true};

		r = add_entry(b, &trust, err);
	}
	return r;
}

int kb_rootfs_collect(struct kb_build *b, struct kb_err *err)
{
	struct kb_entry init = {
		.kind = KB_ENTRY_INIT, .path = KB_ROOTFS_INIT, .source = b->spec->init};
	int r = add_entry(b, &init, err);

	if (r < 0 || !b->spec->bundle)
		return r;
	r = check_workspace(b->spec, err);
	/* The policy's word on a private directory's path replaces ours, by precedence. */
	if (r == 0)
		r = add_own_entries(b, err);
	if (r == 0)
		r = add_policy_mounts(b, err);
	return r < 0 ? r : add_again(b, err);
}
