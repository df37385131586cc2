/* Programs and bundles for people and programs to read. */
#include <arpa/inet.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "policy/bundle.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

#define LINE_LEN 160

/* ---- Disassembly ----------------------------------------------------------------------------- */

static void load_text(char *to, size_t size, uint32_t k)
{
	if (k == 0)
		snprintf(to, size, "ld   nr");
	else if (k == 4)
		snprintf(to, size, "ld   arch");
	else if (k >= 16 && k < 64)
		snprintf(to, size, "ld   args[%u].%s", (k - 16) / 8, (k & 4) ? "hi" : "lo");
	else
		snprintf(to, size, "ld   [%u]", k);
}

static void ret_text(char *to, size_t size, uint32_t k)
{
	static const struct {
		uint32_t value;
		const char *name;
	} names[] = {{SECCOMP_RET_ALLOW, "allow"}, {SECCOMP_RET_KILL_PROCESS, "kill process"},
		{0x7fc00000, "notify"}};
	const char *error = kb_errno_name((int)(k & SECCOMP_RET_DATA));

	for (size_t i = 0; i < KB_ARRAY_LEN(names); i++)
		if (names[i].value == k) {
			snprintf(to, size, "ret  %s", names[i].name);
			return;
		}
	if ((k & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ERRNO && error)
		snprintf(to, size, "ret  errno %s", error);
	else if ((k & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ERRNO)
		snprintf(to, size, "ret  errno %u", k & SECCOMP_RET_DATA);
	else
		snprintf(to, size, "ret  %#x", k);
}

static void jump_text(char *to, size_t size, const struct sock_filter *insn, size_t at)
{
	const char *op;

	switch (BPF_OP(insn->code)) {
	case BPF_JA:
		snprintf(to, size, "ja   %zu", at + 1 + insn->k);
		return;
	case BPF_JEQ:
		op = "jeq";
		break;
	case BPF_JGE:
		op = "jge";
		break;
	case BPF_JGT:
		op = "jgt";
		break;
	default:
		op = "jset";
	}
	snprintf(to, size, "%-4s %#x  yes %zu no %zu", op, insn->k, at + 1 + insn->jt,
		at + 1 + insn->jf);
}

static void insn_text(char *to, size_t size, const struct sock_filter *insn, size_t at)
{
	switch (BPF_CLASS(insn->code)) {
	case BPF_LD:
		load_text(to, size, insn->k);
		break;
	case BPF_ALU:
		snprintf(to, size, "and  %#x", insn->k);
		break;
	case BPF_JMP:
		jump_text(to, size, insn, at);
		break;
	case BPF_RET:
		ret_text(to, size, insn->k);
		break;
	default:
		snprintf(to, size, "%#x %u %u %#x", insn->code, insn->jt, insn->jf, insn->k);
	}
}

int kb_program_disasm(const struct kb_program *program, const struct kb_bundle *bundle,
	struct kb_buf *out, struct kb_err *err)
{
	for (size_t i = 0; i < program->len; i++) {
		uint32_t index = program->rules[i];
		const struct kb_rule *rule =
			index < bundle->rules.len ? &bundle->rules.items[index] : NULL;
		char *text KB_FREE = rule ? kb_escape_dup(rule->text, strlen(rule->text)) : NULL;
		char line[LINE_LEN];
		int r;

		insn_text(line, sizeof(line), &program->insns[i], i);
		if (rule)
			r = kb_buf_printf(out, err, "%5zu  %-36s ; %s  %s\n", i, line, rule->id,
				text ? text : "");
		else
			r = kb_buf_printf(out, err, "%5zu  %s\n", i, line);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static const char *const action_names[] = {"allow", "deny", "kill", "ask"};
static const char *const record_names[] = {"none", "summary", "full"};
static const char *const directions[] = {"connect", "listen", "resolve"};
static const char *const mount_names[] = {"read", "write", "hide", "private"};
static const char *const limit_names[] = {
	"memory", "pids", "cpu", "time", "open-files", "disk", "egress", "notify-rate"};

static json_t *json_escaped(const char *text)
{
	char *safe KB_FREE = text ? kb_escape_dup(text, strlen(text)) : NULL;

	return safe ? json_string(safe) : json_null();
}

static void set(json_t *object, const char *key, json_t *value)
{
	json_object_set_new(object, key, value ? value : json_null());
}

static void set_rule(json_t *object, const struct kb_bundle *bundle, uint32_t rule)
{
	set(object, "rule",
		rule < bundle->rules.len ? json_escaped(bundle->rules.items[rule].id) : NULL);
}

static void set_decision(
	json_t *object, enum kb_action action, int errnum, enum kb_record_level record)
{
	const char *name = kb_errno_name(errnum);

	set(object, "action", json_string(action_names[action]));
	if (action == KB_DENY)
		set(object, "errno", name ? json_string(name) : json_integer(errnum));
	set(object, "record", json_string(record_names[record]));
}

static json_t *json_rule(const struct kb_rule *rule)
{
	json_t *object = json_object();

	set(object, "id", json_escaped(rule->id));
	set(object, "file", json_escaped(rule->file));
	set(object, "line", json_integer(rule->line));
	set(object, "text", json_escaped(rule->text));
	set_decision(object, rule->action, rule->errnum, rule->record);
	if (rule->reason)
		set(object, "reason", json_escaped(rule->reason));
	return object;
}

static json_t *json_rules(const struct kb_bundle *bundle)
{
	json_t *list = json_array();

	for (size_t i = 0; i < bundle->rules.len; i++)
		json_array_append_new(list, json_rule(&bundle->rules.items[i]));
	return list;
}

static json_t *json_mounts(const struct kb_bundle *bundle)
{
	json_t *list = json_array();

	for (size_t i = 0; i < bundle->mounts.len; i++) {
		const struct kb_mount *mount = &bundle->mounts.items[i];
		json_t *object = json_object();

		set(object, "kind", json_string(mount_names[mount->kind]));
		set(object, "path", json_escaped(mount->path));
		set(object, "optional", json_boolean(mount->optional));
		if (mount->glob)
			set(object, "glob", json_true());
		set_rule(object, bundle, mount->rule);
		json_array_append_new(list, object);
	}
	return list;
}

static json_t *json_access(unsigned access)
{
	static const char *const names[] = {"read", "write", "exec"};
	json_t *list = json_array();

	for (unsigned i = 0; i < 3; i++)
		if (access & (1u << i))
			json_array_append_new(list, json_string(names[i]));
	return list;
}

static json_t *json_paths(const struct kb_bundle *bundle)
{
	json_t *list = json_array();

	for (size_t i = 0; i < bundle->paths.len; i++) {
		const struct kb_path_rule *rule = &bundle->paths.items[i];
		json_t *object = json_object();

		set(object, "pattern", json_escaped(rule->pattern));
		set(object, "access", json_access(rule->access));
		set_decision(object, rule->action, rule->errnum, rule->record);
		set_rule(object, bundle, rule->rule);
		json_array_append_new(list, object);
	}
	return list;
}

static json_t *json_landlock_access(uint64_t access)
{
	static const char *const names[] = {"execute", "write_file", "read_file", "read_dir",
		"remove_dir", "remove_file", "make_char", "make_dir", "make_reg", "make_sock",
		"make_fifo", "make_block", "make_sym", "refer", "truncate", "ioctl_dev"};
	json_t *list = json_array();

	for (unsigned i = 0; i < KB_ARRAY_LEN(names); i++)
		if (access & (1ull << i))
			json_array_append_new(list, json_string(names[i]));
	return list;
}

static json_t *json_landlock(const struct kb_bundle *bundle)
{
	json_t *list = json_array();

	for (size_t i = 0; i < bundle->landlock.len; i++) {
		const struct kb_landlock_rule *rule = &bundle->landlock.items[i];
		json_t *object = json_object();

		set(object, "path", json_escaped(rule->path));
		set(object, "access", json_landlock_access(rule->access));
		set(object, "optional", json_boolean(rule->optional));
		set_rule(object, bundle, rule->rule);
		json_array_append_new(list, object);
	}
	return list;
}

static json_t *json_address(const struct kb_net_rule *rule)
{
	char text[INET6_ADDRSTRLEN] = "";

	inet_ntop(rule->address_len == 4 ? AF_INET : AF_INET6, rule->address, text, sizeof(text));
	return json_sprintf("%s/%u", text, rule->prefix);
}

static json_t *json_list(const char *const *items)
{
	json_t *list = json_array();

	for (; items && *items; items++)
		json_array_append_new(list, json_escaped(*items));
	return list;
}

static json_t *json_net(const struct kb_bundle *bundle)
{
	json_t *list = json_array();

	for (size_t i = 0; i < bundle->net.len; i++) {
		const struct kb_net_rule *rule = &bundle->net.items[i];
		json_t *object = json_object();

		set(object, "direction", json_string(directions[rule->direction]));
		if (rule->http)
			set(object, "http", json_list(rule->http));
		if (rule->host)
			set(object, "host", json_escaped(rule->host));
		else
			set(object, "address", json_address(rule));
		set(object, "port_lo", json_integer(rule->port_lo));
		set(object, "port_hi", json_integer(rule->port_hi));
		set_decision(object, rule->action, rule->errnum, rule->record);
		set_rule(object, bundle, rule->rule);
		json_array_append_new(list, object);
	}
	return list;
}

static json_t *json_limits(const struct kb_bundle *bundle)
{
	json_t *list = json_array();

	for (size_t i = 0; i < bundle->limits.len; i++) {
		const struct kb_limit *limit = &bundle->limits.items[i];
		json_t *object = json_object();

		set(object, "kind", json_string(limit_names[limit->kind]));
		set(object, "value", json_integer((json_int_t)limit->value));
		set(object, "optional", json_boolean(limit->optional));
		set_rule(object, bundle, limit->rule);
		json_array_append_new(list, object);
	}
	return list;
}

/* As the policy writes them. */
static json_t *json_endpoints(const struct kb_secret *secret)
{
	json_t *list = json_array();

	for (size_t i = 0; i < secret->n_endpoints; i++) {
		const struct kb_endpoint *e = &secret->endpoints[i];
		const char *open = strchr(e->host, ':') ? "[" : "", *close = open[0] ? "]" : "";

		json_array_append_new(list, json_sprintf("%s%s%s%s:%u", e->tls ? "" : "http://",
						    open, e->host, close, e->port));
	}
	return list;
}

static json_t *json_secrets(const struct kb_bundle *bundle)
{
	static const char *const from[] = {"env", "file", "command", "keyring"};
	static const char *const as[] = {"header", "bearer", "basic", "placeholder"};
	json_t *list = json_array();

	for (size_t i = 0; i < bundle->secrets.len; i++) {
		const struct kb_secret *secret = &bundle->secrets.items[i];
		json_t *object = json_object();

		set(object, "name", json_escaped(secret->name));
		set(object, "from", json_string(from[secret->from]));
		set(object, "source", json_escaped(secret->source));
		set(object, "for", json_endpoints(secret));
		set(object, "as", json_string(as[secret->as]));
		if (secret->as_name)
			set(object, "as_name", json_escaped(secret->as_name));
		set(object, "placeholder", json_escaped(secret->placeholder));
		if (secret->url)
			set(object, "url", json_escaped(secret->url));
		set(object, "intercept", json_boolean(secret->intercept));
		set(object, "optional", json_boolean(secret->optional));
		set_rule(object, bundle, secret->rule);
		json_array_append_new(list, object);
	}
	return list;
}

/* Values beyond 63 bits do not fit JSON integers everywhere: hexadecimal text. */
static json_t *json_hex(uint64_t value)
{
	return json_sprintf("0x%llx", (unsigned long long)value);
}

static json_t *json_conds(const struct kb_conds *conds)
{
	json_t *list = json_array();

	for (size_t i = 0; i < conds->len; i++) {
		const struct kb_cond *cond = &conds->items[i];
		json_t *object = json_object(), *in = json_array();

		for (size_t j = 0; j < cond->in.len; j++) {
			json_t *pair = json_array();

			json_array_append_new(pair, json_hex(cond->in.items[j].lo));
			json_array_append_new(pair, json_hex(cond->in.items[j].hi));
			json_array_append_new(in, pair);
		}
		set(object, "arg", json_integer(cond->arg));
		set(object, "width", json_integer(cond->width));
		set(object, "mask", json_hex(cond->mask));
		set(object, "in", in);
		json_array_append_new(list, object);
	}
	return list;
}

static json_t *json_clause(const struct kb_bundle *bundle, const struct kb_clause *clause)
{
	json_t *object = json_object();

	if (clause->conds.len)
		set(object, "if", json_conds(&clause->conds));
	set_decision(object, clause->action, clause->errnum, clause->record);
	set_rule(object, bundle, clause->rule);
	return object;
}

static json_t *json_table(const struct kb_bundle *bundle, const struct kb_table *table)
{
	json_t *object = json_object(), *calls = json_array();

	for (size_t i = 0; i < table->calls.len; i++) {
		const struct kb_table_call *call = &table->calls.items[i];
		const char *name = kb_syscall_name(table->arch, call->nr);
		json_t *entry = json_object(), *clauses = json_array();

		for (size_t j = 0; j < call->clauses.len; j++)
			json_array_append_new(
				clauses, json_clause(bundle, &call->clauses.items[j]));
		set(entry, "nr", json_integer(call->nr));
		set(entry, "name", name ? json_string(name) : NULL);
		set(entry, "clauses", clauses);
		json_array_append_new(calls, entry);
	}
	set(object, "arch", json_string(kb_arch_name(table->arch)));
	set(object, "other", json_clause(bundle, &table->other));
	set(object, "calls", calls);
	return object;
}

static json_t *json_strings(const char *const *items, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, json_escaped(items[i]));
	return list;
}

static json_t *json_default(const struct kb_bundle *bundle, const struct kb_verdict *verdict)
{
	json_t *object = json_object();

	set_decision(object, verdict->action, verdict->errnum, verdict->record);
	set_rule(object, bundle, verdict->rule);
	return object;
}

int kb_bundle_json(const struct kb_bundle *bundle, struct kb_buf *out, struct kb_err *err)
{
	json_t *root = json_object(), *tables = json_array();
	char *text;
	int r;

	for (size_t i = 0; i < bundle->tables.len; i++)
		json_array_append_new(tables, json_table(bundle, &bundle->tables.items[i]));
	set(root, "name", json_escaped(bundle->name));
	set(root, "files", json_strings(bundle->files.items, bundle->files.len));
	set(root, "rules", json_rules(bundle));
	set(root, "mounts", json_mounts(bundle));
	set(root, "landlock", json_landlock(bundle));
	set(root, "paths", json_paths(bundle));
	set(root, "path_default", json_default(bundle, &bundle->path_default));
	set(root, "net", json_net(bundle));
	set(root, "net_default", json_default(bundle, &bundle->net_default));
	set(root, "limits", json_limits(bundle));
	set(root, "secrets", json_secrets(bundle));
	set(root, "env", json_strings(bundle->env.items, bundle->env.len));
	set(root, "syscalls", tables);
	text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
	json_decref(root);
	if (!text)
		return kb_err_nomem(err);
	r = kb_buf_puts(out, text, err);
	free(text);
	return r < 0 ? r : kb_buf_puts(out, "\n", err);
}
