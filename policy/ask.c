/* Questions from words:
 *
 *	question := [ "syscall" ] CALL [ "(" [ value { "," value } ] ")" ]
 *	          | ( "open" | "fs"? "read" | "write" ) PATH [ "read" | "write" ] | "exec" PATH
 *	          | "connect" [ "tcp" | "udp" ] TARGET | "listen" … | "resolve" HOST
 *	value    := [ ARG "=" ] ( bits | "path" | "_" )
 *
 * A string goes to the next argument that is a pointer, so `openat("/x", O_RDONLY)` means what it
 * looks like. Arguments that are not given are 0.
 */
#include "policy/ask.h"

#include <ctype.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "policy/lower.h"
#include "policy/parse.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

struct asker {
	struct kb_parser ps;
	size_t last;
	enum kb_arch_index arch;
	const struct kb_policy_options *opts;
	struct kb_question *q;
};

static bool at_end(const struct asker *as)
{
	return as->ps.at >= as->last || kb_parse_peek(&as->ps)->kind == KB_TOK_EOF;
}

static bool take(struct asker *as, const char *text)
{
	return !at_end(as) && kb_parse_accept(&as->ps, text);
}

static int fail(struct asker *as, const char *wanted)
{
	return kb_parse_fail(&as->ps, wanted);
}

/* ---- Paths ----------------------------------------------------------------------------------- */

static int ask_path(struct asker *as, const struct kb_token *token)
{
	struct kb_operand op = {.text = token->text, .pos = token->pos};

	as->q->path = kb_path_resolve(&op, as->opts, as->ps.arena, as->ps.diags);
	return as->q->path ? 0 : 1;
}

static int question_path(struct asker *as, unsigned access)
{
	int r;

	as->q->kind = KB_ASK_PATH;
	if (at_end(as) || kb_parse_peek(&as->ps)->kind == KB_TOK_PUNCT)
		return fail(as, "a path");
	r = ask_path(as, kb_parse_next(&as->ps));
	as->q->access = access;
	if (take(as, "read"))
		as->q->access = KB_FS_READ;
	else if (take(as, "write"))
		as->q->access = KB_FS_WRITE;
	return r;
}

/* ---- Addresses ------------------------------------------------------------------------------- */

static int question_net(struct asker *as, enum kb_net_direction direction)
{
	struct kb_stmt stmt = {.verb = direction == KB_NET_LISTEN    ? KB_VERB_LISTEN
				       : direction == KB_NET_RESOLVE ? KB_VERB_RESOLVE
								     : KB_VERB_CONNECT};
	struct kb_net_rule rules[KB_NET_PER_TARGET] = {0};
	struct kb_operand op;

	as->q->kind = KB_ASK_NET;
	as->q->direction = direction;
	as->q->protocol = take(as, "udp") ? IPPROTO_UDP : IPPROTO_TCP;
	take(as, "tcp");
	if (at_end(as) || kb_parse_peek(&as->ps)->kind == KB_TOK_PUNCT)
		return fail(as, "a host and port");
	op = (struct kb_operand){
		.text = kb_parse_peek(&as->ps)->text, .pos = kb_parse_peek(&as->ps)->pos};
	kb_parse_next(&as->ps);
	if (kb_net_parse(&stmt, &op, rules, as->ps.arena, as->ps.diags) < 1)
		return 1;
	as->q->host = rules[0].host;
	memcpy(as->q->address, rules[0].address, sizeof(as->q->address));
	as->q->address_len = rules[0].address_len;
	if (!as->q->host && as->q->address_len == 4 && as->q->address[0] == 127)
		as->q->address[3] |= !as->q->address[3];
	as->q->port = rules[0].port_lo;
	return 0;
}

/* ---- Calls ----------------------------------------------------------------------------------- */

static int find_argument(struct asker *as, const struct kb_token *token, unsigned *ret)
{
	const struct kb_call *call = &kb_calls[as->q->call];

	for (unsigned i = 0; i < call->n_args; i++)
		if (!strcmp(call->args[i].name, token->text)) {
			*ret = i;
			return 0;
		}
	kb_diag_error(as->ps.diags, token->pos, "%s has no argument '%s'", call->name, token->text);
	return 1;
}

/* A value is resolved by the condition code: "ARG = value" holds for exactly one value. */
static int number(struct asker *as, unsigned index)
{
	const struct kb_call *call = &kb_calls[as->q->call];
	struct kb_term term = {.arg = {.text = call->args[index].name}, .op = KB_OP_EQ};
	struct kb_terms terms = {&term, 1, 1};
	struct kb_value value = {{0}, {0}};
	struct kb_conds conds = {0};
	uint64_t plain;
	int r;

	term.arg.pos = kb_parse_peek(&as->ps)->pos;
	if (call->args[index].type == KB_T_PTR ||
		kb_parse_u64(kb_parse_peek(&as->ps)->text, &plain)) {
		/* any number may be asked for, also one the kernel would cut */
		if (!kb_parse_u64(kb_parse_peek(&as->ps)->text, &plain))
			return fail(as, "a number or a string");
		as->q->args[index] = plain;
		kb_parse_next(&as->ps);
		return 0;
	}
	do {
		if (at_end(as) || kb_parse_peek(&as->ps)->kind != KB_TOK_WORD)
			return fail(as, "a constant or a number");
		r = kb_parse_push(&as->ps, &value.lo, kb_parse_next(&as->ps));
	} while (!r && take(as, "|"));
	term.values.items = &value;
	term.values.len = term.values.cap = 1;
	if (r || kb_cond_resolve(call, as->arch, &terms, as->ps.arena, &conds, as->ps.diags) < 0)
		return 1;
	as->q->args[index] = conds.len ? conds.items[0].in.items[0].lo : 0;
	return 0;
}

static int argument(struct asker *as, unsigned *next)
{
	const struct kb_call *call = &kb_calls[as->q->call];
	const struct kb_token *token = kb_parse_peek(&as->ps);
	int r;

	if (token->kind == KB_TOK_WORD && as->ps.at + 1 < as->last &&
		as->ps.tokens->items[as->ps.at + 1].kind == KB_TOK_PUNCT &&
		!strcmp(as->ps.tokens->items[as->ps.at + 1].text, "=")) {
		if (find_argument(as, token, next))
			return 1;
		as->ps.at += 2;
		token = kb_parse_peek(&as->ps);
	}
	if (token->kind == KB_TOK_STRING)
		while (*next < call->n_args && call->args[*next].type != KB_T_PTR)
			(*next)++;
	if (*next >= call->n_args) {
		kb_diag_error(as->ps.diags, token->pos, "%s has %u argument%s", call->name,
			call->n_args, call->n_args == 1 ? "" : "s");
		return 1;
	}
	if (token->kind == KB_TOK_STRING) {
		r = as->q->path ? 0 : ask_path(as, token);
		as->q->args[*next] = 0x1000;
		kb_parse_next(&as->ps);
	} else if (kb_parse_is(&as->ps, "_")) {
		kb_parse_next(&as->ps);
		r = 0;
	} else {
		r = number(as, *next);
	}
	(*next)++;
	return r;
}

/* What a call does with the path it is given. */
static unsigned call_access(const struct kb_question *q)
{
	static const struct {
		const char *group;
		unsigned access;
	} groups[] = {{"@exec", KB_FS_EXEC}, {"@path-change", KB_FS_WRITE},
		{"@attr-change", KB_FS_WRITE}};
	const struct kb_group *open = kb_group_find("@open");
	const char *name = kb_calls[q->call].name;
	uint64_t flags = !strcmp(name, "open") ? q->args[1] : q->args[2];

	for (size_t i = 0; i < open->len; i++) {
		if (open->calls[i] != q->call)
			continue;
		if (!strcmp(name, "creat"))
			return KB_FS_WRITE;
		if (!strcmp(name, "openat2"))
			return KB_FS_READ;
		return (flags & 3) == 0	  ? KB_FS_READ | ((flags & 0x240) ? KB_FS_WRITE : 0)
		       : (flags & 3) == 1 ? KB_FS_WRITE
					  : KB_FS_READ | KB_FS_WRITE;
	}
	for (size_t g = 0; g < KB_ARRAY_LEN(groups); g++) {
		const struct kb_group *group = kb_group_find(groups[g].group);

		for (size_t i = 0; i < group->len; i++)
			if (group->calls[i] == q->call)
				return groups[g].access;
	}
	return 0;
}

static int question_call(struct asker *as)
{
	const struct kb_token *token = kb_parse_peek(&as->ps);
	unsigned next = 0;
	int r = 0;

	as->q->kind = KB_ASK_CALL;
	as->q->call = token->kind == KB_TOK_WORD ? kb_call_find(token->text) : -1;
	if (as->q->call < 0)
		return fail(as, "a system call, or read, write, exec, connect, listen, resolve");
	if (kb_calls[as->q->call].nr[as->arch] < 0) {
		kb_diag_error(as->ps.diags, token->pos, "%s has no system call %s",
			kb_arch_name(kb_arch_audit(as->arch)), token->text);
		return 1;
	}
	kb_parse_next(&as->ps);
	if (take(as, "(")) {
		while (!r && !at_end(as) && !kb_parse_is(&as->ps, ")")) {
			r = argument(as, &next);
			take(as, ",");
		}
		if (!r && !take(as, ")"))
			r = fail(as, "')'");
	}
	if (as->q->path)
		as->q->access = call_access(as->q);
	return r;
}

int kb_question_parse(const struct kb_tokens *tokens, size_t first, size_t last,
	enum kb_arch_index arch, const struct kb_policy_options *opts, struct kb_arena *arena,
	struct kb_question *ret, struct kb_diags *diags)
{
	static const struct {
		const char *word;
		unsigned access;
	} paths[] = {{"open", KB_FS_READ}, {"read", KB_FS_READ}, {"write", KB_FS_WRITE},
		{"exec", KB_FS_EXEC}};
	static const char *const nets[] = {"connect", "listen", "resolve"};
	struct asker as = {.ps = {.tokens = tokens, .arena = arena, .diags = diags, .at = first},
		.last = last,
		.arch = arch,
		.opts = opts,
		.q = ret};
	bool call = first + 1 < last && tokens->items[first + 1].kind == KB_TOK_PUNCT;
	int r;

	*ret = (struct kb_question){.call = -1};
	take(&as, "fs");
	if (take(&as, "syscall"))
		call = true;
	/* A name that is also a call's is the call when it has parentheses or nothing behind it. */
	call = call || as.ps.at + 1 >= last || tokens->items[as.ps.at + 1].kind == KB_TOK_EOF;
	r = 2;
	for (size_t i = 0; r == 2 && !call && i < KB_ARRAY_LEN(paths); i++)
		if (take(&as, paths[i].word))
			r = question_path(&as, paths[i].access);
	for (size_t i = 0; r == 2 && !call && i < KB_ARRAY_LEN(nets); i++)
		if (take(&as, nets[i]))
			r = question_net(&as, (enum kb_net_direction)i);
	if (r == 2)
		r = question_call(&as);
	if (!r && !at_end(&as))
		r = fail(&as, "nothing more");
	return r;
}
