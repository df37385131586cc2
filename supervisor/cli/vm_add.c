/* kbsup vm add: existing machines, with a host key that somebody confirmed */
#include <errno.h>
#include <string.h>

#include "supervisor/base/str.h"
#include "verbs.h"
#include "vm_ssh.h"

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
	r = kb_vm_try(&v, &to, err);
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
