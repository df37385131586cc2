#include "live.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/base/fd.h"

static void die(const char *what, const struct kb_err *err)
{
	fprintf(stderr, "live: %s: %s\n", what, err->msg);
	exit(99);
}

static void keep(const struct kb_record *record, void *arg)
{
	struct live *live = arg;

	if (live->on_record) {
		live->on_record(record, live->arg);
		return;
	}
	if (live->n_records == live->cap) {
		live->cap = live->cap ? live->cap * 2 : 256;
		live->records = reallocarray(live->records, live->cap, sizeof(*live->records));
	}
	live->records[live->n_records++] = kb_held_create(record);
}

static void failed(const struct kb_err *why, void *arg)
{
	struct live *live = arg;

	snprintf(live->failure, sizeof(live->failure), "%s", why->msg);
	kb_loop_stop(live->loop);
}

static const struct kb_notify_ops ops = {.record = keep, .failed = failed};

static struct kb_bundle *compile(const char *text)
{
	struct kb_policy_options options = {.home = "/root", .workspace = "/work", .user = "root"};
	struct kb_diags *diags = kb_diags_create();
	struct kb_policy *policy = NULL;
	struct kb_bundle *bundle = NULL;
	struct kb_err err = {0};
	struct kb_buf out;
	int r;

	kb_buf_init(&out, 4u << 20);
	r = kb_policy_load_text(text, strlen(text), "live.policy", &options, &policy, diags, &err);
	if (r == 0)
		r = kb_policy_lower(policy, &options, &out, diags, &err);
	if (r == 0)
		r = kb_bundle_parse(kb_buf_data(&out), kb_buf_len(&out), &bundle, &err);
	if (r < 0)
		die("policy", &err);
	kb_policy_destroy(policy);
	kb_diags_destroy(diags);
	kb_buf_finish(&out);
	return bundle;
}

void live_init(struct live *live, const char *policy, const char *root, const char *host)
{
	struct kb_err err;

	live->bundle = compile(policy);
	live->options = (struct kb_notify_options){
		.bundle = live->bundle, .arch = kb_arch_native(), .host_root = host};
	live->options.root_fd = open(root ? root : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (kb_loop_create(&live->loop, &err) < 0 ||
		(!live->lane_bpf && kb_notify_create(live->loop, &live->options, &ops, live,
					    &live->notify, &err) < 0))
		die("collector", &err);
}

static int install(const struct live *live, const struct kb_program *program)
{
	struct sock_fprog prog = {.len = (unsigned short)program->len, .filter = program->insns};
	unsigned flags = live->lane_bpf ? 0 : SECCOMP_FILTER_FLAG_NEW_LISTENER;

	if (!live->interruptible && !live->lane_bpf)
		flags |= SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);
}

static void child(struct live *live, int sock, int (*fn)(void *arg), void *arg)
{
	struct kb_program program;
	struct kb_err err;
	int listener;
	enum kb_emit_lane lane = live->lane_bpf ? KB_EMIT_PLAIN : KB_EMIT_NOTIFY;
	char go;

	if (kb_bundle_emit(live->bundle, kb_arch_native(), lane, &program, &err) < 0)
		die("filter", &err);
	/* The lane needs our namespace before it can start. */
	if (live->lane_bpf && read(sock, &go, 1) != 1)
		_exit(97);
	listener = install(live, &program);
	if (live->lane_bpf)
		_exit(listener < 0 ? 98 : fn(arg));
	/* From here on nothing may be called that is recorded before the listener is out. */
	if (listener < 0 || kb_fd_send(sock, "l", 1, &listener, 1, &err) < 0)
		_exit(98);
	close(listener);
	close(sock);
	_exit(fn(arg));
}

static void start_bpf(struct live *live)
{
	int fds[KB_BPF_HUB_FDS];
	struct kb_err err;

	if (kb_bpf_hub_create(&live->hub, &err) < 0)
		die("lane bpf", &err);
	kb_bpf_hub_fds(live->hub, fds);
	if (kb_bpf_seat_create(fds, 0, &live->seat, &err) < 0 ||
		kb_bpf_create(
			live->loop, &live->options, live->seat, &ops, live, &live->bpf, &err) < 0 ||
		kb_bpf_hub_attach(live->hub, &err) < 0)
		die("lane bpf", &err);
}

void live_start(struct live *live, int (*fn)(void *arg), void *arg)
{
	int pair[2], listener = -1;
	struct kb_err err;
	char byte;

	if (kb_fd_socketpair(true, pair, &err) < 0)
		die("socketpair", &err);
	fflush(NULL);
	live->pid = (pid_t)syscall(
		SYS_clone, (live->lane_bpf ? CLONE_NEWPID : 0) | SIGCHLD, NULL, NULL, NULL, NULL);
	if (live->pid < 0) {
		perror("live: a process");
		exit(99);
	}
	if (live->pid == 0) {
		signal(SIGPIPE, SIG_DFL);
		close(pair[0]);
		child(live, pair[1], fn, arg);
	}
	close(pair[1]);
	if (live->lane_bpf) {
		live->options.init_pid = live->pid;
		start_bpf(live);
		kb_fd_write_all(pair[0], "g", 1, &err);
		close(pair[0]);
		return;
	}
	if (kb_fd_recv(pair[0], &byte, 1, &listener, 1, &err) < 0 || listener < 0 ||
		kb_notify_add(live->notify, listener, &err) < 0)
		die("listener", &err);
	close(pair[0]);
}

static void on_child(int signo, void *arg)
{
	struct live *live = arg;

	if (waitpid(live->pid, &live->status, WNOHANG) == live->pid)
		kb_loop_stop(live->loop);
}

int live_wait(struct live *live)
{
	struct kb_source *source;
	struct kb_err err;

	if (kb_loop_signal(live->loop, SIGCHLD, on_child, live, &source, &err) < 0)
		die("signal", &err);
	/* It may have ended before the signal was watched. */
	if (waitpid(live->pid, &live->status, WNOHANG) != live->pid &&
		kb_loop_run(live->loop, &err) < 0)
		die("loop", &err);
	kb_source_destroy(source);
	kb_notify_destroy(KB_STEAL(live->notify));
	kb_bpf_destroy(KB_STEAL(live->bpf));
	return live->status;
}

void live_finish(struct live *live)
{
	kb_notify_destroy(live->notify);
	kb_bpf_destroy(live->bpf);
	kb_bpf_seat_destroy(live->seat);
	kb_bpf_hub_destroy(live->hub);
	for (size_t i = 0; i < live->n_records; i++)
		free(live->records[i]);
	free(live->records);
	kb_bundle_destroy(live->bundle);
	kb_loop_destroy(live->loop);
	*live = (struct live){0};
}

int live_run(struct live *live, const char *policy, int (*fn)(void *arg), void *arg)
{
	live_init(live, policy, NULL, "/");
	live_start(live, fn, arg);
	return live_wait(live);
}

bool bytes_are(struct kb_bytes bytes, const char *text)
{
	return bytes.data && bytes.len == strlen(text) && memcmp(bytes.data, text, bytes.len) == 0;
}

const struct kb_record *live_find(
	const struct live *live, enum kb_event event, const char *path, size_t nth)
{
	for (size_t i = 0; i < live->n_records; i++) {
		const struct kb_record *r = &live->records[i]->record;

		if (r->event == event && (!path || bytes_are(r->path, path)) && nth-- == 0)
			return r;
	}
	return NULL;
}

size_t live_count(const struct live *live, enum kb_event event, const char *path)
{
	size_t n = 0;

	while (live_find(live, event, path, n))
		n++;
	return n;
}

size_t live_index(const struct live *live, const struct kb_record *record)
{
	for (size_t i = 0; i < live->n_records; i++)
		if (&live->records[i]->record == record)
			return i;
	return SIZE_MAX;
}

void live_dump(const struct live *live)
{
	for (size_t i = 0; i < live->n_records; i++) {
		const struct kb_record *r = &live->records[i]->record;
		char path[256], exe[256];

		kb_escape(path, sizeof(path), r->path.data, r->path.len);
		kb_escape(exe, sizeof(exe), r->exe.data, r->exe.len);
		fprintf(stderr,
			"%4zu pid %u tid %u ppid %u event %d decision %d outcome %d errno %d "
			"trust %d rule %d path %s exe %s code %d signal %u count %llu\n",
			i, r->pid, r->tid, r->ppid, r->event, r->decision, r->outcome, r->errnum,
			r->trust, (int)r->rule, path, exe, r->exit_code, r->signal,
			(unsigned long long)r->count);
	}
}
