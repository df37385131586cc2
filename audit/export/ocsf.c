/* Records as events of the Open Cybersecurity Schema Framework. Facts of classes, activities and
 * attributes are those of the published schema (github.com/ocsf/ocsf-schema), version 1.3.0.
 *
 * What a collector could not see stays unknown: status_id 0. Decision and outcome stay apart: the
 * decision is action_id and disposition_id (profile security_control), the outcome status_id.
 */
#include <string.h>
#include <sys/socket.h>

#include "audit/query/field.h"
#include "export.h"
#include "supervisor/base/util.h"

#define OCSF_VERSION "1.3.0"

enum ocsf_class {
	BASE = 0,
	FILE_ACTIVITY = 1001,
	PROCESS_ACTIVITY = 1007,
	NETWORK_ACTIVITY = 4001
};

static const struct {
	enum ocsf_class class;
	unsigned category;
	const char *name, *category_name;
} classes[] = {
	{BASE, 0, "Base Event", "Uncategorized"},
	{FILE_ACTIVITY, 1, "File System Activity", "System Activity"},
	{PROCESS_ACTIVITY, 1, "Process Activity", "System Activity"},
	{NETWORK_ACTIVITY, 4, "Network Activity", "Network Activity"},
};

/* Event → class and activity. Opens are told apart by what they asked for. */
static const struct {
	enum ocsf_class class;
	unsigned activity;
	const char *name;
} activities[KB_EVENT_MAX_] = {
	[KB_EVENT_EXEC] = {PROCESS_ACTIVITY, 1, "Launch"},
	[KB_EVENT_EXIT] = {PROCESS_ACTIVITY, 2, "Terminate"},
	[KB_EVENT_PTRACE] = {PROCESS_ACTIVITY, 3, "Open"},
	[KB_EVENT_OPEN] = {FILE_ACTIVITY, 14, "Open"},
	[KB_EVENT_UNLINK] = {FILE_ACTIVITY, 4, "Delete"},
	[KB_EVENT_RMDIR] = {FILE_ACTIVITY, 4, "Delete"},
	[KB_EVENT_RENAME] = {FILE_ACTIVITY, 5, "Rename"},
	[KB_EVENT_LINK] = {FILE_ACTIVITY, 1, "Create"},
	[KB_EVENT_SYMLINK] = {FILE_ACTIVITY, 1, "Create"},
	[KB_EVENT_MKDIR] = {FILE_ACTIVITY, 1, "Create"},
	[KB_EVENT_MKNOD] = {FILE_ACTIVITY, 1, "Create"},
	[KB_EVENT_CHMOD] = {FILE_ACTIVITY, 7, "Set Security"},
	[KB_EVENT_CHOWN] = {FILE_ACTIVITY, 7, "Set Security"},
	[KB_EVENT_TRUNCATE] = {FILE_ACTIVITY, 3, "Update"},
	[KB_EVENT_XATTR] = {FILE_ACTIVITY, 6, "Set Attributes"},
	[KB_EVENT_CONNECT] = {NETWORK_ACTIVITY, 1, "Open"},
	[KB_EVENT_BIND] = {NETWORK_ACTIVITY, 7, "Listen"},
	[KB_EVENT_LISTEN] = {NETWORK_ACTIVITY, 7, "Listen"},
	[KB_EVENT_SEND] = {NETWORK_ACTIVITY, 6, "Traffic"},
};

static bool set(json_t *o, const char *name, json_t *value)
{
	return json_object_set_new_nocheck(o, name, value) == 0;
}

static bool number(json_t *o, const char *name, uint64_t value)
{
	return kb_json_number(o, name, value);
}

/* Text for a reader that takes no second field: readable, always UTF-8. */
static bool text(json_t *o, const char *name, struct kb_bytes bytes)
{
	KB_FREE char *escaped = NULL;

	if (!bytes.data)
		return true;
	if (kb_utf8_valid(bytes.data, bytes.len))
		return set(o, name, json_stringn_nocheck((const char *)bytes.data, bytes.len));
	escaped = kb_escape_dup(bytes.data, bytes.len);
	return escaped && set(o, name, json_string_nocheck(escaped));
}

static struct kb_bytes base_name(struct kb_bytes path)
{
	size_t at = path.len;

	while (at > 0 && path.data[at - 1] != '/')
		at--;
	if (at == path.len) /* "/" and names that end in a slash have no last part */
		return path;
	return (struct kb_bytes){path.data + at, path.len - at};
}

static json_t *file_object(struct kb_bytes path, bool folder)
{
	json_t *o = json_object();

	if (o && text(o, "name", base_name(path)) && text(o, "path", path) &&
		number(o, "type_id", folder ? 2 : 0))
		return o;
	json_decref(o);
	return NULL;
}

/* A command line: the words with a space between, as OCSF's cmd_line has it. */
static bool command_line(json_t *o, const struct kb_bytes *argv, size_t argc)
{
	KB_BUF_CLEANUP struct kb_buf buf;

	if (argc == 0)
		return true;
	kb_buf_init(&buf, KB_TEXT_MAX);
	return kb_text_argv(&buf, argv, argc, NULL) == 0 &&
	       set(o, "cmd_line",
		       json_stringn_nocheck((const char *)kb_buf_data(&buf), kb_buf_len(&buf)));
}

static json_t *process_object(uint32_t pid, const struct kb_image *image, struct kb_bytes comm)
{
	json_t *o = json_object();
	bool ok = o && number(o, "pid", pid);

	if (ok && image && image->exe.len)
		ok = text(o, "name", base_name(image->exe)) &&
		     set(o, "file", file_object(image->exe, false)) &&
		     command_line(o, image->argv, image->argc);
	else if (ok && comm.len)
		ok = text(o, "name", comm);
	if (ok)
		return o;
	json_decref(o);
	return NULL;
}

static json_t *row_process(const struct kb_row *row)
{
	struct kb_bytes comm = {0};

	if (!row->proc)
		return process_object(row->record->pid, NULL, comm);
	return process_object(row->proc->pid, row->proc->image, kb_process_comm(row->proc));
}

/* The actor is the process itself; of a launch, the parent that asked for it. */
static bool put_actor(json_t *o, const struct kb_row *row)
{
	json_t *actor = json_object(), *process;
	const struct kb_process *parent = row->proc ? row->proc->parent : NULL;
	const char *user = row->session->user;
	bool ok = actor && text(actor, "app_name",
				   (struct kb_bytes){(const uint8_t *)row->session->agent,
					   strlen(row->session->agent)});

	if (ok && row->record->pid) {
		process = row->record->event == KB_EVENT_EXEC && parent
				  ? process_object(
					    parent->pid, parent->image, kb_process_comm(parent))
				  : row_process(row);
		ok = set(actor, "process", process);
	}
	if (ok && user && user[0])
		ok = set(actor, "user", json_pack("{s:s}", "name", user));
	return ok ? set(o, "actor", actor) : (json_decref(actor), false);
}

static json_t *endpoint(const struct kb_row *row)
{
	const struct kb_record *r = row->record;
	json_t *o = json_object();
	char ip[KB_IP_TEXT];
	bool ok = o != NULL;

	if (ok && kb_row_ip(row, ip))
		ok = set(o, "ip", json_string(ip));
	if (ok && r->host.data)
		ok = text(o, "hostname", r->host);
	if (ok && r->port)
		ok = number(o, "port", r->port);
	/* A unix socket has neither address nor port; its path is its name. */
	if (ok && json_object_size(o) == (r->port ? 1u : 0u))
		ok = text(o, "name",
			r->path.data	 ? r->path
			: r->address.len ? r->address
					 : (struct kb_bytes){(const uint8_t *)"unknown", 7});
	if (ok)
		return o;
	json_decref(o);
	return NULL;
}

static bool put_subject(json_t *o, const struct kb_row *row, enum ocsf_class class)
{
	const struct kb_record *r = row->record;
	static const struct kb_bytes unknown = {(const uint8_t *)"unknown", 7};

	switch (class) {
	case FILE_ACTIVITY:
		return set(o, "file",
			       file_object(r->path.data ? r->path : unknown,
				       r->event == KB_EVENT_MKDIR || r->event == KB_EVENT_RMDIR)) &&
		       (r->event != KB_EVENT_RENAME || !r->path2.data ||
			       set(o, "file_result", file_object(r->path2, false)));
	case PROCESS_ACTIVITY:
		return set(o, "process", row_process(row)) &&
		       (!r->has_exit_code || set(o, "exit_code", json_integer(r->exit_code)));
	case NETWORK_ACTIVITY:
		return set(o, "dst_endpoint", endpoint(row)) &&
		       (!r->bytes || set(o, "traffic",
					     json_pack("{s:I}", "bytes", (json_int_t)r->bytes)));
	case BASE:
		break;
	}
	return !r->text.data || text(o, "message", r->text);
}

static bool put_metadata(json_t *o, const struct kb_row *row)
{
	char uid[64];

	snprintf(uid, sizeof(uid), "%s:%llu", row->session->id_text, (unsigned long long)row->seq);
	return set(o, "metadata",
		       json_pack("{s:s, s:{s:s, s:s, s:s}, s:s, s:s, s:I, s:s, s:[s]}", "version",
			       OCSF_VERSION, "product", "name", "kbsup", "vendor_name", "kbsup",
			       "version", KB_VERSION, "uid", uid, "correlation_uid",
			       row->session->id_text, "sequence", (json_int_t)row->seq, "log_name",
			       row->session->name, "profiles", "security_control")) &&
	       set(o, "device",
		       json_pack("{s:i, s:s}", "type_id", 0, "hostname", row->session->machine));
}

static bool put_verdict(json_t *o, const struct kb_row *row)
{
	static const unsigned action[] = {1, 2, 2, 0}, disposition[] = {1, 2, 2, 0};
	static const unsigned status[] = {0, 1, 2, 2};
	const struct kb_record *r = row->record;
	const struct kb_rule_text *rule = kb_session_rule(row->session, r->rule);
	const char *errname = r->errnum ? kb_error_name(r->errnum) : NULL;
	bool denied = r->decision == KB_DECISION_DENIED || r->decision == KB_DECISION_KILLED;

	return number(o, "action_id", action[r->decision]) &&
	       number(o, "disposition_id", disposition[r->decision]) &&
	       number(o, "severity_id", denied ? 3 : 1) &&
	       number(o, "status_id", status[r->outcome]) &&
	       (!errname || set(o, "status_code", json_string(errname))) &&
	       (!rule || set(o, "policy",
				 json_pack("{s:s, s:s, s:s}", "uid", rule->id, "name",
					 row->session->policy ? row->session->policy : rule->file,
					 "desc", rule->text)));
}

/* What the schema has no place for: where it was seen, how far it can be trusted, exact bytes. */
static bool put_unmapped(json_t *o, const struct kb_row *row)
{
	const struct kb_record *r = row->record;
	json_t *extra = json_object();
	const char *lane = kb_lane_name(r->lane), *trust = kb_word(&kb_trust_words, r->trust);
	bool ok =
		extra && set(extra, "event", json_string(kb_event_name(r->event))) &&
		kb_json_text(extra, "lane", lane) && kb_json_text(extra, "trust", trust) &&
		(kb_utf8_valid(r->path.data, r->path.len) || kb_json_bytes(extra, "path", r->path));

	return ok ? set(o, "unmapped", extra) : (json_decref(extra), false);
}

static size_t class_index(enum ocsf_class class)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(classes); i++)
		if (classes[i].class == class)
			return i;
	return 0;
}

json_t *kb_export_ocsf(const struct kb_row *row)
{
	const struct kb_record *r = row->record;
	enum ocsf_class class = activities[r->event].class;
	unsigned activity = activities[r->event].activity;
	const char *name = activities[r->event].name;
	size_t c = class_index(class);
	json_t *o = json_object();
	bool ok;

	if (r->event == KB_EVENT_OPEN && r->created) {
		activity = 1;
		name = "Create";
	} else if (!name) {
		activity = 99;
		name = kb_event_name(r->event);
	}
	ok = o && number(o, "class_uid", class) &&
	     set(o, "class_name", json_string(classes[c].name)) &&
	     number(o, "category_uid", classes[c].category) &&
	     set(o, "category_name", json_string(classes[c].category_name)) &&
	     number(o, "activity_id", activity) && set(o, "activity_name", json_string(name)) &&
	     number(o, "type_uid", class * 100 + activity) &&
	     number(o, "time", r->time / 1000000) && put_metadata(o, row) && put_verdict(o, row) &&
	     put_subject(o, row, class) && (class == BASE || put_actor(o, row)) &&
	     put_unmapped(o, row);
	if (ok)
		return o;
	json_decref(o);
	return NULL;
}
