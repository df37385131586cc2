/* The bundle on the wire and in the store. Reading treats every byte as hostile: counts, indices,
 * enumerations, strings and the shape of the decision tables are checked before anything is used,
 * so that the evaluator and the emitter need no checks of their own. */
#include "policy/bundle_code.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/bundle.pb-c.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

struct kb_bundle *kb_bundle_new(void)
{
	struct kb_bundle *bundle = calloc(1, sizeof(*bundle));

	if (bundle)
		kb_arena_init(&bundle->arena, KB_BUNDLE_MEMORY);
	return bundle;
}

void kb_bundle_destroy(struct kb_bundle *bundle)
{
	if (!bundle)
		return;
	kb_arena_finish(&bundle->arena);
	free(bundle);
}

const struct kb_table *kb_bundle_table(const struct kb_bundle *bundle, uint32_t arch)
{
	for (size_t i = 0; i < bundle->tables.len; i++)
		if (bundle->tables.items[i].arch == arch)
			return &bundle->tables.items[i];
	return NULL;
}

const struct kb_table_call *kb_table_find(const struct kb_table *table, int nr)
{
	size_t lo = 0, hi = table->calls.len;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (table->calls.items[mid].nr < nr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < table->calls.len && table->calls.items[lo].nr == nr ? &table->calls.items[lo]
									: NULL;
}

#define ACCESSOR(name, field, type)                                                                \
	size_t name(const struct kb_bundle *bundle, type **ret)                                    \
	{                                                                                          \
		*ret = bundle->field.items;                                                        \
		return bundle->field.len;                                                          \
	}

ACCESSOR(kb_bundle_rules, rules, const struct kb_rule)
ACCESSOR(kb_bundle_mounts, mounts, const struct kb_mount)
ACCESSOR(kb_bundle_path_rules, paths, const struct kb_path_rule)
ACCESSOR(kb_bundle_landlock, landlock, const struct kb_landlock_rule)
ACCESSOR(kb_bundle_limits, limits, const struct kb_limit)
ACCESSOR(kb_bundle_net, net, const struct kb_net_rule)
ACCESSOR(kb_bundle_secrets, secrets, const struct kb_secret)
ACCESSOR(kb_bundle_env, env, const char *const)
ACCESSOR(kb_bundle_files, files, const char *const)

const char *kb_bundle_name(const struct kb_bundle *bundle)
{
	return bundle->name;
}

/* ---- Writing --------------------------------------------------------------------------------- */

void *kb_wr_alloc(struct kb_bundle_writer *wr, size_t size)
{
	void *ret = kb_arena_alloc(&wr->arena, size ? size : 1);

	wr->failed |= !ret;
	return ret;
}

static ProtobufCBinaryData bytes(const char *text)
{
	return (ProtobufCBinaryData){strlen(text), (uint8_t *)text};
}

#define WRITE_ERRNUM(msg, value)                                                                   \
	((msg)->has_errnum = (value) != 0, (msg)->errnum = (uint32_t)(value))

static void write_rule(struct kb_bundle_writer *wr, Kb__BundleRule *msg, const struct kb_rule *rule)
{
	(void)wr;
	msg->id = (char *)rule->id;
	msg->file = (char *)rule->file;
	msg->line = rule->line;
	msg->text = (char *)rule->text;
	msg->reason = (char *)rule->reason;
	msg->action = rule->action;
	WRITE_ERRNUM(msg, rule->errnum);
	msg->record = rule->record;
}

static void write_mount(
	struct kb_bundle_writer *wr, Kb__BundleMount *msg, const struct kb_mount *mount)
{
	(void)wr;
	msg->kind = mount->kind;
	msg->path = bytes(mount->path);
	WRITE_RULE(msg, mount->rule);
	msg->has_optional = msg->optional = mount->optional;
	msg->has_glob = msg->glob = mount->glob;
	msg->has_keep = msg->keep = mount->keep;
	msg->has_pin = msg->pin = mount->pin;
}

static void write_path(
	struct kb_bundle_writer *wr, Kb__BundlePathRule *msg, const struct kb_path_rule *rule)
{
	(void)wr;
	msg->pattern = bytes(rule->pattern);
	msg->access = rule->access;
	msg->action = rule->action;
	WRITE_ERRNUM(msg, rule->errnum);
	msg->record = rule->record;
	WRITE_RULE(msg, rule->rule);
	msg->has_private_ = msg->private_ = rule->private_tree;
	msg->has_at_start = msg->at_start = rule->at_start;
}

static void write_landlock(
	struct kb_bundle_writer *wr, Kb__BundleLandlock *msg, const struct kb_landlock_rule *rule)
{
	(void)wr;
	msg->path = bytes(rule->path);
	msg->access = rule->access;
	WRITE_RULE(msg, rule->rule);
	msg->has_optional = msg->optional = rule->optional;
}

static void write_strings(
	struct kb_bundle_writer *wr, const char *const *from, size_t *ret_n, char ***ret)
{
	size_t n = 0;

	while (from && from[n])
		n++;
	*ret = kb_wr_alloc(wr, n * sizeof(**ret));
	for (size_t i = 0; !wr->failed && i < n; i++)
		(*ret)[i] = (char *)from[i];
	*ret_n = wr->failed ? 0 : n;
}

static void write_net(
	struct kb_bundle_writer *wr, Kb__BundleNet *msg, const struct kb_net_rule *rule)
{
	(void)wr;
	msg->direction = rule->direction;
	msg->has_protocol = rule->protocol != 0;
	msg->protocol = (uint32_t)rule->protocol;
	msg->host = (char *)rule->host;
	msg->has_address = msg->has_prefix = rule->address_len != 0;
	msg->address = (ProtobufCBinaryData){rule->address_len, (uint8_t *)rule->address};
	msg->prefix = rule->prefix;
	msg->port_lo = rule->port_lo;
	msg->port_hi = rule->port_hi;
	msg->action = rule->action;
	WRITE_ERRNUM(msg, rule->errnum);
	msg->record = rule->record;
	WRITE_RULE(msg, rule->rule);
	write_strings(wr, rule->http, &msg->n_http, &msg->http);
}

static void write_limit(
	struct kb_bundle_writer *wr, Kb__BundleLimit *msg, const struct kb_limit *limit)
{
	(void)wr;
	msg->kind = limit->kind;
	msg->value = limit->value;
	WRITE_RULE(msg, limit->rule);
	msg->has_optional = msg->optional = limit->optional;
}

static void write_interval(
	struct kb_bundle_writer *wr, Kb__BundleInterval *msg, const struct kb_interval *interval)
{
	(void)wr;
	msg->lo = interval->lo;
	msg->hi = interval->hi;
}

static void write_cond(struct kb_bundle_writer *wr, Kb__BundleCond *msg, const struct kb_cond *cond)
{
	msg->arg = cond->arg;
	msg->width = cond->width;
	msg->mask = cond->mask;
	WRITE_LIST(wr, msg, n_in, in, Kb__BundleInterval, kb__bundle_interval__init, &cond->in,
		write_interval);
}

static void write_clause(
	struct kb_bundle_writer *wr, Kb__BundleClause *msg, const struct kb_clause *clause)
{
	WRITE_LIST(wr, msg, n_conds, conds, Kb__BundleCond, kb__bundle_cond__init, &clause->conds,
		write_cond);
	msg->action = clause->action;
	WRITE_ERRNUM(msg, clause->errnum);
	msg->record = clause->record;
	WRITE_RULE(msg, clause->rule);
}

static void write_call(
	struct kb_bundle_writer *wr, Kb__BundleCall *msg, const struct kb_table_call *call)
{
	msg->nr = (uint32_t)call->nr;
	WRITE_LIST(wr, msg, n_clauses, clauses, Kb__BundleClause, kb__bundle_clause__init,
		&call->clauses, write_clause);
}

static void write_table(
	struct kb_bundle_writer *wr, Kb__BundleTable *msg, const struct kb_table *table)
{
	msg->arch = table->arch;
	msg->other = kb_wr_alloc(wr, sizeof(*msg->other));
	if (!msg->other)
		return;
	kb__bundle_clause__init(msg->other);
	write_clause(wr, msg->other, &table->other);
	WRITE_LIST(wr, msg, n_calls, calls, Kb__BundleCall, kb__bundle_call__init, &table->calls,
		write_call);
}

static void write_defaults(
	struct kb_bundle_writer *wr, Kb__Bundle *msg, const struct kb_bundle *bundle)
{
	const struct kb_verdict *path = &bundle->path_default, *net = &bundle->net_default;

	msg->path_default = kb_wr_alloc(wr, sizeof(*msg->path_default));
	msg->net_default = kb_wr_alloc(wr, sizeof(*msg->net_default));
	if (wr->failed)
		return;
	kb__bundle_path_rule__init(msg->path_default);
	kb__bundle_net__init(msg->net_default);
	msg->path_default->pattern = bytes("/");
	msg->path_default->access = KB_FS_READ | KB_FS_WRITE | KB_FS_EXEC;
	msg->path_default->action = path->action;
	WRITE_ERRNUM(msg->path_default, path->errnum);
	msg->path_default->record = path->record;
	WRITE_RULE(msg->path_default, path->rule);
	msg->net_default->port_hi = 65535;
	msg->net_default->action = net->action;
	WRITE_ERRNUM(msg->net_default, net->errnum);
	msg->net_default->record = net->record;
	WRITE_RULE(msg->net_default, net->rule);
}

static void write_bundle(
	struct kb_bundle_writer *wr, Kb__Bundle *msg, const struct kb_bundle *bundle)
{
	msg->format = KB_BUNDLE_FORMAT;
	msg->name = (char *)bundle->name;
	msg->files = (char **)bundle->files.items;
	msg->n_files = bundle->files.len;
	msg->has_tightened = msg->tightened = bundle->tightened;
	WRITE_LIST(wr, msg, n_rules, rules, Kb__BundleRule, kb__bundle_rule__init, &bundle->rules,
		write_rule);
	WRITE_LIST(wr, msg, n_mounts, mounts, Kb__BundleMount, kb__bundle_mount__init,
		&bundle->mounts, write_mount);
	WRITE_LIST(wr, msg, n_paths, paths, Kb__BundlePathRule, kb__bundle_path_rule__init,
		&bundle->paths, write_path);
	WRITE_LIST(wr, msg, n_landlock, landlock, Kb__BundleLandlock, kb__bundle_landlock__init,
		&bundle->landlock, write_landlock);
	WRITE_LIST(
		wr, msg, n_net, net, Kb__BundleNet, kb__bundle_net__init, &bundle->net, write_net);
	WRITE_LIST(wr, msg, n_limits, limits, Kb__BundleLimit, kb__bundle_limit__init,
		&bundle->limits, write_limit);
	WRITE_LIST(wr, msg, n_secrets, secrets, Kb__BundleSecret, kb__bundle_secret__init,
		&bundle->secrets, kb_write_secret);
	WRITE_LIST(wr, msg, n_tables, tables, Kb__BundleTable, kb__bundle_table__init,
		&bundle->tables, write_table);
	msg->env = kb_wr_alloc(wr, bundle->env.len * sizeof(*msg->env));
	for (size_t i = 0; !wr->failed && i < bundle->env.len; i++)
		msg->env[msg->n_env++] = bytes(bundle->env.items[i]);
	write_defaults(wr, msg, bundle);
}

int kb_bundle_encode(const struct kb_bundle *bundle, struct kb_buf *out, struct kb_err *err)
{
	struct kb_bundle_writer wr = {0};
	Kb__Bundle msg = KB__BUNDLE__INIT;
	uint8_t *to;
	size_t size;
	int r;

	kb_arena_init(&wr.arena, KB_BUNDLE_MEMORY);
	write_bundle(&wr, &msg, bundle);
	if (wr.failed) {
		kb_arena_finish(&wr.arena);
		return kb_err_nomem(err);
	}
	size = kb__bundle__get_packed_size(&msg);
	if (size > KB_BUNDLE_BYTES_MAX) {
		r = kb_err_set(err, KB_ERR_LIMIT, "the compiled policy is larger than %u bytes",
			KB_BUNDLE_BYTES_MAX);
	} else {
		r = kb_buf_reserve(out, size, &to, err);
		if (r >= 0) {
			kb__bundle__pack(&msg, to);
			kb_buf_commit(out, size);
		}
	}
	kb_arena_finish(&wr.arena);
	return r;
}

/* ---- Reading --------------------------------------------------------------------------------- */

bool kb_rd_bad(struct kb_bundle_reader *rd, const char *why)
{
	if (!rd->why)
		rd->why = why;
	return false;
}

bool kb_rd_nomem(struct kb_bundle_reader *rd)
{
	rd->nomem = true;
	return false;
}

const char *kb_rd_text(struct kb_bundle_reader *rd, const char *text)
{
	const char *ret = NULL;

	if (!text || !kb_utf8_valid(text, strlen(text)))
		kb_rd_bad(rd, "a text that is missing or not UTF-8");
	else if (!(ret = kb_arena_strndup(&rd->bundle->arena, text, strlen(text))))
		kb_rd_nomem(rd);
	return ret;
}

/* Bytes that must hold no NUL; a path must be absolute and free of "..". */
static const char *rd_bytes(struct kb_bundle_reader *rd, ProtobufCBinaryData data, bool path)
{
	const char *ret, *at;

	if (!data.data || !data.len || data.len > 65536 || memchr(data.data, 0, data.len)) {
		kb_rd_bad(rd, "an empty or overlong text, or a NUL byte in it");
		return NULL;
	}
	ret = kb_arena_strndup(&rd->bundle->arena, (const char *)data.data, data.len);
	if (!ret) {
		kb_rd_nomem(rd);
		return NULL;
	}
	for (at = ret; path && (at = strstr(at, "/..")); at += 3)
		if (!at[3] || at[3] == '/') {
			kb_rd_bad(rd, "a path with '..'");
			return NULL;
		}
	if (path && ret[0] != '/') {
		kb_rd_bad(rd, "a path that is not absolute");
		return NULL;
	}
	return ret;
}

bool kb_rd_index(struct kb_bundle_reader *rd, bool has, uint32_t value, uint32_t *ret)
{
	*ret = has ? value : KB_RULE_NONE;
	return !has || value < rd->bundle->rules.len || kb_rd_bad(rd, "a rule index out of range");
}

static bool rd_decision(
	struct kb_bundle_reader *rd, uint32_t action, uint32_t errnum, uint32_t record)
{
	return (action <= KB_ASK && errnum <= KB_ERRNO_MAX && record <= KB_RECORD_FULL &&
		       (action != KB_DENY || errnum)) ||
	       kb_rd_bad(rd, "an action, errno or record level out of range");
}

static bool read_rule(struct kb_bundle_reader *rd, const Kb__BundleRule *msg, struct kb_rule *ret)
{
	*ret = (struct kb_rule){.id = kb_rd_text(rd, msg->id),
		.file = kb_rd_text(rd, msg->file),
		.line = msg->line,
		.text = kb_rd_text(rd, msg->text),
		.reason = msg->reason ? kb_rd_text(rd, msg->reason) : NULL,
		.action = msg->action,
		.errnum = (int)msg->errnum,
		.record = msg->record};
	return ret->id && ret->file && ret->text && (!msg->reason || ret->reason) &&
	       rd_decision(rd, msg->action, msg->errnum, msg->record);
}

static bool read_mount(
	struct kb_bundle_reader *rd, const Kb__BundleMount *msg, struct kb_mount *ret)
{
	*ret = (struct kb_mount){.kind = msg->kind,
		.path = rd_bytes(rd, msg->path, true),
		.optional = msg->optional,
		.glob = msg->glob,
		.keep = msg->keep,
		.pin = msg->pin};
	if (msg->kind > KB_MOUNT_PRIVATE)
		return kb_rd_bad(rd, "an unknown kind of mount");
	return ret->path && kb_rd_index(rd, msg->has_rule, msg->rule, &ret->rule);
}

static bool read_path(
	struct kb_bundle_reader *rd, const Kb__BundlePathRule *msg, struct kb_path_rule *ret)
{
	*ret = (struct kb_path_rule){.pattern = rd_bytes(rd, msg->pattern, true),
		.access = msg->access,
		.action = msg->action,
		.errnum = (int)msg->errnum,
		.record = msg->record,
		.private_tree = msg->private_,
		.at_start = msg->at_start};
	return ret->pattern && rd_decision(rd, msg->action, msg->errnum, msg->record) &&
	       kb_rd_index(rd, msg->has_rule, msg->rule, &ret->rule);
}

static bool read_landlock(
	struct kb_bundle_reader *rd, const Kb__BundleLandlock *msg, struct kb_landlock_rule *ret)
{
	*ret = (struct kb_landlock_rule){.path = rd_bytes(rd, msg->path, true),
		.access = msg->access,
		.optional = msg->optional};
	return ret->path && kb_rd_index(rd, msg->has_rule, msg->rule, &ret->rule);
}

#define STRINGS_MAX 64

/* A NULL-terminated list; NULL on failure. */
static const char *const *rd_strings(struct kb_bundle_reader *rd, size_t n, char **from)
{
	const char **list = NULL;

	if (n > STRINGS_MAX)
		kb_rd_bad(rd, "too many strings in a list");
	else if (!(list = kb_arena_alloc(&rd->bundle->arena, (n + 1) * sizeof(*list))))
		kb_rd_nomem(rd);
	for (size_t i = 0; list && i < n; i++)
		if (!(list[i] = kb_rd_text(rd, from[i])))
			return NULL;
	return list;
}

static bool read_net(struct kb_bundle_reader *rd, const Kb__BundleNet *msg, struct kb_net_rule *ret)
{
	size_t len = msg->has_address ? msg->address.len : 0;

	*ret = (struct kb_net_rule){.direction = msg->direction,
		.protocol = (int)msg->protocol,
		.host = msg->host ? kb_rd_text(rd, msg->host) : NULL,
		.address_len = (unsigned)len,
		.prefix = msg->prefix,
		.port_lo = (uint16_t)msg->port_lo,
		.port_hi = (uint16_t)msg->port_hi,
		.action = msg->action,
		.errnum = (int)msg->errnum,
		.record = msg->record};
	if (msg->n_http && !(ret->http = rd_strings(rd, msg->n_http, msg->http)))
		return false;
	if (msg->direction > KB_NET_RESOLVE || (len && len != 4 && len != 16) ||
		msg->prefix > len * 8 || !len == !msg->host || msg->port_lo > msg->port_hi ||
		msg->port_hi > 65535 || (msg->host && !ret->host))
		return kb_rd_bad(rd, "a net rule that makes no sense");
	if (len)
		memcpy(ret->address, msg->address.data, len);
	return rd_decision(rd, msg->action, msg->errnum, msg->record) &&
	       kb_rd_index(rd, msg->has_rule, msg->rule, &ret->rule);
}

static bool read_limit(
	struct kb_bundle_reader *rd, const Kb__BundleLimit *msg, struct kb_limit *ret)
{
	*ret = (struct kb_limit){.kind = msg->kind, .value = msg->value, .optional = msg->optional};
	if (msg->kind >= KB_LIMIT_MAX_ || !msg->value)
		return kb_rd_bad(rd, "an unknown limit");
	return kb_rd_index(rd, msg->has_rule, msg->rule, &ret->rule);
}

static bool read_interval(
	struct kb_bundle_reader *rd, const Kb__BundleInterval *msg, struct kb_interval *ret)
{
	*ret = (struct kb_interval){msg->lo, msg->hi};
	return msg->lo <= msg->hi || kb_rd_bad(rd, "an empty interval");
}

static bool read_cond(struct kb_bundle_reader *rd, const Kb__BundleCond *msg, struct kb_cond *ret)
{
	uint64_t max = msg->width >= 64 ? UINT64_MAX : (1ULL << msg->width) - 1;

	*ret = (struct kb_cond){.arg = msg->arg, .width = msg->width, .mask = msg->mask};
	if (msg->arg >= KB_CALL_ARGS ||
		(msg->width != 16 && msg->width != 32 && msg->width != 64) || msg->mask & ~max ||
		!msg->n_in)
		return kb_rd_bad(rd, "a condition that makes no sense");
	if (!READ_LIST(rd, &ret->in, msg->n_in, msg->in, KB_OPERANDS_MAX, read_interval))
		return false;
	for (size_t i = 0; i < ret->in.len; i++)
		if (ret->in.items[i].hi > msg->mask ||
			(i && ret->in.items[i].lo <= ret->in.items[i - 1].hi))
			return kb_rd_bad(rd, "intervals out of order");
	return true;
}

static bool read_clause(
	struct kb_bundle_reader *rd, const Kb__BundleClause *msg, struct kb_clause *ret)
{
	*ret = (struct kb_clause){
		.action = msg->action, .errnum = (int)msg->errnum, .record = msg->record};
	return rd_decision(rd, msg->action, msg->errnum, msg->record) &&
	       kb_rd_index(rd, msg->has_rule, msg->rule, &ret->rule) &&
	       READ_LIST(rd, &ret->conds, msg->n_conds, msg->conds, KB_BUNDLE_CONDS_MAX, read_cond);
}

static bool read_call(
	struct kb_bundle_reader *rd, const Kb__BundleCall *msg, struct kb_table_call *ret)
{
	*ret = (struct kb_table_call){.nr = (int)msg->nr};
	if (msg->nr > KB_SYSCALL_NR_MAX || !msg->n_clauses)
		return kb_rd_bad(rd, "a system call number out of range");
	if (!READ_LIST(rd, &ret->clauses, msg->n_clauses, msg->clauses, KB_BUNDLE_CLAUSES_MAX,
		    read_clause))
		return false;
	for (size_t i = 0; i < ret->clauses.len; i++)
		if ((ret->clauses.items[i].conds.len == 0) != (i + 1 == ret->clauses.len))
			return kb_rd_bad(rd, "a call whose last clause is not its only open one");
	return true;
}

static bool read_table(
	struct kb_bundle_reader *rd, const Kb__BundleTable *msg, struct kb_table *ret)
{
	*ret = (struct kb_table){.arch = msg->arch};
	if (kb_arch_index(msg->arch) < 0 || msg->other->n_conds)
		return kb_rd_bad(rd, "a table for an unknown architecture");
	for (size_t i = 0; i + 1 < rd->bundle->tables.len; i++)
		if (rd->bundle->tables.items[i].arch == msg->arch)
			return kb_rd_bad(rd, "two tables for one architecture");
	if (!read_clause(rd, msg->other, &ret->other) ||
		!READ_LIST(
			rd, &ret->calls, msg->n_calls, msg->calls, KB_BUNDLE_CALLS_MAX, read_call))
		return false;
	for (size_t i = 1; i < ret->calls.len; i++)
		if (ret->calls.items[i].nr <= ret->calls.items[i - 1].nr)
			return kb_rd_bad(rd, "system calls out of order");
	return true;
}

static bool read_strings(struct kb_bundle_reader *rd, const Kb__Bundle *msg)
{
	if (msg->n_env > KB_BUNDLE_ITEMS_MAX || msg->n_files > KB_FILES_MAX)
		return kb_rd_bad(rd, "too many strings");
	for (size_t i = 0; i < msg->n_env; i++) {
		const char **slot = KB_ARENA_PUSH(&rd->bundle->arena, &rd->bundle->env);

		if (!slot)
			return kb_rd_nomem(rd);
		*slot = rd_bytes(rd, msg->env[i], false);
		if (!*slot || !strchr(*slot, '='))
			return kb_rd_bad(rd, "an environment entry without '='");
	}
	for (size_t i = 0; i < msg->n_files; i++) {
		const char **slot = KB_ARENA_PUSH(&rd->bundle->arena, &rd->bundle->files);

		if (!slot)
			return kb_rd_nomem(rd);
		*slot = kb_rd_text(rd, msg->files[i]);
		if (!*slot)
			return false;
	}
	return true;
}

static bool read_defaults(struct kb_bundle_reader *rd, const Kb__Bundle *msg)
{
	const Kb__BundlePathRule *path = msg->path_default;
	const Kb__BundleNet *net = msg->net_default;
	struct kb_verdict *pv = &rd->bundle->path_default, *nv = &rd->bundle->net_default;

	if (!path || !net)
		return kb_rd_bad(rd, "no defaults");
	*pv = (struct kb_verdict){.action = path->action,
		.errnum = (int)path->errnum,
		.record = path->record,
		.by_default = true};
	*nv = (struct kb_verdict){.action = net->action,
		.errnum = (int)net->errnum,
		.record = net->record,
		.by_default = true};
	return rd_decision(rd, path->action, path->errnum, path->record) &&
	       rd_decision(rd, net->action, net->errnum, net->record) &&
	       kb_rd_index(rd, path->has_rule, path->rule, &pv->rule) &&
	       kb_rd_index(rd, net->has_rule, net->rule, &nv->rule);
}

static bool read_bundle(struct kb_bundle_reader *rd, const Kb__Bundle *msg)
{
	struct kb_bundle *b = rd->bundle;

	if (msg->format != KB_BUNDLE_FORMAT)
		return kb_rd_bad(rd, "another version of the format");
	b->name = kb_rd_text(rd, msg->name);
	b->tightened = msg->tightened;
	return b->name &&
	       READ_LIST(rd, &b->rules, msg->n_rules, msg->rules, KB_BUNDLE_RULES_MAX, read_rule) &&
	       READ_LIST(rd, &b->mounts, msg->n_mounts, msg->mounts, KB_BUNDLE_ITEMS_MAX,
		       read_mount) &&
	       READ_LIST(rd, &b->paths, msg->n_paths, msg->paths, KB_BUNDLE_ITEMS_MAX, read_path) &&
	       READ_LIST(rd, &b->landlock, msg->n_landlock, msg->landlock, KB_BUNDLE_ITEMS_MAX,
		       read_landlock) &&
	       READ_LIST(rd, &b->net, msg->n_net, msg->net, KB_BUNDLE_ITEMS_MAX, read_net) &&
	       READ_LIST(rd, &b->limits, msg->n_limits, msg->limits, KB_LIMIT_MAX_, read_limit) &&
	       READ_LIST(rd, &b->secrets, msg->n_secrets, msg->secrets, KB_SECRETS_MAX,
		       kb_read_secret) &&
	       READ_LIST(rd, &b->tables, msg->n_tables, msg->tables, KB_ARCHES, read_table) &&
	       read_strings(rd, msg) && read_defaults(rd, msg);
}

/* Paths are at most 64 KiB long (rd_bytes); one of exactly that length is looked up as a pattern.
 */
static uint16_t len_of(const char *path, bool glob)
{
	size_t len = strlen(path);

	return glob || kb_path_is_glob(path) || len >= KB_LEN_GLOB ? KB_LEN_GLOB : (uint16_t)len;
}

static bool make_index(struct kb_bundle *b)
{
	b->path_lens = kb_arena_alloc(&b->arena, (b->paths.len + 1) * sizeof(uint16_t));
	b->mount_lens = kb_arena_alloc(&b->arena, (b->mounts.len + 1) * sizeof(uint16_t));
	b->landlock_lens = kb_arena_alloc(&b->arena, (b->landlock.len + 1) * sizeof(uint16_t));
	if (!b->path_lens || !b->mount_lens || !b->landlock_lens)
		return false;
	for (size_t i = 0; i < b->paths.len; i++)
		b->path_lens[i] = len_of(b->paths.items[i].pattern, false);
	for (size_t i = 0; i < b->mounts.len; i++)
		b->mount_lens[i] = len_of(b->mounts.items[i].path, b->mounts.items[i].glob);
	for (size_t i = 0; i < b->landlock.len; i++)
		b->landlock_lens[i] = len_of(b->landlock.items[i].path, false);
	return true;
}

KB_DEFINE_CLEANUP(cleanup_bundle, struct kb_bundle, kb_bundle_destroy);

static void free_message(Kb__Bundle *msg)
{
	kb__bundle__free_unpacked(msg, NULL);
}
KB_DEFINE_CLEANUP(cleanup_message, Kb__Bundle, free_message);

bool kb_bundle_tightened(const struct kb_bundle *bundle)
{
	return bundle->tightened;
}

int kb_bundle_parse(const uint8_t *data, size_t len, struct kb_bundle **ret, struct kb_err *err)
{
	struct kb_bundle *bundle KB_CLEANUP(cleanup_bundle) = kb_bundle_new();
	Kb__Bundle *msg KB_CLEANUP(cleanup_message) = NULL;
	struct kb_bundle_reader rd = {.bundle = bundle};

	if (!bundle)
		return kb_err_nomem(err);
	if (len > KB_BUNDLE_BYTES_MAX)
		return kb_err_set(err, KB_ERR_LIMIT, "a policy bundle larger than %u bytes",
			KB_BUNDLE_BYTES_MAX);
	msg = kb__bundle__unpack(NULL, len, data);
	if (!msg)
		return kb_err_set(err, KB_ERR_INVALID, "the policy bundle cannot be decoded");
	if (!read_bundle(&rd, msg))
		return rd.nomem ? kb_err_nomem(err)
				: kb_err_set(err, KB_ERR_INVALID, "the policy bundle has %s",
					  rd.why ? rd.why : "something wrong with it");
	if (!make_index(bundle))
		return kb_err_nomem(err);
	*ret = KB_STEAL(bundle);
	return 0;
}
