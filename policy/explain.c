/* `policy explain`: a question, the verdict, the rule with its line, and the mechanism. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "policy/judge.h"
#include "supervisor/base/str.h"
#include "supervisor/base/util.h"

#define OBSERVED_MAX 8800 /* two paths and a word */

static const char *const outcome_words[] = {"allowed", "denied", "killed", "asked"};

/* ---- Text ------------------------------------------------------------------------------------ */

struct writer {
	struct kb_buf *out;
	struct kb_err *err;
	int r;
};

static void put(struct writer *w, const char *fmt, ...) KB_PRINTF(2, 3);
static void put(struct writer *w, const char *fmt, ...)
{
	char *text KB_FREE = NULL;
	va_list args;

	if (w->r < 0)
		return;
	va_start(args, fmt);
	if (vasprintf(&text, fmt, args) < 0)
		text = NULL;
	va_end(args);
	w->r = text ? kb_buf_puts(w->out, text, w->err) : kb_err_nomem(w->err);
}

static void put_escaped(struct writer *w, const char *text)
{
	char *safe KB_FREE = kb_escape_dup(text, strlen(text));

	put(w, "%s", safe ? safe : "?");
}

static const struct kb_rule *rule_of(const struct kb_bundle *bundle, uint32_t index)
{
	return index < bundle->rules.len ? &bundle->rules.items[index] : NULL;
}

static void put_rule(struct writer *w, const struct kb_bundle *bundle, uint32_t index)
{
	const struct kb_rule *rule = rule_of(bundle, index);

	if (!rule) {
		put(w, "no line of the policy");
		return;
	}
	put(w, "%.*s   ", (int)strcspn(rule->id, "#"), rule->id);
	put_escaped(w, rule->text);
}

static void put_verdict(
	struct writer *w, const struct kb_bundle *bundle, const struct kb_verdict *verdict)
{
	const struct kb_rule *rule = rule_of(bundle, verdict->rule);
	const char *error = kb_errno_name(verdict->errnum);

	put(w, "%s", outcome_words[verdict->action]);
	if (verdict->action == KB_DENY && error)
		put(w, " (%s)", error);
	put(w, " by ");
	put_rule(w, bundle, verdict->rule);
	if (verdict->record != KB_RECORD_NONE)
		put(w, "\nrecorded: %s", verdict->record == KB_RECORD_FULL ? "full" : "summary");
	if (rule && rule->reason && !strstr(rule->text, "reason")) {
		put(w, "\nreason: ");
		put_escaped(w, rule->reason);
	}
	put(w, "\n");
}

static void put_call(struct writer *w, const struct kb_bundle *bundle,
	const struct kb_program *program, const struct kb_answer *answer)
{
	const char *error = kb_errno_name((int)(answer->value & SECCOMP_RET_DATA));
	uint32_t action = answer->value & SECCOMP_RET_ACTION_FULL;

	put(w, "seccomp: instruction %zu of %zu returns ", answer->insn, program->len);
	if (action == SECCOMP_RET_ERRNO)
		put(w, "%s", error ? error : "an error");
	else
		put(w, "%s",
			action == SECCOMP_RET_ALLOW	     ? "allow"
			: action == SECCOMP_RET_KILL_PROCESS ? "kill process"
			: answer->call.action == KB_ALLOW    ? "notify: recorded, then let through"
							     : "notify: recorded, then refused");
	put(w, ", by ");
	put_rule(w, bundle, program->rules[answer->insn]);
	put(w, "\n");
}

static void put_mount(
	struct writer *w, const struct kb_bundle *bundle, const struct kb_answer *answer)
{
	static const char *const words[] = {"read-only from the machine",
		"writable from the machine", "covered by a closed stand-in",
		"the session's own, with nothing of the machine in it"};
	const struct kb_mount *mount = answer->mech.mount;

	if (answer->mech.virtual_) {
		put(w, "mount: the session's own /proc, /sys or /dev\n");
		return;
	}
	if (!mount) {
		put(w, "mount: nothing brings this path inside: it does not exist there\n");
		return;
	}
	put(w, "mount: ");
	put_escaped(w, mount->path);
	put(w, " is %s, by ", words[mount->kind]);
	put_rule(w, bundle, mount->rule);
	put(w, "\n");
}

static void put_landlock(
	struct writer *w, const struct kb_bundle *bundle, const struct kb_answer *answer)
{
	const struct kb_mech_path *mech = &answer->mech;

	if (mech->needed & ~mech->granted) {
		put(w, "Landlock: refuses, no rule grants this tree the right\n");
		return;
	}
	put(w, "Landlock: grants, by ");
	put_rule(w, bundle, mech->landlock_rule);
	put(w, "\n");
}

static void put_net(struct writer *w, const struct kb_question *q, const struct kb_answer *answer)
{
	bool local = !q->host && ((q->address_len == 4 && q->address[0] == 127) ||
					 (q->address_len == 16 && q->address[15] == 1));

	if (q->direction == KB_NET_LISTEN)
		put(w, "network: the session's own network namespace\n");
	else if (local)
		put(w, "network: loopback of the session's own network namespace\n");
	else if (answer->net.action == KB_ALLOW)
		put(w, "network: through the broker, which dials and checks the name\n");
	else
		put(w, "network: the session's network namespace has only loopback\n");
}

/* What the broker does besides with what is said to this host. */
static void put_broker(
	struct writer *w, const struct kb_bundle *bundle, const struct kb_question *q)
{
	static const char *const ways[] = {"header ", "Authorization: Bearer",
		"Authorization: Basic, user ", "what the client puts in a header"};
	const struct kb_net_rule *rule = kb_bundle_find_host(
		bundle, KB_NET_CONNECT, q->protocol, q->host, (uint16_t)q->port);

	if (rule && rule->http && rule->http[0])
		put(w, "requests: only those the rule lists; TLS is opened by the broker to see "
		       "them\n");
	for (size_t i = 0; i < bundle->secrets.len; i++) {
		const struct kb_secret *secret = &bundle->secrets.items[i];

		for (size_t j = 0; j < secret->n_endpoints; j++) {
			if (!kb_endpoint_matches(&secret->endpoints[j], q->host, (uint16_t)q->port))
				continue;
			put(w, "secret: ");
			put_escaped(w, secret->name);
			put(w, " is put into requests, as %s", ways[secret->as]);
			put_escaped(w, secret->as_name ? secret->as_name : "");
			put(w, secret->intercept ? ", by opening TLS" : "");
			put(w, ", by ");
			put_rule(w, bundle, secret->rule);
			put(w, "\n");
		}
	}
}

/* A line that would have made it otherwise. */
static void put_remedy(
	struct writer *w, const struct kb_question *q, const struct kb_answer *answer)
{
	bool denied = answer->verdict.action != KB_ALLOW;

	if (answer->has_path) {
		const char *verb = (q->access & KB_FS_EXEC)    ? "exec allow"
				   : (q->access & KB_FS_WRITE) ? "fs write"
							       : "fs read";

		put(w,
			denied ? "a line that would allow it:  %s \""
			       : "a line that would stop it:  %s \"",
			denied			   ? verb
			: (q->access & KB_FS_EXEC) ? "exec deny"
						   : "fs deny");
		put_escaped(w, q->path);
		put(w, denied && !answer->path.by_default ? "\" override reason \"…\"\n" : "\"\n");
	} else if (answer->has_net && q->host && denied) {
		put(w, "a line that would allow it:  net connect tcp \"%s:%u\"\n", q->host,
			q->port);
	} else if (answer->has_call && denied) {
		put(w, "a line that would allow it:  syscall %s allow%s\n", kb_calls[q->call].name,
			answer->call.by_default ? "" : " override reason \"…\"");
	} else if (answer->has_call) {
		put(w, "a line that would stop it:  syscall %s deny EPERM\n",
			kb_calls[q->call].name);
	}
}

static int render_text(const struct kb_bundle *bundle, const struct kb_program *program,
	const struct kb_question *q, const struct kb_answer *answer, struct kb_buf *out,
	struct kb_err *err)
{
	struct writer w = {.out = out, .err = err};

	put_verdict(&w, bundle, &answer->verdict);
	if (answer->has_call)
		put_call(&w, bundle, program, answer);
	if (answer->has_path) {
		put_mount(&w, bundle, answer);
		if (!answer->mech.mount || answer->mech.mount->kind != KB_MOUNT_HIDE)
			put_landlock(&w, bundle, answer);
	}
	if (answer->has_net)
		put_net(&w, q, answer);
	if (answer->has_net && q->host && answer->net.action == KB_ALLOW)
		put_broker(&w, bundle, q);
	put_remedy(&w, q, answer);
	return w.r;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_t *json_rule(const struct kb_bundle *bundle, uint32_t index)
{
	const struct kb_rule *rule = rule_of(bundle, index);
	char *text KB_FREE = rule ? kb_escape_dup(rule->text, strlen(rule->text)) : NULL;

	if (!rule || !text)
		return json_null();
	return json_pack("{s:s, s:s, s:i, s:s, s:s*}", "id", rule->id, "file", rule->file, "line",
		(int)rule->line, "text", text, "reason", rule->reason);
}

static json_t *json_verdict(const struct kb_bundle *bundle, const struct kb_verdict *verdict)
{
	static const char *const records[] = {"none", "summary", "full"};

	return json_pack("{s:s, s:s*, s:s, s:o}", "decision", outcome_words[verdict->action],
		"errno", verdict->action == KB_DENY ? kb_errno_name(verdict->errnum) : NULL,
		"record", records[verdict->record], "rule", json_rule(bundle, verdict->rule));
}

static void json_observed(json_t *root, const struct kb_observed *seen)
{
	char text[OBSERVED_MAX];
	char *safe KB_FREE = NULL;
	struct kb_question q;

	kb_observed_question(seen, &q);
	kb_observed_text(seen, &q, text, sizeof(text));
	safe = kb_escape_dup(text, strlen(text));
	json_object_set_new(root, "record",
		json_pack("{s:s*, s:I, s:s*, s:s}", "session", seen->session, "seq",
			(json_int_t)seen->seq, "event", safe, "decision",
			outcome_words[seen->decision]));
}

static int render_json(const struct kb_bundle *bundle, const struct kb_program *program,
	const struct kb_answer *answer, const struct kb_observed *seen, struct kb_buf *out,
	struct kb_err *err)
{
	json_t *root = json_verdict(bundle, &answer->verdict);
	char *text;
	int r;

	if (seen && root)
		json_observed(root, seen);

	if (answer->has_call)
		json_object_set_new(root, "seccomp",
			json_pack("{s:i, s:i, s:o}", "instruction", (int)answer->insn, "returns",
				(int)answer->value, "rule",
				json_rule(bundle, program->rules[answer->insn])));
	if (answer->has_path)
		json_object_set_new(root, "path",
			json_pack("{s:b, s:s*, s:o, s:o}", "allowed", answer->mech.allowed, "errno",
				kb_errno_name(answer->mech.errnum), "mount",
				json_rule(bundle, answer->mech.mount ? answer->mech.mount->rule
								     : KB_RULE_NONE),
				"landlock", json_rule(bundle, answer->mech.landlock_rule)));
	text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
	json_decref(root);
	if (!text)
		return kb_err_nomem(err);
	r = kb_buf_puts(out, text, err);
	free(text);
	return r < 0 ? r : kb_buf_puts(out, "\n", err);
}

/* ---- Entry ----------------------------------------------------------------------------------- */

/* The session had a tree of its own there, and the machine's file was asked for. */
static bool was_out_of_reach(const struct kb_observed *seen, const struct kb_answer *answer)
{
	return seen && seen->decision == KB_OBSERVED_DENIED && answer->has_path &&
	       answer->verdict.action == KB_ALLOW && answer->verdict.private_tree;
}

/* seen: the event it is about, or NULL. */
static int answer_question(const struct kb_bundle *bundle, uint32_t arch,
	const struct kb_question *q, const struct kb_observed *seen, bool json, struct kb_buf *out,
	struct kb_verdict *ret, struct kb_err *err)
{
	struct kb_program program;
	struct kb_answer answer;
	int r = kb_bundle_emit(bundle, arch, KB_EMIT_NOTIFY, &program, err);

	if (r < 0)
		return r;
	kb_answer(bundle, &program, arch, q, &answer);
	if (was_out_of_reach(seen, &answer)) {
		answer.verdict.action = KB_DENY;
		answer.verdict.errnum = ENOENT;
	}
	r = json ? render_json(bundle, &program, &answer, seen, out, err)
		 : render_text(bundle, &program, q, &answer, out, err);
	if (ret)
		*ret = answer.verdict;
	kb_program_finish(&program);
	return r;
}

int kb_bundle_explain(const struct kb_bundle *bundle, const struct kb_policy_options *options,
	uint32_t arch, const char *question, bool json, struct kb_buf *out, struct kb_verdict *ret,
	struct kb_err *err)
{
	struct kb_source source = {
		.name = "question", .base = "question", .text = question, .len = strlen(question)};
	struct kb_diags *diags = kb_diags_create();
	struct kb_tokens tokens = {0};
	struct kb_question q;
	struct kb_arena arena;
	int r;

	if (!diags)
		return kb_err_nomem(err);
	kb_arena_init(&arena, KB_POLICY_MEMORY);
	r = kb_arch_index(arch) < 0
		    ? kb_err_set(err, KB_ERR_USAGE, "this architecture is not known")
		    : kb_lex(&source, &arena, &tokens, diags);
	if (r == 0)
		r = kb_question_parse(&tokens, 0, tokens.len - 1, kb_arch_index(arch), options,
			&arena, &q, diags);
	if (r == 0 && !kb_diags_errors(diags))
		r = answer_question(bundle, arch, &q, NULL, json, out, ret, err);
	else if (kb_diags_errors(diags))
		r = kb_diags_err(diags, KB_ERR_USAGE, err);
	else if (r == -1)
		r = kb_err_nomem(err);
	kb_arena_finish(&arena);
	kb_diags_destroy(diags);
	return r;
}

/* The path that decides: the second one, when it is that which is refused. */
static void choose_path(const struct kb_bundle *bundle, struct kb_question *q)
{
	bool allowed = true;

	if (!q->path2)
		return;
	if (q->path && q->access)
		kb_memo_path(NULL, bundle, q->access, q->path, &allowed);
	if (!allowed)
		return;
	kb_memo_path(NULL, bundle, KB_FS_WRITE, q->path2, &allowed);
	if (!allowed || !q->access) {
		q->path = q->path2;
		q->access = KB_FS_WRITE;
	}
}

int kb_bundle_explain_observed(const struct kb_bundle *bundle, const struct kb_observed *seen,
	bool json, struct kb_buf *out, struct kb_verdict *ret, struct kb_err *err)
{
	uint32_t arch = seen->arch ? seen->arch : kb_arch_native();
	char text[OBSERVED_MAX];
	struct writer w = {.out = out, .err = err};
	struct kb_question q;

	if (!kb_observed_question(seen, &q))
		return kb_err_set(err, KB_ERR_USAGE,
			"this record is not of an event that a policy decides on");
	kb_observed_text(seen, &q, text, sizeof(text));
	if (!json) {
		put(&w, "%s%s%llu   ", seen->session ? seen->session : "", seen->session ? ":" : "",
			(unsigned long long)seen->seq);
		put_escaped(&w, text);
		put(&w, "   recorded as %s\n", outcome_words[seen->decision]);
	}
	if (w.r < 0)
		return w.r;
	if (q.kind == KB_ASK_NET && q.call >= 0 &&
		kb_bundle_decide(bundle, arch, seen->syscall, q.args).action != KB_ALLOW)
		q.kind = KB_ASK_CALL; /* the call itself is refused, whatever its address */
	choose_path(bundle, &q);
	return answer_question(bundle, arch, &q, seen, json, out, ret, err);
}
