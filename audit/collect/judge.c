/* What the path rules say of the files a call names.
 *
 * Enforcement is by mounts and Landlock. Here a rule that denies in so many words gets its errno
 * from the collector, and everything else is left to the kernel; but what the kernel is going to
 * refuse, or cannot find because the policy does not show it, is recorded as denied, with the rule.
 * What exists nowhere was merely looked for.
 */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "judge.h"

static void refuse(struct kb_judge *judge, const struct kb_verdict *verdict)
{
	judge->verdict = *verdict;
	judge->answer = verdict->errnum ? verdict->errnum : EACCES;
}

/* Does the machine have what the session does not? Its /proc shows other processes, not files. */
static bool hidden(const struct kb_judge *judge, const struct kb_resolved *path)
{
	return strncmp(path->path, "/proc/", 6) != 0 &&
	       kb_resolver_on_host(judge->resolver, path->path);
}

/* Granted, yet not there: is it because the session has a tree of its own in this place? */
static void judge_granted(struct kb_judge *judge, const struct kb_verdict *verdict,
	const struct kb_resolved *path, bool creates)
{
	if (verdict->private_tree && path->state == KB_PATH_ABSENT && !creates &&
		hidden(judge, path)) {
		judge->verdict = *verdict;
		judge->verdict.action = KB_DENY;
		judge->verdict.errnum = ENOENT;
		judge->verdict.record = KB_MAX(verdict->record, KB_RECORD_SUMMARY);
	} else if (verdict->rule != KB_RULE_NONE) {
		judge->verdict.rule = verdict->rule;
	}
}

void kb_judge_call(struct kb_judge *judge, uint32_t arch, int nr, const uint64_t args[6])
{
	judge->verdict = kb_bundle_decide(judge->bundle, arch, nr, args);
	if (judge->verdict.action != KB_ALLOW)
		judge->answer = judge->verdict.errnum ? judge->verdict.errnum : EPERM;
}

/* Would the kernel refuse to make it there, or is there not even a directory to make it in? */
static bool could_be_made(const struct kb_judge *judge, const struct kb_resolved *path)
{
	struct kb_resolved parent;
	char dir[KB_RESOLVED_MAX];
	char *slash;

	memcpy(dir, path->path, path->len + 1);
	slash = strrchr(dir, '/');
	if (!slash)
		return false;
	slash[slash == dir] = '\0';
	kb_resolve(judge->resolver, judge->caller, -1, dir, 0, &parent);
	return parent.state == KB_PATH_FOUND;
}

void kb_judge_path(
	struct kb_judge *judge, unsigned access, const struct kb_resolved *path, bool creates)
{
	struct kb_verdict verdict;

	if (!access || judge->answer || judge->verdict.action != KB_ALLOW ||
		path->state == KB_PATH_SPECIAL || path->len == 0)
		return;
	verdict = kb_bundle_decide_path(judge->bundle, access, path->path);
	if (verdict.action == KB_ALLOW) {
		judge_granted(judge, &verdict, path, creates);
		return;
	}
	if (verdict.at_start && !kb_resolver_read_only(judge->resolver, path->path))
		return;
	if (!verdict.by_default) {
		refuse(judge, &verdict);
		return;
	}
	if (path->state == KB_PATH_ABSENT && !(creates && could_be_made(judge, path)) &&
		!hidden(judge, path))
		return;
	/* Landlock has nothing against looking at what is there. */
	if (path->state != KB_PATH_ABSENT && judge->probes)
		return;
	/* Left to the kernel to refuse. */
	judge->verdict = verdict;
}

/* Or an address that means the same, or of a family that does not leave the machine. */
static bool is_loopback(const struct sockaddr *address)
{
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
	const struct sockaddr_in *in = (const struct sockaddr_in *)address;
	uint32_t v4;

	if (address->sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
		memcpy(&v4, in6->sin6_addr.s6_addr + 12, sizeof(v4));
	else if (address->sa_family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr) ||
		       IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr);
	else if (address->sa_family == AF_INET)
		v4 = in->sin_addr.s_addr;
	else
		return true;
	return v4 == 0 || ntohl(v4) >> 24 == 127;
}

void kb_judge_address(struct kb_judge *judge, const uint8_t *address, size_t len)
{
	enum kb_net_direction direction = judge->binds ? KB_NET_LISTEN : KB_NET_CONNECT;
	struct sockaddr_storage copy = {0};
	struct kb_verdict verdict;

	if (judge->answer || judge->verdict.action != KB_ALLOW || len > sizeof(copy))
		return;
	memcpy(&copy, address, len);
	if (judge->relayed && !judge->binds && !is_loopback((struct sockaddr *)&copy))
		return;
	verdict = kb_bundle_decide_net(judge->bundle, direction, 0, (struct sockaddr *)&copy, len);
	if (verdict.action != KB_ALLOW)
		refuse(judge, &verdict);
	else if (verdict.rule != KB_RULE_NONE)
		judge->verdict.rule = verdict.rule;
}
