/* strace's own lines, as strace 6.1 writes them, read as records. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "audit/audit.h"

#define START UINT64_C(1700000000000000000)

struct seen {
	char text[8192];
	size_t len;
};

static void put_bytes(struct seen *s, const char *name, struct kb_bytes b)
{
	if (b.data)
		s->len += (size_t)snprintf(s->text + s->len, sizeof(s->text) - s->len, " %s=%.*s",
			name, (int)b.len, (const char *)b.data);
}

static void put(struct seen *s, const char *name, int64_t v)
{
	if (v)
		s->len += (size_t)snprintf(
			s->text + s->len, sizeof(s->text) - s->len, " %s=%lld", name, (long long)v);
}

static int note(const struct kb_record *r, void *arg, struct kb_err *err)
{
	static const char *const outcomes[] = {"unknown", "ok", "failed", "interrupted"};
	struct seen *s = arg;

	s->len += (size_t)snprintf(s->text + s->len, sizeof(s->text) - s->len, "%u %s", r->pid,
		kb_event_name(r->event));
	put(s, "ppid", r->ppid);
	put_bytes(s, "path", r->path);
	put_bytes(s, "path2", r->path2);
	for (size_t i = 0; i < r->argc; i++)
		put_bytes(s, "arg", r->argv[i]);
	put(s, "cut", r->argv_lost);
	put(s, "flags", r->flags);
	put(s, "mode", r->mode);
	put(s, "family", r->family);
	put(s, "port", r->port);
	put(s, "alen", (int64_t)r->address.len);
	put(s, "errno", r->errnum);
	put(s, "exit", r->exit_code);
	put(s, "signal", r->signal);
	s->len += (size_t)snprintf(
		s->text + s->len, sizeof(s->text) - s->len, " %s\n", outcomes[r->outcome]);
	return 0;
}

static struct kb_strace_stats read_log(const char *log, struct seen *seen)
{
	struct kb_strace_stats stats = {0};
	struct kb_err err = {0};
	FILE *in = fmemopen((void *)log, strlen(log), "r");

	seen->len = 0;
	seen->text[0] = '\0';
	assert_non_null(in);
	if (kb_strace_read(in, START, note, seen, &stats, &err) < 0)
		fail_msg("%s", err.msg);
	fclose(in);
	return stats;
}

static const struct row {
	const char *log, *want;
} rows[] = {
	/* the three ways to name the process */
	{"unlink(\"/a\") = 0\n", "1 unlink path=/a ok\n"},
	{"12 unlink(\"/a\") = 0\n", "12 unlink path=/a ok\n"},
	{"[pid    12] unlink(\"/a\") = 0\n", "12 unlink path=/a ok\n"},
	{"12 1795488612.749884 unlink(\"/a\") = -1 ENOENT (No such file or directory)\n",
		"12 unlink path=/a errno=2 failed\n"},
	{"12 02:50:12.754842 unlink(\"/a\") = -1 EPERM (Operation not permitted)\n",
		"12 unlink path=/a errno=1 failed\n"},
	/* directories: annotated, remembered, unknown */
	{"12 openat(AT_FDCWD</w>, \"a.c\", O_RDONLY|O_CLOEXEC) = 3</w/a.c>\n",
		"12 open path=/w/a.c flags=524288 ok\n"},
	{"12 openat(5</x/y>, \"z\", O_WRONLY|O_CREAT|O_TRUNC, 0644) = 4\n",
		"12 open path=/x/y/z flags=577 mode=420 ok\n"},
	{"12 openat(AT_FDCWD, \"a\", O_RDONLY) = 3\n", "12 open path=a ok\n"},
	{"12 chdir(\"/w\") = 0\n12 openat(AT_FDCWD, \"./a\", O_RDONLY) = 3\n",
		"12 open path=/w/a ok\n"},
	{"12 chdir(\"/w\") = -1 ENOENT (x)\n12 unlink(\"a\") = 0\n", "12 unlink path=a ok\n"},
	{"12 chdir(\"/w\") = 0\n12 vfork() = 13\n13 unlink(\"a\") = 0\n",
		"13 unlink ppid=12 path=/w/a ok\n"},
	{"12 unlinkat(AT_FDCWD, \"/d\", AT_REMOVEDIR) = 0\n", "12 rmdir path=/d ok\n"},
	{"12 openat2(AT_FDCWD, \"/a\", {flags=O_RDWR|O_NOFOLLOW, resolve=RESOLVE_BENEATH}, 24) = "
	 "3\n",
		"12 open path=/a flags=131074 ok\n"},
	{"12 creat(\"/a\", 0600) = 3\n", "12 open path=/a flags=577 mode=384 ok\n"},
	/* two paths */
	{"12 rename(\"/a\", \"/b\") = 0\n", "12 rename path=/a path2=/b ok\n"},
	{"12 renameat2(AT_FDCWD, \"/a\", 3</d>, \"b\", RENAME_NOREPLACE) = 0\n",
		"12 rename path=/a path2=/d/b ok\n"},
	{"12 symlink(\"../t\", \"/l\") = 0\n", "12 symlink path=/l path2=../t ok\n"},
	{"12 symlinkat(\"t\", 3</d>, \"l\") = 0\n", "12 symlink path=/d/l path2=t ok\n"},
	{"12 linkat(AT_FDCWD, \"/a\", AT_FDCWD, \"/b\", 0) = 0\n", "12 link path=/a path2=/b ok\n"},
	/* strings: every escape, commas and brackets inside, abbreviations */
	{"12 unlink(\"/a\\nb\\t\\\"\\\\\\303\\251\\x41, ) [\") = 0\n",
		"12 unlink path=/a\nb\t\"\\\303\251A, ) [ ok\n"},
	{"12 execve(\"/bin/sh\", [\"sh\", \"-c\", \"cat /etc/hostname > o; gcc -c a.\"...], 0x7ff "
	 "/* 41 vars */) = 0\n",
		"12 exec path=/bin/sh arg=sh arg=-c arg=cat /etc/hostname > o; gcc -c a. cut=1 "
		"ok\n"},
	{"12 execve(\"/x\", [], 0x7ff /* 0 vars */) = -1 EACCES (Permission denied)\n",
		"12 exec path=/x errno=13 failed\n"},
	/* interrupted calls are one */
	{"12 unlink(\"/a\" <unfinished ...>\n13 unlink(\"/b\") = 0\n12 <... unlink resumed>) = 0\n",
		"13 unlink path=/b ok\n12 unlink path=/a ok\n"},
	{"12 <... unlink resumed>) = 0\n", ""},
	/* addresses */
	{"12 connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr(\"1.2.3.4\")}, "
	 "16) = 0\n",
		"12 connect family=2 port=53 alen=4 ok\n"},
	{"12 connect(3, {sa_family=AF_INET6, sin6_port=htons(443), sin6_flowinfo=htonl(0), "
	 "inet_pton(AF_INET6, \"::1\", &sin6_addr), sin6_scope_id=0}, 28) = -1 ECONNREFUSED (x)\n",
		"12 connect family=10 port=443 alen=16 errno=111 failed\n"},
	{"12 bind(3, {sa_family=AF_UNIX, sun_path=\"/run/s\"}, 110) = 0\n",
		"12 bind family=1 alen=6 ok\n"},
	{"12 connect(3, {sa_family=AF_UNIX, sun_path=@\"bus\"}, 110) = 0\n",
		"12 connect family=1 alen=4 ok\n"},
	/* a child that is seen before its parent's fork returns, and one that corrects a guess */
	{"7 vfork( <unfinished ...>\n8 unlink(\"/a\") = 0\n7 <... vfork resumed>) = 8\n"
	 "9 unlink(\"/b\") = 0\n",
		"8 unlink ppid=7 path=/a ok\n9 unlink path=/b ok\n"},
	{"6 fork( <unfinished ...>\n7 fork( <unfinished ...>\n8 unlink(\"/a\") = 0\n"
	 "6 <... fork resumed>) = 8\n8 unlink(\"/b\") = 0\n",
		"8 unlink ppid=7 path=/a ok\n8 unlink ppid=6 path=/b ok\n"},
	/* ends */
	{"12 +++ exited with 3 +++\n", "12 exit exit=3 ok\n"},
	{"12 +++ killed by SIGKILL +++\n", "12 exit exit=137 signal=9 ok\n"},
	{"12 +++ killed by SIGSEGV (core dumped) +++\n", "12 exit exit=139 signal=11 ok\n"},
	/* what is nobody's */
	{"12 --- SIGCHLD {si_signo=SIGCHLD, si_pid=13} ---\n12 read(3, \"x\", 1) = 1\n", ""},
	{"12 exit_group(0) = ?\n", ""},
};

static void test_rows(void **state)
{
	struct seen seen;

	(void)state;
	for (size_t i = 0; i < KB_ARRAY_LEN(rows); i++) {
		struct kb_strace_stats stats = read_log(rows[i].log, &seen);

		if (strcmp(seen.text, rows[i].want) != 0)
			fail_msg("row %zu: %s\n  want %s\n  got  %s", i, rows[i].log, rows[i].want,
				seen.text);
		assert_int_equal(stats.foreign, 0);
	}
}

static void test_foreign_lines_are_counted(void **state)
{
	struct seen seen;
	struct kb_strace_stats stats =
		read_log("hello\n12 unlink(\"/a\") = 0\n12 unlink(\"/a\n(((\n12 open(\n\n", &seen);

	(void)state;
	assert_string_equal(seen.text, "12 unlink path=/a ok\n");
	assert_int_equal(stats.lines, 6);
	assert_int_equal(stats.foreign, 5);
	assert_int_equal(stats.records, 1);
}

static uint64_t times[4];
static size_t n_times;

static int note_time(const struct kb_record *r, void *arg, struct kb_err *err)
{
	if (n_times < KB_ARRAY_LEN(times))
		times[n_times++] = r->time;
	return 0;
}

static void test_times(void **state)
{
	char log[] = "1795488612.000000001 unlink(\"/a\") = 0\n1795488612.5 unlink(\"/b\") = "
		     "0\nunlink(\"/c\") = 0\n";
	struct kb_strace_stats stats;
	FILE *in = fmemopen(log, strlen(log), "r");

	(void)state;
	assert_int_equal(kb_strace_read(in, START, note_time, NULL, &stats, NULL), 0);
	fclose(in);
	assert_int_equal(n_times, 3);
	assert_int_equal(times[0], UINT64_C(1795488612000000001));
	assert_int_equal(times[1], UINT64_C(1795488612500000000));
	assert_int_equal(times[2], UINT64_C(1795488612500001000));
}

static int refuse(const struct kb_record *r, void *arg, struct kb_err *err)
{
	return kb_err_set(err, KB_ERR_LIMIT, "enough");
}

static void test_the_callee_can_end_it(void **state)
{
	char log[] = "unlink(\"/a\") = 0\nunlink(\"/b\") = 0\n";
	struct kb_strace_stats stats;
	struct kb_err err = {0};
	FILE *in = fmemopen(log, strlen(log), "r");

	(void)state;
	assert_int_equal(kb_strace_read(in, START, refuse, NULL, &stats, &err), -KB_ERR_LIMIT);
	assert_string_equal(err.msg, "enough");
	fclose(in);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_foreign_lines_are_counted),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_the_callee_can_end_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
