/* From a target to a connection: its addresses, one after the other, those that may be. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker_private.h"
#include "supervisor/base/fd.h"
#include "supervisor/base/os.h"
#include "supervisor/base/util.h"

#define CONNECT_MS 10000 /* for one address */

struct kb_dial {
	struct kb_broker *broker;
	struct kb_target *target;
	struct kb_ruling *ruling, refused;
	kb_dial_fn fn;
	void *arg;
	struct kb_question *question;
	struct kb_address addresses[KB_RESOLVE_ANSWERS];
	size_t n, next;
	int fd, errnum;
	struct kb_source *io, *timer;
};

static void close_attempt(struct kb_dial *d)
{
	kb_source_destroy(d->io);
	d->io = NULL;
	kb_close(&d->fd);
}

void kb_dial_cancel(struct kb_dial *d)
{
	if (!d)
		return;
	kb_resolve_cancel(d->question);
	close_attempt(d);
	kb_source_destroy(d->timer);
	free(d);
}

static void conclude(struct kb_dial *d, int fd)
{
	kb_dial_fn fn = d->fn;
	void *arg = d->arg;
	int errnum = d->errnum ? d->errnum : EHOSTUNREACH;

	/* None of its addresses may be reached. */
	if (fd < 0 && !d->errnum && d->refused.why[0])
		*d->ruling = d->refused;
	kb_dial_cancel(d);
	fn(fd, errnum, arg);
}

static void try_next(struct kb_dial *d);

static void attempt_failed(struct kb_dial *d, int errnum)
{
	d->errnum = errnum;
	close_attempt(d);
	try_next(d);
}

static void on_connected(int fd, unsigned events, void *arg)
{
	struct kb_dial *d = arg;
	int errnum = 0;
	socklen_t len = sizeof(errnum);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &errnum, &len) < 0)
		errnum = errno;
	if (errnum) {
		attempt_failed(d, errnum);
		return;
	}
	d->target->address = d->addresses[d->next - 1];
	kb_source_destroy(d->io);
	d->io = NULL;
	conclude(d, kb_steal_fd(&d->fd));
}

static void on_timeout(void *arg)
{
	struct kb_dial *d = arg;

	if (d->fd >= 0)
		attempt_failed(d, ETIMEDOUT);
	else
		try_next(d);
}

static int connect_to(int fd, const struct kb_address *a, uint16_t port)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};

	memcpy(&in.sin_addr, a->bytes, 4);
	memcpy(&in6.sin6_addr, a->bytes, 16);
	return a->len == 4 ? connect(fd, (struct sockaddr *)&in, sizeof(in))
			   : connect(fd, (struct sockaddr *)&in6, sizeof(in6));
}

static void attempt(struct kb_dial *d, const struct kb_address *a)
{
	const int on = 1;

	d->fd = kb_os_socket(a->len == 4 ? AF_INET : AF_INET6, SOCK_STREAM, 0, true);
	if (d->fd < 0) {
		attempt_failed(d, errno);
		return;
	}
	(void)setsockopt(d->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect_to(d->fd, a, d->target->port) < 0 && errno != EINPROGRESS) {
		attempt_failed(d, errno);
		return;
	}
	if (kb_loop_io(d->broker->loop, d->fd, KB_IO_WRITE, on_connected, d, &d->io, NULL) < 0)
		attempt_failed(d, ENOMEM);
	else
		(void)kb_source_arm(d->timer, CONNECT_MS, NULL);
}

static void try_next(struct kb_dial *d)
{
	struct kb_ruling ruling = *d->ruling;

	while (d->next < d->n) {
		const struct kb_address *a = &d->addresses[d->next++];

		if (kb_decide_address(d->broker, a, d->target->port, &ruling)) {
			attempt(d, a);
			return;
		}
		d->target->address = *a;
		d->refused = ruling;
		ruling = *d->ruling;
	}
	conclude(d, -1);
}

static void on_resolved(const struct kb_address *addresses, size_t n, const char *why, void *arg)
{
	struct kb_dial *d = arg;

	d->question = NULL;
	if (n > 0)
		memcpy(d->addresses, addresses, n * sizeof(*addresses));
	d->n = n;
	try_next(d);
}

int kb_dial_start(struct kb_broker *b, struct kb_target *target, struct kb_ruling *ruling,
	kb_dial_fn fn, void *arg, struct kb_dial **ret, struct kb_err *err)
{
	struct kb_dial *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return kb_err_nomem(err);
	*d = (struct kb_dial){
		.broker = b, .target = target, .ruling = ruling, .fn = fn, .arg = arg, .fd = -1};
	r = kb_loop_timer(b->loop, on_timeout, d, &d->timer, err);
	if (r == 0 && target->name[0]) {
		r = kb_resolve(b->resolver, target->name, on_resolved, d, &d->question, err);
	} else if (r == 0) {
		d->addresses[d->n++] = target->address;
		/* From the loop, as the contract says: nothing is called back from here. */
		r = kb_source_arm(d->timer, 0, err);
	}
	if (r < 0) {
		kb_dial_cancel(d);
		return r;
	}
	*ret = d;
	return 0;
}
