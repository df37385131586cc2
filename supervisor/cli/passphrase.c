#include "passphrase.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>

#include "supervisor/base/os.h"
#include "supervisor/base/str.h"
#include "term.h"

#define TERMINAL "/dev/tty"

void kb_passphrase_wipe(struct kb_passphrase *passphrase)
{
	kb_os_wipe(passphrase, sizeof(*passphrase));
}

bool kb_passphrase_can_ask(const struct kb_cli *cli)
{
	KB_CLOSE int fd = cli->err_tty ? open(TERMINAL, O_RDWR | O_CLOEXEC | O_NOCTTY) : -1;

	return fd >= 0;
}

/* Wait until fd can be read, or the person cancels. */
static int wait_readable(struct kb_vm_cli *v, int fd, struct kb_err *err)
{
	struct pollfd polls[2] = {{fd, POLLIN, 0}, {v->cancel_fd, POLLIN, 0}};

	while (poll(polls, 2, -1) < 0)
		if (errno != EINTR)
			return kb_err_sys(err, errno, "the passphrase cannot be waited for");
	return polls[1].revents ? kb_err_set(err, KB_ERR_CLOSED, "no passphrase was given") : 0;
}

/* One line, without its end; byte by byte, because what follows may be for somebody else. */
static int read_line(struct kb_vm_cli *v, int fd, struct kb_passphrase *ret, struct kb_err *err)
{
	char c = '\0';
	int r = 0;

	ret->len = 0;
	while ((r = wait_readable(v, fd, err)) == 0) {
		ssize_t n = read(fd, &c, 1);

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n < 0)
			r = kb_err_sys(err, errno, "the passphrase cannot be read");
		if (n <= 0 || c == '\n')
			break;
		if (ret->len == sizeof(ret->bytes))
			return kb_err_set(err, KB_ERR_USAGE, "a passphrase has at most %d bytes",
				KB_PASSPHRASE_MAX);
		ret->bytes[ret->len++] = c;
	}
	if (r == 0 && ret->len == 0)
		r = kb_err_set(err, KB_ERR_CLOSED, "no passphrase was given");
	return r;
}

static int ask(struct kb_vm_cli *v, int terminal, const char *question, const char *what,
	struct kb_passphrase *ret, struct kb_err *err)
{
	int r = kb_term_quiet(terminal, err);

	if (r < 0)
		return r;
	dprintf(terminal, "%s %s: ", question, what);
	r = read_line(v, terminal, ret, err);
	kb_term_restore();
	dprintf(terminal, "\n");
	return r;
}

static int ask_twice(struct kb_vm_cli *v, int terminal, const char *what, struct kb_passphrase *ret,
	struct kb_err *err)
{
	struct kb_passphrase again KB_PASSPHRASE_CLEANUP = {.len = 0};
	int r;

	if ((r = ask(v, terminal, "New passphrase of", what, ret, err)) < 0 ||
		(r = ask(v, terminal, "Once more, the passphrase of", what, &again, err)) < 0)
		return r;
	if (again.len == ret->len && memcmp(again.bytes, ret->bytes, ret->len) == 0)
		return 0;
	return kb_err_set(err, KB_ERR_USAGE, "the two were not the same");
}

static int from_terminal(struct kb_vm_cli *v, const char *what, bool is_new,
	struct kb_passphrase *ret, struct kb_err *err)
{
	KB_CLOSE int fd = open(TERMINAL, O_RDWR | O_CLOEXEC | O_NOCTTY);

	if (fd < 0) {
		kb_err_set(err, KB_ERR_USAGE, "%s needs its passphrase, and there is no terminal",
			what);
		return kb_err_hint(err, "hand it over by a descriptor: --passphrase-fd 3 3<FILE");
	}
	kb_vm_cli_settle(v);
	return is_new ? ask_twice(v, fd, what, ret, err)
		      : ask(v, fd, "Passphrase of", what, ret, err);
}

static int from_descriptor(
	struct kb_vm_cli *v, const char *text, struct kb_passphrase *ret, struct kb_err *err)
{
	uint64_t fd;

	if (!kb_parse_u64(text, &fd) || fd > INT32_MAX || fcntl((int)fd, F_GETFD) < 0) {
		kb_err_set(err, KB_ERR_USAGE, "%s is no descriptor that is open here", text);
		return kb_err_hint(err, "for example: --passphrase-fd 3 3<FILE");
	}
	return read_line(v, (int)fd, ret, err);
}

int kb_passphrase_read(struct kb_vm_cli *v, const char *fd, const char *what, bool is_new,
	struct kb_passphrase *ret, struct kb_err *err)
{
	int r;

	kb_os_keep_private();
	r = fd ? from_descriptor(v, fd, ret, err) : from_terminal(v, what, is_new, ret, err);
	if (r < 0)
		kb_passphrase_wipe(ret);
	return r;
}
