#include "denials.h"

#include <string.h>

#include "supervisor/base/buf.h"
#include "supervisor/base/str.h"

#define ASKED_MAX   2000 /* records looked at */
#define SHOWN_MAX   8	 /* kinds shown */
#define WHAT_COLUMN 34	 /* where the rule starts, when what was denied is short */
#define RULE_MIN    24	 /* columns of the rule that are always shown */
#define WHO_MAX	    (4u << 10)

/* Denials that read the same. */
struct kind {
	char *what;   /* "open ~/.ssh/id_ed25519 (read)" */
	char *rule;   /* "base.policy:14", or NULL */
	char *text;   /* the rule as written, or NULL */
	char *remedy; /* the line that would allow it, or NULL */
	char *who;    /* "cat(4121) ← sh(4119) ← node(4102)" of the first, or NULL */
	unsigned count;
};

struct kinds {
	struct kind *list;
	size_t len;
};

static const char *field(const json_t *record, const char *name)
{
	return json_string_value(json_object_get(record, name));
}

static json_int_t number(const json_t *record, const char *name)
{
	return json_integer_value(json_object_get(record, name));
}

static void kind_finish(struct kind *kind)
{
	free(kind->what);
	free(kind->rule);
	free(kind->text);
	free(kind->remedy);
	free(kind->who);
}

/* ---- What it was ----------------------------------------------------------------------------- */

static const char *const write_flags[] = {
	"O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND", "O_TMPFILE"};

/* How an open asked for its file. */
static const char *access_of(const json_t *record)
{
	const char *flags = field(record, "flags");

	for (size_t i = 0; flags && i < KB_ARRAY_LEN(write_flags); i++)
		if (strstr(flags, write_flags[i]))
			return "write";
	return "read";
}

static char *target_of(const struct kb_cli *cli, const json_t *record)
{
	const char *path = field(record, "path"), *host = field(record, "host");

	if (path)
		return kb_format_path(cli, path);
	if (!host)
		host = field(record, "ip");
	if (!host)
		return NULL;
	if (number(record, "port"))
		return kb_xprintf("%s:%d", host, (int)number(record, "port"));
	return kb_xstrdup(host);
}

static char *what_of(const json_t *record, const char *event, const char *target)
{
	const char *syscall = field(record, "syscall");

	if (target && !strcmp(event, "open"))
		return kb_xprintf("open %s (%s)", target, access_of(record));
	if (target)
		return kb_xprintf("%s %s", event, target);
	return kb_xprintf("%s", syscall ? syscall : event);
}

/* "cat(4121)" */
static void put_process(struct kb_buf *out, const char *comm, json_int_t pid)
{
	char *name KB_FREE = comm ? kb_escape_dup(comm, strlen(comm)) : NULL;

	(void)kb_buf_printf(out, NULL, "%s(%d)", name ? name : "?", (int)pid);
}

/* "cat(4121) ← sh(4119) ← node(4102)": as much of the ancestry as the record has. */
static char *who_of(const json_t *record)
{
	const char *comm = field(record, "comm"), *exe = field(record, "exe");
	const char *base = exe ? strrchr(exe, '/') : NULL;
	struct kb_buf text KB_BUF_CLEANUP;
	const json_t *above;
	size_t i;

	if (!comm)
		comm = base ? base + 1 : exe;
	if (!comm || !number(record, "pid"))
		return NULL;
	kb_buf_init(&text, WHO_MAX);
	put_process(&text, comm, number(record, "pid"));
	json_array_foreach(json_object_get(record, "ancestors"), i, above)
	{
		(void)kb_buf_puts(&text, " ← ", NULL);
		put_process(&text, field(above, "comm"), number(above, "pid"));
	}
	return kb_buf_steal_string(&text);
}

/* "base.policy:14#5f3a9c01" without the hash: that is for programs. */
static char *rule_of(const json_t *record)
{
	const char *rule = field(record, "rule");

	return rule ? kb_xprintf("%.*s", (int)strcspn(rule, "#"), rule) : NULL;
}

static struct kind read_kind(const struct kb_cli *cli, const json_t *record)
{
	const char *event = field(record, "event") ? field(record, "event") : "call";
	const char *text = field(record, "rule_text"), *remedy = field(record, "remedy");
	char *target KB_FREE = target_of(cli, record);

	return (struct kind){
		.what = what_of(record, event, target),
		.rule = rule_of(record),
		.text = text ? kb_escape_dup(text, strlen(text)) : NULL,
		.remedy = remedy ? kb_xstrdup(remedy) : NULL,
		.who = who_of(record),
		.count = 1,
	};
}

static bool same(const struct kind *a, const struct kind *b)
{
	return !strcmp(a->what, b->what) && !strcmp(a->rule ? a->rule : "", b->rule ? b->rule : "");
}

static void add(struct kinds *kinds, struct kind kind)
{
	for (size_t i = 0; i < kinds->len; i++) {
		if (same(&kinds->list[i], &kind)) {
			kinds->list[i].count++;
			kind_finish(&kind);
			return;
		}
	}
	kinds->list = realloc(kinds->list, (kinds->len + 1) * sizeof(*kinds->list));
	if (!kinds->list)
		abort();
	kinds->list[kinds->len++] = kind;
}

/* ---- Printing -------------------------------------------------------------------------------- */

/* Where the line would go: the policy that was named, the user's own of that agent, or one still to
 * be written. */
static char *place_of(const struct kb_denials_view *view)
{
	char *file KB_FREE = kb_xprintf("%s/%s.policy", view->config, view->policy);
	char *shown KB_FREE = kb_format_path(view->cli, file);

	if (access(file, R_OK) == 0)
		return kb_xprintf("in %s", shown);
	if (strpbrk(view->policy, "./"))
		return kb_xprintf("in %s", view->policy);
	return kb_xprintf("in a policy of yours that extends %s", view->policy);
}

/* The rule as far as the line has room for it: lists of paths can be long. */
static void print_rule(
	const struct kb_denials_view *view, const struct kind *kind, size_t column, FILE *out)
{
	const char *text = kind->text ? kind->text : "";
	size_t used = column + strlen("by ") + kb_text_width(kind->rule) + 2;
	size_t room = view->columns > used + RULE_MIN ? view->columns - used : RULE_MIN;
	char *cut KB_FREE = kb_text_cut(text, view->columns ? room : SIZE_MAX);

	fprintf(out, "by %s%s%s  %s", kb_tone(view->colour, KB_TONE_BOLD), kind->rule,
		kb_tone_end(view->colour, KB_TONE_BOLD), cut);
}

static void print_kind(
	const struct kb_denials_view *view, const struct kind *kind, const char *place, FILE *out)
{
	char times[KB_WORDS_MAX + 8] = "";
	size_t width = kb_text_width(kind->what), gap;

	if (kind->count > 1)
		snprintf(times, sizeof(times), "  %u ×", kind->count);
	width += kb_text_width(times);
	gap = width + 2 < WHAT_COLUMN ? WHAT_COLUMN - width : 2;
	fprintf(out, "%sdenied%s  %s%s%*s", kb_tone(view->colour, KB_TONE_BAD),
		kb_tone_end(view->colour, KB_TONE_BAD), kind->what, times, (int)gap, "");
	if (kind->rule)
		print_rule(view, kind, strlen("denied  ") + width + gap, out);
	else
		fputs("by the session's confinement", out);
	fputc('\n', out);
	if (kind->who)
		fprintf(out, "        %s%s%s\n", kb_tone(view->colour, KB_TONE_DIM), kind->who,
			kb_tone_end(view->colour, KB_TONE_DIM));
	if (kind->remedy)
		fprintf(out, "        to allow it for this agent:  %s   %s\n", kind->remedy, place);
}

void kb_denials_render(const struct kb_denials_view *view, const json_t *records, FILE *out)
{
	struct kinds kinds = {0};
	char *place KB_FREE = place_of(view);
	const json_t *record;
	size_t i;

	json_array_foreach(records, i, record) add(&kinds, read_kind(view->cli, record));
	for (i = 0; i < kinds.len; i++) {
		if (i < SHOWN_MAX)
			print_kind(view, &kinds.list[i], place, out);
		kind_finish(&kinds.list[i]);
	}
	if (kinds.len > SHOWN_MAX)
		fprintf(out, "        … and %zu kinds more\n", kinds.len - SHOWN_MAX);
	free(kinds.list);
}

int kb_denials_print(const struct kb_denials_view *view, struct kb_connection *connection,
	FILE *out, struct kb_err *err)
{
	struct kb_ask question = {
		.verb = "query",
		.sessions = view->session,
		.expr = "decision = denied or decision = killed",
		.limit = ASKED_MAX,
		.json = true,
	};
	json_t *records KB_JSON_CLEANUP = NULL;
	int r = kb_ask_json(connection, &question, &records, err);

	if (r < 0)
		return r;
	if (json_is_object(records)) { /* a single line is a document, too */
		json_t *list = json_array();

		json_array_append_new(list, records);
		records = list;
	}
	kb_denials_render(view, records, out);
	return 0;
}
