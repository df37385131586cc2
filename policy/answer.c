/* Answers: the emitted program is run, the mounts and Landlock rules are looked up the way the
 * kernel will, and the rules' own verdict stands beside them. */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "policy/ask.h"
#include "policy/fs_items.h"

/* ---- Paths ----------------------------------------------------------------------------------- */

#define LL_EXECUTE    (1ull << 0)
#define LL_WRITE_FILE (1ull << 1)
#define LL_READ_FILE  (1ull << 2)

/* Of mounts at one path: which is seen. */
static unsigned rank(const struct kb_mount *mount)
{
	return mount->pin ? 0 : mount->glob ? 1u + (mount->kind == KB_MOUNT_HIDE) : 3;
}

/* Deeper ones cover what is above them. */
static const struct kb_mount *deepest_mount(
	const struct kb_bundle *bundle, const char *path, size_t len)
{
	const struct kb_mount *best = NULL;
	size_t best_len = 0;

	for (size_t i = 0; i < bundle->mounts.len; i++) {
		const struct kb_mount *mount = &bundle->mounts.items[i];
		size_t at = bundle->mount_lens[i];

		if (!kb_len_beneath(mount->path, bundle->mount_lens[i], path, len))
			continue;
		if (mount->glob)
			at = kb_path_matched(mount->path, path);
		if (best && (at < best_len || (at == best_len && rank(mount) < rank(best))))
			continue;
		best = mount;
		best_len = at;
	}
	return best;
}

static uint64_t landlock_grants(const struct kb_bundle *bundle, const char *path, size_t path_len,
	uint64_t needed, uint32_t *ret_rule)
{
	uint64_t granted = 0;
	size_t longest = 0;

	*ret_rule = KB_RULE_NONE;
	for (size_t i = 0; i < bundle->landlock.len; i++) {
		const struct kb_landlock_rule *rule = &bundle->landlock.items[i];
		size_t len = bundle->landlock_lens[i];

		if (!kb_len_beneath(rule->path, bundle->landlock_lens[i], path, path_len))
			continue;
		granted |= rule->access;
		if ((rule->access & needed) && len >= longest) {
			longest = len;
			*ret_rule = rule->rule;
		}
	}
	return granted;
}

/* Is something given beneath the stand-in of a hidden directory? Then it can be looked into. */
static bool gives_beneath(const struct kb_bundle *bundle, const struct kb_mount *top)
{
	for (size_t i = 0; i < bundle->mounts.len; i++) {
		const struct kb_mount *mount = &bundle->mounts.items[i];

		if (mount->kind != KB_MOUNT_HIDE && !mount->glob && !top->glob &&
			strcmp(mount->path, top->path) != 0 &&
			kb_path_beneath(top->path, mount->path))
			return true;
	}
	return false;
}

/* What the mount alone answers: 0, or an errno. */
static int mount_errno(const struct kb_bundle *bundle, const struct kb_mech_path *mech,
	unsigned access, const char *path)
{
	const struct kb_mount *mount = mech->mount;

	if (mech->virtual_)
		return 0;
	if (!mount)
		return ENOENT;
	if (mount->kind == KB_MOUNT_HIDE && gives_beneath(bundle, mount))
		return access & KB_FS_WRITE ? EROFS : strcmp(path, mount->path) ? ENOENT : 0;
	if (mount->kind == KB_MOUNT_HIDE)
		return EACCES;
	if (mount->kind == KB_MOUNT_READ && (access & KB_FS_WRITE))
		return EROFS;
	return 0;
}

/* The session's root has the directories that lead to its mounts, and Landlock lets them be listed
 * (as it does every directory: it knows no rule for one alone). */
static bool leads_to_mount(const struct kb_bundle *bundle, const char *path)
{
	for (size_t i = 0; i < bundle->mounts.len; i++) {
		const char *mount = bundle->mounts.items[i].path;

		if (kb_path_beneath(path, mount) && strcmp(path, mount) != 0)
			return true;
	}
	return false;
}

struct kb_mech_path kb_mech_path(const struct kb_bundle *bundle, unsigned access, const char *path)
{
	struct kb_mech_path ret = {.virtual_ = kb_fs_virtual(path)};
	size_t len = strlen(path);

	ret.mount = deepest_mount(bundle, path, len);
	ret.needed = ((access & KB_FS_READ) ? LL_READ_FILE : 0) |
		     ((access & KB_FS_WRITE) ? LL_WRITE_FILE : 0) |
		     ((access & KB_FS_EXEC) ? LL_EXECUTE : 0);
	ret.granted = landlock_grants(bundle, path, len, ret.needed, &ret.landlock_rule);
	if (access == KB_FS_READ && !ret.mount && leads_to_mount(bundle, path)) {
		ret.virtual_ = true;
		ret.granted |= ret.needed;
	}
	ret.errnum = mount_errno(bundle, &ret, access, path);
	if (!ret.errnum && (ret.needed & ~ret.granted))
		ret.errnum = EACCES;
	ret.allowed = !ret.errnum;
	return ret;
}

/* ---- In all ---------------------------------------------------------------------------------- */

static struct kb_verdict net_verdict(const struct kb_bundle *bundle, const struct kb_question *q)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(q->port)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(q->port)};

	if (q->host)
		return kb_bundle_decide_host(bundle, q->direction, q->protocol, q->host, q->port);
	memcpy(&in.sin_addr, q->address, 4);
	memcpy(&in6.sin6_addr, q->address, 16);
	return q->address_len == 4 ? kb_bundle_decide_net(bundle, q->direction, q->protocol,
					     (struct sockaddr *)&in, sizeof(in))
				   : kb_bundle_decide_net(bundle, q->direction, q->protocol,
					     (struct sockaddr *)&in6, sizeof(in6));
}

void kb_answer(const struct kb_bundle *bundle, const struct kb_program *program, uint32_t arch,
	const struct kb_question *q, struct kb_answer *ret)
{
	*ret = (struct kb_answer){0};
	if (q->kind == KB_ASK_CALL) {
		int nr = kb_calls[q->call].nr[kb_arch_index(arch)];

		ret->has_call = true;
		ret->value = kb_program_run(program, arch, nr, q->args, &ret->insn);
		ret->call = kb_bundle_decide(bundle, arch, nr, q->args);
		ret->verdict = ret->call;
	}
	if (q->path && q->access && (!ret->has_call || ret->call.action == KB_ALLOW)) {
		ret->has_path = true;
		ret->path = kb_bundle_decide_path(bundle, q->access, q->path);
		ret->mech = kb_mech_path(bundle, q->access, q->path);
		ret->verdict = ret->path;
		/* The mechanism has the last word: what it refuses is denied. */
		if (ret->path.action == KB_ALLOW && !ret->mech.allowed) {
			ret->verdict = bundle->path_default;
			ret->verdict.errnum = ret->mech.errnum;
		}
	}
	if (q->kind == KB_ASK_NET) {
		ret->has_net = true;
		ret->verdict = ret->net = net_verdict(bundle, q);
	}
}
