#include "question.h"

#include <ctype.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "policies.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/str.h"

#define POLICY_MAX (1u << 20) /* bytes of a policy file we would rewrite */
#define RULE_LINES 20	      /* a rule may go over so many lines */

const struct kb_answer_word kb_answer_words[] = {
	{'o', "allow", KB_ANSWER_ALLOW, false, "allow this call, this once"},
	{'s', "session", KB_ANSWER_ALLOW_SESSION, false,
		"allow what this rule stops until the session ends"},
	{'a', "always", KB_ANSWER_ALLOW_SESSION, true, "the same, and write it into the policy"},
	{'d', "deny", KB_ANSWER_DENY, false, "deny this call"},
	{'n', "never", KB_ANSWER_DENY_SESSION, false,
		"deny what this rule stops until the session ends"},
	{0},
};

const struct kb_answer_word *kb_answer_find(const char *text)
{
	for (const struct kb_answer_word *w = kb_answer_words; w->word; w++)
		if (!strcmp(text, w->word) || (text[0] == w->key && !text[1]))
			return w;
	return NULL;
}

static int rule_len(const struct kb_question *question)
{
	return (int)strcspn(question->rule, "#");
}

void kb_question_describe(
	const struct kb_question *question, const char *indent, const char *eol, struct kb_buf *out)
{
	(void)kb_buf_printf(
		out, NULL, "%s%s  %s%s", indent, question->process, question->call, eol);
	if (question->text[0])
		(void)kb_buf_printf(out, NULL, "%s“%s”%s", indent, question->text, eol);
	(void)kb_buf_printf(out, NULL, "%sby %.*s  %s%s", indent, rule_len(question),
		question->rule, question->rule_text, eol);
}

/* ---- Always ---------------------------------------------------------------------------------- */

static bool is_word_end(char c)
{
	return !isalnum((unsigned char)c) && c != '_' && c != '-';
}

/* Where the word `ask` stands in a rule, outside of strings and comments; NULL when it does not. */
static const char *find_ask(const char *text, const char *end)
{
	bool quoted = false, fresh = true;

	for (const char *at = text; at < end; at++) {
		if (*at == '"') {
			quoted = !quoted;
		} else if (quoted && *at == '\\') {
			at++;
		} else if (!quoted && *at == '#' && fresh) {
			at += strcspn(at, "\n");
		} else if (!quoted && fresh && end - at >= 3 && !strncmp(at, "ask", 3) &&
			   (at + 3 == end || is_word_end(at[3]))) {
			return at;
		}
		fresh = at < end && is_word_end(*at);
	}
	return NULL;
}

/* `… ask "why" …` becomes `… allow reason "why" …`; fresh memory, or NULL. */
static char *allowing(const char *text, const char *rule, const char *rule_end)
{
	const char *ask = find_ask(rule, rule_end), *rest, *words, *after;
	bool has_reason = false;

	if (!ask)
		return NULL;
	rest = ask + 3;
	words = rest + strspn(rest, " \t");
	if (*words == '"') {
		after = words + 1 + strcspn(words + 1, "\"");
		has_reason =
			*after && strstr(after, " reason ") && strstr(after, " reason ") < rule_end;
		rest = has_reason ? after + 1 : rest;
	}
	return kb_xprintf("%.*sallow%s%s", (int)(ask - text), text,
		*words == '"' && !has_reason ? " reason" : "", rest);
}

static const char *line_start(const char *text, unsigned line)
{
	while (text && line-- > 1) {
		text = strchr(text, '\n');
		text = text ? text + 1 : NULL;
	}
	return text;
}

/* The policy still means something with it. */
static bool compiles(const char *file)
{
	struct kb_policies policies;
	struct kb_policy *policy = NULL;
	KB_DIAGS_CLEANUP struct kb_diags *diags = kb_diags_create();
	int r = diags ? kb_policies_init(&policies, NULL) : -1;

	if (r == 0)
		r = kb_policy_load(file, &policies.options, &policy, diags, NULL);
	kb_policy_destroy(policy);
	return r == 0;
}

static bool replace(const char *file, const char *text)
{
	char *fresh KB_FREE = kb_xprintf("%s.kbsup-new.policy", file);
	struct stat st;
	bool ok = stat(file, &st) == 0 &&
		  kb_file_write_atomic(fresh, text, strlen(text), st.st_mode & 07777, NULL) == 0;

	ok = ok && compiles(fresh) && rename(fresh, file) == 0;
	if (!ok)
		(void)unlink(fresh);
	return ok;
}

static bool rewrite(const char *file, unsigned line)
{
	struct kb_buf buf KB_BUF_CLEANUP;
	char *text KB_FREE = NULL, *changed KB_FREE = NULL;
	const char *rule, *end;

	kb_buf_init(&buf, POLICY_MAX);
	if (kb_file_read(file, &buf, NULL) < 0)
		return false;
	text = kb_buf_steal_string(&buf);
	rule = text ? line_start(text, line) : NULL;
	if (!rule)
		return false;
	end = line_start(rule, RULE_LINES);
	changed = allowing(text, rule, end ? end : rule + strlen(rule));
	return changed && replace(file, changed);
}

void kb_answer_keep(const struct kb_question *question, char **ret_said)
{
	const char *rule = question->rule_text;
	char *line KB_FREE = allowing(rule, rule, rule + strlen(rule));

	if (strncmp(question->file, "preset:", 7) != 0 && rewrite(question->file, question->line)) {
		*ret_said = kb_xprintf("%s:%u now says: %s", question->file, question->line,
			line ? line : "allow");
		return;
	}
	*ret_said = kb_xprintf("allowed for this session; to keep it, write in a policy of yours "
			       "that extends this one:  %s override%s",
		line ? line : rule, line && strstr(line, "reason") ? "" : " reason \"…\"");
}
