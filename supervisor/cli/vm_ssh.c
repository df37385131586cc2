/* kbsup vm ssh: a shell, or a command, in a machine */
#include "vm_ssh.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "feed.h"
#include "sink.h"
#include "supervisor/base/dirs.h"
#include "supervisor/base/os.h"
#include "term.h"
#include "verbs.h"

#define OUT_HIGH    (256u << 10)
#define COMMAND_MAX (128u << 10)
#define RETRY_MS    100
#define COMING_MS   20000 /* a machine of ours that has just come up: for its sshd */

struct shell {
	struct kb_loop *loop;
	struct kb_ssh *ssh;
	struct kb_ssh_channel *ch; /* NULL: over */
	struct kb_feed in;
	struct kb_sink out[2];
	struct kb_source *signals, *winch, *again;
	bool tty, deaf, over; /* deaf: our input is not for it */
	bool ready, coming;   /* logged in; it may only just be coming up, until then: */
	int64_t coming_until;
	int status;
	struct kb_err why; /* code 0: it ended well */
};

/* ---- Whose keys ------------------------------------------------------------------------------ */

void kb_vm_target(struct kb_cli *cli, const struct kb_vm_ssh *to, struct kb_ssh_keys *keys,
	struct kb_ssh_target *ret)
{
	*ret = (struct kb_ssh_target){
		.host = to->host, .port = to->port, .user = to->user, .host_key = to->host_key};
	kb_ssh_keys_find(keys, to->key, cli->home, ret);
}

/* ---- The two ends ---------------------------------------------------------------------------- */

static void settle(struct shell *s)
{
	if (s->over && !kb_sink_waiting(&s->out[0]) && !kb_sink_waiting(&s->out[1]))
		kb_loop_stop(s->loop);
}

static void end(struct shell *s, const struct kb_err *why)
{
	if (why && !s->why.code)
		s->why = *why;
	s->over = true;
	s->ch = NULL;
	kb_feed_stop(&s->in);
	settle(s);
}

static size_t in_room(void *arg)
{
	struct shell *s = arg;

	return s->ch ? kb_ssh_channel_room(s->ch) : 0;
}

static void in_data(const uint8_t *data, size_t len, void *arg)
{
	struct shell *s = arg;

	(void)kb_ssh_channel_write(s->ch, data, len);
	if (kb_ssh_channel_room(s->ch) == 0)
		(void)kb_ssh_channel_write(s->ch, data, 1); /* asks to be told of room */
}

static void in_end(int errnum, void *arg)
{
	struct shell *s = arg;

	if (s->ch)
		kb_ssh_channel_eof(s->ch);
}

static const struct kb_feed_ops in_ops = {in_room, in_data, in_end};

static void out_drained(struct kb_sink *sink, size_t len, void *arg)
{
	struct shell *s = arg;

	if (s->ch && kb_sink_waiting(&s->out[0]) < OUT_HIGH &&
		kb_sink_waiting(&s->out[1]) < OUT_HIGH)
		kb_ssh_channel_pause(s->ch, false);
	settle(s);
}

static void out_broken(struct kb_sink *sink, int errnum, void *arg)
{
	struct shell *s = arg;
	struct kb_err err;

	kb_ssh_channel_close(s->ch);
	kb_err_sys(&err, errnum, "the output cannot be written");
	end(s, &err);
}

static const struct kb_sink_ops out_ops = {out_drained, out_broken};

static void ch_opened(struct kb_ssh_channel *ch, void *arg)
{
	struct shell *s = arg;
	struct kb_err err;

	if (s->tty && kb_term_raw(STDIN_FILENO, &err) < 0) {
		end(s, &err);
		return;
	}
	if (s->deaf)
		kb_ssh_channel_eof(s->ch);
	else
		kb_feed_more(&s->in);
}

static void ch_data(
	struct kb_ssh_channel *ch, bool is_err, const uint8_t *data, size_t len, void *arg)
{
	struct shell *s = arg;
	struct kb_sink *sink = &s->out[is_err];
	struct kb_err err;

	if (kb_sink_write(sink, data, len, &err) < 0)
		end(s, &err);
	else if (kb_sink_waiting(sink) >= OUT_HIGH && s->ch)
		kb_ssh_channel_pause(ch, true);
}

static void ch_writable(struct kb_ssh_channel *ch, void *arg)
{
	struct shell *s = arg;

	kb_feed_more(&s->in);
}

/* 128 and the number, as shells have it; a name that is none of here is just a failure. */
static int signal_status(const char *name)
{
	for (int i = 1; i < 65; i++) {
		const char *abbrev = kb_os_signal_name(i);

		if (abbrev && !strcmp(abbrev, name))
			return 128 + i;
	}
	return 255;
}

static void ch_closed(struct kb_ssh_channel *ch, const struct kb_ssh_exit *exit,
	const struct kb_err *why, void *arg)
{
	struct shell *s = arg;

	if (exit)
		s->status = *exit->signal ? signal_status(exit->signal) : exit->code;
	end(s, why);
}

static const struct kb_ssh_channel_ops ch_ops = {
	.opened = ch_opened, .data = ch_data, .writable = ch_writable, .closed = ch_closed};

static void ssh_closed(struct kb_ssh *ssh, const struct kb_err *why, void *arg)
{
	end(arg, why);
}

static void ssh_ready(struct kb_ssh *ssh, void *arg)
{
	struct shell *s = arg;

	s->ready = true;
}

static const struct kb_ssh_ops ssh_ops = {.ready = ssh_ready, .closed = ssh_closed};

static void on_cancel(int fd, unsigned events, void *arg)
{
	struct shell *s = arg;
	int signo = kb_os_signal_take(fd);

	if (signo < 0)
		return;
	s->status = 128 + signo;
	kb_ssh_channel_close(s->ch);
	end(s, NULL);
}

static void on_winch(int signo, void *arg)
{
	struct shell *s = arg;
	uint32_t rows, cols;

	if (s->tty && s->ch && kb_term_size(STDIN_FILENO, &rows, &cols))
		kb_ssh_channel_resize(s->ch, rows, cols);
}

static void on_again(void *arg)
{
	struct shell *s = arg;

	kb_loop_stop(s->loop);
}

/* ---- ssh ------------------------------------------------------------------------------------- */

/* One word is a command line for the shell there; several are exactly these words. */
static char *command_of(const struct kb_args *args, struct kb_err *err)
{
	struct kb_buf buf KB_BUF_CLEANUP;
	int r = 0;

	kb_buf_init(&buf, COMMAND_MAX);
	if (args->n_tail == 1)
		return kb_xstrdup(args->tail[0]);
	for (size_t i = 0; r == 0 && i < args->n_tail; i++) {
		r = kb_buf_puts(&buf, i ? " '" : "'", err);
		for (const char *p = args->tail[i]; r == 0 && *p; p++)
			r = *p == '\'' ? kb_buf_puts(&buf, "'\\''", err)
				       : kb_buf_append(&buf, p, 1, err);
		if (r == 0)
			r = kb_buf_puts(&buf, "'", err);
	}
	return r == 0 ? kb_buf_steal_string(&buf) : NULL;
}

static int set_up(struct shell *s, int cancel_fd, struct kb_err *err)
{
	int r = kb_loop_create(&s->loop, err);

	if (r == 0)
		r = kb_loop_io(s->loop, cancel_fd, KB_IO_READ, on_cancel, s, &s->signals, err);
	if (r == 0)
		r = kb_loop_signal(s->loop, SIGWINCH, on_winch, s, &s->winch, err);
	if (r == 0)
		r = kb_loop_timer(s->loop, on_again, s, &s->again, err);
	if (r == 0)
		r = kb_feed_init(&s->in, s->loop, STDIN_FILENO, &in_ops, s, err);
	for (int i = 0; r == 0 && i < 2; i++)
		r = kb_sink_init(
			&s->out[i], s->loop, i ? STDERR_FILENO : STDOUT_FILENO, &out_ops, s, err);
	return r;
}

static void tear_down(struct shell *s)
{
	kb_term_restore();
	kb_ssh_destroy(s->ssh);
	kb_feed_finish(&s->in);
	kb_sink_finish(&s->out[0]);
	kb_sink_finish(&s->out[1]);
	kb_source_destroy(s->again);
	kb_source_destroy(s->winch);
	kb_source_destroy(s->signals);
	kb_loop_destroy(s->loop);
}

/* One connection and what runs on it, to the end. */
static int converse(struct shell *s, const struct kb_ssh_target *target,
	const struct kb_ssh_exec *exec, struct kb_err *err)
{
	int r = kb_ssh_connect(s->loop, target, &ssh_ops, s, &s->ssh, err);

	if (r == 0)
		r = kb_ssh_exec(s->ssh, exec, &ch_ops, s, &s->ch, err);
	while (r == 0 && !(s->over && !kb_sink_waiting(&s->out[0]) && !kb_sink_waiting(&s->out[1])))
		r = kb_loop_run(s->loop, err);
	return r;
}

/* QEMU takes connections to a machine whose sshd is not there yet, and closes them again. */
static bool too_early(const struct shell *s)
{
	return s->coming && !s->ready && s->why.code == KB_ERR_CLOSED &&
	       kb_now_mono() < s->coming_until;
}

static int wait_again(struct shell *s, struct kb_err *err)
{
	kb_ssh_destroy(KB_STEAL(s->ssh));
	s->over = false;
	s->why.code = 0;
	if (kb_source_arm(s->again, RETRY_MS, err) < 0)
		return -KB_ERR_FAILED;
	return kb_loop_run(s->loop, err);
}

static int run_shell(struct kb_vm_cli *v, const struct kb_vm_ssh *to, const char *command,
	bool deaf, struct kb_err *err)
{
	struct shell s = {.tty = !deaf && v->cli->in_tty && v->cli->out_tty,
		.deaf = deaf,
		.coming = to->ours,
		.coming_until = kb_now_mono() + COMING_MS * 1000000ll};
	struct kb_ssh_exec exec = {.command = command, .tty = s.tty, .term = getenv("TERM")};
	struct kb_ssh_target target;
	struct kb_ssh_keys keys = {0};
	int r = set_up(&s, v->cancel_fd, err);

	kb_vm_target(v->cli, to, &keys, &target);
	if (s.tty && !kb_term_size(STDIN_FILENO, &exec.rows, &exec.cols))
		exec.rows = 24, exec.cols = 80;
	if (r == 0)
		r = converse(&s, &target, &exec, err);
	while (r == 0 && too_early(&s)) {
		r = wait_again(&s, err);
		if (r == 0 && !s.over)
			r = converse(&s, &target, &exec, err);
	}
	tear_down(&s);
	if (r == 0 && s.why.code) {
		*err = s.why;
		r = -(int)s.why.code;
	}
	return r < 0 ? r : s.status;
}

int kb_vm_shell(
	struct kb_vm_cli *v, const struct kb_vm_ssh *to, const char *command, struct kb_err *err)
{
	return run_shell(v, to, command, false, err);
}

int kb_vm_try(struct kb_vm_cli *v, const struct kb_vm_ssh *to, struct kb_err *err)
{
	return run_shell(v, to, "exit 0", true, err);
}

int kb_vm_wake(struct kb_vm_cli *v, const char *name, struct kb_err *err)
{
	struct kb_vm_info info;
	int r = kb_vm_query(v->vm, name, false, &info, err);

	if (r == 0 && info.state == KB_VM_SUSPENDED)
		r = kb_vm_resume(v->vm, name, &info, err);
	kb_vm_cli_settle(v);
	return r;
}

static int run_ssh(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};
	KB_FREE char *command = NULL;
	struct kb_vm_ssh to;
	int r;

	if (args->n_tail && !(command = command_of(args, err)))
		return -KB_ERR_LIMIT;
	if ((r = kb_vm_cli_open(&v, cli, err)) < 0 ||
		(r = kb_vm_wake(&v, args->operands[0], err)) < 0 ||
		(r = kb_vm_ssh(v.vm, args->operands[0], &to, err)) < 0)
		return r;
	return kb_vm_shell(&v, &to, command, err);
}

const struct kb_command kb_cmd_vm_ssh = {
	.name = "vm ssh",
	.group = KB_GROUP_MACHINES,
	.summary = "Open a shell in a machine, or run a command",
	.about = "Logs in over ssh; the machine must show the host key that is pinned for it. One "
		 "word after -- is a command line for the shell there, several are exactly these "
		 "words. Exits as the command did.",
	.operands = {{.name = "M", .min = 1, .max = 1, .kind = KB_KIND_MACHINE}},
	.tail = KB_TAIL_OPTIONAL,
	.man = "kbsup-vm",
	.run = run_ssh,
};
