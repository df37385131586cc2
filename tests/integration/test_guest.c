/* kbsup-guest at work: real containers, driven over link.proto by a fake host (fake_link.h).
 *
 * Every test runs twice when we are root: sessions of root, and sessions of an ordinary user
 * (rootless). GUEST_DIR has kbsup-guest and kbsup-init.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants those first */
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest_fixture.h"
#include "supervisor/base/util.h"

#define SHELL(script)                                                                              \
	(const char *const[])                                                                      \
	{                                                                                          \
		"/bin/sh", "-c", script, NULL                                                      \
	}
#define BIG (3u << 20)

static char *text_of(const struct kb_buf *buf)
{
	static char text[1 << 16];

	snprintf(text, sizeof(text), "%.*s", (int)kb_buf_len(buf), (const char *)kb_buf_data(buf));
	return text;
}

static struct fl_session *start_shell(struct fixture *f, const char *script, bool tty)
{
	struct fl_start start = {.workspace = f->workspace, .argv = SHELL(script), .tty = tty};

	return fl_start(f->link, &start);
}

static struct fl_session *start_napping(struct fixture *f, const char *before, const char *after)
{
	KB_FREE char *script = kb_asprintf("%s%s%s", before, f->nap, after);

	return start_shell(f, script, false);
}

/* ---- Starting and ending --------------------------------------------------------------------- */

static void test_hello(void **state)
{
	struct fixture *f = *state;
	const Kb__Hello *hello = fl_hello(f->link);

	assert_int_equal(hello->protocol, 1);
	assert_non_null(hello->runtime);
	assert_non_null(strstr(hello->runtime_why, "a container started and ended"));
	assert_int_equal(hello->rootless, f->uid != 0);
	assert_true(hello->landlock_abi > 0);
}

static void test_exit_codes(void **state)
{
	static const struct {
		const char *script;
		int code;
		unsigned signal;
	} cases[] = {{"exit 0", 0, 0}, {"exit 3", 3, 0}, {"kill -KILL $$", 137, 9},
		{"kill -TERM $$", 143, 15}};
	struct fixture *f = *state;

	for (size_t i = 0; i < KB_ARRAY_LEN(cases); i++) {
		struct fl_session *s = start_shell(f, cases[i].script, false);
		struct fl_process *p = fl_first(s);

		fl_wait_ended(s);
		assert_true(p->started && p->exited);
		assert_int_equal(p->exit_code, cases[i].code);
		assert_int_equal(p->signal, cases[i].signal);
		assert_int_equal(s->exit_code, cases[i].code);
		assert_null(s->reason);
	}
}

static void test_start_failures(void **state)
{
	struct fixture *f = *state;
	const struct {
		struct fl_start start;
		const char *error;
	} cases[] = {
		{{.workspace = f->workspace,
			 .argv = (const char *const[]){"no-such-command", NULL}},
			"no-such-command: command not found"},
		{{.workspace = f->workspace, .argv = (const char *const[]){"/no/such", NULL}},
			"/no/such cannot be run"},
		{{.workspace = f->workspace, .argv = (const char *const[]){"/usr", NULL}},
			"/usr cannot be run"},
		{{.workspace = f->workspace, .argv = SHELL("true"), .cwd = "/nowhere"},
			"the working directory cannot be entered"},
		{{.workspace = f->workspace,
			 .argv = SHELL("true"),
			 .lane = geteuid() ? "bpf" : "ptrace"},
			"cannot record by lane"},
		{{.workspace = f->link_workspace, .argv = SHELL("true")},
			"cannot be the workspace"},
		{{.workspace = "/proc/self", .argv = SHELL("true")}, "cannot be the workspace"},
		{{.workspace = "/nonexistent-workspace", .argv = SHELL("true")},
			"cannot be the workspace"},
		{{.workspace = f->workspace, .argv = SHELL("true"), .rootfs = "/nonexistent-root"},
			"cannot be the root file system"},
	};

	for (size_t i = 0; i < KB_ARRAY_LEN(cases); i++) {
		struct fl_session *s = fl_start(f->link, &cases[i].start);
		struct fl_process *p = fl_first(s);

		fl_wait_ended(s);
		assert_true(p->failed && !p->started && !s->ended);
		if (!strstr(p->error, cases[i].error))
			fail_msg("expected \"%s\", got \"%s\"", cases[i].error, p->error);
	}
	fixture_assert_clean(f);
}

static void test_limits_said(void **state)
{
	struct fixture *f = *state;
	struct fl_session *s = start_shell(f, "true", false);

	fl_wait_ended(s);
	assert_non_null(strstr(text_of(&s->effective), "seccomp: "));
	assert_non_null(strstr(text_of(&s->effective), "landlock: ABI "));
	/* What is missing was said in Hello, and again here. */
	if (fl_hello(f->link)->n_limits_missing > 0)
		assert_non_null(strstr(text_of(&s->missing), "memory limit"));
	else
		assert_non_null(strstr(text_of(&s->effective), "limit: memory"));
}

static void test_required_limit(void **state)
{
	struct fixture *f = *state;
	struct fl_start start = {.workspace = f->workspace,
		.argv = SHELL("true"),
		.policy = "policy t version 1 extends shell { limit memory 300M }"};
	struct fl_session *s = fl_start(f->link, &start);

	fl_wait_ended(s);
	if (fl_hello(f->link)->n_limits_missing > 0)
		assert_non_null(strstr(fl_first(s)->error, "memory limit 300M"));
	else
		assert_int_equal(s->exit_code, 0);
}

/* ---- Input and output ------------------------------------------------------------------------ */

static void test_pipes_exact(void **state)
{
	struct fixture *f = *state;
	struct fl_session *s = start_shell(f, "cat; cat /dev/null >&2; echo oops >&2", false);
	struct fl_process *p = fl_first(s);
	uint8_t *data = malloc(BIG);

	for (size_t i = 0; i < BIG; i++)
		data[i] = (uint8_t)(i * 2654435761u >> 13);
	fl_write(p, data, BIG);
	fl_write_eof(p);
	fl_wait_ended(s);
	assert_int_equal(kb_buf_len(&p->out), BIG);
	assert_memory_equal(kb_buf_data(&p->out), data, BIG);
	assert_string_equal(text_of(&p->err), "oops\n");
	free(data);
}

static void test_terminal(void **state)
{
	struct fixture *f = *state;
	struct fl_session *s = start_shell(f,
		"tty; stty size; trap 'stty size' WINCH; echo ready; while :; do sleep 0.1; done",
		true);
	struct fl_process *p = fl_first(s);

	fl_wait_output(p, "/dev/pts/0\r\n24 80\r\nready");
	fl_resize(p, 40, 100);
	fl_wait_output(p, "40 100");
	fl_write(p, "\003", 1);
	fl_wait_ended(s);
	assert_int_equal(p->exit_code, 130);
}

static void test_job_control(void **state)
{
	static const char sleeper[] = "sh -c 'echo in'' front; exec sleep 100'\n";
	struct fixture *f = *state;
	struct fl_start start = {.workspace = f->workspace,
		.argv = (const char *const[]){"/bin/bash", "--norc", "-i", NULL},
		.tty = true};
	struct fl_session *s = fl_start(f->link, &start);
	struct fl_process *p = fl_first(s);

	/* What is typed before the command has the terminal is the shell's. */
	fl_write(p, sleeper, strlen(sleeper));
	fl_wait_output(p, "in front");
	fl_write(p, "\032", 1);
	fl_wait_output(p, "Stopped");
	fl_write(p, "jobs; kill %1; exit 5\n", 22);
	fl_write(p, "exit 5\n", 7);
	fl_wait_ended(s);
	assert_int_equal(p->exit_code, 5);
}

static void test_back_pressure(void **state)
{
	struct fixture *f = *state;
	struct fl_session *s = start_shell(f, "head -c 8000000 /dev/zero; echo done >&2", false);
	struct fl_process *p = fl_first(s);

	fl_stall(p, true);
	fl_wait_started(p);
	fl_run_for(f->link, 500);
	/* What a stream may have in flight, twice over, and a pipe: the rest is still unwritten. */
	assert_true(kb_buf_len(&p->out) <= 256u << 10);
	assert_int_equal(kb_buf_len(&p->err), 0);
	fl_stall(p, false);
	fl_wait_ended(s);
	assert_int_equal(kb_buf_len(&p->out), 8000000);
	assert_string_equal(text_of(&p->err), "done\n");
}

static void test_detached_output(void **state)
{
	struct fixture *f = *state;
	struct fl_session *s = start_shell(
		f, "read a; seq 1 200000; echo END; echo side >&2; read b; echo after", false);
	struct fl_process *p = fl_first(s);
	const char *out;

	fl_wait_started(p);
	fl_attached(s, false);
	fl_write(p, "go\n", 3);
	fl_run_for(f->link, 1000);
	/* It ran to its end although nobody took anything. */
	assert_int_equal(kb_buf_len(&p->out), 0);
	fl_attached(s, true);
	fl_wait_output(p, "END\n");
	fl_write(p, "\n", 1);
	fl_wait_output(p, "after\n");
	fl_wait_ended(s);
	assert_string_equal(text_of(&p->err), "side\n");
	/* The newest 256 KiB, and no hole in them. */
	out = (const char *)kb_buf_data(&p->out);
	assert_true(kb_buf_len(&p->out) <= (256u << 10) + 6);
	assert_true(kb_buf_len(&p->out) > 200u << 10);
	assert_non_null(memmem(out, kb_buf_len(&p->out), "199999\n200000\nEND\nafter\n", 24));
}

/* ---- Signals and further processes ----------------------------------------------------------- */

static void test_signal(void **state)
{
	struct fixture *f = *state;
	struct fl_session *s = start_shell(f,
		"trap 'echo caught; exit 7' USR1; echo ready; while :; do sleep 0.05; done", false);
	struct fl_process *p = fl_first(s);

	fl_wait_output(p, "ready");
	fl_signal(p, SIGUSR1);
	fl_wait_ended(s);
	assert_int_equal(p->exit_code, 7);
	assert_non_null(strstr(text_of(&p->out), "caught"));
}

static void test_exec(void **state)
{
	static const char *const who = "id -u; grep -E '^(Seccomp|NoNewPrivs|CapBnd|CapEff|Uid):' "
				       "/proc/self/status; exit 4";
	struct fixture *f = *state;
	struct fl_session *s = start_shell(f,
		"id -u; grep -E '^(Seccomp|NoNewPrivs|CapBnd|CapEff|Uid):' /proc/self/status; read "
		"x",
		false);
	struct fl_process *first = fl_first(s), *p[5];
	char *confinement;

	fl_wait_started(first);
	for (size_t i = 0; i < KB_ARRAY_LEN(p); i++)
		p[i] = fl_exec(s, SHELL(who), false);
	for (size_t i = 0; i < KB_ARRAY_LEN(p); i++)
		fl_wait_exited(p[i]);
	fl_wait_output(first, "Seccomp:\t2\n"); /* the last line, written with those before it */
	confinement = strdup(text_of(&first->out));
	assert_non_null(strstr(confinement, "Seccomp:\t2"));
	assert_non_null(strstr(confinement, "NoNewPrivs:\t1"));
	assert_non_null(strstr(confinement, "CapBnd:\t0000000000000000"));
	assert_non_null(strstr(confinement, "CapEff:\t0000000000000000"));
	for (size_t i = 0; i < KB_ARRAY_LEN(p); i++) {
		assert_int_equal(p[i]->exit_code, 4);
		assert_string_equal(text_of(&p[i]->out), confinement);
	}
	free(confinement);
	fl_write(first, "\n", 1);
	fl_wait_ended(s);
}

static void test_exec_terminal_and_failures(void **state)
{
	struct fixture *f = *state;
	struct fl_session *s = start_shell(f, "read x", false);
	struct fl_process *p;

	fl_wait_started(fl_first(s));
	p = fl_exec(s, SHELL("tty; stty size"), true);
	fl_wait_exited(p);
	assert_string_equal(text_of(&p->out), "/dev/pts/0\r\n24 80\r\n");
	p = fl_exec(s, (const char *const[]){"nonesuch", NULL}, false);
	fl_wait_exited(p);
	assert_true(p->failed);
	assert_non_null(strstr(p->error, "command not found"));
	/* The end of the first process is everybody's. */
	p = fl_exec(s, SHELL("sleep 1000"), false);
	fl_wait_started(p);
	fl_write(fl_first(s), "\n", 1);
	fl_wait_ended(s);
	assert_true(p->exited);
	assert_int_equal(p->exit_code, 137);
	fixture_assert_clean(f);
}

static void test_stop(void **state)
{
	struct fixture *f = *state;
	struct fl_session *s = start_shell(
		f, "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.05; done", false);

	fl_wait_output(fl_first(s), "ready");
	fl_stop(s, false, "stopped by the test");
	fl_wait_ended(s);
	assert_int_equal(s->exit_code, 9);
	assert_string_equal(s->reason, "stopped by the test");
	s = start_shell(f, "trap '' TERM HUP; echo ready; while :; do sleep 0.05; done", false);
	fl_wait_output(fl_first(s), "ready");
	fl_stop(s, true, "stopped now");
	fl_wait_ended(s);
	assert_int_equal(s->exit_code, 137);
	fixture_assert_clean(f);
}

/* ---- Limits ---------------------------------------------------------------------------------- */

static void test_time_limit(void **state)
{
	struct fixture *f = *state;
	struct fl_start start = {.workspace = f->workspace,
		.argv = SHELL("sleep 100"),
		.policy = "policy t version 1 extends shell { limit time 300ms }"};
	struct fl_session *s = fl_start(f->link, &start);
	int64_t begin = kb_now_mono();

	fl_wait_ended(s);
	assert_true(kb_now_mono() - begin < 8000000000);
	assert_non_null(strstr(s->reason, "time limit"));
	assert_int_equal(s->exit_code, 137);
}

static void test_memory_limit(void **state)
{
	struct fixture *f = *state;
	struct fl_start start = {.workspace = f->workspace,
		.argv = SHELL("head -c 200000000 /dev/zero | tail -c 190000000 | wc -c; exit 6"),
		.policy = "policy t version 1 extends shell { limit memory 64M if-available }"};
	struct fl_session *s = fl_start(f->link, &start);

	fl_wait_ended(s);
	if (fl_hello(f->link)->n_limits_missing > 0) {
		assert_non_null(strstr(text_of(&s->missing), "memory limit 64M"));
		return;
	}
	assert_null(strstr(text_of(&fl_first(s)->out), "190000000"));
	assert_true(fixture_has_record(s, KB_EVENT_LIMIT, "memory limit was reached"));
}

static void test_file_and_process_limits(void **state)
{
	struct fixture *f = *state;
	struct fl_start start = {.workspace = f->workspace,
		.argv = (const char *const[]){"/bin/bash", "-c",
			"ulimit -n; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; "
			"do sleep 1 & "
			"done; wait",
			NULL},
		.policy = "policy t version 1 extends shell { limit open-files 77 limit pids 12 "
			  "if-available }"};
	struct fl_session *s = fl_start(f->link, &start);

	fl_wait_ended(s);
	assert_string_equal(text_of(&fl_first(s)->out), "77\n");
	assert_non_null(strstr(text_of(&fl_first(s)->err), "fork"));
}

/* ---- Workspaces ------------------------------------------------------------------------------ */

static void test_odd_workspaces(void **state)
{
	static const char *const names[] = {"with space", "new\nline", "inv\xff\xfelid", "quo\"te'",
		"br[a]cket", "\xe2\x82\xac"};
	struct fixture *f = *state;

	for (size_t i = 0; i < KB_ARRAY_LEN(names); i++) {
		KB_FREE char *path = kb_asprintf("%s/%s", f->dir, names[i]);
		KB_FREE char *file = kb_asprintf("%s/made", path);
		struct fl_start start = {.workspace = path, .argv = SHELL("pwd > made; cat made")};
		struct fl_result r;

		fixture_mkdir(f, path);
		fl_run(f->link, &start, &r);
		assert_null(r.error);
		assert_int_equal(r.exit_code, 0);
		assert_int_equal(strlen(r.out), strlen(path) + 1);
		assert_memory_equal(r.out, path, strlen(path));
		assert_int_equal(access(file, F_OK), 0);
		fl_result_finish(&r);
	}
}

static void test_workspace_in_home(void **state)
{
	struct fixture *f = *state;
	KB_FREE char *path = kb_asprintf("%s/home/code/project", f->dir);
	KB_FREE char *home = kb_asprintf("%s/home", f->dir);
	KB_FREE char *code = kb_asprintf("%s/home/code", f->dir);
	KB_FREE char *secret = kb_asprintf("%s/home/secret", f->dir);
	struct fl_start start = {.workspace = path,
		.home = home,
		.argv = SHELL("touch ~/mine here && ls ~ && ls ~/code")};
	struct fl_result r;

	fixture_mkdir(f, home);
	fixture_mkdir(f, code);
	fixture_mkdir(f, path);
	close(open(secret, O_CREAT | O_WRONLY, 0644));
	fl_run(f->link, &start, &r);
	assert_string_equal(r.out, "code\nmine\nproject\n");
	fl_result_finish(&r);
	/* The private home vanished with what was put there. */
	unlink(secret);
	assert_int_equal(rmdir(home), -1);
}

/* Only Landlock stands between a private directory and running what was put there. */
static void test_landlock(void **state)
{
	struct fixture *f = *state;
	struct fl_session *s = start_shell(f,
		"for d in /run /tmp; do cp /usr/bin/true $d/t; $d/t 2>/dev/null; echo $?; done",
		false);

	fl_wait_ended(s);
	assert_string_equal(text_of(&fl_first(s)->out), "126\n0\n");
}

/* The way to what is given may be looked at: no error, and no denial on record. */
static void test_directories_on_the_way(void **state)
{
	struct fixture *f = *state;
	struct fl_session *s = start_shell(f, "ls / /home /var /tmp .. > /dev/null", false);

	fl_wait_ended(s);
	assert_int_equal(s->exit_code, 0);
	assert_int_equal(s->denials, 0);
}

static void test_hidden_and_protected(void **state)
{
	struct fixture *f = *state;
	KB_FREE char *path = kb_asprintf("%s/hiding", f->dir);
	KB_FREE char *sub = kb_asprintf("%s/hiding/sub", f->dir);
	KB_FREE char *hooks = kb_asprintf("%s/hiding/hooks", f->dir);
	KB_FREE char *env = kb_asprintf("%s/hiding/sub/.env", f->dir);
	KB_FREE char *hook = kb_asprintf("%s/hiding/hooks/pre-commit", f->dir);
	struct fl_start start = {.workspace = path,
		.argv = SHELL(
			"cat sub/.env; echo x > hooks/pre-commit; mv hooks other; touch fine"),
		.policy = "policy t version 1 extends shell { workspace hide \"**/.env\" "
			  "workspace protect \"hooks\" }"};
	struct fl_result r;

	fixture_mkdir(f, path);
	fixture_mkdir(f, sub);
	fixture_mkdir(f, hooks);
	close(open(env, O_CREAT | O_WRONLY, 0644));
	assert_int_equal(truncate(env, 7), 0);
	fl_run(f->link, &start, &r);
	assert_int_equal(r.exit_code, 0);
	assert_string_equal(r.out, "");
	assert_non_null(strstr(r.err, "sub/.env"));
	assert_int_equal(access(hook, F_OK), -1);
	assert_int_equal(access(hooks, F_OK), 0);
	fl_result_finish(&r);
}

static void test_long_arguments(void **state)
{
	struct fixture *f = *state;
	enum { N = 12, LEN = 100000 };
	const char *argv[N + 5] = {"/bin/sh", "-c", "printf %s \"$@\" | wc -c", "sh"};
	struct fl_start start = {.workspace = f->workspace, .argv = argv};
	char *big = malloc(LEN + 1);
	struct fl_result r;

	memset(big, 'x', LEN);
	big[LEN] = '\0';
	for (int i = 0; i < N; i++)
		argv[4 + i] = big;
	fl_run(f->link, &start, &r);
	assert_null(r.error);
	assert_string_equal(r.out, "1200000\n");
	fl_result_finish(&r);
	free(big);
}

/* ---- Records --------------------------------------------------------------------------------- */

static void test_records(void **state)
{
	struct fixture *f = *state;
	struct fl_session *s = start_shell(f, "/bin/true; cat /etc/shadow; exit 2", false);

	fl_wait_ended(s);
	assert_int_equal(fixture_event_at(s, 1), KB_EVENT_START);
	assert_int_equal(fixture_event_at(s, s->last_seq), KB_EVENT_END);
	assert_true(fixture_has_record(s, KB_EVENT_START, "seccomp: "));
	assert_true(fixture_has_record(s, KB_EVENT_EXEC, "/usr/bin/true"));
	assert_true(s->denials >= 1);
}

/* The host is slow: nothing is lost, the session waits instead. */
static void test_records_wait(void **state)
{
	struct fixture *f = *state;
	struct fl_session *s = start_shell(
		f, "i=0; while [ $i -lt 300 ]; do : < /etc/passwd; i=$((i+1)); done", false);

	s->hold_acks = true;
	fl_wait_ended(s);
	fl_ack(s, s->last_seq);
	assert_true(s->last_seq > 300);
}

/* ---- Losing the link, a process, everything -------------------------------------------------- */

static void test_link_lost(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 3; i++)
		fl_wait_output(
			fl_first(start_napping(f, "echo up; setsid sleep 1000 & ", "; :")), "up");
	fixture_wait_processes(f, f->nap, 3);
	fixture_reopen(f);
	assert_int_equal(fixture_processes(f, f->nap), 0);
	fixture_assert_clean(f);
}

static void test_session_killed(void **state)
{
	struct fixture *f = *state;
	struct fl_session *a = start_napping(f, "echo up; ", "; :");
	struct fl_session *b = start_shell(f, "echo up; read x; exit 8", false);

	fl_wait_output(fl_first(a), "up");
	fl_wait_output(fl_first(b), "up");
	fixture_wait_processes(f, f->nap, 1);
	fixture_kill_session(f, a);
	fl_wait_ended(a);
	assert_non_null(strstr(a->reason, "process died"));
	assert_int_equal(fixture_event_at(a, a->last_seq), KB_EVENT_END);
	assert_int_equal(fixture_processes(f, f->nap), 0);
	fl_write(fl_first(b), "\n", 1);
	fl_wait_ended(b);
	assert_int_equal(b->exit_code, 8);
	fixture_assert_clean(f);
}

static void test_guest_killed(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 2; i++)
		fl_wait_output(fl_first(start_napping(f, "echo up; ", "; :")), "up");
	fixture_wait_processes(f, f->nap, 2);
	fixture_kill_everything(f);
	fixture_reopen(f);
	assert_int_equal(fixture_processes(f, f->nap), 0);
	fixture_assert_clean(f);
	test_exit_codes(state);
}

static void test_daemon_dies(void **state)
{
	struct fixture *f = *state;
	struct fl_session *s = start_napping(
		f, "setsid sh -c '", " & sleep 1000' </dev/null >/dev/null 2>&1 & sleep 0.2");

	fl_wait_ended(s);
	assert_int_equal(s->exit_code, 0);
	assert_int_equal(fixture_processes(f, f->nap), 0);
	fixture_assert_clean(f);
}

static void test_several_at_once(void **state)
{
	struct fixture *f = *state;
	struct fl_session *s[8];

	for (size_t i = 0; i < KB_ARRAY_LEN(s); i++)
		s[i] = start_shell(f, "cat; exit 11", false);
	for (size_t i = 0; i < KB_ARRAY_LEN(s); i++) {
		fl_wait_started(fl_first(s[i]));
		fl_write(fl_first(s[i]), "hello", 5);
		fl_write_eof(fl_first(s[i]));
	}
	for (size_t i = 0; i < KB_ARRAY_LEN(s); i++) {
		fl_wait_ended(s[i]);
		assert_int_equal(s[i]->exit_code, 11);
		assert_string_equal(text_of(&fl_first(s[i])->out), "hello");
	}
	fixture_assert_clean(f);
}

static void test_malformed(void **state)
{
	struct fixture *f = *state;

	fl_raw(f->link, "\xff\xff\xff\xff", 4);
	fl_wait_closed(f->link);
	fixture_reopen(f);
}

#define T(name) cmocka_unit_test(name)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(test_hello),
		T(test_exit_codes),
		T(test_start_failures),
		T(test_limits_said),
		T(test_required_limit),
		T(test_pipes_exact),
		T(test_terminal),
		T(test_job_control),
		T(test_back_pressure),
		T(test_detached_output),
		T(test_signal),
		T(test_exec),
		T(test_exec_terminal_and_failures),
		T(test_stop),
		T(test_time_limit),
		T(test_memory_limit),
		T(test_file_and_process_limits),
		T(test_odd_workspaces),
		T(test_workspace_in_home),
		T(test_landlock),
		T(test_directories_on_the_way),
		T(test_hidden_and_protected),
		T(test_long_arguments),
		T(test_records),
		T(test_records_wait),
		T(test_link_lost),
		T(test_session_killed),
		T(test_guest_killed),
		T(test_daemon_dies),
		T(test_several_at_once),
		T(test_malformed),
	};

	if (!fixture_select(argc, argv))
		return 77;
	return cmocka_run_group_tests(tests, fixture_open, fixture_close);
}
