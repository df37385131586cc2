/* `audit tree`: the processes of a session, each under the one that made it, with what it did; and
 * the summary. Walks without recursion: a hostile session can nest processes deeply. */
#include <inttypes.h>
#include <string.h>

#include "digest.h"
#include "json.h"
#include "supervisor/base/util.h"

#define DEPTH_SHOWN 60u /* rails of deeper levels are left out, and their depth is said */

struct tree {
	const struct kb_view *view;
	const struct kb_session *session;
	const struct kb_digest *d;
	struct kb_buf line;
	uint32_t *first_denial, *next_denial; /* per node; per denial */
	bool *shown;			      /* per node, when only a part is wanted */
};

/* ---- What a process did ---------------------------------------------------------------------- */

static int put_command(struct tree *t, const struct kb_node *node, struct kb_err *err)
{
	const struct kb_image *image = node->n_images ? node->images[0] : NULL;
	int r;

	if (!image) {
		r = kb_text_bytes(&t->line, kb_process_comm(node->proc), err);
		return r < 0 ? r : kb_buf_printf(&t->line, err, " (%u)", node->proc->pid);
	}
	r = kb_buf_puts(&t->line, kb_colour(t->view, KB_BOLD), err);
	if (r == 0)
		r = image->argc ? kb_text_argv(&t->line, image->argv, image->argc, err)
				: kb_text_path(&t->line, t->view, image->exe, err);
	if (r == 0)
		r = kb_buf_puts(&t->line, kb_colour(t->view, KB_PLAIN), err);
	return r < 0 ? r : kb_buf_printf(&t->line, err, " (%u)", node->proc->pid);
}

static int put_samples(struct tree *t, const char *word, uint64_t total, const uint32_t *samples,
	uint32_t n, struct kb_err *err)
{
	char count[KB_COUNT_MAX];
	bool more = n == KB_NODE_SAMPLES && total > n; /* else they are all the files there are */
	int r;

	if (!total)
		return 0;
	if (more || n == 0)
		r = kb_buf_printf(&t->line, err, "  · %s %s:", word, kb_text_count(total, count));
	else
		r = kb_buf_printf(&t->line, err, "  · %s", word);
	for (uint32_t i = 0; i < n && r == 0; i++) {
		r = kb_buf_puts(&t->line, " ", err);
		if (r == 0)
			r = kb_text_path(&t->line, t->view, t->d->files[samples[i]].path, err);
	}
	if (r == 0 && more)
		r = kb_buf_puts(&t->line, " …", err);
	return r;
}

static int put_exit(struct tree *t, const struct kb_process *proc, struct kb_err *err)
{
	if (!proc->exited)
		return 0;
	if (proc->signal)
		return kb_buf_printf(&t->line, err, "  %ssignal %u%s", kb_colour(t->view, KB_RED),
			proc->signal, kb_colour(t->view, KB_PLAIN));
	return kb_buf_printf(&t->line, err, "  %sexit %d%s",
		kb_colour(t->view, proc->exit_code ? KB_YELLOW : KB_SOFT), proc->exit_code,
		kb_colour(t->view, KB_PLAIN));
}

static int put_process(struct tree *t, const struct kb_node *node, struct kb_err *err)
{
	char time[KB_WHEN_MAX];
	int r = put_command(t, node, err);

	kb_when_format(node->proc->started, t->view->utc, false, time);
	if (r == 0)
		r = kb_buf_printf(&t->line, err, "  %s%s%s", kb_colour(t->view, KB_SOFT), time + 11,
			kb_colour(t->view, KB_PLAIN));
	if (r == 0)
		r = put_exit(t, node->proc, err);
	if (r == 0)
		r = put_samples(
			t, "wrote", node->written, node->written_samples, node->n_written, err);
	if (r == 0)
		r = put_samples(
			t, "deleted", node->deleted, node->deleted_samples, node->n_deleted, err);
	if (r == 0 && node->connected)
		r = kb_buf_printf(&t->line, err, "  · connected %" PRIu64 " ×", node->connected);
	return r;
}

/* "denied open ~/.ssh/id (read)  by base.policy:14  fs deny "~/.ssh"" */
static int put_denial(struct tree *t, const struct kb_denial *denial, struct kb_err *err)
{
	const struct kb_rule_text *rule = kb_session_rule(t->session, denial->rule);
	const char *error = kb_error_name(denial->errnum);
	int r = kb_buf_printf(&t->line, err, "%s✗ %s %s ", kb_colour(t->view, KB_RED),
		kb_decision_name(denial->decision), kb_event_name(denial->event));

	if (r == 0)
		r = kb_buf_append(&t->line, denial->what.data, denial->what.len, err);
	if (r == 0 && denial->times > 1)
		r = kb_buf_printf(&t->line, err, " %" PRIu64 " ×", denial->times);
	if (r == 0)
		r = kb_buf_puts(&t->line, kb_colour(t->view, KB_PLAIN), err);
	if (r == 0 && error)
		r = kb_buf_printf(&t->line, err, "  %s", error);
	if (r < 0 || !rule)
		return r;
	r = kb_buf_puts(&t->line, "  by ", err);
	if (r == 0)
		r = kb_text_rule(&t->line, rule, err);
	if (r == 0)
		r = kb_buf_puts(&t->line, "  ", err);
	return r < 0 ? r
		     : kb_text_bytes(&t->line,
			       (struct kb_bytes){(const uint8_t *)rule->text, strlen(rule->text)},
			       err);
}

/* ---- The tree -------------------------------------------------------------------------------- */

static uint32_t next_shown(const struct tree *t, uint32_t at)
{
	while (at != KB_NONE && t->shown && !t->shown[at])
		at = t->d->nodes[at].next_sibling;
	return at;
}

/* The lines that lead to a node: for each ancestor whether more children follow below it. */
static int put_rails(struct tree *t, uint32_t at, bool own_line, struct kb_err *err)
{
	const char *rails[DEPTH_SHOWN];
	unsigned n = 0;
	int r = 0;

	for (uint32_t up = at; t->d->nodes[up].parent != KB_NONE && n < DEPTH_SHOWN;
		up = t->d->nodes[up].parent) {
		bool more = next_shown(t, t->d->nodes[up].next_sibling) != KB_NONE;

		rails[n++] = up == at && own_line ? (more ? "├─ " : "└─ ") : (more ? "│  " : "   ");
	}
	if (t->d->nodes[at].depth > DEPTH_SHOWN)
		r = kb_buf_printf(&t->line, err, "[%u] ", t->d->nodes[at].depth);
	while (n > 0 && r == 0)
		r = kb_buf_puts(&t->line, rails[--n], err);
	return r;
}

static int end_line(struct tree *t, struct kb_err *err)
{
	int r = kb_buf_puts(&t->line, "\n", err);

	return r < 0 ? r : kb_text_flush(&t->line, t->view, err);
}

/* A line below a process: the same rails, and one to its children if it has any. */
static int begin_detail(struct tree *t, uint32_t at, struct kb_err *err)
{
	bool children = next_shown(t, t->d->nodes[at].first_child) != KB_NONE;
	int r = put_rails(t, at, false, err);

	return r < 0 ? r : kb_buf_puts(&t->line, children ? "│    " : "     ", err);
}

static int put_node(struct tree *t, uint32_t at, struct kb_err *err)
{
	const struct kb_node *node = &t->d->nodes[at];
	int r = put_rails(t, at, true, err);

	if (r == 0)
		r = put_process(t, node, err);
	if (r == 0)
		r = end_line(t, err);
	for (uint32_t i = 1; i < node->n_images && r == 0; i++) {
		r = begin_detail(t, at, err);
		if (r == 0)
			r = kb_buf_puts(&t->line, "→ ", err);
		if (r == 0)
			r = kb_text_argv(
				&t->line, node->images[i]->argv, node->images[i]->argc, err);
		if (r == 0)
			r = end_line(t, err);
	}
	for (uint32_t i = t->first_denial[at]; i != KB_NONE && r == 0; i = t->next_denial[i]) {
		r = begin_detail(t, at, err);
		if (r == 0)
			r = put_denial(t, &t->d->denials[i], err);
		if (r == 0)
			r = end_line(t, err);
	}
	return r;
}

/* Depth first, by the links alone. */
static uint32_t next_node(const struct tree *t, uint32_t at)
{
	uint32_t next = next_shown(t, t->d->nodes[at].first_child);

	if (next != KB_NONE)
		return next;
	for (; at != KB_NONE; at = t->d->nodes[at].parent) {
		next = next_shown(t, t->d->nodes[at].next_sibling);
		if (next != KB_NONE)
			return next;
	}
	return KB_NONE;
}

static int put_text_tree(struct tree *t, struct kb_err *err)
{
	int r = 0;

	for (uint32_t root = 0; root < t->d->n_nodes && r == 0; root++) {
		if (t->d->nodes[root].parent != KB_NONE || (t->shown && !t->shown[root]))
			continue;
		for (uint32_t at = root; at != KB_NONE && r == 0; at = next_node(t, at))
			r = put_node(t, at, err);
	}
	for (size_t i = 0; i < t->d->n_denials && r == 0 && !t->shown; i++) {
		if (t->d->denials[i].node != KB_NONE)
			continue; /* shown with its process */
		r = put_denial(t, &t->d->denials[i], err);
		if (r == 0)
			r = end_line(t, err);
	}
	if (r == 0 && t->d->cut)
		r = kb_buf_puts(&t->line, "(very many files or denials: not all are shown)\n", err);
	return r < 0 ? r : kb_text_flush(&t->line, t->view, err);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static bool add_paths(json_t *o, const char *name, const struct tree *t, const uint32_t *samples,
	uint32_t n, uint64_t total)
{
	struct kb_bytes paths[KB_NODE_SAMPLES];
	char counted[32];

	for (uint32_t i = 0; i < n; i++)
		paths[i] = t->d->files[samples[i]].path;
	snprintf(counted, sizeof(counted), "%s_count", name);
	return (n == 0 || kb_json_argv(o, name, paths, n)) && kb_json_number(o, counted, total);
}

static json_t *denial_json(const struct tree *t, const struct kb_denial *denial)
{
	json_t *o = json_object();

	if (o && kb_json_text(o, "event", kb_event_name(denial->event)) &&
		kb_json_text(o, "decision", kb_decision_name(denial->decision)) &&
		(!denial->path.len || kb_json_bytes(o, "path", denial->path)) &&
		kb_json_bytes(o, "what", denial->what) &&
		kb_json_text(o, "errno", kb_error_name(denial->errnum)) &&
		kb_json_rule(o, kb_session_rule(t->session, denial->rule)) &&
		kb_json_number(o, "times", denial->times) &&
		kb_json_number(o, "seq", denial->first_seq))
		return o;
	json_decref(o);
	return NULL;
}

static bool add_execs(json_t *o, const struct kb_node *node)
{
	const struct kb_image *last =
		node->n_images ? node->images[node->n_images - 1] : node->proc->image;

	return !last || (kb_json_bytes(o, "exe", last->exe) &&
				kb_json_argv(o, "argv", last->argv, last->argc));
}

static bool add_times(json_t *o, const struct kb_process *proc)
{
	if (!kb_json_time(o, "started", proc->started))
		return false;
	if (!proc->exited)
		return true;
	return kb_json_time(o, "ended", proc->ended) &&
	       json_object_set_new(o, "exit_code", json_integer(proc->exit_code)) == 0 &&
	       (!proc->signal || kb_json_number(o, "signal", proc->signal));
}

static json_t *node_json(const struct tree *t, uint32_t at)
{
	const struct kb_node *node = &t->d->nodes[at];
	json_t *o = json_object(), *denials = json_array();
	bool ok =
		o && denials && kb_json_number(o, "pid", node->proc->pid) &&
		kb_json_number(o, "ppid", node->proc->ppid) &&
		kb_json_bytes(o, "comm", kb_process_comm(node->proc)) && add_execs(o, node) &&
		add_times(o, node->proc) && kb_json_number(o, "records", node->records) &&
		kb_json_number(o, "seq", node->first_seq) &&
		kb_json_number(o, "connected_count", node->connected) &&
		add_paths(o, "written", t, node->written_samples, node->n_written, node->written) &&
		add_paths(o, "deleted", t, node->deleted_samples, node->n_deleted, node->deleted);

	for (uint32_t i = t->first_denial[at]; i != KB_NONE && ok; i = t->next_denial[i])
		ok = json_array_append_new(denials, denial_json(t, &t->d->denials[i])) == 0;
	ok = ok && json_object_set(o, "denied", denials) == 0 &&
	     json_object_set_new(o, "children", json_array()) == 0;
	json_decref(denials);
	if (ok)
		return o;
	json_decref(o);
	return NULL;
}

/* Parents come before their children in the array, so one pass hangs everybody up. */
static int put_json_tree(struct tree *t, struct kb_err *err)
{
	json_t **made = calloc(t->d->n_nodes + 1, sizeof(*made));
	json_t *doc = json_object(), *roots = json_array(), *into;
	bool ok = made && doc && roots;
	int r;

	for (uint32_t i = 0; i < t->d->n_nodes && ok; i++) {
		uint32_t parent = t->d->nodes[i].parent;

		if (t->shown && !t->shown[i])
			continue;
		made[i] = node_json(t, i);
		into = parent == KB_NONE || !made[parent]
			       ? roots
			       : json_object_get(made[parent], "children");
		ok = made[i] && json_array_append_new(into, made[i]) == 0;
	}
	ok = ok && kb_json_text(doc, "session", t->session->name) &&
	     kb_json_text(doc, "session_id", t->session->id_text) &&
	     json_object_set(doc, "processes", roots) == 0;
	free(made);
	json_decref(roots);
	r = ok ? kb_json_put(doc, false, t->view->out, err) : kb_err_nomem(err);
	if (!ok)
		json_decref(doc);
	return r;
}

/* ---- Both ------------------------------------------------------------------------------------ */

/* Denials of each process, as lists in their order. */
static bool sort_denials(struct tree *t)
{
	size_t n_nodes = t->d->n_nodes, n = t->d->n_denials;

	t->first_denial = malloc((n_nodes + 1) * sizeof(uint32_t));
	t->next_denial = malloc((n + 1) * sizeof(uint32_t));
	if (!t->first_denial || !t->next_denial)
		return false;
	memset(t->first_denial, 0xff, (n_nodes + 1) * sizeof(uint32_t));
	for (size_t i = n; i-- > 0;) {
		uint32_t node = t->d->denials[i].node;

		if (node == KB_NONE)
			continue;
		t->next_denial[i] = t->first_denial[node];
		t->first_denial[node] = (uint32_t)i;
	}
	return true;
}

/* Only the processes of this pid, with what led to them and what came of them. */
static int choose_around(struct tree *t, uint32_t pid, struct kb_err *err)
{
	bool found = false;

	t->shown = calloc(t->d->n_nodes + 1, sizeof(*t->shown));
	if (!t->shown)
		return kb_err_nomem(err);
	for (uint32_t i = 0; i < t->d->n_nodes; i++) {
		uint32_t parent = t->d->nodes[i].parent;
		bool is_it = t->d->nodes[i].proc->pid == pid;

		/* 2: the process or below it; 1 (set later): above it */
		t->shown[i] = is_it || (parent != KB_NONE && t->shown[parent]);
		found = found || is_it;
	}
	for (uint32_t i = 0; i < t->d->n_nodes && found; i++)
		if (t->d->nodes[i].proc->pid == pid)
			for (uint32_t up = t->d->nodes[i].parent; up != KB_NONE && !t->shown[up];
				up = t->d->nodes[up].parent)
				t->shown[up] = true;
	if (found)
		return 0;
	kb_err_set(err, KB_ERR_NOTFOUND, "session %s had no process %u", t->session->name, pid);
	return kb_err_hint(err, "kbsup audit tree %s shows all", t->session->name);
}

static int put_tree(struct tree *t, uint32_t around_pid, struct kb_err *err)
{
	int r = sort_denials(t) ? 0 : kb_err_nomem(err);

	if (r == 0 && around_pid)
		r = choose_around(t, around_pid, err);
	if (r == 0)
		r = t->view->json ? put_json_tree(t, err) : put_text_tree(t, err);
	if (r == 0 && fflush(t->view->out) != 0)
		r = kb_err_set(err, KB_ERR_CLOSED, "the output is closed");
	free(t->first_denial);
	free(t->next_denial);
	free(t->shown);
	kb_buf_finish(&t->line);
	return r;
}

int kb_reader_tree(struct kb_reader *reader, const char *name, uint32_t around_pid,
	const struct kb_view *view, struct kb_err *err)
{
	struct kb_session *session;
	struct kb_digest *digest;
	struct tree tree;
	int r = kb_reader_one(reader, name, &session, err);

	if (r < 0)
		return r;
	r = kb_digest_create(reader, session, view, &digest, err);
	if (r == 0) {
		tree = (struct tree){.view = view, .session = session, .d = digest};
		kb_buf_init(&tree.line, KB_TEXT_MAX);
		r = put_tree(&tree, around_pid, err);
		kb_digest_destroy(digest);
	}
	kb_session_destroy(session);
	return r;
}

int kb_reader_summary(
	struct kb_reader *reader, const char *name, struct kb_summary *ret, struct kb_err *err)
{
	const struct kb_view view = {0};
	struct kb_session *session;
	struct kb_digest *d;
	int r = kb_reader_one(reader, name, &session, err);

	if (r < 0)
		return r;
	r = kb_digest_create(reader, session, &view, &d, err);
	if (r == 0) {
		*ret = (struct kb_summary){.records = d->records,
			.denials = d->denied,
			.lost = d->lost,
			.commands = d->commands,
			.changed = d->changed,
			.deleted = d->deleted,
			.hosts = d->hosts,
			.secrets = d->n_secrets};
		kb_digest_destroy(d);
	}
	kb_session_destroy(session);
	return r;
}
