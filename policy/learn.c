/* `policy learn`: the smallest policy that allows what was seen, on top of a base.
 *
 * What the base allows needs no rule. Of the rest, denied events become comments; paths become fs
 * and exec rules, first one per path, then per directory where enough of its entries were used, as
 * long as the directory is not, and does not contain, a place that must never be given as a whole
 * (tiers below); hosts become net rules by name; calls become syscall rules. A path in the
 * workspace is written relative to it, one in the home directory with ~.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/judge.h"
#include "policy/tally.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

#define TEXT_MAX     4400
#define LEARN_MEMORY (256u << 20)
#define COLLAPSE_MIN 3 /* entries of a directory that make it a rule */
#define DEPTH_MIN    2 /* components a learned directory has at least */

/* Never given as a whole, nor anything above them. */
static const char *const protected_places[] = {"~", "/etc", "/var", "/root", "/home", "/usr",
	"/opt", "/srv", "/mnt", "/media", "/run", "/proc", "/sys", "/dev", "/tmp", "/boot",
	"~/.config", "~/.local", "~/.local/share", "~/.cache", "~/.ssh", "~/.aws", "~/.gnupg",
	"~/.kube", "~/.config/gh", "~/.config/gcloud", "~/.docker", "~/.mozilla"};
/* Nothing in them is ever granted by learning: it is written down as a comment. */
static const char *const guarded_places[] = {"~/.ssh", "~/.aws", "~/.gnupg", "~/.kube",
	"~/.config/gh", "~/.config/gcloud", "~/.docker/config.json", "~/.netrc",
	"~/.git-credentials", "~/.password-store", "/etc/shadow", "/etc/gshadow", "/etc/sudoers"};

struct learner {
	const struct kb_learn_options *opts;
	const char *home, *workspace;
	struct kb_bundle *base;
	struct kb_arena arena;
	struct kb_tally paths;	/* bits: KB_FS_* */
	struct kb_tally hosts;	/* "connect host:443" */
	struct kb_tally calls;	/* names */
	struct kb_tally denied; /* texts */
	uint64_t *used;		/* by rule of the base: records it allowed */
	uint64_t records, covered, skipped;
};

/* ---- Looking --------------------------------------------------------------------------------- */

static bool in_place(const struct learner *ln, const char *place, const char *path, bool above)
{
	char full[TEXT_MAX];

	if (place[0] == '~')
		snprintf(full, sizeof(full), "%s%s", ln->home, place + 1);
	else
		snprintf(full, sizeof(full), "%s", place);
	return above ? kb_path_beneath(path, full) : kb_path_beneath(full, path);
}

static bool guarded(const struct learner *ln, const char *path)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(guarded_places); i++)
		if (in_place(ln, guarded_places[i], path, false))
			return true;
	return false;
}

static bool protected_(const struct learner *ln, const char *dir)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(protected_places); i++)
		if (in_place(ln, protected_places[i], dir, true))
			return true;
	return kb_path_beneath(dir, ln->workspace) && strcmp(dir, ln->workspace) != 0;
}

/* The question whose answer the base refused becomes a need. */
static void need(
	struct learner *ln, const struct kb_observed *seen, const struct kb_judgement *judgement)
{
	const struct kb_question *q = &judgement->question;
	uint64_t n = seen->count ? seen->count : 1;
	char text[TEXT_MAX];

	kb_observed_text(seen, q, text, sizeof(text));
	if (q->kind == KB_ASK_NET) {
		kb_tally_add(&ln->hosts, text, n, 0);
	} else if (q->kind == KB_ASK_CALL &&
		   kb_bundle_decide(ln->base, seen->arch ? seen->arch : kb_arch_native(),
			   seen->syscall, q->args)
				   .action != KB_ALLOW) {
		kb_tally_add(&ln->calls, kb_calls[q->call].name, n, 0);
	} else if (q->path && guarded(ln, q->path)) {
		kb_tally_add(&ln->denied, text, n, 0);
	} else if (q->path) {
		kb_tally_add(&ln->paths, q->path, n, q->access);
	}
}

static void look(struct learner *ln, const struct kb_observed *seen)
{
	uint64_t n = seen->count ? seen->count : 1;
	struct kb_judgement judgement;
	char text[TEXT_MAX];

	ln->records += n;
	kb_judge(ln->base, seen, &judgement);
	if (judgement.judged == KB_JUDGED_SKIP) {
		ln->skipped += n;
	} else if (seen->decision != KB_OBSERVED_ALLOWED) {
		kb_observed_text(seen, &judgement.question, text, sizeof(text));
		kb_tally_add(&ln->denied, text, n, 0);
	} else if (judgement.judged == KB_JUDGED_DENIED &&
		   !(seen->failed && judgement.verdict.by_default)) {
		need(ln, seen, &judgement);
	} else {
		ln->covered += n;
		if (judgement.question.path && judgement.question.access)
			judgement.verdict = kb_bundle_decide_path(
				ln->base, judgement.question.access, judgement.question.path);
		if (judgement.verdict.rule < ln->base->rules.len)
			ln->used[judgement.verdict.rule] += n;
	}
}

/* ---- Generalising ---------------------------------------------------------------------------- */

static size_t depth(const char *path)
{
	size_t n = 0;

	for (; *path; path++)
		n += *path == '/';
	return n;
}

static bool parent_of(const char *path, char *ret, size_t size)
{
	const char *slash = strrchr(path, '/');

	if (!slash || slash == path || (size_t)(slash - path) >= size)
		return false;
	memcpy(ret, path, (size_t)(slash - path));
	ret[slash - path] = '\0';
	return true;
}

/* Entries that a tree covers with at least their access go; returns how many are left out. */
static void drop_covered(struct kb_tally *tally, const struct kb_tally_entry *tree)
{
	size_t out = 0;

	for (size_t i = 0; i < tally->entries.len; i++) {
		struct kb_tally_entry *entry = tally->entries.items[i];

		if (entry != tree && kb_path_beneath(tree->text, entry->text) &&
			!(entry->bits & ~tree->bits))
			continue;
		tally->entries.items[out++] = entry;
	}
	tally->entries.len = out;
}

/* One round: directories with enough used entries of the same access become rules. True when any
 * did. Two levels are enough: what is spread wider should be seen by a person. */
static bool collapse(struct learner *ln)
{
	struct kb_tally dirs;
	bool any = false;

	if (kb_tally_init(&dirs, &ln->arena) < 0)
		return false;
	for (size_t i = 0; i < ln->paths.entries.len; i++) {
		const struct kb_tally_entry *entry = ln->paths.entries.items[i];
		char dir[TEXT_MAX];

		if (parent_of(entry->text, dir, sizeof(dir)) && depth(dir) >= DEPTH_MIN &&
			!protected_(ln, dir))
			kb_tally_add(&dirs, dir, 1, entry->bits);
	}
	for (size_t i = 0; i < dirs.entries.len; i++) {
		const struct kb_tally_entry *dir = dirs.entries.items[i];
		struct kb_tally_entry *made;

		if (dir->count < COLLAPSE_MIN)
			continue;
		made = kb_tally_add(&ln->paths, dir->text, 0, dir->bits);
		if (!made)
			continue;
		any = true;
		drop_covered(&ln->paths, made);
	}
	return any;
}

/* ---- Writing --------------------------------------------------------------------------------- */

/* A path as a policy writes it, escaped for a string of the language. */
static void policy_path(const struct learner *ln, const char *path, char *to, size_t size)
{
	const char *prefix = "";
	size_t len = 0;

	if (kb_path_beneath(ln->workspace, path) && path[strlen(ln->workspace)]) {
		path += strlen(ln->workspace) + 1;
		prefix = "./";
	} else if (kb_path_beneath(ln->home, path)) {
		path += strlen(ln->home);
		prefix = "~";
	}
	len = (size_t)snprintf(to, size, "%s", prefix);
	for (; *path && len + 5 < size; path++) {
		unsigned char c = (unsigned char)*path;

		if (c == '"' || c == '\\' || c < ' ' || c >= 0x7f || c == '*' || c == '?')
			len += (size_t)snprintf(to + len, size - len, "\\x%02x", c);
		else
			to[len++] = (char)c;
	}
	to[len] = '\0';
}

static int put_paths(struct learner *ln, unsigned access, const char *verb, struct kb_buf *out,
	struct kb_err *err)
{
	for (size_t i = 0; i < ln->paths.entries.len; i++) {
		const struct kb_tally_entry *entry = ln->paths.entries.items[i];
		char path[TEXT_MAX];
		int r;

		if (!(entry->bits & access) ||
			(access == KB_FS_READ && (entry->bits & KB_FS_WRITE)))
			continue;
		/* A name that would read as a pattern cannot be a rule. */
		if (kb_path_is_glob(entry->text))
			continue;
		policy_path(ln, entry->text, path, sizeof(path));
		r = kb_buf_printf(out, err, "    %s \"%s\" if-available\n", verb, path);
		if (r < 0)
			return r;
	}
	return 0;
}

static int put_hosts(struct learner *ln, struct kb_buf *out, struct kb_err *err)
{
	for (size_t i = 0; i < ln->hosts.entries.len; i++) {
		const char *text = ln->hosts.entries.items[i]->text;
		const char *target = strchr(text, ' ') + 1;
		char *safe KB_FREE = kb_escape_dup(target, strlen(target));
		bool v6 = strchr(target, ':') != strrchr(target, ':');
		const char *port = strrchr(target, ':');
		int r;

		if (!safe)
			return kb_err_nomem(err);
		if (v6)
			r = kb_buf_printf(out, err, "    net %.*s tcp \"[%.*s]%s\"\n",
				(int)(target - text - 1), text, (int)(port - target), target, port);
		else
			r = kb_buf_printf(out, err, "    net %.*s tcp \"%s\"\n",
				(int)(target - text - 1), text, safe);
		if (r < 0)
			return r;
	}
	return 0;
}

static int put_calls(struct learner *ln, struct kb_buf *out, struct kb_err *err)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < ln->calls.entries.len; i++)
		r = kb_buf_printf(out, err,
			"    syscall %s allow override reason \"used by the recorded session\"\n",
			ln->calls.entries.items[i]->text);
	return r;
}

static int put_denied(struct learner *ln, struct kb_buf *out, struct kb_err *err)
{
	int r = 0;

	if (ln->denied.entries.len)
		r = kb_buf_puts(out, "\n    # Denied, and still denied:\n", err);
	for (size_t i = 0; r >= 0 && i < ln->denied.entries.len; i++) {
		const struct kb_tally_entry *entry = ln->denied.entries.items[i];
		char *safe KB_FREE = kb_escape_dup(entry->text, strlen(entry->text));

		r = safe ? kb_buf_printf(out, err, "    #   %s   %llu ×\n", safe,
				   (unsigned long long)entry->count)
			 : kb_err_nomem(err);
	}
	return r;
}

static int write_policy(struct learner *ln, struct kb_buf *out, struct kb_err *err)
{
	const char *base = ln->opts->base ? ln->opts->base : "shell";
	int r = kb_buf_printf(out, err,
		"# Learned from %llu recorded events; %llu of them %s allows already.\n"
		"policy %s version 1 extends %s {\n",
		(unsigned long long)ln->records, (unsigned long long)ln->covered, base,
		ln->opts->name, base);

	if (r >= 0)
		r = put_paths(ln, KB_FS_READ, "fs read", out, err);
	if (r >= 0)
		r = put_paths(ln, KB_FS_WRITE, "fs write", out, err);
	if (r >= 0)
		r = put_paths(ln, KB_FS_EXEC, "exec allow", out, err);
	if (r >= 0)
		r = put_hosts(ln, out, err);
	if (r >= 0)
		r = put_calls(ln, out, err);
	if (r >= 0)
		r = put_denied(ln, out, err);
	return r < 0 ? r : kb_buf_puts(out, "}\n", err);
}

static int write_report(struct learner *ln, struct kb_buf *out, struct kb_err *err)
{
	int r = kb_buf_puts(out, "used      rule\n", err);

	for (size_t i = 0; r >= 0 && i < ln->base->rules.len; i++) {
		const struct kb_rule *rule = &ln->base->rules.items[i];
		char *text KB_FREE = kb_escape_dup(rule->text, strlen(rule->text));

		if (rule->action != KB_ALLOW)
			continue;
		if (!text)
			return kb_err_nomem(err);
		if (ln->used[i])
			r = kb_buf_printf(out, err, "%-9llu %.*s  %s\n",
				(unsigned long long)ln->used[i], (int)strcspn(rule->id, "#"),
				rule->id, text);
		else if (!strncmp(text, "fs ", 3) || !strncmp(text, "exec ", 5) ||
			 !strncmp(text, "net ", 4))
			r = kb_buf_printf(out, err, "never     %.*s  %s\n",
				(int)strcspn(rule->id, "#"), rule->id, text);
	}
	return r;
}

/* ---- All ------------------------------------------------------------------------------------- */

static int load_base(struct learner *ln, struct kb_err *err)
{
	const char *name = ln->opts->base ? ln->opts->base : "shell";
	struct kb_diags *diags = kb_diags_create();
	struct kb_policy *policy = NULL;
	struct kb_buf encoded;
	int r;

	if (!diags)
		return kb_err_nomem(err);
	kb_buf_init(&encoded, KB_BUNDLE_BYTES_MAX);
	r = kb_policy_load(name, ln->opts->policy, &policy, diags, err);
	if (r >= 0)
		r = kb_policy_lower(policy, ln->opts->policy, &encoded, diags, err);
	if (r >= 0)
		r = kb_bundle_parse(kb_buf_data(&encoded), kb_buf_len(&encoded), &ln->base, err);
	kb_buf_finish(&encoded);
	kb_policy_destroy(policy);
	kb_diags_destroy(diags);
	return r;
}

static int start(struct learner *ln, struct kb_err *err)
{
	struct kb_tally *const tallies[] = {&ln->paths, &ln->hosts, &ln->calls, &ln->denied};
	int r = load_base(ln, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < KB_ARRAY_LEN(tallies); i++)
		if (kb_tally_init(tallies[i], &ln->arena) < 0)
			return kb_err_nomem(err);
	ln->used = kb_arena_alloc(&ln->arena, (ln->base->rules.len + 1) * sizeof(*ln->used));
	return ln->used ? 0 : kb_err_nomem(err);
}

int kb_policy_learn(const struct kb_observed_source *source, const struct kb_learn_options *options,
	struct kb_buf *policy, struct kb_buf *report, struct kb_err *err)
{
	struct learner ln = {.opts = options,
		.home = kb_option_home(options->policy),
		.workspace = kb_option_workspace(options->policy)};
	int r;

	if (!kb_name_valid(options->name))
		return kb_err_set(
			err, KB_ERR_USAGE, "'%s' cannot be a policy's name", options->name);
	kb_arena_init(&ln.arena, LEARN_MEMORY);
	r = start(&ln, err);
	while (r >= 0) {
		struct kb_observed seen = {.syscall = -1};

		r = source->next(source->arg, &seen, err);
		if (r <= 0)
			break;
		look(&ln, &seen);
	}
	if (r >= 0 && collapse(&ln))
		collapse(&ln);
	if (r >= 0)
		r = write_policy(&ln, policy, err);
	if (r >= 0 && report)
		r = write_report(&ln, report, err);
	kb_bundle_destroy(ln.base);
	kb_arena_finish(&ln.arena);
	return r;
}
