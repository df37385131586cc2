/* Statements with a shape of their own (net), and the agent and test blocks. */
#include <string.h>

#include "policy/parse.h"
#include "supervisor/base/util.h"

/* ---- net ------------------------------------------------------------------------------------- */

/* Names, where `a..b` is one. */
static int parse_targets(struct kb_parser *ps, struct kb_operands *out)
{
	if (kb_parse_name_ends(ps))
		return kb_parse_fail(ps, "a host, an address or `loopback`");
	while (!kb_parse_name_ends(ps) && !kb_parse_is(ps, "http")) {
		const struct kb_token *token = kb_parse_next(ps);
		int r = kb_parse_push(ps, out, token);

		if (!r && kb_parse_accept(ps, "..")) {
			struct kb_operand *op = &out->items[out->len - 1];

			op->text = kb_arena_printf(
				ps->arena, "%s..%s", token->text, kb_parse_peek(ps)->text);
			op->pos.len += 2 + kb_parse_next(ps)->pos.len;
			r = op->text ? 0 : -1;
		}
		if (r)
			return r;
		kb_parse_accept(ps, ",");
	}
	return 0;
}

static bool is_method(const struct kb_parser *ps)
{
	static const char *const names[] = {
		"get", "head", "post", "put", "patch", "delete", "options", "any"};

	for (size_t i = 0; i < KB_ARRAY_LEN(names); i++)
		if (kb_parse_is(ps, names[i]))
			return true;
	return false;
}

/* http { METHOD "path" … }: kept as "METHOD path" */
static int parse_http(struct kb_parser *ps, struct kb_stmt *stmt)
{
	if (!is_method(ps))
		return kb_parse_fail(
			ps, "a method: get, head, post, put, patch, delete, options, any");
	while (is_method(ps)) {
		const struct kb_token *method = kb_parse_next(ps);

		if (kb_parse_peek(ps)->kind != KB_TOK_STRING)
			return kb_parse_fail(ps, "a path in quotes");
		while (kb_parse_peek(ps)->kind == KB_TOK_STRING) {
			const struct kb_token *path = kb_parse_next(ps);
			int r = kb_parse_push(ps, &stmt->http, path);
			struct kb_operand *op;

			if (r)
				return r;
			op = &stmt->http.items[stmt->http.len - 1];
			if (path->text[0] != '/') {
				kb_diag_error(ps->diags, path->pos, "a path begins with '/'");
				return 1;
			}
			op->text = kb_arena_printf(ps->arena, "%s %s", method->text, path->text);
			if (!op->text)
				return -1;
		}
	}
	return 0;
}

int kb_parse_net(struct kb_parser *ps, struct kb_stmt *stmt)
{
	static const char *const protos[] = {"tcp", "udp"};
	int r;

	if (stmt->verb == KB_VERB_DEFAULT || stmt->verb == KB_VERB_DENY) {
		r = stmt->verb == KB_VERB_DEFAULT ? kb_parse_expect(ps, "deny") : 0;
		stmt->action = KB_DENY;
		if (!r)
			r = kb_parse_errno(ps, stmt, KB_LINUX_ENETUNREACH);
		if (r || stmt->verb == KB_VERB_DEFAULT)
			return r;
	}
	for (size_t i = 0; i < KB_ARRAY_LEN(protos); i++)
		if (kb_parse_accept(ps, protos[i]))
			stmt->proto = protos[i];
	r = parse_targets(ps, &stmt->ops);
	if (r || !kb_parse_is(ps, "http"))
		return r;
	if (stmt->verb != KB_VERB_CONNECT)
		return kb_parse_fail(ps, "http only after connect");
	kb_parse_next(ps);
	return parse_http(ps, stmt);
}

/* ---- agent ----------------------------------------------------------------------------------- */

static int agent_name(struct kb_parser *ps, const char **ret, const char *what)
{
	const struct kb_token *token = kb_parse_peek(ps);

	if (token->kind != KB_TOK_STRING && token->kind != KB_TOK_WORD)
		return kb_parse_fail(ps, what);
	*ret = kb_parse_next(ps)->text;
	return 0;
}

/* Strings, NULL-terminated. */
static int agent_words(struct kb_parser *ps, const char *const **ret, const char *what)
{
	struct kb_operands words = {0};
	const char **argv;

	while (kb_parse_peek(ps)->kind == KB_TOK_STRING) {
		int r = kb_parse_push(ps, &words, kb_parse_next(ps));

		if (r)
			return r;
	}
	if (!words.len)
		return kb_parse_fail(ps, what);
	argv = kb_arena_alloc(ps->arena, (words.len + 1) * sizeof(*argv));
	if (!argv)
		return -1;
	for (size_t i = 0; i < words.len; i++)
		argv[i] = words.items[i].text;
	*ret = argv;
	return 0;
}

static int agent_line(struct kb_parser *ps, struct kb_agent *agent)
{
	int r;

	if (kb_parse_accept(ps, "policy"))
		return agent_name(ps, &agent->policy, "the name of a policy");
	if (kb_parse_accept(ps, "command"))
		return agent_words(ps, &agent->command, "the command in quotes");
	if (kb_parse_accept(ps, "rootfs"))
		return agent_words(ps, &agent->programs, "the name of a program in quotes");
	if (kb_parse_accept(ps, "package")) {
		r = agent_name(ps, &agent->package_kind, "npm, pip or apt");
		return r ? r : agent_name(ps, &agent->package, "the package's name");
	}
	if (kb_parse_accept(ps, "context")) {
		r = kb_parse_expect(ps, "file");
		return r ? r : agent_name(ps, &agent->context, "a path in quotes");
	}
	return kb_parse_fail(ps, "policy, command, package, rootfs or context");
}

/* agent NAME { … } */
int kb_parse_agent(struct kb_parser *ps, struct kb_unit *unit)
{
	static const char *const nothing[] = {NULL};
	struct kb_agent *agent = KB_ARENA_PUSH(ps->arena, &unit->agents);
	int r;

	if (!agent)
		return -1;
	agent->line = kb_parse_peek(ps)->pos.line;
	agent->file = ps->source->name;
	agent->command = nothing;
	agent->programs = nothing;
	r = agent_name(ps, &agent->name, "the agent's name");
	agent->policy = agent->name;
	if (!r)
		r = kb_parse_expect(ps, "{");
	while (!r && !kb_parse_accept(ps, "}"))
		if (!kb_parse_accept(ps, ";"))
			r = agent_line(ps, agent);
	return r;
}

/* ---- test ------------------------------------------------------------------------------------ */

/* The words of one expectation: up to the end of the line, `;`, `returns` or the closing brace. */
static int expectation(struct kb_parser *ps, struct kb_expect *expect)
{
	static const char *const names[] = {"allow", "deny", "kill", "ask", "syscall"};
	size_t i = 0;

	expect->pos = kb_parse_peek(ps)->pos;
	while (i < KB_ARRAY_LEN(names) && !kb_parse_accept(ps, names[i]))
		i++;
	if (i == KB_ARRAY_LEN(names))
		return kb_parse_fail(ps, "allow, deny, kill, ask or syscall");
	expect->action = i < 4 ? (enum kb_action)i : KB_ALLOW;
	if (i == KB_DENY && kb_parse_peek(ps)->kind == KB_TOK_WORD)
		expect->errnum = kb_errno_parse(kb_parse_peek(ps)->text);
	ps->at += expect->errnum != 0;
	expect->first = ps->at;
	while (!kb_parse_is(ps, "}") && !kb_parse_is(ps, ";") && !kb_parse_is(ps, "returns") &&
		kb_parse_peek(ps)->kind != KB_TOK_EOF &&
		(ps->at == expect->first || !kb_parse_peek(ps)->first))
		ps->at++;
	expect->last = ps->at;
	if (expect->first == expect->last)
		return kb_parse_fail(ps, "what is asked");
	if (i == 4) {
		int r = kb_parse_expect(ps, "returns");

		return r ? r : kb_parse_returns(ps, expect);
	}
	return 0;
}

int kb_parse_returns(struct kb_parser *ps, struct kb_expect *expect)
{
	static const char *const words[] = {"allowed", "denied", "killed", "asked"};

	for (size_t i = 0; i < KB_ARRAY_LEN(words); i++)
		if (kb_parse_accept(ps, words[i])) {
			expect->action = (enum kb_action)i;
			return 0;
		}
	expect->action = KB_DENY;
	expect->errnum = kb_errno_parse(kb_parse_peek(ps)->text);
	if (!expect->errnum)
		return kb_parse_fail(ps, "an errno, allowed, denied, killed or asked");
	ps->at++;
	return 0;
}

/* test "name" { … } */
int kb_parse_test(struct kb_parser *ps, struct kb_unit *unit)
{
	struct kb_test *test = KB_ARENA_PUSH(ps->arena, &unit->tests);
	int r;

	if (!test)
		return -1;
	test->pos = kb_parse_peek(ps)->pos;
	test->tokens = ps->tokens;
	if (kb_parse_peek(ps)->kind != KB_TOK_STRING)
		return kb_parse_fail(ps, "the test's name in quotes");
	test->name = kb_parse_next(ps)->text;
	r = kb_parse_expect(ps, "{");
	while (!r && !kb_parse_accept(ps, "}")) {
		struct kb_expect *expect;

		if (kb_parse_accept(ps, ";"))
			continue;
		expect = KB_ARENA_PUSH(ps->arena, &test->expects);
		r = expect ? expectation(ps, expect) : -1;
	}
	return r;
}
