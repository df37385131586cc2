/* What was learned, as the text of a policy, and as JSON. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/learn.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

#define POLICY_MAX (32u << 20)
#define REASON	   "used by the recorded sessions"

/* ---- Rules ----------------------------------------------------------------------------------- */

/* A path as a policy writes it, escaped for a string of the language. */
static void policy_path(const struct kb_learner *ln, const char *path, char *to, size_t size)
{
	const char *prefix = "";
	size_t len = 0;

	if (kb_path_beneath(ln->workspace, path)) {
		path += strlen(ln->workspace);
		prefix = ".";
	} else if (kb_path_beneath(ln->home, path)) {
		path += strlen(ln->home);
		prefix = "~";
	}
	len = (size_t)snprintf(to, size, "%s", prefix);
	for (; *path && len + 5 < size; path++) {
		unsigned char c = (unsigned char)*path;

		if (c == '"' || c == '\\' || c < ' ' || c >= 0x7f)
			len += (size_t)snprintf(to + len, size - len, "\\x%02x", c);
		else
			to[len++] = (char)c;
	}
	to[len] = '\0';
}

static int put_paths(const struct kb_learner *ln, unsigned access, const char *verb,
	struct kb_buf *out, struct kb_err *err)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < ln->paths.entries.len; i++) {
		const struct kb_tally_entry *entry = ln->paths.entries.items[i];
		char path[KB_LEARN_TEXT_MAX];

		if (!(entry->bits & access) ||
			(access == KB_FS_READ && (entry->bits & KB_FS_WRITE)))
			continue;
		policy_path(ln, entry->text, path, sizeof(path));
		r = kb_buf_printf(out, err, "    %s \"%s\" if-available%s\n", verb, path,
			entry->bits & KB_NEED_OVERRIDE ? " override reason \"" REASON "\"" : "");
	}
	return r;
}

/* A session starts in its workspace: something must bring it inside. */
static int put_workspace(const struct kb_learner *ln, struct kb_buf *out, struct kb_err *err)
{
	struct kb_mech_path mech = kb_mech_path(ln->opts.bundle, KB_FS_READ, ln->workspace);

	if (mech.mount && mech.mount->kind != KB_MOUNT_PRIVATE)
		return 0;
	for (size_t i = 0; i < ln->paths.entries.len; i++)
		if (kb_path_beneath(ln->workspace, ln->paths.entries.items[i]->text))
			return 0;
	return kb_buf_puts(out, "    workspace read \".\"\n", err);
}

static int put_hosts(const struct kb_learner *ln, struct kb_buf *out, struct kb_err *err)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < ln->hosts.entries.len; i++) {
		const char *text = ln->hosts.entries.items[i]->text;
		int verb = (int)strcspn(text, " ");
		const char *target = text + verb + 1, *port = strrchr(target, ':');

		if (!strncmp(text, "listen", (size_t)verb))
			r = kb_buf_printf(out, err, "    net listen tcp %s\n", port + 1);
		else if (!strncmp(text, "resolve", (size_t)verb))
			r = kb_buf_printf(out, err, "    net resolve \"%s\"\n", target);
		else
			r = kb_buf_printf(out, err, "    net connect tcp \"%s\"\n", target);
	}
	return r;
}

static int put_calls(const struct kb_learner *ln, struct kb_buf *out, struct kb_err *err)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < ln->calls.entries.len; i++)
		r = kb_buf_printf(out, err, "    syscall %s allow override reason \"" REASON "\"\n",
			ln->calls.entries.items[i]->text);
	return r;
}

/* ---- Comments -------------------------------------------------------------------------------- */

static int put_comments(
	const struct kb_tally *tally, const char *title, struct kb_buf *out, struct kb_err *err)
{
	int r = 0;

	if (tally->entries.len)
		r = kb_buf_printf(out, err, "\n    # %s:\n", title);
	for (size_t i = 0; r >= 0 && i < tally->entries.len; i++) {
		const struct kb_tally_entry *entry = tally->entries.items[i];
		char *safe KB_FREE = kb_escape_dup(entry->text, strlen(entry->text));

		if (!safe)
			return kb_err_nomem(err);
		r = entry->count ? kb_buf_printf(out, err, "    #   %s   %llu ×\n", safe,
					   (unsigned long long)entry->count)
				 : kb_buf_printf(out, err, "    #   %s\n", safe);
	}
	if (r >= 0 && tally->dropped)
		r = kb_buf_printf(
			out, err, "    #   … and %llu more\n", (unsigned long long)tally->dropped);
	return r;
}

/* Rules that give something, for a person to see what is not used. */
static bool gives(const struct kb_rule *rule)
{
	return rule->action == KB_ALLOW &&
	       (!strncmp(rule->text, "fs ", 3) || !strncmp(rule->text, "exec ", 5) ||
		       !strncmp(rule->text, "net ", 4) || !strncmp(rule->text, "workspace ", 10));
}

static int put_granted(const struct kb_learner *ln, struct kb_buf *out, struct kb_err *err)
{
	const struct kb_bundle *base = ln->opts.bundle;
	int r = kb_buf_printf(
		out, err, "\n    # Observed against what %s grants:\n", ln->opts.base);

	for (size_t i = 0; r >= 0 && i < base->rules.len; i++) {
		const struct kb_rule *rule = &base->rules.items[i];
		char *text KB_FREE = kb_escape_dup(rule->text, strlen(rule->text));
		char count[24] = "never";

		if (!text)
			return kb_err_nomem(err);
		if (!ln->used[i] && !gives(rule))
			continue;
		if (ln->used[i])
			snprintf(count, sizeof(count), "%llu ×", (unsigned long long)ln->used[i]);
		r = kb_buf_printf(out, err, "    #   %-9s  %.*s   %s\n", count,
			(int)strcspn(rule->id, "#"), rule->id, text);
	}
	return r;
}

static int put_policy(const struct kb_learner *ln, struct kb_buf *out, struct kb_err *err)
{
	int r = kb_buf_printf(out, err,
		"# Learned from %llu recorded events; %llu of them %s allows already.\n"
		"policy %s version 1 extends %s {\n",
		(unsigned long long)ln->records, (unsigned long long)ln->covered, ln->opts.base,
		ln->opts.name, ln->opts.base);

	if (r >= 0)
		r = put_workspace(ln, out, err);
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
	if (r >= 0 && ln->paths.dropped)
		r = kb_buf_printf(out, err,
			"\n    # More different paths than can be looked at: %llu events left "
			"out.\n",
			(unsigned long long)ln->paths.dropped);
	if (r >= 0)
		r = put_comments(&ln->withheld,
			"Used, but for you to decide (a place never given as a whole, or "
			"credentials)",
			out, err);
	if (r >= 0)
		r = put_comments(&ln->denied, "Denied, and still denied", out, err);
	if (r >= 0)
		r = put_comments(&ln->unseen,
			"Of the policies they ran under, what no record shows; take over what is "
			"needed",
			out, err);
	if (r >= 0)
		r = put_granted(ln, out, err);
	return r < 0 ? r : kb_buf_puts(out, "}\n", err);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_t *json_tally(const struct kb_tally *tally)
{
	json_t *list = json_array();

	for (size_t i = 0; list && i < tally->entries.len; i++) {
		const struct kb_tally_entry *entry = tally->entries.items[i];
		char *safe KB_FREE = kb_escape_dup(entry->text, strlen(entry->text));

		if (safe)
			json_array_append_new(list, json_pack("{s:s, s:I}", "event", safe, "count",
							    (json_int_t)entry->count));
	}
	return list;
}

static json_t *json_granted(const struct kb_learner *ln)
{
	const struct kb_bundle *base = ln->opts.bundle;
	json_t *list = json_array();

	for (size_t i = 0; list && i < base->rules.len; i++) {
		const struct kb_rule *rule = &base->rules.items[i];
		char *text KB_FREE = kb_escape_dup(rule->text, strlen(rule->text));

		if (text && (ln->used[i] || gives(rule)))
			json_array_append_new(
				list, json_pack("{s:s, s:s, s:I}", "rule", rule->id, "text", text,
					      "count", (json_int_t)ln->used[i]));
	}
	return list;
}

static int put_json(
	const struct kb_learner *ln, char *policy, struct kb_buf *out, struct kb_err *err)
{
	json_t *root = json_pack("{s:s, s:s, s:I, s:I, s:s, s:o, s:o, s:o, s:o}", "name",
		ln->opts.name, "base", ln->opts.base, "records", (json_int_t)ln->records, "covered",
		(json_int_t)ln->covered, "policy", policy, "withheld", json_tally(&ln->withheld),
		"denied", json_tally(&ln->denied), "unseen", json_tally(&ln->unseen), "granted",
		json_granted(ln));
	char *text KB_FREE = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
	int r = text ? kb_buf_puts(out, text, err) : kb_err_nomem(err);

	json_decref(root);
	return r < 0 ? r : kb_buf_puts(out, "\n", err);
}

int kb_learner_write(struct kb_learner *ln, bool json, struct kb_buf *out, struct kb_err *err)
{
	struct kb_buf policy KB_BUF_CLEANUP;
	char *text KB_FREE = NULL;
	int r;

	kb_buf_init(&policy, POLICY_MAX);
	kb_learn_prune(ln);
	if (kb_learn_generalise(ln) < 0)
		return kb_err_nomem(err);
	kb_learn_prune(ln);
	if (!json)
		return put_policy(ln, out, err);
	r = put_policy(ln, &policy, err);
	if (r < 0)
		return r;
	text = kb_buf_steal_string(&policy);
	return text ? put_json(ln, text, out, err) : kb_err_nomem(err);
}
