/* kbsup vm ssh, kbsup vm add */
#include "vm.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "feed.h"
#include "sink.h"
#include "supervisor/base/dirs.h"
#include "supervisor/base/os.h"
#include "supervisor/link/ssh.h"
#include "term.h"
#include "verbs.h"

#define OUT_HIGH    (256u << 10)
#define KEYS_MAX    4
#define COMMAND_MAX (128u << 10)

struct shell {
	struct kb_loop *loop;
	struct kb_ssh *ssh;
	struct kb_ssh_channel *ch; /* NULL: over */
	struct kb_feed in;
	struct kb_sink out[2];
	struct kb_source *signals, *winch;
	bool tty, deaf, over; /* deaf: our input is not for it */
	int status;
	struct kb_err why; /* code 0: it ended well */
};

/* ---- Whose keys ------------------------------------------------------------------------------ */

struct keys {
	char path[KEYS_MAX][PATH_MAX];
	const char *list[KEYS_MAX + 1];
};

/* The machine's own key, else an agent's and what lies where ssh looks. */
static void find_keys(struct kb_cli *cli, const struct kb_vm_ssh *to, struct keys *keys,
	struct kb_ssh_target *target)
{
	static const char *const names[] = {"id_ed25519", "id_ecdsa"};
	size_t n = 0;

	if (*to->key) {
		keys->list[n++] = to->key;
	} else {
		target->agent = getenv("SSH_AUTH_SOCK");
		if (target->agent && !*target->agent)
			target->agent = NULL;
		for (size_t i = 0; i < KB_ARRAY_LEN(names); i++)
			if (snprintf(keys->path[n], PATH_MAX, "%s/.ssh/%s", cli->home, names[i]) <
					PATH_MAX &&
				access(keys->path[n], R_OK) == 0) {
				keys->list[n] = keys->path[n];
				n++;
			}
	}
	keys->list[n] = NULL;
	target->keys = keys->list;
	target->host = to->host;
	target->port = to->port;
	target->user = to->user;
	target->host_key = to->host_key;
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

static const struct kb_ssh_ops ssh_ops = {.closed = ssh_closed};

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
	kb_source_destroy(s->winch);
	kb_source_destroy(s->signals);
	kb_loop_destroy(s->loop);
}

static int run_shell(struct kb_cli *cli, const struct kb_vm_ssh *to, const char *command, bool deaf,
	int cancel_fd, struct kb_err *err)
{
	struct shell s = {.tty = !deaf && cli->in_tty && cli->out_tty, .deaf = deaf};
	struct kb_ssh_exec exec = {.command = command, .tty = s.tty, .term = getenv("TERM")};
	struct kb_ssh_target target = {0};
	struct keys keys = {0};
	int r = set_up(&s, cancel_fd, err);

	find_keys(cli, to, &keys, &target);
	if (s.tty && !kb_term_size(STDIN_FILENO, &exec.rows, &exec.cols))
		exec.rows = 24, exec.cols = 80;
	if (r == 0)
		r = kb_ssh_connect(s.loop, &target, &ssh_ops, &s, &s.ssh, err);
	if (r == 0)
		r = kb_ssh_exec(s.ssh, &exec, &ch_ops, &s, &s.ch, err);
	while (r == 0 && !(s.over && !kb_sink_waiting(&s.out[0]) && !kb_sink_waiting(&s.out[1])))
		r = kb_loop_run(s.loop, err);
	tear_down(&s);
	if (r == 0 && s.why.code) {
		*err = s.why;
		r = -(int)s.why.code;
	}
	return r < 0 ? r : s.status;
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
		(r = kb_vm_ssh(v.vm, args->operands[0], &to, err)) < 0)
		return r;
	return run_shell(cli, &to, command, false, v.cancel_fd, err);
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

/* ---- add ------------------------------------------------------------------------------------- */

/* ssh://user@host[:port] */
static int parse_target(const char *text, struct kb_vm_ssh *ret, struct kb_err *err)
{
	static const char scheme[] = "ssh://";
	const char *user = text + strlen(scheme), *at, *host, *end;
	uint64_t port = 22;

	if (strncmp(text, scheme, strlen(scheme)) != 0 || !(at = strrchr(user, '@')) || at == user)
		goto bad;
	host = at + 1;
	end = *host == '[' ? strchr(host, ']') : host + strcspn(host, ":/");
	if (!end || end == host)
		goto bad;
	if (snprintf(ret->user, sizeof(ret->user), "%.*s", (int)(at - user), user) >=
			(int)sizeof(ret->user) ||
		snprintf(ret->host, sizeof(ret->host), "%.*s", (int)(end - host - (*host == '[')),
			host + (*host == '[')) >= (int)sizeof(ret->host))
		goto bad;
	end += *end == ']';
	if (*end == ':' && (!kb_parse_u64(end + 1, &port) || port == 0 || port > UINT16_MAX))
		goto bad;
	if ((*end && *end != ':') || *ret->host == '-' || *ret->user == '-' ||
		strpbrk(ret->host, " \t\n\"'") || strpbrk(ret->user, " \t\n\"'"))
		goto bad;
	ret->port = (unsigned)port;
	return 0;
bad:
	kb_err_set(err, KB_ERR_USAGE, "%s is not ssh://USER@HOST[:PORT]", text);
	return kb_err_hint(err, "for example ssh://me@buildhost:22");
}

struct looking {
	struct kb_loop *loop;
	struct kb_source *cancel;
	char line[KB_SSH_KEY_TEXT], print[KB_SSH_PRINT_TEXT];
	struct kb_err why;
	bool done, cancelled;
};

static void on_scanned(const char *line, const char *print, const struct kb_err *why, void *arg)
{
	struct looking *l = arg;

	l->done = true;
	if (why)
		l->why = *why;
	else {
		snprintf(l->line, sizeof(l->line), "%s", line);
		snprintf(l->print, sizeof(l->print), "%s", print);
	}
	kb_loop_stop(l->loop);
}

static void on_scan_cancel(int fd, unsigned events, void *arg)
{
	struct looking *l = arg;

	l->cancelled = true;
	kb_loop_stop(l->loop);
}

static int look(const struct kb_vm_ssh *to, int cancel_fd, struct looking *l, struct kb_err *err)
{
	struct kb_ssh_target target = {.host = to->host, .port = to->port};
	struct kb_ssh *ssh = NULL;
	int r = kb_loop_create(&l->loop, err);

	if (r == 0)
		r = kb_loop_io(l->loop, cancel_fd, KB_IO_READ, on_scan_cancel, l, &l->cancel, err);
	if (r == 0)
		r = kb_ssh_scan(l->loop, &target, on_scanned, l, &ssh, err);
	while (r == 0 && !l->done && !l->cancelled)
		r = kb_loop_run(l->loop, err);
	if (!l->done)
		kb_ssh_destroy(ssh);
	kb_source_destroy(l->cancel);
	kb_loop_destroy(l->loop);
	if (r == 0 && l->cancelled)
		return kb_err_set(err, KB_ERR_CLOSED, "cancelled");
	if (r == 0 && l->why.code) {
		*err = l->why;
		return -(int)l->why.code;
	}
	return r;
}

static int ask(
	struct kb_cli *cli, const struct kb_vm_ssh *to, const struct looking *l, struct kb_err *err)
{
	char answer[16] = "";

	if (!cli->in_tty || !cli->err_tty) {
		kb_err_set(err, KB_ERR_REFUSED,
			"%s:%u shows the host key %s, which nobody confirmed", to->host, to->port,
			l->print);
		return kb_err_hint(err,
			"compare it with the machine's, then add it with --host-key %s", l->print);
	}
	fprintf(stderr,
		"%s:%u shows the host key\n  %s\nIs it the machine's own (ssh-keygen -lf "
		"/etc/ssh/ssh_host_ed25519_key.pub there)? [y/N] ",
		to->host, to->port, l->print);
	if (fgets(answer, sizeof(answer), stdin) &&
		(!strcmp(answer, "y\n") || !strcmp(answer, "yes\n")))
		return 0;
	return kb_err_set(err, KB_ERR_REFUSED, "the host key was not confirmed; nothing was added");
}

/* given: a fingerprint or a whole key. */
static int confirm(struct kb_cli *cli, const struct kb_vm_ssh *to, const struct looking *l,
	const char *given, struct kb_err *err)
{
	char print[KB_SSH_PRINT_TEXT];
	int r = 0;

	if (!given)
		return ask(cli, to, l, err);
	if (strncmp(given, "SHA256:", 7) != 0) {
		r = kb_ssh_fingerprint(given, print, err);
		if (r < 0)
			return kb_err_prefix(err, "--host-key");
		given = print;
	}
	if (!strcmp(given, l->print))
		return 0;
	kb_err_set(err, KB_ERR_REFUSED, "%s:%u shows the host key %s, not %s", to->host, to->port,
		l->print, given);
	return kb_err_hint(err, "something else may answer there; nothing was added");
}

static int run_add(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};
	const char *key = kb_args_value(args, "key");
	struct looking l = {0};
	struct kb_vm_ssh to = {0};
	int r = parse_target(args->operands[1], &to, err);

	if (r < 0)
		return r;
	if (key && !realpath(key, to.key))
		return kb_err_sys(err, errno, "%s cannot be read", key);
	if ((r = kb_vm_cli_open(&v, cli, err)) < 0 || (r = look(&to, v.cancel_fd, &l, err)) < 0 ||
		(r = confirm(cli, &to, &l, kb_args_value(args, "host-key"), err)) < 0)
		return r;
	snprintf(to.host_key, sizeof(to.host_key), "%s", l.line);
	/* It must let us in, with that key shown again. */
	r = run_shell(cli, &to, "exit 0", true, v.cancel_fd, err);
	if (r > 0)
		return kb_err_set(err, KB_ERR_FAILED, "no command runs on %s", to.host);
	if (r == 0)
		r = kb_vm_add(v.vm, args->operands[0], &to, err);
	if (r == 0)
		fprintf(stderr, "kbsup: %s added, host key %s pinned · kbsup vm ssh %s\n",
			args->operands[0], l.print, args->operands[0]);
	return r;
}

static const struct kb_option add_options[] = {
	{.name = "host-key",
		.arg = "KEY",
		.help = "The host key it must show, or its SHA256: fingerprint"},
	{.name = "key",
		.arg = "FILE",
		.kind = KB_KIND_FILE,
		.help = "The private key to log in with; else an agent's and those in ~/.ssh"},
	{0},
};

const struct kb_command kb_cmd_vm_add = {
	.name = "vm add",
	.group = KB_GROUP_MACHINES,
	.summary = "Add an existing Linux machine that is reached over ssh",
	.about = "Shows the machine's host key and pins it once it is confirmed; it is checked at "
		 "every connection from then on. kbsup does not start or stop such a machine; "
		 "deleting it only forgets it.",
	.options = add_options,
	.operands = {{.name = "NAME", .min = 1, .max = 1},
		{.name = "ssh://USER@HOST[:PORT]", .min = 1, .max = 1}},
	.man = "kbsup-vm",
	.run = run_add,
};
