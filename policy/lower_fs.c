/* Path rules to mounts, Landlock rules and the table the collector reads.
 *
 * What is enforced without a race: a path is inside only if something mounts it (read, write,
 * private); Landlock grants each tree the rights its rules give. Taking away inside a given tree is
 * a mount again, since Landlock only ever adds: an empty stand-in for what is hidden or denied, a
 * read-only mount for what is protected. A protected file's parent directories are mount points
 * too: otherwise renaming a parent would carry the protection away and make room for a new one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy/fs_items.h"
#include "policy/lower.h"
#include "supervisor/base/util.h"

/* LANDLOCK_ACCESS_FS_* (linux/landlock.h); older headers lack the last three. */
#define LL_EXECUTE     (1ull << 0)
#define LL_WRITE_FILE  (1ull << 1)
#define LL_READ_FILE   (1ull << 2)
#define LL_READ_DIR    (1ull << 3)
#define LL_REMOVE_DIR  (1ull << 4)
#define LL_REMOVE_FILE (1ull << 5)
#define LL_MAKE_DIR    (1ull << 7)
#define LL_MAKE_REG    (1ull << 8)
#define LL_MAKE_SOCK   (1ull << 9)
#define LL_MAKE_FIFO   (1ull << 10)
#define LL_MAKE_SYM    (1ull << 12)
#define LL_REFER       (1ull << 13)
#define LL_TRUNCATE    (1ull << 14)
#define LL_IOCTL_DEV   (1ull << 15)

#define LL_READ (LL_READ_FILE | LL_READ_DIR)
#define LL_WRITE                                                                                   \
	(LL_READ | LL_WRITE_FILE | LL_REMOVE_DIR | LL_REMOVE_FILE | LL_MAKE_DIR | LL_MAKE_REG |    \
		LL_MAKE_SOCK | LL_MAKE_FIFO | LL_MAKE_SYM | LL_REFER | LL_TRUNCATE)

/* What each role becomes. mount -1: none of its own. */
static const struct {
	int mount;
	uint64_t landlock;
	unsigned access; /* of the path rule */
} roles[] = {
	[KB_FS_ROLE_READ] = {KB_MOUNT_READ, LL_READ, KB_FS_READ},
	[KB_FS_ROLE_WRITE] = {KB_MOUNT_WRITE, LL_WRITE, KB_FS_READ | KB_FS_WRITE},
	[KB_FS_ROLE_PRIVATE] = {KB_MOUNT_PRIVATE, LL_WRITE, KB_FS_READ | KB_FS_WRITE},
	[KB_FS_ROLE_PRIVATE_READ] = {KB_MOUNT_PRIVATE, LL_READ, KB_FS_READ},
	[KB_FS_ROLE_KEEP] = {KB_MOUNT_PRIVATE, LL_WRITE, KB_FS_READ | KB_FS_WRITE},
	[KB_FS_ROLE_EXEC] = {-1, LL_EXECUTE, KB_FS_EXEC},
	[KB_FS_ROLE_PROTECT] = {KB_MOUNT_READ, 0, KB_FS_WRITE},
	[KB_FS_ROLE_EXEC_DENY] = {KB_MOUNT_HIDE, 0, KB_FS_EXEC},
	[KB_FS_ROLE_HIDE] = {KB_MOUNT_HIDE, 0, KB_FS_READ | KB_FS_WRITE | KB_FS_EXEC},
	[KB_FS_ROLE_DENY] = {KB_MOUNT_HIDE, 0, KB_FS_READ | KB_FS_WRITE | KB_FS_EXEC},
};

static bool gives_mount(const struct kb_fs_item *item)
{
	return !kb_fs_takes(item->role) && roles[item->role].mount >= 0 &&
	       !kb_fs_virtual(item->path);
}

/* The closest tree that brings this path inside, other than the item itself. */
static const struct kb_fs_item *container(
	const struct kb_fs_items *items, const struct kb_fs_item *of)
{
	const struct kb_fs_item *best = NULL;
	size_t prefix = strcspn(of->path, "*?");
	char dir[4096];

	if (prefix >= sizeof(dir))
		return NULL;
	memcpy(dir, of->path, prefix);
	dir[prefix] = '\0';
	for (size_t i = 0; i < items->len; i++) {
		const struct kb_fs_item *item = &items->items[i];

		if (item != of && gives_mount(item) && kb_path_beneath(item->path, dir) &&
			(!best || strlen(item->path) > strlen(best->path)))
			best = item;
	}
	return best;
}

/* Takes all of a path away. */
static bool takes_all(const struct kb_fs_item *item)
{
	return kb_fs_takes(item->role) && roles[item->role].mount == KB_MOUNT_HIDE &&
	       !item->stmt->observe;
}

/* Of two items of one path: does `item` make `of` void? */
static bool beats(const struct kb_fs_item *item, const struct kb_fs_item *of)
{
	bool both = roles[item->role].access & roles[of->role].access;

	if (kb_fs_takes(of->role))
		return !kb_fs_takes(item->role) && both && item->stmt->override_ &&
		       !of->stmt->override_;
	return takes_all(item) && (!of->stmt->override_ || item->stmt->override_);
}

/* For one and the same path: an override beats what does not override, else what takes away beats
 * what gives. What is beaten has no mount and no right. */
static bool overruled(const struct kb_fs_items *items, const struct kb_fs_item *of)
{
	for (size_t i = 0; i < items->len; i++) {
		const struct kb_fs_item *item = &items->items[i];

		if (!item->glob && item->stmt != of->stmt && !strcmp(item->path, of->path) &&
			beats(item, of))
			return true;
	}
	return false;
}

static const char *keep(struct kb_lower *lo, const char *text, size_t len)
{
	return kb_arena_strndup(&lo->bundle->arena, text, len);
}

static int push_mount(struct kb_lower *lo, const struct kb_fs_item *item, enum kb_mount_kind kind,
	size_t path_len, bool optional)
{
	struct kb_mount *mount = KB_ARENA_PUSH(&lo->bundle->arena, &lo->bundle->mounts);

	if (!mount)
		return -1;
	*mount = (struct kb_mount){.kind = kind,
		.path = keep(lo, item->path, path_len),
		.rule = item->stmt->rule,
		.optional = optional,
		.glob = item->glob,
		.keep = item->role == KB_FS_ROLE_KEEP};
	return mount->path ? 0 : -1;
}

/* Make the directories between the workspace and a protected path mount points. */
static int pin_parents(
	struct kb_lower *lo, const struct kb_fs_item *item, const struct kb_fs_item *in)
{
	for (size_t at = strlen(in->path) + 1; item->path[at]; at++)
		if (item->path[at] == '/') {
			if (push_mount(lo, item, KB_MOUNT_WRITE, at, true) < 0)
				return -1;
			lo->bundle->mounts.items[lo->bundle->mounts.len - 1].pin = true;
		}
	return 0;
}

static int mount_taker(
	struct kb_lower *lo, const struct kb_fs_items *items, const struct kb_fs_item *item)
{
	const struct kb_fs_item *in = container(items, item);
	bool pin = item->role == KB_FS_ROLE_PROTECT || item->role == KB_FS_ROLE_HIDE;

	if (item->stmt->observe || !in)
		return 0;
	if (in->role == KB_FS_ROLE_READ || in->role == KB_FS_ROLE_WRITE) {
		if (item->role == KB_FS_ROLE_PROTECT && in->role == KB_FS_ROLE_READ)
			return 0;
	} else if (item->glob || pin || in->role == KB_FS_ROLE_PRIVATE_READ) {
		/* Nothing of the machine is there to be covered, nor can anything be made there. In
		 * a tree that the session writes, what is denied must not be made either. */
		return 0;
	}
	if (pin && !item->glob && in->role == KB_FS_ROLE_WRITE && pin_parents(lo, item, in) < 0)
		return -1;
	return push_mount(lo, item, roles[item->role].mount, strlen(item->path), true);
}

/* Written trees that are protected as a whole are mounted by what protects them. */
static bool is_protected(const struct kb_fs_items *items, const struct kb_fs_item *of)
{
	for (size_t i = 0; of->role == KB_FS_ROLE_WRITE && i < items->len; i++) {
		const struct kb_fs_item *item = &items->items[i];

		if (item->role == KB_FS_ROLE_PROTECT && !strcmp(item->path, of->path) &&
			(!of->stmt->override_ || item->stmt->override_))
			return true;
	}
	return false;
}

static int mount_giver(
	struct kb_lower *lo, const struct kb_fs_items *items, const struct kb_fs_item *item)
{
	const struct kb_fs_item *in;

	if (!gives_mount(item) || is_protected(items, item))
		return 0;
	in = container(items, item);
	/* Already inside with the same rights, or twice the same path (write includes read). */
	if (in && item->role == KB_FS_ROLE_READ && in->role == KB_FS_ROLE_READ &&
		(strcmp(in->path, item->path) != 0 || in < item))
		return 0;
	if (in && !strcmp(in->path, item->path) &&
		((in->role == KB_FS_ROLE_WRITE && item->role == KB_FS_ROLE_READ) ||
			(in->role == item->role && in < item)))
		return 0;
	return push_mount(lo, item, roles[item->role].mount, strlen(item->path),
		item->stmt->optional || item->role >= KB_FS_ROLE_PRIVATE);
}

static int lower_landlock(struct kb_lower *lo, const struct kb_fs_item *item)
{
	uint64_t access = roles[item->role].landlock;
	struct kb_landlock_rule *rule;

	if (!access)
		return 0;
	if (item->role == KB_FS_ROLE_PRIVATE && kb_path_beneath("/dev", item->path))
		access |= LL_IOCTL_DEV;
	rule = KB_ARENA_PUSH(&lo->bundle->arena, &lo->bundle->landlock);
	if (!rule)
		return -1;
	*rule = (struct kb_landlock_rule){.path = keep(lo, item->path, strlen(item->path)),
		.access = access,
		.rule = item->stmt->rule,
		.optional = item->stmt->optional};
	return rule->path ? 0 : -1;
}

static int errno_of(const struct kb_fs_item *item)
{
	bool taken = kb_fs_takes(item->role);

	if (!taken)
		return 0;
	return item->stmt->errnum ? item->stmt->errnum : EACCES;
}

static struct kb_path_rule *push_path_rule(struct kb_lower *lo, const struct kb_fs_item *item)
{
	struct kb_path_rule *rule = KB_ARENA_PUSH(&lo->bundle->arena, &lo->bundle->paths);

	if (!rule)
		return NULL;
	*rule = (struct kb_path_rule){
		.pattern = keep(lo, item->path, strlen(item->path)), .rule = item->stmt->rule};
	return rule->pattern ? rule : NULL;
}

static int lower_path_rule(struct kb_lower *lo, const struct kb_fs_item *item)
{
	struct kb_path_rule *rule = push_path_rule(lo, item);
	bool taken = kb_fs_takes(item->role);

	if (!rule)
		return -1;
	rule->access = roles[item->role].access;
	rule->action = taken ? KB_DENY : KB_ALLOW;
	rule->errnum = errno_of(item);
	rule->record =
		taken && item->stmt->action == KB_ALLOW ? KB_RECORD_SUMMARY : item->stmt->record;
	rule->at_start = taken && item->glob && !item->stmt->observe;
	rule->private_tree = (item->role >= KB_FS_ROLE_PRIVATE && item->role <= KB_FS_ROLE_KEEP) &&
			     !kb_fs_virtual(item->path);
	return 0;
}

/* What else speaks of writing there, most closely. */
static const struct kb_fs_item *closest_on_writing(
	const struct kb_fs_items *items, const struct kb_fs_item *of)
{
	const struct kb_fs_item *best = NULL;

	for (size_t i = 0; i < items->len; i++) {
		const struct kb_fs_item *item = &items->items[i];

		if (item != of && (roles[item->role].access & KB_FS_WRITE) &&
			kb_path_match(item->path, of->path) &&
			(!best || kb_path_weight(item->path) > kb_path_weight(best->path)))
			best = item;
	}
	return best;
}

/* What is given to read, in a tree that is given to write, is mounted read-only there: the more
 * specific path wins. */
static int lower_read_only(
	struct kb_lower *lo, const struct kb_fs_items *items, const struct kb_fs_item *item)
{
	const struct kb_fs_item *in;
	struct kb_path_rule *rule;

	if (!gives_mount(item) || (roles[item->role].access & KB_FS_WRITE))
		return 0;
	in = closest_on_writing(items, item);
	if (!in || kb_fs_takes(in->role) || !strcmp(in->path, item->path))
		return 0;
	rule = push_path_rule(lo, item);
	if (!rule)
		return -1;
	rule->access = KB_FS_WRITE;
	rule->action = KB_DENY;
	rule->errnum = EROFS;
	rule->record = KB_MAX(item->stmt->record, KB_RECORD_SUMMARY);
	return 0;
}

static int lower_default(struct kb_lower *lo)
{
	const struct kb_stmt *best = NULL;

	for (size_t i = 0; i < lo->policy->stmts.len; i++) {
		const struct kb_stmt *stmt = lo->policy->stmts.items[i];

		if (stmt->kind == KB_STMT_FS && stmt->verb == KB_VERB_DEFAULT &&
			(!best || stmt->level < best->level))
			best = stmt;
	}
	lo->bundle->path_default = (struct kb_verdict){.action = KB_DENY,
		.errnum = best ? best->errnum : EACCES,
		.record = best ? best->record : KB_RECORD_SUMMARY,
		.rule = best ? best->rule : KB_RULE_NONE,
		.by_default = true};
	return 0;
}

/* ---- Order ----------------------------------------------------------------------------------- */

static int compare_mounts(const void *pa, const void *pb)
{
	const struct kb_mount *a = pa, *b = pb;
	int r = strcmp(a->path, b->path);

	if (!r)
		r = (int)b->pin - (int)a->pin;
	return r ? r : (int)a->kind - (int)b->kind;
}

/* One mount for each path: none is a pin's where something else is mounted; then the kinds are
 * ordered so that what takes away comes last. */
static void drop_doubles(struct kb_bundle *bundle)
{
	size_t out = 0;

	for (size_t i = 0; i < bundle->mounts.len; i++) {
		struct kb_mount *mount = &bundle->mounts.items[i];
		struct kb_mount *prev = out ? &bundle->mounts.items[out - 1] : NULL;

		if (!prev || strcmp(prev->path, mount->path) != 0)
			bundle->mounts.items[out++] = *mount;
		else if (!mount->pin)
			*prev = *mount;
	}
	bundle->mounts.len = out;
}

struct ranked {
	struct kb_path_rule rule;
	unsigned weight, level;
	bool override_;
};

static int compare_ranked(const void *pa, const void *pb)
{
	const struct ranked *a = pa, *b = pb;

	if (a->weight != b->weight)
		return a->weight > b->weight ? -1 : 1;
	if (a->override_ != b->override_)
		return a->override_ ? -1 : 1;
	if (a->rule.action != b->rule.action)
		return a->rule.action == KB_DENY ? -1 : 1;
	if (a->level != b->level)
		return a->level < b->level ? -1 : 1;
	return a->rule.rule < b->rule.rule ? -1 : a->rule.rule > b->rule.rule;
}

static int sort_paths(struct kb_lower *lo)
{
	struct kb_bundle *bundle = lo->bundle;
	size_t n = bundle->paths.len;
	struct ranked *ranked = kb_arena_alloc(&lo->scratch, (n + 1) * sizeof(*ranked));

	if (!ranked)
		return -1;
	for (size_t i = 0; i < n; i++) {
		const struct kb_stmt *stmt = lo->policy->stmts.items[bundle->paths.items[i].rule];

		ranked[i].rule = bundle->paths.items[i];
		ranked[i].weight = kb_path_weight(ranked[i].rule.pattern);
		ranked[i].level = stmt->level;
		ranked[i].override_ = stmt->override_;
	}
	qsort(ranked, n, sizeof(*ranked), compare_ranked);
	for (size_t i = 0; i < n; i++)
		bundle->paths.items[i] = ranked[i].rule;
	return 0;
}

static int lower_mechanisms(
	struct kb_lower *lo, const struct kb_fs_items *items, const struct kb_fs_item *item)
{
	int r = kb_fs_takes(item->role) ? mount_taker(lo, items, item)
					: mount_giver(lo, items, item);

	return r < 0 ? r : lower_landlock(lo, item);
}

int kb_lower_fs(struct kb_lower *lo)
{
	struct kb_fs_items items = {0};

	if (kb_fs_collect(lo->policy, lo->opts, &lo->scratch, &items, lo->diags) < 0)
		return -1;
	kb_fs_check(&items, lo->opts, lo->diags);
	for (size_t i = 0; i < items.len; i++) {
		const struct kb_fs_item *item = &items.items[i];
		int r = 0;

		if (!overruled(&items, item))
			r = lower_mechanisms(lo, &items, item);
		if (r < 0 || lower_path_rule(lo, item) < 0 || lower_read_only(lo, &items, item) < 0)
			return -1;
	}
	if (lo->bundle->mounts.len)
		qsort(lo->bundle->mounts.items, lo->bundle->mounts.len,
			sizeof(*lo->bundle->mounts.items), compare_mounts);
	drop_doubles(lo->bundle);
	return sort_paths(lo) < 0 ? -1 : lower_default(lo);
}
