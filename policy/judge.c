#include "policy/judge.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "policy/fs_items.h"
#include "policy/made.h"
#include "supervisor/base/util.h"

#define TEXT_MAX 4400 /* one path */

enum held { HELD_NO, HELD_YES, HELD_UNKNOWN };

static enum held clause_held(const struct kb_clause *clause, const struct kb_question *q)
{
	enum held ret = HELD_YES;

	for (size_t i = 0; i < clause->conds.len; i++) {
		const struct kb_cond *cond = &clause->conds.items[i];

		if (!(q->known & (1u << cond->arg)))
			ret = HELD_UNKNOWN;
		else if (!kb_cond_holds(cond, q->args))
			return HELD_NO;
	}
	return ret;
}

/* The clause that decides, or unknown when clauses that disagree could. */
static enum kb_judged judge_call(const struct kb_bundle *bundle, uint32_t arch,
	const struct kb_question *q, struct kb_verdict *ret)
{
	const struct kb_table *table = kb_bundle_table(bundle, arch);
	const struct kb_table_call *call =
		table ? kb_table_find(table, kb_calls[q->call].nr[kb_arch_index(arch)]) : NULL;
	bool allows = false, refuses = false;

	*ret = kb_bundle_decide(bundle, arch, kb_calls[q->call].nr[kb_arch_index(arch)], q->args);
	for (size_t i = 0; call && i < call->clauses.len; i++) {
		const struct kb_clause *clause = &call->clauses.items[i];
		enum held held = clause_held(clause, q);

		if (held == HELD_NO)
			continue;
		*(clause->action == KB_ALLOW ? &allows : &refuses) = true;
		if (held == HELD_YES)
			break;
	}
	if (allows && refuses)
		return KB_JUDGED_UNKNOWN;
	return ret->action == KB_ALLOW ? KB_JUDGED_ALLOWED : KB_JUDGED_DENIED;
}

/* What was asked for lies in a tree of the session's own and the machine's was out of reach: it was
 * so then, and will be. */
static bool out_of_reach(const struct kb_observed *seen, const struct kb_verdict *verdict)
{
	return verdict->private_tree && seen->decision == KB_OBSERVED_DENIED;
}

static bool judge_path(struct kb_memo *memo, const struct kb_bundle *bundle,
	const struct kb_observed *seen, unsigned access, const char *path, struct kb_judgement *ret)
{
	bool allowed;
	struct kb_verdict verdict = kb_memo_path(memo, bundle, access, path, &allowed);

	if (!allowed && seen->looks && verdict.by_default && seen->decision == KB_OBSERVED_ALLOWED)
		allowed = true;
	if (allowed && out_of_reach(seen, &verdict)) {
		allowed = false;
		verdict.action = KB_DENY;
		verdict.errnum = seen->errnum;
	}
	ret->verdict = verdict;
	ret->judged = allowed ? KB_JUDGED_ALLOWED : KB_JUDGED_DENIED;
	return allowed;
}

bool kb_judge_had(struct kb_memo *memo, const struct kb_bundle *was, const struct kb_observed *seen,
	unsigned access, const char *path)
{
	struct kb_verdict verdict;
	bool allowed;

	if (kb_fs_virtual(path))
		return false;
	if (!was)
		return seen->workspace && kb_path_beneath(seen->workspace, path);
	verdict = kb_memo_path(memo, was, access, path, &allowed);
	return allowed && !verdict.private_tree;
}

/* What of path the pattern of the deciding rule has matched. */
static bool matched_part(
	const struct kb_bundle *bundle, uint32_t rule, const char *path, char *to, size_t size)
{
	for (size_t i = 0; i < bundle->paths.len; i++) {
		const struct kb_path_rule *item = &bundle->paths.items[i];

		if (item->rule != rule || !item->at_start || !kb_path_match(item->pattern, path))
			continue;
		snprintf(to, size, "%.*s", (int)kb_path_matched(item->pattern, path), path);
		return true;
	}
	return false;
}

bool kb_judge_made_since(const struct kb_bundle *bundle, const struct kb_observed *seen,
	const struct kb_judgement *judgement, const struct kb_made *made)
{
	const char *path = judgement->by_path2 ? seen->path2 : seen->path;
	char part[TEXT_MAX];

	return (judgement->by_path || judgement->by_path2) && judgement->verdict.at_start && path &&
	       matched_part(bundle, judgement->verdict.rule, path, part, sizeof(part)) &&
	       (kb_made_have(made, part) ||
		       (kb_observed_made(seen) && !strcmp(kb_observed_made(seen), part)));
}

const char *kb_observed_made(const struct kb_observed *seen)
{
	if (!seen->names || seen->failed || seen->decision != KB_OBSERVED_ALLOWED)
		return NULL;
	return seen->path2 ? seen->path2 : seen->path;
}

/* The rule lets its host be reached, but for other requests. */
static bool request_refused(const struct kb_bundle *bundle, const struct kb_question *q)
{
	const struct kb_net_rule *rule =
		kb_bundle_find_host(bundle, q->direction, q->protocol, q->host, q->port);
	size_t method = strcspn(q->request, " ");
	const char *path = q->request + method + (q->request[method] == ' ');

	return rule && rule->http && rule->http[0] &&
	       !kb_http_allows(rule->http, q->request, method, path, strlen(path));
}

static struct kb_verdict judge_net(const struct kb_bundle *bundle, const struct kb_question *q)
{
	struct kb_answer answer;
	struct kb_program none = {0};

	kb_answer(bundle, &none, kb_arch_native(), q, &answer);
	if (q->request && answer.net.action == KB_ALLOW && request_refused(bundle, q)) {
		answer.net.action = KB_DENY;
		answer.net.errnum = EACCES;
	}
	return answer.net;
}

static void judge_paths(struct kb_memo *memo, const struct kb_bundle *bundle,
	const struct kb_observed *seen, struct kb_judgement *ret)
{
	const struct kb_question *q = &ret->question;

	if (q->path && q->access) {
		ret->by_path = !judge_path(memo, bundle, seen, q->access, q->path, ret);
		ret->own = !ret->by_path && ret->verdict.private_tree;
	}
	if (q->path2 && !ret->by_path) {
		ret->by_path2 = !judge_path(memo, bundle, seen, KB_FS_WRITE, q->path2, ret);
		ret->own2 = !ret->by_path2 && ret->verdict.private_tree;
	}
}

void kb_judge(struct kb_memo *memo, const struct kb_bundle *bundle, const struct kb_observed *seen,
	struct kb_judgement *ret)
{
	struct kb_question *q = &ret->question;
	uint32_t arch = seen->arch ? seen->arch : kb_arch_native();

	*ret = (struct kb_judgement){.judged = KB_JUDGED_SKIP};
	if (!kb_observed_question(seen, q))
		return;
	ret->judged = KB_JUDGED_ALLOWED;
	if (q->call >= 0)
		ret->judged = judge_call(bundle, arch, q, &ret->verdict);
	if (ret->judged != KB_JUDGED_ALLOWED)
		return;
	if (q->kind == KB_ASK_NET) {
		ret->verdict = judge_net(bundle, q);
		ret->by_address = ret->verdict.action != KB_ALLOW;
		if (ret->by_address)
			ret->judged = KB_JUDGED_DENIED;
		return;
	}
	judge_paths(memo, bundle, seen, ret);
	if (seen->partial && ret->judged == KB_JUDGED_ALLOWED)
		ret->judged = KB_JUDGED_UNKNOWN;
}

/* The path, with the home directory as ~. */
static const char *shown(const struct kb_observed *seen, const char *path, char *to, size_t size)
{
	if (!path || !seen->home || !seen->home[1] || !kb_path_beneath(seen->home, path))
		return path;
	snprintf(to, size, "~%s", path + strlen(seen->home));
	return to;
}

static void net_text(const struct kb_question *q, char *to, size_t size)
{
	static const char *const ways[] = {"connect", "listen", "resolve"};
	char address[INET6_ADDRSTRLEN] = "", port[8] = "";
	bool v6 = !q->host && q->address_len == 16;

	if (!q->host)
		inet_ntop(q->address_len == 4 ? AF_INET : AF_INET6, q->address, address,
			sizeof(address));
	if (q->direction != KB_NET_RESOLVE)
		snprintf(port, sizeof(port), ":%u", q->port);
	snprintf(to, size, "%s %s%s%s%s%s%s", ways[q->direction], v6 ? "[" : "",
		q->host ? q->host : address, v6 ? "]" : "", port, q->request ? " " : "",
		q->request ? q->request : "");
}

void kb_observed_text(
	const struct kb_observed *seen, const struct kb_question *q, char *to, size_t size)
{
	char first[TEXT_MAX], second[TEXT_MAX];
	const char *path = shown(seen, seen->path, first, sizeof(first));
	const char *path2 = shown(seen, q->path2, second, sizeof(second));

	if (q->kind == KB_ASK_NET) {
		net_text(q, to, size);
		return;
	}
	snprintf(to, size, "%s%s%s%s%s%s", q->call >= 0 ? kb_calls[q->call].name : "open",
		path ? " " : "", path ? path : "", path2 ? " → " : "", path2 ? path2 : "",
		!q->access		   ? ""
		: (q->access & KB_FS_EXEC) ? " (exec)"
		: path2			   ? " (write)"
		: q->looks		   ? " (look)"
		: q->access == KB_FS_READ  ? " (read)"
					   : " (write)");
}
