/* secret NAME from … for "host:port" … as … [url VARIABLE ["/path"]] [intercept] [placeholder "…"]
 */
#include <string.h>

#include "policy/parse.h"
#include "supervisor/base/util.h"

static int quoted(struct kb_parser *ps, const char **ret, const char *wanted)
{
	if (kb_parse_peek(ps)->kind != KB_TOK_STRING)
		return kb_parse_fail(ps, wanted);
	*ret = kb_parse_next(ps)->text;
	return 0;
}

static int parse_from(struct kb_parser *ps, struct kb_stmt *stmt)
{
	static const char *const names[] = {
		[KB_SECRET_ENV] = "env",
		[KB_SECRET_FILE] = "file",
		[KB_SECRET_COMMAND] = "command",
		[KB_SECRET_KEYRING] = "keyring",
	};

	for (size_t i = 0; i < KB_ARRAY_LEN(names); i++) {
		if (!kb_parse_accept(ps, names[i]))
			continue;
		stmt->secret.from = (enum kb_secret_from)i;
		if (kb_parse_peek(ps)->kind == KB_TOK_STRING)
			return kb_parse_push(ps, &stmt->ops, kb_parse_next(ps));
		if (i != KB_SECRET_ENV)
			return kb_parse_fail(ps, "it in quotes");
		/* env alone: the variable of the same name */
		if (kb_parse_name_ends(ps) || kb_parse_is(ps, "for"))
			return kb_parse_push(ps, &stmt->ops, &ps->tokens->items[ps->at - 3]);
		return kb_parse_push(ps, &stmt->ops, kb_parse_next(ps));
	}
	return kb_parse_fail(ps, "env, file, command or keyring");
}

static int parse_as(struct kb_parser *ps, struct kb_stmt *stmt)
{
	static const struct {
		const char *name, *wanted; /* wanted: what follows it; NULL: nothing */
	} ways[] = {
		[KB_SECRET_HEADER] = {"header", "the header's name in quotes"},
		[KB_SECRET_BEARER] = {"bearer", NULL},
		[KB_SECRET_BASIC] = {"basic", "the user in quotes"},
		[KB_SECRET_PLACEHOLDER] = {"placeholder", NULL},
	};

	for (size_t i = 0; i < KB_ARRAY_LEN(ways); i++) {
		if (!kb_parse_accept(ps, ways[i].name))
			continue;
		stmt->secret.as = (enum kb_secret_as)i;
		return ways[i].wanted ? quoted(ps, &stmt->secret.as_name, ways[i].wanted) : 0;
	}
	return kb_parse_fail(ps, "header, bearer, basic or placeholder");
}

static int parse_url(struct kb_parser *ps, struct kb_stmt *stmt)
{
	if (kb_parse_name_ends(ps))
		return kb_parse_fail(ps, "the variable that names the service's URL");
	stmt->secret.url = kb_parse_next(ps)->text;
	stmt->secret.url_path = "";
	return kb_parse_peek(ps)->kind == KB_TOK_STRING
		       ? quoted(ps, &stmt->secret.url_path, "a path in quotes")
		       : 0;
}

static int parse_intercept(struct kb_parser *ps, struct kb_stmt *stmt)
{
	(void)ps;
	stmt->secret.intercept = true;
	return 0;
}

static int parse_placeholder(struct kb_parser *ps, struct kb_stmt *stmt)
{
	return quoted(ps, &stmt->secret.placeholder, "the placeholder in quotes");
}

static int parse_extras(struct kb_parser *ps, struct kb_stmt *stmt)
{
	static const struct {
		const char *word;
		int (*parse)(struct kb_parser *ps, struct kb_stmt *stmt);
	} extras[] = {{"url", parse_url}, {"intercept", parse_intercept},
		{"placeholder", parse_placeholder}};
	int r = 0;

	for (size_t i = 0; i < KB_ARRAY_LEN(extras) && !r;) {
		if (!kb_parse_accept(ps, extras[i].word)) {
			i++;
			continue;
		}
		r = extras[i].parse(ps, stmt);
		i = 0;
	}
	return r;
}

int kb_parse_secret(struct kb_parser *ps, struct kb_stmt *stmt)
{
	int r;

	if (kb_parse_name_ends(ps))
		return kb_parse_fail(ps, "the secret's name");
	r = kb_parse_push(ps, &stmt->ops, kb_parse_next(ps));
	if (!r)
		r = kb_parse_expect(ps, "from");
	if (!r)
		r = parse_from(ps, stmt);
	if (!r)
		r = kb_parse_expect(ps, "for");
	if (!r && kb_parse_peek(ps)->kind != KB_TOK_STRING)
		r = kb_parse_fail(ps, "an endpoint in quotes, like \"api.example.com:443\"");
	while (!r && kb_parse_peek(ps)->kind == KB_TOK_STRING)
		r = kb_parse_push(ps, &stmt->except, kb_parse_next(ps));
	if (!r)
		r = kb_parse_expect(ps, "as");
	if (!r)
		r = parse_as(ps, stmt);
	return r ? r : parse_extras(ps, stmt);
}
