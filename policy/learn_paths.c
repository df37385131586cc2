/* From single paths to rules.
 *
 * First every path is a rule of its own. Then, kind by kind (read, write, run), a directory of
 * which at least KB_LEARN_ENTRIES entries were used becomes one rule in their place, and once more,
 * so that a tree of small directories becomes one as well; what is spread wider should be seen by a
 * person. A directory is never taken that is too wide: one of the places below, or anything above
 * one of them. */
#include <stdio.h>
#include <string.h>

#include "policy/learn.h"
#include "supervisor/base/util.h"

#define ENTRIES	  3 /* of a directory that make it a rule */
#define ROUNDS	  2
#define DEPTH_MIN 2 /* components a learned directory has at least */
#define PLACE_MAX 4400

static const char *const wide_places[] = {"~", "/etc", "/var", "/root", "/home", "/usr", "/opt",
	"/srv", "/mnt", "/media", "/run", "/proc", "/sys", "/dev", "/tmp", "/boot", "/var/lib",
	"/var/tmp", "~/.config", "~/.local", "~/.local/share", "~/.cache", "~/.ssh", "~/.aws",
	"~/.gnupg", "~/.kube", "~/.config/gh", "~/.config/gcloud", "~/.docker", "~/.mozilla"};
static const char *const guarded_places[] = {"~/.ssh", "~/.aws", "~/.azure", "~/.gnupg", "~/.kube",
	"~/.config/gh", "~/.config/gcloud", "~/.docker/config.json", "~/.netrc",
	"~/.git-credentials", "~/.password-store", "~/.local/share/keyrings", "~/.mozilla",
	"~/.config/google-chrome", "/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/sudoers.d"};

static const char *place(const struct kb_learner *ln, const char *text, char ret[PLACE_MAX])
{
	if (text[0] != '~')
		return text;
	snprintf(ret, PLACE_MAX, "%s%s", ln->home, text + 1);
	return ret;
}

bool kb_learn_guarded(const struct kb_learner *ln, const char *path)
{
	char full[PLACE_MAX];

	for (size_t i = 0; i < KB_ARRAY_LEN(guarded_places); i++)
		if (kb_path_beneath(place(ln, guarded_places[i], full), path))
			return true;
	return false;
}

static size_t depth(const char *path)
{
	size_t n = 0;

	for (; *path; path++)
		n += *path == '/';
	return n;
}

bool kb_learn_too_wide(const struct kb_learner *ln, const char *dir)
{
	char full[PLACE_MAX];

	for (size_t i = 0; i < KB_ARRAY_LEN(wide_places); i++)
		if (kb_path_beneath(dir, place(ln, wide_places[i], full)))
			return true;
	for (size_t i = 0; i < KB_ARRAY_LEN(guarded_places); i++)
		if (kb_path_beneath(dir, place(ln, guarded_places[i], full)))
			return true;
	return !strcmp(dir, "/") ||
	       (kb_path_beneath(dir, ln->workspace) && strcmp(dir, ln->workspace) != 0);
}

bool kb_learn_parent(const char *path, char *ret, size_t size)
{
	const char *slash = strrchr(path, '/');

	if (!slash || slash == path || (size_t)(slash - path) >= size)
		return false;
	memcpy(ret, path, (size_t)(slash - path));
	ret[slash - path] = '\0';
	return true;
}

/* Is one of the directories above path among those that became rules? */
static bool has_rule_above(struct kb_tally *dirs, const char *path)
{
	char dir[KB_LEARN_TEXT_MAX], next[KB_LEARN_TEXT_MAX];
	const struct kb_tally_entry *entry;

	snprintf(dir, sizeof(dir), "%s", path);
	while (kb_learn_parent(dir, next, sizeof(next))) {
		memcpy(dir, next, strlen(next) + 1);
		entry = kb_tally_find(dirs, dir);
		if (entry && entry->count >= ENTRIES)
			return true;
	}
	return false;
}

/* Entries whose kind is given by a tree above them lose it; without any they go. */
static void drop_covered(struct kb_tally *paths, struct kb_tally *dirs, unsigned kind)
{
	size_t out = 0;

	for (size_t i = 0; i < paths->entries.len; i++) {
		struct kb_tally_entry *entry = paths->entries.items[i];

		if ((entry->bits & kind) && !(entry->bits & KB_NEED_OVERRIDE) &&
			has_rule_above(dirs, entry->text))
			entry->bits &= ~(kind == KB_FS_WRITE ? kind | KB_FS_READ : kind);
		if (entry->bits & (KB_FS_READ | KB_FS_WRITE | KB_FS_EXEC))
			paths->entries.items[out++] = entry;
	}
	paths->entries.len = out;
}

/* 1: some directories became rules. */
static int collapse(struct kb_learner *ln, unsigned kind)
{
	struct kb_tally dirs;
	size_t n = ln->paths.entries.len;
	int any = 0;

	if (kb_tally_init(&dirs, &ln->arena) < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		const struct kb_tally_entry *entry = ln->paths.entries.items[i];
		char dir[KB_LEARN_TEXT_MAX];

		if ((entry->bits & kind) && !(entry->bits & KB_NEED_OVERRIDE) &&
			kb_learn_parent(entry->text, dir, sizeof(dir)) && depth(dir) >= DEPTH_MIN &&
			!kb_learn_too_wide(ln, dir))
			kb_tally_add(&dirs, dir, 1, 0);
	}
	for (size_t i = 0; i < dirs.entries.len; i++)
		any |= dirs.entries.items[i]->count >= ENTRIES;
	if (!any)
		return 0;
	drop_covered(&ln->paths, &dirs, kind);
	for (size_t i = 0; i < dirs.entries.len; i++)
		if (dirs.entries.items[i]->count >= ENTRIES &&
			!has_rule_above(&dirs, dirs.entries.items[i]->text))
			kb_tally_put(&ln->paths, dirs.entries.items[i]->text, kind);
	return 1;
}

/* What the rules for the directories above path give. */
static unsigned given_above(const struct kb_learner *ln, const char *path)
{
	char dir[KB_LEARN_TEXT_MAX], next[KB_LEARN_TEXT_MAX];
	const struct kb_tally_entry *entry;
	unsigned ret = 0;

	snprintf(dir, sizeof(dir), "%s", path);
	while (kb_learn_parent(dir, next, sizeof(next))) {
		memcpy(dir, next, strlen(next) + 1);
		entry = kb_tally_find(&ln->paths, dir);
		if (entry && !(entry->bits & KB_NEED_OVERRIDE))
			ret |= entry->bits | (entry->bits & KB_FS_WRITE ? KB_FS_READ : 0);
	}
	return ret;
}

void kb_learn_prune(struct kb_learner *ln)
{
	size_t out = 0;

	for (size_t i = 0; i < ln->paths.entries.len; i++) {
		struct kb_tally_entry *entry = ln->paths.entries.items[i];

		if (!(entry->bits & KB_NEED_OVERRIDE))
			entry->bits &= ~given_above(ln, entry->text);
		if (entry->bits & (KB_FS_READ | KB_FS_WRITE | KB_FS_EXEC))
			ln->paths.entries.items[out++] = entry;
	}
	ln->paths.entries.len = out;
}

int kb_learn_generalise(struct kb_learner *ln)
{
	static const unsigned kinds[] = {KB_FS_WRITE, KB_FS_READ, KB_FS_EXEC};

	for (size_t i = 0; i < KB_ARRAY_LEN(kinds); i++)
		for (int round = 0, r = 1; r > 0 && round < ROUNDS; round++) {
			r = collapse(ln, kinds[i]);
			if (r < 0)
				return r;
		}
	return 0;
}
