/* Records as the policy compiler looks at them.
 *
 * What a call does with its paths is in the collectors' table of calls. Of a record that was not
 * kept whole (a count of many, a path that could not be read) the paths are unknown, and it says
 * so. Connections that a broker decided on are the broker's records; what the machine saw of them
 * is a connection to its relay, which no rule speaks of.
 */
#include "observe.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "audit/query/field.h"
#include "supervisor/base/util.h"

static const struct kb_trap *trap_of(struct kb_observer *ob, const struct kb_row *row)
{
	uint32_t arch = kb_row_arch(row);
	int32_t nr = row->record->syscall;

	if (nr < 0 || nr >= KB_TRAP_NUMBERS)
		return NULL;
	if (ob->arch != arch) {
		kb_traps_index(arch, ob->traps);
		ob->arch = arch;
	}
	return ob->traps[nr];
}

/* As a string; NULL when there is none, or none that could be a path's or a name's. */
static const char *string(struct kb_bytes bytes, char *to, size_t size)
{
	if (!bytes.data || bytes.len == 0 || bytes.len >= size)
		return NULL;
	memcpy(to, bytes.data, bytes.len);
	to[bytes.len] = '\0';
	return memchr(to, '\0', bytes.len) ? NULL : to;
}

static const char *absolute(struct kb_bytes bytes, char *to, size_t size)
{
	const char *path = string(bytes, to, size);

	/* "/memfd:x (deleted)" and "pipe:[7]" are no places. */
	return path && path[0] == '/' && strncmp(path, "/memfd:", 7) != 0 ? path : NULL;
}

/* ---- Calls ----------------------------------------------------------------------------------- */

static bool makes_names(const struct kb_trap *trap, const struct kb_record *record)
{
	switch (record->event) {
	case KB_EVENT_OPEN:
		return record->created;
	case KB_EVENT_UNLINK:
	case KB_EVENT_RMDIR:
	case KB_EVENT_RENAME:
		return true;
	default:
		return trap->traits & KB_TRAP_CREATES;
	}
}

static void put_paths(struct kb_observer *ob, const struct kb_trap *trap,
	const struct kb_record *record, struct kb_observed *ret)
{
	bool two = trap->path2 && !(trap->traits & KB_TRAP_TARGET);
	bool socket = trap->shape == KB_SHAPE_SOCKADDR || trap->shape == KB_SHAPE_MSGHDR;

	if (!trap->access && record->event != KB_EVENT_OPEN)
		return;
	if (socket && record->family && record->family != AF_UNIX)
		return;
	ret->exec = trap->access & KB_FS_EXEC;
	ret->change = trap->access & KB_FS_WRITE;
	ret->looks = trap->traits & KB_TRAP_PROBES;
	ret->open = record->event == KB_EVENT_OPEN && !ret->change;
	ret->link = trap->access == KB_FS_READ && !ret->looks;
	ret->names = makes_names(trap, record);
	ret->path = absolute(record->path, ob->path, sizeof(ob->path));
	if (two)
		ret->path2 = absolute(record->path2, ob->path2, sizeof(ob->path2));
	/* A count stands for calls on any paths; an unreadable one for any path. */
	ret->partial = record->count > 0 || record->trust == KB_TRUST_UNREADABLE;
}

/* ---- Addresses ------------------------------------------------------------------------------- */

static bool is_loopback(const struct kb_observed *seen)
{
	static const uint8_t v6[15], mapped[12] = {[10] = 0xff, [11] = 0xff};
	uint8_t first = seen->address[seen->address_len == 4 ? 0 : 12];

	if (seen->address_len == 4 || !memcmp(seen->address, mapped, sizeof(mapped)))
		return first == 127 || first == 0;
	return !memcmp(seen->address, v6, sizeof(v6));
}

static void put_address(const struct kb_record *record, struct kb_observed *ret)
{
	size_t len = record->address.len;

	if (record->family != AF_INET && record->family != AF_INET6)
		return;
	if (len != (record->family == AF_INET ? 4u : 16u))
		return;
	ret->family = (int)record->family;
	memcpy(ret->address, record->address.data, len);
	ret->address_len = (unsigned)len;
	ret->port = (uint16_t)record->port;
	ret->direction = record->event == KB_EVENT_BIND || record->event == KB_EVENT_LISTEN
				 ? KB_NET_LISTEN
				 : KB_NET_CONNECT;
}

/* Lane net: what the broker decided, by name where it knew one. */
static bool put_broker(
	struct kb_observer *ob, const struct kb_record *record, struct kb_observed *ret)
{
	/* "bytes sent" ends what was decided when it began; limits are nothing to decide. */
	if (record->event == KB_EVENT_SEND || record->event == KB_EVENT_LIMIT)
		return false;
	put_address(record, ret);
	ret->host = string(record->host, ob->host, sizeof(ob->host));
	ret->port = (uint16_t)record->port;
	if (record->event == KB_EVENT_RESOLVE)
		ret->direction = KB_NET_RESOLVE;
	if (record->event == KB_EVENT_REQUEST && record->decision == KB_DECISION_ALLOWED)
		ret->request = string(record->text, ob->request, sizeof(ob->request));
	return ret->host || ret->address_len;
}

/* ---- Entry ----------------------------------------------------------------------------------- */

static void put_place(struct kb_observer *ob, const struct kb_row *row, struct kb_observed *ret)
{
	ret->session = row->session->name;
	ret->workspace = string(row->session->workspace, ob->workspace, sizeof(ob->workspace));
	ret->home = ob->bundle ? kb_bundle_variable(ob->bundle, "HOME") : NULL;
}

bool kb_observe(struct kb_observer *ob, const struct kb_row *row, struct kb_observed *ret)
{
	const struct kb_record *record = row->record;
	const struct kb_trap *trap = trap_of(ob, row);

	*ret = (struct kb_observed){
		.seq = row->seq,
		.arch = kb_row_arch(row),
		.syscall = record->syscall,
		.has_args = record->has_args,
		.has_flags = record->has_flags,
		.flags = record->flags,
		.has_mode = record->has_mode,
		.mode = record->mode,
		.decision = (enum kb_observed_decision)record->decision,
		.failed = record->outcome == KB_OUTCOME_FAILED,
		.errnum = record->errnum,
		.count = record->count,
	};
	memcpy(ret->args, record->args, sizeof(ret->args));
	put_place(ob, row, ret);
	if (record->lane == KB_LANE_NET)
		return put_broker(ob, record, ret);
	if (record->syscall < 0)
		return false;
	if (trap)
		put_paths(ob, trap, record, ret);
	put_address(record, ret);
	/* It went to the relay. */
	if (ret->address_len && ret->direction == KB_NET_CONNECT && !is_loopback(ret) &&
		record->decision == KB_DECISION_ALLOWED)
		ret->address_len = 0;
	return true;
}
