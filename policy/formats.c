/* What `policy compile --emit` writes, and the listings of rules and groups. */
#include "policy/formats.h"

#include <arpa/inet.h>
#include <jansson.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

/* ---- Landlock -------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	int abi; /* the first that has it */
} rights[] = {{"execute", 1}, {"write_file", 1}, {"read_file", 1}, {"read_dir", 1},
	{"remove_dir", 1}, {"remove_file", 1}, {"make_char", 1}, {"make_dir", 1}, {"make_reg", 1},
	{"make_sock", 1}, {"make_fifo", 1}, {"make_block", 1}, {"make_sym", 1}, {"refer", 2},
	{"truncate", 3}, {"ioctl_dev", 5}};

static int write_landlock(const struct kb_bundle *bundle, struct kb_buf *out, struct kb_err *err)
{
	int r = kb_buf_puts(out,
		"# path, rights beneath it, rule. Everything else is refused. Newer rights: refer "
		"from\n"
		"# ABI 2, truncate from 3, ioctl_dev from 5; an older kernel does not restrict "
		"them.\n",
		err);

	for (size_t i = 0; r >= 0 && i < bundle->landlock.len; i++) {
		const struct kb_landlock_rule *rule = &bundle->landlock.items[i];
		char *path KB_FREE = kb_escape_dup(rule->path, strlen(rule->path));
		char list[256] = "";

		for (size_t k = 0; k < KB_ARRAY_LEN(rights); k++)
			if (rule->access & (1ull << k))
				snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s",
					list[0] ? "," : "", rights[k].name);
		if (!path)
			return kb_err_nomem(err);
		r = kb_buf_printf(out, err, "%s %s %s%s\n", path, list,
			rule->rule < bundle->rules.len ? bundle->rules.items[rule->rule].id : "-",
			rule->optional ? " if-available" : "");
	}
	return r;
}

/* ---- nftables -------------------------------------------------------------------------------- */

static int nft_rule(const struct kb_bundle *bundle, const struct kb_net_rule *rule,
	struct kb_buf *out, struct kb_err *err)
{
	const char *id = rule->rule < bundle->rules.len ? bundle->rules.items[rule->rule].id : "-";
	const char *side = rule->direction == KB_NET_LISTEN ? "saddr" : "daddr";
	const char *proto = rule->protocol == IPPROTO_TCP   ? "tcp"
			    : rule->protocol == IPPROTO_UDP ? "udp"
							    : "th";
	char address[INET6_ADDRSTRLEN] = "", port[48] = "";
	bool all_ports = rule->port_lo == 0 && rule->port_hi == 65535;

	if (rule->host)
		return kb_buf_printf(out, err, "\t\t# %s:%u-%u by name, through the broker (%s)\n",
			rule->host, rule->port_lo, rule->port_hi, id);
	inet_ntop(rule->address_len == 4 ? AF_INET : AF_INET6, rule->address, address,
		sizeof(address));
	if (!all_ports)
		snprintf(
			port, sizeof(port), " %s dport %u-%u", proto, rule->port_lo, rule->port_hi);
	else if (rule->protocol)
		snprintf(port, sizeof(port), " meta l4proto %s", proto);
	return kb_buf_printf(out, err, "\t\t%s %s %s/%u%s %s comment \"%s\"\n",
		rule->address_len == 4 ? "ip" : "ip6", side, address, rule->prefix, port,
		rule->action == KB_ALLOW ? "accept" : "reject", id);
}

static int nft_chain(const struct kb_bundle *bundle, enum kb_net_direction direction,
	const char *name, struct kb_buf *out, struct kb_err *err)
{
	uint32_t index = bundle->net_default.rule;
	int r = kb_buf_printf(out, err,
		"\tchain %s {\n\t\ttype filter hook %s priority filter; policy drop;\n"
		"\t\tct state established,related accept\n",
		name, name);

	for (size_t i = 0; r >= 0 && i < bundle->net.len; i++)
		if (bundle->net.items[i].direction == direction)
			r = nft_rule(bundle, &bundle->net.items[i], out, err);
	return r < 0 ? r
		     : kb_buf_printf(out, err, "\t\tcounter reject comment \"%s\"\n\t}\n",
			       index < bundle->rules.len ? bundle->rules.items[index].id : "-");
}

/* In the order of the table: the first that matches decides, in nftables as here. */
static int write_nft(const struct kb_bundle *bundle, struct kb_buf *out, struct kb_err *err)
{
	int r = kb_buf_puts(out, "table inet kbsup {\n", err);

	if (r >= 0)
		r = nft_chain(bundle, KB_NET_CONNECT, "output", out, err);
	if (r >= 0)
		r = nft_chain(bundle, KB_NET_LISTEN, "input", out, err);
	return r < 0 ? r : kb_buf_puts(out, "}\n", err);
}

/* ---- Programs -------------------------------------------------------------------------------- */

static int write_program(const struct kb_bundle *bundle, bool disasm, uint32_t arch,
	enum kb_emit_lane lane, struct kb_buf *out, struct kb_err *err)
{
	struct kb_program program;
	int r = kb_bundle_emit(bundle, arch, lane, &program, err);

	if (r < 0)
		return r;
	r = disasm ? kb_program_disasm(&program, bundle, out, err)
		   : kb_buf_append(out, program.insns, program.len * sizeof(*program.insns), err);
	kb_program_finish(&program);
	return r;
}

int kb_emit_format_parse(const char *name)
{
	static const char *const names[] = {"bpf", "disasm", "oci", "landlock", "nft", "json"};

	for (size_t i = 0; i < KB_ARRAY_LEN(names); i++)
		if (!strcmp(names[i], name))
			return (int)i;
	return -1;
}

int kb_bundle_write(const struct kb_bundle *bundle, enum kb_emit_format format, uint32_t arch,
	enum kb_emit_lane lane, struct kb_buf *out, struct kb_err *err)
{
	switch (format) {
	case KB_EMIT_BPF:
	case KB_EMIT_DISASM:
		return write_program(bundle, format == KB_EMIT_DISASM, arch, lane, out, err);
	case KB_EMIT_OCI:
		return kb_write_oci(bundle, arch, out, err);
	case KB_EMIT_LANDLOCK:
		return write_landlock(bundle, out, err);
	case KB_EMIT_NFT:
		return write_nft(bundle, out, err);
	default:
		return kb_bundle_json(bundle, out, err);
	}
}

/* ---- Listings -------------------------------------------------------------------------------- */

size_t kb_policy_agents(const struct kb_policy *policy, const struct kb_agent **ret)
{
	*ret = policy->agents.items;
	return policy->agents.len;
}

static int dump(json_t *root, struct kb_buf *out, struct kb_err *err)
{
	char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
	int r = text ? kb_buf_printf(out, err, "%s\n", text) : kb_err_nomem(err);

	json_decref(root);
	free(text);
	return r;
}

int kb_policy_show(
	const struct kb_policy *policy, bool json, struct kb_buf *out, struct kb_err *err)
{
	json_t *list = json ? json_array() : NULL;
	int r = 0;

	for (size_t i = 0; r >= 0 && i < policy->stmts.len; i++) {
		const struct kb_stmt *stmt = policy->stmts.items[i];
		char *text KB_FREE = kb_escape_dup(stmt->text, strlen(stmt->text));
		char *file KB_FREE = kb_escape_dup(stmt->source->name, strlen(stmt->source->name));

		if (!text || !file) {
			r = kb_err_nomem(err);
		} else if (list) {
			json_array_append_new(list, json_pack("{s:s, s:i, s:i, s:s}", "file", file,
							    "line", (int)stmt->pos.line, "level",
							    (int)stmt->level, "text", text));
		} else {
			char place[160];

			snprintf(place, sizeof(place), "%s:%u", file, stmt->pos.line);
			r = kb_buf_printf(out, err, "%-24s %s\n", place, text);
		}
	}
	if (!list)
		return r;
	if (r >= 0)
		return dump(
			json_pack("{s:s, s:o}", "policy", policy->name, "rules", list), out, err);
	json_decref(list);
	return r;
}

int kb_groups_show(bool json, struct kb_buf *out, struct kb_err *err)
{
	json_t *object = json ? json_object() : NULL;
	int r = json ? 0 : kb_buf_printf(out, err, "groups %s\n", kb_groups_version);

	for (size_t i = 0; r >= 0 && i < kb_groups_len; i++) {
		json_t *list = json ? json_array() : NULL;

		if (!json)
			r = kb_buf_printf(out, err, "%-14s", kb_groups[i].name);
		for (size_t c = 0; r >= 0 && c < kb_groups[i].len; c++) {
			const char *name = kb_calls[kb_groups[i].calls[c]].name;

			if (json)
				json_array_append_new(list, json_string(name));
			else
				r = kb_buf_printf(out, err, " %s", name);
		}
		if (json)
			json_object_set_new(object, kb_groups[i].name, list);
		else if (r >= 0)
			r = kb_buf_puts(out, "\n", err);
	}
	return json ? dump(json_pack("{s:s, s:o}", "version", kb_groups_version, "groups", object),
			      out, err)
		    : r;
}
