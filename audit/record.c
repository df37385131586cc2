/* The words of records: the names that the command line promises, from tables. */
#include "record.h"

#include <string.h>

static const char *const event_names[KB_EVENT_MAX_] = {
	[KB_EVENT_START] = "start",
	[KB_EVENT_EXEC] = "exec",
	[KB_EVENT_EXIT] = "exit",
	[KB_EVENT_OPEN] = "open",
	[KB_EVENT_CONNECT] = "connect",
	[KB_EVENT_BIND] = "bind",
	[KB_EVENT_LISTEN] = "listen",
	[KB_EVENT_SEND] = "send",
	[KB_EVENT_UNLINK] = "unlink",
	[KB_EVENT_RMDIR] = "rmdir",
	[KB_EVENT_RENAME] = "rename",
	[KB_EVENT_LINK] = "link",
	[KB_EVENT_SYMLINK] = "symlink",
	[KB_EVENT_MKDIR] = "mkdir",
	[KB_EVENT_MKNOD] = "mknod",
	[KB_EVENT_CHMOD] = "chmod",
	[KB_EVENT_CHOWN] = "chown",
	[KB_EVENT_TRUNCATE] = "truncate",
	[KB_EVENT_XATTR] = "xattr",
	[KB_EVENT_MOUNT] = "mount",
	[KB_EVENT_SETNS] = "setns",
	[KB_EVENT_PTRACE] = "ptrace",
	[KB_EVENT_SIGNAL] = "signal",
	[KB_EVENT_MEMORY] = "memory",
	[KB_EVENT_SYSCALL] = "syscall",
	[KB_EVENT_RESOLVE] = "resolve",
	[KB_EVENT_REQUEST] = "request",
	[KB_EVENT_LIMIT] = "limit",
	[KB_EVENT_LOSS] = "loss",
	[KB_EVENT_THROTTLE] = "throttle",
	[KB_EVENT_ATTACH] = "attach",
	[KB_EVENT_END] = "end",
};

static const char *const lane_names[KB_LANE_MAX_] = {
	[KB_LANE_NOTIFY] = "notify",
	[KB_LANE_BPF] = "bpf",
	[KB_LANE_NET] = "net",
	[KB_LANE_RUNTIME] = "runtime",
};

static const char *const decision_names[KB_DECISION_MAX_] = {
	[KB_DECISION_ALLOWED] = "allowed",
	[KB_DECISION_DENIED] = "denied",
	[KB_DECISION_KILLED] = "killed",
	[KB_DECISION_ASKED] = "asked",
};

static const char *const outcome_names[KB_OUTCOME_MAX_] = {
	[KB_OUTCOME_UNKNOWN] = "unknown",
	[KB_OUTCOME_OK] = "ok",
	[KB_OUTCOME_FAILED] = "failed",
	[KB_OUTCOME_INTERRUPTED] = "interrupted",
};

static const char *const trust_names[KB_TRUST_MAX_] = {
	[KB_TRUST_REGISTER] = "register",
	[KB_TRUST_RACY] = "racy",
	[KB_TRUST_KERNEL] = "kernel",
	[KB_TRUST_UNREADABLE] = "unreadable",
};

const struct kb_words kb_event_words = {event_names, KB_EVENT_MAX_};
const struct kb_words kb_lane_words = {lane_names, KB_LANE_MAX_};
const struct kb_words kb_decision_words = {decision_names, KB_DECISION_MAX_};
const struct kb_words kb_outcome_words = {outcome_names, KB_OUTCOME_MAX_};
const struct kb_words kb_trust_words = {trust_names, KB_TRUST_MAX_};

const char *kb_word(const struct kb_words *words, unsigned value)
{
	return value < words->n && words->names[value] ? words->names[value] : NULL;
}

int kb_word_find(const struct kb_words *words, const char *text, size_t len)
{
	for (unsigned i = 0; i < words->n; i++)
		if (words->names[i] && strlen(words->names[i]) == len &&
			memcmp(words->names[i], text, len) == 0)
			return (int)i;
	return -1;
}

const char *kb_event_name(enum kb_event event)
{
	return kb_word(&kb_event_words, (unsigned)event);
}

const char *kb_lane_name(enum kb_lane lane)
{
	return kb_word(&kb_lane_words, (unsigned)lane);
}

const char *kb_decision_name(enum kb_decision decision)
{
	return kb_word(&kb_decision_words, (unsigned)decision);
}

const char *kb_outcome_name(enum kb_outcome outcome)
{
	return kb_word(&kb_outcome_words, (unsigned)outcome);
}
