#include "field.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "supervisor/base/util.h"

/* AF_* of Linux, whatever the host is. */
#define LINUX_AF_UNIX  1u
#define LINUX_AF_INET  2u
#define LINUX_AF_INET6 10u

static bool from_literal(const char *text, struct kb_bytes *ret)
{
	*ret = (struct kb_bytes){(const uint8_t *)text, text ? strlen(text) : 0};
	return text && text[0];
}

static bool present(struct kb_bytes bytes, struct kb_bytes *ret)
{
	*ret = bytes;
	return bytes.data != NULL;
}

uint32_t kb_row_arch(const struct kb_row *row)
{
	return row->record->arch ? row->record->arch : row->session->arch;
}

bool kb_row_exe(const struct kb_row *row, struct kb_bytes *ret)
{
	const struct kb_record *r = row->record;

	if (r->event == KB_EVENT_EXEC && r->exe.data)
		return present(r->exe, ret);
	if (row->proc && row->proc->image)
		return present(row->proc->image->exe, ret);
	return present(r->exe, ret);
}

bool kb_row_comm(const struct kb_row *row, struct kb_bytes *ret)
{
	if (row->proc && row->proc->comm_len)
		return present(kb_process_comm(row->proc), ret);
	return present(row->record->comm, ret);
}

size_t kb_row_argv(const struct kb_row *row, const struct kb_bytes **ret)
{
	const struct kb_record *r = row->record;
	const struct kb_image *image = row->proc ? row->proc->image : NULL;

	if (r->event == KB_EVENT_EXEC || r->argc > 0) {
		*ret = r->argv;
		return r->argc;
	}
	*ret = image ? image->argv : NULL;
	return image ? image->argc : 0;
}

bool kb_row_ppid(const struct kb_row *row, int64_t *ret)
{
	*ret = row->record->ppid ? row->record->ppid : (row->proc ? row->proc->ppid : 0);
	return *ret != 0;
}

/* The path of a record; for a unix socket its address. */
bool kb_row_path(const struct kb_row *row, struct kb_bytes *ret)
{
	const struct kb_record *r = row->record;

	if (!r->path.data && r->family == LINUX_AF_UNIX)
		return present(r->address, ret);
	return present(r->path, ret);
}

bool kb_row_ip(const struct kb_row *row, char ret[KB_IP_TEXT])
{
	const struct kb_record *r = row->record;

	if (r->family == LINUX_AF_INET && r->address.len == 4)
		return inet_ntop(AF_INET, r->address.data, ret, KB_IP_TEXT) != NULL;
	if (r->family == LINUX_AF_INET6 && r->address.len == 16)
		return inet_ntop(AF_INET6, r->address.data, ret, KB_IP_TEXT) != NULL;
	return false;
}

/* ---- Numbers --------------------------------------------------------------------------------- */

static int64_t clamp(uint64_t v)
{
	return v > INT64_MAX ? INT64_MAX : (int64_t)v;
}

static bool get_time(const struct kb_row *row, int64_t *ret)
{
	*ret = clamp(row->record->time);
	return true;
}

static bool get_event(const struct kb_row *row, int64_t *ret)
{
	*ret = row->record->event;
	return true;
}

static bool get_syscall(const struct kb_row *row, int64_t *ret)
{
	*ret = row->record->syscall;
	return *ret >= 0;
}

static bool get_lane(const struct kb_row *row, int64_t *ret)
{
	*ret = row->record->lane;
	return *ret != KB_LANE_NONE;
}

static bool get_pid(const struct kb_row *row, int64_t *ret)
{
	*ret = row->record->pid;
	return *ret != 0;
}

static bool get_tid(const struct kb_row *row, int64_t *ret)
{
	*ret = row->record->tid;
	return *ret != 0;
}

static bool get_flags(const struct kb_row *row, int64_t *ret)
{
	*ret = row->record->flags;
	return row->record->has_flags;
}

static bool get_port(const struct kb_row *row, int64_t *ret)
{
	*ret = row->record->port;
	return row->record->family == LINUX_AF_INET || row->record->family == LINUX_AF_INET6 ||
	       *ret != 0;
}

static bool get_bytes(const struct kb_row *row, int64_t *ret)
{
	*ret = clamp(row->record->bytes);
	return *ret != 0;
}

static bool get_result(const struct kb_row *row, int64_t *ret)
{
	*ret = row->record->result;
	return row->record->has_result;
}

static bool get_errno(const struct kb_row *row, int64_t *ret)
{
	*ret = row->record->errnum;
	return *ret != 0;
}

static bool get_signal(const struct kb_row *row, int64_t *ret)
{
	*ret = row->record->signal;
	return *ret != 0;
}

static bool get_decision(const struct kb_row *row, int64_t *ret)
{
	*ret = row->record->decision;
	return true;
}

static bool get_outcome(const struct kb_row *row, int64_t *ret)
{
	*ret = row->record->outcome;
	return true;
}

static bool get_seq(const struct kb_row *row, int64_t *ret)
{
	*ret = clamp(row->seq);
	return true;
}

/* ---- Text ------------------------------------------------------------------------------------ */

static bool get_path2(const struct kb_row *row, struct kb_bytes *ret)
{
	return present(row->record->path2, ret);
}

static bool get_host(const struct kb_row *row, struct kb_bytes *ret)
{
	return present(row->record->host, ret);
}

static bool get_secret(const struct kb_row *row, struct kb_bytes *ret)
{
	return present(row->record->secret, ret);
}

static bool get_rule(const struct kb_row *row, struct kb_bytes *ret)
{
	const struct kb_rule_text *rule = kb_session_rule(row->session, row->record->rule);

	return rule && from_literal(rule->id, ret);
}

static bool get_session(const struct kb_row *row, struct kb_bytes *ret)
{
	return from_literal(row->session->name, ret);
}

static bool get_agent(const struct kb_row *row, struct kb_bytes *ret)
{
	return from_literal(row->session->agent, ret);
}

static bool get_machine(const struct kb_row *row, struct kb_bytes *ret)
{
	return from_literal(row->session->machine, ret);
}

/* The order is that of the command line's contract. */
static const struct kb_field fields[] = {
	{"time", KB_KIND_TIME, NULL, get_time, NULL, "when; 2026-11-23, \"16:20\", yesterday, 2h"},
	{"event", KB_KIND_WORD, &kb_event_words, get_event, NULL, "what happened"},
	{"syscall", KB_KIND_SYSCALL, NULL, get_syscall, NULL, "the system call, name or number"},
	{"lane", KB_KIND_WORD, &kb_lane_words, get_lane, NULL, "the collector that saw it"},
	{"pid", KB_KIND_NUMBER, NULL, get_pid, NULL, "process, as the session numbers it"},
	{"ppid", KB_KIND_NUMBER, NULL, kb_row_ppid, NULL, "its parent"},
	{"tid", KB_KIND_NUMBER, NULL, get_tid, NULL, "thread"},
	{"exe", KB_KIND_PATH, NULL, NULL, kb_row_exe, "the file that runs"},
	{"comm", KB_KIND_TEXT, NULL, NULL, kb_row_comm, "the process's short name"},
	{"argv", KB_KIND_ARGV, NULL, NULL, NULL, "one argument, or all with spaces between"},
	{"path", KB_KIND_PATH, NULL, NULL, kb_row_path, "the file it is about"},
	{"path2", KB_KIND_PATH, NULL, NULL, get_path2, "new name, or target of a link"},
	{"flags", KB_KIND_FLAGS, NULL, get_flags, NULL, "flags of the call; ~ O_CREAT: has them"},
	{"host", KB_KIND_TEXT, NULL, NULL, get_host, "the host name that was asked for"},
	{"ip", KB_KIND_IP, NULL, NULL, NULL, "address or network (10.0.0.0/8)"},
	{"port", KB_KIND_NUMBER, NULL, get_port, NULL, "port"},
	{"secret", KB_KIND_TEXT, NULL, NULL, get_secret, "secrets put into the request, by name"},
	{"bytes", KB_KIND_NUMBER, NULL, get_bytes, NULL, "how many bytes"},
	{"result", KB_KIND_NUMBER, NULL, get_result, NULL, "what the call returned"},
	{"errno", KB_KIND_ERRNO, NULL, get_errno, NULL, "why it failed, name or number"},
	{"signal", KB_KIND_SIGNAL, NULL, get_signal, NULL, "sent, or what ended it; SIGKILL or 9"},
	{"decision", KB_KIND_WORD, &kb_decision_words, get_decision, NULL, "what the policy said"},
	{"outcome", KB_KIND_WORD, &kb_outcome_words, get_outcome, NULL, "how the call ended"},
	{"rule", KB_KIND_RULE, NULL, NULL, get_rule, "the line that decided (base.policy:14)"},
	{"session", KB_KIND_SESSION, NULL, NULL, get_session, "session, name or id"},
	{"agent", KB_KIND_TEXT, NULL, NULL, get_agent, "agent of the session"},
	{"machine", KB_KIND_TEXT, NULL, NULL, get_machine, "machine of the session"},
	{"seq", KB_KIND_NUMBER, NULL, get_seq, NULL, "number of the record in its session"},
};

const struct kb_field *kb_field_table(size_t *ret_n)
{
	*ret_n = KB_ARRAY_LEN(fields);
	return fields;
}

const struct kb_field *kb_field_find(const char *name, size_t len)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(fields); i++)
		if (strlen(fields[i].name) == len && memcmp(fields[i].name, name, len) == 0)
			return &fields[i];
	return NULL;
}

const char *const *kb_field_names(size_t *ret_n)
{
	static const char *const names[] = {"time", "event", "syscall", "lane", "pid", "ppid",
		"tid", "exe", "comm", "argv", "path", "path2", "flags", "host", "ip", "port",
		"secret", "bytes", "result", "errno", "signal", "decision", "outcome", "rule",
		"session", "agent", "machine", "seq"};

	_Static_assert(KB_ARRAY_LEN(names) == KB_ARRAY_LEN(fields), "one name a field");
	*ret_n = KB_ARRAY_LEN(names);
	return names;
}
