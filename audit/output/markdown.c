/* `audit report --format md`: what a person wants first, in Markdown. Foreign text stands in code
 * spans, whose fence is longer than any run of backquotes in it. */
#include <inttypes.h>
#include <string.h>

#include "report.h"
#include "supervisor/base/util.h"
#include "text.h"

#define FILES_SHOWN   200u
#define DENIALS_SHOWN 200u
#define BUSY_SHOWN    10u

struct md {
	const struct kb_view *view;
	const struct kb_session *session;
	const struct kb_digest *d;
	struct kb_buf out, piece;
};

/* What stands in md->piece, as a code span; the piece is emptied. */
static int span(struct md *md, struct kb_err *err)
{
	const char *text = (const char *)kb_buf_data(&md->piece);
	size_t len = kb_buf_len(&md->piece), run = 0, longest = 0;
	int r = 0;

	for (size_t i = 0; i < len; i++) {
		run = text[i] == '`' ? run + 1 : 0;
		longest = KB_MAX(longest, run);
	}
	for (size_t i = 0; i <= longest && r == 0; i++)
		r = kb_buf_puts(&md->out, "`", err);
	if (r == 0)
		r = kb_buf_printf(&md->out, err, longest ? " %.*s " : "%.*s", (int)len, text);
	for (size_t i = 0; i <= longest && r == 0; i++)
		r = kb_buf_puts(&md->out, "`", err);
	kb_buf_consume(&md->piece, len);
	return r;
}

static int span_path(struct md *md, struct kb_bytes path, struct kb_err *err)
{
	int r = kb_text_path(&md->piece, md->view, path, err);

	return r < 0 ? r : span(md, err);
}

static int span_bytes(struct md *md, struct kb_bytes bytes, struct kb_err *err)
{
	int r = kb_text_bytes(&md->piece, bytes, err);

	return r < 0 ? r : span(md, err);
}

static int span_text(struct md *md, const char *text, struct kb_err *err)
{
	return span_bytes(md, (struct kb_bytes){(const uint8_t *)text, strlen(text)}, err);
}

static int line(struct md *md, const char *text, struct kb_err *err)
{
	return kb_buf_puts(&md->out, text, err);
}

static int put_head(struct md *md, const char *verdict, struct kb_err *err)
{
	const struct kb_session *s = md->session;
	char started[KB_WHEN_MAX], lasted[KB_WHEN_MAX];
	int r;

	kb_when_format(s->started, md->view->utc, false, started);
	kb_duration_format(
		s->ended && s->end.ended > s->started ? s->end.ended - s->started : 0, lasted);
	r = kb_buf_printf(&md->out, err, "# Session %s\n\n%s · agent %s · machine %s", s->name,
		started, s->agent, s->machine);
	if (r == 0 && s->ended && s->end.signal)
		r = kb_buf_printf(
			&md->out, err, " · ended by signal %u after %s", s->end.signal, lasted);
	else if (r == 0 && s->ended)
		r = kb_buf_printf(&md->out, err, " · exit %d after %s", s->end.exit_code, lasted);
	else if (r == 0)
		r = line(md, " · not ended", err);
	if (r == 0)
		r = kb_buf_printf(&md->out, err, " · records %s\n\n", verdict);
	if (r == 0)
		r = kb_text_argv(&md->piece, s->argv, s->argc, err);
	if (r == 0)
		r = span(md, err);
	return r == 0 ? line(md, "\n\n", err) : r;
}

static int put_totals(struct md *md, struct kb_err *err)
{
	const struct kb_digest *d = md->d;
	char n[7][KB_COUNT_MAX];

	return kb_buf_printf(&md->out, err,
		"| commands | files changed | files deleted | hosts | denials | records | lost |\n"
		"|---:|---:|---:|---:|---:|---:|---:|\n| %s | %s | %s | %s | %s | %s | %s |\n",
		kb_text_count(d->commands, n[0]), kb_text_count(d->changed, n[1]),
		kb_text_count(d->deleted, n[2]), kb_text_count(d->hosts, n[3]),
		kb_text_count(d->denied, n[4]), kb_text_count(d->records, n[5]),
		kb_text_count(d->lost, n[6]));
}

static int put_secrets(struct md *md, struct kb_err *err)
{
	const struct kb_digest *d = md->d;
	int r = d->n_secrets ? line(md, "\nSecrets put into requests, by name: ", err) : 0;

	for (size_t i = 0; i < d->n_secrets && r == 0; i++)
		r = kb_buf_printf(&md->out, err, "%s`%s` %" PRIu64 " ×", i ? ", " : "",
			d->secrets[i].name, d->secrets[i].times);
	return r == 0 && d->n_secrets ? line(md, "\n", err) : r;
}

static int put_denial(struct md *md, const struct kb_denial *denial, struct kb_err *err)
{
	const struct kb_rule_text *rule = kb_session_rule(md->session, denial->rule);
	int r = kb_buf_printf(&md->out, err, "- **%s %s** ", kb_decision_name(denial->decision),
		kb_event_name(denial->event));

	if (r == 0)
		r = kb_buf_append(&md->piece, denial->what.data, denial->what.len, err);
	if (r == 0)
		r = span(md, err);
	if (r == 0 && denial->times > 1)
		r = kb_buf_printf(&md->out, err, " %" PRIu64 " ×", denial->times);
	if (r == 0 && rule) {
		r = line(md, " by ", err);
		if (r == 0)
			r = kb_text_rule(&md->out, rule, err);
		if (r == 0)
			r = line(md, " ", err);
		if (r == 0)
			r = span_text(md, rule->text, err);
	}
	if (r == 0 && denial->node != KB_NONE) {
		r = line(md, ", ", err);
		if (r == 0)
			r = kb_text_proc(&md->piece, md->d->nodes[denial->node].proc, 3, err);
		if (r == 0)
			r = span(md, err);
	}
	return r == 0 ? line(md, "\n", err) : r;
}

static int put_denials(struct md *md, struct kb_err *err)
{
	size_t n = md->d->n_denials;
	int r = line(md, "\n## Denied\n\n", err);

	if (r == 0 && n == 0)
		r = line(md, "Nothing was denied.\n", err);
	for (size_t i = 0; i < KB_MIN(n, DENIALS_SHOWN) && r == 0; i++)
		r = put_denial(md, &md->d->denials[i], err);
	if (r == 0 && n > DENIALS_SHOWN)
		r = kb_buf_printf(&md->out, err, "- and %zu more\n", n - DENIALS_SHOWN);
	return r;
}

static int put_files(struct md *md, struct kb_err *err)
{
	size_t n = md->d->n_files;
	int r = line(md, "\n## Files\n\n", err);

	if (r == 0 && n == 0)
		r = line(md, "No file was changed.\n", err);
	for (size_t i = 0; i < KB_MIN(n, FILES_SHOWN) && r == 0; i++) {
		const struct kb_file *file = &md->d->files[i];

		r = kb_buf_printf(&md->out, err, "- %s ", kb_fate_name(file->fate));
		if (r == 0)
			r = span_path(md, file->path, err);
		if (r == 0 && file->path2.data)
			r = line(md, " to ", err);
		if (r == 0 && file->path2.data)
			r = span_path(md, file->path2, err);
		if (r == 0)
			r = line(md, "\n", err);
	}
	if (r == 0 && n > FILES_SHOWN)
		r = kb_buf_printf(&md->out, err, "- and %zu more\n", n - FILES_SHOWN);
	return r;
}

static int put_net(struct md *md, struct kb_err *err)
{
	int r = line(md, "\n## Network\n\n", err);

	if (r == 0 && md->d->n_dests == 0)
		r = line(md, "No connection was tried.\n", err);
	for (size_t i = 0; i < md->d->n_dests && r == 0; i++) {
		const struct kb_dest *dest = &md->d->dests[i];

		r = kb_buf_printf(&md->out, err, "- %s ", kb_decision_name(dest->decision));
		if (r == 0)
			r = kb_buf_append(&md->piece, dest->where.data, dest->where.len, err);
		if (r == 0)
			r = span(md, err);
		if (r == 0)
			r = kb_buf_printf(&md->out, err, " %" PRIu64 " ×\n", dest->times);
	}
	return r;
}

/* The BUSY_SHOWN processes with most records, by repeated selection. */
static int put_busy(struct md *md, struct kb_err *err)
{
	uint64_t below = UINT64_MAX, best;
	size_t at = 0, shown = 0;
	int r = line(md, "\n## Busiest processes\n\n", err);

	while (shown < BUSY_SHOWN && r == 0) {
		best = 0;
		for (size_t i = 0; i < md->d->n_nodes; i++) {
			/* Unique by its place, so that equals come one after the other. */
			uint64_t rank =
				md->d->nodes[i].records << 24 | (0xffffffu - (i & 0xffffff));

			if (rank < below && rank > best) {
				best = rank;
				at = i;
			}
		}
		if (best == 0)
			break;
		below = best;
		shown++;
		r = kb_buf_printf(
			&md->out, err, "- %" PRIu64 " records: ", md->d->nodes[at].records);
		if (r == 0)
			r = kb_text_proc(&md->piece, md->d->nodes[at].proc, 3, err);
		if (r == 0)
			r = span(md, err);
		if (r == 0)
			r = line(md, "\n", err);
	}
	return r;
}

int kb_report_markdown(struct kb_reader *reader, const struct kb_session *session,
	const struct kb_view *view, const char *verdict, struct kb_err *err)
{
	struct kb_digest *digest;
	struct md md = {.view = view, .session = session};
	int r = kb_digest_create(reader, session, view, &digest, err);

	if (r < 0)
		return r;
	md.d = digest;
	kb_buf_init(&md.out, KB_TEXT_MAX);
	kb_buf_init(&md.piece, KB_TEXT_MAX);
	r = put_head(&md, verdict, err);
	if (r == 0)
		r = put_totals(&md, err);
	if (r == 0)
		r = put_secrets(&md, err);
	if (r == 0)
		r = put_denials(&md, err);
	if (r == 0)
		r = put_files(&md, err);
	if (r == 0)
		r = put_net(&md, err);
	if (r == 0)
		r = put_busy(&md, err);
	if (r == 0)
		r = kb_text_flush(&md.out, view, err);
	kb_buf_finish(&md.out);
	kb_buf_finish(&md.piece);
	kb_digest_destroy(digest);
	return r;
}
