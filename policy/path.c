/* Paths and patterns. A pattern is absolute; `*` and `?` stay within a component, `**` as a whole
 * component crosses any number of them (also none), and whatever a pattern matches is covered with
 * everything beneath it. Matching backtracks to the last star only, so it is never exponential. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "policy/ast.h"
#include "supervisor/base/str.h"

bool kb_path_is_glob(const char *path)
{
	return strpbrk(path, "*?") != NULL;
}

bool kb_path_beneath(const char *dir, const char *path)
{
	size_t len = strlen(dir);

	if (len == 1 && dir[0] == '/')
		return path[0] == '/';
	return !strncmp(dir, path, len) && (path[len] == '\0' || path[len] == '/');
}

static size_t component(const char *path)
{
	return strcspn(path, "/");
}

/* Glob of one component against one component. */
static bool match_component(const char *pat, size_t pat_len, const char *text, size_t len)
{
	size_t p = 0, t = 0, star = SIZE_MAX, mark = 0;

	while (t < len) {
		if (p < pat_len && (pat[p] == '?' || (pat[p] != '*' && pat[p] == text[t]))) {
			p++;
			t++;
		} else if (p < pat_len && pat[p] == '*') {
			star = p++;
			mark = t;
		} else if (star != SIZE_MAX) {
			p = star + 1;
			t = ++mark;
		} else {
			return false;
		}
	}
	while (p < pat_len && pat[p] == '*')
		p++;
	return p == pat_len;
}

static const char *skip_component(const char *at)
{
	at += component(at);
	return *at == '/' ? at + 1 : at;
}

bool kb_path_match(const char *pattern, const char *path)
{
	const char *p, *t, *star = NULL, *mark = NULL;

	if (!kb_path_is_glob(pattern))
		return kb_path_beneath(pattern, path);
	if (path[0] != '/')
		return false;
	p = pattern + 1;
	t = path + 1;
	while (*p) {
		size_t pat_len = component(p), len = component(t);

		if (pat_len == 2 && !strncmp(p, "**", 2)) {
			star = p = skip_component(p);
			mark = t;
		} else if (*t && match_component(p, pat_len, t, len)) {
			p = skip_component(p);
			t = skip_component(t);
		} else if (star && *mark) {
			p = star;
			t = mark = skip_component(mark);
		} else {
			return false;
		}
	}
	return true;
}

size_t kb_path_matched(const char *pattern, const char *path)
{
	char part[PATH_MAX];
	const char *slash = path;
	size_t len = strlen(path);

	if (len >= sizeof(part))
		return len;
	while ((slash = strchr(slash + 1, '/'))) {
		memcpy(part, path, (size_t)(slash - path));
		part[slash - path] = '\0';
		if (kb_path_match(pattern, part))
			return (size_t)(slash - path);
	}
	return len;
}

unsigned kb_path_weight(const char *pattern)
{
	unsigned literal = 0, globs = 0;

	for (const char *p = pattern + 1; *p; p = skip_component(p)) {
		size_t len = component(p);

		if (memchr(p, '*', len) || memchr(p, '?', len))
			globs++;
		else
			literal++;
	}
	/* One more literal component outweighs any glob; a pattern below a tree outweighs the tree.
	 */
	return literal * 4 + (globs < 3 ? globs : 3);
}

/* ---- From the text of a policy --------------------------------------------------------------- */

struct expansion {
	const struct kb_operand *op;
	const struct kb_policy_options *opts;
	struct kb_diags *diags;
	char out[PATH_MAX];
	size_t len;
};

static bool put(struct expansion *ex, const char *text, size_t len)
{
	if (ex->len + len >= sizeof(ex->out)) {
		kb_diag_error(
			ex->diags, ex->op->pos, "this path is longer than %d bytes", PATH_MAX - 1);
		return false;
	}
	memcpy(ex->out + ex->len, text, len);
	ex->len += len;
	ex->out[ex->len] = '\0';
	return true;
}

const char *kb_option_home(const struct kb_policy_options *opts)
{
	return opts && opts->home ? opts->home : "/home/agent";
}

const char *kb_option_workspace(const struct kb_policy_options *opts)
{
	return opts && opts->workspace ? opts->workspace : "/workspace";
}

static const char *variable(const struct expansion *ex, const char *name, size_t len)
{
	if (len == 4 && !strncmp(name, "HOME", 4))
		return kb_option_home(ex->opts);
	if (len == 9 && !strncmp(name, "WORKSPACE", 9))
		return kb_option_workspace(ex->opts);
	if (len == 4 && !strncmp(name, "USER", 4))
		return ex->opts && ex->opts->user ? ex->opts->user : "agent";
	return NULL;
}

/* One ${NAME} at text; returns its length, 0 after a diagnostic. */
static size_t put_variable(struct expansion *ex, const char *text)
{
	const char *end = strchr(text, '}'), *value;

	if (!end) {
		kb_diag_error(ex->diags, ex->op->pos, "'${' without '}'");
		return 0;
	}
	value = variable(ex, text + 2, (size_t)(end - text) - 2);
	if (!value) {
		kb_diag_error(ex->diags, ex->op->pos, "there is no variable %.*s",
			(int)(end - text) + 1, text);
		kb_diag_hint(ex->diags, "known: ${HOME} ${WORKSPACE} ${USER}");
		return 0;
	}
	return put(ex, value, strlen(value)) ? (size_t)(end - text) + 1 : 0;
}

static bool expand(struct expansion *ex)
{
	const char *text = ex->op->text;

	while (*text) {
		size_t step = 1;

		if (text[0] == '$' && text[1] == '{')
			step = put_variable(ex, text);
		else if (!put(ex, text, 1))
			step = 0;
		if (!step)
			return false;
		text += step;
	}
	return true;
}

/* Squeeze //, drop "." components and trailing slashes. False: there is a "..". */
static bool clean(char *path)
{
	const char *from = path;
	char *to = path;

	while (*from) {
		size_t len;

		while (*from == '/')
			from++;
		len = component(from);
		if (len == 2 && !strncmp(from, "..", 2))
			return false;
		if (len && !(len == 1 && *from == '.')) {
			*to++ = '/';
			memmove(to, from, len);
			to += len;
		}
		from += len;
	}
	if (to == path)
		*to++ = '/';
	*to = '\0';
	return true;
}

const char *kb_text_expand(const struct kb_operand *op, const struct kb_policy_options *opts,
	struct kb_arena *arena, struct kb_diags *diags)
{
	struct expansion ex = {.op = op, .opts = opts, .diags = diags};

	return expand(&ex) ? kb_arena_strndup(arena, ex.out, ex.len) : NULL;
}

const char *kb_path_resolve(const struct kb_operand *op, const struct kb_policy_options *opts,
	struct kb_arena *arena, struct kb_diags *diags)
{
	struct expansion ex = {.op = op, .opts = opts, .diags = diags};
	struct kb_operand rest = *op;
	bool ok = true;

	if (!op->text[0]) {
		kb_diag_error(diags, op->pos, "an empty path");
		return NULL;
	}
	if (op->text[0] == '~' && (op->text[1] == '/' || !op->text[1])) {
		ok = put(&ex, kb_option_home(opts), strlen(kb_option_home(opts)));
		rest.text++;
	} else if (op->text[0] != '/' && op->text[0] != '$') {
		ok = put(&ex, kb_option_workspace(opts), strlen(kb_option_workspace(opts))) &&
		     put(&ex, "/", 1);
	}
	ex.op = &rest;
	if (!ok || !expand(&ex))
		return NULL;
	if (ex.out[0] != '/') {
		kb_diag_error(diags, op->pos, "this path is not absolute");
		return NULL;
	}
	if (!clean(ex.out)) {
		kb_diag_error(diags, op->pos, "'..' has no place in a policy's path");
		return NULL;
	}
	return kb_arena_strndup(arena, ex.out, strlen(ex.out));
}
