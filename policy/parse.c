/* Tokens to statements. One table row per kind of statement says which verbs it has and which
 * modifiers it takes; what follows the verb is one of a few shapes (paths, names, calls …).
 *
 * Line ends mean nothing: a statement ends where the next one's keyword, a `}` or a `;` stands.
 * After an error the parser goes on at the next statement that begins a line, so that one run shows
 * several mistakes.
 */
#include <stdlib.h>
#include <string.h>

#include "policy/parse.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

struct verb_spec {
	const char *name;
	enum kb_verb verb;
};

struct stmt_spec {
	const char *keyword;
	enum kb_stmt_kind kind;
	const struct verb_spec *verbs; /* NULL: the keyword alone */
	size_t n_verbs;
	unsigned modifiers;
	int (*parse)(struct kb_parser *ps, struct kb_stmt *stmt);
};

/* ---- Tokens ---------------------------------------------------------------------------------- */

const struct kb_token *kb_parse_peek(const struct kb_parser *ps)
{
	return &ps->tokens->items[ps->at];
}

const struct kb_token *kb_parse_next(struct kb_parser *ps)
{
	const struct kb_token *token = kb_parse_peek(ps);

	if (token->kind != KB_TOK_EOF)
		ps->at++;
	return token;
}

static bool is(const struct kb_token *token, enum kb_tok kind, const char *text)
{
	return token->kind == kind && !strcmp(token->text, text);
}

bool kb_parse_is(const struct kb_parser *ps, const char *text)
{
	const struct kb_token *token = kb_parse_peek(ps);

	return token->kind != KB_TOK_STRING && token->kind != KB_TOK_EOF &&
	       !strcmp(token->text, text);
}

bool kb_parse_accept(struct kb_parser *ps, const char *text)
{
	if (!kb_parse_is(ps, text))
		return false;
	ps->at++;
	return true;
}

int kb_parse_fail(struct kb_parser *ps, const char *wanted)
{
	const struct kb_token *token = kb_parse_peek(ps);

	if (token->kind == KB_TOK_EOF)
		kb_diag_error(ps->diags, token->pos, "expected %s, but the file ends here", wanted);
	else
		kb_diag_error(ps->diags, token->pos, "expected %s, not '%s'", wanted, token->text);
	return 1;
}

int kb_parse_expect(struct kb_parser *ps, const char *text)
{
	char wanted[64];

	if (kb_parse_accept(ps, text))
		return 0;
	snprintf(wanted, sizeof(wanted), "'%s'", text);
	return kb_parse_fail(ps, wanted);
}

int kb_parse_push(struct kb_parser *ps, struct kb_operands *list, const struct kb_token *token)
{
	struct kb_operand *op;

	if (list->len >= KB_OPERANDS_MAX) {
		kb_diag_error(ps->diags, token->pos, "more than %d items", KB_OPERANDS_MAX);
		return 1;
	}
	op = KB_ARENA_PUSH(ps->arena, list);
	if (!op)
		return -1;
	op->text = token->text;
	op->pos = token->pos;
	op->quoted = token->kind == KB_TOK_STRING;
	return 0;
}

/* ---- Modifiers ------------------------------------------------------------------------------- */

#define MOD_RECORD   1u
#define MOD_REASON   2u
#define MOD_OPTIONAL 4u
#define MOD_OVERRIDE 8u
#define MOD_EXCEPT   16u
#define MOD_OBSERVE  32u

static int parse_paths(struct kb_parser *ps, struct kb_operands *list, bool some)
{
	if (some && kb_parse_peek(ps)->kind != KB_TOK_STRING) {
		int r = kb_parse_fail(ps, "a path in quotes");

		if (strchr("/~.$", kb_parse_peek(ps)->text[0]) && kb_parse_peek(ps)->text[0])
			kb_diag_hint(ps->diags, "write \"%s\"", kb_parse_peek(ps)->text);
		return r;
	}
	while (kb_parse_peek(ps)->kind == KB_TOK_STRING) {
		int r = kb_parse_push(ps, list, kb_parse_next(ps));

		if (r)
			return r;
		kb_parse_accept(ps, ",");
	}
	return 0;
}

static int mod_record(struct kb_parser *ps, struct kb_stmt *stmt)
{
	static const char *const names[] = {"none", "summary", "full", "argv"};
	static const enum kb_record_level levels[] = {
		KB_RECORD_NONE, KB_RECORD_SUMMARY, KB_RECORD_FULL, KB_RECORD_FULL};

	for (size_t i = 0; i < KB_ARRAY_LEN(names); i++)
		if (kb_parse_accept(ps, names[i])) {
			stmt->has_record = true;
			stmt->record = levels[i];
			return 0;
		}
	return kb_parse_fail(ps, "none, summary or full");
}

static int mod_reason(struct kb_parser *ps, struct kb_stmt *stmt)
{
	if (kb_parse_peek(ps)->kind != KB_TOK_STRING)
		return kb_parse_fail(ps, "the reason in quotes");
	stmt->reason = kb_parse_next(ps)->text;
	return 0;
}

static int mod_optional(struct kb_parser *ps, struct kb_stmt *stmt)
{
	(void)ps;
	stmt->optional = true;
	return 0;
}

static int mod_override(struct kb_parser *ps, struct kb_stmt *stmt)
{
	(void)ps;
	stmt->override_ = true;
	return 0;
}

static int mod_observe(struct kb_parser *ps, struct kb_stmt *stmt)
{
	(void)ps;
	stmt->observe = true;
	return 0;
}

static int mod_except(struct kb_parser *ps, struct kb_stmt *stmt)
{
	return parse_paths(ps, &stmt->except, true);
}

static const struct {
	const char *keyword;
	unsigned bit;
	int (*parse)(struct kb_parser *ps, struct kb_stmt *stmt);
} modifiers[] = {
	{"record", MOD_RECORD, mod_record},
	{"reason", MOD_REASON, mod_reason},
	{"if-available", MOD_OPTIONAL, mod_optional},
	{"override", MOD_OVERRIDE, mod_override},
	{"except", MOD_EXCEPT, mod_except},
	{"observe-only", MOD_OBSERVE, mod_observe},
};

static int parse_modifiers(struct kb_parser *ps, struct kb_stmt *stmt, const struct stmt_spec *spec)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(modifiers);) {
		const struct kb_token *token = kb_parse_peek(ps);
		int r;

		if (!is(token, KB_TOK_WORD, modifiers[i].keyword)) {
			i++;
			continue;
		}
		if (!(spec->modifiers & modifiers[i].bit)) {
			kb_diag_error(ps->diags, token->pos, "'%s' means nothing in a%s %s rule",
				token->text, strchr("aeiou", spec->keyword[0]) ? "n" : "",
				spec->keyword);
			return 1;
		}
		ps->at++;
		r = modifiers[i].parse(ps, stmt);
		if (r)
			return r;
		i = 0;
	}
	return 0;
}

/* A number in its place is an error too: it would differ from one architecture to the next. */
static bool looks_like_errno(const struct kb_token *token)
{
	return token->kind == KB_TOK_WORD &&
	       (token->text[0] == 'E' || token->text[strspn(token->text, "0123456789")] == '\0');
}

/* An optional errno after deny. */
int kb_parse_errno(struct kb_parser *ps, struct kb_stmt *stmt, int fallback)
{
	const struct kb_token *token = kb_parse_peek(ps);

	stmt->errnum = fallback;
	if (!looks_like_errno(token))
		return 0;
	stmt->errnum = kb_errno_parse(token->text);
	if (!stmt->errnum) {
		kb_diag_error(ps->diags, token->pos, "'%s' is no error's name", token->text);
		kb_diag_hint(ps->diags, "for example EPERM, EACCES, ENOSYS");
		return 1;
	}
	ps->at++;
	return 0;
}

/* allow | deny [ERRNO] | kill | ask */
static int parse_action(struct kb_parser *ps, struct kb_stmt *stmt, int errno_fallback)
{
	static const char *const names[] = {"allow", "deny", "kill", "ask"};
	static const enum kb_action actions[] = {KB_ALLOW, KB_DENY, KB_KILL, KB_ASK};
	const char *near;

	for (size_t i = 0; i < KB_ARRAY_LEN(names); i++) {
		if (!kb_parse_accept(ps, names[i]))
			continue;
		stmt->has_action = true;
		stmt->action = actions[i];
		stmt->errnum = actions[i] == KB_ASK ? errno_fallback : 0;
		if (actions[i] == KB_ASK && kb_parse_peek(ps)->kind == KB_TOK_STRING)
			stmt->reason = kb_parse_next(ps)->text;
		return actions[i] == KB_DENY ? kb_parse_errno(ps, stmt, errno_fallback) : 0;
	}
	kb_parse_fail(ps, "allow, deny, kill or ask");
	near = kb_diag_near(kb_parse_peek(ps)->text, names, KB_ARRAY_LEN(names));
	if (near)
		kb_diag_hint(ps->diags, "did you mean %s?", near);
	return 1;
}

/* ---- Statements ------------------------------------------------------------------------------ */

static int parse_fs(struct kb_parser *ps, struct kb_stmt *stmt)
{
	stmt->action =
		stmt->verb == KB_VERB_DENY || stmt->verb == KB_VERB_DEFAULT ? KB_DENY : KB_ALLOW;
	if (stmt->verb == KB_VERB_DEFAULT) {
		int r = kb_parse_expect(ps, "deny");

		return r ? r : kb_parse_errno(ps, stmt, EACCES);
	}
	if (stmt->verb == KB_VERB_PRIVATE)
		stmt->read_only = kb_parse_accept(ps, "read");
	if (stmt->verb == KB_VERB_DENY) {
		int r = kb_parse_errno(ps, stmt, EACCES);

		if (r)
			return r;
	}
	return parse_paths(ps, &stmt->ops, true);
}

static int parse_exec(struct kb_parser *ps, struct kb_stmt *stmt)
{
	stmt->action = stmt->verb == KB_VERB_DENY ? KB_DENY : KB_ALLOW;
	if (stmt->verb == KB_VERB_DENY) {
		int r = kb_parse_errno(ps, stmt, EACCES);

		if (r)
			return r;
	}
	return parse_paths(ps, &stmt->ops, true);
}

static int parse_workspace(struct kb_parser *ps, struct kb_stmt *stmt)
{
	bool restricts = stmt->verb == KB_VERB_HIDE || stmt->verb == KB_VERB_PROTECT;

	stmt->action = restricts ? KB_DENY : KB_ALLOW;
	stmt->errnum = stmt->verb == KB_VERB_PROTECT ? EROFS : ENOENT;
	return parse_paths(ps, &stmt->ops, true);
}

bool kb_parse_name_ends(const struct kb_parser *ps)
{
	const struct kb_token *token = kb_parse_peek(ps);

	return token->kind != KB_TOK_STRING &&
	       (token->kind != KB_TOK_WORD || kb_parse_reserved(token->text));
}

static int parse_names(struct kb_parser *ps, struct kb_stmt *stmt, const char *what)
{
	if (kb_parse_name_ends(ps))
		return kb_parse_fail(ps, what);
	while (!kb_parse_name_ends(ps)) {
		int r = kb_parse_push(ps, &stmt->ops, kb_parse_next(ps));

		if (r)
			return r;
		kb_parse_accept(ps, ",");
	}
	return 0;
}

static int parse_env(struct kb_parser *ps, struct kb_stmt *stmt)
{
	int r;

	if (stmt->verb != KB_VERB_SET)
		return parse_names(ps, stmt, "the name of a variable");
	if (kb_parse_name_ends(ps))
		return kb_parse_fail(ps, "the name of a variable");
	r = kb_parse_push(ps, &stmt->ops, kb_parse_next(ps));
	if (r)
		return r;
	if (kb_parse_peek(ps)->kind != KB_TOK_STRING)
		return kb_parse_fail(ps, "the value in quotes");
	return kb_parse_push(ps, &stmt->ops, kb_parse_next(ps));
}

static int parse_limit(struct kb_parser *ps, struct kb_stmt *stmt)
{
	for (int i = 0; i < 2; i++) {
		int r;

		if (kb_parse_name_ends(ps))
			return kb_parse_fail(ps, i ? "a value" : "what to limit");
		r = kb_parse_push(ps, &stmt->ops, kb_parse_next(ps));
		if (r)
			return r;
	}
	return 0;
}

static int parse_syscall(struct kb_parser *ps, struct kb_stmt *stmt)
{
	/* kill is a call and an action: first, it is the call. */
	int r = kb_parse_is(ps, "kill") ? kb_parse_push(ps, &stmt->ops, kb_parse_next(ps)) : 0;

	if (!r && (!stmt->ops.len || !kb_parse_name_ends(ps)))
		r = parse_names(ps, stmt, "the name of a system call");

	if (!r && kb_parse_accept(ps, "{")) {
		stmt->has_cond = true;
		r = kb_parse_cond(ps, &stmt->cond);
	}
	return r ? r : parse_action(ps, stmt, EPERM);
}

static int parse_group(struct kb_parser *ps, struct kb_stmt *stmt)
{
	int r = 0;

	if (kb_parse_peek(ps)->text[0] != '@')
		return kb_parse_fail(ps, "the name of a group, like @ptrace");
	while (!r && kb_parse_peek(ps)->kind == KB_TOK_WORD && kb_parse_peek(ps)->text[0] == '@')
		r = kb_parse_push(ps, &stmt->ops, kb_parse_next(ps));
	return r ? r : parse_action(ps, stmt, EPERM);
}

static int parse_default(struct kb_parser *ps, struct kb_stmt *stmt)
{
	return parse_action(ps, stmt, KB_LINUX_ENOSYS);
}

static int parse_let(struct kb_parser *ps, struct kb_stmt *stmt)
{
	int r;

	if (kb_parse_name_ends(ps))
		return kb_parse_fail(ps, "the name of a variable");
	r = kb_parse_push(ps, &stmt->ops, kb_parse_next(ps));
	kb_parse_accept(ps, "=");
	if (!r && kb_parse_peek(ps)->kind != KB_TOK_STRING)
		return kb_parse_fail(ps, "the value in quotes");
	return r ? r : kb_parse_push(ps, &stmt->ops, kb_parse_next(ps));
}

/* hosts @NAME "host:port" … */
static int parse_hosts(struct kb_parser *ps, struct kb_stmt *stmt)
{
	int r;

	if (kb_parse_peek(ps)->kind != KB_TOK_WORD || kb_parse_peek(ps)->text[0] != '@')
		return kb_parse_fail(ps, "the name of a group, like @mirror");
	r = kb_parse_push(ps, &stmt->ops, kb_parse_next(ps));
	if (!r && kb_parse_peek(ps)->kind != KB_TOK_STRING)
		return kb_parse_fail(ps, "a host in quotes, like \"mirror.example.com:443\"");
	while (!r && kb_parse_peek(ps)->kind == KB_TOK_STRING)
		r = kb_parse_push(ps, &stmt->ops, kb_parse_next(ps));
	return r;
}

static int parse_groups(struct kb_parser *ps, struct kb_stmt *stmt)
{
	return kb_parse_peek(ps)->kind == KB_TOK_WORD
		       ? kb_parse_push(ps, &stmt->ops, kb_parse_next(ps))
		       : kb_parse_fail(ps, "a version of the groups");
}

static const struct verb_spec fs_verbs[] = {
	{"read", KB_VERB_READ},
	{"write", KB_VERB_WRITE},
	{"deny", KB_VERB_DENY},
	{"exec", KB_VERB_EXEC},
	{"private", KB_VERB_PRIVATE},
	{"keep", KB_VERB_KEEP},
	{"default", KB_VERB_DEFAULT},
};
static const struct verb_spec exec_verbs[] = {{"allow", KB_VERB_ALLOW}, {"deny", KB_VERB_DENY}};
static const struct verb_spec env_verbs[] = {
	{"pass", KB_VERB_PASS}, {"set", KB_VERB_SET}, {"drop", KB_VERB_DROP}};
static const struct verb_spec workspace_verbs[] = {
	{"write", KB_VERB_WRITE},
	{"read", KB_VERB_READ},
	{"hide", KB_VERB_HIDE},
	{"protect", KB_VERB_PROTECT},
};
static const struct verb_spec net_verbs[] = {
	{"connect", KB_VERB_CONNECT},
	{"listen", KB_VERB_LISTEN},
	{"resolve", KB_VERB_RESOLVE},
	{"deny", KB_VERB_DENY},
	{"default", KB_VERB_DEFAULT},
};

#define VERBS(v)   v, KB_ARRAY_LEN(v)
#define MOD_COMMON (MOD_RECORD | MOD_REASON | MOD_OVERRIDE)

static const struct stmt_spec specs[] = {
	{"fs", KB_STMT_FS, VERBS(fs_verbs), MOD_COMMON | MOD_OPTIONAL | MOD_EXCEPT | MOD_OBSERVE,
		parse_fs},
	{"exec", KB_STMT_EXEC, VERBS(exec_verbs),
		MOD_COMMON | MOD_OPTIONAL | MOD_EXCEPT | MOD_OBSERVE, parse_exec},
	{"env", KB_STMT_ENV, VERBS(env_verbs), MOD_REASON | MOD_OVERRIDE, parse_env},
	{"limit", KB_STMT_LIMIT, NULL, 0, MOD_REASON | MOD_OPTIONAL | MOD_OVERRIDE, parse_limit},
	{"syscall", KB_STMT_SYSCALL, NULL, 0, MOD_COMMON, parse_syscall},
	{"group", KB_STMT_GROUP, NULL, 0, MOD_COMMON, parse_group},
	{"default", KB_STMT_DEFAULT, NULL, 0, MOD_COMMON, parse_default},
	{"workspace", KB_STMT_WORKSPACE, VERBS(workspace_verbs), MOD_COMMON | MOD_OPTIONAL,
		parse_workspace},
	{"net", KB_STMT_NET, VERBS(net_verbs), MOD_COMMON | MOD_OPTIONAL, kb_parse_net},
	{"secret", KB_STMT_SECRET, NULL, 0, MOD_REASON | MOD_OPTIONAL | MOD_OVERRIDE,
		kb_parse_secret},
	{"let", KB_STMT_LET, NULL, 0, 0, parse_let},
	{"hosts", KB_STMT_HOSTS, NULL, 0, 0, parse_hosts},
	{"groups", KB_STMT_GROUPS, NULL, 0, 0, parse_groups},
};

bool kb_parse_reserved(const char *word)
{
	static const char *const others[] = {
		"policy", "agent", "test", "extends", "allow", "deny", "kill", "ask"};

	for (size_t i = 0; i < KB_ARRAY_LEN(specs); i++)
		if (!strcmp(word, specs[i].keyword))
			return true;
	for (size_t i = 0; i < KB_ARRAY_LEN(modifiers); i++)
		if (!strcmp(word, modifiers[i].keyword))
			return true;
	for (size_t i = 0; i < KB_ARRAY_LEN(others); i++)
		if (!strcmp(word, others[i]))
			return true;
	return false;
}

static const struct stmt_spec *find_spec(struct kb_parser *ps, const struct kb_token *token)
{
	const char *names[KB_ARRAY_LEN(specs)], *near;

	for (size_t i = 0; i < KB_ARRAY_LEN(specs); i++) {
		names[i] = specs[i].keyword;
		if (is(token, KB_TOK_WORD, names[i]))
			return &specs[i];
	}
	kb_diag_error(ps->diags, token->pos, "'%s' does not begin a rule", token->text);
	near = kb_diag_near(token->text, names, KB_ARRAY_LEN(names));
	if (near)
		kb_diag_hint(ps->diags, "did you mean %s?", near);
	return NULL;
}

static int parse_verb(struct kb_parser *ps, struct kb_stmt *stmt, const struct stmt_spec *spec)
{
	const struct kb_token *token = kb_parse_peek(ps);
	const char *names[8], *near;
	char wanted[128] = "";

	for (size_t i = 0; i < spec->n_verbs; i++) {
		names[i] = spec->verbs[i].name;
		if (is(token, KB_TOK_WORD, names[i])) {
			ps->at++;
			stmt->verb = spec->verbs[i].verb;
			return 0;
		}
		snprintf(wanted + strlen(wanted), sizeof(wanted) - strlen(wanted), "%s%s",
			!i			 ? ""
			: i + 1 == spec->n_verbs ? " or "
						 : ", ",
			names[i]);
	}
	near = kb_diag_near(token->text, names, spec->n_verbs);
	kb_parse_fail(ps, wanted);
	if (near)
		kb_diag_hint(ps->diags, "did you mean %s?", near);
	return 1;
}

/* The statement's text between two tokens, white space and comments reduced to single blanks. */
static const char *stmt_text(struct kb_parser *ps, size_t from, size_t to)
{
	struct kb_buf buf KB_BUF_CLEANUP;
	const char *ret;
	bool ok = true;

	kb_buf_init(&buf, KB_RULE_TEXT_MAX + 64);
	for (size_t i = from; i < to && ok && kb_buf_len(&buf) < KB_RULE_TEXT_MAX; i++) {
		const struct kb_token *token = &ps->tokens->items[i];
		const char *text = ps->source->text + token->offset;
		size_t len = KB_MIN(token->pos.len, KB_RULE_TEXT_MAX - kb_buf_len(&buf));

		ok = kb_buf_append(&buf, i > from ? " " : "", i > from, NULL) >= 0 &&
		     kb_buf_append(&buf, text, len, NULL) >= 0;
	}
	ret = ok ? kb_arena_strndup(ps->arena, (const char *)kb_buf_data(&buf), kb_buf_len(&buf))
		 : NULL;
	return ret;
}

static struct kb_pos span(const struct kb_token *from, const struct kb_token *to)
{
	struct kb_pos pos = from->pos;

	if (to->pos.line == pos.line && to->pos.col >= pos.col)
		pos.len = to->pos.col + to->pos.len - pos.col;
	return pos;
}

static int parse_stmt(struct kb_parser *ps, struct kb_stmts *out)
{
	size_t from = ps->at;
	const struct stmt_spec *spec = find_spec(ps, kb_parse_peek(ps));
	struct kb_stmt *stmt, **slot;
	int r;

	if (!spec)
		return 1;
	stmt = kb_arena_alloc(ps->arena, sizeof(*stmt));
	if (!stmt)
		return -1;
	ps->at++;
	stmt->kind = spec->kind;
	stmt->source = ps->source;
	r = spec->verbs ? parse_verb(ps, stmt, spec) : 0;
	if (!r)
		r = spec->parse(ps, stmt);
	if (!r)
		r = parse_modifiers(ps, stmt, spec);
	if (r)
		return r;
	stmt->pos = span(&ps->tokens->items[from], &ps->tokens->items[ps->at - 1]);
	if (!stmt->has_record)
		stmt->record = stmt->action == KB_ALLOW ? KB_RECORD_NONE : KB_RECORD_SUMMARY;
	stmt->text = stmt_text(ps, from, ps->at);
	slot = stmt->text ? KB_ARENA_PUSH(ps->arena, out) : NULL;
	if (!slot)
		return -1;
	*slot = stmt;
	return 0;
}

/* Skip to where a statement plausibly begins; depth counts the braces that were opened. */
static void recover(struct kb_parser *ps)
{
	unsigned depth = 0;

	ps->at += kb_parse_peek(ps)->kind != KB_TOK_EOF && !kb_parse_is(ps, "}");
	while (kb_parse_peek(ps)->kind != KB_TOK_EOF) {
		const struct kb_token *token = kb_parse_peek(ps);

		if (is(token, KB_TOK_PUNCT, "{"))
			depth++;
		if (is(token, KB_TOK_PUNCT, "}")) {
			if (token->first && depth <= 1)
				return;
			depth -= depth > 0;
		}
		if (token->first && token->kind == KB_TOK_WORD && kb_parse_reserved(token->text))
			return;
		ps->at++;
	}
}

static int parse_block(struct kb_parser *ps, struct kb_unit *unit)
{
	while (!kb_parse_is(ps, "}") && kb_parse_peek(ps)->kind != KB_TOK_EOF) {
		int r;

		if (kb_parse_accept(ps, ";"))
			continue;
		if (unit->stmts.len >= KB_STMTS_MAX) {
			kb_diag_error(ps->diags, kb_parse_peek(ps)->pos, "more than %d rules",
				KB_STMTS_MAX);
			return 1;
		}
		r = kb_parse_accept(ps, "test") ? kb_parse_test(ps, unit)
						: parse_stmt(ps, &unit->stmts);
		if (r < 0)
			return r;
		if (r > 0)
			recover(ps);
	}
	return kb_parse_expect(ps, "}");
}

static int parse_header(struct kb_parser *ps, struct kb_unit *unit)
{
	const struct kb_token *token;
	int r = 0;

	token = kb_parse_peek(ps);
	if (token->kind != KB_TOK_WORD && token->kind != KB_TOK_STRING)
		return kb_parse_fail(ps, "the policy's name");
	if (!kb_name_valid(token->text)) {
		kb_diag_error(ps->diags, token->pos, "'%s' cannot be a policy's name", token->text);
		kb_diag_hint(ps->diags, "letters, digits, '.', '_' and '-'");
	}
	unit->name = kb_parse_next(ps)->text;
	if (kb_parse_accept(ps, "version")) {
		uint64_t version;

		if (!kb_parse_u64(kb_parse_peek(ps)->text, &version))
			return kb_parse_fail(ps, "a version number");
		if (version != 1) {
			kb_diag_error(ps->diags, kb_parse_peek(ps)->pos,
				"this kbsup knows version 1 of the policy language");
			return 1;
		}
		ps->at++;
	}
	if (kb_parse_accept(ps, "extends")) {
		do {
			token = kb_parse_peek(ps);
			if (token->kind != KB_TOK_WORD && token->kind != KB_TOK_STRING)
				return kb_parse_fail(ps, "the name of a policy");
			r = kb_parse_push(ps, &unit->extends, kb_parse_next(ps));
		} while (!r && kb_parse_accept(ps, ","));
	}
	return r ? r : kb_parse_expect(ps, "{");
}

static int parse_policy(struct kb_parser *ps, struct kb_unit *unit)
{
	int r;

	if (unit->has_policy) {
		kb_diag_error(ps->diags, kb_parse_peek(ps)->pos, "a second policy in one file");
		return 1;
	}
	unit->has_policy = true;
	r = parse_header(ps, unit);
	return r ? r : parse_block(ps, unit);
}

static const struct {
	const char *keyword;
	int (*parse)(struct kb_parser *ps, struct kb_unit *unit);
} blocks[] = {
	{"policy", parse_policy},
	{"agent", kb_parse_agent},
	{"test", kb_parse_test},
};

int kb_parse(struct kb_source *source, const struct kb_tokens *tokens, struct kb_arena *arena,
	struct kb_unit *ret, struct kb_diags *diags)
{
	struct kb_parser ps = {.source = source, .tokens = tokens, .arena = arena, .diags = diags};
	int r = 0;

	ret->source = source;
	ret->name = "";
	while (r == 0 && (kb_parse_peek(&ps)->kind != KB_TOK_EOF || !ret->has_policy)) {
		size_t i = 0;

		while (i < KB_ARRAY_LEN(blocks) && !kb_parse_accept(&ps, blocks[i].keyword))
			i++;
		if (i == KB_ARRAY_LEN(blocks))
			r = kb_parse_fail(&ps, "policy, agent or test");
		else
			r = blocks[i].parse(&ps, ret);
	}
	return r < 0 ? r : 0;
}
