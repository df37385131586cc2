#include "json.h"

#include <inttypes.h>
#include <string.h>

#include "remedy.h"
#include "supervisor/base/util.h"

#define ANCESTORS 4u /* of the process whose call was denied */

static bool set(json_t *object, const char *name, json_t *value)
{
	return json_object_set_new_nocheck(object, name, value) == 0;
}

bool kb_json_text(json_t *object, const char *name, const char *text)
{
	return !text || !text[0] ||
	       kb_json_bytes(object, name, (struct kb_bytes){(const uint8_t *)text, strlen(text)});
}

bool kb_json_number(json_t *object, const char *name, uint64_t number)
{
	return set(object, name, json_integer((json_int_t)number));
}

static json_t *readable(struct kb_bytes bytes)
{
	KB_FREE char *text = NULL;

	if (kb_utf8_valid(bytes.data, bytes.len))
		return json_stringn_nocheck(bytes.len ? (const char *)bytes.data : "", bytes.len);
	text = kb_escape_dup(bytes.data, bytes.len);
	return text ? json_string_nocheck(text) : NULL;
}

static json_t *base64(struct kb_bytes bytes)
{
	KB_FREE char *text = kb_base64(bytes.data, bytes.len);

	return text ? json_string_nocheck(text) : NULL;
}

bool kb_json_bytes(json_t *object, const char *name, struct kb_bytes bytes)
{
	char second[64];

	if (!bytes.data)
		return true;
	if (!set(object, name, readable(bytes)))
		return false;
	if (kb_utf8_valid(bytes.data, bytes.len))
		return true;
	snprintf(second, sizeof(second), "%s_b64", name);
	return set(object, second, base64(bytes));
}

bool kb_json_argv(json_t *object, const char *name, const struct kb_bytes *argv, size_t argc)
{
	json_t *plain = json_array(), *exact = json_array();
	bool all = true, ok = plain && exact;
	char second[64];

	for (size_t i = 0; i < argc && ok; i++) {
		all = all && kb_utf8_valid(argv[i].data, argv[i].len);
		ok = json_array_append_new(plain, readable(argv[i])) == 0;
	}
	for (size_t i = 0; i < argc && ok && !all; i++)
		ok = json_array_append_new(exact, base64(argv[i])) == 0;
	snprintf(second, sizeof(second), "%s_b64", name);
	ok = ok && json_object_set_nocheck(object, name, plain) == 0;
	ok = ok && (all || json_object_set_nocheck(object, second, exact) == 0);
	json_decref(plain);
	json_decref(exact);
	return ok;
}

bool kb_json_time(json_t *object, const char *name, uint64_t time)
{
	char text[KB_WHEN_MAX];

	kb_when_rfc3339(time, text);
	return set(object, name, json_string_nocheck(text));
}

bool kb_json_rule(json_t *object, const struct kb_rule_text *rule)
{
	return !rule || (kb_json_text(object, "rule", rule->id) &&
				kb_json_text(object, "rule_text", rule->text) &&
				kb_json_text(object, "reason", rule->reason));
}

static bool put_identity(json_t *o, const struct kb_row *row)
{
	const struct kb_record *r = row->record;
	const char *name = r->syscall >= 0 ? kb_syscall_name(kb_row_arch(row), r->syscall) : NULL;
	char number[16];

	if (r->syscall >= 0 && !name) {
		snprintf(number, sizeof(number), "%d", r->syscall);
		name = number;
	}
	return kb_json_number(o, "seq", row->seq) && kb_json_time(o, "time", r->time) &&
	       kb_json_text(o, "event", kb_event_name(r->event)) &&
	       kb_json_text(o, "syscall", name) && kb_json_text(o, "lane", kb_lane_name(r->lane)) &&
	       kb_json_text(o, "session", row->session->name) &&
	       kb_json_text(o, "session_id", row->session->id_text) &&
	       kb_json_text(o, "agent", row->session->agent) &&
	       kb_json_text(o, "machine", row->session->machine);
}

static bool put_process(json_t *o, const struct kb_row *row)
{
	const struct kb_record *r = row->record;
	const struct kb_bytes *argv;
	struct kb_bytes exe, comm;
	size_t argc = kb_row_argv(row, &argv);
	int64_t ppid;

	if (!r->pid)
		return true;
	return kb_json_number(o, "pid", r->pid) &&
	       (!kb_row_ppid(row, &ppid) || kb_json_number(o, "ppid", (uint64_t)ppid)) &&
	       kb_json_number(o, "tid", r->tid) &&
	       (!kb_row_exe(row, &exe) || kb_json_bytes(o, "exe", exe)) &&
	       (!kb_row_comm(row, &comm) || kb_json_bytes(o, "comm", comm)) &&
	       (!argc || kb_json_argv(o, "argv", argv, argc)) &&
	       (!r->argv_lost || kb_json_number(o, "argv_lost", r->argv_lost)) &&
	       kb_json_bytes(o, "cwd", r->cwd);
}

static bool put_object(json_t *o, const struct kb_row *row)
{
	const struct kb_record *r = row->record;
	char text[KB_FLAGS_TEXT] = "", ip[KB_IP_TEXT];
	struct kb_bytes path;

	if (r->has_flags)
		kb_flags_format(r->event, kb_row_arch(row), r->flags, text);
	return (!kb_row_path(row, &path) || kb_json_bytes(o, "path", path)) &&
	       kb_json_bytes(o, "path2", r->path2) && kb_json_bytes(o, "path_arg", r->path_arg) &&
	       kb_json_bytes(o, "path2_arg", r->path2_arg) && kb_json_text(o, "flags", text) &&
	       (!r->has_mode || kb_json_number(o, "mode", r->mode)) &&
	       kb_json_bytes(o, "host", r->host) &&
	       (!kb_row_ip(row, ip) || kb_json_text(o, "ip", ip)) &&
	       (!r->port || kb_json_number(o, "port", r->port)) &&
	       kb_json_bytes(o, "secret", r->secret) &&
	       (!r->bytes || kb_json_number(o, "bytes", r->bytes)) &&
	       (!r->count || kb_json_number(o, "count", r->count)) &&
	       kb_json_bytes(o, "text", r->text);
}

static bool put_args(json_t *o, const struct kb_record *r)
{
	json_t *args;
	char text[24];
	bool ok;

	if (!r->has_args)
		return true;
	args = json_array();
	ok = args != NULL;
	for (size_t i = 0; i < KB_ARRAY_LEN(r->args) && ok; i++) {
		snprintf(text, sizeof(text), "0x%" PRIx64, r->args[i]);
		ok = json_array_append_new(args, json_string_nocheck(text)) == 0;
	}
	ok = ok && json_object_set_nocheck(o, "args", args) == 0;
	json_decref(args);
	return ok;
}

static bool put_verdict(json_t *o, const struct kb_row *row)
{
	const struct kb_record *r = row->record;
	char number[16];
	const char *error = kb_error_name(r->errnum);

	if (r->errnum && !error) {
		snprintf(number, sizeof(number), "%d", r->errnum);
		error = number;
	}
	return kb_json_text(o, "decision", kb_decision_name(r->decision)) &&
	       kb_json_text(o, "outcome", kb_outcome_name(r->outcome)) &&
	       kb_json_text(o, "errno", error) &&
	       (!r->has_result || set(o, "result", json_integer(r->result))) &&
	       (!r->has_exit_code || set(o, "exit_code", json_integer(r->exit_code))) &&
	       (!r->signal || kb_json_number(o, "signal", r->signal)) &&
	       kb_json_rule(o, kb_session_rule(row->session, r->rule)) &&
	       kb_json_text(o, "trust", kb_word(&kb_trust_words, r->trust)) && put_args(o, r);
}

/* Those that made the process, nearest first. */
static bool put_ancestors(json_t *o, const struct kb_row *row)
{
	const struct kb_process *above = row->proc ? row->proc->parent : NULL;
	json_t *list = json_array();
	bool ok = list;

	for (unsigned i = 0; i < ANCESTORS && above && ok; i++, above = above->parent) {
		json_t *one = json_object();

		ok = one && kb_json_number(one, "pid", above->pid) &&
		     (!above->comm_len || kb_json_bytes(one, "comm", kb_process_comm(above))) &&
		     json_array_append(list, one) == 0;
		json_decref(one);
	}
	ok = ok &&
	     (json_array_size(list) == 0 || json_object_set_nocheck(o, "ancestors", list) == 0);
	json_decref(list);
	return ok;
}

static bool put_remedy(json_t *o, const struct kb_row *row, const struct kb_view *view)
{
	KB_BUF_CLEANUP struct kb_buf text;

	kb_buf_init(&text, KB_TEXT_MAX);
	return kb_remedy(&text, view, row, NULL) == 0 &&
	       (kb_buf_len(&text) == 0 ||
		       kb_json_bytes(o, "remedy",
			       (struct kb_bytes){kb_buf_data(&text), kb_buf_len(&text)}));
}

json_t *kb_json_record(const struct kb_row *row, const struct kb_view *view)
{
	json_t *o = json_object();
	bool plain = row->record->decision == KB_DECISION_ALLOWED;

	if (o && put_identity(o, row) && put_process(o, row) && put_object(o, row) &&
		put_verdict(o, row) &&
		(plain || (put_ancestors(o, row) && put_remedy(o, row, view))))
		return o;
	json_decref(o);
	return NULL;
}

static bool put_end(json_t *o, const struct kb_session *s)
{
	if (!s->ended)
		return set(o, "ended", json_null()) && set(o, "exit_code", json_null());
	return kb_json_time(o, "ended", s->end.ended) &&
	       set(o, "exit_code", json_integer(s->end.exit_code)) &&
	       (!s->end.signal || kb_json_number(o, "signal", s->end.signal)) &&
	       kb_json_text(o, "reason", s->end.reason) &&
	       set(o, "complete", json_boolean(s->end.complete));
}

json_t *kb_json_session(const struct kb_session *s)
{
	json_t *o = json_object();

	if (o && kb_json_text(o, "id", s->id_text) && kb_json_text(o, "name", s->name) &&
		kb_json_text(o, "agent", s->agent) && kb_json_text(o, "machine", s->machine) &&
		kb_json_text(o, "state", s->ended ? "ended" : "running") &&
		kb_json_time(o, "started", s->started) && put_end(o, s) &&
		kb_json_number(o, "records", s->records) &&
		kb_json_number(o, "denials", s->denials) && kb_json_number(o, "lost", s->lost) &&
		kb_json_text(o, "user", s->user) && kb_json_text(o, "policy", s->policy) &&
		kb_json_text(o, "lane", s->lane) && kb_json_bytes(o, "workspace", s->workspace) &&
		kb_json_argv(o, "argv", s->argv, s->argc))
		return o;
	json_decref(o);
	return NULL;
}

int kb_json_put(json_t *value, bool compact, FILE *out, struct kb_err *err)
{
	size_t flags = compact ? JSON_COMPACT : JSON_INDENT(2);
	int r = 0;

	if (!value)
		return kb_err_nomem(err);
	if (json_dumpf(value, out, flags) < 0 || fputc('\n', out) == EOF)
		r = kb_err_set(err, KB_ERR_CLOSED, "the output is closed");
	json_decref(value);
	return r;
}
