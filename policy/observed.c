/* A recorded event as a question to a policy. */
#include <netinet/in.h>
#include <string.h>

#include "policy/ask.h"

#define O_ACCESS  3u
#define O_CHANGES 0x240u    /* O_CREAT | O_TRUNC */
#define O_PATH_	  0x200000u /* the same on every architecture we know */

/* As the collectors see it. */
static unsigned open_access(uint32_t flags)
{
	static const unsigned by_mode[] = {
		KB_FS_READ, KB_FS_WRITE, KB_FS_READ | KB_FS_WRITE, KB_FS_READ | KB_FS_WRITE};

	if (flags & O_PATH_)
		return KB_FS_READ;
	return by_mode[flags & O_ACCESS] | ((flags & O_CHANGES) ? KB_FS_WRITE : 0);
}

static unsigned seen_access(const struct kb_observed *seen)
{
	if (seen->exec)
		return KB_FS_EXEC;
	if (seen->change)
		return KB_FS_WRITE;
	if (seen->link || seen->looks)
		return KB_FS_READ;
	if (!seen->open)
		return 0;
	return seen->has_flags ? open_access(seen->flags) : KB_FS_READ;
}

/* The registers that the record gives away: enough for open flags, modes and what was kept whole.
 */
static void seen_args(const struct kb_observed *seen, struct kb_question *q)
{
	const struct kb_call *call = &kb_calls[q->call];

	if (seen->has_args) {
		memcpy(q->args, seen->args, sizeof(q->args));
		q->known = (1u << KB_CALL_ARGS) - 1;
		return;
	}
	for (unsigned i = 0; i < call->n_args; i++) {
		const struct kb_constant_set *set = call->args[i].set;

		bool mode = set && !strcmp(set->name, "mode");

		if (call->args[i].type == KB_T_PTR)
			q->args[i] = 0x1000;
		else if (set && set->flags && (mode ? seen->has_mode : seen->has_flags))
			q->args[i] = mode ? seen->mode : seen->flags;
		else
			continue;
		q->known |= 1u << i;
	}
}

const char *kb_bundle_variable(const struct kb_bundle *bundle, const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < bundle->env.len; i++)
		if (!strncmp(bundle->env.items[i], name, len) && bundle->env.items[i][len] == '=')
			return bundle->env.items[i] + len + 1;
	return NULL;
}

const char *kb_bundle_program(const struct kb_bundle *bundle, size_t i)
{
	for (size_t at = 0; at < bundle->paths.len; at++) {
		const struct kb_path_rule *path = &bundle->paths.items[at];

		if ((path->access & KB_FS_EXEC) && path->action == KB_ALLOW &&
			path->rule < bundle->rules.len &&
			!strcmp(bundle->rules.items[path->rule].file, KB_PROGRAMS_FILE) && i-- == 0)
			return path->pattern;
	}
	return NULL;
}

bool kb_observed_question(const struct kb_observed *seen, struct kb_question *ret)
{
	uint32_t arch = seen->arch ? seen->arch : kb_arch_native();
	int index = kb_arch_index(arch);

	*ret = (struct kb_question){.call = -1};
	if (index >= 0 && seen->syscall >= 0)
		ret->call = kb_call_by_nr((enum kb_arch_index)index, seen->syscall);
	if (ret->call >= 0)
		seen_args(seen, ret);
	if (seen->address_len || seen->host) {
		ret->kind = KB_ASK_NET;
		ret->direction = seen->direction;
		ret->host = seen->host;
		memcpy(ret->address, seen->address, sizeof(ret->address));
		ret->address_len = seen->address_len;
		ret->port = seen->port;
		ret->request = seen->host ? seen->request : NULL;
		return true;
	}
	ret->path = seen->path;
	ret->access = seen->path ? seen_access(seen) : 0;
	ret->path2 = seen->path2;
	ret->looks = seen->looks;
	if (ret->call >= 0) {
		ret->kind = KB_ASK_CALL;
		return true;
	}
	ret->kind = KB_ASK_PATH;
	return ret->path && ret->access;
}
