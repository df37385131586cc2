/* Names of errno values, signals and flags, as the audited Linux machine means them (the host may
 * be another system, so its own headers are not asked). */
#include <stdio.h>
#include <string.h>

#include "field.h"
#include "supervisor/base/util.h"

static const char *const errno_names[] = {
#include "errno_names.inc"
};

const char *kb_error_name(int errnum)
{
	return errnum > 0 && (size_t)errnum < KB_ARRAY_LEN(errno_names) ? errno_names[errnum]
									: NULL;
}

static int find_name(const char *const *names, size_t n, const char *name, size_t len)
{
	for (size_t i = 1; i < n; i++)
		if (names[i] && strlen(names[i]) == len && memcmp(names[i], name, len) == 0)
			return (int)i;
	return -1;
}

int kb_error_find(const char *name, size_t len)
{
	return find_name(errno_names, KB_ARRAY_LEN(errno_names), name, len);
}

/* asm-generic/signal.h: x86_64 and aarch64 have the same. */
static const char *const signal_names[] = {NULL, "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP",
	"SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGUSR1", "SIGSEGV", "SIGUSR2", "SIGPIPE",
	"SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGCHLD", "SIGCONT", "SIGSTOP", "SIGTSTP", "SIGTTIN",
	"SIGTTOU", "SIGURG", "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO",
	"SIGPWR", "SIGSYS"};

const char *kb_signal_name(int signo)
{
	return signo > 0 && (size_t)signo < KB_ARRAY_LEN(signal_names) ? signal_names[signo] : NULL;
}

int kb_signal_find(const char *name, size_t len)
{
	return find_name(signal_names, KB_ARRAY_LEN(signal_names), name, len);
}

#define ARCH_AARCH64 0xc00000b7u /* AUDIT_ARCH_AARCH64 */

/* asm-generic/fcntl.h; arch/arm64 gives four of them other values. Flags that contain others come
 * first. */
static const struct open_flag {
	const char *name;
	uint32_t generic, arm64;
} open_flags[] = {
	{"O_TMPFILE", 020200000, 020040000},
	{"O_SYNC", 04010000, 04010000},
	{"O_CREAT", 0100, 0100},
	{"O_EXCL", 0200, 0200},
	{"O_NOCTTY", 0400, 0400},
	{"O_TRUNC", 01000, 01000},
	{"O_APPEND", 02000, 02000},
	{"O_NONBLOCK", 04000, 04000},
	{"O_DSYNC", 010000, 010000},
	{"O_ASYNC", 020000, 020000},
	{"O_DIRECT", 040000, 0200000},
	{"O_LARGEFILE", 0100000, 0400000},
	{"O_DIRECTORY", 0200000, 040000},
	{"O_NOFOLLOW", 0400000, 0100000},
	{"O_NOATIME", 01000000, 01000000},
	{"O_CLOEXEC", 02000000, 02000000},
	{"O_PATH", 010000000, 010000000},
};
static const char *const access_modes[] = {"O_RDONLY", "O_WRONLY", "O_RDWR"};

static uint32_t flag_value(const struct open_flag *flag, uint32_t arch)
{
	return arch == ARCH_AARCH64 ? flag->arm64 : flag->generic;
}

void kb_flags_format(enum kb_event event, uint32_t arch, uint32_t flags, char ret[KB_FLAGS_TEXT])
{
	uint32_t mode = flags & KB_OPEN_ACCMODE, left = flags & ~KB_OPEN_ACCMODE, bits;
	size_t at;

	if (event != KB_EVENT_OPEN || mode >= KB_ARRAY_LEN(access_modes)) {
		snprintf(ret, KB_FLAGS_TEXT, "0x%x", flags);
		return;
	}
	at = (size_t)snprintf(ret, KB_FLAGS_TEXT, "%s", access_modes[mode]);
	for (size_t i = 0; i < KB_ARRAY_LEN(open_flags); i++) {
		bits = flag_value(&open_flags[i], arch);
		if ((left & bits) != bits)
			continue;
		left &= ~bits;
		at += (size_t)snprintf(ret + at, KB_FLAGS_TEXT - at, "|%s", open_flags[i].name);
	}
	if (left)
		snprintf(ret + at, KB_FLAGS_TEXT - at, "|0x%x", left);
}

const char *kb_flag_name(size_t i)
{
	if (i < KB_ARRAY_LEN(access_modes))
		return access_modes[i];
	i -= KB_ARRAY_LEN(access_modes);
	return i < KB_ARRAY_LEN(open_flags) ? open_flags[i].name : NULL;
}

bool kb_flag_find(const char *name, size_t len, uint32_t arch, uint32_t *ret)
{
	const char *known;

	for (size_t i = 0; (known = kb_flag_name(i)); i++) {
		if (strlen(known) != len || memcmp(known, name, len) != 0)
			continue;
		*ret = i < KB_ARRAY_LEN(access_modes)
			       ? (uint32_t)i
			       : flag_value(&open_flags[i - KB_ARRAY_LEN(access_modes)], arch);
		return true;
	}
	return false;
}

bool kb_open_writes(const struct kb_record *record)
{
	const uint32_t trunc = 01000;

	return record->event == KB_EVENT_OPEN && record->has_flags &&
	       ((record->flags & KB_OPEN_ACCMODE) != 0 || (record->flags & trunc));
}
