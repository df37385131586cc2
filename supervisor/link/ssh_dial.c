/* From a name to a connected socket. Looking up a name may take as long as its servers like, so a
 * child process does it; killing it ends the wait. Addresses are tried one after the other. The
 * deadline is the caller's.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ssh_private.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/os.h"

#define ADDRESSES_MAX 8

struct address {
	socklen_t len;
	struct sockaddr_storage sa;
};

/* What the child says; short enough for a pipe to take in one piece. */
struct answer {
	int error; /* of getaddrinfo(3) */
	unsigned n;
	struct address list[ADDRESSES_MAX];
};
_Static_assert(sizeof(struct answer) <= 4096, "an answer fits a pipe");

struct kb_ssh_dial {
	struct kb_loop *loop;
	const struct kb_ssh_dial_ops *ops;
	void *arg;
	char *host;
	unsigned port;
	struct answer answer;
	size_t got;
	unsigned next; /* address to try */
	int errnum;    /* of the last one */
	pid_t child;
	int fd; /* of the child's answer, then the socket */
	struct kb_source *io, *kick;
};

static void look_up(const char *host, unsigned port, int flags, struct answer *ret)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags};
	struct addrinfo *list = NULL;
	char service[16];

	snprintf(service, sizeof(service), "%u", port);
	ret->error = getaddrinfo(host, service, &hints, &list);
	for (struct addrinfo *a = list; a && ret->n < ADDRESSES_MAX; a = a->ai_next) {
		if (a->ai_addrlen > sizeof(ret->list[0].sa))
			continue;
		ret->list[ret->n].len = a->ai_addrlen;
		memcpy(&ret->list[ret->n++].sa, a->ai_addr, a->ai_addrlen);
	}
	if (list)
		freeaddrinfo(list);
}

static void end_child(struct kb_ssh_dial *d)
{
	if (d->child <= 0)
		return;
	kill(d->child, SIGKILL);
	while (waitpid(d->child, NULL, 0) < 0 && errno == EINTR)
		;
	d->child = 0;
}

static void forget_fd(struct kb_ssh_dial *d)
{
	kb_source_destroy(d->io);
	d->io = NULL;
	kb_close(&d->fd);
}

static void fail(struct kb_ssh_dial *d)
{
	struct kb_err err;

	if (d->answer.error)
		kb_err_set(&err, KB_ERR_UNREACHABLE, "%s is not known here: %s", d->host,
			gai_strerror(d->answer.error));
	else
		kb_err_sys(&err, d->errnum ? d->errnum : ECONNREFUSED, "%s:%u cannot be reached",
			d->host, d->port);
	err.code = KB_ERR_FAILED;
	kb_err_hint(&err, "is the machine up, and does its sshd listen there?");
	d->ops->failed(&err, d->arg);
}

static void try_next(struct kb_ssh_dial *d);

static void on_connected(int fd, unsigned events, void *arg)
{
	struct kb_ssh_dial *d = arg;
	socklen_t len = sizeof(d->errnum);
	int sock, on = 1;

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &d->errnum, &len) < 0)
		d->errnum = errno;
	if (d->errnum) {
		try_next(d);
		return;
	}
	sock = kb_steal_fd(&d->fd);
	forget_fd(d);
	setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	d->ops->connected(sock, d->arg);
}

static void try_next(struct kb_ssh_dial *d)
{
	struct kb_err err;

	for (;;) {
		const struct address *a = &d->answer.list[d->next];

		forget_fd(d);
		if (d->next++ >= d->answer.n) {
			fail(d);
			return;
		}
		d->fd = kb_os_socket(a->sa.ss_family, SOCK_STREAM, IPPROTO_TCP, true);
		if (d->fd < 0 || (connect(d->fd, (const struct sockaddr *)&a->sa, a->len) < 0 &&
					 errno != EINPROGRESS))
			d->errnum = errno;
		else if (kb_loop_io(d->loop, d->fd, KB_IO_WRITE, on_connected, d, &d->io, &err) ==
			 0)
			return;
	}
}

static void on_answer(int fd, unsigned events, void *arg)
{
	struct kb_ssh_dial *d = arg;
	ssize_t n = read(fd, (char *)&d->answer + d->got, sizeof(d->answer) - d->got);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	d->got += n > 0 ? (size_t)n : 0;
	if (n > 0 && d->got < sizeof(d->answer))
		return;
	end_child(d);
	if (d->got < sizeof(d->answer))
		d->answer = (struct answer){.error = EAI_FAIL};
	try_next(d);
}

static int start_child(struct kb_ssh_dial *d, struct kb_err *err)
{
	int pipes[2];

	if (kb_os_pipe(pipes, true) < 0)
		return kb_err_sys(err, errno, "no pipe");
	d->fd = pipes[0];
	d->child = fork();
	if (d->child == 0) {
		struct answer answer = {0};

		look_up(d->host, d->port, AI_ADDRCONFIG, &answer);
		_exit(write(pipes[1], &answer, sizeof(answer)) != sizeof(answer));
	}
	close(pipes[1]);
	if (d->child < 0)
		return kb_err_sys(err, errno, "a name cannot be looked up");
	return kb_loop_io(d->loop, d->fd, KB_IO_READ, on_answer, d, &d->io, err);
}

static void on_kick(void *arg)
{
	try_next(arg);
}

int kb_ssh_dial_start(struct kb_loop *loop, const char *host, unsigned port,
	const struct kb_ssh_dial_ops *ops, void *arg, struct kb_ssh_dial **ret, struct kb_err *err)
{
	struct kb_ssh_dial *d = calloc(1, sizeof(*d));
	int r = 0;

	if (!d)
		return kb_err_nomem(err);
	d->fd = -1;
	d->loop = loop;
	d->ops = ops;
	d->arg = arg;
	d->port = port;
	d->host = strdup(host);
	if (!d->host)
		r = kb_err_nomem(err);
	if (r == 0)
		look_up(host, port, AI_NUMERICHOST, &d->answer);
	if (r == 0 && d->answer.n) {
		r = kb_loop_timer(loop, on_kick, d, &d->kick, err);
		if (r == 0)
			r = kb_source_arm(d->kick, 0, err);
	} else if (r == 0) {
		d->answer = (struct answer){0};
		r = start_child(d, err);
	}
	if (r < 0)
		kb_ssh_dial_destroy(d);
	else
		*ret = d;
	return r;
}

void kb_ssh_dial_destroy(struct kb_ssh_dial *d)
{
	if (!d)
		return;
	forget_fd(d);
	end_child(d);
	kb_source_destroy(d->kick);
	free(d->host);
	free(d);
}
