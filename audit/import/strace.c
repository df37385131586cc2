/* Theory of operation. A log is a sequence of lines, each of one process. A call that another
 * process interrupted comes as two lines, "unfinished" and "resumed": the first half is kept with
 * its process until the second comes. What a record needs and a line does not say is remembered per
 * process: its parent (from the parent's fork) and its working directory (from -y or chdir). A
 * child may be seen before its parent's fork returns (always so with vfork): then its parent is the
 * one that is in a fork, the latest if there are several.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "audit/audit.h"
#include "audit/query/field.h"
#include "strace_line.h"

#define KB_STRACE_LINE_MAX  (4u << 20) /* a longer line ends the import */
#define KB_STRACE_PROCS_MAX 65536
#define KB_STRACE_PATH_MAX  8192
#define KB_STRACE_ARGV_MAX  16384

#define NONE (-1)

/* Where a call's arguments are: indices, or NONE. */
struct call {
	const char *name;
	enum kb_event event;
	int8_t dir, path, dir2, path2, flags, mode, address;
};

#define PATH_CALL(n, ev, d, p)                                                                     \
	{                                                                                          \
		n, ev, d, p, NONE, NONE, NONE, NONE, NONE                                          \
	}
#define PATH2_CALL(n, ev, d, p, d2, p2)                                                            \
	{                                                                                          \
		n, ev, d, p, d2, p2, NONE, NONE, NONE                                              \
	}
#define FLAGS_CALL(n, ev, d, p, f, m)                                                              \
	{                                                                                          \
		n, ev, d, p, NONE, NONE, f, m, NONE                                                \
	}
#define ADDRESS_CALL(n, ev, a)                                                                     \
	{                                                                                          \
		n, ev, NONE, NONE, NONE, NONE, NONE, NONE, a                                       \
	}

static const struct call calls[] = {
	PATH_CALL("execve", KB_EVENT_EXEC, NONE, 0),
	PATH_CALL("execveat", KB_EVENT_EXEC, 0, 1),
	FLAGS_CALL("open", KB_EVENT_OPEN, NONE, 0, 1, 2),
	FLAGS_CALL("openat", KB_EVENT_OPEN, 0, 1, 2, 3),
	FLAGS_CALL("openat2", KB_EVENT_OPEN, 0, 1, 2, NONE),
	FLAGS_CALL("creat", KB_EVENT_OPEN, NONE, 0, NONE, 1),
	ADDRESS_CALL("connect", KB_EVENT_CONNECT, 1),
	ADDRESS_CALL("bind", KB_EVENT_BIND, 1),
	PATH_CALL("unlink", KB_EVENT_UNLINK, NONE, 0),
	PATH_CALL("unlinkat", KB_EVENT_UNLINK, 0, 1),
	PATH_CALL("rmdir", KB_EVENT_RMDIR, NONE, 0),
	PATH2_CALL("rename", KB_EVENT_RENAME, NONE, 0, NONE, 1),
	PATH2_CALL("renameat", KB_EVENT_RENAME, 0, 1, 2, 3),
	PATH2_CALL("renameat2", KB_EVENT_RENAME, 0, 1, 2, 3),
	PATH2_CALL("link", KB_EVENT_LINK, NONE, 0, NONE, 1),
	PATH2_CALL("linkat", KB_EVENT_LINK, 0, 1, 2, 3),
	PATH2_CALL("symlink", KB_EVENT_SYMLINK, NONE, 1, NONE, 0),
	PATH2_CALL("symlinkat", KB_EVENT_SYMLINK, 1, 2, NONE, 0),
	FLAGS_CALL("mkdir", KB_EVENT_MKDIR, NONE, 0, NONE, 1),
	FLAGS_CALL("mkdirat", KB_EVENT_MKDIR, 0, 1, NONE, 2),
	PATH_CALL("mknod", KB_EVENT_MKNOD, NONE, 0),
	PATH_CALL("mknodat", KB_EVENT_MKNOD, 0, 1),
	FLAGS_CALL("chmod", KB_EVENT_CHMOD, NONE, 0, NONE, 1),
	FLAGS_CALL("fchmodat", KB_EVENT_CHMOD, 0, 1, NONE, 2),
	FLAGS_CALL("fchmodat2", KB_EVENT_CHMOD, 0, 1, NONE, 2),
	PATH_CALL("chown", KB_EVENT_CHOWN, NONE, 0),
	PATH_CALL("lchown", KB_EVENT_CHOWN, NONE, 0),
	PATH_CALL("fchownat", KB_EVENT_CHOWN, 0, 1),
	PATH_CALL("truncate", KB_EVENT_TRUNCATE, NONE, 0),
};

struct proc {
	uint32_t pid, ppid;
	char *cwd;     /* absolute, or NULL */
	char *pending; /* first half of an interrupted call */
	uint64_t pending_time;
	bool forking; /* the pending call makes a child, which has not been seen */
	bool seen;    /* a line of it has been read */
	bool guessed; /* ppid is of the one that was forking */
	struct proc *next;
};

#define KB_STRACE_BUCKETS 1024

struct importer {
	struct proc *procs[KB_STRACE_BUCKETS];
	size_t n_procs, n_forking;
	uint32_t only_pid; /* a log without -f has none: everything is one process */
	uint64_t start, day, last_time;
	int (*record)(const struct kb_record *, void *, struct kb_err *);
	void *arg;
	struct kb_strace_stats stats;
	/* The record being made points into these. */
	char path[2][KB_STRACE_PATH_MAX];
	struct kb_bytes argv[KB_STRACE_ARGV_MAX];
	uint8_t address[sizeof(struct sockaddr_storage) - sizeof(sa_family_t)];
};

static struct proc *proc_of(struct importer *im, uint32_t pid)
{
	struct proc **slot = &im->procs[pid % KB_STRACE_BUCKETS], *p;

	for (p = *slot; p; p = p->next)
		if (p->pid == pid)
			return p;
	if (im->n_procs == KB_STRACE_PROCS_MAX)
		return NULL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->pid = pid;
	p->next = *slot;
	*slot = p;
	im->n_procs++;
	return p;
}

static void proc_forget(struct importer *im, uint32_t pid)
{
	struct proc **slot = &im->procs[pid % KB_STRACE_BUCKETS], *p;

	for (; (p = *slot); slot = &p->next) {
		if (p->pid != pid)
			continue;
		*slot = p->next;
		im->n_forking -= p->forking;
		free(p->cwd);
		free(p->pending);
		free(p);
		im->n_procs--;
		return;
	}
}

/* ---- Values ---------------------------------------------------------------------------------- */

static int errno_of(const char *name)
{
	int e = kb_error_find(name, strlen(name));

	return e > 0 ? e : 0;
}

/* Linux's, by number: the log is of a Linux machine. */
static uint32_t signal_of(const char *name)
{
	static const char *const names[] = {"", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS",
		"FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT", "CHLD",
		"CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
		"WINCH", "IO", "PWR", "SYS"};

	for (uint32_t s = 1; s < KB_ARRAY_LEN(names); s++)
		if (strncmp(name, "SIG", 3) == 0 && strcmp(names[s], name + 3) == 0)
			return s;
	return 0;
}

/* "O_RDONLY|O_CLOEXEC|0x40"; for openat2 the words inside "{flags=…, mode=…}". */
static uint32_t parse_flags(const char *text)
{
	uint32_t flags = 0, flag;

	while (*text && *text != ',') {
		size_t len = strcspn(text, "|, }");

		if (kb_flag_find(text, len, kb_arch_native(), &flag))
			flags |= flag;
		else if (len > 0 && text[0] >= '0' && text[0] <= '9')
			flags |= (uint32_t)strtoul(text, NULL, 0);
		text += len;
		text += strspn(text, "| }");
	}
	return flags;
}

/* The directory a relative path starts from: -y's annotation of the directory argument, else what
 * the process is known to be in. NULL when unknown. */
static const char *base_of(struct proc *p, char *dir, char *buf, size_t size)
{
	char *open = dir ? strchr(dir, '<') : NULL, *end = open ? strrchr(open, '>') : NULL;
	bool at_cwd = !dir || strncmp(dir, "AT_FDCWD", 8) == 0;

	if (end && open[1] == '/') {
		snprintf(buf, size, "%.*s", (int)(end - open - 1), open + 1);
		if (at_cwd && (!p->cwd || strcmp(p->cwd, buf) != 0)) {
			free(p->cwd);
			p->cwd = strdup(buf);
		}
		return buf;
	}
	return at_cwd ? p->cwd : NULL;
}

/* Fill *ret with the path of a call's argument, absolute where that can be known. */
static void take_path(
	struct importer *im, struct proc *p, char *dir, char *text, int slot, struct kb_bytes *ret)
{
	char base_buf[KB_STRACE_PATH_MAX / 2], *s, *end, *out = im->path[slot];
	const char *base = base_of(p, dir, base_buf, sizeof(base_buf));
	size_t len, base_len;
	bool cut;

	if (!text || !kb_strace_string(text, &s, &len, &end, &cut))
		return;
	im->stats.cut += cut;
	base_len = base && len > 0 && s[0] != '/' ? strlen(base) : 0;
	if (len + base_len + 1 > KB_STRACE_PATH_MAX)
		return;
	while (base_len > 0 && len >= 2 && s[0] == '.' && s[1] == '/') {
		s += 2;
		len -= 2;
	}
	if (base_len > 0) {
		memcpy(out, base, base_len);
		if (base[base_len - 1] != '/')
			out[base_len++] = '/';
	}
	memcpy(out + base_len, s, len);
	*ret = (struct kb_bytes){(uint8_t *)out, base_len + len};
}

/* `["sh", "-c", "cat o"...]` */
static void take_argv(struct importer *im, char *text, struct kb_record *r)
{
	char *s, *p = text ? text + 1 : NULL;
	size_t len;
	bool cut;

	if (!text || *text != '[')
		return;
	while (r->argc < KB_STRACE_ARGV_MAX && kb_strace_string(p, &s, &len, &p, &cut)) {
		im->stats.cut += cut;
		r->argv_lost += cut; /* at least one byte is missing */
		im->argv[r->argc++] = (struct kb_bytes){(uint8_t *)s, len};
		while (*p == ',' || *p == ' ')
			p++;
	}
	r->argv = im->argv;
}

static void take_unix(struct importer *im, char *text, struct kb_record *r)
{
	char *s, *end;
	size_t len;
	bool abstract = *text == '@', cut;

	if (!kb_strace_string(text + abstract, &s, &len, &end, &cut) ||
		len + abstract > sizeof(im->address))
		return;
	im->address[0] = '\0';
	memcpy(im->address + abstract, s, len);
	r->address = (struct kb_bytes){im->address, len + abstract};
}

/* "{sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("1.2.3.4")}" and its kin. */
static void take_address(struct importer *im, char *text, struct kb_record *r)
{
	static const struct {
		const char *mark;
		int family;
		size_t size;
	} forms[] = {{"inet_addr(\"", AF_INET, 4}, {"inet_pton(AF_INET6, \"", AF_INET6, 16}};
	const char *port = text ? strstr(text, "htons(") : NULL;
	char *at = text ? strstr(text, "sun_path=") : NULL, ip[INET6_ADDRSTRLEN];

	if (port)
		r->port = (uint32_t)strtoul(port + 6, NULL, 10) & 0xffff;
	if (at) {
		r->family = AF_UNIX;
		take_unix(im, at + 9, r);
		return;
	}
	for (size_t i = 0; text && i < KB_ARRAY_LEN(forms); i++) {
		at = strstr(text, forms[i].mark);
		if (!at)
			continue;
		at += strlen(forms[i].mark);
		r->family = (uint32_t)forms[i].family;
		snprintf(
			ip, sizeof(ip), "%.*s", (int)KB_MIN(strcspn(at, "\""), sizeof(ip) - 1), at);
		if (inet_pton(forms[i].family, ip, im->address) == 1)
			r->address = (struct kb_bytes){im->address, forms[i].size};
	}
}

/* ---- Lines ----------------------------------------------------------------------------------- */

static char *arg_at(struct kb_strace_line *line, int index)
{
	return index >= 0 && (size_t)index < line->n_args ? line->args[index] : NULL;
}

static int emit(struct importer *im, struct kb_record *r, struct kb_err *err)
{
	im->stats.records++;
	return im->record(r, im->arg, err);
}

static void set_outcome(const struct kb_strace_line *line, struct kb_record *r)
{
	if (!line->has_value)
		return;
	r->has_result = true;
	r->result = line->value;
	r->outcome = line->error ? KB_OUTCOME_FAILED : KB_OUTCOME_OK;
	r->errnum = line->error ? errno_of(line->error) : 0;
}

static int record_call(struct importer *im, const struct call *c, struct kb_strace_line *line,
	struct proc *p, struct kb_err *err)
{
	struct kb_record r = {.time = line->time,
		.event = c->event,
		.pid = p->pid,
		.ppid = p->ppid,
		.syscall = kb_syscall_number(kb_arch_native(), line->name),
		.rule = KB_RULE_NONE,
		.trust = KB_TRUST_RACY};
	char *flags = arg_at(line, c->flags), *mode = arg_at(line, c->mode);

	set_outcome(line, &r);
	take_path(im, p, arg_at(line, c->dir), arg_at(line, c->path), 0, &r.path);
	if (c->event == KB_EVENT_SYMLINK) {
		char *s, *end;
		size_t len;
		bool cut;

		/* The target is text, not a path to resolve. */
		if (arg_at(line, c->path2) &&
			kb_strace_string(arg_at(line, c->path2), &s, &len, &end, &cut))
			r.path2 = (struct kb_bytes){(uint8_t *)s, len};
	} else if (c->path2 >= 0) {
		take_path(im, p, arg_at(line, c->dir2), arg_at(line, c->path2), 1, &r.path2);
	}
	if (strcmp(c->name, "unlinkat") == 0 && arg_at(line, 2) &&
		strstr(arg_at(line, 2), "AT_REMOVEDIR"))
		r.event = KB_EVENT_RMDIR;
	if (c->event == KB_EVENT_OPEN) {
		const char *at = flags && *flags == '{' ? strstr(flags, "flags=") : NULL;

		r.has_flags = true;
		r.flags = flags ? parse_flags(at ? at + 6 : flags) : O_CREAT | O_WRONLY | O_TRUNC;
	}
	if (mode && mode[0] == '0') {
		r.has_mode = true;
		r.mode = (uint32_t)strtoul(mode, NULL, 8);
	}
	if (c->address >= 0)
		take_address(im, arg_at(line, c->address), &r);
	if (c->event == KB_EVENT_EXEC) {
		take_argv(im, arg_at(line, c->path + 1), &r);
		if (r.outcome == KB_OUTCOME_OK)
			r.exe = r.path;
	}
	return emit(im, &r, err);
}

/* fork, vfork, clone, clone3: the result is the child. */
static void note_child(struct importer *im, const struct kb_strace_line *line, const struct proc *p)
{
	struct proc *child;

	if (!line->has_value || line->value <= 0 || line->value > UINT32_MAX)
		return;
	child = proc_of(im, (uint32_t)line->value);
	if (!child || (child->ppid && !child->guessed))
		return;
	child->guessed = false;
	child->ppid = p->pid;
	if (!child->cwd && p->cwd)
		child->cwd = strdup(p->cwd);
}

static void note_chdir(struct importer *im, struct kb_strace_line *line, struct proc *p)
{
	struct kb_bytes path = {0};

	if (line->error || !line->has_value || line->n_args < 1)
		return;
	take_path(im, p, NULL, line->args[0], 0, &path);
	if (path.len == 0 || path.data[0] != '/')
		return;
	free(p->cwd);
	p->cwd = strndup((const char *)path.data, path.len);
}

static const char *const forks[] = {"fork", "vfork", "clone", "clone3"};

static bool is_fork(const char *text)
{
	size_t len = strcspn(text, "(");

	for (size_t i = 0; i < KB_ARRAY_LEN(forks); i++)
		if (strlen(forks[i]) == len && strncmp(text, forks[i], len) == 0)
			return true;
	return false;
}

static void guess_parent(struct importer *im, struct proc *child)
{
	struct proc *parent = NULL;

	for (size_t b = 0; im->n_forking && b < KB_STRACE_BUCKETS; b++)
		for (struct proc *p = im->procs[b]; p; p = p->next)
			if (p->forking && p != child &&
				(!parent || p->pending_time > parent->pending_time))
				parent = p;
	if (!parent)
		return;
	parent->forking = false;
	im->n_forking--;
	child->ppid = parent->pid;
	child->guessed = true;
	if (parent->cwd)
		child->cwd = strdup(parent->cwd);
}

static int on_call(
	struct importer *im, struct kb_strace_line *line, struct proc *p, struct kb_err *err)
{
	for (size_t i = 0; i < KB_ARRAY_LEN(calls); i++)
		if (strcmp(calls[i].name, line->name) == 0)
			return record_call(im, &calls[i], line, p, err);
	if (is_fork(line->name))
		note_child(im, line, p);
	if (strcmp(line->name, "chdir") == 0)
		note_chdir(im, line, p);
	return 0;
}

static int on_end(
	struct importer *im, const struct kb_strace_line *line, struct proc *p, struct kb_err *err)
{
	struct kb_record r = {.time = line->time,
		.event = KB_EVENT_EXIT,
		.pid = p->pid,
		.ppid = p->ppid,
		.syscall = -1,
		.rule = KB_RULE_NONE,
		.outcome = KB_OUTCOME_OK,
		.has_exit_code = true};
	int result;

	if (line->kind == KB_STRACE_KILLED) {
		r.signal = signal_of(line->name);
		r.exit_code = 128 + (int)r.signal;
	} else {
		r.exit_code = (int)line->value & 0xff;
	}
	result = emit(im, &r, err);
	proc_forget(im, p->pid);
	return result;
}

/* The two halves of an interrupted call are one text again. */
static int on_resumed(
	struct importer *im, struct kb_strace_line *line, struct proc *p, struct kb_err *err)
{
	struct kb_strace_line whole = {.pid = p->pid, .time = p->pending_time};
	KB_FREE char *text = NULL;
	KB_FREE char *first = KB_STEAL(p->pending);

	im->n_forking -= p->forking;
	p->forking = false;
	if (!first)
		return 0; /* the log starts in the middle of it */
	text = kb_asprintf("%s%s", first, line->rest);
	if (!text)
		return kb_err_nomem(err);
	if (!kb_strace_call_parse(text, &whole)) {
		im->stats.foreign++;
		return 0;
	}
	return on_call(im, &whole, p, err);
}

/* Every record gets a time: the line's, or a microsecond after the last. */
static void set_time(struct importer *im, struct kb_strace_line *line)
{
	if (!line->has_time)
		line->time = im->last_time + 1000;
	else if (line->time_of_day)
		line->time += im->day;
	im->last_time = KB_MAX(im->last_time, line->time);
}

static int on_line(struct importer *im, char *text, struct kb_err *err)
{
	struct kb_strace_line line;
	struct proc *p;

	im->stats.lines++;
	if (!kb_strace_line_parse(text, &line)) {
		im->stats.foreign++;
		return 0;
	}
	set_time(im, &line);
	p = proc_of(im, line.pid ? line.pid : im->only_pid);
	if (!p)
		return kb_err_set(err, KB_ERR_LIMIT, "the log holds more than %d processes at once",
			KB_STRACE_PROCS_MAX);
	if (!p->seen && !p->ppid)
		guess_parent(im, p);
	p->seen = true;
	switch (line.kind) {
	case KB_STRACE_CALL:
		return on_call(im, &line, p, err);
	case KB_STRACE_UNFINISHED:
		free(p->pending);
		p->pending = strdup(line.rest);
		p->pending_time = line.time;
		im->n_forking -= p->forking;
		p->forking = is_fork(line.rest);
		im->n_forking += p->forking;
		return p->pending ? 0 : kb_err_nomem(err);
	case KB_STRACE_RESUMED:
		return on_resumed(im, &line, p, err);
	case KB_STRACE_EXITED:
	case KB_STRACE_KILLED:
		return on_end(im, &line, p, err);
	case KB_STRACE_OTHER:
		break;
	}
	return 0;
}

static void importer_destroy(struct importer *im)
{
	for (size_t b = 0; b < KB_STRACE_BUCKETS; b++)
		while (im->procs[b])
			proc_forget(im, im->procs[b]->pid);
	free(im);
}
KB_DEFINE_CLEANUP(importer_destroyp, struct importer, importer_destroy);

int kb_strace_read(FILE *in, uint64_t start,
	int (*record)(const struct kb_record *record, void *arg, struct kb_err *err), void *arg,
	struct kb_strace_stats *ret, struct kb_err *err)
{
	KB_CLEANUP(importer_destroyp) struct importer *im = calloc(1, sizeof(*im));
	KB_FREE char *text = NULL;
	const uint64_t day_ns = UINT64_C(86400) * 1000000000;
	size_t size = 0;
	ssize_t n;
	int r = 0;

	if (!im)
		return kb_err_nomem(err);
	im->record = record;
	im->arg = arg;
	im->only_pid = 1;
	im->last_time = start;
	im->day = start - start % day_ns;
	while (r == 0 && (n = getline(&text, &size, in)) >= 0) {
		if ((size_t)n > KB_STRACE_LINE_MAX)
			return kb_err_set(err, KB_ERR_LIMIT, "line %llu is longer than %u bytes",
				(unsigned long long)im->stats.lines + 1, KB_STRACE_LINE_MAX);
		if (n > 0 && text[n - 1] == '\n')
			text[n - 1] = '\0';
		r = on_line(im, text, err);
	}
	if (r == 0 && ferror(in))
		r = kb_err_sys(err, errno, "the log could not be read");
	if (r == 0)
		*ret = im->stats;
	return r;
}
