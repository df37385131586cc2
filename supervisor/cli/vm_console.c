/* kbsup vm console, kbsup vm ssh-config */
#include "vm.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "keys.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/os.h"
#include "term.h"
#include "verbs.h"

#define ESCAPE_KEYS "ctrl-],q"
#define CHUNK	    4096

static int connect_console(const char *path, int *ret, struct kb_err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	KB_CLOSE int fd = kb_os_socket(AF_UNIX, SOCK_STREAM, 0, false);

	memcpy(addr.sun_path, path, strlen(path) + 1);
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return kb_err_sys(err, errno, "the console cannot be reached");
	*ret = kb_steal_fd(&fd);
	return 0;
}

/* Keys to the machine. 1 when the user leaves or there is no more input. */
static int take_keys(int console, struct kb_keys *keys, bool tty, struct kb_err *err)
{
	uint8_t in[CHUNK], out[CHUNK + KB_KEYS_MAX];
	bool leave = false;
	ssize_t n = read(STDIN_FILENO, in, sizeof(in));
	size_t len;

	if (n < 0 && errno == EINTR)
		return 0;
	if (n <= 0)
		return 1;
	len = kb_keys_feed(keys, in, (size_t)n, out, &leave);
	if (kb_fd_write_all(console, out, len, err) < 0)
		return -KB_ERR_CLOSED;
	return leave;
}

/* What the machine prints goes to the terminal as it is: that is what a console is. */
static int show(int console, struct kb_err *err)
{
	uint8_t bytes[CHUNK];
	ssize_t n = read(console, bytes, sizeof(bytes));

	if (n < 0 && errno == EINTR)
		return 0;
	if (n <= 0)
		return 1;
	return kb_fd_write_all(STDOUT_FILENO, bytes, (size_t)n, err);
}

static int relay(int console, int cancel_fd, bool tty, struct kb_err *err)
{
	struct kb_keys keys;
	bool input = true;
	int r = kb_keys_parse(&keys, tty ? ESCAPE_KEYS : "none", err);

	while (r == 0) {
		struct pollfd polls[] = {{console, POLLIN, 0},
			{input ? STDIN_FILENO : -1, POLLIN, 0}, {cancel_fd, POLLIN, 0}};

		if (poll(polls, KB_ARRAY_LEN(polls), -1) < 0 && errno != EINTR)
			return kb_err_sys(err, errno, "the console cannot be waited for");
		if (polls[2].revents)
			return 0;
		if (polls[0].revents)
			r = show(console, err);
		if (r == 0 && input && polls[1].revents) {
			r = take_keys(console, &keys, tty, err);
			/* Without a terminal, the end of the input leaves the output going. */
			if (r == 1 && !tty) {
				input = false;
				r = 0;
			}
		}
	}
	return r < 0 ? r : 0;
}

static int run_console(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};
	bool tty = cli->in_tty && cli->out_tty;
	char path[108];
	KB_CLOSE int console = -1;
	int r;

	if ((r = kb_vm_cli_open(&v, cli, err)) < 0 ||
		(r = kb_vm_console_path(v.vm, args->operands[0], path, err)) < 0 ||
		(r = connect_console(path, &console, err)) < 0)
		return r;
	if (tty) {
		fprintf(stderr, "kbsup: console of %s; leave with ctrl-] q\n", args->operands[0]);
		if ((r = kb_term_raw(STDIN_FILENO, err)) < 0)
			return r;
	}
	r = relay(console, v.cancel_fd, tty, err);
	kb_term_restore();
	return r;
}

const struct kb_command kb_cmd_vm_console = {
	.name = "vm console",
	.group = KB_GROUP_MACHINES,
	.summary = "Talk to a machine's serial console",
	.about =
		"Connects this terminal with the machine's serial console, which works without any "
		"network. ctrl-] q leaves it.",
	.operands = {{.name = "M", .min = 1, .max = 1, .kind = KB_KIND_MACHINE}},
	.man = "kbsup-vm",
	.run = run_console,
};

/* ---- ssh-config ------------------------------------------------------------------------------ */

struct config {
	struct kb_vm_cli *v;
	const char *only;
	struct kb_err *err;
	int r;
	size_t n;
};

static void print_block(const struct kb_vm_info *info, void *arg)
{
	struct config *c = arg;
	char key[PATH_MAX], known[PATH_MAX];

	if (c->r < 0 || !info->ssh_port || (c->only && strcmp(c->only, info->name) != 0))
		return;
	c->r = kb_vm_ssh_files(c->v->vm, info->name, key, known, c->err);
	if (c->r < 0)
		return;
	c->n++;
	printf("Host %s.kbsup\n"
	       "  HostName %s\n  Port %u\n  User %s\n"
	       "  HostKeyAlias %s.kbsup\n  UserKnownHostsFile \"%s\"\n  StrictHostKeyChecking "
	       "yes\n",
		info->name, info->host, info->ssh_port, info->user, info->name, known);
	if (*key)
		printf("  IdentityFile \"%s\"\n  IdentitiesOnly yes\n", key);
}

static int run_ssh_config(struct kb_cli *cli, const struct kb_args *args, struct kb_err *err)
{
	struct kb_vm_cli v KB_VM_CLI_CLEANUP = {.cancel_fd = -1};
	struct config c = {.v = &v, .only = kb_args_operand(args, 0), .err = err};
	struct kb_vm_info info;
	int r = kb_vm_cli_open(&v, cli, err);

	if (r == 0 && c.only)
		r = kb_vm_query(v.vm, c.only, false, &info, err);
	if (r == 0)
		r = kb_vm_list(v.vm, false, print_block, &c, err);
	if (r < 0 || c.r < 0)
		return r < 0 ? r : c.r;
	if (c.only && c.n == 0) {
		kb_err_set(err, KB_ERR_FAILED, "machine %s has no ssh port while it is %s", c.only,
			kb_vm_state_name(info.state));
		return kb_err_hint(err, "kbsup vm start %s", c.only);
	}
	return KB_EXIT_OK;
}

const struct kb_command kb_cmd_vm_ssh_config = {
	.name = "vm ssh-config",
	.group = KB_GROUP_MACHINES,
	.summary = "Print an OpenSSH configuration for the running machines",
	.about = "Prints one block per running machine, with its pinned host key, for ssh, git, "
		 "editors and everything else that reads ~/.ssh/config. The host is M.kbsup.",
	.operands = {{.name = "M", .max = 1, .kind = KB_KIND_MACHINE}},
	.man = "kbsup-vm",
	.run = run_ssh_config,
};
